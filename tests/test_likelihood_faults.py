"""Claim: a likelihood that cannot be had is an error with its reason, never a number or a hang.

FAULTS section F: stiff flows, models that are not finite, tolerances, calls, probes, data.
"""

from __future__ import annotations

import math
import time

import pytest
import torch
from sampling_support import Given
from support import assert_close

from sdekit import ExactScore, Gaussian, ScoreModel, bits_per_dim, decode, encode, log_prob
from sdekit.errors import (
    ConfigError,
    DataError,
    DtypeError,
    ModelError,
    ShapeError,
    SolverError,
)
from sdekit.model import MLP
from sdekit.sde import VPSDE
from sdekit.targets import Tutorial

MODEL = ExactScore(Tutorial(), VPSDE())
X = torch.tensor([[3.0, 3.0], [-3.0, -2.0]], dtype=torch.float64)
NAN = math.nan

each_entry = pytest.mark.parametrize("entry", [log_prob, encode, decode])
solvers = pytest.mark.parametrize("solver", ["dopri5", "torchdiffeq:dopri5", "scipy:RK45"])


@solvers
def test_a_flow_that_is_too_stiff(solver):
    """F1: paths that leave for infinity inside the interval: the time is named."""

    def score(x, t):
        return -1e3 * x**3

    began = time.monotonic()
    with pytest.raises(SolverError, match=r"t = 0\.|max_nfe|step size|finite"):
        log_prob(Given(score, VPSDE()), X, solver=solver, max_nfe=3000)
    assert time.monotonic() - began < 20


@solvers
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_is_not_finite(solver, bad):
    """F2, within a second: SciPy and score_sde hang here."""

    def score(x, t):
        return -x if t < 0.4 else -x * bad

    began = time.monotonic()
    with pytest.raises(SolverError, match="finite"):
        log_prob(Given(score, VPSDE()), X, solver=solver)
    assert time.monotonic() - began < 5


@each_entry
@pytest.mark.parametrize("value", [0, 0.0, -1e-5, NAN, math.inf])
@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_tolerances(entry, name, value):
    """F3."""
    with pytest.raises(ConfigError, match=name):
        entry(MODEL, X, **{name: value})


@each_entry
@solvers
def test_calls_that_are_used_up(entry, solver):
    """F4: with the time that was reached."""
    with pytest.raises(SolverError, match=r"max_nfe=20.* t = 0\.\d+"):
        entry(MODEL, X, solver=solver, max_nfe=20)


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        (dict(divergence="rademacher", probes=0), ConfigError, "probes"),
        (dict(divergence="rademacher", probes=-1), ConfigError, "probes"),
        (dict(divergence="rademacher", probes=2.0), DtypeError, "probes"),
        (dict(divergence="rademacher", probes=True), DtypeError, "probes"),
        (dict(probes=4), ConfigError, "exact divergence has none"),
        (dict(divergence="rademaker"), ConfigError, "did you mean 'rademacher'"),
        (dict(divergence=None), DtypeError, "divergence"),
        (dict(solver="dopri"), ConfigError, "did you mean 'dopri5'"),
        (dict(solver=5), DtypeError, "solver"),
        (dict(divergence="gaussian", seed="0"), DtypeError, "seed"),
        (dict(divergence="gaussian", seed=0.5), DtypeError, "seed"),
        (dict(max_nfe=0), ConfigError, "max_nfe"),
        (dict(max_nfe=1.5), DtypeError, "max_nfe"),
        (dict(cond=[1]), DtypeError, "cond"),
        (dict(rtol="1e-5"), DtypeError, "rtol"),
    ],
)  # fmt: skip
def test_arguments(how, error, match):
    """F7 and its neighbours, before any call of the model."""
    with pytest.raises(error, match=match):
        log_prob(MODEL, X, **how)


@each_entry
def test_data(entry):
    """F8."""
    holed = X.clone()
    holed[1, 0] = NAN
    for bad, error, match in (
        (holed, DataError, r"first: \[1\]"),
        (X.to(torch.uint8), DtypeError, "dequantize"),
        (X > 0, DtypeError, "dequantize"),
        (X.to(torch.complex64), DtypeError, "real floating"),
        (X.numpy(), DtypeError, "as_tensor"),
        (X[0, 0], ShapeError, "0-d"),
        (X[:, :1], ShapeError, r"\(batch, 2\)"),
        (torch.zeros(2, 3), ShapeError, r"\(batch, 2\)"),
    ):
        with pytest.raises(error, match=match):
            entry(MODEL, bad)
    for bad in (None, "model", lambda x, t: x):
        with pytest.raises(ModelError):
            entry(bad, X)


@pytest.mark.parametrize(
    "wrong",
    [lambda x, t: x[:, :1], lambda x, t: x[:1], lambda x, t: None, lambda x, t: x.sum(),
     lambda x, t: torch.cat([x, x])],
)  # fmt: skip
def test_outputs_of_a_wrong_shape(wrong):
    with pytest.raises((ShapeError, ModelError)):
        log_prob(ScoreModel(wrong, VPSDE()), X)


def test_a_model_that_raises_is_named():
    def network(x, t):
        raise KeyError("weights")

    with pytest.raises(ModelError, match=r"KeyError.*weights"):
        log_prob(ScoreModel(network, VPSDE()), X)


def test_nothing_of_the_callers_is_changed():
    """Not the input, the network's mode, the gradients, the global generator, the grad mode."""
    network = torch.nn.Sequential()
    network = ScoreModel(MLP(2, width=8, depth=1), VPSDE()).train()
    x = X.float().requires_grad_()
    kept, state = x.detach().clone(), torch.get_rng_state()
    with torch.inference_mode():
        by_inference = log_prob(network, x, divergence="gaussian", probes=2, seed=0)
    found = log_prob(network, x, divergence="gaussian", probes=2, seed=0)
    assert torch.equal(found.nats, by_inference.nats)
    assert torch.equal(x.detach(), kept)
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert not found.nats.requires_grad


def test_corrections_need_a_known_law():
    found = log_prob(ScoreModel(MLP(2, width=8, depth=1), VPSDE()), X.float())
    with pytest.raises(ConfigError, match="law of the latents"):
        found.corrected()


@pytest.mark.parametrize("levels", [0, 1, -8, None, 2.5, True, "256"])
def test_bins(levels):
    """F11."""
    with pytest.raises(ConfigError, match="levels"):
        bits_per_dim(torch.zeros(1), (2,), levels=levels)


def test_data_that_is_not_where_the_law_is_gives_large_finite_numbers():
    """F9: ten thousand standard deviations away."""
    law = Gaussian([0.0, 0.0], 1.0)
    x = torch.tensor([[1e4, 0.0]], dtype=torch.float64)
    found = log_prob(ExactScore(law, VPSDE()), x)
    assert_close(found.nats, law.log_prob(x), tol=1e-9)
