"""Claim: the budget of a likelihood covers its error, and is not much larger.

It is a statement of 99 %. Here it must hold in 96 % of 200 cases for every process and tolerance,
with a median of at most five times that of the errors, for the density of the data and for the
corrected one at t_min. Each line is also asked alone, where the truth is known.
"""

from __future__ import annotations

import math

import pytest
import torch
from support import assert_close

from sdekit import ExactScore, Gaussian, GaussianMixture, ScoreModel, log_prob
from sdekit.model import MLP
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE
from sdekit.targets import Tutorial

LAWS = (
    Tutorial(),
    GaussianMixture([0.3, 0.7], [[2.0, 0.0], [-2.0, 0.0]], [0.25, 1.0]),
    GaussianMixture([0.2, 0.3, 0.5], [[-4.0], [0.0], [3.0]], 0.25),
    Gaussian([1.0, -1.0], [[2.0, 1.2], [1.2, 1.0]]),
)
SDES = {
    "vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE(), "cosine": CosineSDE(), "flow": FlowSDE(),
    "edm": EDM(), "ddpm": DDPM.linear(1000),
}  # fmt: skip


def cases(sde, tol, generator, laws=LAWS, **how):
    """(error, budget) of the data's density and of the corrected one at t_min, [(200,)] each."""
    of_data, of_corrected, n = [], [], 200 // len(laws)
    for law in laws:
        model = ExactScore(law, sde)
        x = law.sample(n, generator=generator, dtype=torch.float64)
        found = log_prob(model, x, rtol=tol, atol=tol, **how)
        of_data.append(((found.nats - law.log_prob(x)).abs(), found.budget.total))
        there = model.at(found.t_min).log_prob(x)
        of_corrected.append(((found.corrected() - there).abs(), found.budget.corrected))
    return [
        tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))
        for pairs in (of_data, of_corrected)
    ]


def check(pairs, wide=5.0):
    for error, budget in pairs:
        assert float((budget >= error).double().mean()) >= 0.96
        assert float(budget.median()) <= wide * float(error.median())


@pytest.mark.parametrize(
    ("sde", "tol"), [("vp", 1e-3), ("sub_vp", 1e-5), ("ve", 1e-4), ("flow", 1e-5), ("ddpm", 1e-5)]
)
def test_coverage(sde, tol, generator):
    check(cases(SDES[sde], tol, generator))


@pytest.mark.slow
@pytest.mark.parametrize("tol", [1e-3, 1e-4, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_coverage_everywhere(sde, tol, generator):
    check(cases(sde, tol, generator))


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_coverage_with_probes(kind, generator):
    """In two dimensions and eight; a normal law's 99 % are 3.8 times its median."""
    wide = GaussianMixture([0.6, 0.4], [[1.0] * 8, [-1.5, 1.0] * 4], 0.5)
    how = dict(divergence=kind, probes=8, seed=generator)
    check(cases(VPSDE(), 1e-3, generator, (LAWS[0], wide), **how), wide=8.0)


def test_probes_widen_what_the_truncation_may_be_off_by():
    x = Tutorial().sample(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = ExactScore(Tutorial(), VPSDE())
    exact = log_prob(model, x).budget
    probed = log_prob(model, x, divergence="gaussian", probes=4, seed=0).budget
    assert bool((probed.change > exact.change).all())
    off = (probed.truncation - exact.truncation).abs()
    assert float((off <= probed.change).double().mean()) > 0.95


def test_one_probe_says_nothing():
    found = log_prob(ExactScore(Tutorial(), VPSDE()), torch.zeros(2, 2), divergence="gaussian")
    assert bool(found.budget.probes.isinf().all())
    assert bool(found.budget.total.isinf().all())


@pytest.mark.parametrize("name", ["vp", "sub_vp", "ve", "flow"])
def test_the_prior_and_the_truncation(name):
    """Two lines are known here: the law at t_max, and the data's own density."""
    sde, law = SDES[name], Tutorial()
    model = ExactScore(law, sde)
    x = law.sample(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = log_prob(model, x, rtol=1e-8, atol=1e-8)
    budget = found.budget
    gap = model.at(sde.t_max).log_prob(found.latent) - sde.prior_log_prob(found.latent)
    assert_close(budget.prior, gap, tol=1e-12)
    lost = law.log_prob(x) - model.at(found.t_min).log_prob(x)
    assert bool(((budget.truncation - lost).abs() <= budget.change + 1e-12).all())
    assert float((budget.truncation - lost).abs().max()) < 0.02 * float(lost.abs().max())
    assert not bool(budget.probes.any())
    assert float(budget.solver.max()) < 1e-7
    parts = (budget.prior + budget.truncation).abs() + budget.change + budget.solver
    assert_close(budget.total, parts, tol=1e-12)


def test_a_network_is_its_own_density():
    """No prior's gap; a budget is found once, and says what it cost."""
    found = log_prob(ScoreModel(MLP(2, width=8, depth=1), VPSDE()), torch.zeros(3, 2))
    assert not bool(found.budget.prior.any())
    assert found.budget is found.budget
    assert found.budget.nfe > found.nfe
    lines = str(found.budget).splitlines()
    assert [line.split()[0] for line in lines] == [
        "nats", "probes", "solver", "prior", "truncation", "change", "total",
    ]  # fmt: skip
    assert not math.isnan(float(found.budget.total.sum()))
