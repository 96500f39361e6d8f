"""Running a sampler: `iterate`, the loop itself, and `sample`, which does the rest around it.

`sample` resolves names, draws the starting point, cuts the batch into chunks, keeps the
trajectory, switches a network to evaluation and back, and watches for non-finite states. The
output's shape is compared at every call; a state is summed every 32 rows and at the end, and only
when a sum is not finite are the rows since the last good state repeated, with the same noise, to
name the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit._catalogue import make_one
from sdekit._check import choice, finite, integer, samples, shown
from sdekit.errors import ConfigError, DtypeError, NonFiniteError, SolverError
from sdekit.model.prediction import Predictor
from sdekit.sampling.base import LARGE, CountedModel, Frame, Sampler
from sdekit.sampling.grid import Grid, resolve_grid
from sdekit.sampling.noise import KeyedNoise, Noise, checked, from_sample, seed_from
from sdekit.sampling.plan import plan_for
from sdekit.sampling.result import SampleResult
from sdekit.sampling.setup import (
    checked_shape,
    conditions,
    evaluating,
    placed,
    progress_bar,
    sde_of,
    sliced,
    starting_point,
)
from sdekit.targets import Target

__all__ = ["SampleResult", "iterate", "sample"]

_WATCH = 32  # rows between two looks at the state: a look costs about as much as a step


def iterate(
    model: Predictor,
    x: Tensor,
    *,
    sampler: str | Sampler,
    grid: str | Grid | Tensor,
    noise: Noise | int | torch.Generator | None = None,
    cond: Mapping[str, Any] | None = None,
    steps: int | None = None,
) -> Iterator[Frame]:
    """The one loop: the state before the first row, then after every row.

    Gradients flow through it where the caller has them enabled.

    Args:
        model: the predictor.
        x: the samples at the grid's first time [(n, *dims)].
        sampler: a sampler, or the spelling of one.
        grid: a grid, the spelling of one, or a tensor of times.
        noise: a callable noise(x) -> standard normal like x, or what `sample` takes as a seed.
        cond: conditions for the model.
        steps: the number of steps of a named grid.

    Yields:
        `Frame` objects with .x [(n, *dims)], .t, .step and .nfe.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> model = ExactScore(Gaussian(torch.zeros(2), 1.0), VPSDE())
        >>> frames = iterate(model, torch.ones(3, 2), sampler="ddim", grid="uniform", steps=4)
        >>> [(frame.step, round(frame.t, 3)) for frame in frames]
        [(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.251), (4, 0.001)]
    """
    method: Sampler = make_one("sampler", sampler, Sampler)
    times = resolve_grid(grid, sde_of(model), steps)
    source = checked(noise) if callable(noise) else KeyedNoise(seed_from(noise))
    return method.frames(
        CountedModel(model, cond=conditions(cond)), samples("x", x), times, source
    )


def sample(
    model: Predictor,
    shape: tuple[int, ...],
    *,
    sampler: str | Sampler = "ddim",
    steps: int | None = None,
    grid: str | Grid | Tensor = "uniform",
    seed: int | torch.Generator | None = None,
    noise: Noise | None = None,
    x_init: Tensor | None = None,
    prior: str | Target = "standard",
    denoise: bool = False,
    cond: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk: int | None = None,
    max_nfe: int | None = None,
    on_nonfinite: str = "raise",
    progress: bool = False,
    callback: Callable[[Frame], Any] | None = None,
    keep: str | int | None = None,
) -> SampleResult:
    """Draw samples.

    Args:
        model: a `ScoreModel`, an `ExactScore`, or any predictor.
        shape: (n, *dims); n = 0 returns an empty result without a call.
        sampler: a sampler, or the spelling of one: "ddim", "heun(churn=10)".
        steps: None is 50, or all steps of a DDPM; with a tensor grid its own length - 1.
        grid: a grid, the spelling of one, or a strictly decreasing tensor of steps + 1 times.
        seed: an int, a generator (one key is drawn from it), or None for a fresh key. Sample i is
            the same whatever n, chunk or dtype.
        noise: a callable noise(x) -> standard normal like x instead. It also draws the starting
            point, unless a seed or x_init is given. `KeyedNoise`, `Antithetic` and `Brownian` are
            not used up, and give sample i the same noise in any chunk.
        x_init: the starting point [(n, *dims)]; by default a draw of the prior.
        prior: the law of x at grid[0]. "standard": the SDE's own N(0, prior_std^2 I); "matched":
            N(alpha m, alpha^2 C + sigma^2 I) with the data's mean m and covariance C, which are
            the model's `moments`; or a target. Not together with x_init.
        denoise: end with one noiseless step to the model's x_0 (nothing where the run ends at var
            = 0).
        cond: conditions for the model; tensors with n rows are cut along with the chunks.
        device: where to sample; by default x_init's, else the network's.
        dtype: of the samples; by default x_init's, else the network's, else the target's, else
            torch's.
        chunk: the most samples to run at a time.
        max_nfe: the most network calls a sample may take.
        on_nonfinite: "raise", or "return" the samples as they are.
        progress: show a progress bar.
        callback: called with every `Frame`; a true result stops the run there, and the result
            says so (`stopped_at`). Chunks run one after the other, and each is stopped by itself.
        keep: states to keep: None, "all", or how many, evenly spaced, first and last included.

    Returns:
        A `SampleResult`.

    Raises:
        ConfigError: an unknown name, a number out of range, a sampler that does not serve the SDE,
            prior="matched" for a model without moments.
        DtypeError, ShapeError, DeviceError: of an argument, naming it.
        TimeError: a grid that is not strictly decreasing inside [t_min, t_max].
        ModelError: the model raised, returned no tensor, or changed its input (which cannot be
            seen in inference mode); the call and its time are named.
        NonFiniteError: a state is not finite: the step, the time and the samples are named.
        SolverError: an adaptive solve failed, or max_nfe was reached.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> model = ExactScore(Gaussian(torch.zeros(2), 1.0), VPSDE())
        >>> result = sample(model, (5, 2), sampler="ancestral", steps=10, seed=0, keep="all")
        >>> result.x.shape, result.nfe, result.trajectory.shape
        (torch.Size([5, 2]), 10, torch.Size([11, 5, 2]))
    """
    started = time.perf_counter()
    sde = sde_of(model)
    shape = checked_shape(shape)
    method: Sampler = make_one("sampler", sampler, Sampler)
    choice("on_nonfinite", on_nonfinite, ("raise", "return"))
    if keep is not None and keep != "all":
        integer("keep", keep, ge=2)
    size = integer("chunk", chunk, ge=1) if chunk is not None else max(shape[0], 1)
    if max_nfe is not None and integer("max_nfe", max_nfe, ge=1) and isinstance(steps, int):
        fewest = (steps - 1) * method.nfe_per_step + 1  # before a large grid is made
        if fewest > max_nfe and "adaptive" not in method.needs:
            raise ConfigError(
                f"{steps} steps of {method!r} take more calls than max_nfe={max_nfe}"
            )
    times = resolve_grid(grid, sde, steps)
    noise = None if noise is None else checked(noise)
    if callback is not None and not callable(callback):
        raise DtypeError(f"callback must be a callable callback(frame), got {shown(callback)}")
    cond = conditions(cond)
    key = seed_from(seed)
    dtype, device = placed(model, x_init, dtype, device)
    start = starting_point(model, shape, x_init, prior, float(times[0]), key, dtype, device)
    run = _Run(model, method, times, denoise, on_nonfinite, callback, keep)
    trajectory = None
    if run.kept:
        trajectory = torch.empty((len(run.kept), *shape), dtype=dtype, device=device)
    parts = []
    bar = progress_bar(progress, (run.rows + 1) * -(-shape[0] // size))
    with evaluating(model), torch.no_grad(), bar as tick:
        for low in range(0, shape[0], size):
            high = min(low + size, shape[0])
            source = KeyedNoise(key, first=low) if noise is None else from_sample(noise, low)
            # without a noise of the user's own, the run goes on with the stream of its start
            own = noise is not None and seed is not None
            begin = partial(start, low, high, KeyedNoise(key, first=low) if own else source)
            counted = CountedModel(model, cond=sliced(cond, low, high, shape[0]), max_nfe=max_nfe)
            states = None if trajectory is None else trajectory[:, low:high]
            parts.append(run.chunk(counted, begin, source, states, tick))
    if not parts:
        empty = torch.empty(shape, dtype=dtype, device=device)
        parts = [_Part(empty, 0, 0.0, run.rows, None, tuple(sorted(run.kept)))]
    visited = run.plan.grid[: max(part.rows for part in parts) + 1]
    common = parts[0].kept  # where chunks stopped apart, the states that all of them have
    for part in parts[1:]:
        common = tuple(a for a, b in zip(common, part.kept, strict=False) if a == b)
    kept = torch.tensor(common, dtype=torch.int64)
    return SampleResult(
        x=parts[0].x if len(parts) == 1 else torch.cat([part.x for part in parts]),
        nfe=max(part.nfe for part in parts),
        rejected=_rejected(parts, shape[0]),
        grid=visited.clone(),  # the plan itself is cached
        seconds=time.perf_counter() - started,
        trajectory=None if trajectory is None else trajectory[: len(kept)],
        trajectory_t=None if trajectory is None else run.plan.grid[kept],
        trajectory_step=None if trajectory is None else kept,
        stopped_at=max((p.stopped_at for p in parts if p.stopped_at is not None), default=None),
    )


class _Part(NamedTuple):
    """What a chunk returned.

    Attributes:
        x: its samples.
        nfe: the calls it took.
        rejected: the proposals that its samples had rejected, together; NaN where nobody knows.
        rows: how many rows it went.
        stopped_at: the time where the callback stopped it before its end, or None.
        kept: the rows of the states that it kept.
    """

    x: Tensor
    nfe: int
    rejected: float
    rows: int
    stopped_at: float | None
    kept: tuple[int, ...]


def _rejected(parts: Sequence[_Part], n: int) -> float | None:
    """Rejections a sample."""
    total = sum(part.rejected for part in parts)
    return total / max(n, 1) if math.isfinite(total) else None


class _Run:
    """What every chunk of one call of `sample` shares."""

    def __init__(
        self,
        model: Predictor,
        sampler: Sampler,
        grid: Tensor,
        denoise: bool,
        on_nonfinite: str,
        callback: Callable[[Frame], Any] | None,
        keep: str | int | None,
    ) -> None:
        self.sampler = sampler
        self.grid = grid
        self.denoise = denoise
        self.on_nonfinite = on_nonfinite
        self.callback = callback
        counted = CountedModel(model)
        self.plan = plan_for(sampler, model.sde, counted.parametrization, grid)
        self.rows = len(self.plan.rows)
        count = self.rows + 1 if keep == "all" else min(int(keep or 0), self.rows + 1)
        self.kept = {round(i * self.rows / max(count - 1, 1)) for i in range(count)}

    def chunk(
        self,
        model: CountedModel,
        begin: Callable[[], Tensor],
        noise: Noise,
        states: Tensor | None,
        tick: Callable[[], None] | None,
    ) -> _Part:
        """One chunk from start to end; the states to keep are written into `states`."""
        x = begin()
        inherited = type(self.sampler).frames is Sampler.frames
        # watched at every row: what cannot be repeated from the middle, and what is so large that
        # on the CPU a look costs little, but one more state kept for 32 rows much memory
        at = getattr(noise, "at", None) if inherited else None
        large = x.numel() >= LARGE and x.device.type == "cpu"
        every = 1 if at is None or large else _WATCH
        watched = self.on_nonfinite == "raise"
        kept: list[int] = []
        good: Frame | None = None
        frame: Frame | None = None
        mark = 0
        looked_at = self.kept.union(range(0, self.rows, every), [self.rows])
        options: dict[str, Any] = {}
        if inherited and tick is None and self.callback is None and len(looked_at) <= self.rows:
            options["only"] = looked_at
        frames = self.sampler.frames(model, x, self.grid, noise, **options)
        del x  # the loop forgets the start too: it is as large as a state
        for frame in frames:
            k = frame.step
            stop = self.callback is not None and self.callback(frame)
            if states is not None and (k in self.kept or stop):
                states[len(kept)] = frame.x
                kept.append(k)
            if watched and (k % every == 0 or k == self.rows or stop):
                if _looks_bad(frame.x):
                    self._locate(model, good or frame, frame, at and at(mark))
                good, mark = frame, getattr(noise, "draw", 0)
            if tick is not None:
                tick()
            if stop:
                break
        if frame is None:  # a sampler of somebody's own that yields nothing
            raise SolverError(f"{self.sampler!r} yielded no state")
        out = frame.x
        if self.denoise and float(model.sde.var(frame.t)) > 0:
            out = model(out, frame.t).x0
            if watched:
                finite("the denoised samples", out)
        stopped_at = frame.t if frame.step < self.rows else None
        return _Part(out, model.nfe, float(model.rejected), frame.step, stopped_at, tuple(kept))

    def _locate(self, model: CountedModel, good: Frame, bad: Frame, noise: Noise | None) -> None:
        """Repeat the rows after the last good frame and raise at the first bad state."""
        frames = [bad] if noise is None or good is bad else self.sampler.frames(
            model, good.x, self.grid, noise, after=good
        )  # fmt: skip
        for frame in frames:
            if _looks_bad(frame.x):
                bad = frame
                break
        rows = (~torch.isfinite(bad.x).reshape(len(bad.x), -1).all(dim=1)).nonzero().flatten()
        raise NonFiniteError(
            f"{self.sampler!r}: the samples are not finite after step {bad.step} of {self.rows}, "
            f"which ends at t = {bad.t:.6g}: {len(rows)} of {len(bad.x)} samples "
            f"({len(rows) / max(len(bad.x), 1):.1%}), first rows {rows[:5].tolist()}. The model's "
            "output, the noise or the state overflowed; on_nonfinite='return' hands the samples "
            "back"
        )


def _looks_bad(x: Tensor) -> bool:
    # a finite sum proves a finite state; an infinite one may be overflow, so it is confirmed
    return not math.isfinite(x.sum().item()) and not bool(torch.isfinite(x).all())
