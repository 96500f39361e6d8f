"""Properties 13 and 14: changes of clock and of scale map one SDE to another exactly."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from strategies import WarpedVP, log_uniform, smooth_times
from support import assert_close

from sdekit.sde import VESDE, VPSDE

EXACT = 1e-10


def test_warped_vp_is_vp():
    """A reparametrised VP written by its own two primitives, against VPSDE's closed forms."""
    warped, vp = WarpedVP(), VPSDE()
    tau = smooth_times(vp)
    assert_close(warped.g2(tau) / (2 * tau), vp.beta(tau**2), tol=EXACT)
    assert_close(warped.var(tau), vp.var(tau**2), tol=1e-14)


@given(
    low=log_uniform(1e-4, 1.0),
    ratio=log_uniform(2.0, 1e5),
    c=log_uniform(1e-2, 1e2),
    u=st.floats(0.05, 0.9),
)
def test_ve_scaling(low, ratio, c, u):
    """Property 14: sigma -> c sigma is x -> c x, in kernels, coefficients and prior."""
    sde = VESDE(sigma_min=low, sigma_max=low * ratio)
    scaled = VESDE(sigma_min=c * low, sigma_max=c * low * ratio)
    t = smooth_times(sde, 8)
    assert_close(scaled.sigma(t) / (c * sde.sigma(t)), torch.ones_like(t), tol=EXACT)
    assert_close(scaled.diffusion(t) / (c * sde.diffusion(t)), torch.ones_like(t), tol=EXACT)
    assert_close(
        scaled.transition(u * t, t)[1] / (c * sde.transition(u * t, t)[1]),
        torch.ones_like(t),
        tol=EXACT,
    )
    one, other = sde.posterior(u * t, t), scaled.posterior(u * t, t)
    assert_close(other.x_t, one.x_t, tol=EXACT)
    assert_close(other.x_0, one.x_0, tol=EXACT)
    assert scaled.prior_std() == pytest.approx(c * sde.prior_std(), rel=EXACT)
