"""Kernels at their ends, on paths, integrated from f and g; the kit checks how they compose."""

import numpy as np
import pytest
import torch
from strategies import EPS, every_sde, pairs, room, smooth_times
from support import assert_close

RELATIVE = 1e-10  # of the spec; each comparison is scaled by the terms that may cancel


def transition_parts(sde, s, t):
    scale, std = sde.transition(s, t)
    return scale, std.square()


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
