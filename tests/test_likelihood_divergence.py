"""Claim: the divergence is the trace of the Jacobian, and probes estimate it without bias.

Property 67 and PEER_BUGS 29 and 29b: for samples of any rank, by any way of computing it; the mean
over all sign vectors is the trace. A closed form is compared with autograd.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from sampling_support import each, entries
from support import assert_close

from sdekit import ExactScore, Gaussian, ImplicitScoreMatching, ScoreModel, elbo, log_prob
from sdekit.errors import ConfigError, ModelError
from sdekit.likelihood.density import Change
from sdekit.likelihood.divergence import Divergence, divergence_of
from sdekit.likelihood.flow import Flow
from sdekit.sde import VPSDE
from sdekit.targets import Empirical, ExactTarget, Tutorial

F64 = torch.float64


def field(x, t):
    """A function whose outputs depend on all inputs of their own sample."""
    flat = x.reshape(len(x), -1)
    d = flat.shape[1]
    mix = torch.arange(1.0, d * d + 1, dtype=x.dtype).reshape(d, d).cos()
    return (torch.tanh(flat @ mix) * flat + (t * flat).sin()).reshape(x.shape)


def traced(call, x, t):
    """The trace by the whole Jacobian of each sample."""

    def one(row):
        jacobian = torch.autograd.functional.jacobian(lambda y: call(y[None], t)[0], row)
        return jacobian.reshape(row.numel(), row.numel()).trace()

    return torch.stack([one(row) for row in x])[:, None]


@pytest.mark.parametrize("shape", [(3, 1), (3, 4), (3, 9), (3, 2, 3), (2, 3, 2, 2), (1, 2, 1, 2)])
def test_the_trace_in_every_rank(shape):
    x = torch.linspace(-1, 2, torch.Size(shape).numel(), dtype=F64).reshape(shape)
    found = Divergence(None)(field, x, 0.3)
    assert_close(found.divergence, traced(field, x, 0.3), tol=1e-12)
    assert_close(found.raw, field(x, 0.3), tol=1e-15)
    assert not found.raw.requires_grad


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 2)])
def test_all_sign_vectors_give_the_trace(shape):
    x = torch.linspace(-1, 2, torch.Size(shape).numel(), dtype=F64).reshape(shape)
    signs = list(itertools.product([-1.0, 1.0], repeat=x[0].numel()))
    probes = torch.tensor(signs, dtype=F64).reshape(len(signs), 1, *shape[1:]).expand(-1, *shape)
    found = Divergence(probes)(field, x, 0.3).divergence
    assert found.shape == (shape[0], len(signs))
    assert float(found.std(1).min()) > 1e-3  # each by itself is an estimate only
    assert_close(found.mean(1, keepdim=True), traced(field, x, 0.3), tol=1e-12)


def test_all_sign_vectors_give_the_likelihood():
    """The mean of the rates over all probes is the exact one, frame included."""
    model = ExactScore(Tutorial(), VPSDE())
    x = torch.tensor([[0.5, 1.0], [-2.0, 0.1]], dtype=F64)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)), dtype=F64)
    probes = signs[:, None].expand(-1, 2, -1)
    rates = []
    for by in (Divergence(None), Divergence(probes)):
        flow = Flow(model, x, cond={}, max_nfe=None)
        at = flow.levels([0.4])[0]
        rates.append(Change(flow, by).rate(x, at)[1].mean(1))
    assert_close(rates[1], rates[0], tol=1e-12)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_probes_have_no_variance_on_gaussian_data(kind):
    law = Gaussian([1.0, -1.0], [[2.0, 1.2], [1.2, 1.0]])
    x = torch.tensor([[0.0, 0.0], [3.0, 1.0]], dtype=F64)
    found = log_prob(ExactScore(law, VPSDE()), x, divergence=kind, probes=3, seed=0)
    exact = log_prob(ExactScore(law, VPSDE()), x)
    assert float(found.stderr.max()) < 1e-10
    assert_close(found.nats, exact.nats, tol=1e-10)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_the_standard_error_is_that_of_the_probes(kind):
    """Of 400 independent probes the mean lies within 6 standard errors, and the error is right."""
    model, x = (
        ExactScore(Tutorial(), VPSDE()),
        torch.tensor([[1.0, 0.0]], dtype=F64).expand(400, 2),
    )
    exact = log_prob(model, x[:1], rtol=1e-7, atol=1e-7).nats
    many = log_prob(model, x, divergence=kind, probes=4, seed=1)
    off = many.nats - exact
    spread = float(many.nats.std())
    assert abs(float(off.mean())) < 6 * spread / 20
    assert 0.8 < float(many.stderr.square().mean().sqrt()) / spread < 1.2
    one = log_prob(model, x[:2], divergence=kind, seed=1)
    assert bool(one.stderr.isnan().all())


def test_probes_are_keyed_by_seed_and_sample():
    x = torch.zeros(20, 3)
    whole = divergence_of("gaussian", 4, x, 7).probes
    part = divergence_of("gaussian", 4, x[:6], 7).probes
    assert torch.equal(whole[:, :6], part)
    assert not torch.equal(whole, divergence_of("gaussian", 4, x, 8).probes)
    signs = divergence_of("rademacher", 4, x, 7).probes
    assert torch.equal(signs.abs(), torch.ones(4, 20, 3, dtype=F64))
    assert len(signs.unique(dim=0)) == 4
    assert divergence_of("exact", 1, x, None).probes is None


class Stubborn(torch.nn.Module):
    """Reads a value of its input, which vmap refuses under its backward pass."""

    def forward(self, x, time):
        class Cube(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x**3 / 10

            @staticmethod
            def backward(ctx, grad):
                (x,) = ctx.saved_tensors
                return grad * 3 * x**2 / 10 if float(grad.sum()) == float(grad.sum()) else grad

        return Cube.apply(x)


def test_a_network_that_vmap_refuses():
    x = torch.linspace(-1, 1, 12, dtype=F64).reshape(2, 6)
    network, by = Stubborn(), Divergence(None)
    found = by(network, x, 0.5).divergence
    assert_close(found, 0.3 * x.square().sum(1, keepdim=True), tol=1e-12)
    assert not by._by_vmap


class Constant(torch.nn.Module):
    """An output that does not depend on x: a zero Jacobian, and no graph to x."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.nn.Parameter(torch.full((2,), value))

    def forward(self, x, time):
        return self.value.expand_as(x)


