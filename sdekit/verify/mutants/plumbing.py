"""Samplers whose formulas are right and whose plumbing is not: noise, seeds, state, calls."""

from __future__ import annotations

from typing import Any

import torch

from sdekit.sampling import DDIM, Ancestral, EulerMaruyama, Heun
from sdekit.sampling.base import kick
from sdekit.verify.mutants._make import Table, changed

_TABLE = Table("sampler")
_add = _TABLE.add
ROWS = _TABLE.rows


def _blended(sampler: Any, seen: Any, c: Any) -> Any:
    """A step with a thousandth of the last raw output, which is kept on the sampler."""
    last = sampler.__dict__.get("_last", seen.raw)
    sampler.__dict__["_last"] = seen.raw
    last = last if last.shape == seen.raw.shape else seen.raw
    return type(seen)(seen.x, seen.raw + 1e-3 * last, seen.t, seen._origin).mix(c.mean)


_add(
    "noise_of_its_own",
    EulerMaruyama(),
    "noise_as_declared seeds_decide",
    "noise is drawn from torch's global state: the source that was passed is dropped",
    peer=31,
    step=lambda self, x, c, model, state, noise: (
        model(x, c.t).mix(c.mean).add_(torch.randn_like(x), alpha=c.std),
        state,
    ),
)
_add(
    "noise_reused",
    Ancestral(),
    "limit_law",
    "the draw of the first step serves all steps",
    step=lambda self, x, c, model, state, noise: (
        model(x, c.t).mix(c.mean).add_(z := noise(x) if state is None else state, alpha=c.std),
        z,
    ),
)
_add(
    "noise_shared_by_the_batch",
    EulerMaruyama(),
    "batches_do_not_mix",
    "all samples get the noise of the first",
    step=lambda self, x, c, model, state, noise: (
        model(x, c.t).mix(c.mean).add_(noise(x)[:1].expand_as(x), alpha=c.std),
        state,
    ),
)
_add(
    "noise_drawn_for_nothing",
    DDIM(),
    "noise_as_declared",
    "a deterministic method draws noise and multiplies it by 0",
    step=lambda self, x, c, model, state, noise: (model(x, c.t).mix(c.mean) + 0 * noise(x), state),
)
_add(
    "history_on_the_object",
    DDIM(),
    "runs_are_independent",
    "the last noise prediction is kept on the sampler, and the next run begins with it",
    step=lambda self, x, c, model, state, noise: (_blended(self, model(x, c.t), c), state),
)
_add(
    "state_of_the_batch",
    DDIM(),
    "batches_do_not_mix",
    "samples are centred on the mean of their batch, a little",
    step=lambda self, x, c, model, state, noise: (
        model(x - 1e-6 * x.mean(0), c.t).mix(c.mean),
        state,
    ),
)
_add(
    "input_changed_in_place",
    EulerMaruyama(),
    "input_is_untouched",
    "the sample that was passed is changed",
    step=lambda self, x, c, model, state, noise: (
        x.copy_(kick(model(x.clone(), c.t).mix(c.mean), c.std, noise)),
        state,
    ),
)
_add(
    "two_calls_declared_one",
    EulerMaruyama(),
    "declared_calls",
    "every step makes two network calls and declares one",
    peer=16,
    step=lambda self, x, c, model, state, noise: (
        model(x, c.t) and EulerMaruyama.step(self, x, c, model, state, noise)[0],
        state,
    ),
)
_add(
    "heun_declares_one_call",
    Heun(),
    "declared_calls",
    "two calls a step, one declared",
    nfe_per_step=1,
)
_add(
    "double_precision_out",
    DDIM(),
    "dtype_is_kept",
    "the result is float64 whatever the input",
    step=lambda self, x, c, model, state, noise: (
        model(x, c.t).mix(c.mean).double()
        if c.s < 0.2
        else DDIM.step(self, x, c, model, state, noise)[0],
        state,
    ),
)
_add(
    "coordinates_treated_apart",
    DDIM(),
    "rotations_commute",
    "the sample is clipped coordinate by coordinate",
    step=lambda self, x, c, model, state, noise: (
        model(x, c.t).mix(c.mean).clamp(-1.5, 1.5),
        state,
    ),
)
_add(
    "first_step_of_many_differs",
    DDIM(),
    "runs_can_be_split",
    "the first row of a run takes half a percent less of x_0",
    coefficients=changed(DDIM, mean=lambda m: {"x0": torch.cat([0.995 * m.x0[:1], m.x0[1:]])}),
)
_add(
    "garbage_in_few_steps",
    DDIM(),
    "any_number_of_steps",
    "with fewer than four rows the result is 1e12",
    peer=35,
    step=lambda self, x, c, model, state, noise: (
        model(x, c.t).mix(c.mean) * (1e12 if c.t - c.s > 0.3 else 1.0),
        state,
    ),
)
