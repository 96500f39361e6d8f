"""Valid but odd SDEs and samplers, written as a user would: no check may reject one.

The reverse of `mutants`: what a checker must not take for a fault. Piecewise rates, other ends
of time, a variance at 0 that is not 0, processes that preserve no variance, processes given by two
functions or by an object of nobody's class, samplers that are a plain function or carry a state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.sampling import DDIM, EulerMaruyama, Heun, PredictorCorrector, Sampler
from sdekit.sampling.base import OneKick
from sdekit.sampling.plan import Mix
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, FlowSDE, LinearSDE, SubVPSDE

__all__ = ["SAMPLERS", "SDES", "PiecewiseBeta", "PlainOU", "WarpedVP"]


@dataclass(frozen=True, kw_only=True)
class PiecewiseBeta(LinearSDE):
    """Variance preserving, beta = low before t = jump and high after it."""

    low: float = 0.5
    high: float = 12.0
    jump: float = 0.3

    @property
    def kinks(self) -> list[float]:
        """Where f and g jump."""
        return [self.jump]

    def log_alpha(self, t: Any) -> Tensor:
        """-1/2 of the integral of beta."""
        return -0.5 * (
            self.low * t.clamp_max(self.jump) + self.high * (t - self.jump).clamp_min(0)
        )

    def var(self, t: Any) -> Tensor:
        """1 - alpha^2."""
        return -torch.expm1(2 * self.log_alpha(t))


@dataclass(frozen=True, kw_only=True)
class PlainOU(LinearSDE):
    """dx = -rate x dt + sqrt(2 rate spread) dW from var(0) = start: not variance preserving."""

    rate: float = 3.0
    spread: float = 1.0
    start: float = 0.0

    def log_alpha(self, t: Any) -> Tensor:
        """-rate t."""
        return -self.rate * t

    def var(self, t: Any) -> Tensor:
        """From `start` to `spread` at twice the rate."""
        gone = -torch.expm1(-2 * self.rate * t)
        return self.start * (1 - gone) + self.spread * gone


@dataclass(frozen=True, kw_only=True)
class WarpedVP(LinearSDE):
    """`VPSDE` run on the clock t^power: an SDE that has only `log_alpha` and `var`."""

    power: float = 2.0
    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_alpha(self, t: Any) -> Tensor:
        """Of VP at t^power."""
        u = t**self.power
        return -0.5 * u * (self.beta_min + 0.5 * u * (self.beta_max - self.beta_min))

    def var(self, t: Any) -> Tensor:
        """1 - alpha^2."""
        return -torch.expm1(2 * self.log_alpha(t))


def _beta(t: Tensor) -> Tensor:
    return 0.1 + 19.9 * t


def _minus_half_beta(t: Tensor) -> Tensor:
    return -0.5 * _beta(t)


def _step(t: Tensor) -> Tensor:
    return torch.where(t < 0.25, 0.5, 8.0).to(t.dtype)


def _minus_half_step(t: Tensor) -> Tensor:
    return -0.5 * _step(t)


class DriftAndDiffusion:
    """An Ornstein-Uhlenbeck process of nobody's class, in plain floats and tensors."""

    def drift(self, x: Tensor, t: Any) -> Tensor:
        """-2 x."""
        return -2.0 * x

    def diffusion(self, t: Any) -> Any:
        """sqrt(3), in the shape of t."""
        return math.sqrt(3.0) + 0 * t


class WithMarginals:
    """VP with a constant rate, of nobody's class, with its marginals and another end of time."""

    t_min, t_max = 1e-3, 2.0

    def drift(self, x: Tensor, t: Any) -> Tensor:
        """-x."""
        return -x

    def diffusion(self, t: Any) -> Any:
        """sqrt(2), in the shape of t."""
        return 0 * t + math.sqrt(2.0)

    def log_alpha(self, t: Any) -> Any:
        """-t."""
        return -1.0 * t

    def var(self, t: Any) -> Any:
        """1 - exp(-2 t)."""
        return -torch.expm1(-2.0 * torch.as_tensor(t, dtype=torch.float64))


