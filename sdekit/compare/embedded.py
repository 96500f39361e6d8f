"""What the page's script is given: every row once, by columns, and the pictures in bytes.

Texts stand once in a list and are numbers elsewhere; values keep six digits (the tables beside the
page keep all). Pictures keep one byte a coordinate, in a box of their own for every time, and as
many of them as fit into `MOST_PICTURES` bytes: each entrant's of the most steps first, then those
of a middle number and of the fewest, then the others.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdekit.compare.analysis import Front, budgets_of
from sdekit.compare.charts import EFFECTS
from sdekit.compare.escaping import visible
from sdekit.compare.naming import Shown
from sdekit.compare.paired import Row

__all__ = ["numbers", "overheads"]

MOST_PICTURES = 1_400_000  # bytes of base64 in one page
MOST_POINTS = 160
_TEXTS = ("cell", "data", "model", "sde", "sampler", "grid", "metric", "status", "reason")
_NUMBERS = (
    "steps", "calls", "value", "low", "high", "stderr", "floor", "floor_stderr", "p_value", "n",
)  # fmt: skip


class _Texts:
    """Each text once."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __call__(self, text: object) -> int:
        return self.index.setdefault(visible(text), len(self.index))


def short(value: Any) -> Any:
    """A number with six digits; None where it is none."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def numbers(stored: Shown, fronts: Iterable[Front]) -> dict[str, Any]:
    """Everything that the page's script draws, but for times."""
    texts = _Texts()
    rows = stored.rows
    columns: dict[str, list[Any]] = {key: [texts(row[key]) for row in rows] for key in _TEXTS}
    columns |= {key: [short(row[key]) for row in rows] for key in _NUMBERS}
    columns["seeds"] = [texts(", ".join(map(str, row["seeds"]))) for row in rows]
    columns["seed_count"] = [len(row["seeds"]) for row in rows]
    columns["exact"] = [int(bool(row["exact"])) for row in rows]
    columns["front"] = _on_front(rows, fronts)
    metrics = {
        row["metric"]: {
            "key": texts(row["metric"]), "title": visible(row["title"]),
            "unit": visible(row["unit"]), "larger": row["better"] == "larger",
            "exact": bool(row["exact"]),
        }
        for row in reversed(rows)
    }  # fmt: skip
    specs = [cell["spec"] for cell in stored.cells]
    found = {
        "rows": columns,
        "metrics": list(reversed(metrics.values())),
        "cases": _distinct((texts(s["data"]), texts(s["model"])) for s in specs),
        "sdes": _distinct(texts(s["sde"]) for s in specs),
        "series": _distinct((texts(s["sampler"]), texts(s["grid"])) for s in specs),
        "budgets": budgets_of(rows),
        "effects": {"names": list(EFFECTS), "cells": _effects(stored.cells, texts)},
        "weights": _weights(rows),
        "pictures": _pictures(stored.cells, texts),
        "pictured_of": sum(cell.get("picture") is not None for cell in stored.cells),
        "truth": {texts(label): _packed(known) for label, known in stored.truth.items()},
    }
    return {**found, "texts": list(texts.index)}


