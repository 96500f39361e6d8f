"""The libraries of the `report` extra, imported when they are used."""

from __future__ import annotations

from typing import Any

from sdekit._extras import needed

__all__ = ["altair", "demand", "vl_convert"]


def altair() -> Any:
    """The module, or an error that says how to get it."""
    return _module("altair")


def vl_convert() -> Any:
    """The module, or an error that says how to get it."""
    return _module("vl_convert")


def demand() -> None:
    """Refuse before any work where the page cannot be made.

    Raises:
        ModuleNotFoundError: a library of the extra is missing.
    """
    altair()
    vl_convert()


def _module(name: str) -> Any:
    return needed(name, extra="report", by="the report of a comparison")
