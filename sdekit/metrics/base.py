r"""What a metric is, and a number that knows its error.

A metric T compares a set x of n samples with a set y of m true ones. Two sets of true samples are
never the same, and a plug-in distance is biased upwards,

    E T(x, y) > T(law of x, law of y),        floor = T(x', y),                                 (1)

with x' a second true set: a sampler whose value is at the floor cannot be told from the truth by
these sets. What an interval here covers is the *mean* of T over pairs of sets of these sizes,
floor included; it is no interval of the distance of the laws, which eq. (1) says how to read.

The standard error comes from blocks: x and y are parted at random into K blocks each, and block b
of x is compared with block b of y. A distance has two regimes: far from the truth its square T^2
deviates as n^{-1/2}, at the truth as n^{-1}, by the first two terms of Hoeffding's decomposition,

    Var T^2 = V_1 / n + V_2 / n^2,    so that  Var T_b^2 = K V_1 / n + K^2 V_2 / n^2.           (2)

Two sizes of blocks, K = 5 and 20, over ten partitions each, give both terms, each >= 0, and

    stderr T = stderr T^2 / (2 T),      at most 0.55 (stderr T^2)^{1/2},                        (3)

as the root of a non-negative number is never more uncertain. What is like a share (precision,
recall) has the variance of its blocks, followed to one block by its own power a of K,

    Var T_b = c K^a,    stderr T = c^{1/2},    a in [1/2, 3/2],                                 (4)

since a law's tail is slow to be seen (a < 1) and an edge of its support fast (a > 1). T itself is
taken from all samples, and Student's t has 20 degrees of freedom, chosen by measured coverage.

At the floor (3) is conservative, and has to be: T is a folded normal there, and what is right for
a value of twice the floor, which can be the truth or not, is too wide for it. Measured over 200 to
300 replays, 95 % intervals by (3) cover 92 to 97 % far from the truth and 97 to 99 % at the floor.

References: del Barrio and Loubes, arXiv:1705.01299, theorem 4.1; Gretton et al., JMLR 13:723,
theorem 12 and corollary 16 (the two regimes of an MMD); Hoeffding 1948 for (2); Politis, Romano
and Wolf, Subsampling, 1999, sections 2.2 and 8.2, for blocks and estimated rates, (4).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from sdekit._check import Checked, number
from sdekit.metrics.intervals import gamma_mean, student
from sdekit.targets import Target

if TYPE_CHECKING:
    from sdekit.exact import ErrorBudget

__all__ = ["Error", "Estimate", "LawMetric", "Metric", "SampleMetric"]


def _known(value: float | None) -> float | None:
    """The value where it is known and finite: JSON has no NaN."""
    return float(value) if value is not None and math.isfinite(value) else None


# a standard error, or what finds it
Error = float | Callable[[], float | None] | None


class Estimate(float):
    """A number that knows its error; it is a float and computes like one.

    Args:
        value: the number.
        stderr: its standard error; None where it is not known, 0 where it is exact. A function
            of no argument is called when it is first asked for: blocks take longer than values.
        df: the degrees of freedom of stderr; infinite for one that is known.
        floor: the value that true samples have; None where it was not asked for.
        floor_stderr: the standard error of the floor.
        p_value: of the hypothesis that both sets have one law; None where there is no test.
        n: how many samples were used.
        exact: whether no sample was drawn.
        detail: more about it, in plain Python.
        lo: the least value that the metric can have.
        hi: the largest.
        draws: independent values whose mean this is; the interval is then that of their distances
            to `best`, which are positive and skew (`sdekit.metrics.intervals`, eq. 3).
        best: the end of the range on the better side, which no draw is beyond; None where there
            is none.

    Example:
        >>> found = Estimate(0.31, stderr=0.02, floor=0.05, lo=0.0)
        >>> found > 0.3, found.floor, [round(end, 4) for end in found.interval(0.95)]
        (True, 0.05, [0.2708, 0.3492])
        >>> found
        0.310 +- 0.020 (floor 0.050)
    """

    df: float
    floor: float | None
    p_value: float | None
    n: int | None
    exact: bool
    detail: dict[str, Any]
    lo: float
    hi: float
    draws: tuple[float, ...]
    best: float | None
    _errors: dict[str, Error]

    def __new__(
        cls,
        value: float,
        *,
        stderr: Error = None,
        df: float = math.inf,
        floor: float | None = None,
        floor_stderr: Error = None,
        p_value: float | None = None,
        n: int | None = None,
        exact: bool = False,
        detail: Mapping[str, Any] | None = None,
        lo: float = -math.inf,
        hi: float = math.inf,
        draws: Iterable[float] = (),
        best: float | None = None,
    ) -> Estimate:
        """The float, with its attributes."""
        made = super().__new__(cls, value)
        made._errors = {"stderr": stderr, "floor_stderr": floor_stderr}
        made.df, made.n, made.exact, made.floor, made.p_value = df, n, exact, floor, p_value
        made.detail, made.lo, made.hi = dict(detail or {}), lo, hi
        made.draws, made.best = tuple(draws), best
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, Any]]:
        """What pickling and copying make it from."""
        known = {name: value for name, value in vars(self).items() if name != "_errors"}
        errors = {"stderr": self.stderr, "floor_stderr": self.floor_stderr}
        return (float(self),), {**known, **errors}

    @property
    def stderr(self) -> float | None:
        """The standard error; None where it is not known."""
        return self._error("stderr")

    @property
    def floor_stderr(self) -> float | None:
        """That of the floor."""
        return self._error("floor_stderr")

    def _error(self, name: str) -> float | None:
        found = self._errors[name]
        if callable(found):
            found = self._errors[name] = found()
        return found

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The ends of the confidence interval, within the metric's range.

        By Student's t, or, of draws with a best value, by a gamma law of their distances to it.

        Args:
            level: the probability that it covers the mean, in (0, 1).

        Returns:
            (low, high); both NaN where the standard error is not known.

        Raises:
            ConfigError: level is not in (0, 1).
        """
        level = number("level", level, gt=0, lt=1)
        if self.stderr is None or not math.isfinite(self.stderr):
            return math.nan, math.nan
        if self.stderr == 0:
            return float(self), float(self)
        if self.draws and self.best is not None:
            near, far = gamma_mean([abs(draw - self.best) for draw in self.draws], level)
            side = 1 if self >= self.best else -1
            low, high = sorted((self.best + side * near, self.best + side * far))
        else:
            low, high = student(float(self), self.stderr, self.df, level)
        return max(low, self.lo), min(high, self.hi)

    def to_json(self) -> dict[str, Any]:
        """Every number in plain Python, None for what is not known or not finite."""
        return {
            "value": _known(self),
            "stderr": _known(self.stderr),
            "df": _known(self.df),
            "floor": _known(self.floor),
            "floor_stderr": _known(self.floor_stderr),
            "p_value": _known(self.p_value),
            "n": self.n,
            "exact": self.exact,
            "detail": self.detail,
        }

    def __repr__(self) -> str:
        """The value, its error and what it is to be compared with."""
        error = self.stderr
        digits = 3
        if error and math.isfinite(error):
            digits = min(max(1 - math.floor(math.log10(error)), 0), 9)
        value = f"{float(self):.{digits}f}"
        noise = f" +- {error:.{digits}f}" if error else ""
        notes = [] if self.floor is None else [f"floor {self.floor:.{digits}f}"]
        notes += [] if self.p_value is None else [f"p = {self.p_value:.2g}"]
        notes += ["exact"] if self.exact else []
        return value + noise + (f" ({', '.join(notes)})" if notes else "")

    __str__ = __repr__


