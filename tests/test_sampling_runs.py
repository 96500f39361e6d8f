"""Claim: every sampler runs on every SDE, grid and step count, finite, or is refused in words.

Nothing is second-class (bugs 8, 15, 19, 35, 36): every SDE x sampler example at 1, 2, 3 and 10
steps of every grid; 1000 steps for the default SDEs; every corrector under every predictor.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sampling_support import adaptive, defaults, each, entries, may_refuse, two_modes
from strategies import EVERY, f64
from support import leaving

from sdekit.errors import ConfigError, SolverError, TimeError
from sdekit.model import ExactScore
from sdekit.sampling import (
    AnnealedLangevin,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    sample,
)  # fmt: skip
from sdekit.sde import DDPM, VESDE, VPSDE, SubVPSDE
from sdekit.targets import Gaussian

SDES = {
    **defaults("sde"),
    **{k: EVERY[k] for k in ("ddpm-1", "ddpm-2", "plain_ou", "two_lambdas_jump")},
}
SAMPLERS = entries("sampler")
GRIDS = defaults("grid")
LAW = Gaussian(f64([1.0, -0.5]), 0.3)
REFUSALS = (
    "churn", "steps", "grid", "t = 0", "not finite", "log_snr", "extend", "nodes of a chain",
    "max_nfe",
)  # fmt: skip
every_sampler = pytest.mark.parametrize("sampler", each(SAMPLERS))
every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


def attempt(sde, sampler, **how) -> bool:
    """Run; True where it ran. What it returns is finite, and a refusal is typed and says why."""
    model = ExactScore(LAW, sde)
    try:
        run = sample(model, (2, 2), sampler=sampler, seed=0, dtype=torch.float64, **how)
    except (ConfigError, TimeError, SolverError) as error:
        if not any(word in str(error) for word in REFUSALS):
            raise
        return False
    assert bool(torch.isfinite(run.x).all())
    assert run.x.shape == (2, 2)
    return True


@pytest.mark.slow  # the kit asks the like of every sampler in the fast suite
@every_sde
@every_sampler
def test_few_steps(sde, sampler):
    if adaptive(sampler):
        assert attempt(sde, sampler, steps=1)
        return
    chain, ran = "ddpm" in sde.kinds, []
    for k, grid in enumerate(GRIDS):
        for steps in ((10,), (3,), (1,))[k % 3] if k else (1, 2, 3, 10):
            ran.append(attempt(sde, sampler, grid=grid, steps=steps))
            if (chain and steps > sde.n) or (grid.startswith("ddpm") and not chain):
                assert not ran[-1]
            elif not may_refuse(sampler, sde):
                assert ran[-1]  # only chains, and churn, have anything to refuse
    assert any(ran) or may_refuse(sampler, sde)


@pytest.mark.parametrize("name", leaving([*defaults("sde")], lambda name: name != "vp"))
def test_a_thousand_steps(name):
    """Bugs 34 and 36."""
    for sampler in defaults("sampler").values():
        if not adaptive(sampler) and (name == "vp" or sampler.nfe_per_step <= 2):
            assert attempt(SDES[name], sampler, steps=1000) or may_refuse(sampler, SDES[name])
    assert attempt(SDES[name], "ancestral", grid="karras", steps=1000)


PREDICTORS = {k: s for k, s in SAMPLERS.items() if s.order is not None and not adaptive(s)}
CORRECTORS = [
    Langevin(),
    Langevin(rule="batch_norm"),
    Langevin(rule="sample_norm"),
    AnnealedLangevin(),
]


@pytest.mark.parametrize("name", defaults("sde"))
@pytest.mark.parametrize("predictor", each(PREDICTORS))
def test_every_pair_of_predictor_and_corrector(name, predictor):
    """Bug 8: sub-VP has every corrector too."""
    alone = attempt(SDES[name], predictor, steps=3)
    for k, corrector in enumerate(CORRECTORS):
        first = ("corrector", "predictor")[k % 2]
        both = PredictorCorrector(predictor=predictor, corrector=corrector, first=first)
        assert attempt(SDES[name], both, steps=3) == alone


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE(), DDPM.linear(50)], ids=repr)
def test_few_steps_of_the_reverse_sde(sde):
    """Bug 35: score_sde's ancestral is NaN at <= 20 steps, its reverse diffusion at <= 10."""
    for steps in (1, 2, 3, 5, 8, 10, 12, 19, 20, 21, 25):
        for sampler in ("ancestral", "reverse_diffusion", "predictor_corrector"):
            assert attempt(sde, sampler, steps=steps)


def test_the_flow_is_the_limit_of_no_noise():
    """Bugs 15 and 19: eta = 0 works, draws nothing, and is where eta -> 0 leads."""
    model, x = ExactScore(two_modes(), VPSDE()), torch.ones(3, 2, dtype=torch.float64)
    how = dict(steps=20, x_init=x, seed=0)
    flow = sample(model, (3, 2), sampler=EulerMaruyama(eta=0.0), **how).x
    euler = sample(model, (3, 2), sampler="probability_flow(solver='euler')", **how).x
    torch.testing.assert_close(flow, euler, rtol=1e-12, atol=1e-12)
    gaps = [
        float((sample(model, (3, 2), sampler=EulerMaruyama(eta=eta), **how).x - flow).abs().max())
        for eta in (1e-2, 1e-4, 1e-6)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-4


def test_a_refusal_says_what_would_do():
    chain = DDPM.linear(20)
    model = ExactScore(two_modes(), chain)
    with pytest.raises(ConfigError, match=r"t = 0"):
        sample(model, (2, 2), sampler="probability_flow(solver='rk4')", seed=0)
    with pytest.raises(ConfigError, match=r"churn.*DDPM"):
        sample(model, (2, 2), sampler="heun(churn=5)", seed=0)
    model = ExactScore(two_modes(), EVERY["flow-0"])
    with pytest.raises(TimeError, match=r"extend"):
        sample(model, (2, 2), sampler="heun(churn=50)", steps=5, seed=0)


def test_a_strong_vp():
    """A11: alpha underflows; what needs 1/alpha is refused by name, the rest runs."""
    strong = VPSDE(beta_max=5000.0)
    assert attempt(
        strong, EulerMaruyama(), grid=torch.tensor([0.1, 0.05, 0.01], dtype=torch.float64)
    )
    for sampler in SAMPLERS.values():
        few = replace(sampler, max_nfe=200) if hasattr(sampler, "max_nfe") else sampler
        attempt(strong, few, steps=10)


def test_steps_end_where_the_sde_says():
    sde = replace(VPSDE(), t_min=0.1, t_max=0.7)
    run = sample(ExactScore(two_modes(), sde), (2, 2), sampler=ReverseDiffusion(), steps=3, seed=0)
    assert (float(run.grid[0]), float(run.grid[-1])) == (0.7, 0.1)
