"""Claim: the benchmark of the theory's rate measures what it says.

Its total variation is that of closed forms, by distribution functions alone; the targets' three
faces (density, distribution function, sampler) agree and their smoothness is the declared one; the
smoothed sample is the law of the exact score at the stopping time, and what Heun's method returns;
a planted slope is found, and its intervals cover it as often as they say.
"""

from __future__ import annotations

import importlib
import json
import math
import sys

import numpy as np
import pytest
import torch
from support import REPOSITORY
from test_docs import script

from sdekit import Empirical, ExactScore

if str(REPOSITORY / "benchmarks") not in sys.path:
    sys.path.append(str(REPOSITORY / "benchmarks"))
rate = importlib.import_module("rate")
parts = importlib.import_module("_rate")
every_law = pytest.mark.parametrize("law", parts.LAWS, ids=lambda law: law.name)
GAUSS_X, GAUSS_W = np.polynomial.legendre.leggauss(20)


def normal_cdf(x, mean=0.0, std=1.0):
    return torch.special.ndtr(torch.from_numpy((x - mean) / std)).numpy()


def integrals(f, x):
    """Of f over the cells between x, by Gauss's rule."""
    middle, half = 0.5 * (x[1:] + x[:-1]), 0.5 * np.diff(x)
    return half * (f(middle[:, None] + half[:, None] * GAUSS_X) @ GAUSS_W)


# total variation --------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.01, 1.0, 5.0])
def test_two_gaussians_of_one_variance(shift):
    """2 Phi(d / 2) - 1."""
    x = np.linspace(-9, 9 + shift, 4001)
    found = parts.total_variation(x, normal_cdf(x), lambda y: normal_cdf(y, shift))
    assert found == pytest.approx(math.erf(shift / math.sqrt(8)), rel=1e-5)


def test_two_gaussians_of_two_variances():
    """2 (Phi(c) - Phi(c / k)) with c^2 = 2 k^2 log k / (k^2 - 1), where the densities cross."""
    k = 2.0
    c = math.sqrt(2 * k**2 * math.log(k) / (k**2 - 1))
    x = np.linspace(-20, 20, 8001)
    found = parts.total_variation(x, normal_cdf(x), lambda y: normal_cdf(y, std=k))
    high, low = normal_cdf(np.array([c, c / k]))
    want = 2 * (high - low)
    assert found == pytest.approx(want, rel=1e-5)


def test_half_lines_count():
    """Laws apart have the distance 1 even if all nodes lie in one of them."""
    law = parts.Edges("uniform", 1.0)
    x = np.linspace(3.0, 4.0, 5)
    assert parts.total_variation(x, np.linspace(0.0, 1.0, 5), law.cdf) == pytest.approx(1.0)


def test_a_rising_map_takes_its_masses_along():
    """S(z) = 2 z + 1 makes N(1, 4) of N(0, 1): eq. (4) with no density of the image."""
    found = parts.total_variation(
        2 * rate.Z + 1, normal_cdf(rate.Z), lambda y: normal_cdf(y, mean=1.0, std=2.0)
    )
    assert found < 1e-7


# targets ----------------------------------------------------------------------------------------


@every_law
def test_density_distribution_and_quantile_agree(law):
    """Cell by cell between the 1 % and the 99 % point, where no density is singular."""
    u = np.linspace(0.01, 0.99, 60)
    x = law.quantile(u)
    assert np.abs(law.cdf(x) - u).max() < 1e-12
    assert np.abs(integrals(law.density, x) - np.diff(u)).max() < 1e-12


@every_law
def test_densities_integrate_to_one_and_have_the_stated_deviation(law):
    """The substitution x = sin(a) takes the singular ends of the arcsine law away."""
    if math.isinf(law.s):
        x = np.linspace(-4, 4, 200)
        values = [integrals(lambda y, k=k: y**k * law.density(y), x).sum() for k in range(3)]
    else:
        a = np.linspace(-math.pi / 2, math.pi / 2, 40)
        values = [
            integrals(lambda b, k=k: np.sin(b) ** k * law.density(np.sin(b)) * np.cos(b), a).sum()
            for k in range(3)
        ]
    assert values == pytest.approx([1.0, 0.0, law.std**2], abs=1e-9)


@every_law
def test_samplers_fit(law):
    """Kolmogorov's distance of 20,000 draws: above 2.5 / sqrt(n) once in 10^5."""
    n = 20_000
    x = np.sort(law.sample(n, seed=3))
    gap = np.abs(law.cdf(x) - (np.arange(n) + 0.5) / n).max() + 0.5 / n
    assert gap < 2.5 / math.sqrt(n)
    assert np.array_equal(law.sample(5, seed=3), law.sample(5, seed=3))


