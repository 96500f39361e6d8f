r"""The Kullback-Leibler divergence from distances to nearest neighbours.

With rho_i the distance of x_i to its k-th neighbour among the other n - 1 of x, and nu_i that to
its k-th among the m of y, in d dimensions,

    KL(x, y) = d/n sum_i log(nu_i / rho_i) + log(m / (n - 1)).                                  (1)

The estimates n -> k / (n V rho^d) of the densities are biased in their logarithms by the same
digamma(k), which cancels. (1) can be negative: its mean at the truth is near 0. Where y is sparse
its balls are too wide and (1) too small, by a seventh for 20000 samples in three dimensions. Where
the target has a density p, `density=True` uses it and y not at all:

    KL(x, p) = -mean log p(x_i) - H,
    H = digamma(n) - digamma(k) + log V_d + d/n sum_i log rho_i,                                (2)

with V_d the volume of the unit ball. That is sharper in few dimensions; in many, what H has of
bias is not cancelled as in (1).

The standard error is that of a mean over x plus what the choice of y does: a point y_j that is
among the k nearest of c_j samples has a part c_j / (n k) in the mean, where 1/m would be its own,

    stderr^2 = Var_i(log ratio_i) / n + sum_j (c_j / (n k))^2 - 1/m,                            (3)

with the x in place of y for (2). Measured coverage is 95 to 98 %, at the truth and far from it.

Points that coincide have no density. Distances are taken as 1e-12 of the data's extent at least,
so that copies give a large number and not infinity.

References: Wang, Kulkarni and Verdu 2009, doi:10.1109/TIT.2009.2016060, for (1); Kozachenko and
Leonenko 1987, and Kraskov et al., arXiv:cond-mat/0305641, eq. 20, for (2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import special
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import flag, integer, shown
from sdekit.errors import DataError
from sdekit.metrics.base import Estimate, SampleMetric
from sdekit.metrics.sets import Array, Found, checked_points, compared, generator, neighbours
from sdekit.targets import ExactTarget, Target

__all__ = ["KL", "kl_divergence"]

_TINY = 1e-12  # of the extent of the data: the least distance


def _logs(
    points: Array, at: Array, k: int, least: float, own: bool = False
) -> tuple[Array, Array]:
    """d log of the distances to the k-th neighbours, and how often a point is one of the k."""
    distance, row = neighbours(points, at, k, own=own)
    times = np.bincount(row.ravel(), minlength=len(points))
    return points.shape[1] * np.log(np.maximum(distance[:, -1], least)), times / k


@register("metric", "kl", paper="Wang, Kulkarni and Verdu 2009, doi:10.1109/TIT.2009.2016060")
@dataclass(frozen=True, kw_only=True)
class KL(SampleMetric):
    """The Kullback-Leibler divergence of x from y by nearest neighbours, eq. (1).

    Args:
        k: which neighbour, >= 1; more are steadier and more biased.
        points: how many samples of each set are used, the first ones; None for all.
        density: whether to use the target's density in place of y, eq. (2).

    Raises:
        ConfigError: k < 1, or fewer points than k + 2.
        DtypeError: a field is of the wrong type.

    Reference: doi:10.1109/TIT.2009.2016060.

    Example:
        >>> import torch
        >>> x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
        >>> found = KL().measure(x[:2000], x[2000:] + 1)  # 1/2 |shift|^2
        >>> abs(found - 0.5) < 4 * found.stderr
        True
    """

    title: ClassVar[str] = "KL"
    unit: ClassVar[str] = "nats"

    k: int = 5
    points: int | None = 2000
    density: bool = False

    def __post_init__(self) -> None:
        self._set(k=integer("k", self.k, ge=1), density=flag("density", self.density))
        self._set(points=checked_points(self.points, ge=self.k + 2))

    def measure(
        self,
        x: Tensor,
        y: Tensor,
        *,
        floor: Tensor | None = None,
        target: Target | None = None,
        seed: int = 0,
    ) -> Estimate:
        """Eq. (1), or (2) with density=True, in nats; see `SampleMetric.measure`.

        Raises:
            DataError: density=True and the target has none.
        """
        if self.density and not isinstance(target, ExactTarget):
            raise DataError(
                f"target={shown(target)} has no density; density=False needs none, only y"
            )
        generator(seed)  # is not used, and is checked as by all
        shape = y.shape[1:] if isinstance(y, Tensor) else ()

        def find(a: Array, b: Array, tested: bool) -> Found:
            extent = float(np.abs(b - b[0]).max()) + float(np.abs(a - b[0]).max())
            least = _TINY * extent or 1.0
            (n, d), m = a.shape, len(b)
            own, times = _logs(a, a, self.k, least, own=True)
            if self.density:
                assert isinstance(target, ExactTarget)  # seen above
                cross = -target.log_prob(torch.from_numpy(a).reshape(-1, *shape)).numpy()
                ball = d / 2 * math.log(math.pi) - special.gammaln(d / 2 + 1)
                terms = cross - own
                constant = special.digamma(self.k) - special.digamma(n) - ball
                shared = np.square(times / n).sum() - 1 / n
            else:
                other, times = _logs(b, a, self.k, least)
                terms, constant = other - own, math.log(m / (n - 1))
                shared = np.square(times / n).sum() - 1 / m
            stderr = math.sqrt(terms.var() / n + max(float(shared), 0.0))  # eq. (3)
            return Found(float(terms.mean() + constant), stderr)

        return compared(find, x, y, floor, points=self.points, least=self.k + 2, lo=-math.inf)

    @classmethod
    def examples(cls) -> list[KL]:
        """With five neighbours and with one."""
        return [cls(), cls(k=1, points=500)]


def kl_divergence(
    x: Tensor,
    y: Tensor,
    *,
    floor: Tensor | None = None,
    k: int = 5,
    points: int | None = None,
    seed: int = 0,
) -> Estimate:
    """The Kullback-Leibler divergence, eq. (1); arguments and errors of `KL`, of all points.

    Example:
        >>> import torch
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> found = kl_divergence(x[:500], x[500:])
        >>> abs(found) < 4 * found.stderr
        True
    """
    return KL(k=k, points=points).measure(x, y, floor=floor, seed=seed)
