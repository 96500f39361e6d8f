r"""Energy distance and maximum mean discrepancy, with tests by permutation.

For a kernel k and the signed weights w = (1/n on x, -1/m on y) of the pooled sets z,

    MMD^2    = sum_ij w_i w_j k(z_i, z_j) = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)      (1)
    energy^2 = -sum_ij w_i w_j |z_i - z_j|
             = 2 mean |x - y| - mean |x - x'| - mean |y - y'|,                                  (2)

V-statistics, diagonals included: (1) is never negative, nor is (2). Both values here are roots; in
one dimension (2) is `scipy.stats.energy_distance`. The kernel is Gaussian,

    k(a, b) = exp(-|a - b|^2 / (2 h^2)),                                                        (3)

with h the median distance of y to itself, so that all samplers are measured by one ruler. Where
both sets have one law their labels can be exchanged: with B random exchanges,

    p = (1 + number of exchanges whose value is >= the value) / (1 + B)                         (4)

is at most alpha with probability <= alpha. Value, blocks and exchanges are columns of weights, and
one product with the matrix of k, made and used some rows at a time, gives them all.

References: Gretton et al., JMLR 13:723, eq. 5 for (1); Szekely and Rizzo 2013,
doi:10.1016/j.jspi.2013.03.018, eq. 6.1 for (2); Phipson and Smyth, arXiv:1603.05766, for (4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.spatial.distance import cdist, pdist
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import integer, number
from sdekit.metrics.base import Estimate, SampleMetric
from sdekit.metrics.sets import Array, Found, checked_points, compared, generator, partitions
from sdekit.targets import Target

__all__ = ["MMD", "EnergyDistance", "energy_distance", "mmd"]

_CHUNK = 512  # rows of the matrix at a time
_RULER = 2000  # samples of y whose distances give the bandwidth


def _forms(z: Array, weights: Array, kernel: Callable[[Array], Array]) -> Array:
    """sum_ij w_i w_j k(|z_i - z_j|) for each column w [(columns,)]."""
    total: Array = np.zeros(weights.shape[1])
    for start in range(0, len(z), _CHUNK):
        rows = slice(start, start + _CHUNK)
        total += np.einsum("ij,ij->j", weights[rows], kernel(cdist(z[rows], z)) @ weights)
    return total


def _found(
    x: Array, y: Array, kernel: Callable[[Array], Array], permutations: int, seed: int
) -> Found:
    """The root of a form, its error from blocks, and its p-value by eq. (4)."""
    n, m = len(x), len(y)
    parts = partitions(n, m, generator(seed, 1))
    plain = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    blocks = np.zeros((n + m, len(parts.pairs)))
    for column, (i, j) in enumerate(parts):
        blocks[i, column], blocks[n + j, column] = 1 / len(i), -1 / len(j)
    rng = generator(seed, 2)
    mixed = rng.permuted(np.broadcast_to(plain, (permutations, n + m)), axis=1).T
    columns = np.concatenate([np.abs(plain)[:, None], plain[:, None], blocks, mixed], axis=1)
    squared = _forms(np.concatenate([x, y]), columns, kernel)
    (size, first), squares, null = np.split(squared, [2, 2 + len(parts.pairs)])
    value = math.sqrt(max(float(first), 0.0))
    # an exchange that changes nothing has the value, but for the rounding of sums of this size
    at_least = int((null >= first - 1e-13 * abs(size)).sum())
    return Found(
        value,
        lambda: parts.stderr_of_root(value, squares),
        parts.df,
        (1 + at_least) / (1 + permutations) if permutations else None,
    )


def _check(metric: EnergyDistance | MMD) -> None:
    metric._set(
        points=checked_points(metric.points, ge=4),
        permutations=integer("permutations", metric.permutations, ge=0),
    )


@register("metric", "energy_distance", paper="Szekely and Rizzo 2013, eq. 6.1")
@dataclass(frozen=True, kw_only=True)
class EnergyDistance(SampleMetric):
    """The energy distance with a test by permutation, the root of eq. (2).

    Args:
        points: how many samples of each set are used, the first ones, >= 4; None for all. The
            time grows as the square.
        permutations: B of eq. (4); 0 for no p-value.

    Raises:
        ConfigError: points < 4 or permutations < 0.
        DtypeError: a field is no int.

    Reference: doi:10.1016/j.jspi.2013.03.018, eq. 6.1.

    Example:
        >>> import torch
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> found = EnergyDistance().measure(x[:200], x[200:] + 1)
        >>> found.p_value < 0.01, found.n
        (True, 200)
    """

    title: ClassVar[str] = "energy distance"
    unit: ClassVar[str] = "root of the data's units"

    points: int | None = 1000
    permutations: int = 500

    def __post_init__(self) -> None:
        _check(self)

    def measure(
        self,
        x: Tensor,
        y: Tensor,
        *,
        floor: Tensor | None = None,
        target: Target | None = None,
        seed: int = 0,
    ) -> Estimate:
        """The root of eq. (2), with the p-value of eq. (4); see `SampleMetric.measure`."""

        def find(a: Array, b: Array, tested: bool) -> Found:
            return _found(a, b, np.negative, self.permutations if tested else 0, seed)

        return compared(find, x, y, floor, points=self.points)

    @classmethod
    def examples(cls) -> list[EnergyDistance]:
        """With a test and without."""
        return [cls(), cls(points=200, permutations=0)]


@register("metric", "mmd", paper="Gretton et al., JMLR 13:723, eq. 5")
@dataclass(frozen=True, kw_only=True)
class MMD(SampleMetric):
    """The maximum mean discrepancy of a Gaussian kernel, eq. (1): its root.

    Args:
        bandwidth: h of eq. (3), > 0; None for the median distance of y to itself (1 where that
            is 0: all points are equal). It belongs to y, not to the pooled sets; that the
            exchanges of the test leave it as it is was not seen to move p-values.
        points: how many samples of each set are used, the first ones, >= 4; None for all.
        permutations: B of eq. (4); 0 for no p-value.

    Raises:
        ConfigError: bandwidth <= 0, points < 4 or permutations < 0.
        DtypeError: a field is no number.

    Reference: Gretton et al., JMLR 13:723, eq. 5; section 8 for the median.

    Example:
        >>> import torch
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> found = MMD().measure(x[:200], x[200:] + 1)
        >>> found.p_value < 0.01, found.hi
        (True, 1.4142135623730951)
    """

    title: ClassVar[str] = "MMD"
    unit: ClassVar[str] = "kernel units"

    bandwidth: float | None = None
    points: int | None = 1000
    permutations: int = 500

    def __post_init__(self) -> None:
        _check(self)
        if self.bandwidth is not None:
            self._set(bandwidth=number("bandwidth", self.bandwidth, gt=0))

    def measure(
        self,
        x: Tensor,
        y: Tensor,
        *,
        floor: Tensor | None = None,
        target: Target | None = None,
        seed: int = 0,
    ) -> Estimate:
        """The root of eq. (1), with the p-value of eq. (4); see `SampleMetric.measure`."""

        def find(a: Array, b: Array, tested: bool) -> Found:
            h = self.bandwidth
            if h is None:
                h = float(np.median(pdist(b[:_RULER]))) or 1.0

            def kernel(distance: Array) -> Array:
                gaussian: Array = np.exp(-0.5 * np.square(distance / h))
                return gaussian

            found = _found(a, b, kernel, self.permutations if tested else 0, seed)
            return Found(found.value, found.stderr, found.df, found.p_value, {"bandwidth": h})

        return compared(find, x, y, floor, points=self.points, hi=math.sqrt(2))

    @classmethod
    def examples(cls) -> list[MMD]:
        """With the median's bandwidth and with one of its own."""
        return [cls(), cls(bandwidth=1.0, points=200, permutations=0)]


