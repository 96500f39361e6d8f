"""Names for what must be the same wherever it is made: generators and cells, by digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

__all__ = ["digest", "generator"]


def digest(value: Any) -> str:
    """Twelve hexadecimal digits that name a value made of plain Python.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    # JSON in which equal things have equal bytes
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def generator(what: str, seed: int) -> torch.Generator:
    """A generator for one purpose: streams of two purposes, or two seeds, do not meet."""
    key = int.from_bytes(hashlib.sha256(f"{what} {seed}".encode()).digest()[:8], "big")
    return torch.Generator().manual_seed(key >> 1)