@pytest.mark.parametrize("law", parts.LAWS[:5], ids=lambda law: law.name)
def test_smoothness_in_total_variation(law):
    """Smoothing by h costs h^min(s, 2): the Gaussian kernel is of order 2."""
    h = np.array([0.02, 0.01])
    points = law.quantile((np.arange(2**15) + 0.5) / 2**15)
    lost = []
    for width in h:
        x = parts.nodes_for(law, width)
        lost.append(parts.total_variation(x, parts.smoothed_cdf(x, points, width), law.cdf))
    order = math.log(lost[0] / lost[1]) / math.log(2)
    assert order == pytest.approx(min(law.s, 2.0), abs=0.04)


# the smoothed sample ----------------------------------------------------------------------------


@every_law
def test_the_smoothed_sample_is_the_law_of_the_exact_score(law):
    """The masses of cells under exp(log_prob) of ExactScore(Empirical).at(t_0)."""
    n = 50
    data = rate.data_of(law, n, 0)
    sde = parts.LinearLogSNR.stopped(parts.stopping_sigma(law, n))
    alpha, sigma = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
    assert sigma == pytest.approx(parts.stopping_sigma(law, n), rel=1e-12)
    assert alpha == pytest.approx(math.sqrt(1 - sigma**2), rel=1e-12)
    at = ExactScore(Empirical(torch.from_numpy(data)[:, None]), sde).at(sde.t_min)
    x = np.linspace(-2.5, 2.5, 150)

    def density(y):
        return at.log_prob(torch.from_numpy(y).reshape(-1, 1)).exp().numpy().reshape(y.shape)

    want = integrals(density, x)
    found = np.diff(parts.smoothed_cdf(x, np.sort(alpha * data), sigma))
    assert np.abs(found - want).max() < 1e-12


def test_the_centres_are_shrunk_by_alpha():
    """One point y: the smoothed sample is N(alpha y, sigma^2), here the target itself."""
    sde, y = parts.LinearLogSNR.stopped(0.6), 0.9
    law = parts.Smooth(means=(0.8 * y, 0.8 * y), stds=(0.6, 0.6))  # alpha = 0.8
    assert parts.kernel_variation(law, np.array([y]), sde) < 1e-12
    assert parts.smoothing_variation(parts.Edges("uniform", 1.0), sde, points=64) > 0.1


def test_heun_returns_the_smoothed_sample():
    """The real sampler on the exact score, from N(0, 1)."""
    law, n = parts.LAWS[2], 32
    data = rate.data_of(law, n, 0)
    sde = parts.LinearLogSNR.stopped(parts.stopping_sigma(law, n))
    x = rate.flow(ExactScore(Empirical(torch.from_numpy(data)[:, None]), sde), 100)
    centres, width = np.sort(float(sde.alpha(sde.t_min)) * data), float(sde.sigma(sde.t_min))
    found = parts.total_variation(
        x, normal_cdf(rate.Z), lambda y: parts.smoothed_cdf(y, centres, width)
    )
    assert found < 2e-3  # the prior's gap, and 100 steps


# slopes -----------------------------------------------------------------------------------------


def test_a_planted_slope_is_found():
    """Exactly without noise."""
    n = [64, 256, 1024]
    tv = 0.7 * np.array(n, dtype=float) ** -0.4 * np.array([[1.0], [2.0]])
    found = parts.slope(n, tv)
    assert (found.value, found.half) == pytest.approx((-0.4, 0.0), abs=1e-12)


def test_intervals_cover():
    """95 % of 2000 planted slopes, 5 data sets each; the share has a deviation of 0.5 %."""
    n, draws = [2**k for k in range(6, 12)], np.random.default_rng(0)
    truth = np.array(n, dtype=float) ** -0.3
    found = [
        parts.slope(n, truth * np.exp(0.2 * draws.standard_normal((5, len(n)))))
        for _ in range(2000)
    ]
    share = np.mean([abs(f.value + 0.3) <= f.half for f in found])
    assert 0.93 < share < 0.97


# the page ---------------------------------------------------------------------------------------


def test_the_page_is_made_from_its_file():
    """Every region of docs/rate.md is what docs/rate_table.py makes of docs/rate.json."""
    table, tables = script("rate_table"), script("tables")
    text = table.PAGE.read_text(encoding="utf-8")
    found = json.loads(table.DATA.read_text(encoding="utf-8"))
    for name, body in table.regions(found).items():
        assert tables.fill(text, name, body) == text, "run python docs/rate_table.py"
