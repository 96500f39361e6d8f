"""Orders of convergence, read off an experiment's rows: errors C n^-p of n network calls.

A sampled error falls no further than its floor, the value of two true sets of the same size: only
rows that lie clearly above it (value - 2 stderr > floor) tell how the error falls. Of an entrant's
rows by calls, those from the first that has come down to its floor onwards are left out, and
`sdekit.exact.fit_slope` regresses the logarithms of the others over their asymptotic window, with
weights that know the relative standard error of the values (0 for exact metrics).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdekit.compare.paired import Row, ranked
from sdekit.errors import ConfigError
from sdekit.exact import Slope, fit_slope

__all__ = ["Fit", "slopes"]

_LEAST = 3
_CLEAR = 2.0  # standard errors above the floor


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How the error of a sampler falls with its network calls.

    Attributes:
        data: of the rows.
        model: of the rows.
        sde: of the rows.
        sampler: of the rows.
        grid: of the rows.
        metric: of the rows.
        exact: whether the metric is.
        points: the rows that lie clearly above their floors, before the first that does not.
        slope: p, its 95 % interval and the calls that it rests on; None where there is none.
        reason: why there is none.
    """

    data: str
    model: str
    sde: str
    sampler: str
    grid: str
    metric: str
    exact: bool
    points: int
    slope: Slope | None
    reason: str = ""


_KEYS = ("data", "model", "sde", "sampler", "grid", "metric")


def slopes(rows: Iterable[Row]) -> list[Fit]:
    """The order p of errors C n^-p of every sampler, grid and question.

    Metrics of which more is better have no error to fall and are left out.

    Args:
        rows: rows of an experiment.

    Example:
        >>> base = {"data": "d", "model": "m", "sde": "vp", "sampler": "heun()",
        ...         "better": "smaller", "grid": "uniform()", "metric": "w2",
        ...         "exact": True, "status": "ok", "steps": 1, "stderr": 0.0, "floor": 0.0}
        >>> fit = slopes([{**base, "calls": n, "value": 3 / n**2} for n in (10, 20, 40)])[0]
        >>> round(fit.slope.value, 6), fit.slope.window
        (2.0, (10, 40))
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["better"] == "smaller":
            groups.setdefault(tuple(row[key] for key in _KEYS), []).append(row)
    return [_fit(key, group) for key, group in groups.items()]


def _fit(key: tuple[str, ...], group: Sequence[Row]) -> Fit:
    used = clear(group)
    about = {**dict(zip(_KEYS, key, strict=True)), "exact": all(row["exact"] for row in group)}
    slope, reason = None, ""
    values = sum(ranked(row) for row in group)
    if values < _LEAST:  # n/a, FAILED, or few calls asked
        reason = f"{values} of {len(group)} rows have a value; {_LEAST} are needed"
    elif len(used) < _LEAST:
        reason = f"{len(used)} of {values} values lie clearly above the floor; {_LEAST} are needed"
    else:
        relative = [(row["stderr"] or 0.0) / row["value"] for row in used]
        scatter = math.sqrt(sum(r**2 for r in relative) / len(relative))
        try:
            slope = fit_slope(
                [round(row["calls"]) for row in used], [row["value"] for row in used],
                scatter=scatter,
            )  # fmt: skip
        except ConfigError as error:
            reason = str(error)
    return Fit(**about, points=len(used), slope=slope, reason=reason)  # type: ignore[arg-type]


def clear(group: Sequence[Row]) -> list[Row]:
    """The rows by calls, one for each number of calls, up to the first that is at its floor."""
    by_calls: dict[int, Row] = {}
    for row in group:
        if ranked(row) and row["calls"]:
            other = by_calls.get(round(row["calls"]))
            if other is None or (row["steps"] or 0) > (other["steps"] or 0):
                by_calls[round(row["calls"])] = row
    used = []
    for _, row in sorted(by_calls.items()):
        if row["value"] - _CLEAR * (row["stderr"] or 0.0) <= (row["floor"] or 0.0):
            break
        used.append(row)
    return used
