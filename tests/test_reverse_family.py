"""Property 20: eta = 0 and eta = 1 are the known members of the family; what it refuses."""

import pytest
import torch
from strategies import EVERY, MIXTURES, every_sde, smooth_times
from support import assert_close

from sdekit.errors import ConfigError, DtypeError, ModelError, ShapeError
from sdekit.sde import SDE


def divergence(field, x):
    """The exact divergence of a field of samples in one dimension [(n,)]."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(field(x).sum(), x)[0][:, 0]


def exact_score(sde, law):
    def score(x, t):
        t = torch.as_tensor(t).expand(len(x))
        return law.score(x, sde.alpha(t), sde.var(t))

    return score


@every_sde
def test_known_members(sde):
    """Property 20: eta = 1 is Anderson's f - g^2 s with g; eta = 0 the flow f - g^2 s/2."""
    law = MIXTURES["2d"]
    score, t = exact_score(sde, law), smooth_times(sde)
    x = law.points(sde.alpha(t), sde.var(t))
    f, g, s = sde.drift(x, t), sde.diffusion(t), score(x, t)
    anderson = sde.reverse(score)
    scale = (f.abs() + g.square()[:, None] * s.abs()).max()
    assert anderson.eta == 1.0
    assert_close(anderson.drift(x, t), f - g.square()[:, None] * s, tol=1e-13, scale=float(scale))
    assert torch.equal(anderson.diffusion(t), g)
    flow = sde.reverse(score, eta=0.0)
    expected = f - 0.5 * g.square()[:, None] * s
    assert_close(flow.drift(x, t), expected, tol=1e-13, scale=float(scale))
    assert float(flow.diffusion(t).abs().max()) == 0.0
    half = sde.reverse(score, eta=0.5)
    assert_close(
        half.drift(x, t), f - 0.625 * g.square()[:, None] * s, tol=1e-13, scale=float(scale)
    )
    assert_close(half.diffusion(t), 0.5 * g, tol=1e-15)


@every_sde
def test_shapes_and_prior(sde):
    """A reverse process keeps shape and dtype, and starts from the prior of what it reverses."""
    process = sde.reverse(lambda x, t: -x, eta=0.7)
    t = smooth_times(sde)[:2]
    for x in (torch.ones(2, 3), torch.ones(2, 1, 2, 2, dtype=torch.float64)):
        for at in (t, float(t[0]), t.reshape(2, *[1] * (x.ndim - 1))):
            assert (process.drift(x, at).shape, process.drift(x, at).dtype) == (x.shape, x.dtype)
    draws = [
        each.prior_sample((2, 2), generator=torch.Generator().manual_seed(1))
        for each in (sde, process)
    ]
    assert torch.equal(*draws)
    assert torch.equal(process.prior_log_prob(draws[0]), sde.prior_log_prob(draws[0]))
    assert (process.t_min, process.t_max) == (sde.t_min, sde.t_max)


class DoubleWell(SDE):
    """dx = -V'(x) dt + sqrt(2) dW, V = (x^2 - 1)^2, in its stationary law exp(-V): not linear."""

    t_min, t_max = 0.0, 1.0

    def drift(self, x, t):
        return -4 * x * (x.square() - 1)

    def diffusion(self, t):
        return torch.full_like(torch.as_tensor(t), 2.0).sqrt()

    def prior_sample(self, shape, *, generator=None, dtype=None, device=None):
        return torch.zeros(shape, dtype=dtype)

    def prior_log_prob(self, x):
        return -(x.square() - 1).square().sum(1)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_any_drift_can_be_reversed(eta):
    """exp(-V) stays stationary under the reversed family of a process that is not linear."""
    well = DoubleWell()
    process = well.reverse(well.drift, eta=eta)  # its score is its drift
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    t = torch.full((41,), 0.5, dtype=torch.float64)
    s, bend = well.drift(x, t)[:, 0], divergence(lambda y: well.drift(y, t), x)
    noise = 0.5 * process.diffusion(t).square() * (bend + s.square())
    flux = divergence(lambda y: process.drift(y, t), x) + process.drift(x, t)[:, 0] * s
    assert_close(flux + noise, torch.zeros_like(noise), tol=1e-12, scale=float(s.square().max()))
    assert process.kinds == frozenset()


@pytest.mark.parametrize(
    ("score", "eta", "error", "words"),
    [
        (lambda x, t: -x, -0.1, ConfigError, ["eta", "-0.1"]),
        (lambda x, t: -x, float("nan"), ConfigError, ["eta", "nan"]),
        (lambda x, t: -x, "1", DtypeError, ["eta", "1"]),
        (None, 1.0, DtypeError, ["score", "None"]),
    ],
)
def test_bad_arguments(score, eta, error, words):
    with pytest.raises(error) as caught:
        EVERY["vp-0"].reverse(score, eta=eta)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("score", "error", "words"),
    [
        (lambda x, t: None, ModelError, ["score", "NoneType"]),
        (lambda x, t: (-x,), ModelError, ["score", "tuple"]),
        (lambda x, t: -x[:, :1], ShapeError, ["score", "(2, 3)", "(2, 1)"]),
        (lambda x, t: x.sum(), ShapeError, ["score", "(2, 3)", "()"]),
    ],
)
def test_bad_scores(score, error, words):
    process = EVERY["vp-0"].reverse(score)
    with pytest.raises(error) as caught:
        process.drift(torch.ones(2, 3), 0.5)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_missing_attributes_are_attribute_errors():
    process = EVERY["vp-0"].reverse(lambda x, t: -x)
    with pytest.raises(AttributeError, match="nothing"):
        _ = process.nothing
    with pytest.raises(AttributeError):
        process.eta = 0.0
