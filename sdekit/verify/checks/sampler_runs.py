"""How a sampler runs: its noise, its calls, its times, its seeds, and what it leaves alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit.errors import ConfigError
from sdekit.model import ExactScore
from sdekit.sampling.base import CountedModel
from sdekit.sampling.grid import resolve_grid
from sdekit.sampling.noise import KeyedNoise
from sdekit.targets import Gaussian, GaussianMixture
from sdekit.verify.checks.sampler_law import _CHAIN, _THREE
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.probes import draws, inner_grid, processes, replay, run_of
from sdekit.verify.strategies import f64

_CONVENTION = "conventions of sdekit"
_TWO = GaussianMixture(f64([0.3, 0.7]), f64([[1.0, 0.5], [-0.8, 0.2]]), f64([0.2, 0.5]))
_VP = _THREE[0]


def _stages(sampler: Any) -> Any:
    return st.fixed_dictionaries(
        {
            "sde": st.sampled_from(processes(sampler, _THREE)),
            "seed": st.integers(0, 10**6),
            "steps": st.integers(2, 8),
        }
    )


def _start(case: Any, n: int = 5) -> tuple[Any, Tensor, Tensor]:
    """A model of two modes, a start of the prior's size, and a grid."""
    sde = case["sde"]
    x = float(sde.prior_std()) * draws(1, (n, 2), case["seed"])[0]
    return ExactScore(_TWO, sde), x, inner_grid(sde, case["steps"])


@claim(
    "sampler",
    "sample i is what it would be alone: its batch does not matter",
    f"{_CONVENTION}, 9",
    cost="fast",
    share=0.4,
    cases=_stages,
)
def batches_do_not_mix(sampler: Any, case: Any) -> Finding:
    """The same rows of start and noise, in a batch of five and of two."""
    if "adaptive" in sampler.needs and "noise" not in sampler.needs:
        raise Skip("a solver that chooses its steps for the batch couples it within its tolerance")
    model, x, grid = _start(case)
    z = draws(80, (5, 2), case["seed"] + 1)
    whole = run_of(sampler, model, x, grid, replay(z)).x
    part = run_of(sampler, model, x[1:3], grid, replay(z[:, 1:3])).x
    return agree(
        "a sample in a batch of 2",
        part,
        "it in a batch of 5",
        whole[1:3],
        tol=1e-12,
        scale=whole.abs().max(),
    )


@claim(
    "sampler",
    "a run that is cut in two, with the same noise, is the run",
    f"{_CONVENTION}, 9",
    cost="fast",
    share=0.4,
    cases=_stages,
)
def runs_can_be_split(sampler: Any, case: Any) -> Finding:
    """[t_max, s] then [s, t_min]; for methods without memory whose rows stand alone."""
    if sampler.order is None or {"adaptive", "own_times"} & sampler.needs:
        raise Skip("its rows look at their neighbours, or it chooses its own steps or times")
    if "memory" in sampler.needs:
        raise Skip("it keeps a history over its steps")
    model, x, grid = _start(case)
    z = draws(80, (5, 2), case["seed"] + 1)
    run = run_of(sampler, model, x, grid, replay(z))
    if any(frame.state is not None for frame in run.frames):
        raise Skip("it carries a state from row to row")
    used = [0]

    def noise(y: Tensor) -> Tensor:
        used[0] += 1
        return z[used[0] - 1].clone()

    cut = len(grid) // 2
    half = run_of(sampler, model, x, grid[: cut + 1], noise).x
    both = run_of(sampler, model, half, grid[cut:], noise).x
    return agree("two halves", both, "the whole run", run.x, tol=1e-12, scale=run.x.abs().max())


