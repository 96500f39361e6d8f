r"""A mixture at every noise level, written out by hand: what the checks hold others against.

At x_t = alpha x_0 + sqrt(v) eps the components of sum_k w_k N(m_k, c_k I) are
N(alpha m_k, (alpha^2 c_k + v) I). Nothing here comes from `sdekit.targets`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["LINE", "PLANE", "Mixture", "mixture", "slope"]


@dataclass(frozen=True, eq=False)
class Mixture:
    """sum_k w_k N(m_k, c_k I), with weights [(k,)], means [(k, d)] and variances [(k,)]."""

    weights: Tensor
    means: Tensor
    spreads: Tensor

    @property
    def d(self) -> int:
        """The dimension."""
        return self.means.shape[1]

    def _parts(self, x: Tensor, alpha: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha, var = alpha[:, None], var[:, None]
        total = alpha**2 * self.spreads + var  # (n, k)
        away = x[:, None, :] - alpha[..., None] * self.means  # (n, k, d)
        log_parts = (
            self.weights.log()
            - 0.5 * self.d * torch.log(2 * math.pi * total)
            - 0.5 * away.square().sum(-1) / total
        )
        return log_parts, -away / total[..., None], total

    def log_prob(self, x: Tensor, alpha: Tensor, var: Tensor) -> Tensor:
        """Of x [(n, d)] at noise levels alpha, var [(n,) each]."""
        return self._parts(x, alpha, var)[0].logsumexp(1)

    def score(self, x: Tensor, alpha: Tensor, var: Tensor) -> Tensor:
        """Its gradient [(n, d)]."""
        log_parts, pull, _ = self._parts(x, alpha, var)
        return (log_parts.softmax(1)[..., None] * pull).sum(1)

    def curvature(self, x: Tensor, alpha: Tensor, var: Tensor) -> Tensor:
        """(Laplacian of p) / p = Laplacian of log p + |score|^2 [(n,)]."""
        log_parts, pull, total = self._parts(x, alpha, var)
        return (log_parts.softmax(1) * (pull.square().sum(-1) - self.d / total)).sum(1)

    def laplacian(self, x: Tensor, alpha: Tensor, var: Tensor) -> Tensor:
        """Laplacian of log p, the divergence of the score [(n,)]."""
        return self.curvature(x, alpha, var) - self.score(x, alpha, var).square().sum(-1)

    def cdf(self, x: Tensor, alpha: Tensor, var: Tensor) -> Tensor:
        """On the line: the mass left of x [(n, 1)], as (n,)."""
        total = (alpha[:, None] ** 2 * self.spreads + var[:, None]).sqrt()
        below = torch.special.ndtr((x - alpha[:, None] * self.means[:, 0]) / total)
        return (below * self.weights).sum(1)

    def points(self, alpha: Tensor, var: Tensor, seed: int = 0) -> Tensor:
        """Plausible points, one for each noise level [(n, d)]."""
        generator = torch.Generator().manual_seed(seed)
        n = len(alpha)
        which = torch.randint(len(self.weights), (n,), generator=generator)
        z = torch.randn(n, self.d, generator=generator, dtype=torch.float64)
        spread = (alpha**2 * self.spreads[which] + var).sqrt()
        return alpha[:, None] * self.means[which] + spread[:, None] * z

    def rate(
        self, x: Tensor, alpha: Tensor, var: Tensor, alpha_rate: Tensor, var_rate: Tensor
    ) -> Tensor:
        """d log p / dt at a fixed x where alpha and var move at these rates [(n,)]."""
        alpha, var = (c.detach().clone().requires_grad_() for c in (alpha, var))
        with torch.enable_grad():
            total = self.log_prob(x, alpha, var).sum()
            by_alpha, by_var = torch.autograd.grad(total, (alpha, var))
        return by_alpha * alpha_rate + by_var * var_rate


def mixture(weights: Any, means: Any, spreads: Any) -> Mixture:
    """The mixture with these numbers."""
    return Mixture(*(torch.tensor(v, dtype=torch.float64) for v in (weights, means, spreads)))


LINE = mixture([0.3, 0.7], [[-1.5], [1.0]], [0.3, 0.05])
PLANE = mixture([0.2, 0.5, 0.3], [[1.5, 1.0], [-1.0, 0.2], [0.3, -2.0]], [0.5, 0.1, 0.9])


def slope(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """d function / dt at t [(n,)]: by autograd, or by five points where there is no gradient."""
    with torch.enable_grad():
        point = t.detach().clone().requires_grad_()
        value = function(point)
        if isinstance(value, Tensor) and value.requires_grad:
            return torch.autograd.grad(value.sum(), point)[0].double()
    # by values at t and before it: a function need not go on beyond the end of time
    h = 1e-3 * t
    with torch.no_grad():
        values = [function(t - k * h).double() for k in range(5)]
    weights = (25 / 12, -4.0, 3.0, -4 / 3, 1 / 4)
    return sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros_like(t)) / h


def differences(function: Callable[[Tensor], Tensor], t: Tensor, width: float) -> Tensor:
    """The five-point derivative at t [(n,)], with steps of width t to both sides."""
    h = width * t
    with torch.no_grad():
        far, near = (function(t + k * h).double() - function(t - k * h).double() for k in (2, 1))
    return (8 * near - far) / (12 * h)