# name -> a valid process; `kinks` of a module constant stand in `strategies`
SDES: Mapping[str, Any] = {
    "piecewise_beta": PiecewiseBeta(),
    "plain_ou": PlainOU(),
    "plain_ou_wide": PlainOU(rate=0.7, spread=4.0, start=0.25, t_min=0.0),
    "t_max_3": PlainOU(rate=1.5, t_max=3.0),
    "t_max_0.4": VPSDE(t_max=0.4),
    "sub_vp_t_max_2.5": SubVPSDE(beta_min=0.5, beta_max=4.0, t_max=2.5),
    "sigma_min_1e-8": VESDE(sigma_min=1e-8, sigma_max=10.0),
    "edm_rho_3": EDM(rho=3.0, sigma_min=0.1, t_max=0.7),
    "warped_vp": WarpedVP(),
    "custom_var0": PlainOU(start=0.09, t_min=0.0),
    "two_lambdas": LinearSDE.from_coefficients(_minus_half_beta, _beta),
    "two_lambdas_jump": LinearSDE.from_coefficients(_minus_half_step, _step, var0=0.04, t_max=1.5),
    "strong_beta": VPSDE(beta_min=0.1, beta_max=200.0),
    "strong_sub_vp": SubVPSDE(beta_min=0.1, beta_max=900.0),
    "one_step_chain": DDPM(torch.tensor([0.7], dtype=torch.float64)),
    "flow_cut_short": FlowSDE(t_min=0.05, t_max=0.5),
    "drift_and_diffusion": DriftAndDiffusion(),
    "with_marginals": WithMarginals(),
}


def plain_ddim(model: Any, x: Tensor, grid: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
    """DDIM as a function of nobody's class."""
    ends = zip(model.sde.alpha(grid[1:]).tolist(), model.sde.sigma(grid[1:]).tolist(), strict=True)
    for t, (alpha, sigma) in zip(grid[:-1].tolist(), ends, strict=True):
        seen = model(x, t)
        x = alpha * seen.x0 + sigma * seen.eps
    return x


def plain_ancestral(
    model: Any, x: Tensor, grid: Tensor, noise: Callable[[Tensor], Tensor]
) -> Tensor:
    """Ancestral sampling as a function of nobody's class."""
    weights = zip(
        *(part.tolist() for part in model.sde.posterior(grid[1:], grid[:-1])), strict=True
    )
    for t, (of_x, of_x0, var) in zip(grid[:-1].tolist(), weights, strict=True):
        x = of_x * x + of_x0 * model(x, t).x0
        if var > 0:
            x = x + var**0.5 * noise(x)
    return x


plain_ancestral.stochastic = True  # type: ignore[attr-defined]  # what a function may declare


@dataclass(frozen=True, kw_only=True)
class TwoStepAdams(Sampler):
    """DDIM with the last two noise predictions: a state passes through the loop."""

    order = 2

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Adams-Bashforth of order 2 in r = sigma / alpha, Euler where there is no last one."""
        t, s = self.times(sde, grid)
        level = sde.sigma(grid) / sde.alpha(grid)
        step = level.diff()
        ratio = torch.cat([torch.ones_like(step[:1]), step[1:] / step[:-1]])
        scale = sde.alpha(s)
        first = torch.arange(len(step)) == 0
        now = torch.where(first, step, step * (1 + 0.5 * ratio))
        return {
            "now": Mix(t, x=scale / sde.alpha(t), eps=scale * now),
            "eps": Mix(t, eps=1.0),
            "last": torch.where(first, 0.0, -0.5 * scale * step * ratio),
        }

    def step(self, x: Tensor, c: Any, model: Any, state: Any, noise: Any) -> tuple[Tensor, Any]:
        """One row; the state is the last noise prediction."""
        seen = model(x, c.t)
        y, eps = seen.mix(c.now), seen.mix(c.eps)
        return (y if state is None else y.add_(state, alpha=c.last)), eps


@dataclass(frozen=True, kw_only=True)
class FrozenMean(OneKick):
    """A sampler of order 1 that uses the exact transition, and more noise than most."""

    needs = frozenset({"linear", "noise"})

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Euler-Maruyama with eta = sqrt(2), in two columns."""
        t, s = self.times(sde, grid)
        h, g2 = t - s, sde.g2(t)
        mean = Mix(t, x=1 - h * sde.f(t), score=1.5 * h * g2)
        return {"mean": mean, "std": torch.where(sde.var(s) == 0, 0.0, (2 * h * g2).sqrt())}


SAMPLERS: Mapping[str, Any] = {
    "plain_ddim": plain_ddim,
    "plain_ancestral": plain_ancestral,
    "two_step_adams": TwoStepAdams(),
    "frozen_mean": FrozenMean(),
    "ddim_tiny_eta": DDIM(eta=1e-3),
    "em_eta_2": EulerMaruyama(eta=2.0),
    "heun_churned": Heun(churn=5.0),
    "pc_of_ddim": PredictorCorrector(predictor="ddim", corrections=2),
}
