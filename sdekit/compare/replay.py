"""Running finished cells again, and whether they come out as they were.

A number that is the same to the last bit is `same`; one that differs by less than 1e-6 of its size
`agrees`: another kind of processor, or another build of torch, rounds differently. Anything else
`DIFFERS`. Times are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sdekit._check import nearest
from sdekit.compare.cell import Cell
from sdekit.compare.measure import measure
from sdekit.compare.store import Stored
from sdekit.compare.workers import spread
from sdekit.errors import ConfigError

__all__ = ["VERDICTS", "Verdict", "chosen", "replay"]

VERDICTS = ("same", "agrees", "DIFFERS")  # from best to worst
_CLOSE = 1e-6
_APART = ("cell", "seeds")  # not compared: names


@dataclass(frozen=True)
class Verdict:
    """How a row came out the second time.

    Attributes:
        row: the row as it is stored.
        verdict: one of `VERDICTS`.
        what: what differs: the field, then and now.
    """

    row: dict[str, Any]
    verdict: str
    what: str = ""


def chosen(stored: Stored, name: str | None) -> list[Cell]:
    """The finished cells, or those whose name begins so.

    Raises:
        ConfigError: there is none; the nearest names are in the message.
    """
    finished = {content["cell"] for content in stored.cells}
    cells = [cell for cell in stored.experiment.cells if cell.id in finished]
    if name is None:
        return cells
    found = [cell for cell in cells if cell.id.startswith(name)]
    if not found:
        raise ConfigError(
            f"no finished cell {name!r} in {stored.path}; {nearest(name, [c.id for c in cells])}"
        )
    return found


def replay(
    stored: Stored,
    cells: list[Cell],
    *,
    workers: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> Iterator[Verdict]:
    """Run cells again and compare every row with the stored one.

    Args:
        stored: the comparison.
        cells: which of its cells.
        workers: processes; 0: in this one.
        progress: called with (cells done, in all, the last one's label).
    """
    known = {content["cell"]: content["rows"] for content in stored.cells}
    for done, (cell, content) in enumerate(spread(cells, measure, workers), 1):
        for old, new in zip(known[cell.id], content["rows"], strict=True):
            yield _compared(old, new)
        if progress is not None:
            progress(done, len(cells), cell.label)


def _compared(old: dict[str, Any], new: dict[str, Any]) -> Verdict:
    worst, what = "same", ""
    for key in old:
        if key in _APART:
            continue
        found = _verdict(old[key], new.get(key))
        if VERDICTS.index(found) > VERDICTS.index(worst):
            worst, what = found, f"{key}: {old[key]} then, {new.get(key)} now"
    return Verdict(old, worst, what)


def _verdict(old: Any, new: Any) -> str:
    if old == new:
        return "same"
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = [_verdict(a, b) for a, b in zip(old, new, strict=True)]
        return max(found, key=VERDICTS.index, default="same")
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        found = [_verdict(old[k], new[k]) for k in old]
        return max(found, key=VERDICTS.index, default="same")
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    close = numbers and math.isclose(old, new, rel_tol=_CLOSE, abs_tol=_CLOSE**2)
    return "agrees" if close else "DIFFERS"
