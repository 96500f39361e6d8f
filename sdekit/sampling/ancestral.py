r"""Ancestral sampling: draw x_s from the posterior x_s | x_t, x_0 with x_0 as predicted.

With the posterior of `LinearSDE.posterior`, weights w_t, w_0 and variance beta_tilde, and v_ts the
variance of the forward transition (beta_i on a chain),

    x_s = w_t x_t + w_0 x_0(x_t) + exp(1/2 [v log v_ts + (1 - v) log beta_tilde]) z.            (1)

v = 0 is DDPM's posterior variance, v = 1 its other choice, beta. A model that learns its variance
says v element by element, as v = (1 + fraction) / 2. On VE the step is SMLD's.

References: Ho et al., arXiv:2006.11239, eqs. 7 and 11; Nichol and Dhariwal, arXiv:2102.09672, eq.
15; Song et al., arXiv:2011.13456, eq. 47 (SMLD).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, number
from sdekit.model.prediction import learned
from sdekit.sampling.base import CountedModel, OneKick, landing_noise
from sdekit.sampling.noise import Noise
from sdekit.sampling.plan import Mix
from sdekit.sde.base import LinearSDE

__all__ = ["Ancestral"]

_VARIANCES = {"posterior": 0.0, "beta": 1.0, "learned": None}  # None: the model says it


@register("sampler", "ancestral", paper="arXiv:2006.11239, algorithm 2")
@dataclass(frozen=True, kw_only=True)
class Ancestral(OneKick):
    """DDPM's ancestral sampler on any linear SDE, eq. (1).

    Args:
        variance: "posterior" (v = 0), "beta" (v = 1), v itself in [0, 1], or "learned": what the
            model says, a `ScoreModel(..., variance="learned_range")`, say.

    Raises:
        ConfigError: an unknown name, a number outside [0, 1], or a learned variance where the
            model returns no fraction.

    Reference: arXiv:2006.11239, eqs. 7 and 11; arXiv:2102.09672, eq. 15; arXiv:2011.13456, eq. 47.

    Example:
        >>> from sdekit import DDPM, ExactScore, sample
        >>> from sdekit._catalogue import make
        >>> model = ExactScore(make("target", "tutorial"), DDPM.linear(100))
        >>> result = sample(model, (1000, 2), sampler="ancestral", seed=0)
        >>> result.nfe
        100
        >>> bool((result.x[:, 0] < 0).double().mean() < 0.7)  # not 0.8: the chain is short
        True
    """

    variance: str | float = "posterior"

    def __post_init__(self) -> None:
        """Check the field."""
        if isinstance(self.variance, str):
            choice("variance", self.variance, _VARIANCES)
        else:
            self._set(variance=number("variance", self.variance, ge=0, le=1))

    @property
    def needs(self) -> frozenset[str]:
        """A linear SDE and noise; of a learned variance a model that returns a fraction."""
        more = {"fraction"} if self.variance == "learned" else set()
        return frozenset({"linear", "noise"} | more)

    @property
    def exact_on(self) -> frozenset[str]:
        """A single point, with the posterior's own variance."""
        return frozenset({"point"} if self.variance in ("posterior", 0.0) else ())

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Eq. (1)."""
        t, s = self.times(sde, grid)
        posterior = sde.posterior(s, t)
        low, high = posterior.var.sqrt(), sde.transition(s, t)[1]
        v = _VARIANCES[self.variance] if isinstance(self.variance, str) else self.variance
        if v is None:
            return {
                "x": posterior.x_t,
                "x0": posterior.x_0,
                "low": landing_noise(sde, s, low),
                "high": landing_noise(sde, s, high),
            }
        # not low.log() where v = 1: it may be -infinity
        log_std = (v * high.log() if v else 0.0) + ((1 - v) * low.log() if v < 1 else 0.0)
        std = torch.as_tensor(log_std).exp()
        mean = Mix(t, x=posterior.x_t, x0=posterior.x_0)
        return {"mean": mean, "std": landing_noise(sde, s, std)}

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """One row of eq. (1); a learned v is in what the model returns."""
        if self.variance != "learned":
            return super().step(x, c, model, state, noise)
        seen = model.each(x, torch.full((len(x),), c.t, dtype=torch.float64, device=x.device))
        v = 0.5 * (1 + learned(seen.fraction))
        y = seen.linear(x=c.x, x0=c.x0)  # the raw output is the model's own, whatever the plan's
        return (y if c.high == 0 else y.add_(noise(y) * c.low ** (1 - v) * c.high**v)), state

    @classmethod
    def examples(cls) -> list[Ancestral]:
        """Both of the paper's variances and one between."""
        return [cls(), cls(variance="beta"), cls(variance=0.3)]
