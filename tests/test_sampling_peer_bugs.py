"""Claim: the wrong formulas of released samplers are not here.

PEER_BUGS 17, 20 and 23, and laws of draws; the others are mutants of the kit.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import draws, exact_law, inner_grid, probe, spectrum, two_modes
from strategies import f64

from sdekit.model import ExactScore
from sdekit.sampling import DDIM, Ancestral, EulerMaruyama, ReverseDiffusion, sample
from sdekit.sampling.noise import KeyedNoise
from sdekit.sde import DDPM, EDM, VESDE, VPSDE
from sdekit.targets import Gaussian


def test_17_which_variance_is_better_depends_on_the_data():
    """Exact, N = 1000, W2 on N(0, 1/4): 7.5e-4 with beta, 3.9e-3 with the posterior's variance."""
    sde = DDPM.linear(1000)
    grid = torch.linspace(1, 0, 1001, dtype=torch.float64)

    def w2(variance, c):
        model = ExactScore(Gaussian(f64([0.0]), c), sde)
        _, var = probe(Ancestral(variance=variance), model, grid).law(*exact_law(model, 1.0))
        return abs(math.sqrt(float(var)) - math.sqrt(c))

    assert w2("beta", 0.25) == pytest.approx(7.5e-4, rel=0.05)
    assert w2("posterior", 0.25) == pytest.approx(3.9e-3, rel=0.05)
    # beta is optimal for N(0, I), but for the last step, which adds no noise at all
    assert w2("beta", 1.0) == pytest.approx(1 - math.sqrt(1 - float(sde.betas[0])), rel=1e-6)
    assert w2("posterior", 1.0) > 10 * w2("beta", 1.0)
    assert w2("posterior", 1e-12) < 1e-6  # and the posterior's for a point


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), EDM()], ids=repr)
def test_20_the_start_has_the_marginal_at_the_starting_time(sde):
    for t in (1.0, 0.7):
        grid = f64([t, 0.3])
        z = KeyedNoise(0)(torch.empty(3, 2, dtype=torch.float64))
        model = ExactScore(two_modes(), sde)
        x = sample(model, (3, 2), grid=grid, seed=0, keep="all").trajectory[0]
        assert torch.equal(x, z * (1.0 if "vp" in sde.kinds else float(sde.sigma(t))))


def test_23_no_radicand_is_negative():
    """sigma_to^2 - sigma_up^2 by subtraction is < 0 for some levels; none of ours is NaN."""
    levels = torch.logspace(2, -6, 400, dtype=torch.float32)
    high, low = levels[:-1], levels[1:]
    up = (low**2 * (high**2 - low**2) / high**2).sqrt()
    assert bool((low**2 - up**2).isfinite().all())
    sde = VESDE(sigma_min=1e-8, sigma_max=1e4)
    model = ExactScore(two_modes(), sde)
    for steps in (1, 2, 7, 50, 999):
        for sampler in (DDIM(eta=1.0), Ancestral(), ReverseDiffusion(), EulerMaruyama()):
            run = sample(model, (2, 2), sampler=sampler, steps=steps, seed=0, dtype=torch.float64)
            assert bool(torch.isfinite(run.x).all())
    # nearly equal times: the posterior's variance is tiny, and its square root is real
    near = f64([0.5, math.nextafter(0.5, 0), 0.4])
    for sampler in (DDIM(eta=1.0), Ancestral(variance=0.5), ReverseDiffusion()):
        for each in (VPSDE(), sde, EDM()):
            run = sample(ExactScore(two_modes(), each), (2, 2), sampler=sampler, grid=near, seed=0)
            assert bool(torch.isfinite(run.x).all())


def test_the_reverse_family_has_one_law():
    """Property 57: as steps grow, every stochasticity gives the same moments."""
    sde = VPSDE()
    model = ExactScore(spectrum(), sde)
    grid = inner_grid(sde, 400)
    mean, var = exact_law(model, float(grid[-1]))
    start = exact_law(model, float(grid[0]))
    for sampler in (
        EulerMaruyama(), EulerMaruyama(eta=0.5), EulerMaruyama(eta=0.0), Ancestral(),
        Ancestral(variance="beta"), ReverseDiffusion(), DDIM(eta=1.0), DDIM(eta=0.5), DDIM(),
    ):  # fmt: skip
        found_mean, found_var = probe(sampler, model, grid).law(*start)
        torch.testing.assert_close(found_mean, mean, rtol=0.02, atol=1e-3)
        torch.testing.assert_close(found_var, var, rtol=0.05, atol=0)


def test_a_stochastic_sampler_draws_the_right_law(alpha_budget):
    """End to end, once, by statistics: 20000 samples against their exact law."""
    from support import mean_test, variance_test

    model = ExactScore(Gaussian(f64([0.7]), 0.3), VPSDE())
    grid = torch.linspace(1.0, 1e-3, 26, dtype=torch.float64)
    mean, var = probe(Ancestral(), model, grid).law(f64([0.0]), f64([1.0]))
    x = sample(model, (20000, 1), sampler=Ancestral(), grid=grid, seed=1, dtype=torch.float64).x[
        :, 0
    ]
    std = math.sqrt(float(var))
    assert mean_test(x, mean=float(mean), std=std, alpha=alpha_budget.spend("ancestral mean"))
    assert variance_test(x, var=float(var), alpha=alpha_budget.spend("ancestral variance"))


def test_draws_of_one_run_differ_from_row_to_row():
    x = sample(
        ExactScore(Gaussian(f64([0.0, 0.0]), 1.0), VPSDE()), (3, 2), sampler="euler_maruyama",
        steps=5,        x_init=draws(1, (3, 2))[0], seed=0, keep="all",
    ).trajectory  # fmt: skip
    moves = x.diff(dim=0).flatten(1)
    assert torch.unique(moves, dim=0).shape[0] == 5