def _distinct(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def _on_front(rows: Sequence[Row], fronts: Iterable[Front]) -> list[int]:
    """2 on the front of its question, 1 off it within noise, 0 off it."""
    place: dict[int, int] = {}
    for one in fronts:
        place |= {id(row): 2 for row in one.on} | {id(row): 1 for row in one.near}
    return [place.get(id(row), 0) for row in rows]


def _about(cell: Mapping[str, Any], texts: _Texts) -> dict[str, Any]:
    spec = cell["spec"]
    calls = next((row["calls"] for row in cell["rows"] if row["calls"] is not None), None)
    return {
        "cell": texts(cell["cell"]),
        **{key: texts(spec[key]) for key in ("data", "model", "sde", "sampler", "grid")},
        "steps": spec["steps"], "calls": short(calls),
    }  # fmt: skip


def _effects(cells: Iterable[Mapping[str, Any]], texts: _Texts) -> list[dict[str, Any]]:
    """The W2 of every effect and of their sum, where they are exact."""
    found = []
    for cell in cells:
        budget = cell.get("budget")
        if budget and budget.get("exact", True):
            effects = budget["effects"]
            values = [short((effects.get(name) or {}).get("w2")) for name in (*EFFECTS, "total")]
            if values[-1] is not None:
                found.append({**_about(cell, texts), "w2": values})
    return found


def _weights(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The modes' weights of the rows that tell them: the number of the row, and what it says."""
    found = []
    for k, row in enumerate(rows):
        detail = row["detail"] or {}
        if row["status"] == "ok" and detail.get("weights") and detail.get("truth"):
            errors = detail.get("stderr") or [None] * len(detail["weights"])
            found.append({
                "row": k, "weights": [short(w) for w in detail["weights"]],
                "stderr": [short(e) for e in errors],
                "truth": [short(w) for w in detail["truth"]],
            })  # fmt: skip
    return found


def _pictures(cells: Iterable[Mapping[str, Any]], texts: _Texts) -> list[dict[str, Any]]:
    """The states of samples, thinned to the size that a page may have."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        if cell.get("picture"):
            s = cell["spec"]
            key = tuple(s[k] for k in ("data", "model", "sde", "sampler", "grid"))
            groups.setdefault(key, []).append(cell)
    turns: list[list[Mapping[str, Any]]] = []  # the first of each group, then the second, ...
    for group in groups.values():
        ordered = sorted(group, key=lambda cell: -(cell["spec"]["steps"] or 0))
        if len(ordered) > 2:  # the most steps, a middle number, the fewest, then the others
            middle = ordered[len(ordered) // 2]
            rest = [cell for cell in ordered[1:-1] if cell is not middle]
            ordered = [ordered[0], middle, ordered[-1], *rest]
        for turn, cell in enumerate(ordered):
            if turn == len(turns):
                turns.append([])
            turns[turn].append(cell)
    found, size = [], 0
    for cell in (cell for turn in turns for cell in turn):
        picture = cell["picture"]
        packed = _packed(picture)
        size += len(packed["bytes"])
        if size > MOST_PICTURES:
            break
        found.append({**_about(cell, texts), "t": [short(t) for t in picture["t"]], **packed})
    return found


def _packed(picture: Mapping[str, Any]) -> dict[str, Any]:
    """Images as they are, which are bytes; points [T][P][2] as bytes.

    Points lie between the ends of a box [T][x0, y0, x1, y1]; 255: none there.
    """
    if "image" in picture:
        return {key: picture[key] for key in ("image", "count", "bytes")}
    frames: Sequence[Sequence[Sequence[float]]] = picture["x"]
    boxes, data = [], bytearray()
    count = min(MOST_POINTS, min((len(frame) for frame in frames), default=0))
    for frame in frames:
        points = [_plane(p) for p in frame[:count]]
        there = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])] or [(0.0, 0.0)]
        low = [min(p[k] for p in there) for k in (0, 1)]
        size = [max(p[k] for p in there) - low[k] or 1.0 for k in (0, 1)]
        boxes.append([short(v) for v in (*low, low[0] + size[0], low[1] + size[1])])
        for p in points:
            for k in (0, 1):
                part = (p[k] - low[k]) / size[k]
                data.append(round(254 * part) if math.isfinite(part) else 255)
    return {"count": count, "box": boxes, "bytes": base64.b64encode(bytes(data)).decode()}


def _plane(point: Sequence[float | None]) -> tuple[float, float]:
    """The first two coordinates; of one alone, at height 0; NaN for what JSON could not hold."""
    x, y = (*point, 0.0)[:2]
    return (math.nan if x is None else float(x), math.nan if y is None else float(y))


def overheads(stored: Shown) -> list[dict[str, Any]]:
    """Seconds of each cell by call of the network, inside and outside it; they vary by run."""
    found = []
    for cell in stored.cells:
        times = cell.get("times") or {}
        seconds, network = times.get("seconds") or [], times.get("network") or []
        calls = times.get("calls")
        if not seconds or len(network) != len(seconds) or not calls:
            continue
        total, inside = sum(seconds) / len(seconds), sum(network) / len(network)
        found.append({
            "cell": cell["cell"], **cell["spec"], "runs": len(seconds), "calls": float(calls),
            "per_call": total / calls, "network": inside / calls,
            "overhead": (total - inside) / calls,
        })  # fmt: skip
    return found