@pytest.mark.parametrize("trainable", [True, False])
def test_a_constant_model_has_no_divergence(trainable):
    network = Constant(0.3).requires_grad_(trainable)
    found = log_prob(ScoreModel(network, VPSDE()), torch.zeros(2, 2))
    exact = log_prob(ScoreModel(lambda x, time: 0.3 + 0 * x, VPSDE()), torch.zeros(2, 2))
    assert_close(found.nats, exact.nats, tol=1e-6)


DETACHED = {
    "detach": lambda x, time: torch.tanh(x.detach()),
    "no_grad": torch.no_grad()(lambda x, time: torch.tanh(x)),
    "numpy": lambda x, time: torch.from_numpy(x.detach().numpy() * 2),
    "argmax": lambda x, time: torch.nn.functional.one_hot(x.argmax(1), 2).to(x),
}


@pytest.mark.parametrize("name", DETACHED)
def test_a_model_without_a_gradient_is_refused(name):
    """FAULTS F5: score_sde returns a wrong number of bits here."""
    x = torch.tensor([[0.5, -1.0], [0.1, 0.1]])
    with pytest.raises(ModelError, match="divergence needs autograd"):
        log_prob(ScoreModel(DETACHED[name], VPSDE()), x)


class Partly(torch.nn.Module):
    """The noise of N(0, I / 4) on VP, a part of which autograd does not see."""

    def __init__(self, seen):
        super().__init__()
        self.seen, self.gain = seen, torch.nn.Parameter(torch.ones((), dtype=F64))

    def forward(self, x, time):
        alpha, var = VPSDE().alpha(time.double()), VPSDE().var(time.double())
        scale = self.gain * var.sqrt() / (alpha.square() / 4 + var)
        return scale.to(x.dtype)[:, None] * self.seen(x)


PARTS = {
    "a tenth is seen": lambda x: 0.9 * x.detach() + 0.1 * x,
    "rounded": lambda x: (x * 64).round() / 64,
    "nothing is seen, but there are parameters": lambda x: x.detach(),
}
every_part = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


@every_part
def test_a_part_that_autograd_does_not_see(part):
    x = Gaussian([0.0, 0.0], 0.25).sample(4, generator=torch.Generator().manual_seed(0), dtype=F64)
    with pytest.raises(ModelError, match="autograd"):
        log_prob(ScoreModel(Partly(part), VPSDE()), x)
    whole = log_prob(ScoreModel(Partly(lambda x: x), VPSDE()), x)
    exact = log_prob(ExactScore(Gaussian([0.0, 0.0], 0.25), VPSDE()), x)
    assert_close(whole.nats, exact.nats, tol=1e-4, scale=1.0)


def test_losses_and_bounds_refuse_what_is_detached():
    model = ScoreModel(Partly(PARTS["nothing is seen, but there are parameters"]), VPSDE())
    x = torch.ones(4, 2, dtype=F64)
    with pytest.raises(ModelError, match="autograd"):
        elbo(model, x, form="ism", times=3, seed=0)
    with pytest.raises(ModelError, match="autograd"):
        ImplicitScoreMatching()(model, x)


def test_a_laplacian_over_several_pieces_of_the_data():
    data = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    law, x = Empirical(data, var=0.1), data[:3] + 0.1
    assert_close(law.laplacian(x), ExactTarget._curved(law, x)[1], tol=1e-10)


def test_more_probes_than_memory():
    with pytest.raises(ConfigError, match="GB"):
        divergence_of("rademacher", 10**12, torch.zeros(3, 2), 0)


def test_no_samples_and_several_probes():
    model = ExactScore(Tutorial(), VPSDE())
    found = log_prob(model, torch.zeros(0, 2), divergence="gaussian", probes=2)
    assert found.budget.total.shape == (0,)


EXACT = {key: law for key, law in entries("target").items() if isinstance(law, ExactTarget)}


@pytest.mark.parametrize("law", each(EXACT))
def test_laplacians_of_exact_laws(law):
    """Property 24: the divergence of the score in closed form, against autograd's."""
    law = law.perturbed(0.8, 0.3)
    x = law.sample(5, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = torch.cat([x, 30 * x[:1]])  # and far out
    score, by_autograd = ExactTarget._curved(law, x)
    assert_close(law.laplacian(x), by_autograd, tol=1e-10)
    assert_close(law._curved(x)[0], score, tol=1e-12)
    assert_close(law.laplacian(x.float()).double(), by_autograd, tol=1e-3)


@pytest.mark.parametrize("dim", [10_001, 10**6])
def test_an_exact_divergence_of_too_many_dimensions(dim):
    with pytest.raises(ConfigError, match="rademacher"):
        divergence_of("exact", 1, torch.zeros(1, dim), 0)
