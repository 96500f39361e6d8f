"""Many laws on a line at once, and their exact scores in one call, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.model.parametrization import Score
from sdekit.model.prediction import PerTime, Prediction, RawCall
from sdekit.sde.base import LinearSDE
from sdekit.targets import GaussianMixture

__all__ = ["Bank", "Laws"]

_BISECTIONS = 52  # halvings of the range of x: to rounding
_REACH = 10.0  # deviations of a component that hold all of it


@dataclass(frozen=True, eq=False)
class Laws:
    """Mixtures of Gaussians on a line, all padded to the same number of components.

    Attributes:
        weights: [(laws, k)].
        means: [(laws, k)].
        vars: [(laws, k)].
    """

    weights: Tensor
    means: Tensor
    vars: Tensor

    @classmethod
    def of(cls, mixtures: Sequence[GaussianMixture]) -> Laws:
        """The table of mixtures in one dimension."""
        return cls.together(
            [cls(law.weights[None], law.means.T, law.covs.reshape(1, -1)) for law in mixtures]
        )

    @classmethod
    def together(cls, tables: Sequence[Laws]) -> Laws:
        """The laws of all tables, one after the other; a component that pads has no weight."""
        k = max(table.weights.shape[1] for table in tables)
        padded = (table._padded(k) for table in tables)
        return cls(*(torch.cat(rows) for rows in zip(*padded, strict=True)))

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, i: int) -> GaussianMixture:
        kept = self.weights[i] > 0
        means, variances = self.means[i][kept][:, None], self.vars[i][kept]
        return GaussianMixture(self.weights[i][kept], means, variances)

    def joined(self, other: Laws) -> Laws:
        """These laws and then others."""
        return Laws.together([self, other])

    def _padded(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The three tables with k columns: the first component again, without weight."""
        more = k - self.weights.shape[1]
        weights = torch.nn.functional.pad(self.weights, (0, more))
        means, variances = (
            torch.cat([table, table[:, :1].expand(-1, more)], 1)
            for table in (self.means, self.vars)
        )
        return weights, means, variances

    def taken(self, index: Tensor) -> Laws:
        """Some of the laws [(n,)], no wider than they need."""
        k = int(self.components[index].amax()) if len(index) else 1
        return Laws(*(table[index, :k] for table in (self.weights, self.means, self.vars)))

    @property
    def components(self) -> Tensor:
        """How many each law has [(laws,)]."""
        return (self.weights > 0).sum(1)

    def scaled(self, factor: float) -> Laws:
        """The laws of factor x."""
        return Laws(self.weights, factor * self.means, factor**2 * self.vars)

    def perturbed(self, alpha: float, var: Tensor | float) -> Laws:
        """The laws of alpha x + sqrt(var) z."""
        return Laws(self.weights, alpha * self.means, alpha**2 * self.vars + var)

    @property
    def std(self) -> Tensor:
        """Standard deviations [(laws, 1)]."""
        mean = (self.weights * self.means).sum(1, keepdim=True)
        square = self.vars + (self.means - mean).square()
        return (self.weights * square).sum(1, keepdim=True).sqrt()

    def cdf(self, x: Tensor) -> Tensor:
        """F(x) [(laws, n)] for x [(laws, n)]."""
        z = (x[:, None] - self.means[..., None]) * self.vars.rsqrt()[..., None]
        return (self.weights[..., None] * torch.special.ndtr(z)).sum(1)

    def quantile(self, u: Tensor) -> Tensor:
        """Q(u) [(laws, n)], by bisection, for u [(n,) or (laws, n)] away from 0 and 1."""
        u = u.expand(len(self), u.shape[-1])
        reach = _REACH * self.vars.sqrt()
        low = (self.means - reach).amin(1, keepdim=True).expand_as(u)
        high = (self.means + reach).amax(1, keepdim=True).expand_as(u)
        return self.bisected(u, low, high, _BISECTIONS)

    def bisected(self, u: Tensor, low: Tensor, high: Tensor, halvings: int) -> Tensor:
        """Q(u) between bounds, all [(laws, n)]."""
        for _ in range(halvings):
            middle = 0.5 * (low + high)
            below = self.cdf(middle) < u
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)


class Bank:
    """The exact scores of all laws as one predictor: row j of x belongs to law j // n.

    Args:
        laws: the laws at t = 0.
        sde: the process.
        n: how many rows each law has.
    """

    parametrization = Score()

    def __init__(self, laws: Laws, sde: LinearSDE, n: int) -> None:
        self.laws, self.sde, self.n = laws, sde, n

    def bind(self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> RawCall:
        """The scores as a function of (x, float), the perturbed laws made once a time."""
        del x, cond

        def made(t: Tensor) -> list[tuple[float, float]]:
            sde = self.sde.reaching(float(t.max()))
            return list(zip(sde.alpha(t).tolist(), sde.var(t).tolist(), strict=True))

        def parts(of: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
            law = self.laws.perturbed(*of)
            level = law.weights.log() - 0.5 * law.vars.log()
            return law.means[..., None], law.vars[..., None].reciprocal(), level[..., None]

        held = PerTime(made, times, parts)

        def score(x: Tensor, t: float) -> Tensor:
            means, precision, level = held[t]
            gap = x.reshape(-1, 1, self.n) - means
            pull = gap * precision
            share = torch.softmax(torch.addcmul(level, pull, gap, value=-0.5), 1)
            return share.mul_(pull).sum(1).neg_().reshape(-1, 1)

        return score

    def __call__(self, x: Tensor, t: Any, **cond: Any) -> Prediction:
        """The prediction at x [(laws n, 1)] and one time."""
        raw = self.bind(x, (), cond)(x, float(t))
        return Prediction(x, raw, t, (self.sde, self.parametrization))
