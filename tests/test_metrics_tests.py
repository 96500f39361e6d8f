"""Claim: p-values are uniform where both sets have one law, and small where they have not.

Under the null P(p <= a) <= a at every a, up to binomial noise; a p-value that is always 1 fails
too, by the lower bound on its mean.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metrics_support import APART, NEAR, normal
from scipy import stats

from sdekit import GaussianMixture, make

TESTS = [
    "energy_distance(points=60, permutations=99)", "mmd(points=60, permutations=99)",
    "classifier", "mode_weights",
]  # fmt: skip
LEVEL = 1e-4  # of a false alarm, each


def p_values(name, replays, seed, law, n=60, change=lambda x: x):
    metric = make("metric", name)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for r in range(replays):
        x, y = (law.sample(n, generator=generator, dtype=torch.float64) for _ in range(2))
        found.append(metric.measure(change(x), y, target=law, seed=r).p_value)
    return np.array(found)


@pytest.mark.parametrize("name", TESTS)
def test_p_values_are_uniform_under_the_null(name, seed):
    """Kolmogorov's one-sided bound: no more small ones than there may be."""
    replays = 100
    p = p_values(name, replays, seed, APART)
    excess = max(np.mean(p <= a) - a for a in np.arange(0.01, 1, 0.01))
    assert excess < np.sqrt(np.log(1 / LEVEL) / (2 * replays))
    assert p.mean() < 0.5 + 0.12 + 3.7 * 0.29 / np.sqrt(replays)  # a discrete p is larger


@pytest.mark.parametrize("name", TESTS[:2])
def test_p_values_by_permutation_are_uniform_to_both_sides(name, seed):
    p = p_values(name, 100, seed + 1, NEAR)
    assert stats.kstest(p, "uniform").pvalue > LEVEL


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_rejections_at_5_percent_are_5_percent(name, seed):
    rejected = int((p_values(name, 1000, seed + 2, APART) <= 0.05).sum())
    assert rejected <= stats.binom(1000, 0.05).isf(LEVEL)
    if "permutations" in name:
        assert rejected >= stats.binom(1000, 0.05).ppf(LEVEL)


@pytest.mark.parametrize("name", TESTS[:3])
def test_a_shift_is_found(name):
    p = p_values(name, 10, 3, GaussianMixture([1.0], [[0.0, 0.0]], 1.0), 200, lambda x: x + 1)
    assert (p <= 0.01).mean() >= 0.8


def test_wrong_weights_are_found():
    x = GaussianMixture([0.45, 0.55], APART.means, 1.0).sample(
        400, generator=torch.Generator().manual_seed(0)
    )
    assert make("metric", "mode_weights").measure(x, x, target=APART).p_value < 1e-6


def test_modes_that_overlap_do_not_make_true_samples_look_wrong(seed):
    """The likeliest component of N(0, 4) and N(0, 1) has not the weights as its shares."""
    law = GaussianMixture([0.6, 0.4], [[0.0], [0.0]], [4.0, 1.0])
    p = p_values("mode_weights", 100, seed, law, n=2000)
    excess = max(np.mean(p <= a) - a for a in np.arange(0.01, 1, 0.01))
    assert excess < np.sqrt(np.log(1 / LEVEL) / (2 * 100))


@pytest.mark.parametrize("name", TESTS[:2])
def test_the_p_value_counts_exchanges(name):
    """(1 + none) / (1 + 99) for sets that no exchange separates as well; no test, no p-value."""
    x, y = normal(50, 2, 0, mean=50.0), normal(50, 2, 1)
    assert make("metric", name).measure(x, y).p_value == pytest.approx(1 / 100)
    none = name.replace("99", "0")
    assert make("metric", none).measure(x, y).p_value is None


@pytest.mark.parametrize("name", TESTS[:3])
def test_sets_that_are_all_one_point_are_not_told_apart(name):
    x = torch.ones(40, 2)
    assert make("metric", name).measure(x, x).p_value >= 0.4
