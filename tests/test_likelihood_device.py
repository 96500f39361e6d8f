"""Claim: on any device likelihoods, bounds and losses are what they are on the CPU.

In float64, with probes and noise keyed by seed and sample, drawn on the device that asks: what is
random is compared by its closed form or its spread, what is not to rounding.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import draws, two_modes
from support import assert_close

from sdekit import DDPM, DSM, ExactScore, ScoreModel, Trainer, decode, elbo, encode, log_prob
from sdekit.model import MLP
from sdekit.objectives import FisherDivergence, ImplicitScoreMatching
from sdekit.sde import VESDE, VPSDE


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), DDPM.linear(50)], ids=["vp", "ve", "ddpm"])
def test_log_likelihoods_of_an_exact_score(device, sde):
    model, x = ExactScore(two_modes(), sde), draws(1, (5, 2))[0]
    here, there = log_prob(model, x), log_prob(model, x.to(device))
    assert there.nats.device.type == device.type
    assert_close(there.nats.cpu(), here.nats, tol=1e-7, scale=1.0)
    assert_close(there.corrected().cpu(), here.corrected(), tol=1e-7, scale=1.0)
    # rounding decides what the solver's line is made of
    assert_close(there.budget.truncation.cpu(), here.budget.truncation, tol=1e-9, scale=1.0)
    assert_close(decode(model, encode(model, x.to(device))).cpu(), x, tol=1e-4)


@pytest.mark.parametrize("dim", [2, 9])
@pytest.mark.parametrize("divergence", ["exact", "gaussian"])
def test_log_likelihoods_of_a_network(device, dim, divergence):
    """By the loop and by vmap."""
    how = dict(divergence=divergence, probes=1 if divergence == "exact" else 300, seed=0)
    x = draws(1, (3, dim))[0]
    here = log_prob(ScoreModel(MLP(dim, width=16).double(), VPSDE()), x)
    model = ScoreModel(MLP(dim, width=16).double(), VPSDE()).to(device)
    there = log_prob(model, x.to(device), **how)
    allowed = 1e-6 if divergence == "exact" else 6 * float(there.stderr.max())
    assert_close(there.nats.cpu(), here.nats, tol=allowed, scale=1.0)


@pytest.mark.parametrize("sde", [VPSDE(), DDPM.linear(20, beta_end=0.3)], ids=["vp", "ddpm"])
def test_bounds(device, sde):
    model, x = ExactScore(two_modes(), sde), two_modes().sample(400, dtype=torch.float64)
    here, there = (elbo(model, at, seed=1) for at in (x, x.to(device)))
    assert there.total.device.type == device.type
    assert_close(there.prior.cpu(), here.prior, tol=1e-9)
    spread = (float(here.mean_stderr) ** 2 + float(there.mean_stderr) ** 2) ** 0.5
    assert abs(float(there.mean) - float(here.mean)) < 8 * spread


LOSSES = (
    DSM(weighting="uncertainty", time="stratified"),
    DSM(weighting="likelihood", time="importance"),
    DSM(weighting="edm", time="log_normal"),
    ImplicitScoreMatching(),
)


@pytest.mark.parametrize("loss", LOSSES)
def test_training_by_every_sort_of_loss(device, loss):
    model = ScoreModel(MLP(2, width=16), VPSDE(), uncertainty=True).to(device)
    result = Trainer(model, loss, batch_size=32).fit(two_modes(), steps=5)
    assert bool(torch.isfinite(result.losses).all())
    assert next(result.model.parameters()).device.type == device.type
    assert FisherDivergence(two_modes(), n=64, times=3)(result.model).mean > 0
