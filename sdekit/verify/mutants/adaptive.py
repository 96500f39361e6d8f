"""Wrong adaptive samplers of the reverse SDE."""

from __future__ import annotations

from typing import Any

import torch

from sdekit.sampling import AdaptiveSDE
from sdekit.sampling.adaptive import PathAhead
from sdekit.verify.mutants._make import Table

_TABLE = Table("sampler")
_add = _TABLE.add
ROWS = _TABLE.rows


class _Forgetful(PathAhead):
    def settle(self, taken: Any) -> None:
        """A rejected increment is forgotten, and drawn again."""
        super().settle(torch.ones_like(taken))


_add(
    "adaptive_redraws_on_rejection",
    AdaptiveSDE(),
    "rejections_keep_the_law",
    "a rejected step's noise is drawn anew",
    peer=36,
    path=lambda self, x: _Forgetful(x),
)
