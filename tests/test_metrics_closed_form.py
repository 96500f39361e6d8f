"""Claim: of known laws, every metric finds the number that a formula gives.

Shifts are exact for any set; for two Gaussians the formula lies within a few standard errors of
the value, and the bias of a finite set shrinks as it grows.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from metrics_support import normal
from scipy import stats

from sdekit import Gaussian, GaussianMixture
from sdekit.metrics import (
    KL,
    classifier_two_sample,
    energy_distance,
    frechet_distance,
    kl_divergence,
    mmd,
    mode_weights,
    precision,
    recall,
    sliced_wasserstein,
    wasserstein,
)

SHIFT = torch.tensor([3.0, 4.0], dtype=torch.float64)


def test_w2_of_a_shift_is_its_length():
    x = normal(200, 2, 0)
    assert wasserstein(x, x + SHIFT) == pytest.approx(5.0, rel=1e-12)
    assert wasserstein(x[:, :1], x[:, :1] - 2) == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 10])
def test_sliced_w2_of_a_shift_is_its_length_over_root_d(d):
    """The mean of (theta . delta)^2 is |delta|^2 / d, here over 4000 directions."""
    x = normal(64, d, 1)
    value = sliced_wasserstein(x, x + 2 / math.sqrt(d), directions=4000)
    squares = stats.beta(0.5, (d - 1) / 2).std() / math.sqrt(4000) if d > 1 else 0.0
    assert abs(value**2 / 4 - 1 / d) <= 5 * squares + 1e-12


def test_frechet_of_a_shift_and_a_scale_is_squared():
    x = normal(500, 2, 2)
    assert frechet_distance(x, x + SHIFT) == pytest.approx(25.0, rel=1e-9)
    scaled = x.mean(0) + 3 * (x - x.mean(0))
    expected = 4 * float(np.trace(np.cov(x.numpy(), rowvar=False)))  # (3 - 1)^2 tr C
    assert frechet_distance(scaled, x) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_features_is_that_of_their_gaussians():
    x, y = normal(400, 3, 3), normal(400, 3, 4, mean=1.0)
    doubled = frechet_distance(x, y, features=lambda z: 2 * z[:, :1])
    assert doubled == pytest.approx(4 * frechet_distance(x[:, :1], y[:, :1]), rel=1e-12)


def test_energy_of_gaussians_on_a_line():
    """E|N(m, v)| = sqrt(2 v / pi) e^{-m^2 / 2v} + m (1 - 2 Phi(-m / sqrt v)), v = s^2.

    Among the pairs of a V-statistic are n of a sample with itself, at distance 0.
    """

    def mean_abs(m, v):
        s = math.sqrt(v)
        return s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * v)) + m * (
            1 - 2 * stats.norm.cdf(-m / s)
        )

    n, m, s = 1500, 0.7, 1.5
    x, y = normal(n, 1, 5, mean=m, std=s), normal(n, 1, 6)
    own = (1 - 1 / n) * (mean_abs(0, 2 * s**2) + mean_abs(0, 2))
    expected = 2 * mean_abs(m, 1 + s**2) - own
    found = energy_distance(x, y, permutations=0)
    assert abs(found - math.sqrt(expected)) < 5 * found.stderr
    assert found.stderr < 0.1 * found


def test_mmd_of_gaussians_on_a_line():
    """E k(N(m, v)) = h / sqrt(h^2 + v) e^{-m^2 / 2 (h^2 + v)}; a sample with itself has k = 1."""

    def mean_kernel(m, v):
        return h / math.sqrt(h**2 + v) * math.exp(-(m**2) / (2 * (h**2 + v)))

    n, m, s, h = 1500, 0.7, 1.5, 0.8
    x, y = normal(n, 1, 7, mean=m, std=s), normal(n, 1, 8)
    own = (1 - 1 / n) * (mean_kernel(0, 2 * s**2) + mean_kernel(0, 2)) + 2 / n
    found = mmd(x, y, bandwidth=h, permutations=0)
    assert abs(found - math.sqrt(own - 2 * mean_kernel(m, 1 + s**2))) < 5 * found.stderr
    assert found.stderr < 0.15 * found


@pytest.mark.parametrize("d", [1, 2, 3])
def test_kl_of_gaussians(d):
    """1/2 |m|^2 + d/2 (v - 1 - log v); where y is sparse, eq. (1) is below it: less for more."""
    truth = d * (0.125 + 0.5 * (1.44 - 1 - math.log(1.44)))
    errors = []
    for n in (1000, 8000):
        x, y = normal(n, d, 9, mean=0.5, std=1.2), normal(n, d, 10)
        found = kl_divergence(x, y)
        errors.append(abs(found - truth))
        sharp = KL(density=True, points=None).measure(x, y, target=Gaussian([0.0] * d, 1.0))
        assert abs(sharp - truth) < 4 * sharp.stderr + 0.02 * d
    assert errors[1] < max(4 * found.stderr, 0.9 * errors[0])
    assert errors[1] < 0.3 * truth


def test_kl_of_a_uniform_law_within_a_wider_one():
    """KL(U(0, 1), U(0, 3)) = log 3, and the other way it is infinite."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2000, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    assert kl_divergence(x, 3 * y) == pytest.approx(math.log(3), abs=0.1)
    assert kl_divergence(3 * y, x) > 3


def test_the_best_accuracy_is_approached():
    """Of N(0, 1) and N(2, 1) nobody is right more often than Phi(1)."""
    x, y = normal(3000, 1, 11, mean=2.0), normal(3000, 1, 12)
    found = classifier_two_sample(x, y)
    assert found == pytest.approx(stats.norm.cdf(1), abs=5 * found.stderr)
    assert found.p_value < 1e-100


def test_precision_and_recall_of_a_part_of_the_data():
    """Half of two far modes: all samples are data, half of the data are among the samples."""
    y = normal(400, 2, 13)
    y[:200] += 100
    x = normal(400, 2, 14)
    assert precision(x, y) > 0.9
    assert recall(x, y) == pytest.approx(0.5, abs=0.05)
    assert recall(y, x) > 0.9
    assert precision(y, x) == pytest.approx(0.5, abs=0.05)


def test_a_ball_reaches_to_the_kth_neighbour():
    """On 0, 1, 3, 7 the balls of k = 1 have radii 1, 1, 2, 4."""
    y = torch.tensor([[0.0], [1.0], [3.0], [7.0]] * 1 + [[100.0], [101.0]])
    x = torch.tensor([[-1.0], [-1.1], [2.5], [11.0], [11.5], [99.5]])
    # within [-1, 1], [0, 2], [1, 5], [3, 11], [99, 101], [100, 102]
    assert precision(x, y, k=1) == pytest.approx(4 / 6)


def test_mode_weights_are_the_shares():
    law = GaussianMixture([0.2, 0.8], [[-9.0], [9.0]], 1.0)
    x = torch.cat([normal(30, 1, 15, mean=-9.0), normal(70, 1, 16, mean=9.0)])
    found = mode_weights(x, law)
    assert found == pytest.approx(0.1)
    assert found.detail["weights"] == [0.3, 0.7]
    assert found.detail["truth"] == [0.2, 0.8]
    assert found.detail["stderr"] == pytest.approx([math.sqrt(0.21 / 100)] * 2)