def energy_distance(
    x: Tensor,
    y: Tensor,
    *,
    floor: Tensor | None = None,
    points: int | None = None,
    permutations: int = 500,
    seed: int = 0,
) -> Estimate:
    """The energy distance, the root of eq. (2); as `EnergyDistance`, of all points.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[0.0], [0.0], [0.0], [0.0]]), torch.ones(4, 1)
        >>> round(energy_distance(x, y), 6)  # 2 |x - y|, and its root
        1.414214
    """
    metric = EnergyDistance(points=points, permutations=permutations)
    return metric.measure(x, y, floor=floor, seed=seed)


def mmd(
    x: Tensor,
    y: Tensor,
    *,
    floor: Tensor | None = None,
    bandwidth: float | None = None,
    points: int | None = None,
    permutations: int = 500,
    seed: int = 0,
) -> Estimate:
    """The maximum mean discrepancy, the root of eq. (1); as `MMD`, of all points.

    Example:
        >>> import torch
        >>> x, y = torch.zeros(4, 1), torch.ones(4, 1)
        >>> round(mmd(x, y, bandwidth=1.0) ** 2, 6)  # 2 - 2 exp(-1/2)
        0.786939
    """
    metric = MMD(bandwidth=bandwidth, points=points, permutations=permutations)
    return metric.measure(x, y, floor=floor, seed=seed)
