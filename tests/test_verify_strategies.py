"""Claim: strategies yield what they promise: valid objects that run, calls that are refused."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sdekit.sampling import sample
from sdekit.sde import DDPM, VESDE, VPSDE
from sdekit.verify import strategies


@settings(max_examples=30)
@given(data=st.data())
def test_grids_are_grids(data):
    sde = data.draw(strategies.sdes(), label="sde")
    grid = data.draw(strategies.grids(sde), label="grid")
    assert grid[0] == sde.t_max
    assert grid[-1] == sde.t_min
    assert bool((grid.diff() < 0).all())


@settings(max_examples=30)
@given(data=st.data())
def test_times_lie_inside(data):
    sde = data.draw(strategies.sdes(), label="sde")
    t = data.draw(strategies.times(sde), label="t")
    assert bool(((t > 0) & (t <= sde.t_max)).all())
    pair = data.draw(strategies.time_pairs(sde), label="pair")
    assert bool((pair["s"] < pair["t"]).all())


@settings(max_examples=15)
@given(model=strategies.models())
def test_models_run(model):
    steps = min(3, model.sde.n) if "ddpm" in model.sde.kinds else 3
    run = sample(model, (2, 2), sampler="ddim", steps=steps, seed=0, dtype=torch.float64)
    assert bool(torch.isfinite(run.x).all())


def test_small_times_are_drawn():
    """Log-mixed to 1e-12: of 400 times some lie below 1e-9, some above a tenth."""
    seen = []

    @settings(max_examples=200, derandomize=True, database=None)
    @given(t=strategies.times(VPSDE(), 2))
    def draw(t):
        seen.extend(t.tolist())

    draw()
    assert min(seen) < 1e-9
    assert max(seen) > 0.1


def refused(call):
    do, error = call
    with pytest.raises(error):
        do()


@settings(max_examples=60)
@given(call=strategies.invalid_sdes())
def test_invalid_processes_are_refused(call):
    refused(call)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(t_max=2.0), DDPM.linear(10)], ids=repr)
def test_invalid_times_and_grids_are_refused(sde):
    @settings(max_examples=40, derandomize=True, database=None)
    @given(call=st.one_of(strategies.invalid_times(sde), strategies.invalid_grids(sde)))
    def draw(call):
        refused(call)

    draw()
