r"""Heun's method of Karras et al., with churn, in sigma/alpha on any linear SDE.

Let y = x / alpha and r = sigma / alpha, so that the probability flow is dy/dr = eps. A row from t
to s:

    y_h = y_t + sqrt(r_h^2 - r_t^2) S_noise z,     r_h = (1 + gamma) r_t                      (1)
    y_e = y_h + (r_s - r_h) eps(h)                                                            (2)
    y_s = y_h + (r_s - r_h) (eps(h) + eps(s)) / 2                                             (3)

with gamma = min(churn / K, sqrt(2) - 1) while churn_min <= r_t <= churn_max, else 0. A row that
lands where sigma = 0 ends with (2).

Reference: Karras et al., arXiv:2206.00364, algorithms 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit.sampling.base import CountedModel, kick
from sdekit.sampling.churn import Churning
from sdekit.sampling.integrals import Levels
from sdekit.sampling.noise import Noise
from sdekit.sampling.plan import Mix
from sdekit.sde.base import LinearSDE

__all__ = ["Heun"]


@register("sampler", "heun", paper="arXiv:2206.00364, algorithm 2")
@dataclass(frozen=True, kw_only=True)
class Heun(Churning):
    """EDM's second-order sampler, eqs. (1) to (3).

    Args:
        churn: S_churn, >= 0; 0 is the deterministic algorithm 1.
        churn_min: S_tmin, in units of sigma/alpha.
        churn_max: S_tmax, in units of sigma/alpha; None: no limit.
        noise_scale: S_noise.

    Raises:
        ConfigError: a negative value, or churn on a DDPM chain, where there is no time between
            nodes.
        TimeError: churn above t_max on a process that does not extend there.

    Reference: arXiv:2206.00364, algorithms 1 and 2, table 5.

    Example:
        >>> import torch
        >>> from sdekit import EDM, ExactScore, Gaussian, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), EDM())
        >>> sample(model, (4, 2), sampler="heun", steps=18, seed=0).nfe
        36
    """

    nfe_per_step = 2

    @property
    def order(self) -> int | None:
        """2; None where noise_scale != 1 makes churn add a variance that no grid takes away."""
        return None if self.churn and self.noise_scale != 1 else 2

    @property
    def needs(self) -> frozenset[str]:
        """Noise, where there is churn."""
        return frozenset({"linear", "noise"} if self.churn else {"linear"})

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Eqs. (1) to (3), multiplied by alpha at the time of their left side."""
        t, s = self.times(sde, grid)
        high, lift, fresh = self.raised(sde, t)
        long = sde.reaching(float(high.max()))
        at, to = Levels(long, high), Levels(long, s)
        ratio = to.alpha / at.alpha
        step = to.sigma - ratio * at.sigma  # alpha_s (r_s - r_h)
        last = to.sigma == 0
        # the second call of a last row is never made: its column holds any time that has a model
        second = np.where(last, at.t, to.t)
        return {
            "high": high,
            "lift": lift,
            "fresh": fresh,
            "euler": Mix(high, x=ratio, eps=step),
            "half": Mix(high, x=ratio, eps=0.5 * step),
            "rest": Mix(second, eps=np.where(last, 0.0, 0.5 * step)),
            "last": last.astype(float),
        }

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """Eqs. (1) to (3)."""
        if c.fresh or c.lift != 1:
            x = kick(torch.mul(x, c.lift), c.fresh, noise)
        out = model(x, c.high)
        y = out.mix(c.euler)
        if c.last:
            return y, state
        return model(y, c.s).add_to(out.mix(c.half), c.rest), state

    @classmethod
    def examples(cls) -> list[Heun]:
        """Deterministic and churned."""
        return [cls(), cls(churn=5.0, churn_min=0.05, churn_max=5.0, noise_scale=1.003)]
