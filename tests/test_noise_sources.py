"""Claim: each source of noise returns what it says, in order, and says so when it cannot.

`Replay` the stored draws, `Recorded` what another source returned, `Zero` nothing, `Impulse` ones
in one draw; `at(k)` is the same source about to make draw k.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import two_modes

from sdekit.errors import ConfigError, DeviceError, DtypeError, ShapeError
from sdekit.model import ExactScore
from sdekit.sampling import sample
from sdekit.sampling.noise import Impulse, KeyedNoise, Recorded, Replay, Zero
from sdekit.sde import VPSDE

X = torch.empty(3, 2)


def test_replay():
    draws = torch.arange(24.0).reshape(4, 3, 2)
    for stored in (draws, list(draws), iter(draws)):
        source = Replay(stored)
        assert all(torch.equal(source(X), z) for z in draws)
        with pytest.raises(ConfigError, match="4 draws"):
            source(X)
    assert torch.equal(Replay(draws).at(2)(X), draws[2])
    assert Replay(draws)(X.double()).dtype == torch.float64


def test_replay_refuses_another_shape_or_device():
    with pytest.raises(ShapeError, match=r"draw 0.*\(3, 1\).*\(3, 2\)"):
        Replay([torch.zeros(3, 1)])(X)
    with pytest.raises(DeviceError, match="meta"):
        Replay([torch.zeros(3, 2, device="meta")])(X)


def test_recorded_noise_repeats_a_run():
    model = ExactScore(two_modes(), VPSDE())
    source = Recorded(KeyedNoise(4))
    how = dict(sampler="ancestral", steps=5)
    first = sample(model, (3, 2), noise=source, **how)
    assert len(source.draws) == 6  # the start too
    again = sample(model, (3, 2), noise=Replay(source.draws), **how)
    assert torch.equal(first.x, again.x)
    keyed = sample(model, (3, 2), seed=4, **how)
    assert torch.equal(first.x, keyed.x)


def test_recorded_draws_are_copies():
    buffer = torch.ones(3, 2)
    source = Recorded(lambda x: buffer)
    source(X)
    buffer.zero_()
    assert bool((source.draws[0] == 1).all())


def test_zero_and_impulse():
    assert torch.equal(Zero()(X), torch.zeros(3, 2))
    assert torch.equal(Zero().at(3)(X), torch.zeros(3, 2))
    source = Impulse(2)
    seen = [source(X) for _ in range(4)]
    assert [float(z.sum()) for z in seen] == [0, 0, 6, 0]
    ahead = Impulse(2).at(2)
    assert float(ahead(X).sum()) == 6
    assert float(ahead(X).sum()) == 0
    assert Impulse(0)(X.double()).dtype == torch.float64


def test_an_impulse_has_a_number():
    with pytest.raises(ConfigError, match="draw"):
        Impulse(-1)
    with pytest.raises(DtypeError, match="draw"):
        Impulse(0.5)


def test_noise_that_is_no_source():
    with pytest.raises(DtypeError, match="noise"):
        sample(ExactScore(two_modes(), VPSDE()), (3, 2), noise=torch.zeros(3, 2))
