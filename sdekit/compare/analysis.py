"""What the rows of a comparison say: winners within budgets, Pareto fronts, orders of convergence.

Rows are compared within a *question*: the same data, model, SDE and metric. An *entrant* is a
sampler on a grid. Within a budget of b network calls an entrant is represented by its row with the
most calls <= b, not by its best one: the smallest of several noisy values of one entrant is biased
towards zero, and that of the entrant with more rows the more.

n/a, FAILED and values that are not finite never rank. Of sampled metrics, differences are paired
by seed, and all of a question's differences within a budget are corrected together
(`sdekit.compare.paired` says how and why). Exact metrics have no noise: smaller is smaller.

The Pareto front of calls against values holds the rows that no other row beats in one and equals
in the other. A row off the front is off it *within noise* where its 95 % interval reaches that of
the front.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sdekit.compare.convergence import Fit, slopes
from sdekit.compare.paired import SAME, Difference, Pairs, Row, difference, holm, ranked
from sdekit.errors import ConfigError

__all__ = [
    "Difference",
    "Fit",
    "Front",
    "Question",
    "Rival",
    "Winner",
    "budgets_of",
    "difference",
    "front",
    "holm",
    "questions",
    "slopes",
    "winners",
]

LEVEL = 0.05  # of the claim that a rival differs from the winner
MOST_BUDGETS = 6


class Question(NamedTuple):
    """What rows must share to be compared."""

    data: str
    model: str
    sde: str
    metric: str


@dataclass(frozen=True, kw_only=True)
class Rival:
    """An entrant that did not win.

    Attributes:
        row: its row within the budget.
        difference: its value less the winner's.
        p: adjusted for all differences of the question; None where not known; 0 or 1 where exact.
    """

    row: Row
    difference: Difference
    p: float | None

    @property
    def distinguishable(self) -> bool:
        """Whether it differs from the winner, at 5 % for all claims of the question together."""
        return self.p is not None and self.p <= LEVEL


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The best of a question within a budget of network calls.

    Attributes:
        question: what was compared.
        budget: the most calls that were allowed.
        row: the best row.
        rivals: the others, best first.
        left_out: entrants without a value within the budget.
    """

    question: Question
    budget: int
    row: Row
    rivals: tuple[Rival, ...] = ()
    left_out: int = field(default=0)

    @property
    def equals(self) -> tuple[Rival, ...]:
        """The rivals that are not distinguishable from it."""
        return tuple(rival for rival in self.rivals if not rival.distinguishable)

    @property
    def p(self) -> float | None:
        """How sure it is that the winner beats whom it beats: the largest adjusted p of them."""
        beaten = [r.p for r in self.rivals if r.distinguishable and r.p is not None]
        return max(beaten, default=None)

    @property
    def smallest_p(self) -> float | None:
        """The smallest adjusted p of all rivals; None where none is known."""
        return min((r.p for r in self.rivals if r.p is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class Front:
    """The Pareto front of a question.

    Attributes:
        question: what was compared.
        on: the rows on it, by calls.
        near: rows off it only within noise: their 95 % intervals reach the front's.
    """

    question: Question
    on: tuple[Row, ...]
    near: tuple[Row, ...]


def questions(rows: Iterable[Row]) -> dict[Question, list[Row]]:
    """The rows of each question, in the order of their first rows."""
    found: dict[Question, list[Row]] = {}
    for row in rows:
        key = Question(row["data"], row["model"], row["sde"], row["metric"])
        found.setdefault(key, []).append(row)
    return found


def entrant(row: Row) -> tuple[str, str]:
    """Who a row stands for: a sampler on a grid."""
    return row["sampler"], row["grid"]


def compared(row: Row) -> bool:
    """Whether a row can rank within a budget: it has a value and a count of calls."""
    return ranked(row) and row["calls"] is not None and math.isfinite(row["calls"])


def budgets_of(rows: Iterable[Row], most: int = MOST_BUDGETS) -> list[int]:
    """The distinct counts of network calls, rounded up, thinned evenly in their order.

    Example:
        >>> row = {"status": "ok", "value": 1.0}
        >>> budgets_of([{**row, "calls": c} for c in (10.0, 9.2, 20.0)])
        [10, 20]
    """
    found = sorted({math.ceil(row["calls"]) for row in rows if compared(row)})
    if len(found) <= most:
        return found
    return [found[round(k * (len(found) - 1) / (most - 1))] for k in range(most)]


def winners(rows: Sequence[Row], budgets: Iterable[int] | None = None) -> list[Winner]:
    """The best sampler of every question within every budget, and who is not distinguishable.

    Args:
        rows: rows of an experiment.
        budgets: of network calls; by default at most six of those that occur.

    Returns:
        One `Winner` per question and budget within which something has a value.

    Raises:
        ConfigError: a budget below 1.

    Example:
        >>> base = {"data": "d", "model": "m", "sde": "vp", "metric": "w2", "grid": "uniform()",
        ...         "better": "smaller", "status": "ok", "exact": False, "stderr": None,
        ...         "steps": 9, "calls": 10.0, "seeds": [0, 1, 2], "cell": "0"}
        >>> rows = [{**base, "sampler": "heun()", "value": 1.0, "values": [0.9, 1.0, 1.1]},
        ...         {**base, "sampler": "ddim()", "value": 2.0, "values": [1.9, 2.01, 2.1]}]
        >>> won = winners(rows)[0]
        >>> won.row["sampler"], won.equals, f"{won.p:.0e}"
        ('heun()', (), '1e-05')
    """
    wanted = budgets_of(rows) if budgets is None else sorted(set(budgets))
    if any(budget < 1 for budget in wanted):
        raise ConfigError(f"a budget of network calls must be at least 1, got {wanted}")
    found = []
    for question, group in questions(rows).items():
        everyone = {entrant(row) for row in group}
        before: tuple[list[Row], tuple[Row, tuple[Rival, ...]]] | None = None
        for budget in wanted:
            chosen = within(group, budget)
            if not chosen:
                continue
            if before is None or before[0] != chosen:
                before = chosen, _judged(chosen)
            best, rivals = before[1]
            left = len(everyone) - len(chosen)
            found.append(
                Winner(question=question, budget=budget, row=best, rivals=rivals, left_out=left)
            )
    return found


def within(group: Iterable[Row], budget: int) -> list[Row]:
    """Each entrant's row with the most calls within the budget; of equal calls the most steps."""
    chosen: dict[tuple[str, str], Row] = {}
    for row in group:
        if compared(row) and row["calls"] <= budget:
            other = chosen.get(entrant(row))
            if other is None or _extent(row) > _extent(other):
                chosen[entrant(row)] = row
    return list(chosen.values())


def _extent(row: Row) -> tuple[float, int]:
    return row["calls"], row["steps"] or 0


def cost(row: Row) -> float:
    """The value, turned so that smaller is better."""
    return -row["value"] if row["better"] == "larger" else row["value"]


def _judged(chosen: Sequence[Row]) -> tuple[Row, tuple[Rival, ...]]:
    """The best row, and the others against it."""
    order = sorted(chosen, key=lambda row: (cost(row), row["calls"], entrant(row)))
    pairs = Pairs(order)
    adjusted = pairs.adjusted()
    rivals = tuple(
        Rival(row=row, difference=pairs.at(k, 0), p=_or_none(adjusted[k, 0]))
        for k, row in enumerate(order)
        if k
    )
    return order[0], rivals


def _or_none(p: float) -> float | None:
    return None if math.isnan(p) else float(p)


def front(rows: Sequence[Row]) -> list[Front]:
    """The Pareto front of calls against value, of every question.

    Args:
        rows: rows of an experiment.

    Example:
        >>> base = {"data": "d", "model": "m", "sde": "vp", "metric": "w2", "better": "smaller",
        ...         "status": "ok", "low": None, "high": None}
        >>> found = front([{**base, "calls": c, "value": v} for c, v in ((5, 1.0), (9, 2.0))])
        >>> [row["calls"] for row in found[0].on]
        [5]
    """
    found = []
    for question, group in questions(rows).items():
        ordered = sorted((r for r in group if compared(r)), key=lambda r: (r["calls"], cost(r)))
        on: list[Row] = []
        off: list[tuple[Row, Row]] = []  # with the point of the front that beats it
        for row in ordered:
            last = on[-1] if on else None
            if last is None or _joins(row, last):
                on.append(row)
            else:
                off.append((row, last))
        near = tuple(row for row, better in off if _reaches(row, better))
        found.append(Front(question=question, on=tuple(on), near=near))
    return found


def _joins(row: Row, last: Row) -> bool:
    """Whether a row is better than the front so far, or equal to its last point in both."""
    if _same(row, last):
        return bool(row["calls"] == last["calls"])
    return cost(row) < cost(last)


def _same(a: Row, b: Row) -> bool:
    return abs(cost(a) - cost(b)) <= SAME * abs(cost(b))


def _reaches(row: Row, better: Row) -> bool:
    """Whether the intervals of both overlap; values without one are points."""
    (low, high), (other_low, other_high) = _interval(row), _interval(better)
    return (low <= other_high and other_low <= high) or _same(row, better)


def _interval(row: Row) -> tuple[float, float]:
    low, high = row["low"], row["high"]
    if low is None and high is None:
        return row["value"], row["value"]
    return (-math.inf if low is None else low, math.inf if high is None else high)
