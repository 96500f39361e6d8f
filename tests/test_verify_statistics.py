"""Claim: the statistical checks keep their false-alarm rate, and see what they declare to see.

At a level of 1e-2 each test rejects a true law in at most 2.2 % of 2000 replays, which a right
test exceeds once in a million; three graded wrong laws are rejected with at least the declared
power; p-values of a true law are at least uniform; and the retest's budget adds up.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import entries
from support import leaving

from sdekit.sampling.noise import KeyedNoise
from sdekit.sde import VPSDE
from sdekit.targets import GaussianMixture
from sdekit.verify import CHECKS, statistics
from sdekit.verify.checks.target import _Lattice
from sdekit.verify.mutants import altered
from sdekit.verify.strategies import f64

ALPHA, REPLAYS, MOST = 1e-2, 2000, 0.022
VP = VPSDE()
TWO = GaussianMixture(f64([0.3, 0.7]), f64([[1.0], [-0.8]]), f64([0.2, 0.5]))
DSM = entries("objective")["dsm-0"]
LAW = entries("time")["uniform-0"]


def wide(by):
    return altered(
        VP, prior_sample=lambda self, shape, **how: by * VPSDE.prior_sample(self, shape, **how)
    )


def loud(by):
    return altered(KeyedNoise(0), __call__=lambda self, x: by * KeyedNoise.__call__(self, x))


def moved(by):
    return altered(TWO, sample=lambda self, n, **how: by + GaussianMixture.sample(self, n, **how))


def late(by):
    def prepare(self, model, x0, generator):
        t = type(DSM).prepare(self, model, x0, generator)[1]
        return self._terms(model, x0, t.clamp_min(by), torch.zeros_like(x0))

    return altered(DSM, prepare=prepare)


def later(by):
    def times(self, sde, u, weighting):
        return type(LAW).times(self, sde, u, weighting).clamp_min(by)

    return altered(LAW, times=times)


def noisy(by):
    def prepare(self, model, x0, generator):
        t = type(DSM).prepare(self, model, x0, generator)[1]
        z = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        return self._terms(model, x0, t, by * z)

    return altered(DSM, prepare=prepare)


# check -> a right object, draws a replay, and wrong objects with the power that is declared
GRADED = {
    "prior_draws": (VP, 2000, [(wide(1.05), 0.4), (wide(1.1), 0.95), (wide(1.2), 0.999)]),
    "noise_law": (KeyedNoise(0), 2000, [(loud(1.05), 0.5), (loud(1.1), 0.95), (loud(1.2), 0.999)]),
    "target_draws": (TWO, 2000, [(moved(0.08), 0.3), (moved(0.15), 0.95), (moved(0.3), 0.999)]),
    "times_are_drawn_from_their_law": (
        DSM, 2000, [(late(0.04), 0.1), (late(0.06), 0.95), (late(0.1), 0.999)],
    ),
    "published_law": (
        LAW, 2000, [(later(0.04), 0.1), (later(0.06), 0.95), (later(0.1), 0.999)],
    ),
    "noise_is_standard": (
        DSM, 2000, [(noisy(1.05), 0.4), (noisy(1.1), 0.95), (noisy(1.2), 0.999)],
    ),
}  # fmt: skip
every_test = pytest.mark.parametrize("name", GRADED)
# 2000 replays of these take seconds each
LONG = {"target_draws", "noise_is_standard", "noise_law", "times_are_drawn_from_their_law"}


@pytest.fixture(autouse=True)
def one_lattice(monkeypatch):
    """The density's lattice is the same in every replay: it is made once."""
    made = {}

    def of(law):
        return made.setdefault(type(law).__mro__[-3].__name__, _Lattice(TWO, 20_000))

    monkeypatch.setattr(_Lattice, "of", of)


def p_values(name, thing, n, replays, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [CHECKS[name].measure(thing, n, generator) for _ in range(replays)]


def test_every_statistical_check_is_here():
    assert set(GRADED) == {c.name for c in CHECKS.values() if c.statistical and c.kind != "model"}


@pytest.mark.parametrize("name", leaving([*GRADED], lambda name: name in LONG))
def test_a_true_law_is_rarely_rejected(name):
    right, n, _ = GRADED[name]
    p = torch.tensor(p_values(name, right, n, REPLAYS, seed=1), dtype=torch.float64)
    assert float((p < ALPHA).double().mean()) <= MOST
    # no level is exceeded by more than chance: P(p <= u) <= u, by Dvoretzky, Kiefer and Wolfowitz
    ordered = p.sort().values
    above = torch.arange(1, REPLAYS + 1) / REPLAYS - ordered
    assert float(above.max()) <= math.sqrt(math.log(1e9) / (2 * REPLAYS))


@every_test
def test_wrong_laws_are_rejected_as_declared(name):
    _, n, grades = GRADED[name]
    for wrong, power in grades:
        p = p_values(name, wrong, n, 100, seed=2)
        seen = sum(q < ALPHA for q in p) / len(p)
        # four standard errors of 100 replays
        assert seen >= power - 4 * math.sqrt(power * (1 - power) / 100), (power, seen)


def test_the_budget_adds_up():
    assert statistics.TESTS * statistics.LEVEL**statistics.STAGES <= statistics.BUDGET == 1e-9
    assert sum(check.statistical for check in CHECKS.values()) <= statistics.TESTS


def test_a_failure_needs_every_stage():
    """And says p-values and seed; one stage that accepts ends it."""
    asked = []

    def p_value(n, seed):
        asked.append((n, seed))
        return 0.0 if len(asked) < 4 else 1.0

    assert statistics.retested(p_value, seed=5).ok
    assert asked == [(100_000, 5), (400_000, 6), (400_000, 7), (400_000, 8)]
    failed = statistics.retested(lambda n, seed: 1e-9, seed=5)
    assert not failed.ok
    assert "stage 4" in failed.says
    assert "seed 5" in failed.says


def test_a_law_that_is_not_finite_is_rejected():
    z = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert statistics.normal(z) > 1e-3
    z[3] = math.nan
    assert statistics.normal(z) == 0.0
    assert statistics.uniform(z) == 0.0
