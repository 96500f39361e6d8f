"""Short names for what is read: `heun` for `heun(churn=0.0, ...)` where only one Heun is compared.

The tables beside the page, `rows.csv` and `rows.jsonl`, and the experiment at its end have the
spellings in full.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Shown", "short_names", "shown"]

_SPELLING = re.compile(r"([a-z][a-z0-9_]*)\(.*\)", re.DOTALL)
_NAMED = ("sampler", "grid", "sde", "data")
_EXACT = "exact score of "


def short_names(spellings: Iterable[str]) -> dict[str, str]:
    """By spelling, the name alone where no other of these spellings has it.

    Example:
        >>> short_names(["heun(churn=0.0)", "ddim(eta=0.0)", "ddim(eta=1.0)", "runs/vp"])
        {'heun(churn=0.0)': 'heun'}
    """
    heads: dict[str, list[str]] = {}
    for text in dict.fromkeys(spellings):
        found = _SPELLING.fullmatch(text)
        heads.setdefault(found[1] if found else text, []).append(text)
    return {texts[0]: head for head, texts in heads.items() if texts != [head] and len(texts) == 1}


@dataclass(frozen=True)
class Shown:
    """A stored comparison with short names."""

    experiment: Any
    cells: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    missing: int
    truth: dict[str, Any]
    environment: Mapping[str, Any]


def shown(stored: Any) -> Shown:
    """What is read of a stored comparison."""
    short = {
        key: short_names(cell["spec"][key] for cell in stored.cells) for key in _NAMED
    }  # fmt: skip

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(values)
        for key in _NAMED:
            found[key] = short[key].get(values[key], values[key])
        if values["model"] == _EXACT + values["data"]:
            found["model"] = _EXACT + found["data"]
        return found

    return Shown(
        stored.experiment,
        [{**cell, "spec": named(cell["spec"])} for cell in stored.cells],
        [named(row) for row in stored.rows],
        stored.missing,
        {short["data"].get(name, name): points for name, points in stored.truth.items()},
        stored.environment,
    )
