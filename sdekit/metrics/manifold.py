r"""Precision and recall by balls that reach to the k-th neighbour.

Let r_k(a; A) be the distance of a point of A to its k-th nearest other point of A. The manifold of
a set is the union of such balls, and

    inside(z, A) = 1 where |z - a| <= r_k(a; A) for some a in A, else 0,                        (1)
    precision = mean over x of inside(x_i, y),    recall = mean over y of inside(y_j, x).       (2)

Precision asks whether samples look like data, recall whether all data are found among samples. At
the truth both are below 1, more so in many dimensions: the floor says how much.

References: Kynkaanniemi et al., arXiv:1904.06991, eqs. 1 to 3; k = 3 in the paper.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from scipy.spatial.distance import cdist
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import integer
from sdekit.metrics.base import Estimate, SampleMetric
from sdekit.metrics.sets import (
    Array,
    Found,
    checked_points,
    compared,
    generator,
    neighbours,
    partitions,
)
from sdekit.targets import Target

__all__ = ["Precision", "Recall", "precision", "recall"]

_CHUNK = 512  # rows of distances at a time


def _share_inside(z: Array, of: Array, k: int) -> float:
    """The mean of eq. (1) over z."""
    radius = neighbours(of, of, k, own=True)[0][:, -1]
    count = 0
    for start in range(0, len(z), _CHUNK):
        count += int((cdist(z[start : start + _CHUNK], of) <= radius).any(axis=1).sum())
    return count / len(z)


@dataclass(frozen=True, kw_only=True)
class _Share(SampleMetric):
    """One of eq. (2): a share of `points` of one set within the manifold of the other."""

    unit: ClassVar[str] = "probability"
    better: ClassVar[str] = "larger"

    k: int = 3
    points: int | None = 2000

    def __post_init__(self) -> None:
        self._set(k=integer("k", self.k, ge=1))
        self._set(points=checked_points(self.points, ge=2 * self.k + 4))

    @staticmethod
    @abstractmethod
    def share(x: Array, y: Array, k: int) -> float:
        """The share, of two sets [(n, d)]."""

    def measure(
        self,
        x: Tensor,
        y: Tensor,
        *,
        floor: Tensor | None = None,
        target: Target | None = None,
        seed: int = 0,
    ) -> Estimate:
        """Its part of eq. (2), with an error from blocks; see `SampleMetric.measure`."""

        def find(a: Array, b: Array, tested: bool) -> Found:
            parts = partitions(len(a), len(b), generator(seed, 1), least=self.k + 2)

            def stderr() -> float:
                return parts.stderr([self.share(a[i], b[j], self.k) for i, j in parts])

            return Found(self.share(a, b, self.k), stderr, parts.df)

        return compared(find, x, y, floor, points=self.points, least=2 * (self.k + 2), hi=1.0)

    @classmethod
    def examples(cls) -> list[Any]:
        """With the paper's k and another."""
        return [cls(), cls(k=5, points=500)]


@register("metric", "precision", paper="arXiv:1904.06991, eq. 2")
@dataclass(frozen=True, kw_only=True)
class Precision(_Share):
    """The share of samples that lie within the manifold of the data, eq. (2).

    Args:
        k: the neighbour that a ball reaches to, >= 1.
        points: how many samples of each set are used, the first ones; None for all.

    Raises:
        ConfigError: k < 1, or fewer points than 2 (k + 2).
        DtypeError: a field is no int.

    Reference: arXiv:1904.06991, eq. 2.

    Example:
        >>> import torch
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> float(Precision().measure(0.1 * x[:200], x[200:]))  # all near the middle
        1.0
    """

    title: ClassVar[str] = "precision"

    @staticmethod
    def share(x: Array, y: Array, k: int) -> float:
        """Of the samples, those near the data."""
        return _share_inside(x, y, k)


@register("metric", "recall", paper="arXiv:1904.06991, eq. 3")
@dataclass(frozen=True, kw_only=True)
class Recall(_Share):
    """The share of the data that lies within the manifold of the samples, eq. (2).

    Args:
        k: the neighbour that a ball reaches to, >= 1.
        points: how many samples of each set are used, the first ones; None for all.

    Raises:
        ConfigError: k < 1, or fewer points than 2 (k + 2).
        DtypeError: a field is no int.

    Reference: arXiv:1904.06991, eq. 3.

    Example:
        >>> import torch
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> Recall().measure(0.1 * x[:200], x[200:]) < 0.2  # the outskirts are not found
        True
    """

    title: ClassVar[str] = "recall"

    @staticmethod
    def share(x: Array, y: Array, k: int) -> float:
        """Of the data, those near samples."""
        return _share_inside(y, x, k)


def precision(
    x: Tensor,
    y: Tensor,
    *,
    floor: Tensor | None = None,
    k: int = 3,
    points: int | None = None,
    seed: int = 0,
) -> Estimate:
    """The precision of eq. (2); arguments and errors of `Precision`, of all points.

    Example:
        >>> import torch
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> float(precision(x[:200] + 99, x[200:]))
        0.0
    """
    return Precision(k=k, points=points).measure(x, y, floor=floor, seed=seed)


def recall(
    x: Tensor,
    y: Tensor,
    *,
    floor: Tensor | None = None,
    k: int = 3,
    points: int | None = None,
    seed: int = 0,
) -> Estimate:
    """The recall of eq. (2); arguments and errors of `Recall`, of all points.

    Example:
        >>> import torch
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> float(recall(x, x))
        1.0
    """
    return Recall(k=k, points=points).measure(x, y, floor=floor, seed=seed)
