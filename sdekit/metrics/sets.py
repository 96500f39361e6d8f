r"""Sets of samples: what is accepted, the blocks of eq. (2) of `base`, nearest neighbours.

A set is a tensor [(n, *dims)] of any floating dtype; it is flattened, moved to the CPU once, and
computed with in float64. It is never written to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from torch import Tensor

from sdekit._check import finite, floating, integer, same_device
from sdekit.errors import DataError, DeviceError, NonFiniteError, ShapeError
from sdekit.metrics.base import Error, Estimate

__all__ = [
    "Array", "Found", "Partitions", "Rows", "checked_points", "compared", "flat", "generator",
    "neighbours", "partitions",
]  # fmt: skip

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

_FEW, _MANY = 5, 20  # the two K of eq. (2) of `base`
_REPEATS = 10  # partitions into few
_DF = 5.0  # degrees of freedom per large block less one, by measured coverage
_SLOW, _FAST = 0.5, 1.5  # the powers of 1/n that a variance may fall as
_FOLD = 0.55  # of the root of the spread of a square: no root is more uncertain
_LARGEST = 1e150  # whose square is a float64
_FLAT = 8  # dimensions above which a k-d tree looks at every point anyway
_CHUNK = 512  # rows of a matrix of distances at a time


def generator(seed: int, stream: int = 0) -> np.random.Generator:
    """The randomness of a metric, from its seed alone."""
    return np.random.default_rng([integer("seed", seed, ge=0), stream])


def flat(name: str, x: object, least: int = 1) -> Array:
    """A set of samples as float64 [(n, d)]."""
    tensor = floating(name, x).detach()
    if tensor.ndim < 1:
        raise ShapeError(f"{name} must have shape (n, *dims), got a 0-d tensor")
    if tensor.is_meta:
        raise DeviceError(f"{name} is on the meta device and holds no values")
    if len(tensor) < least:
        raise DataError(f"{name} must hold at least {least} samples, got {len(tensor)}")
    wide = finite(name, tensor).to(device="cpu", dtype=torch.float64)
    if wide.numel() and float(wide.abs().max()) > _LARGEST:
        raise NonFiniteError(f"{name} holds values beyond {_LARGEST:g}: their squares overflow")
    width = math.prod(tensor.shape[1:])
    if width == 0:
        raise ShapeError(f"{name} must have at least one coordinate, got {tuple(tensor.shape)}")
    # a copy: a standard error that is asked for later must see what the value saw
    return wide.reshape(len(tensor), width).numpy().copy()


def checked_points(points: object, *, ge: int) -> int | None:
    """The field `points` of a metric: how many samples of each set are used, None for all."""
    return None if points is None else integer("points", points, ge=ge)


@dataclass(frozen=True)
class Found:
    """What a metric finds of one pair of sets."""

    value: float
    stderr: Error
    df: float = math.inf
    p_value: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


def compared(
    find: Callable[[Array, Array, bool], Found],
    x: Tensor,
    y: Tensor,
    floor: Tensor | None,
    *,
    points: int | None = None,
    least: int = 4,
    lo: float = 0.0,
    hi: float = math.inf,
) -> Estimate:
    """An estimate from a pair of sets, and the floor from another.

    Args:
        find: of two arrays, and whether a p-value is wanted.
        x: the samples.
        y: the true ones.
        floor: other true ones, or None.
        points: how many of each are used, the first; None for all.
        least: how many there must be.
        lo: the least value.
        hi: the largest.
    """
    sets = [("x", x), ("y", y)] + ([] if floor is None else [("floor", floor)])
    for name, one in sets:
        floating(name, one)
        if one.ndim < 1:
            raise ShapeError(f"{name} must have shape (n, *dims), got a 0-d tensor")
        if floating("y", y).shape[1:] != one.shape[1:]:
            raise ShapeError(
                f"{name} and y must have samples of one shape, got {tuple(one.shape)} and "
                f"{tuple(y.shape)}"
            )
    for name, one in sets:
        same_device(name, one, "y", y)
    arrays = [flat(name, one, least)[:points] for name, one in sets]
    found = find(arrays[0], arrays[1], True)
    true = find(arrays[2], arrays[1], False) if floor is not None else None
    return Estimate(
        found.value,
        stderr=found.stderr,
        df=found.df,
        floor=None if true is None else true.value,
        floor_stderr=None if true is None else true.stderr,
        p_value=found.p_value,
        n=len(arrays[0]),
        detail=found.detail,
        lo=lo,
        hi=hi,
    )


@dataclass(frozen=True)
class Partitions:
    """Random partitions of two sets into pairs of blocks: few large ones, and many small ones."""

    pairs: list[tuple[Rows, Rows]]  # a partition's together, the partitions into few first
    blocks: tuple[int, ...]  # into how many, of each partition

    def __iter__(self) -> Iterator[tuple[Rows, Rows]]:
        return iter(self.pairs)

    @property
    def df(self) -> float:
        """Student's degrees of freedom of a standard error."""
        return _DF * (self.blocks[0] - 1)

    def _variances(self, values: Array | list[float]) -> list[tuple[int, float]]:
        """By the number of blocks K: the mean over partitions of the blocks' variance."""
        found: dict[int, list[float]] = {}
        ends = np.cumsum(self.blocks)
        for count, end in zip(self.blocks, ends, strict=True):
            found.setdefault(count, []).append(float(np.var(values[end - count : end], ddof=1)))
        return [(count, float(np.mean(spread))) for count, spread in found.items()]

    def stderr(self, values: Array | list[float]) -> float:
        """That of a mean-like value, from the values of the pairs in their order: eq. (4)."""
        (few, spread), *more = self._variances(values)
        power = 1.0
        if more and spread > 0 and more[0][1] > 0:
            many, wider = more[0]
            power = math.log(wider / spread) / math.log(many / few)
        return math.sqrt(spread / few ** min(max(power, _SLOW), _FAST))

    def stderr_of_square(self, squares: Array | list[float]) -> float:
        """That of a squared distance, from the squares of the pairs in their order: eq. (2)."""
        (few, large), *more = self._variances(squares)
        if not more:
            return math.sqrt(large / few)
        many, small = more[0]
        large, small = large / few**2, small / many**2  # V_1 / K + V_2 of eq. (2)
        first = (large - small) / (1 / few - 1 / many)
        if first <= 0:
            return math.sqrt((large + small) / 2)
        return math.sqrt(first + max(small - first / many, 0.0))

    def stderr_of_root(self, value: float, squares: Array | list[float]) -> float:
        """That of a distance, from the squares of the pairs in their order: eq. (3)."""
        spread = self.stderr_of_square(squares)
        most = _FOLD * math.sqrt(spread)
        return min(spread / (2 * value), most) if value > 0 else most


