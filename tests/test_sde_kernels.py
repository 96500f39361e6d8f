"""Properties 7, 8 and 26: transitions compose, carry the marginals, and invert by Bayes' rule."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from strategies import EPS, EVERY, every_sde, pairs, room, sdes, smooth_times, times
from support import assert_close

RELATIVE = 1e-10  # of the spec; each comparison is scaled by the terms that may cancel


def transition_parts(sde, s, t):
    scale, std = sde.transition(s, t)
    return scale, std.square()


def marginal_gap(sde, s, t):
    """|var_t - (scale^2 var_s + var_ts)|/var_t, and |alpha_t - scale alpha_s|/alpha_t."""
    scale, fresh = transition_parts(sde, s, t)
    var = (scale.square() * sde.var(s) + fresh - sde.var(t)).abs() / sde.var(t)
    return var, (scale * sde.alpha(s) / sde.alpha(t) - 1).abs()


@every_sde
def test_marginal_is_transition_of_marginal(sde):
    var, mean = marginal_gap(sde, *pairs(sde))
    assert float(var.max()) <= RELATIVE
    assert float(mean.max()) <= RELATIVE


@given(sde=sdes(), data=st.data())
def test_kernels_of_drawn_sdes(sde, data):
    """Semigroup, marginal and Bayes at drawn times u <= s <= t, by conditioned tolerances."""
    u, s, t = data.draw(times(sde, 3), label="times").sort().values
    # what 1 ulp in the primitives does to a variance that is a difference of them
    ill = 1 + sde.log_alpha(t).abs()
    _, v_us = transition_parts(sde, u, s)
    _, v_st = transition_parts(sde, s, t)
    k_us, k_st = sde.transition(u, s)[0], sde.transition(s, t)[0]
    k_ut, v_ut = transition_parts(sde, u, t)
    slack = 64 * EPS * ill * (1 + sde.log_snr(u).abs())
    assert abs(float(k_ut - k_us * k_st)) <= float(slack * k_ut)
    assert abs(float(v_ut - k_st**2 * v_us - v_st)) <= float(slack * sde.var(t))
    var, mean = marginal_gap(sde, s, t)
    assert float(var) <= float(slack)
    assert float(mean) <= float(slack)


@every_sde
def test_semigroup(sde):
    """Property 7 on three times: alpha(u->t) = alpha(u->s) alpha(s->t), and the variances add."""
    s, t = pairs(sde, 10)
    u = torch.where(s > s.min(), s.min(), 0.5 * s)
    if "ddpm" in sde.kinds:
        u = torch.zeros_like(s)
    k_us, v_us = transition_parts(sde, u, s)
    k_st, v_st = transition_parts(sde, s, t)
    k_ut, v_ut = transition_parts(sde, u, t)
    assert float((k_ut / (k_us * k_st) - 1).abs().max()) <= RELATIVE
    assert float(((k_st**2 * v_us + v_st - v_ut).abs() / v_ut).max()) <= RELATIVE


@every_sde
def test_posterior_is_bayes_rule(sde):
    """Property 26: precision and mean of N(alpha_s x_0, var_s) times the likelihood of x_t."""
    s, t = pairs(sde)
    s, t = s[sde.var(s) > 0], t[sde.var(s) > 0]
    scale, fresh = transition_parts(sde, s, t)
    posterior = sde.posterior(s, t)
    precision = 1 / sde.var(s) + scale.square() / fresh
    assert_close(posterior.var * precision, torch.ones_like(s), tol=RELATIVE)
    assert_close(posterior.x_t * precision * fresh / scale, torch.ones_like(s), tol=RELATIVE)
    assert_close(
        posterior.x_0 * precision * sde.var(s) / sde.alpha(s), torch.ones_like(s), tol=RELATIVE
    )


@every_sde
def test_posterior_returns_the_mean_of_the_path(sde):
    """On the noiseless path x_t = alpha_t x_0 the posterior mean is alpha_s x_0."""
    s, t = pairs(sde)
    posterior = sde.posterior(s, t)
    mean = posterior.x_t * sde.alpha(t) + posterior.x_0
    assert_close(mean / sde.alpha(s), torch.ones_like(s), tol=RELATIVE)


@every_sde
def test_no_time_between(sde):
    """s = t: the transition and the posterior are the identity, at 0 too."""
    grid = [0.0, sde.t_max] if "ddpm" in sde.kinds else [0.0, 0.3 * sde.t_max, sde.t_max]
    for t in grid:
        scale, std = sde.transition(t, t)
        assert (float(scale), float(std)) == (1.0, 0.0)
        assert [float(part) for part in sde.posterior(t, t)] == [1.0, 0.0, 0.0]


@every_sde
def test_from_the_data(sde):
    """The transition from 0 is the marginal, less what x_0 carries; where var(0) = 0 it is x_0."""
    t = smooth_times(sde)
    zero = torch.zeros_like(t)
    scale, fresh = transition_parts(sde, zero, t)
    assert_close(scale / sde.alpha(t), torch.ones_like(t), tol=RELATIVE)
    kept = sde.alpha(t).square() * sde.var(zero)
    assert float(((fresh + kept - sde.var(t)).abs() / sde.var(t)).max()) <= RELATIVE
    if float(sde.var(0.0)) == 0:
        posterior = sde.posterior(zero, t)
        assert_close(posterior.x_0, torch.ones_like(t), tol=RELATIVE)
        assert posterior.x_t.abs().max() == posterior.var.abs().max() == 0


@every_sde
def test_perturb_is_the_kernel(sde):
    """alpha x_0 + sigma eps, by impulses; the input is not changed."""
    t = smooth_times(sde, 6)
    x0 = torch.linspace(-1, 2, 2 * len(t), dtype=torch.float64).reshape(-1, 2)
    zero = torch.zeros_like(x0)
    before = x0.clone()
    assert torch.equal(sde.perturb(x0, t, zero), sde.alpha(t)[:, None] * x0)
    assert torch.equal(sde.perturb(zero, t, x0), sde.sigma(t)[:, None] * x0)
    both = sde.perturb(x0, t, x0.flip(0))
    expected = sde.alpha(t)[:, None] * x0 + sde.sigma(t)[:, None] * x0.flip(0)
    assert_close(both, expected, tol=1e-14)
    assert torch.equal(x0, before)


def test_a_wrong_transition_is_seen():
    """The check has teeth: VE with var_t instead of var_t - var_s, VP with a scale squared."""
    ve, vp = EVERY["ve-1"], EVERY["vp-0"]
    s, t = pairs(ve)
    scale, _ = ve.transition(s, t)
    wrong = (scale.square() * ve.var(s) + ve.var(t) - ve.var(t)).abs() / ve.var(t)
    assert float(wrong.median()) > 1e3 * RELATIVE
    s, t = pairs(vp)
    scale, fresh = transition_parts(vp, s, t)
    wrong = (scale.pow(4) * vp.var(s) + fresh - vp.var(t)).abs() / vp.var(t)
    assert float(wrong.max()) > 1e3 * RELATIVE


@pytest.mark.parametrize("gap", [3e-2, 1e-3, 1e-6, 1e-9])
@every_sde
def test_transition_integrates_the_coefficients(sde, gap):
    """var(s -> t) = int g^2(u) (alpha_t/alpha_u)^2 du, also for close s and t: nothing cancels."""
    t = smooth_times(sde, 12, low=1e-4)
    t = t[room(sde, t) > 1.01 * gap * t]
    s = t * (1 - gap)
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(16))
    u = s[:, None] + 0.5 * (t - s)[:, None] * (nodes + 1)
    faded = (2 * (sde.log_alpha(t)[:, None] - sde.log_alpha(u))).exp()
    expected = 0.5 * (t - s) * ((sde.g2(u) * faded) @ weights)
    _, fresh = transition_parts(sde, s, t)
    # s is rounded, and 1 ulp of it is EPS/gap of t - s; so are the primitives, 1 ulp of var_t
    ill = 1 / gap + sde.var(t) / expected
    slack = RELATIVE + 10 * EPS * ill * (1 + sde.log_snr(t).abs() + sde.log_alpha(t).abs())
    assert bool(((fresh / expected - 1).abs() <= slack).all())
