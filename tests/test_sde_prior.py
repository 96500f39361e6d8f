"""Property 12: the prior is the field's, and its gap to the true terminal law is known exactly."""

import math

import pytest
import torch
from strategies import EVERY, every_sde, f64
from support import assert_close

from sdekit.sde import VESDE


def gaussian_kl(mean, var, prior_var):
    """KL(N(mean, var) || N(0, prior_var)) in one dimension, nats."""
    ratio = var / prior_var
    return 0.5 * (ratio - 1 - math.log(ratio) + mean**2 / prior_var)


@every_sde
def test_prior_variance(sde):
    """prior_std^2 = var(t_max), exactly or within what alpha(t_max) (flow: t_max) leaves open."""
    var, alpha = float(sde.var(sde.t_max)), float(sde.alpha(sde.t_max))
    gap = abs(sde.prior_std() ** 2 - var)
    if sde.prior_std() == 1.0:
        assert gap <= max(2 * alpha**2, 2 * (1 - sde.t_max), 1e-15)
    else:
        assert gap <= 1e-14 * var


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (1.0, 0.25), (-3.0, 4.0)])
@every_sde
def test_prior_gap_of_gaussian_data(sde, mean, spread):
    """KL(p_T || prior) is at most what alpha, var and the data's moments allow."""
    alpha, var, prior = (
        float(sde.alpha(sde.t_max)),
        float(sde.var(sde.t_max)),
        sde.prior_std() ** 2,
    )
    kl = gaussian_kl(alpha * mean, alpha**2 * spread + var, prior)
    off = (alpha**2 * spread + var) / prior - 1
    declared = 0.5 * (
        off**2 / (1 + min(off, 0)) + alpha**2 * mean**2 / prior
    )  # ln(1+u) >= u/(1+u)
    assert kl <= declared + 1e-15
    if spread == 1.0 and mean == 0.0 and "vp" in sde.kinds:
        assert kl <= 1e-15  # N(0, I) is stationary


def test_peer_bug_11_ve_prior_ignores_the_data():
    """score_sde: N(0, sigma_max^2) whatever the data; on wide data that is no small gap.

    The exact law at t_max is N(mean, c + sigma_max^2), and the gap is a number, not a hope.
    """
    sde = VESDE(sigma_min=0.01, sigma_max=2.0)
    mean, spread = 3.0, 4.0
    law_var = spread + float(sde.var(1.0))
    kl = gaussian_kl(mean, law_var, sde.prior_std() ** 2)
    p = torch.distributions.Normal(f64(mean), f64(law_var).sqrt())
    q = torch.distributions.Normal(f64(0.0), f64(sde.prior_std()))
    assert kl == pytest.approx(float(torch.distributions.kl_divergence(p, q)), rel=1e-12)
    assert kl > 1.0
    # the matched law has no gap; N(0, 1) for VE (hackable_diffusion) has an enormous one
    assert gaussian_kl(0.0, law_var, law_var) == 0.0
    assert gaussian_kl(mean, law_var, 1.0) > 3 * kl


@pytest.mark.parametrize("dims", [(), (3,), (2, 1, 3)])
@every_sde
def test_prior_log_prob(sde, dims):
    """The log-density of N(0, prior_std^2 I), against torch.distributions, summed over dims."""
    x = torch.linspace(-2, 3, 4 * math.prod(dims), dtype=torch.float64).reshape(4, *dims)
    x = x * sde.prior_std()
    normal = torch.distributions.Normal(f64(0.0), f64(sde.prior_std()))
    expected = normal.log_prob(x).reshape(4, -1).sum(1)
    assert_close(sde.prior_log_prob(x), expected, tol=1e-13)
    assert sde.prior_log_prob(x.float()).dtype == torch.float32
    assert sde.prior_log_prob(x[:0]).shape == (0,)


@every_sde
def test_prior_sample_is_scaled_standard_noise(sde):
    """prior_std times the generator's own standard normals: exact, not statistical."""
    shape = (5, 2, 3)
    for dtype in (torch.float32, torch.float64):
        drawn = sde.prior_sample(shape, generator=torch.Generator().manual_seed(7), dtype=dtype)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=dtype)
        assert torch.equal(drawn, sde.prior_std() * noise)
        assert drawn.dtype == dtype


def test_prior_sample_without_a_generator():
    """A fresh stream: two calls differ; conftest's guard watches the global one."""
    sde = EVERY["vp-0"]
    first, second = sde.prior_sample((4, 2)), sde.prior_sample((4, 2))
    assert first.dtype == torch.get_default_dtype()
    assert not torch.equal(first, second)
    assert sde.prior_sample((0, 2)).shape == (0, 2)