class Metric(Checked, ABC):
    """How far a sampler's output is from the data, as one number with its error.

    A subclass is a frozen keyword-only dataclass, registered with
    `@register("metric", NAME, paper=...)`.

    Attributes:
        title: what an axis is labelled with.
        unit: "units of the data", "nats", "probability", ...
        better: "smaller" or "larger".
        needs: of "modes" (a target with components) and "law" (an exact one).
    """

    title: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[str] = "smaller"
    needs: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    @abstractmethod
    def examples(cls) -> list[Any]:
        """Instances that tests run over."""


class SampleMetric(Metric):
    """A metric of two sets of samples."""

    @classmethod
    def examples(cls) -> list[Any]:
        """Instances that tests run over."""
        return [cls()]

    @abstractmethod
    def measure(
        self,
        x: Tensor,
        y: Tensor,
        *,
        floor: Tensor | None = None,
        target: Target | None = None,
        seed: int = 0,
    ) -> Estimate:
        """How far x is from y.

        Args:
            x: samples [(n, *dims)].
            y: true samples [(m, *dims)].
            floor: a second true set [(n, *dims)], whose value against y is the floor.
            target: the law of the data, for metrics that need its modes.
            seed: of directions, permutations, partitions and splits, >= 0.

        Raises:
            DataError: too few samples, or a set that the metric cannot use.
            ShapeError: the sets differ in `dims`, or are no sets.
            NonFiniteError: a set holds NaN or infinity; the rows are named.
            DtypeError: a set is no real floating tensor, or the seed no int.
            DeviceError: the sets live on different devices.
            ConfigError: the seed is negative.
        """


class LawMetric(Metric):
    """A metric of laws: exact, read from an error budget."""

    needs: ClassVar[frozenset[str]] = frozenset({"law"})

    @classmethod
    def examples(cls) -> list[Any]:
        """Instances that tests run over."""
        return [cls()]

    @abstractmethod
    def of(self, budget: ErrorBudget) -> Estimate:
        """The number in the budget, with no error.

        Args:
            budget: of `sdekit.exact.attribute_error` with method="exact".

        Raises:
            DtypeError: no budget was given.
            DataError: the budget comes from samples, or does not have the number.
        """
