"""One sampler on one model along one grid: forward, and backward through the whole run.

The real code runs, in float64 and with gradients on. The backward pass goes in segments, from the
last to the first, each repeated from a stored state: memory does not grow with the steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdekit._catalogue import make_one
from sdekit.errors import ConfigError
from sdekit.model import Predictor
from sdekit.sampling.base import CountedModel, Frame, Sampler
from sdekit.sampling.grid import Grid, resolve_grid
from sdekit.sampling.setup import sde_of

__all__ = ["Mark", "Run", "ZeroNoise", "column", "run_of"]

_MEMORY = 2**26  # bytes of intermediate results that a segment may hold, about
_TENSORS = 8  # of the samples' size that a model call and its step leave behind, about


class ZeroNoise:
    """Zeros, counted; those that are made with gradients on are kept, for autograd."""

    def __init__(self) -> None:
        self.count = 0
        self.made: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Zeros like x."""
        self.count += 1
        if not torch.is_grad_enabled():
            return torch.zeros_like(x)
        self.made.append(torch.zeros_like(x, requires_grad=True))
        return self.made[-1]


def column(x: Any) -> Tensor:
    """Points of a line, a NumPy array, as samples [(n, 1)]."""
    return torch.tensor(x, dtype=torch.float64)[:, None]


class Mark(NamedTuple):
    """A stored state, and the draws of noise that were made before it."""

    frame: Frame
    draws: int


@dataclass(frozen=True, eq=False)
class Run:
    """A sampler on a model, in float64, along a grid; with the last denoising or without."""

    sampler: Sampler
    model: Predictor
    grid: Tensor
    denoise: bool

    @property
    def inherited(self) -> bool:
        """Whether the run can be repeated from the middle."""
        return type(self.sampler).frames is Sampler.frames

    @property
    def is_a_map(self) -> bool:
        """Whether no noise is drawn, tried on two points of a line."""
        noise = ZeroNoise()
        with torch.no_grad():
            for _ in self.frames(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), noise):
                pass
        return noise.count == 0

    def frames(
        self, x: Tensor, noise: Any, *, final: bool = True, **options: Any
    ) -> Iterator[Frame]:
        """The states of the run; where it is denoised, the last row has two."""
        model = CountedModel(self.model)
        frame: Frame | None = None
        for frame in self.sampler.frames(model, x, self.grid, noise, **options):
            yield frame
        if frame is None:
            raise ConfigError(f"{self.sampler!r} yielded no state")
        if final and self.denoise and float(model.sde.var(frame.t)) > 0:
            yield Frame(model(frame.x, frame.t).x0, frame.t, frame.step, model.nfe, None)

    def marks(self, x: Tensor) -> list[Mark]:
        """The states of the run from x without noise, so far apart as memory allows."""
        per_row = x.numel() * 8 * _TENSORS * max(self.sampler.nfe_per_step, 1)
        length = max(1, _MEMORY // per_row)
        found: list[Mark] = []
        noise = ZeroNoise()
        with torch.no_grad():
            for frame in self.frames(x, noise):
                last = Mark(frame, noise.count)
                if not found or (self.inherited and frame.step - found[-1].frame.step >= length):
                    found.append(last)
        # a mark at the end would stand before the denoising, which has no row of its own
        return [*(mark for mark in found if mark.frame.step < last.frame.step), last]

    def backward(
        self, marks: list[Mark], gradient: Tensor, seen: Callable[[int, Tensor], None]
    ) -> Tensor:
        """The gradient at the start, from that at the end; `seen` gets that of every draw.

        Args:
            marks: of the run.
            gradient: by the last state [(batch, *dims)].
            seen: called with the number of a draw and its gradient [(batch, *dims)].
        """
        gradients = [gradient]
        for first, last in zip(marks[-2::-1], marks[:0:-1], strict=True):
            inputs, outputs, draws = self._segment(first, last, final=last is marks[-1])
            pairs = [(y, g) for y, g in zip(outputs, gradients, strict=False) if y.requires_grad]
            found: tuple[Tensor | None, ...] = (None,) * (len(inputs) + len(draws))
            if pairs:  # else nothing depends on what came before in a way that autograd sees
                # of one number: gradients given for tensors make torch import sympy
                with torch.enable_grad():
                    along = torch.stack([(y * g).sum() for y, g in pairs]).sum()
                found = torch.autograd.grad(along, [*inputs, *draws], allow_unused=True)
            gradients = [
                torch.zeros_like(t) if g is None else g
                for t, g in zip(inputs, found, strict=False)
            ]
            for k, kick in enumerate(found[len(inputs) :]):
                if kick is not None:
                    seen(first.draws + k, kick)
        return gradients[0]

    def _segment(self, first: Mark, last: Mark, *, final: bool) -> tuple[list[Tensor], ...]:
        """Repeat the rows from one mark to the next: tensors at its start, at its end, draws."""
        frame, noise = first.frame, ZeroNoise()
        inputs: list[Tensor] = []
        x = frame.x.detach().requires_grad_()
        state = _visited(frame.state, lambda t: t.detach().requires_grad_(), inputs)
        options: dict[str, Any] = {}
        if self.inherited:
            after = Frame(x, frame.t, frame.step, frame.nfe, state)
            options = {"after": after, "only": {last.frame.step}}
        with torch.enable_grad():
            *_, end = self.frames(x, noise, final=final, **options)
        outputs: list[Tensor] = []
        _visited(end.state, lambda t: t, outputs)
        return [x, *inputs], [end.x, *outputs], noise.made


def _visited(state: Any, seen: Callable[[Tensor], Tensor], into: list[Tensor]) -> Any:
    """The state with `seen` of every floating tensor in it, each of them noted in `into`."""
    if isinstance(state, Tensor) and state.is_floating_point():
        into.append(seen(state))
        return into[-1]
    if isinstance(state, dict):
        return {key: _visited(value, seen, into) for key, value in state.items()}
    if isinstance(state, list | tuple):
        parts = [_visited(part, seen, into) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state


def run_of(
    sampler: str | Sampler,
    model: Predictor,
    steps: int | None,
    grid: str | Grid | Tensor,
    denoise: bool,
) -> Run:
    """The run that `sample` would make of this; a network is copied, in float64 on the CPU."""
    method: Sampler = make_one("sampler", sampler, Sampler)
    times = resolve_grid(grid, sde_of(model), steps)
    if isinstance(model, nn.Module):
        model = copy.deepcopy(model).cpu().double()
    return Run(method, model, times, denoise)
