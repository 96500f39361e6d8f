"""Wrong steps of the reverse SDE: DDIM, Euler-Maruyama, ancestral and their like."""

from __future__ import annotations

import math
from typing import Any

import torch

from sdekit.sampling import (
    DDIM,
    Ancestral,
    EulerMaruyama,
    ExponentialEuler,
    ReverseDiffusion,
)
from sdekit.sampling.base import kick
from sdekit.sampling.plan import Mix
from sdekit.verify.mutants._make import Table, changed

_TABLE = Table("sampler")
_add = _TABLE.add
ROWS = _TABLE.rows


def _mean_std(mean: Any, std: Any) -> Any:
    """`coefficients` of a step mean(sde, t, s), std(sde, t, s) of its own."""

    def coefficients(self: Any, sde: Any, grid: Any) -> dict[str, Any]:
        t, s = self.times(sde, grid)
        return {"mean": mean(sde, t, s), "std": std(sde, t, s) + 0 * t}

    return coefficients


def _root(m: Any) -> Any:
    """The full sigma(s) of a DDIM row with eta = 1: sqrt(1 - alpha_s^2) on VP."""
    return torch.maximum(m.eps, (1 - m.x0.square()).clamp_min(0).sqrt())


def _even(t: Any, s: Any) -> Any:
    """The interval's length over the number of steps."""
    return (t[0] - s[-1]) / len(t)


# DDIM ---------------------------------------------------------------------------------------

_add(
    "ddim_noise_sign",
    DDIM(),
    "limit_law",
    "the predicted noise is subtracted",
    coefficients=changed(DDIM, mean=lambda m: {"eps": -m.eps}),
)
_add(
    "ddim_alpha_of_t",
    DDIM(),
    "point_data limit_law",
    "x_0 is multiplied by alpha(t), not alpha(s)",
    peer=4,
    coefficients=_mean_std(
        lambda sde, t, s: Mix(t, x0=sde.alpha(t), eps=sde.sigma(s)), lambda sde, t, s: 0.0
    ),
)
_add(
    "ddim_sigma_of_t",
    DDIM(),
    "point_data limit_law",
    "the noise is multiplied by sigma(t), not sigma(s)",
    coefficients=_mean_std(
        lambda sde, t, s: Mix(t, x0=sde.alpha(s), eps=sde.sigma(t)), lambda sde, t, s: 0.0
    ),
)
_add(
    "ddim_noise_half_a_percent",
    DDIM(eta=1.0),
    "point_data",
    "the noise is 0.5 % too large",
    coefficients=changed(DDIM, std=lambda std: 1.005 * std),
)
_add(
    "ddim_keeps_the_noise_it_adds",
    DDIM(eta=1.0),
    "point_data limit_law",
    "the predicted noise is not reduced by the fresh one",
    coefficients=changed(DDIM, mean=lambda m: {"eps": _root(m)}),
)
_add(
    "ddim_eta_not_squared",
    DDIM(eta=0.5),
    "published_step",
    "the noise variance is eta, not eta^2, of the posterior's",
    peer=33,
    coefficients=lambda self, sde, grid: DDIM(eta=self.eta**0.5).coefficients(sde, grid),
)
_add(
    "ddim_one_percent_of_x0",
    DDIM(),
    "point_data limit_law",
    "x_0 is 0.1 % too large in every step",
    coefficients=changed(DDIM, mean=lambda m: {"x0": 1.001 * m.x0}),
)
_add(
    "ddim_declares_order_two",
    DDIM(),
    "declared_order",
    "the method is not of the order that it declares",
    peer=24,
    order=2,
)
_add(
    "ddim_steps_of_its_own",
    DDIM(),
    "grid_is_walked",
    "a step ends at t - (t_max - t_min)/K, not at the next time of the grid",
    peer=22,
    times=lambda self, sde, grid: (
        grid[:-1],
        (grid[:-1] - (grid[0] - grid[-1]) / (len(grid) - 1)).clamp_min(float(grid[-1])),
    ),
)
_add(
    "ddim_times_truncated",
    DDIM(),
    "grid_is_walked",
    "times are truncated to two digits",
    times=lambda self, sde, grid: (grid[:-1], torch.floor(grid[1:] * 100).clamp_min(1) / 100),
)

# Euler-Maruyama and the reverse diffusion sampler -------------------------------------------

