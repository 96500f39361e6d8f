"""Differences between samplers that were run on the same noise, and how sure they are.

The values y_ik of sampler i under seed k share their noise, their true sets and their random
directions across samplers (common random numbers), so that seeds are pairs: with
d_k = y_ik - y_jk over the K seeds that both have,

    d = mean(d_k),   s^2 = sum (d_k - d)^2 / (K (K - 1)),   t = d / s  with K - 1 degrees      (1)

and the variance of d is Var(y_i) + Var(y_j) - 2 Cov(y_i, y_j) over K: smaller than that of
independent runs by what the noise has in common. With fewer than two common seeds,

    z = d / sqrt(stderr_i^2 + stderr_j^2)                                                       (2)

which ignores the covariance and is too careful where that is positive. Where a standard error is
not known either, nothing is.

The best of several is chosen by the very data that it is then compared with. Correcting for its
k - 1 rivals alone would forget that choice: the smallest of k equal samplers differs from one of
the others more often than a sampler named beforehand (for k = 5 nearly twice as often). So all
k (k - 1) / 2 differences are tested and corrected together by Holm's method, which bounds the
probability of any wrong claim among them, whichever the data pick out:

    p_(1) <= .. <= p_(m),   adjusted p_(r) = max_{q <= r} min(1, (m - q + 1) p_(q))             (3)

References: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6
(1979). Glasserman and Yao, Some guidelines and guarantees for common random numbers, Management
Science 38 (1992). Law, Simulation Modeling and Analysis (2015), sections 10.2 and 11.2. Student
(1908) for (1). Hsu, Multiple Comparisons (1996), chapter 4, for comparisons with the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from sdekit.errors import ConfigError

__all__ = ["Difference", "Pairs", "Row", "difference", "holm", "ranked"]

Row = Mapping[str, Any]  # a row of an experiment: one cell and one metric

_NORMAL = 1e12  # degrees of freedom of a t that is a normal to all digits
SAME = 1e-9  # relative: two values that differ by less are one value and its rounding


class Difference(NamedTuple):
    """The value of one sampler less that of another.

    Attributes:
        mean: the difference.
        low: the lower end of its 95 % interval; None where not known.
        high: the upper end.
        p: of "they are equal", two-sided, not corrected; None where not known.
        pairs: the seeds that both have; 0 where the runs were not paired.
        how: "paired", "unpaired", "exact" or "not known".
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int
    how: str


def difference(a: Row, b: Row, *, level: float = 0.95) -> Difference:
    """How much the value of row `a` exceeds that of row `b`, eq. (1) or (2).

    Args:
        a: a row with a value.
        b: another of the same metric.
        level: of the interval.

    Raises:
        ConfigError: a row without a finite value, or a level outside (0, 1).

    Example:
        >>> a = {"status": "ok", "value": 3.0, "exact": False, "seeds": [0, 1, 2]}
        >>> b = {**a, "value": 1.0, "values": [0.0, 1.0, 2.1]}
        >>> a["values"] = [2.0, 3.0, 4.0]
        >>> d = difference(a, b)
        >>> f"{d.mean:.2f} {d.low:.2f} {d.high:.2f} {d.p:.4f} {d.how}"
        '1.97 1.82 2.11 0.0003 paired'
    """
    if not 0 < level < 1:
        raise ConfigError(f"level must be inside (0, 1), got {level}")
    return Pairs([a, b], level=level).at(0, 1)


class Pairs:
    """All differences of some rows."""

    def __init__(self, rows: Sequence[Row], *, level: float = 0.95) -> None:
        """Compute them.

        Args:
            rows: rows of one metric, all with values.
            level: of the intervals.

        Raises:
            ConfigError: a row without a finite value.
        """
        if any(not ranked(row) for row in rows):
            raise ConfigError("a row without a finite value has no difference")
        value = np.array([float(row["value"]) for row in rows])
        mean, stderr, self.count = _by_seed(rows)
        paired = self.count >= 2
        error = np.array([_known(row.get("stderr")) for row in rows])
        both = np.sqrt(error[:, None] ** 2 + error[None, :] ** 2)  # eq. (2)
        self.mean = np.where(paired, mean, value[:, None] - value[None, :])
        self.stderr = np.where(paired, stderr, both)
        freedom = np.where(paired, np.maximum(self.count - 1, 1), _NORMAL)
        scale = np.maximum(np.abs(value)[:, None], np.abs(value)[None, :])
        same = np.abs(self.mean) <= SAME * scale
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * special.stdtr(freedom, -np.abs(self.mean / self.stderr))
        exact = np.array([bool(row["exact"]) for row in rows])
        self.sure = exact[:, None] & exact[None, :]
        self.p = np.where(same, 1.0, np.where(self.sure, 0.0, p))  # NaN: not known
        self.half = self.stderr * special.stdtrit(freedom, (1 + level) / 2)

    def at(self, i: int, j: int) -> Difference:
        """Row i less row j."""
        mean, half, count = float(self.mean[i, j]), float(self.half[i, j]), int(self.count[i, j])
        if self.sure[i, j]:
            return Difference(mean, mean, mean, float(self.p[i, j]), 0, "exact")
        if math.isnan(half):
            return Difference(mean, None, None, None, 0, "not known")
        how, count = ("paired", count) if count >= 2 else ("unpaired", 0)
        return Difference(mean, mean - half, mean + half, float(self.p[i, j]), count, how)

    def adjusted(self) -> np.ndarray:
        """Holm's p-values of all pairs together, NaN where not known [(k, k)]."""
        upper = np.triu_indices(len(self.p), 1)
        p = self.p[upper]
        known = np.isfinite(p) & ~self.sure[upper]  # what is exact tests nothing
        p[known] = holm(p[known].tolist())
        table = np.ones_like(self.p)
        table[upper] = p
        return np.minimum(table, table.T)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, eq. (3): claims at 5 % err together in at most 5 % of all cases.

    Args:
        p: p-values in [0, 1], of any dependence.

    Raises:
        ConfigError: one that is not in [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005])
        [0.03, 0.06, 0.06, 0.02]
    """
    if any(not 0 <= value <= 1 for value in p):
        raise ConfigError(f"p-values must be in [0, 1], got {list(p)}")
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = largest
    return adjusted


def ranked(row: Row) -> bool:
    """Whether a row can be compared: it is ok and its value is a finite number."""
    value = row["value"]
    return row["status"] == "ok" and value is not None and math.isfinite(value)


def _known(value: float | None) -> float:
    """The number, or NaN where there is none."""
    return math.nan if value is None or not math.isfinite(value) else float(value)


def _by_seed(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard error of the differences by seed, and how many seeds, eq. (1)."""
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    column = {seed: k for k, seed in enumerate(seeds)}
    table = np.full((len(rows), len(seeds)), np.nan)
    for i, row in enumerate(rows):
        for seed, value in zip(row["seeds"], row["values"], strict=False):
            table[i, column[seed]] = _known(value)
    d = table[:, None, :] - table[None, :, :]
    there = np.isfinite(d)
    count = there.sum(-1)
    d = np.where(there, d, 0.0)
    mean = d.sum(-1) / np.maximum(count, 1)
    squares = (np.where(there, d - mean[:, :, None], 0.0) ** 2).sum(-1)
    stderr = np.sqrt(squares / np.maximum(count * (count - 1), 1))
    return mean, stderr, count
