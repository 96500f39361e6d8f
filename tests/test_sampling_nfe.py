"""Claim: network calls are counted at the network, and equal rows x nfe_per_step.

Property 52 and bug 16. The last row may take fewer: Heun's second call and a corrector are left
out where var(s) = 0. `denoise` adds one call, nothing where a run ends at var = 0.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import (
    FINE,
    Wrapped,
    adaptive,
    defaults,
    each,
    entries,
    may_refuse,
    parts,
    two_modes,
)  # fmt: skip
from strategies import EVERY, f64

from sdekit.errors import ConfigError, SolverError, TimeError
from sdekit.model import ExactScore
from sdekit.sampling import Heun, Langevin, PredictorCorrector, iterate, sample
from sdekit.sde import DDPM, VESDE, VPSDE
from sdekit.targets import Gaussian

SAMPLERS = entries("sampler")
SDES = {**defaults("sde"), **{key: EVERY[key] for key in ("ddpm-1", "ddpm-2", "ve-1", "plain_ou")}}
LAW = Gaussian(f64([1.0, -0.5]), 0.3)
every_sampler = pytest.mark.parametrize("sampler", each(SAMPLERS))


def test_the_fast_suite_asks_one_example_of_every_sampler():
    fast = [one.id for one in each(SAMPLERS) if not one.marks]
    assert sorted(key.rsplit("-", 1)[0] for key in fast) == sorted(defaults("sampler"))
    assert {key[:-2] for key in fast if key[-2:] != "-0"} == FINE
    assert {*SAMPLERS} == {one.id for one in each(SAMPLERS)}


def spared(sampler) -> int:
    """The calls that a row which lands on var = 0 leaves out."""
    if sampler.order is None and hasattr(sampler, "repeats"):  # a corrector alone
        return sampler.nfe_per_step
    if getattr(sampler, "first", "") == "predictor":
        return sampler.corrections * sampler.corrector.nfe_per_step
    inner = parts(sampler)[-1]
    return inner.nfe_per_step - 1 if isinstance(inner, Heun) else 0


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@every_sampler
def test_calls_are_rows_times_calls_a_row(sde, sampler):
    if adaptive(sampler) and sde not in defaults("sde").values():
        return  # a solver's calls are its own affair: counted, and that on the default SDEs
    model = Wrapped(ExactScore(LAW, sde))
    steps = min(4, sde.n) if "ddpm" in sde.kinds else 4
    try:
        run = sample(model, (2, 2), sampler=sampler, steps=steps, seed=0, dtype=torch.float64)
    except (ConfigError, TimeError):
        assert may_refuse(sampler, sde)
        return
    assert run.nfe == model.calls
    if adaptive(sampler):
        assert len(run.grid) == 2
    else:
        up = int((run.grid.diff() > 0).sum())  # rows that go up ask nothing
        rows = len(run.grid) - 1
        assert up or rows == steps
        ends_at_data = float(sde.var(sde.t_min)) == 0
        first = sampler.warmup_nfe * (rows > 1 or not ends_at_data)
        spare = spared(sampler) * ends_at_data
        assert run.nfe == (rows - up) * sampler.nfe_per_step + first - spare
    for t in model.times:
        assert sde.t_min <= t
        assert float(sde.var(min(t, sde.t_max))) > 0  # no model where there is no noise
        assert t <= sde.t_max or may_refuse(sampler, sde)


@every_sampler
def test_denoise_is_one_call_more(sampler):
    for sde, more in ((VPSDE(), 1), (VESDE(), 1), (DDPM.linear(20, beta_end=0.4), 0)):
        model = Wrapped(ExactScore(two_modes(), sde))
        how = dict(sampler=sampler, steps=5, seed=0)
        try:
            plain = sample(model, (2, 2), **how)
        except ConfigError:
            continue
        if adaptive(sampler) and "ddpm" in sde.kinds:
            more = 1  # it stops at node 1, where var > 0
        clean = sample(model, (2, 2), denoise=True, **how)
        assert clean.nfe == plain.nfe + more
        if more:
            expected = model(plain.x, float(plain.grid[-1])).x0
            torch.testing.assert_close(clean.x, expected, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(clean.x, plain.x)


def test_frames_count_as_they_go():
    model = ExactScore(two_modes(), VPSDE())
    frames = list(iterate(model, torch.zeros(2, 2), sampler="heun", grid="uniform", steps=3))
    assert [frame.nfe for frame in frames] == [0, 2, 4, 6]
    assert [frame.step for frame in frames] == [0, 1, 2, 3]


def test_calls_are_a_samples_own_not_a_chunks():
    model = Wrapped(ExactScore(two_modes(), VPSDE()))
    run = sample(model, (7, 2), steps=4, seed=0, chunk=2)
    assert run.nfe == 4
    assert model.calls == 16


def test_no_corrector_costs_no_calls():
    """Bug 16: score_sde reports N (n_steps + 1) even with the corrector none."""
    model = Wrapped(ExactScore(two_modes(), VPSDE()))
    run = sample(model, (2, 2), sampler="reverse_diffusion", steps=25, seed=0)
    assert run.nfe == model.calls == 25
    both = PredictorCorrector(corrector=Langevin(repeats=2), corrections=3)
    assert both.nfe_per_step == 7
    assert sample(model, (2, 2), sampler=both, steps=5, seed=0).nfe == 35


@every_sampler
def test_max_nfe(sampler):
    model = Wrapped(ExactScore(two_modes(), VPSDE()))
    with pytest.raises((SolverError, ConfigError), match="max_nfe"):
        sample(model, (2, 2), sampler=sampler, steps=50, seed=0, max_nfe=3)
    assert model.calls <= 3


def test_max_nfe_is_enough_when_it_is_enough():
    model = ExactScore(two_modes(), VPSDE())
    assert sample(model, (2, 2), steps=10, seed=0, max_nfe=10).nfe == 10
    with pytest.raises(SolverError, match=r"max_nfe=10"):  # one more for the denoising step
        sample(model, (2, 2), steps=10, seed=0, max_nfe=10, denoise=True)
    grid = torch.linspace(1, 0.1, 12, dtype=torch.float64)
    with pytest.raises((SolverError, ConfigError), match=r"max_nfe=10"):
        sample(model, (2, 2), grid=grid, seed=0, max_nfe=10)
