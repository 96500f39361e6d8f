"""Compare samplers: an experiment, its runner, and the report of what came out.

from sdekit.compare import report
print(report("out"))  # out/report.html, and the tables beside it
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    **dict.fromkeys(["front", "slopes", "winners"], "sdekit.compare.analysis"),
    **dict.fromkeys(["render", "report"], "sdekit.compare.reporting"),
}

__all__ = ["front", "render", "report", "slopes", "winners"]

if TYPE_CHECKING:
    from sdekit.compare.analysis import front, slopes, winners
    from sdekit.compare.reporting import render, report


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, resolved or not."""
    return sorted(__all__)
