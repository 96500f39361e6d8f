r"""The exponential Euler method on the reverse SDE: its linear part exact, the score frozen.

From t to s < t, with the score held at its value at (x_t, t), dx = (f x - g^2 score) dt + g dW
has the solution

    x_s = (alpha_s / alpha_t) x_t + W score(x_t, t) + (alpha_s / alpha_t) std z                (1)
    W = int_s^t (alpha_s / alpha_u) g^2(u) du                                                  (2)

where std is that of the forward transition x_t | x_s, so that the variance of the noise is
(alpha_s / alpha_t)^2 var_t - var_s. Let L be the log-SNR, so that g^2 du = -alpha^2 d exp(-L), and

    W = (alpha_s / alpha_t) std^2 A,    A = mean of alpha_u / alpha_t, weighted by exp(-L_u) dL (3)

over L between L_t and L_s: positive numbers only, A = 1 where alpha is constant (VE), and on VP
W = 2 (alpha_s / alpha_t - 1). Elsewhere A is a Gauss-Legendre sum in L.

References: Zhang and Chen, arXiv:2204.13902 (exponential integrators for diffusion models);
Pierret and Galerne, arXiv:2405.14250 (this scheme on the reverse SDE, with its exact error).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit.errors import ConfigError
from sdekit.sampling.base import OneKick, landing_noise
from sdekit.sampling.plan import Mix
from sdekit.sde.base import LinearSDE

__all__ = ["ExponentialEuler"]

_WIDEST = 40.0  # in log-SNR: what lies beyond carries exp(-40) of the weight
_MOST_GROWTH = 1e12  # of x in a step: some steps later it overflows
_NODES = (8, 3.0)  # and so many per unit of log-SNR: alpha(L) may have poles at L = +- i pi


@register("sampler", "exponential_euler", paper="arXiv:2204.13902; arXiv:2405.14250")
@dataclass(frozen=True, kw_only=True)
class ExponentialEuler(OneKick):
    """The reverse SDE with its linear part solved exactly and the score frozen over a step.

    Eq. (1): x_s = (alpha_s / alpha_t) x_t + W score(x_t, t) + (alpha_s / alpha_t) std z.

    Raises:
        ConfigError: at planning, a step in which the linear part grows beyond 1e12.

    Reference: arXiv:2204.13902; arXiv:2405.14250.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (4, 2), sampler="exponential_euler", steps=20, seed=0).nfe
        20
    """

    needs = frozenset({"linear", "noise"})

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Eqs. (1) and (3)."""
        t, s = self.times(sde, grid)
        scale, std = sde.transition(s, t)
        if bool((scale * _MOST_GROWTH < 1).any()):
            k = int(scale.argmin())
            raise ConfigError(
                f"{self!r} multiplies x by {float(1 / scale[k]):.3g} in the step from t = "
                f"{float(t[k]):.4g} to {float(s[k]):.4g}, where the frozen score cannot hold it: "
                "take more steps or a weaker process"
            )
        mean = Mix(t, x=1 / scale, score=_frozen(sde, s, t))
        return {"mean": mean, "std": landing_noise(sde, s, std / scale)}


def _frozen(sde: LinearSDE, s: Tensor, t: Tensor) -> Tensor:
    """W [(K,)], eq. (2)."""
    log_scale = sde.log_alpha(t) - sde.log_alpha(s)
    if "vp" in sde.kinds:
        return 2 * torch.expm1(-log_scale)
    scale, std = sde.transition(s, t)
    mean = 1.0 if "ve" in sde.kinds else _mean_alpha(sde, s, t)
    return std.square() / scale * mean


def _mean_alpha(sde: LinearSDE, s: Tensor, t: Tensor) -> Tensor:
    """A of eq. (3) [(K,)]: both integrals by the same rule, so that a constant alpha gives 1."""
    start = sde.log_snr(t)
    width = (sde.log_snr(s) - start).clamp_max(_WIDEST)
    fewest, dense = _NODES
    count = fewest + math.ceil(dense * float(width.max()))
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(count))
    beyond = width[:, None] * (0.5 * (nodes + 1))
    weights = weights * torch.exp(-beyond)
    u = sde.t_from_log_snr(start[:, None] + beyond)
    ratio = (sde.log_alpha(u) - sde.log_alpha(t)[:, None]).exp()
    return (weights * ratio).sum(1) / weights.sum(1)
