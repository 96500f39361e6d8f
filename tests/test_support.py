"""Claim: the statistical tests are wrong as rarely as they say, and right as often as needed.

Each is run 2000 times on its exact law at alpha = 1e-2 (a right test exceeds a rate of 2.2 % once
in a million), and on wrong laws, which it must refuse at the level that the suite uses.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from support import (
    AlphaBudget,
    assert_close,
    law_test,
    leaving,
    mean_test,
    proportion_test,
    tolerance,
    ulps,
    variance_test,
)

RUNS = 2000
ALPHA = 1e-2
LIMIT = float(stats.binom(RUNS, ALPHA).isf(1e-6)) / RUNS


def normal(n, rng, mean=0.0, std=1.0):
    return mean + std * torch.randn(n, generator=rng, dtype=torch.float64)


TESTS = {
    "mean": lambda x, alpha: mean_test(x, mean=0.0, std=1.0, alpha=alpha),
    "variance": lambda x, alpha: variance_test(x, var=1.0, alpha=alpha),
    "law": lambda x, alpha: law_test(x, cdf=stats.norm.cdf, alpha=alpha),
    "proportion": lambda x, alpha: proportion_test(
        int((x > 0.5).sum()), len(x), p=float(stats.norm.sf(0.5)), alpha=alpha
    ),
}


@pytest.mark.parametrize(
    "name", leaving([*TESTS], lambda name: name in ("proportion", "variance"))
)
def test_false_alarms_are_as_rare_as_declared(name, generator):
    rate = sum(not TESTS[name](normal(200, generator), ALPHA) for _ in range(RUNS)) / RUNS
    assert rate <= LIMIT, f"{rate:.2%} of the right samples are refused at alpha = {ALPHA:.0%}"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("mean", {"mean": 0.04}),
        ("mean", {"mean": 0.1}),
        ("mean", {"mean": -1.0}),
        ("variance", {"std": math.sqrt(1.06)}),
        ("variance", {"std": math.sqrt(0.94)}),
        ("variance", {"std": 2.0}),
        ("law", {"mean": 0.07}),
        ("law", {"std": 1.12}),
        ("law", {"std": 2.0}),
        ("proportion", {"mean": 0.04}),
        ("proportion", {"std": 1.1}),
        ("proportion", {"mean": -1.0}),
    ],
)
def test_a_wrong_law_is_refused(name, wrong, generator):
    """The sizes that PROPERTIES.md derives for 1e5 draws at alpha = 5e-12."""
    assert not TESTS[name](normal(100_000, generator, **wrong), 5e-12)


@pytest.mark.slow
def test_a_skewed_sample_is_not_refused_more_often(generator):
    def draws():
        return -torch.log(torch.rand(100_000, generator=generator, dtype=torch.float64))

    rate = (
        sum(
            not mean_test(draws(), mean=1.0, std=1.0, alpha=ALPHA, skewness=2.0)
            for _ in range(RUNS)
        )
        / RUNS
    )
    assert rate <= LIMIT


def test_bands_are_those_of_the_specification():
    x = torch.linspace(-1, 1, 10_000, dtype=torch.float64)
    band = variance_test(x, var=1.0, alpha=5e-12)
    assert band.low == pytest.approx(1 - 0.095, abs=5e-4)
    assert band.high == pytest.approx(1 + 0.101, abs=5e-4)
    assert law_test(x.repeat(10), cdf=stats.norm.cdf, alpha=5e-12).high == pytest.approx(
        0.0116, abs=5e-5
    )
    mean = mean_test(x, mean=0.0, std=1.0, alpha=5e-12)
    assert mean.high * 100 == pytest.approx(6.91, abs=5e-3)


def test_nan_is_outside_every_band():
    assert not mean_test(torch.full((10,), math.nan), mean=0.0, std=1.0, alpha=0.1)
    assert not law_test(torch.full((10,), math.nan), cdf=stats.norm.cdf, alpha=0.1)


def test_a_level_is_spent_once_and_the_budget_has_an_end():
    budget = AlphaBudget(total=1e-9, parts=10)
    assert budget.spend("a") == pytest.approx(1e-10)
    with pytest.raises(AssertionError, match="spent already"):
        budget.spend("a")
    assert budget.spend("b", parts=9) == pytest.approx(9e-10)
    with pytest.raises(AssertionError, match="0 are left"):
        budget.spend("c")


def test_closeness_is_strict_about_shape_and_dtype():
    one = torch.ones(2, 2)
    assert_close(one * (1 + 1e-5), one)
    for other in (
        one * (1 + 1e-2),
        torch.ones(2, 2, 1),
        torch.ones(4),
        one.double(),
        one * math.nan,
    ):
        with pytest.raises(AssertionError):
            assert_close(other, one)
    assert_close(torch.tensor([1e6, 1.0]), torch.tensor([1e6, 2.0]))
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([1e6, 1.0]), torch.tensor([1e6, 2.0]), scale=1.0)


def test_tolerances_follow_the_dtype():
    assert tolerance(torch.float64) == np.sqrt(np.finfo(np.float64).eps)
    assert tolerance(torch.float32, 3) == pytest.approx(3 * 3.4527e-4, rel=1e-4)
    assert ulps(torch.float64, 8) == 8 * 2.0**-52


def test_reference_reads_arrays_as_float64(reference):
    tables = reference.load("ddpm_chain")
    case = tables.case("linear_1000")
    assert tables.array(case, "index").dtype == torch.float64
    assert_close(tables.array(case, "betas_all")[:1], torch.tensor([1e-4], dtype=torch.float64))
    with pytest.raises(KeyError, match="betas_all"):
        tables.array(case, "nothing")
    with pytest.raises(FileNotFoundError):
        reference.load("nothing")
