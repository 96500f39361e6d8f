"""Claim: any prediction converts into any other, through one table.

Properties 33 and 34, FAULTS A11, C4, E6. Expected values are a x_0 + b eps by a table written
out here. Tolerances are a multiple of float64's epsilon times the size of the terms that are
added: about 1/alpha from eps to x0 and 1/sigma from x0 to eps.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given
from sampling_support import draws, entries
from strategies import EPS, every_sde, f64, sdes, smooth_times, times

from sdekit.errors import ConfigError, DtypeError, ShapeError, TimeError
from sdekit.model import ExactScore, convert
from sdekit.sde import DDPM, VESDE, VPSDE, FlowSDE, SubVPSDE
from sdekit.targets import Gaussian

KINDS = entries("parametrization")
C = 64  # rounding errors of some ten operations, each of a few ulp


def hand_row(kind, sde, t):
    """(a, b) of raw = a x_0 + b eps, written out."""
    alpha, sigma, f, g2 = sde.alpha(t), sde.sigma(t), sde.f(t), sde.g2(t)
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    name = kind.catalogue_name
    if name == "edm":
        d2 = kind.sigma_data**2
        total = alpha**2 * d2 + sigma**2
        skip, out = alpha * d2 / total, sigma * kind.sigma_data / total.sqrt()
        # (x_0 - skip (alpha x_0 + sigma eps)) / out; 1 - skip alpha = sigma^2 / total
        return sigma**2 / total / out, -skip * sigma / out
    return {
        "x0": (one, zero),
        "eps": (zero, one),
        "score": (zero, -1 / sigma),
        "v": (-sigma, alpha),
        "flow": (f * alpha, f * sigma + g2 / (2 * sigma)),
    }[name]


def size_of_errors(source, target, sde, t, x0, eps):
    """What one epsilon of every term amounts to in the target's value."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    (a, b), (a2, b2) = hand_row(source, sde, t), hand_row(target, sde, t)
    det = alpha * b - sigma * a
    kappa = ((alpha * b).abs() + (sigma * a).abs()) / det.abs()  # of the determinant itself
    x_terms = alpha * x0.abs() + sigma * eps.abs()
    raw_terms = (a * x0).abs() + (b * eps).abs()
    on_x = ((a2 * b).abs() + (b2 * a).abs()) / det.abs()
    on_raw = ((alpha * b2).abs() + (sigma * a2).abs()) / det.abs()
    return kappa * (on_x * x_terms + on_raw * raw_terms) + (a2 * x0).abs() + (b2 * eps).abs()


@given(data=st.data())
def test_every_pair_is_exact(data):
    sde = data.draw(sdes(), label="sde")
    t = data.draw(times(sde), label="t")
    source = data.draw(st.sampled_from(list(KINDS.values())), label="source")
    target = data.draw(st.sampled_from(list(KINDS.values())), label="target")
    x0, eps = data.draw(
        st.integers(0, 99).map(lambda k: draws(2, (len(t),), seed=k)), label="draws"
    )
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    x = alpha * x0 + sigma * eps
    (a, b), (a2, b2) = hand_row(source, sde, t), hand_row(target, sde, t)
    raw, expected = a * x0 + b * eps, a2 * x0 + b2 * eps
    found = convert(raw, x, t, sde, source=source, target=target)
    allowed = C * EPS * size_of_errors(source, target, sde, t, x0, eps)
    assume(bool(torch.isfinite(allowed).all()))
    assert bool(((found - expected).abs() <= allowed).all()), (found - expected) / allowed


@every_sde
def test_the_views_of_a_prediction_are_conversions(sde):
    model = ExactScore(Gaussian([0.3, -0.2], 0.5), sde)
    t = smooth_times(sde, 8)
    x = draws(1, (len(t), 2))[0]
    seen = model(x, t)
    for name in ("x0", "eps", "score", "v", "flow"):
        expected = convert(seen.raw, x, t, sde, source=model.parametrization, target=name)
        torch.testing.assert_close(getattr(seen, name), expected, rtol=1e-13, atol=0)
    every = seen.linear(x=0.5, x0=f64([2.0]).expand(len(t)), eps=-1.0, score=3.0)
    by_parts = 0.5 * x + 2 * seen.x0 - seen.eps + 3 * seen.score
    terms = 2 * x.abs() / sde.alpha(t)[:, None] + seen.eps.abs() + 3 * seen.score.abs() + x.abs()
    scale = terms.amax(1, keepdim=True)
    assert bool(((every - by_parts).abs() <= 1e-12 * scale).all())
    assert seen.x0.shape == x.shape


