r"""The 2-Wasserstein distance of two sets, by assignment and by slices.

For sets x and y of n samples each, with s a permutation,

    W2^2 = min_s 1/n sum_i |x_i - y_{s(i)}|^2,                                                  (1)

which SciPy's `linear_sum_assignment` solves in n^3. On a line the permutation sorts, and with F
and G the distribution functions of sets of any two sizes

    W2^2 = int_0^1 (F^{-1}(u) - G^{-1}(u))^2 du,                                                (2)

whose integrand is constant between the multiples of 1/n and 1/m. The sliced distance is

    SW2^2 = mean over directions theta of  W2^2(theta . x, theta . y),                          (3)

the literature's, without a factor: a shift by delta in d dimensions is |delta| / sqrt(d) in it.
(`sdekit.exact.attribute_error` from samples gives sqrt(d) times that, which is W2 itself for a
shift.)

At the truth W2 is about (log n / n)^{1/2} in two dimensions and n^{-1/d} in more: the floor of (1)
is high where that of (3) is n^{-1/2} in any dimension.

References: Peyre and Cuturi, arXiv:1803.00567, sections 2.2 and 2.6 for (1) and (2); Bonneel et
al. 2015, doi:10.1007/s10851-014-0506-3, definition 8, and Rabin et al. 2011 for (3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import integer
from sdekit.errors import DataError
from sdekit.metrics.base import Estimate, SampleMetric
from sdekit.metrics.sets import Array, Found, checked_points, compared, generator, partitions
from sdekit.targets import Target

__all__ = ["SlicedWasserstein", "Wasserstein", "sliced_wasserstein", "wasserstein"]


@cache
def _overlaps(n: int, m: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """The intervals of eq. (2): rows of the sorted sets and lengths, from integers alone."""
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # times n m
    lengths = np.diff(ends, prepend=0)
    return (ends - 1) // m, (ends - 1) // n, lengths / (n * m)


def _on_lines(x: Array, y: Array) -> Array:
    """W2^2 of each column of two sets, eq. (2)."""
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    if len(x) == len(y):
        mean: Array = np.square(x - y).mean(axis=0)
        return mean
    i, j, lengths = _overlaps(len(x), len(y))
    total: Array = lengths @ np.square(x[i] - y[j])
    return total


def _assigned(x: Array, y: Array) -> float:
    """W2^2, eq. (1)."""
    if x.shape[1] == 1:
        return float(_on_lines(x, y)[0])
    if len(x) != len(y):
        size = min(len(x), len(y))
        x, y = x[:size], y[:size]  # of blocks, which differ by one
    cost = cdist(x, y, "sqeuclidean")
    return float(cost[linear_sum_assignment(cost)].mean())


@register("metric", "sliced_wasserstein", paper="Bonneel et al. 2015, definition 8")
@dataclass(frozen=True, kw_only=True)
class SlicedWasserstein(SampleMetric):
    """The sliced 2-Wasserstein distance, eq. (3).

    The directions come from the seed and are the same for every set that it compares, so that
    they are no part of the error. In one dimension there is one, and the value is W2.

    Args:
        directions: how many, >= 1.

    Raises:
        ConfigError: directions < 1.
        DtypeError: directions is no int.

    Reference: arXiv:1805.09235, eq. 4, for what it is used for here.

    Example:
        >>> import torch
        >>> x = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> round(SlicedWasserstein().measure(x, x + 3), 4)  # on a line it is W2
        3.0
    """

    title: ClassVar[str] = "sliced W2"
    unit: ClassVar[str] = "units of the data"

    directions: int = 128

    def __post_init__(self) -> None:
        self._set(directions=integer("directions", self.directions, ge=1))

    def angles(self, d: int, seed: int) -> Array:
        """Unit vectors [(d, directions)]; 1 [(1, 1)] on a line."""
        if d == 1:
            return np.ones((1, 1))
        drawn = generator(seed).standard_normal((d, self.directions))
        unit: Array = drawn / np.linalg.norm(drawn, axis=0)
        return unit

    def measure(
        self,
        x: Tensor,
        y: Tensor,
        *,
        floor: Tensor | None = None,
        target: Target | None = None,
        seed: int = 0,
    ) -> Estimate:
        """sqrt of eq. (3); sizes may differ; see `SampleMetric.measure`."""

        def find(a: Array, b: Array, tested: bool) -> Found:
            angles = self.angles(a.shape[1], seed)
            a, b = a @ angles, b @ angles
            parts = partitions(len(a), len(b), generator(seed, 1))
            value = math.sqrt(_on_lines(a, b).mean())

            def stderr() -> float:
                squares = [float(_on_lines(a[i], b[j]).mean()) for i, j in parts]
                return parts.stderr_of_root(value, squares)

            return Found(value, stderr, parts.df)

        return compared(find, x, y, floor)

    @classmethod
    def examples(cls) -> list[SlicedWasserstein]:
        """With many directions and with few."""
        return [cls(), cls(directions=16)]


@register("metric", "wasserstein", paper="arXiv:1803.00567, eq. 2.10")
@dataclass(frozen=True, kw_only=True)
class Wasserstein(SampleMetric):
    """The 2-Wasserstein distance of two sets of one size, by optimal assignment, eq. (1).

    Args:
        points: how many samples of each set are used, the first ones, >= 4; None for all. The
            time grows as the cube. On a line all are used, and sizes may differ.

    Raises:
        ConfigError: points < 4.
        DtypeError: points is neither an int nor None.

    Reference: Kuhn 1955, doi:10.1002/nav.3800020109; solved by SciPy.

    Example:
        >>> import torch
        >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> round(Wasserstein().measure(x, x + torch.tensor([3.0, 4.0])), 4)
        5.0
    """

    title: ClassVar[str] = "W2"
    unit: ClassVar[str] = "units of the data"

    points: int | None = 1000

    def __post_init__(self) -> None:
        self._set(points=checked_points(self.points, ge=4))

    def measure(
        self,
        x: Tensor,
        y: Tensor,
        *,
        floor: Tensor | None = None,
        target: Target | None = None,
        seed: int = 0,
    ) -> Estimate:
        """sqrt of eq. (1), or of eq. (2) on a line; see `SampleMetric.measure`.

        Raises:
            DataError: the sets have different sizes, more than one dimension, and fewer than
                `points` samples.
        """

        def find(a: Array, b: Array, tested: bool) -> Found:
            if a.shape[1] > 1:
                a, b = a[: self.points], b[: self.points]
                if len(a) != len(b):
                    raise DataError(
                        f"x and y must have as many samples as each other, got {len(a)} and "
                        f"{len(b)}: cut the longer one, or use sliced_wasserstein"
                    )
            parts = partitions(len(a), len(b), generator(seed, 1))
            value = math.sqrt(_assigned(a, b))

            def stderr() -> float:
                squares = [_assigned(a[i], b[j]) for i, j in parts]
                return parts.stderr_of_root(value, squares)

            return Found(value, stderr, parts.df)

        line = isinstance(x, Tensor) and x.ndim > 0 and math.prod(x.shape[1:]) == 1
        return compared(find, x, y, floor, points=None if line else self.points)

    @classmethod
    def examples(cls) -> list[Wasserstein]:
        """With the default and with few points."""
        return [cls(), cls(points=200)]


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, floor: Tensor | None = None, directions: int = 128, seed: int = 0
) -> Estimate:
    """The sliced 2-Wasserstein distance, eq. (3); arguments and errors of `SlicedWasserstein`.

    Example:
        >>> import torch
        >>> x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> sliced_wasserstein(x, x).floor is None, float(sliced_wasserstein(x, x))
        (True, 0.0)
    """
    return SlicedWasserstein(directions=directions).measure(x, y, floor=floor, seed=seed)


def wasserstein(
    x: Tensor,
    y: Tensor,
    *,
    floor: Tensor | None = None,
    points: int | None = None,
    seed: int = 0,
) -> Estimate:
    """The 2-Wasserstein distance, eq. (1); arguments and errors of `Wasserstein`; all points.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> float(wasserstein(x, x.flip(0)))
        0.0
    """
    return Wasserstein(points=points).measure(x, y, floor=floor, seed=seed)
