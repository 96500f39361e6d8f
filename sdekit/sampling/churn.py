r"""EDM's churn: a little noise before a row, up to a level that the row then starts from.

    r_h = (1 + gamma) r_t,  gamma = min(churn / K, sqrt(2) - 1) while churn_min <= r_t <= churn_max

with r = sigma / alpha and K rows.

Reference: Karras et al., arXiv:2206.00364, algorithm 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdekit._check import number
from sdekit.errors import ConfigError
from sdekit.sampling.base import Sampler
from sdekit.sampling.integrals import Levels
from sdekit.sampling.plan import Array
from sdekit.sde.base import LinearSDE

__all__ = ["Churning", "level_of"]

_LARGEST_GAMMA = (
    math.sqrt(2) - 1
)  # arXiv:2206.00364, algorithm 2: never more than doubles the variance


@dataclass(frozen=True, kw_only=True)
class Churning(Sampler):
    """The fields of churn, and the levels that it raises rows to."""

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float | None = None
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        for name in ("churn", "churn_min", "noise_scale"):
            self._set(**{name: number(name, getattr(self, name), ge=0)})
        if self.churn_max is not None:
            self._set(churn_max=number("churn_max", self.churn_max, ge=self.churn_min))

    def raised(self, sde: LinearSDE, t: Tensor) -> tuple[Tensor, Array, Array]:
        """The raised times, and what multiplies x and z to get there [(K,) each]."""
        if not self.churn:
            return t, np.ones(len(t)), np.zeros(len(t))
        if "ddpm" in sde.kinds:
            raise ConfigError(
                "churn needs times between the nodes of a chain; use churn=0 on a DDPM"
            )
        at = Levels(sde, t)
        level = at.sigma / at.alpha
        ceiling = math.inf if self.churn_max is None else self.churn_max
        inside = (level >= self.churn_min) & (level <= ceiling)
        gamma = inside * min(self.churn / len(t), _LARGEST_GAMMA)
        raised = torch.from_numpy(level * (1 + gamma))
        reach = _longer(sde, float(raised.max()))  # the process itself, where that is far enough
        high = torch.where(torch.from_numpy(gamma > 0), reach.t_from_log_snr(-2 * raised.log()), t)
        alpha = reach.alpha(high).numpy()
        lift = alpha / at.alpha
        fresh = alpha * level * np.sqrt(gamma * (2 + gamma)) * self.noise_scale
        return high, lift, fresh

    @property
    def exact_on(self) -> frozenset[str]:
        """A point, unless noise_scale adds a variance that stays."""
        return frozenset({"point"} if self.noise_scale == 1 or not self.churn else ())


def level_of(sde: LinearSDE, t: Tensor) -> Tensor:
    """sigma / alpha."""
    return sde.sigma(t) / sde.alpha(t)


def _longer(sde: LinearSDE, level: float) -> LinearSDE:
    """The process followed to where sigma / alpha has this value."""
    end = sde
    while float(level_of(end, torch.tensor(end.t_max, dtype=torch.float64))) < level:
        end = end.reaching(end.t_max * 1.25)
    return end
