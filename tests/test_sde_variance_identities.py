"""Properties 10 and 29: sub-VP is the square of VP, VE is SMLD, g^2 = -2 f on VP."""

import pytest
import torch
from hypothesis import given
from strategies import EPS, EVERY, _betas, f64, log_uniform, smooth_times

from sdekit.sde import VESDE, VPSDE, SubVPSDE

PRESERVING = {key: sde for key, sde in EVERY.items() if "vp" in sde.kinds}


@pytest.mark.parametrize("sde", PRESERVING.values(), ids=PRESERVING)
def test_g2_is_minus_2f(sde):
    """Variance preserving means 0 = d(alpha^2 + var)/dt = 2 f + g^2."""
    t = smooth_times(sde)
    assert torch.allclose(sde.g2(t), -2 * sde.f(t), rtol=1e-12, atol=0)


def test_the_catalogue_has_preserving_sdes():
    """The parametrisation above is not empty by a misspelt kind."""
    assert {"vp-0", "cosine-0", "ddpm-0"} <= PRESERVING.keys()
    assert not {"sub_vp-0", "ve-0", "edm-0", "flow-0"} & PRESERVING.keys()


@given(betas=_betas())
def test_sub_vp_is_vp_squared(betas):
    """Property 10: same mean and drift, var_sub = var_vp^2, g^2_sub = beta (1 - exp(-2 B))."""
    vp, sub = VPSDE(**betas), SubVPSDE(**betas)
    t = smooth_times(vp, 30, low=1e-10)
    assert torch.equal(sub.log_alpha(t), vp.log_alpha(t))
    x = torch.linspace(-1, 1, len(t), dtype=torch.float64)[:, None]
    assert torch.equal(sub.drift(x, t), vp.drift(x, t))
    assert torch.allclose(sub.var(t), vp.var(t).square(), rtol=8 * EPS, atol=0)
    assert bool((sub.var(t) <= vp.var(t)).all())
    low, high = betas["beta_min"], betas["beta_max"]
    beta, integral = low + t * (high - low), t * low + 0.5 * t**2 * (high - low)
    expected = -beta * torch.expm1(-2 * integral)
    assert torch.allclose(sub.g2(t), expected, rtol=1e-12, atol=0)
    assert torch.allclose(sub.diffusion(t).square(), expected, rtol=1e-12, atol=0)


@given(low=log_uniform(1e-4, 1.0), ratio=log_uniform(2.0, 1e5))
def test_smld_increments(low, ratio):
    """Property 29: on t = i/(n-1) the chain x_i = x_{i-1} + sqrt(s_i^2 - s_{i-1}^2) z is VE's."""
    n = 12
    sigmas = torch.exp(torch.linspace(0, 1, n, dtype=torch.float64) * f64(ratio).log())
    sigmas = low * sigmas
    sde = VESDE(sigma_min=low, sigma_max=low * ratio)
    t = torch.arange(n, dtype=torch.float64) / (n - 1)
    scale, std = sde.transition(t[:-1], t[1:])
    step = sigmas[1:].square() - sigmas[:-1].square()
    assert torch.equal(scale, torch.ones(n - 1, dtype=torch.float64))
    cancelled = sigmas[1:].square() / step  # what the difference of squares on the right loses
    assert bool(((std.square() / step - 1).abs() <= 400 * EPS * cancelled).all())
    posterior = sde.posterior(t[:-1], t[1:])  # of SMLD's ancestral step
    expected = sigmas[:-1].square() * step / sigmas[1:].square()
    assert bool(((posterior.var / expected - 1).abs() <= 400 * EPS * cancelled).all())