@claim(
    "sampler",
    "noise comes from the source that was passed, is drawn like x, and only where "
    '"noise" is declared',
    f"{_CONVENTION}, 9 and 10",
    cost="instant",
    share=0.25,
    cases=_stages,
)
def noise_as_declared(sampler: Any, case: Any) -> Finding:
    """Draws are counted and looked at; the global source is watched; zero noise repeats itself."""
    model, x, grid = _start(case)
    shapes: list[tuple[Any, ...]] = []

    def noise(y: Tensor) -> Tensor:
        shapes.append((tuple(y.shape), y.dtype))
        return torch.zeros_like(y)

    before = torch.get_rng_state()
    with torch.random.fork_rng():
        first = run_of(sampler, model, x, grid, noise).x
        own = not torch.equal(before, torch.get_rng_state())
        again = run_of(sampler, model, x, grid, lambda y: torch.zeros_like(y)).x
    if own:
        return no_more_than(1.0, 0.0, "it draws from torch's global source")
    if not torch.equal(first, again):
        return no_more_than(
            1.0, 0.0, "with no noise at all two runs differ: it has a source of its own"
        )
    odd = [shape for shape in shapes if shape != ((5, 2), torch.float64)]
    if odd:
        return no_more_than(float(len(odd)), 0.0, f"it asks for noise like {odd[0]}, x is (5, 2)")
    declared = "noise" in sampler.needs
    if bool(shapes) != declared:
        says = f"{len(shapes)} draws, and needs = {sorted(sampler.needs)}"
        return no_more_than(1.0, 0.0, says)
    return no_more_than(0.0, 0.0, f"{len(shapes)} draws")


@claim(
    "sampler",
    "a row makes nfe_per_step network calls, the last one at most as many, the first ones "
    "warmup_nfe more; one that goes up none",
    f"{_CONVENTION}, 8",
    needs=("nfe_per_step",),
    share=0.25,
    cases=_stages,
)
def declared_calls(sampler: Any, case: Any) -> Finding:
    """By a counter around the model."""
    if sampler.nfe_per_step is None or "adaptive" in sampler.needs:
        raise Skip("it declares no number of calls a step")
    model, x, grid = _start(case)
    run = run_of(sampler, model, x, grid, KeyedNoise(0), note=True)
    # a row that goes up adds noise, and asks nothing
    rows = sum(b.t <= a.t for a, b in pairwise(run.frames))
    least, most = sampler.nfe_per_step * (rows - 1) + 1, sampler.nfe_per_step * rows
    most += getattr(sampler, "warmup_nfe", 0)
    says = f"{len(run.calls)} calls in {rows} rows, declared {sampler.nfe_per_step} a row"
    outside = max(len(run.calls) - most, least - len(run.calls), abs(run.nfe - len(run.calls)), 0)
    return no_more_than(float(outside), 0.0, says)


@claim(
    "sampler",
    "the states lie at the times of the grid, from its first to its last, and the model "
    "is called inside it",
    f"{_CONVENTION}, 1",
    share=0.4,
    cases=_stages,
)
def grid_is_walked(sampler: Any, case: Any) -> Finding:
    """Times of states and of calls; a method that churns may call above, where the SDE goes on."""
    model, x, grid = _start(case)
    run = run_of(sampler, model, x, grid, KeyedNoise(0), note=True)
    seen = [frame.t for frame in run.frames]
    ends = abs(seen[0] - float(grid[0])) + abs(seen[-1] - float(grid[-1]))
    if ends:
        return no_more_than(
            ends,
            0.0,
            f"it runs from {seen[0]} to {seen[-1]}, the grid from "
            f"{float(grid[0])} to {float(grid[-1])}",
        )
    if len(seen) == len(grid) and not torch.equal(f64(seen), grid):
        k = int((f64(seen) - grid).abs().argmax())
        return no_more_than(
            abs(seen[k] - float(grid[k])),
            0.0,
            f"state {k} lies at t = {seen[k]:.6g}, the grid's time is {float(grid[k]):.6g}",
        )
    if not run.calls:
        return no_more_than(1.0, 0.0, "the model is never called")
    below = float(grid[-1]) - min(run.calls)
    above = max(run.calls) - (
        1.0 if model.sde.extends and "noise" in sampler.needs else float(grid[0])
    )
    outside = max(below, above, 0.0) if "adaptive" not in sampler.needs else 0.0
    return no_more_than(
        outside, 1e-12, f"the model is called at {min(run.calls):.6g} to {max(run.calls):.6g}"
    )


