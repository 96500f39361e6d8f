r"""Runs of a sampler under injected noise, and the affine map that it is on Gaussian data.

With a diagonal covariance and the exact score the coordinates never meet, and a fixed-step sampler
maps each of them affinely,

    out = offset + start x_T + sum_k kicks_k z_k.                                            (1)

One batch of K + 2 rows reads (1) off the real sampler, for a whole spectrum of data variances at
once: row 0 starts at 0 without noise, row 1 at a start of its own size, row 2 + k has one unit
impulse in draw k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.exact import order
from sdekit.model import ExactScore
from sdekit.sampling.base import CountedModel, Frame
from sdekit.sampling.grid import resolve_grid
from sdekit.sde import LinearSDE
from sdekit.targets import Gaussian
from sdekit.verify.claims import Skip
from sdekit.verify.strategies import f64

__all__ = ["Affine", "Run", "draws", "inner_grid", "probe", "processes", "run_of", "spectrum"]

_AFFINE = 1e-7  # what superposition may be off, relative to the output


class Run(NamedTuple):
    """What a run gave: the result, its calls, its frames, and the times of the calls."""

    x: Tensor
    nfe: int
    frames: list[Frame]
    calls: list[float]


class _Noting:
    """A predictor around another one that notes the times of its calls."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.sde = model.sde
        self.times: list[float] = []

    def __call__(self, x: Tensor, t: Any, **cond: Any) -> Any:
        self.times += torch.as_tensor(t).reshape(-1).tolist()  # one, or one a sample
        return self.model(x, t, **cond)


def run_of(
    sampler: Any, model: Any, x: Tensor, grid: Tensor, noise: Any, *, note: bool = False
) -> Run:
    """One run on these times with this noise."""
    seen = _Noting(model) if note else model
    counted = CountedModel(seen)
    with torch.no_grad():
        frames = list(sampler.frames(counted, x, grid, noise))
    return Run(frames[-1].x, counted.nfe, frames, seen.times if note else [])


def draws(k: int, shape: Sequence[int], seed: int = 0) -> Tensor:
    """k float64 standard normal draws [(k, *shape)]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, *shape, generator=generator, dtype=torch.float64)


def replay(stored: Tensor) -> Callable[[Tensor], Tensor]:
    """A noise source that returns stored[0], stored[1], ... and after the last begins again."""
    made = [0]

    def noise(x: Tensor) -> Tensor:
        made[0] += 1
        return stored[(made[0] - 1) % len(stored)].to(x.dtype).clone()

    return noise


def spectrum() -> Gaussian:
    """A diagonal Gaussian whose variances spread over three decades."""
    return Gaussian(f64([0.7, -1.0, 0.2, 2.0]), torch.diag(f64([0.01, 0.2, 1.0, 6.0])))


def processes(sampler: Any, offered: Sequence[LinearSDE]) -> Sequence[LinearSDE]:
    """The processes that a sampler is made for, where it names any; else all that are offered."""
    return getattr(sampler, "home", ()) or offered


def inner_grid(sde: LinearSDE, steps: int, low: float = 0.05, high: float = 0.95) -> Tensor:
    """Equal steps in the log-SNR between low and high times t_max [(steps + 1,)].

    A chain, whose steps cannot be refined between nodes, is walked from end to end.
    """
    if "ddpm" in sde.kinds:
        return resolve_grid("uniform", sde, steps)
    return order.inner_grid(sde, steps, low, high)


@dataclass(frozen=True)
class Affine:
    """Eq. (1) by coordinate [(d,), (d,), (K, d)]."""

    offset: Tensor
    start: Tensor
    kicks: Tensor

    def law(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output [(d,)] for x_T with these."""
        return self.offset + self.start * mean, self.start**2 * var + self.kicks.square().sum(0)


class _Impulses:
    """Draws of a probe: the k-th is 1 in row 2 + k, and random in the last row, which is kept."""

    def __init__(self) -> None:
        self.last: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(3)

    def __call__(self, x: Tensor) -> Tensor:
        z, k = torch.zeros_like(x), 2 + len(self.last)
        if k < len(x) - 1:
            z[k] = 1
        self.last.append(torch.randn(x.shape[1:], generator=self._generator, dtype=x.dtype))
        z[-1] = self.last[-1]
        return z


def probe(sampler: Any, model: Any, grid: Tensor) -> Affine:
    """Eq. (1) of the real sampler, float64.

    Raises:
        Skip: it is not affine.
    """
    if "adaptive" in sampler.needs:
        raise Skip("it chooses its own steps, which depend on the sample")
    if "rejects" in sampler.needs:  # seldom, maybe, so that superposition need not show it
        raise Skip("it is not affine: it keeps or rejects a proposal by the sample")
    d = model.target.shape[0]
    # a start of the prior's size: a response of 1e-10 would drown in rounding
    size = max(1.0, float(model.sde.sigma(grid[0])))

    def run(kicks: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Rows from 0, from `size`, from 0 with an impulse each, and from anywhere."""
        x, noise = torch.zeros(kicks + 3, d, dtype=torch.float64), _Impulses()
        x[1], x[-1] = size, size * draws(1, (d,), seed=4)[0]
        return x, run_of(sampler, model, x, grid, noise).x, noise.last

    x, out, z = run(0)
    if z:
        x, out, z = run(len(z))
    zero = out[0]
    affine = Affine(zero, (out[1] - zero) / size, out[2:-1] - zero)
    # superposition: the last row must follow from the responses of the others
    expected = zero + affine.start * x[-1]
    for response, drawn in zip(affine.kicks, z, strict=True):
        expected = expected + response * drawn
    off = float((out[-1] - expected).abs().max() / expected.abs().max().clamp_min(1e-300))
    if not off <= _AFFINE:
        raise Skip(f"it is not affine on Gaussian data: superposition fails by {off:.2g}")
    return affine


def exact_law(model: ExactScore, t: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_t for Gaussian data with a diagonal covariance [(d,)]."""
    alpha, var = float(model.sde.alpha(t)), float(model.sde.var(t))
    assert isinstance(model.target, Gaussian)
    return alpha * model.target.mean, alpha**2 * model.target.cov.diagonal() + var


def law_errors(sampler: Any, model: ExactScore, grid: Tensor) -> Tensor:
    """Signed relative errors of the variances, and of the means in standard deviations [(2d,)]."""
    mean, var = probe(sampler, model, grid).law(*exact_law(model, float(grid[0])))
    true_mean, true_var = exact_law(model, float(grid[-1]))
    return torch.cat([var / true_var - 1, (mean - true_mean) / true_var.sqrt()])
