"""Claim: data goes to latents and back, and latents mix along great circles.

Properties 60 and 73: the round trip ends within ten times the tolerance; Gaussian data keeps its
standard scores on the way.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import draws
from support import assert_close

from sdekit import ExactScore, Gaussian, ScoreModel, decode, encode, log_prob
from sdekit.errors import ConfigError, DtypeError, NonFiniteError, ShapeError
from sdekit.likelihood import slerp
from sdekit.model import MLP
from sdekit.sde import DDPM, VESDE, VPSDE, FlowSDE, SubVPSDE
from sdekit.targets import Tutorial

SDES = {
    "vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE(), "flow": FlowSDE(), "ddpm": DDPM.linear(99),
}  # fmt: skip
every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


def drawn(law, n):
    return law.sample(n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@every_sde
@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_there_and_back(sde, rtol):
    model, x = ExactScore(Tutorial(), sde), drawn(Tutorial(), 30)
    how = dict(rtol=rtol, atol=rtol)
    back = decode(model, encode(model, x, **how), **how)
    assert back.dtype == x.dtype
    assert_close(back, x, tol=10 * rtol, scale=float(x.abs().max()))


@every_sde
def test_gaussians_keep_their_standard_scores(sde):
    law = Gaussian([3.0, -1.0], 0.25)
    model, x = ExactScore(law, sde), drawn(law, 5)
    first = float(sde.to_model_time(torch.tensor(sde.t_min, dtype=torch.float64)))
    here, there = model.at(first), model.at(sde.t_max)
    expected = there.mean + (x - here.mean) * (there.cov[0, 0] / here.cov[0, 0]).sqrt()
    assert_close(encode(model, x), expected, tol=1e-10)
    assert_close(decode(model, expected), x, tol=1e-10)


@pytest.mark.parametrize("solver", ["torchdiffeq:dopri5", "scipy:DOP853"])
def test_libraries_agree(solver):
    model, x = ExactScore(Tutorial(), VPSDE()), drawn(Tutorial(), 5)
    how = dict(rtol=1e-8, atol=1e-8)
    z = encode(model, x, **how)
    assert_close(encode(model, x, solver=solver, **how), z, tol=1e-6)
    assert_close(decode(model, z, solver=solver, **how), x, tol=1e-6)
    assert_close(log_prob(model, x, rtol=1e-7, atol=1e-7).latent, z, tol=1e-7)


def test_networks_and_empty_batches():
    model = ScoreModel(MLP(2, width=8, depth=1), VPSDE(beta_max=5.0))
    x = torch.tensor([[0.5, -1.0]])
    z = encode(model, x)
    assert z.dtype == torch.float32
    assert_close(decode(model, z), x, tol=1e-4)
    assert encode(model, x[:0]).shape == (0, 2)


def test_great_circles():
    a, b = draws(2, (6, 3, 2))
    lengths = a.flatten(1).norm(dim=1)
    b = b * (lengths / b.flatten(1).norm(dim=1))[:, None, None]
    weights = torch.linspace(0, 1, 5, dtype=torch.float64)
    way = slerp(a, b, weights)
    assert way.shape == (5, 6, 3, 2)
    assert_close(way[0], a, tol=1e-12)
    assert_close(way[-1], b, tol=1e-12)
    # on the sphere, and in equal angles
    assert_close(way.flatten(2).norm(dim=2), lengths.expand(5, 6), tol=1e-12)
    cosines = (way[1:] * way[:-1]).flatten(2).sum(2) / lengths.square()
    assert_close(cosines, cosines[:1].expand(4, 6), tol=1e-10)
    assert_close(slerp(a, b, 0.25), way[1], tol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, math.pi])
def test_where_there_is_no_great_circle(angle):
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[math.cos(angle), math.sin(angle)], [1.0, 2.0]], dtype=torch.float64)
    middle = slerp(a, b, 0.5)
    assert_close(middle, (a + b) / 2, tol=1e-9, scale=1.0)


def test_arguments():
    x = torch.zeros(2, 3)
    assert slerp(x[:0], x[:0], 0.3).shape == (0, 3)
    for weight in ("1", None, True, [0.1], 1j):
        with pytest.raises(DtypeError, match="weight"):
            slerp(x, x, weight)
    for weight in (math.nan, torch.tensor([0.0, math.inf])):
        with pytest.raises((ConfigError, NonFiniteError), match="weight"):
            slerp(x, x, weight)
    with pytest.raises(ShapeError, match="a's shape"):
        slerp(x, x[:1], 0.5)
    with pytest.raises(ShapeError, match="weight"):
        slerp(x, x, torch.zeros(2, 2))
