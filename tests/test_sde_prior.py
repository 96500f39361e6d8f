"""Property 12: the gap of the prior to the true law is exact, and draws are scaled noise."""

import math

import pytest
import torch
from strategies import EVERY, every_sde


def gaussian_kl(mean, var, prior_var):
    """KL(N(mean, var) || N(0, prior_var)) in one dimension, nats."""
    ratio = var / prior_var
    return 0.5 * (ratio - 1 - math.log(ratio) + mean**2 / prior_var)


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
