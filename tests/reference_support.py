"""Shared by the comparisons with other projects' samplers: their noise levels, a run, an outcome.

A source that walks along noise levels r_0 > r_1 > ... (r = sigma/alpha, the last one possibly 0)
walks along *times* of a process whose time is r itself. There are two here: `LevelVP`, alpha^2 +
sigma^2 = 1, for sources whose state is that of a DDPM chain, and `LevelVE`, alpha = 1, for those
whose state is x_0 + sigma z. So any list of levels is a grid, and 0 is a time as good as another.

`walk` records every call: its level, and the state that it was made at. A source that stores the
state after each of its calls stores the state of the next call, and the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import torch
from sampling_support import reference_target
from torch import Tensor

from sdekit.model import ExactScore, Predictor
from sdekit.model.prediction import bind, parametrization_of
from sdekit.sampling import sample
from sdekit.sampling.noise import Replay
from sdekit.sde import LinearSDE

__all__ = [
    "LevelVE", "LevelVP", "Outcome", "Walk", "bank", "exact", "flat", "gap", "gaps", "missing",
    "outside", "rows", "walk",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Level(LinearSDE):
    """A process whose time is sigma / alpha, from 0 on."""

    t_min: float = 0.0
    t_max: float = 1e4
    closed_start: ClassVar[bool] = True

    def _solve_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-0.5 * log_snr)


@dataclass(frozen=True, kw_only=True)
class LevelVP(_Level):
    """alpha^2 + sigma^2 = 1."""

    kinds: ClassVar[frozenset[str]] = frozenset({"linear", "vp"})

    def log_alpha(self, t):
        return -0.5 * torch.log1p(t.square())

    def var(self, t):
        return t.square() / (1 + t.square())


@dataclass(frozen=True, kw_only=True)
class LevelVE(_Level):
    """alpha = 1: Karras et al.'s sigma(t) = t."""

    kinds: ClassVar[frozenset[str]] = frozenset({"linear", "ve"})

    def log_alpha(self, t):
        return 0.0 * t

    def var(self, t):
        return t.square()


# what a comparison found ----------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """One case: what of sdekit's was run, and how far from the stored values it came.

    Attributes:
        ours: the sampler's spelling, or what else was compared.
        error: the largest relative error of a stored state, each relative to its largest value;
            None where the case is not reproduced, or is outside of the comparison.
        levels: the largest relative error of a stored noise level or time; None: none is stored.
        note: a difference that was built in, or why there is no error.
        adapted: whether a formula of the source was put in place of sdekit's, as the note says.
        outside: whether the case holds nothing that a sampler could reproduce.
    """

    ours: str
    error: float | None = None
    levels: float | None = None
    note: str = ""
    adapted: bool = False
    outside: bool = False


def missing(reason: str) -> Outcome:
    """A case that is not reproduced."""
    return Outcome("", note=reason)


def outside(reason: str) -> Outcome:
    """A case that is no sampler's."""
    return Outcome("", note=reason, outside=True)


def gap(actual: Tensor, expected: Tensor) -> float:
    """The largest |difference| over the largest |expected|; infinite where one is not finite."""
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    worst = (actual - expected).abs().max() / expected.abs().max().clamp_min(1e-300)
    return float(worst) if bool(torch.isfinite(worst)) else math.inf


def gaps(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest `gap` of two lists of states."""
    return max(gap(a, e) for a, e in zip(actual, expected, strict=True))


def rows(actual: Iterable[float] | Tensor, expected: Tensor) -> float:
    """The largest relative difference of two lists of levels, each relative to itself."""
    mine = torch.as_tensor(actual, dtype=torch.float64)
    if mine.shape != expected.shape:
        raise AssertionError(f"{tuple(mine.shape)} levels, expected {tuple(expected.shape)}")
    zero = (mine == 0) & (expected == 0)
    return float(torch.where(zero, 0.0, (mine - expected).abs() / expected.abs()).max())


# running --------------------------------------------------------------------------------------


@cache
def exact(reference, target: str, sde: LinearSDE) -> ExactScore:
    """The exact model of a reference law."""
    return ExactScore(reference_target(reference, target), sde)


def flat(data, case, name: str) -> Tensor:
    """An array with its last three axes, (1, 2, 2), as one."""
    return data.array(case, name).flatten(-3)


def bank(data, case) -> list[Tensor]:
    """The draws that a case consumed."""
    return list(flat(data, f"noise_bank/{case['target']}", "noise")[: case["noise_rows"] or 0])


@dataclass
class Walk:
    """A predictor that records its calls, then what a run returned.

    Attributes:
        times: of the calls.
        inputs: the states that they were made at.
        x: the result.
        path: the states after each row, the start first.
        draws: how many draws of the noise were used.
    """

    model: Predictor
    times: list[float] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    x: Tensor = field(default_factory=lambda: torch.empty(0))
    path: list[Tensor] = field(default_factory=list)
    draws: int = 0

    @property
    def sde(self) -> LinearSDE:
        return self.model.sde

    @property
    def parametrization(self):
        return parametrization_of(self.model)

    def bind(self, x, times, cond):
        raw = bind(self.model, x, times, cond)

        def call(x, t):
            self.times.append(t)
            self.inputs.append(x.clone())
            return raw(x, t)

        return call

    def __call__(self, x, t, **cond):
        raise AssertionError("samplers use what `bind` returns")

    @property
    def states(self) -> list[Tensor]:
        """The state after each call: that of the next call, at last the result."""
        return [*self.inputs[1:], self.x]

    def go(self, sampler, times: Tensor, x: Tensor, noise=(), **options) -> Walk:
        """One run more, its calls added to those before."""
        source = Replay(list(noise))
        run = sample(
            self, tuple(x.shape), sampler=sampler, grid=times, x_init=x, noise=source, keep="all",
            **options,
        )  # fmt: skip
        self.x, self.draws = run.x, self.draws + source.draw
        self.path += list(run.trajectory if not self.path else run.trajectory[1:])
        return self


def walk(model: Predictor, sampler, times: Tensor, x: Tensor, noise=(), **options) -> Walk:
    """A run of `sampler` along `times` from x."""
    return Walk(model).go(sampler, times, x, noise, **options)
