"""Which check catches which mutant: the measure of the kit itself.

A mutant counts as killed by a check only where the check fails on it and passes, under each of
a few seeds, on the right implementation that it was made from. The kit is whole when every mutant
dies by the checks that it names, and every check kills one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sdekit.verify.claims import CHECKS, Check
from sdekit.verify.front import checks_for, subject_of
from sdekit.verify.mutants import MUTANTS, Mutant
from sdekit.verify.runner import Asked, run

__all__ = ["Matrix", "Row", "kill_matrix"]

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Row:
    """What became of one mutant.

    Attributes:
        mutant: the mutant.
        killed_by: the checks that failed on it and pass on the right implementation.
        missed_by: the checks that it names and that did not.
        unsound: checks that fail on the right implementation: they kill nothing.
        says: what the first of its killers saw.
    """

    mutant: Mutant
    killed_by: tuple[str, ...]
    missed_by: tuple[str, ...]
    unsound: tuple[str, ...]
    says: str

    @property
    def ok(self) -> bool:
        """Whether it dies by every check that it names, and no check is unsound."""
        return not self.missed_by and not self.unsound


@dataclass(frozen=True)
class Matrix:
    """The rows of all mutants.

    Attributes:
        rows: one a mutant.
        whole: whether every check of a mutant's kind was asked, or those only that it names.
        seconds: how long it took.
    """

    rows: tuple[Row, ...]
    whole: bool
    seconds: float

    @property
    def idle(self) -> tuple[str, ...]:
        """The checks that kill no mutant."""
        busy = {name for row in self.rows for name in row.killed_by}
        return tuple(name for name in CHECKS if name not in busy)

    @property
    def ok(self) -> bool:
        """Whether every mutant dies as it says and every check kills one."""
        return all(row.ok for row in self.rows) and not self.idle

    @property
    def summary(self) -> str:
        """The counts, in one line."""
        dead = sum(bool(row.killed_by) for row in self.rows)
        return (
            f"{dead} of {len(self.rows)} mutants killed, {len(CHECKS) - len(self.idle)} of "
            f"{len(CHECKS)} checks kill one; {self.seconds:.0f} s"
        )

    def __str__(self) -> str:
        """A line a mutant, then what is wrong, then the counts."""
        width = max((len(row.mutant.name) for row in self.rows), default=0)
        lines = []
        for row in self.rows:
            mark = "killed by" if row.ok else "SURVIVES "
            lines.append(f"{row.mutant.name:{width}}  {mark} {', '.join(row.killed_by) or 'none'}")
            lines += [f"{'':{width}}  missed by {name}" for name in row.missed_by]
            lines += [f"{'':{width}}  {name} fails on the right one too" for name in row.unsound]
        lines += [f"{name} kills no mutant" for name in self.idle]
        return "\n".join([*lines, self.summary])


def kill_matrix(
    mutants: Sequence[Mutant] = MUTANTS,
    *,
    whole: bool = False,
    seeds: Sequence[int] = SEEDS,
    callback: Callable[[Row], Any] | None = None,
) -> Matrix:
    """Ask the checks of every mutant.

    Args:
        mutants: the wrong implementations.
        whole: ask every check of a mutant's kind, not only those that it names.
        seeds: those under which the right implementation must pass a check.
        callback: called with every row as it comes.

    Returns:
        A `Matrix`.

    Example:
        >>> from sdekit.verify import kill_matrix, mutants
        >>> one = [m for m in mutants.MUTANTS if m.name == "vp_g2_twice"]
        >>> kill_matrix(one).rows[0].killed_by
        ('variance_equation', 'marginals_integrated')
    """
    start = time.perf_counter()
    sound: dict[tuple[object, str], bool] = {}
    rows = []
    for mutant in mutants:
        rows.append(_row(mutant, whole, seeds, sound))
        if callback is not None:
            callback(rows[-1])
    return Matrix(tuple(rows), whole, time.perf_counter() - start)


def _row(
    mutant: Mutant, whole: bool, seeds: Sequence[int], sound: dict[tuple[object, str], bool]
) -> Row:
    quick = Asked(shrink=False)
    wrong, right = subject_of(mutant.wrong, mutant.kind), subject_of(mutant.right, mutant.kind)
    asked = list(checks_for(wrong)) if whole else [CHECKS[name] for name in mutant.caught_by]
    killed, unsound, says = [], [], ""

    def passes(check: Check) -> bool:
        """Whether the right implementation survives the check under every seed."""
        key = _value(mutant.right), check.name
        if key not in sound:
            sound[key] = all(
                run(check, right.thing, right.label, replace(quick, seed=seed), "").status
                == "passed"
                for seed in seeds
            )
        return sound[key]

    for check in asked:
        result = run(check, wrong.thing, wrong.label, quick, "")
        if result.status != "failed":
            continue
        if passes(check):
            killed.append(check.name)
            says = says or result.says
        else:
            unsound.append(check.name)
    missed = [name for name in mutant.caught_by if name not in killed]
    return Row(mutant, tuple(killed), tuple(missed), tuple(unsound), says)


def _value(thing: Any) -> Any:
    """What equal things share: themselves, if they can be a key."""
    try:
        hash(thing)
    except TypeError:
        return id(thing)
    return thing
