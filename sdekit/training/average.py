r"""The exponential moving average of a model's weights, with a warm-up.

    average_1 = weights_1,   average_n = d_n average_{n-1} + (1 - d_n) weights_n,               (1)
    d_n = min(decay, (1 + n) / (10 + n)).                                                       (2)

Without (2) a run shorter than 1 / (1 - decay) steps would return little but its first weights.
Buffers are not averaged but copied. The averaging is torch's own.

Reference: torch.optim.swa_utils; the warm-up is that of TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sdekit.model import ScoreModel

__all__ = ["Average"]

Group = tuple[list[Tensor], list[Tensor]]


class Average:
    """The average of a model's weights over its training steps.

    Args:
        model: the model that is trained; it is copied.
        decay: in [0, 1); 0 keeps the latest weights.

    Attributes:
        model: the model with averaged weights, in eval mode.
        count: the number of updates.
    """

    def __init__(self, model: ScoreModel, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.model = copy.deepcopy(model).eval()
        # The pairs are collected once: AveragedModel.update_parameters walks the modules at every
        # step, which takes as long as the optimizer does.
        groups: dict[tuple[torch.device, torch.dtype], Group] = {}
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            pair = groups.setdefault((theirs.device, theirs.dtype), ([], []))
            pair[0].append(mine)
            pair[1].append(theirs)
        self._groups = list(groups.values())
        self._blend: tuple[float, Callable[..., None]] = (math.nan, get_ema_multi_avg_fn())
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one more step, eq. (1)."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))  # eq. (2)
        if self.count == 1:
            decay = 0.0
        if decay != self._blend[0]:  # making torch's function costs as much as calling it
            self._blend = decay, get_ema_multi_avg_fn(decay)
        _, blend = self._blend
        for mine, theirs in self._groups:
            blend(mine, theirs, self.count)
        for kept, latest in self._buffers:
            kept.copy_(latest)

    def restore(self, weights: Mapping[str, Tensor], count: int) -> None:
        """Go on from an average of `count` steps."""
        self.model.load_state_dict(dict(weights))
        self.count = count
