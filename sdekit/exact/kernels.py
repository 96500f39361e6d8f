r"""A density on a line, pushed through the rows of a stochastic one-step sampler.

A row draws x_s = m(x_t) + std z, so that

    p_s(y) = int p_t(x) N(y; m(x), std^2) dx.                                                   (1)

m and std are read off the real step. The density lives on equally spaced points, so close that (1)
by the trapezoid rule is exact to rounding: for a Gaussian of deviation w on a spacing h the rule
errs by 2 exp(-2 pi^2 w^2 / h^2), and w is at least 1 / sqrt(2) of the narrower one of density and
kernel. The spacing follows the kernels of this row, which no feature of the density is narrower
than, and those of the next. A law that is handed out has points of its own, so close that the
band-limited function through them is the density itself: what it leaves out is below
exp(-pi^2 w^2 / 2 h^2).

Reference: Trefethen and Weideman 2014, doi:10.1137/130932132, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from sdekit.errors import NonFiniteError, NotAffine
from sdekit.exact.line import Array, Law1D
from sdekit.exact.passes import Run, column
from sdekit.sampling.base import CountedModel
from sdekit.sampling.plan import Plan, plan_for

__all__ = ["Map", "pushed"]

_TAIL = 7.5  # deviations of a kernel beyond which it is 0: 6e-14 of its mass
_EMPTY = 1e-14  # of the largest density: where nothing needs to be resolved
_MOST = 100_000  # points of a density
_PILOT = 400  # points on which the next row is looked at
_UPSAMPLED = 6  # nodes of a table for each point of the density
_FINE = 0.35  # spacing of the points of a table, as a share of the kernel: it leaves out 3e-18
_FLAT = 1e-3  # the least slope that is reckoned with: it bounds the spacing


class Map(NamedTuple):
    """A map of the line: its values, and, dearer, its slopes."""

    values: Callable[[Array], Array]
    slopes: Callable[[Array], Array]

    @classmethod
    def of(cls, f: Callable[[Tensor], Tensor]) -> Map:
        """The map of a function of samples [(n, 1)] that takes each by itself."""

        def values(x: Array) -> Array:
            with torch.no_grad():
                return f(column(x)).reshape(-1).numpy()

        def slopes(x: Array) -> Array:
            points = column(x).requires_grad_()
            with torch.enable_grad():
                total = f(points).sum()
            slope = torch.autograd.grad(total, points)[0]
            return slope.reshape(-1).numpy()

        return cls(values, slopes)


class _Row:
    """One row of a sampler: x -> m(x), and the deviation of its noise."""

    def __init__(self, run: Run, plan: Plan, k: int) -> None:
        self.run = run
        self.c = plan.rows[k]
        self.plan = Plan(grid=plan.grid, rows=[self.c], calls=())  # its few calls, made as needed
        self.counted = CountedModel(run.model)
        self._std: float | None = None

    def __call__(self, x: Tensor, draw: Tensor | None = None) -> tuple[Tensor, int]:
        """What the row makes of x [(n, 1)] and this draw (by default 0), and how often it drew."""
        draws = 0

        def noise(y: Tensor) -> Tensor:
            nonlocal draws
            draws += 1
            return torch.zeros_like(y) if draw is None else draw

        self.counted.prepare(x, self.plan)
        out, state = self.run.sampler.step(x, self.c, self.counted, None, noise)
        if any(isinstance(part, Tensor) for part in _leaves(state)):
            raise _refused(self.run, "it carries a state from row to row")
        return out, draws

    @property
    def mean(self) -> Map:
        """m."""
        return Map.of(lambda x: self(x)[0])

    def std(self, x: Array) -> float:
        """The deviation of the noise, 0 for none; it must be the same at all these points."""
        if self._std is None:
            self._std = self._measured(x)
        return self._std

    def _measured(self, x: Array) -> float:
        points = column(x[:: max(1, len(x) // 16)])
        n = len(points)
        levels = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).repeat_interleave(n)[:, None]
        out, draws = self(points.repeat(3, 1), levels)
        if draws == 0:
            return 0.0
        if draws > 1:
            raise _refused(self.run, f"it draws {draws} times a row")
        zero, one, two = out[:n], out[n : 2 * n] - out[:n], out[2 * n :] - out[:n]
        std = float(one.mean())
        away = torch.maximum((one - std).abs().max(), (two - 2 * one).abs().max())
        if float(away) > 1e-9 * (abs(std) + float(zero.abs().max())):
            raise _refused(self.run, "its noise does not come last")
        return abs(std)


def _leaves(state: Any) -> Iterator[Any]:
    if isinstance(state, list | tuple):
        for part in state:
            yield from _leaves(part)
    else:
        yield state


def _refused(run: Run, why: str) -> NotAffine:
    return NotAffine(
        f"{run.sampler!r} is no chain of Gaussian kernels: {why}. On mixtures the exact law is "
        "that of deterministic samplers and of one-step samplers whose noise comes last"
    )


@dataclass(frozen=True, eq=False)
class _Density:
    """A density on the points low + j h."""

    low: float
    h: float
    p: Array

    @property
    def x(self) -> Array:
        return self.low + self.h * np.arange(len(self.p), dtype=np.float64)

    def law(self) -> Law1D:
        """Its table: between the points the band-limited function through them."""
        m = _UPSAMPLED * len(self.p)
        p = np.fft.irfft(np.fft.rfft(self.p), m)[: m - _UPSAMPLED + 1] * _UPSAMPLED
        p = np.clip(p, 0.0, None).astype(np.float64)
        x = self.low + self.h / _UPSAMPLED * np.arange(len(p), dtype=np.float64)
        cdf = np.maximum.accumulate(CubicSpline(x, p).antiderivative()(x))
        if not math.isfinite(cdf[-1]):
            raise NonFiniteError("the density leaves the finite numbers: the sampler overflows")
        if not abs(cdf[-1] - 1) < 1e-6:
            raise NotAffine(
                f"the density has the mass {cdf[-1]:.9g} on {len(self.p)} points: a row is too "
                "steep for its noise, and the quadrature fails"
            )
        return Law1D(x, cdf / cdf[-1], p / cdf[-1], self.h)

    @classmethod
    def of(cls, law: Law1D, h: float) -> _Density:
        """A table on points h apart."""
        empty = cls(law.x[0], h, np.zeros(_count(law.x[-1] - law.x[0], h)))
        return replace(empty, p=law.density(empty.x))

    @classmethod
    def scattered(cls, mean: Array, mass: Array, std: float, h: float) -> _Density:
        """sum_i mass_i N(y; mean_i, std^2)."""
        reach = math.ceil(_TAIL * std / h)
        low = float(mean.min()) - reach * h
        n = _count(float(mean.max()) - low + reach * h, h) + 1
        centre = np.rint((mean - low) / h).astype(np.intp)
        # exp(-(d + k h)^2 / 2 v) for k = -reach .. reach, each from the one before it
        offset = (low + h * centre - mean) / std
        step = h / std
        value = mass * np.exp(-0.5 * (offset - reach * step) ** 2)
        ratio = np.exp(-step * offset)
        p = np.zeros(n + 2 * reach)
        for k in range(-reach, reach + 1):
            p[k + reach : k + reach + n] += np.bincount(centre, weights=value, minlength=n)
            value *= ratio * math.exp(-(k + 0.5) * step**2)
        return cls(low, h, p[reach : reach + n] / (std * math.sqrt(2 * math.pi)))


def _count(width: float, h: float) -> int:
    n = math.ceil(width / h) + 1 if 0 < h < math.inf and math.isfinite(width) else _MOST + 1
    if n > _MOST:
        raise NotAffine(
            f"the density needs more than {_MOST} points: the noise of a step is too small "
            f"against the width {width:.3g} of the law, which has no exact law by quadrature"
        )
    return n


def _needed(row: _Row | None, x: Array, busy: NDArray[np.bool_]) -> float:
    """The width that the row's kernels have in its input, where that has mass."""
    std = 0.0 if row is None else row.std(x)
    if row is None or std == 0:
        return math.inf
    steep = np.abs(np.diff(row.mean.values(x))) / np.diff(x)
    slopes = steep[busy[1:] | busy[:-1]]
    return std / max(float(slopes.max()) if len(slopes) else 1.0, _FLAT)


