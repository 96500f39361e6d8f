"""Whether what was read back has the form in which it was written.

A disk, a merge or a hand may have changed a file. What is not of the form counts as not there: a
cell is run again, and a report never meets it. Values are not judged: `replay` does that.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["is_cell", "is_still"]

Form = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _size(value: Any) -> bool:
    return type(value) is int and value > 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _lists(form: Form) -> Form:
    """A list of what has a form."""
    return lambda value: isinstance(value, list) and all(map(form, value))


def _table(forms: dict[str, Form]) -> Form:
    """An object with these entries, and perhaps others."""
    return lambda value: (
        isinstance(value, dict)
        and all(key in value and form(value[key]) for key, form in forms.items())
    )


def _values(form: Form) -> Form:
    """An object whose entries all have a form."""
    return lambda value: isinstance(value, dict) and all(map(form, value.values()))


def _or_none(form: Form) -> Form:
    return lambda value: value is None or form(value)


_SPEC: dict[str, Form] = {
    **dict.fromkeys(("data", "score", "model", "sde", "sampler", "grid"), _text), "steps": _number,
}  # fmt: skip
_ROW = _table({
    **_SPEC,
    **dict.fromkeys(("cell", "metric", "title", "unit", "better", "status", "reason"), _text),
    **dict.fromkeys(("calls", "vjps", "rejected", "memory", "value", "stderr", "low", "high",
                     "floor", "floor_stderr", "p_value", "n"), _number),
    **dict.fromkeys(("values", "floors", "seeds"), _lists(_number)),
    "exact": lambda value: isinstance(value, bool),
    "detail": lambda value: isinstance(value, dict),
})  # fmt: skip
_BUDGET = _table({"effects": _values(_or_none(_table({"w2": _number})))})
_TIMES = _table({"seconds": _lists(_number), "network": _lists(_number), "calls": _number})


def is_cell(content: dict[str, Any], metrics: Sequence[str]) -> bool:
    """Whether this is what `measure` gives for a cell with these metrics."""
    return _CELL(content) and [row["metric"] for row in content["rows"]] == list(metrics)


def is_still(picture: Any) -> bool:
    """Whether this is what `pictures.still` gives."""
    return isinstance(picture, dict) and _is_picture(picture, 1)


def _is_moving(picture: Any) -> bool:
    """Whether this is what `pictures.frames` gives."""
    return _TIMED(picture) and len(picture["t"]) > 0 and _is_picture(picture, len(picture["t"]))


def _is_picture(picture: dict[str, Any], times: int) -> bool:
    if "image" not in picture:
        return _POINTS(picture) and len(picture["x"]) == times
    if not _IMAGES(picture) or len(picture["image"]) != 3 or picture["image"][2] not in (1, 3):
        return False
    try:
        data = base64.b64decode(picture["bytes"], validate=True)
    except ValueError:  # binascii's is one
        return False
    return len(data) == times * picture["count"] * math.prod(picture["image"])


_TIMED = _table({"t": _lists(_number)})
_POINTS = _table({"x": _lists(_lists(_lists(_number)))})
_IMAGES = _table({
    "image": _lists(_size), "count": _size, "bytes": _text, "range": _lists(_lists(_number)),
})  # fmt: skip
_CELL = _table({
    "spec": _table(_SPEC), "status": _text, "reason": _text, "rows": _lists(_ROW),
    "budget": _or_none(_BUDGET), "times": _TIMES, "picture": _or_none(_is_moving),
})  # fmt: skip