@pytest.mark.parametrize("shape", [(), (3,), (3, 1, 1)], ids=str)
def test_times_of_any_allowed_shape(shape):
    sde, (x, eps) = VPSDE(), draws(2, (3, 2, 4))
    t = torch.linspace(0.2, 0.8, 3, dtype=torch.float64)[: 3 if shape else 1].reshape(shape)
    found = convert(eps, x, t, sde, source="eps", target="x0")
    for i in range(3):
        at = float(t.flatten()[i if shape else 0])
        one = convert(eps[i : i + 1], x[i : i + 1], at, sde, source="eps", target="x0")
        assert torch.equal(found[i : i + 1], one)
    assert torch.equal(convert(eps, x, t.float(), sde, source="eps", target="eps"), eps)


def test_float32_in_float32_out():
    sde, (x, eps) = VPSDE(), draws(2, (3, 2))
    exact = convert(eps, x, 0.4, sde, source="eps", target="x0")
    found = convert(eps.float(), x.float(), 0.4, sde, source="eps", target="x0")
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), exact, rtol=0, atol=16 * 1.2e-7 / float(sde.alpha(0.4))
    )


def test_where_alpha_underflows_the_score_stays_exact():
    """A11: VP with beta_max = 5000 has alpha(1) = 0; eps and score need no alpha."""
    sde, (x, eps) = VPSDE(beta_max=5000.0), draws(2, (3, 2))
    assert float(sde.alpha(1.0)) == 0.0
    score = convert(eps, x, 1.0, sde, source="eps", target="score")
    assert torch.equal(score, -eps)
    assert torch.equal(convert(score, x, 1.0, sde, source="score", target="eps"), eps)
    v = convert(eps, x, 1.0, sde, source="eps", target="eps")
    assert torch.equal(v, eps)


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), FlowSDE(), DDPM.linear(20)], ids=repr)
def test_at_time_zero_it_is_the_limit_or_an_error(sde):
    """C4: never an infinity or NaN."""
    x, value = draws(2, (3, 2))
    for source in KINDS.values():
        for target in KINDS.values():
            try:
                found = convert(value, x, 0.0, sde, source=source, target=target)
            except TimeError as error:
                assert "t_min" in str(error) or "sigma" in str(error)  # noqa: PT017  # either way
            else:
                assert bool(torch.isfinite(found).all()), (source, target)
    assert torch.equal(convert(value, x, 0.0, sde, source="eps", target="x0"), x)  # alpha(0) = 1
    with pytest.raises(TimeError, match="t_min"):
        convert(value, x, 0.0, sde, source="eps", target="score")


def test_at_time_zero_with_noise_in_the_data():
    """VE carries sigma_min at t = 0: everything is finite there."""
    sde, (x, value) = VESDE(), draws(2, (3, 2))
    score = convert(value, x, 0.0, sde, source="eps", target="score")
    torch.testing.assert_close(score, -value / 0.01, rtol=1e-14, atol=0)


def test_a_name_that_is_no_parametrization():
    """E6, at the first use, with the nearest name."""
    x = torch.zeros(2, 2)
    with pytest.raises(ConfigError, match=r"source='epsilonn'.*eps"):
        convert(x, x, 0.5, VPSDE(), source="epsilonn", target="x0")
    with pytest.raises(ConfigError, match=r"target='scor'.*'score'"):
        convert(x, x, 0.5, VPSDE(), source="eps", target="scor")
    with pytest.raises(DtypeError, match="target"):
        convert(x, x, 0.5, VPSDE(), source="eps", target=3)
    with pytest.raises(ConfigError, match="sigma_data"):
        convert(x, x, 0.5, VPSDE(), source="edm(sigma_data=0)", target="x0")


def test_shapes_and_dtypes_are_checked():
    x = torch.zeros(3, 2)
    how = dict(source="eps", target="x0")
    with pytest.raises(ShapeError, match=r"value.*\(3, 2\).*\(3, 1\)"):
        convert(torch.zeros(3, 1), x, 0.5, VPSDE(), **how)
    with pytest.raises(DtypeError, match="value"):
        convert(torch.zeros(3, 2, dtype=torch.int64), x, 0.5, VPSDE(), **how)
    with pytest.raises(DtypeError, match="x"):
        convert(x, [[0.0, 0.0]], 0.5, VPSDE(), **how)
    with pytest.raises(ShapeError, match="3"):
        convert(x, x, torch.full((2,), 0.5), VPSDE(), **how)
    square = torch.zeros(3, 3)
    with pytest.raises(ShapeError):  # D3: a row of times is refused even where it would fit
        convert(square, square, torch.full((1, 3), 0.5), VPSDE(), **how)
    with pytest.raises(TimeError):
        convert(x, x, 1.5, VPSDE(), **how)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_weights_of_nothing_are_zero(kind):
    t = f64([0.2, 0.9])
    on_x, on_raw = kind.weights(VPSDE(), t)
    assert on_x.shape == on_raw.shape == t.shape
    assert not on_x.any()
    assert not on_raw.any()
    on_x, on_raw = kind.weights(VPSDE(), t, x=2.0)
    assert torch.equal(on_x, f64([2.0, 2.0]))
    assert not on_raw.any()