def pushed(
    run: Run, start: Law1D, spacing: float, mapped: Callable[[Law1D, Map], Law1D]
) -> Iterator[tuple[float, Callable[[], Law1D]]]:
    """The time after every row, and what makes the table of the law there, eq. (1).

    Args:
        run: a sampler and a model in one dimension.
        start: the law of x_T.
        spacing: of the points, as a share of the narrowest kernel.
        mapped: what makes the law behind a row without noise.

    Raises:
        NotAffine: a row is no Gaussian kernel, or has a memory; the density needs too many
            points, or its mass is lost on them.
        NonFiniteError: it leaves the finite numbers.
    """
    counted = CountedModel(run.model)
    plan = plan_for(run.sampler, run.model.sde, counted.parametrization, run.grid)
    rows = [_Row(run, plan, k) for k in range(len(plan.rows))]
    table: Callable[[], Law1D] = partial(_itself, start)
    density, pilot = _ready(rows[0], start, spacing)
    for row, ahead in zip(rows, [*rows[1:], None], strict=True):
        if density is None:  # the row is a map
            law = mapped(table(), row.mean)
            table = partial(_itself, law)
            density, pilot = _ready(ahead, law, spacing)
            yield row.c.s, table
            continue
        std = row.std(pilot)
        kept = density.p > _EMPTY * density.p.max()
        mean, mass = row.mean.values(density.x[kept]), density.p[kept] * density.h
        table = partial(_table, mean, mass, std)
        yield row.c.s, table
        span = float(mean.max() - mean.min()) + 2 * _TAIL * std
        coarse = _Density.scattered(mean, mass, max(std, span / _PILOT), span / _PILOT)
        pilot, busy = coarse.x, coarse.p > _EMPTY * coarse.p.max()
        width = _needed(ahead, pilot, busy)
        density = None
        if width < math.inf:
            density = _Density.scattered(mean, mass, std, spacing * min(std, width))


def _ready(row: _Row | None, law: Law1D, spacing: float) -> tuple[_Density | None, Array]:
    """A law on the points that a row needs, None where it needs none; points to look at it."""
    pilot = np.linspace(law.x[0], law.x[-1], _PILOT)
    width = _needed(row, pilot, law.density(pilot) > 0)
    if width == math.inf:
        return None, pilot
    return _Density.of(law, spacing * min(width, law.narrowest)), pilot


def _table(mean: Array, mass: Array, std: float) -> Law1D:
    """The law behind a row."""
    law = _Density.scattered(mean, mass, std, _FINE * std).law().thinned()
    return replace(law, narrowest=std)


def _itself(law: Law1D) -> Law1D:
    return law
