"""Wrong grids, noise sources and averages of weights."""

from __future__ import annotations

from typing import Any

import torch

from sdekit.sampling.grid import Karras, Quadratic, Uniform
from sdekit.sampling.noise import KeyedNoise
from sdekit.training.average import Average
from sdekit.verify.mutants._make import Table

_GRIDS = Table("grid")
_add = _GRIDS.add

_add(
    "grid_stops_early",
    Uniform(),
    "grid_contract",
    "the last time is a step above t_min",
    peer=30,
    times=lambda self, sde, steps: torch.linspace(
        sde.t_max, sde.t_min + 1e-2 * (sde.t_max - sde.t_min), steps + 1, dtype=torch.float64
    ),
)
_add(
    "grid_one_short",
    Uniform(),
    "grid_contract",
    "steps times, not steps + 1",
    times=lambda self, sde, steps: Uniform.times(self, sde, max(steps - 1, 1)),
)
_add(
    "grid_repeats_a_time",
    Karras(),
    "grid_contract",
    "the last two times are one",
    peer=34,
    times=lambda self, sde, steps: torch.cat(
        [(g := Karras.times(self, sde, steps))[:-2], g[-1:], g[-1:]]
    ),
)
_add(
    "grid_ascends",
    Quadratic(),
    "grid_contract",
    "from t_min to t_max",
    times=lambda self, sde, steps: Quadratic.times(self, sde, steps).flip(0),
)

_add(
    "karras_root_of_the_inverse",
    Karras(),
    "published_spacing",
    "rho stands where 1/rho should",
    times=lambda self, sde, steps: Karras.times(Karras(rho=1 / self.rho), sde, steps),
)
_add(
    "karras_rho_a_tenth_off",
    Karras(),
    "published_spacing",
    "rho is 7.7, not 7",
    times=lambda self, sde, steps: Karras.times(Karras(rho=1.1 * self.rho), sde, steps),
)

_NOISE = Table("noise")
_add = _NOISE.add
_KEYED = KeyedNoise(0)

_add(
    "noise_wide",
    _KEYED,
    "noise_law",
    "the draws have variance 1.06",
    __call__=lambda self, x: 1.03 * KeyedNoise.__call__(self, x),
)
_add(
    "noise_uniform",
    _KEYED,
    "noise_law",
    "uniform draws of variance 1",
    __call__=lambda self, x: (torch.special.ndtr(KeyedNoise.__call__(self, x)) - 0.5) * 12**0.5,
)
_add(
    "noise_of_the_batch_size",
    _KEYED,
    "noise_by_the_sample",
    "sample i's noise depends on the size of its batch",
    __call__=lambda self, x: torch.randn(
        x.shape, generator=torch.Generator().manual_seed(self._next(x)), dtype=x.dtype
    ),
)
_add(
    "noise_repeats",
    _KEYED,
    "noise_by_the_sample noise_law",
    "every draw is the first",
    _next=lambda self, x: 0 * KeyedNoise._next(self, x),
)

_AVERAGES = Table("average")
_add = _AVERAGES.add


def _wrong(**methods: Any) -> Any:
    return type("WrongAverage", (Average,), methods)


def _exchanged(self: Any) -> None:
    kept = self.decay
    self.decay = 1 - kept
    Average.update(self)
    self.decay = kept


def _without_warm_up(self: Any) -> None:
    self.count = max(self.count, 10**6)
    Average.update(self)


def _first_kept(self: Any) -> None:
    self.count += 1
    Average.update(self)


_add(
    "average_decay_exchanged",
    Average,
    "average_closed_form",
    "1 - d for d",
    wrong=_wrong(update=_exchanged),
)
_add(
    "average_without_warm_up",
    Average,
    "average_closed_form",
    "the decay is full from the first step",
    wrong=_wrong(update=_without_warm_up),
)
_add(
    "average_counts_twice",
    Average,
    "average_closed_form",
    "the count goes up by two",
    wrong=_wrong(update=_first_kept),
)
_add(
    "average_restores_without_count",
    Average,
    "average_goes_on",
    "after a restart the warm-up begins again",
    wrong=_wrong(restore=lambda self, weights, count: Average.restore(self, weights, 0)),
)

ROWS = [*_GRIDS.rows, *_NOISE.rows, *_AVERAGES.rows]
