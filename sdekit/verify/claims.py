"""What a check is: a claim with its equation and source, and a function that measures it.

A check looks at one subject of its kind. It is one of two sorts:

- *exact*: `measure(subject, case)` returns a `Finding`, the measured defect and what is allowed.
  Cases (times, grids, data) come from a Hypothesis strategy, so that a failure is shrunk to the
  smallest counterexample; a check without one is asked once;
- *statistical*: `measure(subject, n, generator)` returns a p-value that is valid at any n, and
  only repeated rejection on fresh draws is a failure (`sdekit.verify.statistics`).

`CHECKS` holds all of them by name, in the order in which they are asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from sdekit.verify.wording import numbers, relation

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["CHECKS", "COSTS", "Check", "Finding", "Skip", "agree", "claim", "no_more_than"]


class Skip(Exception):  # it is no error
    """Raised by a check that cannot be asked of this subject; the message says why."""


@dataclass(frozen=True)
class Finding:
    """What a check found in one case.

    Attributes:
        measured: the defect, or the p-value of a statistical check.
        threshold: what is allowed: at most it, or for a p-value at least it.
        says: what was seen, in words and numbers.
        at_least: whether the claim is measured >= threshold.
    """

    measured: float
    threshold: float
    says: str = ""
    at_least: bool = False

    @property
    def ok(self) -> bool:
        """Whether the claim holds; NaN is a failure."""
        if self.at_least:
            return self.measured >= self.threshold
        return self.measured <= self.threshold


# what a check costs on an ordinary subject, for the listing: seconds, about
COSTS = {"instant": 0.05, "fast": 0.5, "slow": 3.0}


@dataclass(frozen=True)
class Check:
    """One claim about one kind of object.

    Attributes:
        name: unique, lower-case.
        kind: of the subjects: sde, parametrization, predictor, target, sampler, grid, noise,
            objective, weighting, time, likelihood, average or model.
        claim: one sentence with its equation.
        source: where the claim comes from: arXiv id and equation, or a textbook.
        of: kinds or attributes without which the check is not one of the subject's at all.
        needs: those without which it is skipped, and said to be.
        cost: one of `COSTS`.
        measure: the function.
        cases: from a subject to the strategy of its cases; None: one case.
        statistical: whether `measure` returns p-values.
        share: of the examples that a run asks for; for checks whose cases are costly.
    """

    name: str
    kind: str
    claim: str
    source: str
    of: frozenset[str]
    needs: frozenset[str]
    cost: str
    measure: Callable[..., Any]
    cases: Callable[[Any], Any] | None
    statistical: bool
    share: float

    def concerns(self, subject: Any) -> bool:
        """Whether it is a check of subjects like this one."""
        return not _absent(self.of, subject)

    def lacks(self, subject: Any) -> str:
        """Why this subject cannot be asked, or an empty string."""
        if "fraction" in getattr(subject, "needs", ()):
            return "its model must learn variances, which those of the kit do not"
        absent = _absent(self.of | self.needs, subject)
        said = [_WORDS.get(name, name) for name in absent]
        return f"it has no {', '.join(said)}" if absent else ""


_WORDS = {"linear": "drift of the form f(t) x"}


def _absent(names: Iterable[str], subject: Any) -> list[str]:
    kinds: frozenset[str] = getattr(subject, "kinds", frozenset())
    return sorted(name for name in names if name not in kinds and not hasattr(subject, name))


CHECKS: dict[str, Check] = {}


def claim(
    kind: str,
    says: str,
    source: str,
    *,
    of: Iterable[str] = (),
    needs: Iterable[str] = (),
    cost: str = "instant",
    cases: Callable[[Any], Any] | None = None,
    statistical: bool = False,
    share: float = 1.0,
) -> Callable[[F], F]:
    """Enter the decorated function in `CHECKS` under its own name; the fields are `Check`'s."""

    def enter(measure: F) -> F:
        name = measure.__name__
        assert name not in CHECKS, name
        assert cost in COSTS, cost
        assert not isinstance(of, str), name
        assert not isinstance(needs, str), name
        CHECKS[name] = Check(
            name, kind, says, source, frozenset(of), frozenset(needs), cost, measure, cases,
            statistical, share,
        )  # fmt: skip
        return measure

    return enter


def no_more_than(measured: float | Tensor, threshold: float, says: str) -> Finding:
    """A finding from one number."""
    return Finding(float(measured), threshold, says)


def agree(
    seen_name: str,
    seen: Tensor,
    expected_name: str,
    expected: Tensor,
    *,
    tol: float,
    scale: Tensor | float | None = None,
    at: Mapping[str, Tensor | float] | None = None,
    unit: Callable[[int], str] | None = None,
) -> Finding:
    """The worst of |seen - expected| / scale over entries, and a sentence about that entry.

    Args:
        seen_name: what was computed.
        seen: its values [any shape].
        expected_name: what it must equal.
        expected: those values [the same shape].
        tol: the largest relative error allowed.
        scale: what errors are relative to; by default |expected| of each entry, or of the largest
            one where that is 0.
        at: what else names the entry: values of that shape, or one value.
        unit: from the entry's number to a note.
    """
    if seen.shape != expected.shape:
        return Finding(
            math.inf,
            tol,
            f"{seen_name} has shape {tuple(seen.shape)}, {expected_name} {tuple(expected.shape)}",
        )
    seen, expected = seen.detach().double().reshape(-1), expected.detach().double().reshape(-1)
    if seen.numel() == 0:
        return Finding(0.0, tol)
    size = expected.abs() if scale is None else torch.as_tensor(scale, dtype=torch.float64)
    size = size.reshape(-1).expand(seen.shape) if size.numel() in (1, seen.numel()) else size
    size = torch.where(size > 0, size, expected.abs().max().clamp_min(1e-300))
    off = (seen - expected).abs() / size
    off = torch.where((seen == expected) & torch.isfinite(seen), 0.0, off)
    off = torch.where(torch.isfinite(seen), off, math.inf).nan_to_num(
        nan=math.inf, posinf=math.inf
    )
    k = int(off.argmax())
    a, b = float(seen[k]), float(expected[k])
    where = numbers(at or {}, k)
    text = f"{seen_name} is {relation(a, b)} {expected_name}: {a:.6g} against {b:.6g}{where}"
    return Finding(float(off[k]), tol, text + (unit(k) if unit else ""))
