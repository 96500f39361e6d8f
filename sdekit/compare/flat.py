"""The rows as CSV and JSON lines, and the times apart: files for other programs.

`rows.csv` and `rows.jsonl` hold every number but wall times: two runs of one experiment make the
same bytes. `times.csv` varies by nature.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from sdekit.compare.escaping import cell, plain_json
from sdekit.compare.paired import Row
from sdekit.compare.store import Stored

__all__ = ["rows_csv", "rows_jsonl", "times_csv"]

_COLUMNS = (
    "cell", "data", "score", "model", "sde", "sampler", "grid", "steps", "calls", "vjps",
    "rejected", "memory", "metric", "title", "unit", "better", "exact", "status", "reason",
    "value", "stderr", "low", "high", "floor", "floor_stderr", "p_value", "n", "seeds", "values",
    "floors", "detail",
)  # fmt: skip
_TIMES = ("cell", "data", "model", "sde", "sampler", "grid", "steps", "run", "calls", "seconds",
          "network", "overhead")  # fmt: skip


def rows_csv(rows: Iterable[Row]) -> bytes:
    """The rows with a heading; lists and `detail` as JSON, empty where there is no number."""
    return _csv(_COLUMNS, rows)


def rows_jsonl(rows: Iterable[Row]) -> bytes:
    """One JSON object a line, in ASCII, never NaN."""
    lines = (plain_json({key: row[key] for key in _COLUMNS}) + "\n" for row in rows)
    return "".join(lines).encode("ascii")


def times_csv(stored: Stored) -> bytes:
    """Seconds of every run of every cell, in all and inside the network."""
    found = []
    for one in stored.cells:
        times = one.get("times") or {}
        seconds, network = times.get("seconds") or [], times.get("network") or []
        for run, total in enumerate(seconds):
            inside = network[run] if run < len(network) else None
            found.append({
                "cell": one["cell"], **one["spec"], "run": run, "calls": times.get("calls"),
                "seconds": total, "network": inside,
                "overhead": None if inside is None else total - inside,
            })  # fmt: skip
    return _csv(_TIMES, found)


def _csv(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    out = io.StringIO()
    names = list(columns)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([cell(row[name]) for name in names] for row in rows)
    return out.getvalue().encode("utf-8")
