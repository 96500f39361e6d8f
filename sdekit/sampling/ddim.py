r"""DDIM: the non-Markovian chains that share DDPM's marginals.

    x_s = alpha_s x_0 + sqrt(var_s - eta^2 beta_tilde) eps + eta sqrt(beta_tilde) z            (1)

with x_0, eps as predicted at (x_t, t) and beta_tilde the posterior's variance. eta = 0 is
deterministic, the exponential integrator of order 1 of the probability flow; eta = 1 is ancestral
sampling.

Reference: Song, Meng and Ermon, arXiv:2010.02502, eqs. 12 and 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import number
from sdekit.sampling.base import OneKick
from sdekit.sampling.plan import Mix
from sdekit.sde.base import LinearSDE

__all__ = ["DDIM"]


@register("sampler", "ddim", paper="arXiv:2010.02502, eq. 12")
@dataclass(frozen=True, kw_only=True)
class DDIM(OneKick):
    """DDIM on any linear SDE, eq. (1).

    Args:
        eta: in [0, 1]; the noise variance is eta^2 beta_tilde, as in the paper.

    Raises:
        ConfigError: eta outside [0, 1].

    Reference: arXiv:2010.02502, eqs. 12 and 16.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (3, 2), sampler="ddim(eta=0.5)", steps=20, seed=0).x.shape
        torch.Size([3, 2])
    """

    eta: float = 0.0
    exact_on = frozenset({"point"})

    def __post_init__(self) -> None:
        """Check the field."""
        self._set(eta=number("eta", self.eta, ge=0, le=1))

    @property
    def needs(self) -> frozenset[str]:
        """Noise, unless eta = 0."""
        return frozenset({"linear", "noise"} if self.eta else {"linear"})

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Eq. (1)."""
        t, s = self.times(sde, grid)
        fresh = self.eta**2 * sde.posterior(s, t).var if self.eta else torch.zeros_like(t)
        mean = Mix(t, x0=sde.alpha(s), eps=(sde.var(s) - fresh).clamp_min(0).sqrt())
        return {"mean": mean, "std": fresh.sqrt()}

    @classmethod
    def examples(cls) -> list[DDIM]:
        """Deterministic, ancestral, and one between."""
        return [cls(), cls(eta=1.0), cls(eta=0.5)]
