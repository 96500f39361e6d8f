"""Claim: the interval of a positive, skew mean is where its gamma likelihood allows, and covers.

The likelihood is SciPy's, maximised over the shape by SciPy; the coverage is counted.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from metrics_support import band
from scipy import optimize, stats

from sdekit.metrics import Estimate
from sdekit.metrics.intervals import gamma_mean, student

REPLAYS = 400


def log_likelihood(mu, x):
    """Of the mean, at its likeliest shape."""

    def at(log_k):
        k = math.exp(log_k)
        return -float(stats.gamma.logpdf(x, k, scale=mu / k).sum())

    return -optimize.minimize_scalar(at, bounds=(-12, 20), options={"xatol": 1e-10},
                                     method="bounded").fun  # fmt: skip


@pytest.mark.parametrize("count", [3, 5, 12])
@pytest.mark.parametrize("shape", [0.5, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_ends_are_where_the_likelihood_falls_by_what_student_allows(count, shape, level):
    x = np.random.default_rng(count).gamma(shape, 2.0, count)
    t = stats.t.isf((1 - level) / 2, count - 1)
    fall = count * math.log1p(t**2 / (count - 1)) / 2
    for end in gamma_mean(x, level):
        assert log_likelihood(x.mean(), x) - log_likelihood(end, x) == pytest.approx(
            fall, rel=1e-6
        )


@pytest.mark.parametrize("count", [3, 5, 20])
@pytest.mark.parametrize("size", [5e-2, 1.1e-3])
def test_values_that_vary_a_little_are_not_yet_normal(count, size):
    """By the likelihood of SciPy's law; Student's ends would be off by more than is allowed."""
    x = np.random.default_rng(0).normal(0, 1, count)
    y = 3 + 3 * size * (x - x.mean()) / x.std(ddof=1)
    t = stats.t.isf(0.025, count - 1)
    fall = count * math.log1p(t**2 / (count - 1)) / 2
    for end in gamma_mean(y, 0.95):
        fell = log_likelihood(3.0, y) - log_likelihood(end, y)
        assert fell == pytest.approx(fall, rel=0.05 * size)


@pytest.mark.parametrize("count", [3, 5, 20])
def test_values_that_hardly_vary_have_student_s(count):
    """The ends come to Student's in proportion to the variation, and never jump."""
    x = np.random.default_rng(0).normal(0, 1, count)
    away = {}
    for size in (2e-2, 2e-3, 5e-4, 1e-6, 1e-9):
        y = 3 + 3 * size * (x - x.mean()) / x.std(ddof=1)
        want = student(3.0, 3 * size / math.sqrt(count), count - 1, 0.95)
        half = (want[1] - want[0]) / 2
        away[size] = max(abs(np.array(gamma_mean(y, 0.95)) - want)) / half
    assert away[2e-2] > 5 * away[2e-3] > 0
    assert away[2e-3] < 0.02
    assert max(away[size] for size in (5e-4, 1e-6, 1e-9)) < 1e-5


def test_student_s_are_scipy_s():
    assert student(1.3, 0.2, 7, 0.9) == pytest.approx(
        stats.t.interval(0.9, 7, 1.3, 0.2), rel=1e-12
    )
    assert student(1.3, 0.2, math.inf, 0.9) == pytest.approx(
        stats.norm.interval(0.9, 1.3, 0.2), rel=1e-12
    )


def test_it_has_the_units_of_the_values():
    x = [0.1, 0.5, 0.2, 1.4, 0.3]
    low, high = gamma_mean(x, 0.95)
    for unit in (1e-200, 3.0, 1e200):
        assert gamma_mean([unit * v for v in x], 0.95) == pytest.approx(
            (unit * low, unit * high), rel=1e-12
        )


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("shape", [0.5, 1.0, 5.0])
def test_it_covers_where_student_s_does_not(shape, count):
    """A square of one normal has shape 1/2: a Frechet distance at the truth is near it."""
    rng = np.random.default_rng(7)
    hits = students = 0
    for x in rng.gamma(shape, 1 / shape, (REPLAYS, count)):
        low, high = gamma_mean(x, 0.95)
        hits += low <= 1 <= high
        low, high = student(x.mean(), x.std(ddof=1) / math.sqrt(count), count - 1, 0.95)
        students += low <= 1 <= high
    least, most = band(REPLAYS)
    assert least <= hits <= most
    if shape == 0.5 and count > 2:
        assert students / REPLAYS < 0.9


@pytest.mark.parametrize(
    ("values", "want"),
    [([0.0, 1.0], "student"), ([2.0, 2.0, 2.0], "point"), ([0.0, 0.0], "point")],
)
def test_where_no_gamma_law_is_likely_it_is_student_s(values, want):
    low, high = gamma_mean(values, 0.95)
    if want == "point":
        assert low == high == values[0]
    else:
        assert (low + high) / 2 == pytest.approx(0.5)


@pytest.mark.parametrize("level", [1e-17, 1e-9, 1e-3, 0.5, 0.999, 1 - 2**-53])
@pytest.mark.parametrize("size", [2e-3, 0.1, 3.0])
@pytest.mark.parametrize("count", [2, 5, 1000])
def test_every_level_has_an_interval(level, size, count):
    """Around the mean, and wider for a higher level."""
    x = np.exp(size * np.random.default_rng(1).normal(size=count))
    low, high = gamma_mean(x, level)
    assert low <= x.mean() * (1 + 1e-12)
    assert x.mean() <= high * (1 + 1e-12)
    if level < 0.9:
        wider = gamma_mean(x, 1 - (1 - level) / 2)
        assert wider[0] < low
        assert high < wider[1]


def test_two_values_far_apart_say_nothing_from_above():
    low, high = gamma_mean([1e-300, 1.0], 0.999)
    assert 0 < low < 0.5
    assert high == math.inf


def test_an_estimate_of_draws_is_open_towards_what_is_worse():
    """A distance reaches further up than down; a share, whose best is 1, further down."""
    draws = [0.1, 0.3, 0.15, 0.2, 0.4]
    stderr = float(np.std(draws, ddof=1)) / math.sqrt(5)
    mean = float(np.mean(draws))
    low, high = Estimate(mean, stderr=stderr, df=4, lo=0.0, draws=draws, best=0.0).interval()
    assert (low, high) == pytest.approx(gamma_mean(draws, 0.95), rel=1e-12)
    assert high - mean > mean - low
    shares = [1 - draw for draw in draws]
    share = Estimate(1 - mean, stderr=stderr, df=4, lo=0.0, hi=1.0, draws=shares, best=1.0)
    assert share.interval() == pytest.approx((1 - high, 1 - low), rel=1e-9)
    plain = Estimate(mean, stderr=stderr, df=4, draws=draws)
    assert plain.interval() == pytest.approx(student(mean, stderr, 4, 0.95), rel=1e-12)
