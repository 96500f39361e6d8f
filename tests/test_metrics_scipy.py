"""Claim: where SciPy or brute force has the number too, it is the same number."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from metrics_support import APART, normal
from scipy import stats
from scipy.spatial.distance import cdist

from sdekit import GaussianMixture
from sdekit.metrics import (
    MMD,
    SlicedWasserstein,
    classifier_two_sample,
    energy_distance,
    frechet_distance,
    kl_divergence,
    mmd,
    mode_weights,
    precision,
    sliced_wasserstein,
    wasserstein,
)
from sdekit.metrics.sets import neighbours


@pytest.mark.parametrize("sizes", [(40, 40), (40, 25)])
def test_energy_on_a_line_is_scipys(sizes):
    x, y = normal(sizes[0], 1, 0), normal(sizes[1], 1, 1, mean=0.4)
    expected = stats.energy_distance(x.numpy().ravel(), y.numpy().ravel())
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_the_assignment_is_the_best_of_all_permutations():
    for seed in range(5):
        x, y = normal(6, 2, seed), normal(6, 2, seed + 50)
        cost = cdist(x.numpy(), y.numpy(), "sqeuclidean")
        best = min(
            np.mean([cost[i, j] for i, j in enumerate(order)])
            for order in itertools.permutations(range(6))
        )
        assert wasserstein(x, y) == pytest.approx(math.sqrt(best), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (6, 4), (4, 9), (5, 10)])
def test_w2_on_a_line_is_that_of_sets_repeated_to_one_size(n, m):
    x, y = normal(n, 1, 2), normal(m, 1, 3, mean=1.0)
    size = math.lcm(n, m)
    many = [np.sort(np.repeat(z.numpy().ravel(), size // len(z))) for z in (x, y)]
    expected = math.sqrt(np.square(many[0] - many[1]).mean())
    assert wasserstein(x, y) == pytest.approx(expected, rel=1e-12)
    assert sliced_wasserstein(x, y) == pytest.approx(expected, rel=1e-12)


def test_a_slice_is_a_distance_on_a_line():
    """One direction: the value is W2 of the projections, which the direction's length scales."""
    x, y = normal(30, 3, 4), normal(30, 3, 5, mean=1.0)
    metric = SlicedWasserstein(directions=7)
    angles = metric.angles(3, 11)
    assert np.allclose(np.linalg.norm(angles, axis=0), 1)
    each = [float(wasserstein(x @ a, y @ a)) for a in torch.from_numpy(angles).T[:, :, None]]
    expected = math.sqrt(np.square(each).mean())
    assert metric.measure(x, y, seed=11) == pytest.approx(expected, rel=1e-12)


def test_mmd_is_the_double_sum():
    x, y = normal(9, 2, 6).numpy(), normal(7, 2, 7).numpy()

    def mean(a, b):
        return np.mean([[math.exp(-((p - q) ** 2).sum() / (2 * 0.49)) for p in a] for q in b])

    expected = math.sqrt(mean(x, x) + mean(y, y) - 2 * mean(x, y))
    found = mmd(torch.from_numpy(x), torch.from_numpy(y), bandwidth=0.7)
    assert found == pytest.approx(expected, rel=1e-10)


def test_the_bandwidth_is_the_median_distance_of_y_alone():
    x, y = normal(50, 2, 8), normal(50, 2, 9)
    far = cdist(y.numpy(), y.numpy())[np.triu_indices(50, 1)]
    for other in (x, 100 * x):
        found = MMD().measure(other, y)
        assert found.detail["bandwidth"] == pytest.approx(np.median(far), rel=1e-12)


def test_pearsons_test_is_scipys():
    x = APART.sample(500, generator=torch.Generator().manual_seed(0))
    counts = np.bincount(APART.component(x).numpy(), minlength=2)
    expected = stats.chisquare(counts, [150, 350]).pvalue
    assert mode_weights(x, APART).p_value == pytest.approx(expected, rel=1e-12)


def test_modes_that_expect_too_few_are_put_together():
    """Weights 0.01, 0.02, 0.27 and 0.7 of 100 samples: the first two go with the third."""
    means = [[0.0], [50.0], [100.0], [150.0]]
    law = GaussianMixture([0.01, 0.02, 0.27, 0.7], means, 1.0)
    x = law.sample(100, generator=torch.Generator().manual_seed(1))
    counts = np.bincount(law.component(x).numpy(), minlength=4)
    expected = stats.chisquare([counts[:3].sum(), counts[3]], [30, 70]).pvalue
    assert mode_weights(x, law).p_value == pytest.approx(expected, rel=1e-9)


def test_the_accuracy_has_the_exact_binomial_tail():
    x, y = normal(100, 2, 10, mean=0.3), normal(100, 2, 11)
    found = classifier_two_sample(x, y)
    asked = found.detail["asked"]
    right = round(found * asked)
    assert asked == 100
    assert found.p_value == pytest.approx(stats.binom(asked, 0.5).sf(right - 1), rel=1e-9)


def test_frechet_is_the_usual_formula():
    from scipy.linalg import sqrtm

    x, y = normal(200, 3, 12), normal(200, 3, 13, mean=0.5)
    x = x @ normal(3, 3, 14)
    a, b = (np.cov(z.numpy(), rowvar=False) for z in (x, y))
    shift = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = float(shift) + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("k", [1, 3])
def test_kl_is_the_papers_sum(k):
    """d/n sum log(nu/rho) + log(m/(n - 1)), from sorted distances."""
    x, y = normal(40, 2, 19).numpy(), normal(30, 2, 20).numpy()
    rho = np.sort(cdist(x, x), axis=1)[:, k]  # the first column is the sample itself
    nu = np.sort(cdist(x, y), axis=1)[:, k - 1]
    expected = 2 * np.log(nu / rho).mean() + math.log(30 / 39)
    found = kl_divergence(torch.from_numpy(x), torch.from_numpy(y), k=k)
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("own", [True, False])
def test_neighbours_are_those_of_all_distances(d, own):
    points = normal(700, d, 15).numpy()
    at = points if own else normal(30, d, 16).numpy()
    every = np.sort(cdist(at, points), axis=1)[:, int(own) : 4 + int(own)]
    distance, row = neighbours(points, at, 4, own=own)
    assert np.allclose(distance, every, rtol=1e-12)
    assert np.allclose(np.linalg.norm(at[:, None] - points[row], axis=2), distance)


def test_precision_is_the_papers_loop():
    x, y = normal(60, 2, 17, std=2.0).numpy(), normal(60, 2, 18).numpy()
    radius = np.sort(cdist(y, y), axis=1)[:, 3]  # the third neighbour; the first column is itself
    inside = [any(np.linalg.norm(a - b) <= r for b, r in zip(y, radius, strict=True)) for a in x]
    assert precision(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(np.mean(inside))