def partitions(
    n: int, m: int, rng: np.random.Generator, *, least: int = 2, repeats: int = _REPEATS
) -> Partitions:
    """Random partitions of n and of m rows into blocks of at least `least` rows."""
    most = min(n, m) // least
    if most < 2:
        raise DataError(
            f"x and y must hold at least {2 * least} samples each for a standard error, got {n} "
            f"and {m}"
        )
    blocks = [min(_FEW, most)] * repeats
    if most >= 2 * _FEW:
        many = min(_MANY, most)
        blocks += [many] * math.ceil(repeats * _FEW / many)
    pairs = []
    for count in blocks:
        rows = [np.array_split(rng.permutation(size), count) for size in (n, m)]
        pairs += list(zip(*rows, strict=True))
    return Partitions(pairs, tuple(blocks))


def neighbours(points: Array, at: Array, k: int, *, own: bool = False) -> tuple[Array, Rows]:
    """The distances to the k nearest points, nearest first, and their rows [(len(at), k)].

    By a k-d tree in few dimensions, by all distances in many. With own=True `at` are the points
    themselves, and a point is no neighbour of itself.
    """
    reach = k + own
    if points.shape[1] <= _FLAT:
        distance, row = cKDTree(points).query(at, reach)
        distance, row = distance.reshape(len(at), reach), row.reshape(len(at), reach)
    else:
        distance, row = np.empty((len(at), reach)), np.empty((len(at), reach), dtype=np.intp)
        for start in range(0, len(at), _CHUNK):
            some = slice(start, start + _CHUNK)
            every = cdist(at[some], points)
            near = np.argpartition(every, reach - 1, axis=1)[:, :reach]
            far = np.take_along_axis(every, near, axis=1)
            order = far.argsort(axis=1, kind="stable")
            distance[some] = np.take_along_axis(far, order, axis=1)
            row[some] = np.take_along_axis(near, order, axis=1)
    return (distance[:, 1:], row[:, 1:]) if own else (distance, row)
