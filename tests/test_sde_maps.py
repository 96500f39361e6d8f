"""Properties 13 to 15: changes of time and of scale map one SDE to another exactly."""

from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from strategies import EVERY, MIXTURES, WarpedVP, every_sde, log_uniform, smooth_times
from support import assert_close

from sdekit.sde import VESDE, VPSDE, LinearSDE

EXACT = 1e-10


@dataclass(frozen=True, kw_only=True)
class Reclocked(LinearSDE):
    """Another SDE on the clock t = t_max (tau + rate tau^2)/(1 + rate), tau in [0, 1]."""

    inner: LinearSDE
    rate: float = 2.0

    def clock(self, tau):
        return (self.inner.t_max * (tau + self.rate * tau**2) / (1 + self.rate)).clamp_max(
            self.inner.t_max
        )

    def speed(self, tau):
        return self.inner.t_max * (1 + 2 * self.rate * tau) / (1 + self.rate)

    def log_alpha(self, t):
        return self.inner.log_alpha(self.clock(t))

    def var(self, t):
        return self.inner.var(self.clock(t))


@every_sde
def test_time_change(sde):
    """Property 13: the law is unchanged; f and g^2 are multiplied by dt/dtau."""
    warped = Reclocked(inner=sde)
    tau = torch.linspace(0.03, 0.97, 9, dtype=torch.float64)
    t, speed = warped.clock(tau), warped.speed(tau)
    assert torch.equal(warped.alpha(tau), sde.alpha(t))
    assert torch.equal(warped.sigma(tau), sde.sigma(t))
    assert_close(warped.f(tau) / speed, sde.f(t), tol=EXACT)
    assert_close(warped.g2(tau) / (speed * sde.g2(t)), torch.ones_like(t), tol=EXACT)
    scale, std = warped.transition(tau[:-1], tau[1:])
    expected = sde.transition(t[:-1], t[1:])
    assert_close(scale / expected[0], torch.ones_like(scale), tol=EXACT)
    assert_close(std / expected[1], torch.ones_like(std), tol=EXACT)


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


@dataclass(frozen=True, kw_only=True)
class Unscaled(LinearSDE):
    """The variance-exploding SDE of x/alpha: sigma^2 = var/alpha^2."""

    inner: LinearSDE

    def log_alpha(self, t):
        return torch.zeros_like(t)

    def var(self, t):
        return (-self.inner.log_snr(t)).exp()


@pytest.mark.parametrize(
    "key", ["vp-0", "sub_vp-0", "cosine-0", "flow-0", "plain_ou", "custom_var0"]
)
def test_vp_is_ve_of_x_over_alpha(key):
    """Property 15: coefficients, transitions and scores map exactly under x -> x/alpha."""
    sde = EVERY[key]
    ve = Unscaled(inner=sde, t_max=sde.t_max)
    t = smooth_times(sde, 12, low=1e-4)
    alpha, one = sde.alpha(t), torch.ones_like(t)
    assert_close(ve.g2(t) * alpha.square() / sde.g2(t), one, tol=EXACT)
    assert_close(ve.f(t), torch.zeros_like(t), tol=EXACT)
    s = 0.7 * t
    scale, std = sde.transition(s, t)
    assert_close(ve.transition(s, t)[1] * alpha / std, one, tol=EXACT)
    assert_close(scale, alpha / sde.alpha(s), tol=EXACT)
    law = MIXTURES["2d"]
    x = law.points(alpha, sde.var(t))
    there = law.score(x / alpha[:, None], one, ve.var(t))
    assert_close(there / alpha[:, None], law.score(x, alpha, sde.var(t)), tol=EXACT)
