"""Claim: 20,000 samples can rank two samplers wrongly where the exact metric ranks them rightly.

Who is right is decided by a third computation, the images of the prior's quantiles under the two
(deterministic, monotone) samplers against SciPy's quantiles of the data.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from sdekit import VPSDE, ExactScore, GaussianMixture, sample
from sdekit.exact import Law1D, output_law_1d
from sdekit.metrics import wasserstein

LAW = GaussianMixture([0.2, 0.8], [[3.0], [-3.0]], 1.0)
MODEL = ExactScore(LAW, VPSDE())
GOOD, POOR = ("deis", 64, "log_snr"), ("heun", 32, "quadratic")
LEVELS = 20_000


def exact(name, steps, grid):
    return output_law_1d(name, MODEL, steps=steps, grid=grid).wasserstein(Law1D.of(LAW))


def by_levels(name, steps, grid):
    u = (np.arange(LEVELS) + 0.5) / LEVELS
    start = torch.from_numpy(stats.norm.ppf(u))[:, None]
    x = sample(MODEL, (LEVELS, 1), sampler=name, steps=steps, grid=grid, x_init=start).x[:, 0]
    true = optimize.elementwise.find_root(
        lambda at, level: 0.2 * stats.norm.cdf(at, 3) + 0.8 * stats.norm.cdf(at, -3) - level,
        (np.full(LEVELS, -20.0), np.full(LEVELS, 20.0)), args=(u,),
    ).x  # fmt: skip
    return float(np.sqrt(np.mean((np.sort(x.numpy()) - true) ** 2)))


def drawn(name, steps, grid, seed):
    x = sample(MODEL, (20_000, 1), sampler=name, steps=steps, grid=grid, seed=seed,
               dtype=torch.float64).x  # fmt: skip
    source = torch.Generator().manual_seed(10_000 + seed)
    y = LAW.sample(20_000, generator=source, dtype=torch.float64)
    return float(wasserstein(x, y, points=None))


def test_the_exact_ranking_is_right():
    good, poor = by_levels(*GOOD), by_levels(*POOR)
    assert good < 0.7 * poor
    assert exact(*GOOD) == pytest.approx(good, rel=0.01)
    assert exact(*POOR) == pytest.approx(poor, rel=0.01)


def test_twenty_thousand_samples_get_it_wrong():
    assert drawn(*POOR, seed=1) < drawn(*GOOD, seed=1)
