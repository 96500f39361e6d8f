"""Claim: keyed noise is standard normal, independent over samples, coordinates and draws.

Statistical, with its share of the suite's budget: a right generator fails once in 1e12 runs a
line.
"""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from support import law_test, mean_test, variance_test

from sdekit.sampling.noise import KeyedNoise

N, DRAWS = 4000, 25  # 100,000 values a coordinate


@pytest.fixture(scope="module")
def z():
    source = KeyedNoise(20240613)
    like = torch.empty(N, 2)
    return torch.stack([source(like) for _ in range(DRAWS)])  # (draws, samples, 2)


def test_law(z, alpha_budget):
    for k in range(2):
        values = z[..., k].flatten()
        assert law_test(values, cdf=stats.norm.cdf, alpha=alpha_budget.spend(f"noise law {k}"))
        assert variance_test(values, var=1.0, alpha=alpha_budget.spend(f"noise variance {k}"))
        assert mean_test(values, mean=0.0, std=1.0, alpha=alpha_budget.spend(f"noise mean {k}"))


def test_independence(z, alpha_budget):
    """Products of neighbours have mean 0, std 1 and third moment 0."""
    products = {
        "coordinates": z[..., 0] * z[..., 1],
        "samples": z[:, ::2] * z[:, 1::2],
        "draws": z[0::2][:12] * z[1::2][:12],
        "far draws": z[:8] * z[8:16],  # other windows
        "far samples": z[:, : N // 2] * z[:, N // 2 :],
    }
    for name, product in products.items():
        values = product.flatten()[:100_000].double()
        level = alpha_budget.spend(f"noise independence: {name}")
        if len(values) < 100_000:
            values = product.flatten().double()
            # a sum of n products: sub-exponential, P(|mean| > a) <= 2 exp(-n a^2 / 4) for a < 1/2
            bound = (4 * torch.log(torch.tensor(2 / level)) / len(values)).sqrt()
            assert abs(values.mean()) < bound
        else:
            assert mean_test(values, mean=0.0, std=1.0, skewness=0.0, alpha=level)


def test_neighbouring_seeds_are_independent(alpha_budget):
    like = torch.empty(50_000, 2)
    product = (KeyedNoise(1)(like) * KeyedNoise(2)(like)).flatten()
    level = alpha_budget.spend("noise independence: seeds")
    assert mean_test(product, mean=0.0, std=1.0, skewness=0.0, alpha=level)
