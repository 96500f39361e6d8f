r"""The reverse SDE in its simplest discretisations.

With h = t - s > 0 and the reverse family of `sdekit.sde.reverse`, Euler-Maruyama is

    x_s = x_t - h [f x_t - (1 + eta^2)/2 g^2 score] + eta g sqrt(h) z,                      (1)

and the reverse diffusion sampler uses the forward transition x_t | x_s = k x_s + std z instead of
f, g:

    x_s = (2 - k) x_t + std^2 score + std z.                                                (2)

References: Song et al., arXiv:2011.13456, eqs. 6, 46 and appendix E.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import number
from sdekit.sampling.base import OneKick, landing_noise
from sdekit.sampling.plan import Mix
from sdekit.sde.base import LinearSDE

__all__ = ["EulerMaruyama", "ReverseDiffusion"]


@register("sampler", "euler_maruyama", paper="arXiv:2011.13456, eq. 6 and section 4.1")
@dataclass(frozen=True, kw_only=True)
class EulerMaruyama(OneKick):
    """Euler-Maruyama on the reverse SDE, eq. (1); eta = 0 is Euler on the probability flow.

    Args:
        eta: the stochasticity, >= 0.

    Raises:
        ConfigError: eta < 0.

    Reference: arXiv:2011.13456, eq. 6; arXiv:2206.00364, eq. 6 for the family in eta.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 1.0), VPSDE())
        >>> sample(model, (4, 2), sampler=EulerMaruyama(eta=0.5), steps=100, seed=0).nfe
        100
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        """Check the field."""
        self._set(eta=number("eta", self.eta, ge=0))

    @property
    def needs(self) -> frozenset[str]:
        """Noise, unless eta = 0."""
        return frozenset({"linear", "noise"} if self.eta else {"linear"})

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Eq. (1)."""
        t, s = self.times(sde, grid)
        h, g2 = t - s, sde.g2(t)
        mean = Mix(t, x=1 - h * sde.f(t), score=0.5 * (1 + self.eta**2) * h * g2)
        return {"mean": mean, "std": landing_noise(sde, s, self.eta * (h * g2).sqrt())}

    @classmethod
    def examples(cls) -> list[EulerMaruyama]:
        """The reverse SDE, the flow, and one between."""
        return [cls(), cls(eta=0.0), cls(eta=0.5)]


@register("sampler", "reverse_diffusion", paper="arXiv:2011.13456, eq. 46")
@dataclass(frozen=True, kw_only=True)
class ReverseDiffusion(OneKick):
    """Song et al.'s reverse diffusion sampler, eq. (2): the forward discretisation, run backwards.

    On a DDPM chain k = sqrt(1 - beta_i) and std^2 = beta_i, on VE k = 1 and std^2 the difference
    of variances, as in the paper; on any other linear SDE they are the exact transition's.

    Reference: arXiv:2011.13456, appendix E, eqs. 46 to 48.
    """

    needs = frozenset({"linear", "noise"})

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Eq. (2)."""
        t, s = self.times(sde, grid)
        scale, std = sde.transition(s, t)
        return {"mean": Mix(t, x=2 - scale, score=std**2), "std": landing_noise(sde, s, std)}
