"""A column of numbers in a line: mean, 95 % interval over the samples, median and ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["HEAD", "Summary", "finite"]

_NAME = 24
HEAD = f"{'':{_NAME}}{'mean':>10}{'95 % interval':>21}{'median':>8}{'min':>8}{'max':>8}"


@dataclass(frozen=True, eq=False)
class Summary:
    """What is said of one number a sample.

    Attributes:
        values: the numbers [(n,)].
        stderr: the standard error of their mean over independent samples; infinite for one sample.
    """

    values: Tensor
    stderr: float

    @classmethod
    def of(cls, values: Tensor, common: float = 0.0) -> Summary:
        """Of these numbers, which an error of standard deviation `common` may have all moved."""
        n = len(values)
        own = float(values.std()) / math.sqrt(n) if n > 1 else math.inf
        return cls(values, math.hypot(own, common))

    def scaled(self, by: float, plus: float = 0.0) -> Summary:
        """Of by * values + plus."""
        return Summary(by * self.values + plus, abs(by) * self.stderr)

    @property
    def mean(self) -> float:
        """Of the numbers."""
        return float(self.values.mean())

    @property
    def half_width(self) -> float:
        """Of the 95 % interval: Student's quantile times the standard error."""
        from scipy.special import stdtrit

        n = len(self.values)
        return math.inf if n < 2 else float(stdtrit(n - 1, 0.975)) * self.stderr

    def to_json(self) -> dict[str, Any]:
        """As JSON; null where there is no finite number."""
        half, values = self.half_width, self.values
        return {
            "mean": finite(self.mean),
            "stderr": finite(self.stderr),
            "interval": [finite(self.mean - half), finite(self.mean + half)],
            "median": finite(_median(values)),
            "min": finite(float(values.min())),
            "max": finite(float(values.max())),
        }

    def line(self, name: str) -> str:
        """As a line below `HEAD`, to two digits of the standard error."""
        half = self.half_width
        spread = self.stderr if math.isfinite(self.stderr) and self.stderr else 1e-4
        digits = min(6, max(0, 1 - math.floor(math.log10(spread))))
        between = "-"
        if math.isfinite(half):
            between = f"[{self.mean - half:.{digits}f}, {self.mean + half:.{digits}f}]"
        ends = (_median(self.values), float(self.values.min()), float(self.values.max()))
        tail = "".join(f" {value:>7.4g}" for value in ends)
        return f"{name:{_NAME}} {self.mean:>9.{digits}f} {between:>20}{tail}"


def _median(values: Tensor) -> float:
    """Of the numbers; torch's own quantile has a limit to how many there are."""
    return float(np.median(values.numpy()))


def finite(value: float) -> float | None:
    """The number, or None (null in JSON) where it is none."""
    return float(value) if math.isfinite(value) else None
