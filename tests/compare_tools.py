"""What the tests of comparisons share: small experiments, samplers that misbehave, folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdekit import _catalogue
from sdekit.compare import Experiment

SMALL: dict[str, Any] = {
    "target": "tutorial", "sdes": ["vp", "ddpm(n=20)"], "samplers": ["ddim", "ancestral"],
    "steps": [3, 5], "seeds": 2, "n": 60, "metrics": ["sliced_wasserstein", "mode_weights"],
}  # fmt: skip


def small(**changes: Any) -> Experiment:
    """Eight cells of a few milliseconds each."""
    return Experiment(**{**SMALL, **changes})


def cells_of(out: Path) -> dict[str, dict[str, Any]]:
    """The finished cells of a folder by name; a half one would not be JSON."""
    return {p.stem: json.loads(p.read_text()) for p in sorted((out / "cells").glob("*.json"))}


def without_times(cell: dict[str, Any]) -> dict[str, Any]:
    """What must be the same wherever and whenever a cell was run."""
    return {key: value for key, value in cell.items() if key != "times"}


@pytest.fixture
def misbehaving() -> Iterator[list[str]]:
    """The module that registers a sampler which fails; for this test alone."""
    yield ["misbehaving_sampler"]
    _catalogue._ENTRIES["sampler"].pop("misbehaving", None)
    sys.modules.pop("misbehaving_sampler", None)
