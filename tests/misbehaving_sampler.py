"""A sampler that fails as it is told; comparisons import this module by its name, workers too."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdekit import Sampler, register

__all__ = ["Misbehaving"]


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
