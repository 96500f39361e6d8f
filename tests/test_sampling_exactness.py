"""Claim: DDIM is exact for constant noise, eta = 1 is ancestral, Heun is the paper's by hand.

Properties 47 and 49, on every SDE and grid; exactness on a point is a check of the kit.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import (
    ConstantEps,
    Given,
    defaults,
    draws,
    no_noise,
    spectrum,
    two_modes,
)  # fmt: skip
from strategies import EVERY, every_sde, f64

from sdekit.model import ExactScore
from sdekit.sampling import DDIM, Ancestral, Heun, sample
from sdekit.sampling.noise import Replay
from sdekit.sde import VESDE, VPSDE
from sdekit.targets import Gaussian

POINT = Gaussian(f64([0.8, -1.5]), 0.0)
# samplers whose kernels are exact for data at a point, whatever their noise
GRIDS = [name for name in defaults("grid") if not name.startswith("ddpm")]


def grid_of(sde, name: str, steps: int) -> torch.Tensor:
    if "ddpm" in sde.kinds:
        steps = min(steps, sde.n)
    return sample(ExactScore(POINT, sde), (0, 2), grid=name, steps=steps).grid


@every_sde
@pytest.mark.parametrize("name", GRIDS)
def test_ddim_is_exact_for_constant_noise(sde, name):
    """Property 47: x_s = alpha_s x_0 + sigma_s eps along the whole path, whatever the grid."""
    eps, x0 = f64([0.4, -1.1]), draws(1, (3, 2))[0]
    grid = grid_of(sde, name, 9)
    grid = grid[sde.alpha(grid) > 1e-6]
    if len(grid) < 2:
        return  # all but one time of this grid lie where alpha has vanished
    start = sde.alpha(grid[0]) * x0 + sde.sigma(grid[0]) * eps
    for sampler in (DDIM(), Heun()):
        run = sample(
            ConstantEps(eps, sde), (3, 2), sampler=sampler, grid=grid, x_init=start,
            noise=no_noise, keep="all",
        )  # fmt: skip
        expected = torch.stack([sde.alpha(t) * x0 + sde.sigma(t) * eps for t in grid])
        assert torch.equal(run.trajectory_t, grid)
        # relative to the largest term at the start, and to the loss in x_0
        scale = float(expected.abs().max()) * 1e-10 + 1e-14 * float(1 / sde.alpha(grid[0]))
        torch.testing.assert_close(run.trajectory, expected, rtol=0, atol=scale)


@every_sde
def test_ddim_with_eta_one_is_ancestral(sde):
    """Property 49, step by step with the same noise."""
    model = ExactScore(two_modes(), sde)
    how = dict(x_init=draws(1, (4, 2))[0], keep="all", grid=grid_of(sde, "uniform", 12))
    one = sample(model, (4, 2), sampler=DDIM(eta=1.0), seed=5, **how)
    two = sample(model, (4, 2), sampler=Ancestral(), seed=5, **how)
    scale = float(two.trajectory.abs().max()) + 1 / float(sde.alpha(how["grid"][0]))
    torch.testing.assert_close(one.trajectory, two.trajectory, rtol=0, atol=1e-12 * scale)


def test_heun_by_hand_on_any_sde():
    """Eqs. (1) to (3) of the module, in sigma / alpha, with churn, in plain numbers."""
    for sde in (VPSDE(), VESDE(), EVERY["sub_vp-0"]):
        model = ExactScore(spectrum(), sde)
        x, z = draws(1, (3, 4))[0], draws(2, (3, 4), seed=7)
        grid = f64([0.6, 0.4, 0.2])
        sampler = Heun(churn=0.5, noise_scale=1.1)
        run = sample(model, (3, 4), sampler=sampler, grid=grid, x_init=x, noise=Replay(z))
        y, t = x, float(grid[0])
        for k in range(2):
            s = float(grid[k + 1])
            level = float(sde.sigma(t) / sde.alpha(t))
            high_level = level * (1 + 0.5 / 2)
            high = float(
                sde.t_from_log_snr(-2 * torch.tensor(high_level, dtype=torch.float64).log())
            )
            lift = float(sde.alpha(high) / sde.alpha(t))
            extra = (high_level**2 - level**2) ** 0.5 * 1.1
            y = lift * y + float(sde.alpha(high)) * extra * z[k]
            r_s = float(sde.sigma(s) / sde.alpha(s))
            scaled = y / float(sde.alpha(high))
            slope = model(y, high).eps
            guess = float(sde.alpha(s)) * (scaled + (r_s - high_level) * slope)
            second = model(guess, s).eps
            y = float(sde.alpha(s)) * (scaled + (r_s - high_level) * (slope + second) / 2)
            t = s
        torch.testing.assert_close(run.x, y, rtol=1e-9, atol=1e-9)


def test_a_score_of_any_function_is_used_as_given():
    """`Given` itself: what the tests of constant predictions rest on."""
    sde = VPSDE()
    model = Given(lambda x, t: -x, sde)
    x = draws(1, (2, 2))[0]
    torch.testing.assert_close(model(x, 0.5).eps, sde.sigma(0.5) * x, rtol=1e-14, atol=0)
