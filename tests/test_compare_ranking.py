"""Claim: 20,000 samples can rank two samplers wrongly where the exact metric ranks them rightly.

Who is right is decided by a third computation, the images of the prior's quantiles under the two
(deterministic, monotone) samplers against SciPy's quantiles of the data.
"""

from __future__ import annotations

import sys

import pytest
from support import REPOSITORY

from sdekit import VPSDE, ExactScore
from sdekit.exact import Law1D

if str(REPOSITORY / "benchmarks") not in sys.path:
    sys.path.append(str(REPOSITORY / "benchmarks"))

from ranking import LAW, by_levels, drawn, exact

MODEL = ExactScore(LAW, VPSDE())
GOOD, POOR = ("deis", 64, "log_snr"), ("heun", 32, "quadratic")
LEVELS = 20_000


def test_the_exact_ranking_is_right():
    good, poor = by_levels(MODEL, *GOOD, LEVELS), by_levels(MODEL, *POOR, LEVELS)
    assert good < 0.7 * poor
    data = Law1D.of(LAW)
    assert exact(MODEL, *GOOD).wasserstein(data) == pytest.approx(good, rel=0.01)
    assert exact(MODEL, *POOR).wasserstein(data) == pytest.approx(poor, rel=0.01)


def test_twenty_thousand_samples_get_it_wrong():
    assert drawn(MODEL, *POOR, seed=1) < drawn(MODEL, *GOOD, seed=1)
