"""Failures of sdekit's own objects that are meant, with their reasons.

They are listed as expected and turn red once they pass.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["KNOWN"]

# the label of an object -> the check that it fails -> why that is right
KNOWN: Mapping[str, Mapping[str, str]] = {}
