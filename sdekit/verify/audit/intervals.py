r"""Intervals of what is measured, and the curve of a measure over time.

The mean of n independent values lies within q s / sqrt(n) of its expectation, with q Student's
quantile: exact for normal values, and for others in the limit of many. A check fails where the
whole interval lies beyond its tolerance at some time. Its quantile is that of a false alarm of
LEVEL^STAGES = 1e-12 a check (`sdekit.verify.statistics`), shared among all times and test fields
by Bonferroni: a model whose defects are within tolerance fails about that seldom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy import special
from torch import Tensor

from sdekit.verify.statistics import LEVEL, STAGES

__all__ = [
    "Curve",
    "Point",
    "mean_and_error",
    "quantile",
    "ratio",
    "reduced",
    "root",
    "stretch",
    "worst",
]

_FEW = 50  # samples for each quantity of known mean, at least
_RIDGE = 1e-9
FALSE_ALARM = LEVEL**STAGES  # of a check


def quantile(n: int, comparisons: int) -> float:
    """Student's, of n values, two-sided at `FALSE_ALARM` among so many comparisons."""
    return -float(special.stdtrit(n - 1, FALSE_ALARM / (2 * max(1, comparisons))))


class Point(NamedTuple):
    """One value of a measure.

    Attributes:
        value: as measured.
        stderr: its standard error.
        low: the end of its interval.
        high: the other one.
    """

    value: float
    stderr: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A measure at every time.

    Attributes:
        name: of the check that it belongs to.
        axis: what is measured, and in which unit.
        times: [(k,)].
        points: one for each time.
        tolerance: what a trained network may have.
        sides: 2 where either sign is a defect, 1 where only a positive value is.
    """

    name: str
    axis: str
    times: tuple[float, ...]
    points: tuple[Point, ...]
    tolerance: float
    sides: int = 1

    @property
    def sure(self) -> tuple[float, ...]:
        """At each time, how large the defect is at least; 0 where the interval holds 0."""
        return tuple(
            max(p.low, -p.high if self.sides == 2 else 0.0, 0.0)
            if all(map(math.isfinite, p))
            else math.inf
            for p in self.points
        )

    @property
    def beyond(self) -> tuple[float, ...]:
        """The times at which the defect is surely beyond the tolerance."""
        return tuple(t for t, s in zip(self.times, self.sure, strict=True) if s > self.tolerance)

    def worst(self) -> int:
        """The place of the largest sure defect; of the largest value where none is sure."""
        sizes = [abs(p.value) if self.sides == 2 else p.value for p in self.points]
        return max(range(len(self.times)), key=lambda k: (self.sure[k], sizes[k]))


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard errors [(fields,)] of independent values [(n, fields)]."""
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def reduced(values: Tensor, known: Tensor, each: int = 1) -> tuple[Tensor, Tensor]:
    """As `mean_and_error`, of values [(n each, fields)], `each` rows a sample.

    They are averaged over a sample first. Then quantities help whose means are known to be 0: what
    of `values` is linear in `known` [(n each, others)] is left out, as it says nothing of the
    mean. Least squares take a share of 1/n of each of them too many, so that few samples go
    without.
    """
    one = values.reshape(-1, each, values.shape[1]).mean(1)
    n, others = len(one), known.shape[1]
    if n < _FEW * others:
        return mean_and_error(one)
    helps = known.reshape(n, each, others).mean(1)
    centred = helps - helps.mean(0)
    size = centred.square().mean(0).sqrt()
    kept = size > 1e-9 * size.max()
    centred, size = centred[:, kept] / size[kept], size[kept]
    product = centred.T @ centred / n
    product += _RIDGE * torch.eye(len(size)).to(product)  # some may be the same in part
    share = torch.linalg.solve(product, centred.T @ (one - one.mean(0)) / n)
    mean, error = mean_and_error(one - (helps[:, kept] / size) @ share)
    return mean, error * math.sqrt((n - 1) / (n - 1 - len(size)))


def worst(mean: Tensor, error: Tensor, q: float) -> Point:
    """The field that says most, by size, with its interval cut at 0."""
    size = mean.abs()
    k = int((size - q * error + 1e-3 * size).argmax())
    value, stderr = float(size[k]), float(error[k])
    return Point(value, stderr, max(0.0, value - q * stderr), value + q * stderr)


def ratio(top: Tensor, bottom: Tensor) -> tuple[float, float]:
    """The ratio of the means of values [(n,)] and its standard error, to first order."""
    found = float(top.mean() / bottom.mean())
    left = ((top - found * bottom) / bottom.mean())[:, None]
    return found, float(mean_and_error(left)[1])


def root(square: float, error: float, q: float) -> Point:
    """The square root of a mean square, with its interval."""
    low, high = max(0.0, square - q * error), max(0.0, square + q * error)
    value = math.sqrt(max(0.0, square))
    stderr = error / (2 * value) if value > 0 else math.sqrt(max(0.0, error))
    return Point(value, stderr, math.sqrt(low), math.sqrt(high))


def stretch(times: Sequence[float], some: Sequence[float]) -> str:
    """`t = 0.1, 0.4 to 0.6`: some of the times, neighbours joined."""
    runs: list[list[float]] = [[]]
    for t in times:
        if t in some:
            runs[-1].append(t)
        elif runs[-1]:
            runs.append([])
    ends = [(f"{run[0]:.3g}", f"{run[-1]:.3g}") for run in runs if run]
    return "t = " + ", ".join(a if a == b else f"{a} to {b}" for a, b in ends)
