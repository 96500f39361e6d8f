"""Libraries of the extras, imported when they are needed; where one is missing, what adds it."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["needed"]


def needed(module: str, *, extra: str, by: str, package: str | None = None) -> Any:
    """A module of an extra.

    Args:
        module: its name.
        extra: the extra that brings it.
        by: what needs it, the first words of the message.
        package: the library's name where it is not the module's.

    Raises:
        ModuleNotFoundError: it is not installed; the message has the `pip install` that adds it.

    Example:
        >>> needed("no_such_library", extra="report", by="a report")
        Traceback (most recent call last):
        ModuleNotFoundError: a report needs no_such_library: pip install 'sdekit[report]'
    """
    name = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name:
            raise  # something that it needs itself
        raise ModuleNotFoundError(
            f"{by} needs {package or name}: pip install 'sdekit[{extra}]'", name=name
        ) from error
