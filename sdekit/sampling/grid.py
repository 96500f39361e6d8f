r"""Time grids: strictly decreasing times from t_max to t_min, one more than there are steps.

    uniform         t_k = t_max + k/K (t_min - t_max)
    quadratic       sqrt(t) uniform                                       arXiv:2010.02502, D.2
    log_snr         log(alpha^2 / sigma^2) uniform                    arXiv:2206.00927, section 3.4
    karras          (sigma / alpha)^(1/rho) uniform                       arXiv:2206.00364, eq. 5
    ddpm_leading, ddpm_linspace, ddpm_trailing   the spacings of integer steps that released chains
                    use                                                   arXiv:2305.08891, table 2

On a DDPM every grid is rounded to nodes and keeps its number of steps. Where var(t_min) = 0 (a
DDPM's node 0) the log-SNR is infinite there: grids in the noise level end at the first node, then
step to 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import make_one, register
from sdekit._check import MOST_STEPS, Checked, integer, number, shown
from sdekit.errors import ConfigError, DtypeError, ShapeError, TimeError
from sdekit.sde.base import LinearSDE

__all__ = [
    "DDPMLeading",
    "DDPMLinspace",
    "DDPMTrailing",
    "Grid",
    "Karras",
    "LogSNR",
    "Quadratic",
    "Uniform",
    "resolve_grid",
]


class Grid(Checked, ABC):
    """A rule that places the times of a run."""

    @abstractmethod
    def times(self, sde: LinearSDE, steps: int) -> Tensor:
        """The times [(steps + 1,)], float64, from sde.t_max to sde.t_min."""

    @classmethod
    def examples(cls) -> list[Any]:
        """Instances that tests run over."""
        return [cls()]


def _spaced(start: float | Tensor, stop: float | Tensor, count: int) -> Tensor:
    return torch.linspace(float(start), float(stop), count, dtype=torch.float64)


@register("grid", "uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform(Grid):
    """Equal steps in t (a convention of sdekit; on `edm` it is Karras et al.'s grid)."""

    def times(self, sde: LinearSDE, steps: int) -> Tensor:
        """linspace(t_max, t_min, steps + 1)."""
        return _spaced(sde.t_max, sde.t_min, steps + 1)


@register("grid", "quadratic", paper="arXiv:2010.02502, appendix D.2")
@dataclass(frozen=True, kw_only=True)
class Quadratic(Grid):
    """Equal steps in sqrt(t): denser near the data."""

    def times(self, sde: LinearSDE, steps: int) -> Tensor:
        """The squares of linspace(sqrt(t_max), sqrt(t_min), steps + 1)."""
        times = _spaced(sde.t_max**0.5, sde.t_min**0.5, steps + 1).square()
        times[0], times[-1] = sde.t_max, sde.t_min  # which a root squared misses by an ulp
        return times


def _in_noise_level(sde: LinearSDE, steps: int, power: float | None) -> Tensor:
    """Times uniform in (sigma/alpha)^power, or in its logarithm for None."""
    end = sde.t_min if float(sde.var(sde.t_min)) > 0 else _first_model_time(sde)
    last = [] if end == sde.t_min else [torch.tensor([sde.t_min], dtype=torch.float64)]
    count = steps + 1 - len(last)
    if count == 1:
        return torch.cat([torch.tensor([sde.t_max], dtype=torch.float64), *last])
    ends = [-0.5 * float(sde.log_snr(t)) for t in (sde.t_max, end)]  # log(sigma / alpha)
    if power is None:
        level = _spaced(ends[0], ends[1], count)
    else:
        scale = max(ends)  # powers relative to the largest level, which cannot overflow
        roots = [torch.tensor(power * (e - scale), dtype=torch.float64).exp() for e in ends]
        level = _spaced(roots[0], roots[1], count).log() / power + scale
    inner = sde.t_from_log_snr(-2 * level[1:-1])
    first, stop = (torch.tensor([t], dtype=torch.float64) for t in (sde.t_max, end))
    return torch.cat([first, inner, stop, *last])


def _first_model_time(sde: LinearSDE) -> float:
    return float(sde.to_model_time(torch.tensor(sde.t_min, dtype=torch.float64)))


@register("grid", "log_snr", paper="arXiv:2206.00927, section 3.4")
@dataclass(frozen=True, kw_only=True)
class LogSNR(Grid):
    """Equal steps in log(alpha^2 / sigma^2)."""

    def times(self, sde: LinearSDE, steps: int) -> Tensor:
        """t(log_snr) on an equally spaced log_snr."""
        return _in_noise_level(sde, steps, None)


@register("grid", "karras", paper="arXiv:2206.00364, eq. 5")
@dataclass(frozen=True, kw_only=True)
class Karras(Grid):
    """Equal steps in (sigma / alpha)^(1/rho).

    Args:
        rho: the exponent, > 0; 7 in the paper.

    Raises:
        ConfigError: rho <= 0.
    """

    rho: float = 7.0

    def __post_init__(self) -> None:
        """Check the field."""
        self._set(rho=number("rho", self.rho, gt=0))

    def times(self, sde: LinearSDE, steps: int) -> Tensor:
        """t(sigma / alpha) on an equally spaced root."""
        return _in_noise_level(sde, steps, 1 / self.rho)


@dataclass(frozen=True, kw_only=True)
class _DDPMSpacing(Grid):
    """Spacings of the integer steps 1 .. N of a chain, then 0 (between its t_max and t_min)."""

    @abstractmethod
    def nodes(self, n: int, steps: int) -> Tensor:
        """The decreasing nodes [(steps,)] at which the model is called."""

    def times(self, sde: LinearSDE, steps: int) -> Tensor:
        """The nodes as times, then t_min."""
        if "ddpm" not in sde.kinds:
            name = getattr(self, "catalogue_name", type(self).__name__)
            raise ConfigError(f"grid={name!r} spaces the steps of a chain; {sde!r} has none")
        first = round(sde.t_min * sde.n)  # type: ignore[attr-defined]  # a chain has n
        n = sde.default_steps
        nodes = first + self.nodes(n, min(steps, n))
        last = torch.tensor([sde.t_min], dtype=torch.float64)
        return torch.cat([nodes / sde.n, last])  # type: ignore[attr-defined]


@register("grid", "ddpm_leading", paper="arXiv:2305.08891, table 2")
@dataclass(frozen=True, kw_only=True)
class DDPMLeading(_DDPMSpacing):
    """Every (N // K)-th step from the first: misses the last, noisiest ones."""

    def nodes(self, n: int, steps: int) -> Tensor:
        """1 + k (N // K), largest first."""
        return 1 + (n // steps) * torch.arange(steps - 1, -1, -1, dtype=torch.float64)


@register("grid", "ddpm_linspace", paper="arXiv:2305.08891, table 2")
@dataclass(frozen=True, kw_only=True)
class DDPMLinspace(_DDPMSpacing):
    """K equally spaced steps from N down to 1, both included (N alone for K = 1)."""

    def nodes(self, n: int, steps: int) -> Tensor:
        """round(linspace(N, 1, K))."""
        return 1 + _spaced(n - 1, 0, steps).round()


@register("grid", "ddpm_trailing", paper="arXiv:2305.08891, table 2")
@dataclass(frozen=True, kw_only=True)
class DDPMTrailing(_DDPMSpacing):
    """K equal strides down from N: the first step starts at pure noise."""

    def nodes(self, n: int, steps: int) -> Tensor:
        """round(N - k N / K)."""
        return (n - torch.arange(steps, dtype=torch.float64) * (n / steps)).round()


def resolve_grid(grid: object, sde: LinearSDE, steps: object = None) -> Tensor:
    """The times of a run [(steps + 1,)], float64 on the CPU.

    Args:
        grid: a `Grid`, the name of one, or a tensor of times.
        sde: the process; a DDPM rounds to its nodes.
        steps: None is 50, or all steps of a DDPM; with a tensor its length - 1 or None.

    Raises:
        ConfigError: steps < 1, more than a chain has, or not those of the tensor; an unknown name.
        DtypeError: steps that is no int, a grid that is no floating tensor.
        TimeError: a tensor that is not strictly decreasing inside [t_min, t_max]; the index is
            named.
    """
    wanted = None if steps is None else integer("steps", steps, ge=1, le=MOST_STEPS)
    if isinstance(grid, Tensor):
        times = _checked_times(grid, sde)
        if wanted and wanted != len(times) - 1:
            raise ConfigError(
                f"steps={wanted} contradicts the grid, which has {len(times) - 1}; leave steps out"
            )
        return sde.align(times, keep=False)
    if not isinstance(grid, str | Grid):
        raise DtypeError(f"grid must be a name, a Grid or a tensor of times, got {shown(grid)}")
    rule: Grid = make_one("grid", grid, Grid)
    times = rule.times(sde, wanted or sde.default_steps)
    if wanted and "ddpm" in sde.kinds and wanted > sde.default_steps:
        raise ConfigError(
            f"steps must be <= {sde.default_steps}, the steps of {sde!r}, got {wanted}"
        )
    return sde.align(times.clamp(sde.t_min, sde.t_max), keep=True)


def _checked_times(grid: Tensor, sde: LinearSDE) -> Tensor:
    """A user's grid in float64, or the error that names its first bad entry."""
    if not grid.dtype.is_floating_point:
        raise DtypeError(f"grid must be a floating tensor of times, got {grid.dtype}")
    if grid.ndim != 1 or len(grid) < 2:
        raise (TimeError if grid.ndim == 1 else ShapeError)(
            f"grid must hold at least two times in one dimension, got shape {tuple(grid.shape)}"
        )
    times = grid.detach().to("cpu", torch.float64)
    slack = 2 * torch.finfo(grid.dtype).eps if grid.dtype is not torch.float64 else 0.0
    outside = ~((times >= sde.t_min * (1 - slack)) & (times <= sde.t_max * (1 + slack)))
    if outside.any():
        k = int(outside.nonzero()[0])
        raise TimeError(
            f"grid[{k}] = {times[k].item():.6g} is outside [t_min, t_max] = "
            f"[{sde.t_min:g}, {sde.t_max:g}]"
        )
    rising = times.diff() >= 0
    if rising.any():
        k = int(rising.nonzero()[0])
        raise TimeError(
            f"grid must be strictly decreasing, got grid[{k}] = {times[k].item():.6g} and "
            f"grid[{k + 1}] = {times[k + 1].item():.6g}"
        )
    return times.clamp(sde.t_min, sde.t_max)
