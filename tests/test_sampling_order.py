"""Claim: each fixed-step sampler converges with at least its declared order, and to the true law.

Property 46, by the affine probe of `sampling_support`: exact mean and variance of the output on a
spectrum of Gaussian variances, no Monte Carlo. Log-SNR grids over [.05, .95] t_max, on VP, sub-VP
and VE (some slips are invisible on VE). Rate and limit are tested apart; rates have no upper
bound.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from sampling_support import (
    adaptive,
    entries,
    exact_law,
    inner_grid,
    law_error,
    probe,
    spectrum,
)  # fmt: skip

from sdekit.model import ExactScore
from sdekit.sampling import Ancestral, EulerMaruyama, Heun, Langevin, PredictorCorrector
from sdekit.sde import VESDE, VPSDE, SubVPSDE

SDES = {"vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE()}
FIXED = {
    **{key: s for key, s in entries("sampler").items() if not adaptive(s) and s.order is not None},
    "heun-churned": Heun(churn=5.0),
    "euler-2": EulerMaruyama(eta=2.0),
}
# two step counts where the leading term leads; rk4 is near rounding beyond
STEPS = {1: (320, 640), 2: (160, 320), 4: (80, 160)}

every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
every_sampler = pytest.mark.parametrize("sampler", FIXED.values(), ids=FIXED)


@cache
def laws(sampler, sde):
    """The output's mean and variance at both step counts, and the true ones."""
    model = ExactScore(spectrum(), sde)
    found = []
    for steps in STEPS[sampler.order]:
        grid = inner_grid(sde, steps)
        found.append(probe(sampler, model, grid).law(*exact_law(model, float(grid[0]))))
    return *found, exact_law(model, float(grid[-1]))


def error(law, truth) -> float:
    (mean, var), (true_mean, true_var) = law, truth
    away = (mean - true_mean).abs() / true_var.sqrt()
    return float(torch.maximum((var / true_var - 1).abs(), away).max())


@every_sde
@every_sampler
def test_rate(sampler, sde):
    coarse, fine, truth = laws(sampler, sde)
    slope = math.log2(error(coarse, truth) / error(fine, truth))
    assert slope >= sampler.order - 0.1, f"measured {slope:.2f}, declared {sampler.order}"


@every_sde
@every_sampler
def test_limit(sampler, sde):
    """Richardson's extrapolation of the two laws is the true law: the limit is not elsewhere."""
    coarse, fine, truth = laws(sampler, sde)
    gain = 2**sampler.order
    limit = [(gain * b - a) / (gain - 1) for a, b in zip(coarse, fine, strict=True)]
    assert error(limit, truth) < 0.2 * error(coarse, truth) + 1e-8
    assert error(limit, truth) < {1: 1e-2, 2: 1e-4, 4: 1e-7}[sampler.order]


def test_what_declares_no_order_does_not_converge():
    """Correctors, and what contains one of fixed step, are biased at any step count."""
    model = ExactScore(spectrum(), VPSDE())
    for sampler in (
        PredictorCorrector(predictor=Ancestral(), corrector=Langevin(snr=0.3)),
        Heun(churn=5.0, noise_scale=1.01),
    ):
        assert sampler.order is None
        errors = [law_error(sampler, model, inner_grid(model.sde, n)) for n in (320, 640)]
        assert errors[1] > 0.8 * errors[0] > 1e-3
    assert Langevin().order is None
    assert Heun(noise_scale=1.01).order == 2  # unused without churn


def test_the_order_would_catch_a_wrong_step():
    """Bug 24: Euler under the name of Heun measures 1; a noise of the wrong size has no limit."""

    class Late(Heun):
        def step(self, x, c, model, state, noise):
            return model(x, c.high).mix(c.euler), state

    class Loud(Ancestral):
        def coefficients(self, sde, grid):
            columns = super().coefficients(sde, grid)
            return {**columns, "std": 1.02 * columns["std"]}

    truth = laws(Late(), VPSDE())
    assert math.log2(error(truth[0], truth[2]) / error(truth[1], truth[2])) < 1.2
    coarse, fine, true = laws(Loud(), VPSDE())
    assert math.log2(error(coarse, true) / error(fine, true)) < 0.9