@claim(
    "sampler",
    "a step that lands where var(s) = 0 adds no noise",
    f"{_CONVENTION}, 10",
    cost="instant",
)
def data_end_is_noiseless(sampler: Any) -> Finding:
    """On a chain: whatever the last step to t = 0 draws, the result is the same."""
    if sampler.order is None or {"adaptive", "own_times"} & sampler.needs:
        raise Skip("it corrects at a level, or chooses its own steps or times")
    if _CHAIN not in processes(sampler, (_CHAIN,)):
        raise Skip("it is not made for a chain, whose end is the data")
    model = ExactScore(Gaussian(f64([0.5]), 0.25), _CHAIN)
    grid = resolve_grid("uniform", _CHAIN, 10)
    start = draws(1, (3, 1))[0]
    made = [0]

    def counting(y: Tensor) -> Tensor:
        made[0] += 1
        return torch.zeros_like(y)

    def late(size: float, after: int) -> Any:
        left = [after]

        def noise(y: Tensor) -> Tensor:
            left[0] -= 1
            return torch.full_like(y, size if left[0] < 0 else 0.0)

        return noise

    try:
        run_of(sampler, model, start, grid[:-1], counting)
        without, loud = (
            run_of(sampler, model, start, grid, late(size, made[0])).x for size in (0.0, 1.0)
        )
    except ConfigError as error:
        raise Skip(f"it refuses a chain: {error}") from error
    moved = float((loud - without).abs().max())
    return no_more_than(moved, 0.0, f"a draw of 1 in the last step moves it by {moved:.3g}")


@claim(
    "sampler",
    "the same seed gives the same bits, another seed others",
    f"{_CONVENTION}, 9",
    share=0.25,
    cases=_stages,
)
def seeds_decide(sampler: Any, case: Any) -> Finding:
    """By sdekit's keyed noise; torch's global source moves on between the runs, if it is used."""
    model, x, grid = _start(case)
    with torch.random.fork_rng():
        one, same, other = (
            run_of(sampler, model, x, grid, KeyedNoise(seed)).x for seed in (1, 1, 2)
        )
    if not torch.equal(one, same):
        apart = float((one - same).abs().max())
        return no_more_than(apart, 0.0, f"two runs of one seed differ by {apart:.3g}")
    moved = not torch.equal(one, other)
    if moved != ("noise" in sampler.needs):
        return no_more_than(
            1.0,
            0.0,
            f"another seed {'changes' if moved else 'does not change'} "
            f"the result, and needs = {sorted(sampler.needs)}",
        )
    return no_more_than(0.0, 0.0, "seeds decide")


@claim(
    "sampler",
    "a run leaves no trace on the sampler: a second one, and one that is interleaved "
    "with it, are as if alone",
    "diffusers #612 and its like",
    share=0.25,
    cases=_stages,
)
def runs_are_independent(sampler: Any, case: Any) -> Finding:
    """Repeated, and in turns with a run from another start."""
    model, x, grid = _start(case)

    def frames(start: Tensor) -> Any:
        return sampler.frames(CountedModel(model), start, grid, KeyedNoise(3))

    with torch.no_grad():
        alone = list(frames(x))[-1].x
        turns = list(zip(frames(x), frames(1.5 * x), strict=True))
        again = list(frames(x))[-1].x
    for name, seen in (("interleaved", turns[-1][0].x), ("repeated", again)):
        found = agree(
            f"the run {name}", seen, "the run alone", alone, tol=0.0, scale=alone.abs().max()
        )
        if not found.ok:
            return found
    return no_more_than(0.0, 0.0, "independent")


@claim(
    "sampler",
    "the samples that are passed are not changed",
    "FAULTS: input never mutated",
    share=0.25,
    cases=_stages,
)
def input_is_untouched(sampler: Any, case: Any) -> Finding:
    """Bit by bit."""
    model, x, grid = _start(case)
    kept = x.clone()
    run_of(sampler, model, x, grid, KeyedNoise(0))
    return no_more_than(float((x - kept).abs().max()), 0.0, "the start was changed in place")


@claim(
    "sampler",
    "float32 samples stay float32, float64 ones float64",
    f"{_CONVENTION}, 6",
    share=0.25,
    cases=_stages,
)
def dtype_is_kept(sampler: Any, case: Any) -> Finding:
    """Of every state."""
    model, x, grid = _start(case)
    for dtype in (torch.float32, torch.float64):
        run = run_of(sampler, model, x.to(dtype), grid, KeyedNoise(0))
        other = [frame for frame in run.frames if frame.x.dtype is not dtype]
        if other:
            return no_more_than(
                1.0, 0.0, f"{dtype} becomes {other[0].x.dtype} at t = {other[0].t:.4g}"
            )
    return no_more_than(0.0, 0.0, "kept")
