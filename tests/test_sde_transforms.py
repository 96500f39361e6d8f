"""Property 18, C8: autograd, vmap, compile, deepcopy and pickle see the same SDE."""

import pickle

import pytest
import torch
from strategies import EVERY, every_sde, f64, own_examples, pairs, smooth_times
from support import assert_close

from sdekit.sde import LinearSDE

SCHEDULES = ["log_alpha", "alpha", "var", "sigma", "log_snr", "f", "g2", "diffusion"]
PICKLABLE = {**own_examples(), "plain_ou": EVERY["plain_ou"], "two_lambdas": EVERY["two_lambdas"]}


@every_sde
def test_vmap(sde):
    """One time under vmap is one element of the batch."""
    t = smooth_times(sde, 6)
    for name in SCHEDULES:
        method = getattr(sde, name)
        assert_close(torch.vmap(method)(t), method(t), tol=1e-14)
    s = torch.zeros_like(t)
    for mapped, whole in zip(torch.vmap(sde.transition)(s, t), sde.transition(s, t), strict=True):
        assert_close(mapped, whole, tol=1e-14)
    for mapped, whole in zip(torch.vmap(sde.posterior)(s, t), sde.posterior(s, t), strict=True):
        assert_close(mapped, whole, tol=1e-14)
    x = torch.linspace(-1, 1, 2 * len(t), dtype=torch.float64).reshape(-1, 2)
    mapped = torch.vmap(lambda x, t: sde.drift(x[None], t)[0])(x, t)
    assert_close(mapped, sde.drift(x, t), tol=1e-14)


@every_sde
def test_second_derivatives(sde):
    """f is differentiable again: df/dt by autograd against a difference of f."""
    t = smooth_times(sde, 8, low=1e-2)
    point = t.clone().requires_grad_()
    (slope,) = torch.autograd.grad(sde.f(point).sum() + 0 * point.sum(), point)
    h = 1e-4 * t * (sde.t_max - t) / sde.t_max
    if "ddpm" in sde.kinds:
        h = h / sde.n
    away = (sde.f(t + h) - sde.f(t - h)) / (2 * h)
    assert_close(slope, away, tol=1e-5)


@every_sde
def test_slope_at_the_end_survives_float32(sde):
    """Rounding float32(t_max) back to t_max does not zero the gradient there."""
    end = torch.tensor(sde.t_max, dtype=torch.float32, requires_grad=True)
    (slope,) = torch.autograd.grad(sde.var(end), end)
    at = min(end.item(), sde.t_max)
    exact = 2 * sde.f(at) * sde.var(at) + sde.g2(at)
    assert float(slope) == pytest.approx(float(exact), rel=1e-5)


@every_sde
def test_no_gradient_unless_asked(sde):
    """Coefficients of a plain time carry no graph, and grad mode is not needed for f and g."""
    t = smooth_times(sde)
    assert not any(getattr(sde, name)(t).requires_grad for name in SCHEDULES)
    expected = sde.f(t), sde.g2(t)
    with torch.no_grad():
        assert torch.equal(sde.f(t), expected[0])
        assert torch.equal(sde.g2(t), expected[1])
    with torch.inference_mode():
        assert torch.equal(sde.f(t.clone()), expected[0])
        assert torch.equal(LinearSDE.g2(sde, t.clone()), LinearSDE.g2(sde, t))


def same(one, other):
    t = smooth_times(one)
    assert type(one) is type(other)
    assert (one.t_min, one.t_max) == (other.t_min, other.t_max)
    for name in SCHEDULES:
        assert torch.equal(getattr(one, name)(t), getattr(other, name)(t))
    assert one.prior_std() == other.prior_std()


@pytest.mark.parametrize("sde", PICKLABLE.values(), ids=PICKLABLE)
def test_pickle(sde):
    twin = pickle.loads(pickle.dumps(sde))
    same(sde, twin)
    assert twin == sde
    assert hash(twin) == hash(sde)
    assert repr(twin) == repr(sde)


@pytest.mark.slow
@every_sde
def test_compile(sde):
    """A traced schedule and a traced step keep their values."""
    t = smooth_times(sde, 6)
    x = torch.linspace(-1, 1, 2 * len(t), dtype=torch.float64).reshape(-1, 2)

    def step(x, s, t):
        scale, std = sde.transition(s, t)
        return scale[:, None] * x + std[:, None] * sde.drift(x, t)

    s = torch.zeros_like(t)
    torch._dynamo.reset()
    assert_close(torch.compile(step, backend="eager")(x, s, t), step(x, s, t), tol=1e-13)
    assert_close(torch.compile(sde.alpha, backend="eager")(t), sde.alpha(t), tol=1e-14)
    torch._dynamo.reset()


def test_a_schedule_inside_a_gradient_of_samples():
    """x may require grad: the drift's derivative in x is f, and perturb's in x_0 is alpha."""
    sde = EVERY["vp-0"]
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    t = f64([0.2, 0.5, 0.9])
    (slope,) = torch.autograd.grad(sde.drift(x, t).sum(), x)
    assert_close(slope, sde.f(t)[:, None].expand(3, 2), tol=1e-12)
    (slope,) = torch.autograd.grad(sde.perturb(x, t, torch.zeros_like(x)).sum(), x)
    assert_close(slope, sde.alpha(t)[:, None].expand(3, 2), tol=1e-14)


def test_pairs_are_ordered():
    """The helper that the kernel tests rely on: every pair has s < t."""
    for sde in EVERY.values():
        s, t = pairs(sde)
        assert len(s) >= 1
        assert bool((s < t).all())
