"""Numbers in words: how two values are related, where a value was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

__all__ = ["numbers", "relation", "rounded"]

_CLOSE = 1e-3  # a factor is called by its name where it is met this closely
_FACTORS = {
    2.0: "twice", 0.5: "half of", 4.0: "four times", 0.25: "a quarter of", -1.0: "minus",
    -2.0: "minus twice", -0.5: "minus half of", math.sqrt(2): "sqrt(2) times",
    math.sqrt(0.5): "1/sqrt(2) of", 3.0: "three times", math.pi: "pi times",
}  # fmt: skip


def relation(seen: float, expected: float) -> str:
    """What `seen` is of `expected`: "twice", "half of", "the square of", "1.2 % above", ..."""
    if not math.isfinite(seen):
        return "not finite, unlike"
    if expected == 0 or seen == 0:
        return "not"
    ratio = seen / expected
    for factor, words in _FACTORS.items():
        if abs(ratio / factor - 1) < _CLOSE:
            return words
    # beside 1 every power is close, and says nothing
    if expected > 0 and seen > 0 and abs(math.log(expected)) > 0.05:
        power = math.log(seen) / math.log(expected)
        for value, words in {
            2.0: "the square of",
            0.5: "the square root of",
            -1.0: "1 over",
        }.items():
            if abs(power - value) < _CLOSE:
                return words
    if 0.5 < ratio < 2:
        return f"{abs(ratio - 1):.2g} of it {'above' if ratio > 1 else 'below'}"
    return f"{ratio:.3g} times"


def rounded(value: object) -> str:
    """A number as it stands in a sentence: six digits, integers as they are."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def numbers(at: Mapping[str, Tensor | float], k: int) -> str:
    """`at t = 0.37, s = 0.2` of entry k."""
    parts = []
    for name, values in at.items():
        value = values.reshape(-1) if isinstance(values, Tensor) else values
        if isinstance(value, Tensor):
            value = value[k % value.numel()]
        parts.append(f"{name} = {rounded(value)}")
    return f" at {', '.join(parts)}" if parts else ""
