r"""Many laws on a line at once: their scores in one call, and a sampler's error on each.

A sampler without noise is a map S of the line. With F_T and Q_0 the distribution function of x_T
and the quantile function of x at t_min,

    W2(S on p, p_{t_min})^2 = int_0^1 (S(Q_T(u)) - Q_0(u))^2 du                                 (1)

where S rises, and an upper bound where it folds. The real sampler runs once on the nodes of all
laws: rows of x belong to the laws in turn.

A node stands for the mass of a cell. Cells share out, for each law, a measure that is part mass,
part width in deviations of the normal law (the tails), part width in x (the gap between two
modes, through which the map is steep), and part that of the law with its gaps half closed.

Reference: Villani, Topics in Optimal Transportation, theorem 2.18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.exact.passes import ZeroNoise
from sdekit.model.parametrization import Score
from sdekit.model.prediction import PerTime, Prediction, RawCall
from sdekit.sampling.base import CountedModel, Sampler
from sdekit.sde.base import LinearSDE
from sdekit.targets import GaussianMixture

__all__ = ["Bank", "Laws", "MapErrors", "quadrature"]

_BISECTIONS = 52  # halvings of the range of x: to rounding
_REACH = 10.0  # deviations of a component that hold all of it
_TAIL = 5.5  # of the normal law, where the last cells begin: 2e-8 lies beyond
_FINE = 201  # points on which the measure of the cells is known
_SHARES = (0.4, 0.2, 0.2, 0.2)  # of mass, deviations, width, width of the softened law
_SOFT = 0.2  # of a law's deviation: the noise that softens it


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
        """The table of mixtures in one dimension; a component that pads has no weight."""
        k = max(len(law.weights) for law in mixtures)

        def padded(values: Tensor, fill: float) -> Tensor:
            flat = values.reshape(-1)
            return torch.cat([flat, flat.new_full((k - len(flat),), fill)])

        return cls(
            torch.stack([padded(law.weights, 0.0) for law in mixtures]),
            torch.stack([padded(law.means, float(law.means[0, 0])) for law in mixtures]),
            torch.stack([padded(law.covs, float(law.covs[0, 0, 0])) for law in mixtures]),
        )

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, i: int) -> GaussianMixture:
        kept = self.weights[i] > 0
        means, variances = self.means[i][kept][:, None], self.vars[i][kept]
        return GaussianMixture(self.weights[i][kept], means, variances)

    def joined(self, other: Laws) -> Laws:
        """These laws and then others."""
        mine, its = ([law[i] for i in range(len(law))] for law in (self, other))
        return Laws.of([*mine, *its])

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

    def quantile(self, u: Tensor) -> Tensor:
        """Q(u) [(laws, n)], by bisection, for u [(n,) or (laws, n)] away from 0 and 1."""
        u = u.expand(len(self), u.shape[-1])
        reach = _REACH * self.vars.sqrt()
        low = (self.means - reach).amin(1, keepdim=True).expand_as(u)
        high = (self.means + reach).amax(1, keepdim=True).expand_as(u)
        weights, means = self.weights[..., None], self.means[..., None]
        precision = self.vars.rsqrt()[..., None]
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            z = (middle[:, None] - means) * precision
            below = (weights * torch.special.ndtr(z)).sum(1) < u
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


def quadrature(laws: Laws, n: int) -> tuple[Tensor, Tensor]:
    """Levels u of the nodes, and the mass of their cells [(laws, n)], for laws at the end."""
    z = torch.linspace(-_TAIL, _TAIL, _FINE, dtype=torch.float64)
    u = torch.special.ndtr(z)
    soft = laws.perturbed(1.0, (_SOFT * laws.std).square())
    widths = [u.expand(len(laws), -1), z.expand(len(laws), -1), laws.quantile(u), soft.quantile(u)]
    measure = sum(
        share * (width - width[:, :1]) / (width[:, -1:] - width[:, :1])
        for share, width in zip(_SHARES, widths, strict=True)
    )
    middles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    edges = torch.arange(1, n, dtype=torch.float64) / n
    at = _interpolated(torch.cat([middles, edges]), measure, z)
    inner = torch.special.ndtr(at[:, n:])
    ends = inner.new_zeros(len(laws), 1)
    cells = torch.cat([ends, inner, ends + 1], 1).diff(dim=1)
    return torch.special.ndtr(at[:, :n]), cells


def _interpolated(wanted: Tensor, rising: Tensor, values: Tensor) -> Tensor:
    """Values [(m,)] where rising functions [(laws, m)] have heights [(n,)] -> [(laws, n)]."""
    wanted = wanted.expand(len(rising), -1).contiguous()
    k = torch.searchsorted(rising.contiguous(), wanted).clamp(1, rising.shape[1] - 1)
    low, high = rising.gather(1, k - 1), rising.gather(1, k)
    return values[k - 1] + (wanted - low) / (high - low) * (values[k] - values[k - 1])


@dataclass(frozen=True, eq=False)
class MapErrors:
    """Eq. (1) of a sampler without noise as a function of the grid.

    Attributes:
        sampler: the sampler.
        sde: the process.
        laws: the laws at t = 0.
        groups: weights [(groups, laws)] of the squared errors that are summed; a group stands for
            laws that are much alike, so that an error that vanishes by accident does not count.
        nodes: of each law.
    """

    sampler: Sampler
    sde: LinearSDE
    laws: Laws
    groups: Tensor
    nodes: int

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes at t_max [(laws n, 1)], their true images and masses [(laws, n)]."""
        first, last = (
            self.laws.perturbed(float(self.sde.alpha(t)), float(self.sde.var(t)))
            for t in (self.sde.t_max, self.sde.t_min)
        )
        u, mass = quadrature(last, self.nodes)
        return first.quantile(u).reshape(-1, 1), last.quantile(u), mass

    @cached_property
    def _bank(self) -> Bank:
        return Bank(self.laws, self.sde, self.nodes)

    def each(self, grid: Tensor) -> Tensor:
        """Eq. (1) for every law [(laws,)].

        Raises:
            SdekitError: the run's.
        """
        start, truth, mass = self._ends
        frames = self.sampler.frames(
            CountedModel(self._bank), start, grid, ZeroNoise(), only={len(grid) - 1}
        )
        with torch.no_grad():
            *_, end = frames
        away = end.x.reshape(truth.shape) - truth
        return (mass * away.square()).sum(1).sqrt()

    def __call__(self, grid: Tensor) -> Tensor:
        """The errors of the groups [(groups,)]; infinite where the run fails."""
        try:
            squares = self.each(grid).square()
        except SdekitError:
            return torch.full((len(self.groups),), torch.inf, dtype=torch.float64)
        errors = (self.groups @ squares).sqrt()
        return torch.where(torch.isfinite(errors), errors, torch.inf)