_add(
    "em_step_of_the_count",
    EulerMaruyama(),
    "limit_law",
    "h = (t_max - t_min)/K whatever the grid",
    peer=5,
    coefficients=_mean_std(
        lambda sde, t, s: Mix(t, x=1 - _even(t, s) * sde.f(t), score=_even(t, s) * sde.g2(t)),
        lambda sde, t, s: (_even(t, s) * sde.g2(t)).sqrt(),
    ),
)
_add(
    "em_step_of_one_over_count",
    EulerMaruyama(eta=0.0),
    "limit_law",
    "h = 1/K: the interval's length is taken for 1",
    peer=25,
    coefficients=_mean_std(
        lambda sde, t, s: Mix(t, x=1 - sde.f(t) / len(t), score=0.5 * sde.g2(t) / len(t)),
        lambda sde, t, s: 0.0,
    ),
)
_add(
    "em_drift_sign",
    EulerMaruyama(),
    "limit_law",
    "the drift is added, as forward in time",
    coefficients=changed(EulerMaruyama, mean=lambda m: {"x": 2 - m.x}),
)
_add(
    "em_noise_without_root",
    EulerMaruyama(),
    "limit_law",
    "g h, not g sqrt(h), in the noise",
    coefficients=changed(EulerMaruyama, std=lambda std: std**2),
)
_add(
    "em_noise_root_two",
    EulerMaruyama(),
    "limit_law",
    "sqrt(2 h) in the noise: the factor of Langevin's equation",
    coefficients=changed(EulerMaruyama, std=lambda std: math.sqrt(2) * std),
)
_add(
    "em_noise_one_percent",
    EulerMaruyama(),
    "limit_law declared_order",
    "the noise is 1 % too large",
    coefficients=changed(EulerMaruyama, std=lambda std: 1.01 * std),
)
_add(
    "em_score_one_percent",
    EulerMaruyama(),
    "limit_law declared_order",
    "the score is 1 % too large",
    coefficients=changed(EulerMaruyama, mean=lambda m: {"score": 1.01 * m.score}),
)
_add(
    "em_half_score",
    EulerMaruyama(),
    "limit_law",
    "the probability flow's weight of the score, with the SDE's noise",
    coefficients=changed(EulerMaruyama, mean=lambda m: {"score": 0.5 * m.score}),
)
_add(
    "em_coefficients_at_s",
    EulerMaruyama(),
    "published_step",
    "f and g of the step's end",
    peer=18,
    coefficients=_mean_std(
        lambda sde, t, s: Mix(t, x=1 - (t - s) * sde.f(s), score=(t - s) * sde.g2(s)),
        lambda sde, t, s: ((t - s) * sde.g2(s)).sqrt(),
    ),
)
_add(
    "em_eta_zero_still_noisy",
    EulerMaruyama(eta=0.0),
    "noise_as_declared",
    "noise is added at eta = 0",
    peer=19,
    step=lambda self, x, c, model, state, noise: (
        kick(model(x, c.t).mix(c.mean), 1e-3, noise),
        state,
    ),
)
_add(
    "reverse_diffusion_score_once",
    ReverseDiffusion(),
    "limit_law",
    "std, not std^2, before the score",
    coefficients=changed(ReverseDiffusion, mean=lambda m: {"score": m.score.sqrt()}),
)
_add(
    "reverse_diffusion_drift_twice",
    ReverseDiffusion(),
    "limit_law",
    "3 - 2 k, not 2 - k, before x",
    coefficients=changed(ReverseDiffusion, mean=lambda m: {"x": 2 * m.x - 1}),
)

# ancestral ----------------------------------------------------------------------------------

_add(
    "ancestral_posterior_is_beta",
    Ancestral(),
    "point_data",
    "beta under the name of the posterior's variance",
    peer=17,
    coefficients=lambda self, sde, grid: Ancestral(variance="beta").coefficients(sde, grid),
)
_add(
    "ancestral_alpha_of_t",
    Ancestral(),
    "point_data",
    "alpha_t for alpha_s in the weight of x_0",
    coefficients=lambda self, sde, grid: changed(
        Ancestral, mean=lambda m: {"x0": m.x0 * sde.alpha(m.at) / sde.alpha(grid[1:])}
    )(self, sde, grid),
)
_add(
    "ancestral_single_precision",
    Ancestral(),
    "point_data",
    "the variance is a difference of squares in float32",
    peer=23,
    coefficients=changed(Ancestral, std=lambda std: std.float().double()),
)
_add(
    "ancestral_variance_for_std",
    Ancestral(),
    "point_data limit_law",
    "the noise is multiplied by its variance",
    coefficients=changed(Ancestral, std=lambda std: std**2),
)
_add(
    "ancestral_last_step_noisy",
    Ancestral(variance="beta"),
    "data_end_is_noiseless",
    "the step to the data adds noise",
    peer=30,
    coefficients=changed(Ancestral, std=lambda std: torch.where(std == 0, 0.05, std)),
)

# exponential Euler --------------------------------------------------------------------------

_add(
    "exponential_frozen_twice",
    ExponentialEuler(),
    "limit_law",
    "W is twice what it is",
    coefficients=changed(ExponentialEuler, mean=lambda m: {"score": 2 * m.score}),
)
_add(
    "exponential_noise_of_the_way_up",
    ExponentialEuler(),
    "published_step",
    "the forward transition's std, not divided by its scale",
    coefficients=lambda self, sde, grid: changed(
        ExponentialEuler, std=lambda std: std * sde.transition(grid[1:], grid[:-1])[0]
    )(self, sde, grid),
)
