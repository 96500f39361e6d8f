"""What the tests of comparisons share: small experiments, samplers that misbehave, folders."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdekit import Sampler, catalogue, register
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


if "misbehaving" not in catalogue("sampler"):  # workers import this module under its own name

    @register("sampler", "misbehaving")
    @dataclass(frozen=True, kw_only=True)
    class Misbehaving(Sampler):
        """A sampler that fails in the way that it is told.

        Args:
            how: "raise", "nan", "exit" (the process dies), "once" (only the first time), "sleep".
            mark: a file that remembers the first time.
            name: of no effect but on the spelling.
        """

        how: str = "raise"
        mark: str = ""
        name: str = ""

        def coefficients(self, sde: Any, grid: torch.Tensor) -> dict[str, Any]:
            return {}

        def step(self, x: Any, c: Any, model: Any, state: Any, noise: Any) -> Any:
            if self.how == "raise":
                raise ValueError("this sampler always fails")
            if self.how == "exit" or (self.how == "once" and not Path(self.mark).exists()):
                if self.mark:
                    Path(self.mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "sleep":
                time.sleep(0.05)
            return (x * torch.nan if self.how == "nan" else 0.5 * x), state

        @classmethod
        def examples(cls) -> list[Any]:
            return []
