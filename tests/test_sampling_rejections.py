"""Claim: a result says how many proposals a sample had rejected, on average.

Counted beside the sampler: what the Brownian path was told, what Metropolis was made to decide,
what torchdiffeq's own callback says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from sdekit import VPSDE, ExactScore, make, sample
from sdekit.sampling.adaptive import AdaptiveSDE, PathAhead
from sdekit.sampling.mala import MALA

MODEL = ExactScore(make("target", "tutorial"), VPSDE())


@pytest.mark.parametrize("name", ["ddim", "heun(churn=10)", "ancestral", "restart"])
def test_fixed_grids_reject_nothing(name):
    assert sample(MODEL, (3, 2), sampler=name, steps=40, seed=0).rejected == 0


@pytest.mark.parametrize(("log_a", "share"), [(-torch.inf, 1.0), (torch.inf, 0.0)])
@pytest.mark.parametrize("chunk", [None, 3])
def test_metropolis_counts_what_it_rejects(log_a, share, chunk):
    @dataclass(frozen=True, kw_only=True)
    class Decided(MALA):
        acceptance: ClassVar = staticmethod(lambda x, *rest: torch.full((len(x),), log_a))

    found = sample(MODEL, (8, 2), sampler=Decided(repeats=2), steps=5, seed=0, chunk=chunk)
    assert found.rejected == share * 2 * 5


def test_adaptive_steps_count_what_the_path_was_told(monkeypatch):
    told = []

    class Path(PathAhead):
        def settle(self, accepted):
            told.append(accepted.clone())
            super().settle(accepted)

    monkeypatch.setattr(AdaptiveSDE, "path", lambda self, x: Path(x))
    n = 6
    found = sample(MODEL, (n, 2), sampler="adaptive_sde", seed=0)
    accepted = torch.stack(told)
    steps = accepted.sum(0)
    # a sample tries a step until its last one is accepted
    tries = torch.tensor([int(accepted[:, i].nonzero().max()) + 1 for i in range(n)])
    assert found.rejected == pytest.approx(float((tries - steps).double().mean()))
    assert found.rejected > 0


def test_solvers_say_what_they_know(monkeypatch):
    import torchdiffeq

    seen = []
    inner = torchdiffeq.odeint

    def spied(func, *args, **options):
        old = func.callback_reject_step
        func.callback_reject_step = lambda *a: (seen.append(1), old(*a))
        return inner(func, *args, **options)

    monkeypatch.setattr(torchdiffeq, "odeint", spied)
    found = sample(MODEL, (4, 2), sampler="probability_flow", seed=0)
    assert found.rejected == len(seen) > 0
    silent = sample(MODEL, (4, 2), sampler="probability_flow(solver='scipy:RK45')", seed=0)
    assert silent.rejected is None


def test_nothing_is_no_division_by_zero():
    assert sample(MODEL, (0, 2), sampler="mala", steps=3, seed=0).rejected == 0
