r"""The order at which a sampler converges, measured: in distribution and path by path.

On the same interval of time, from the true x_T, n steps leave an error e(n) = C n^-p (1 + O(1/n)):

- *weak*: the distance of the output's exact mean and variance from the true ones, on Gaussian data
  of several variances (`output_law`, no Monte Carlo);
- *strong*: the root mean square of x_n - x_2n, two runs driven by one Brownian path, which has the
  order of the distance from the limit of all refinements.

p is minus the slope of log2 e over log2 n on the asymptotic window, which is detected in two cuts:

- its *end* is the finest n. Rounding may lie before it: while the last error is below sqrt(eps)
  = 1.5e-8 and its local slope differs from the one before, or hardly falls, that point is dropped;
- its *beginning* is the coarsest n from which on every local slope is that of the end within
  a tenth (of it, or of 1 where it is smaller). At least three points belong to it.

A point's weight falls with the difference between the local slope that begins there and the last
one, the distance from asymptotia. The interval is that of the regression's t statistics at 95 %,
wider by the distance to where the local slopes drift: with corrections of order 1/n their changes
halve each time, and those still to come add up to the last one.

Reference: Kloeden and Platen, Numerical Solution of Stochastic Differential Equations (1992),
sections 9.6 and 9.7, for the two kinds of convergence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor

from sdekit._catalogue import make_one
from sdekit._check import integer, number, shown
from sdekit.errors import ConfigError, DtypeError
from sdekit.exact.affine import output_law
from sdekit.model import ExactScore
from sdekit.sampling.base import Sampler
from sdekit.sampling.brownian import Brownian
from sdekit.sampling.noise import seed_from
from sdekit.sampling.plan import plan_for
from sdekit.sampling.run import iterate
from sdekit.sde.base import LinearSDE
from sdekit.targets import Gaussian

__all__ = ["Order", "Slope", "convergence_order", "fit_slope"]

_LADDER = tuple(10 * 2**k for k in range(7))
_STRONG_STEPS = 320  # the most of a run on paths, where three errors do not need more
_VARIANCES, _MEANS = (0.01, 0.2, 1.0, 6.0), (0.7, -1.0, 0.2, 2.0)
_ROUNDING = math.sqrt(np.finfo(np.float64).eps)  # below it an error may be rounding
_STEADY = 0.1  # local slopes that differ by less, of their size, are of one window
_FALLING = 0.5  # and a slope below this, at errors that may be rounding, is rounding
_LEAST = 3  # points of a window: a slope and its drift
_SHARP = 0.01  # differences of slopes below this do not count in the weights


class Slope(NamedTuple):
    """The order p of errors C n^-p.

    Attributes:
        value: p.
        interval: of 95 %, by the regression and the remaining drift.
        window: the smallest and the largest n that it rests on.
    """

    value: float
    interval: tuple[float, float]
    window: tuple[int, int]


@dataclass(frozen=True)
class Order:
    """What `convergence_order` measured.

    Attributes:
        weak: the order of the moments.
        strong: the order path by path; None for a deterministic sampler, for one whose rows are
            not the steps of the grid, and for fewer than four numbers of steps.
        interval: of 95 %, of weak.
        window: the smallest and the largest number of steps that weak rests on.
        steps: the numbers of steps that were run.
        errors: the errors of the moments at them.
    """

    weak: float
    strong: float | None
    interval: tuple[float, float]
    window: tuple[int, int]
    steps: tuple[int, ...]
    errors: tuple[float, ...]

    def __str__(self) -> str:
        """One line."""
        low, high = self.interval
        strong = "" if self.strong is None else f", strong order {self.strong:.2f}"
        return (
            f"weak order {self.weak:.2f} ({low:.2f} to {high:.2f}) over {self.window[0]} to "
            f"{self.window[1]} steps{strong}"
        )


def fit_slope(steps: Sequence[int], errors: Sequence[float], *, scatter: float = 0.0) -> Slope:
    """The order p of errors C n^-p, by weighted regression on the asymptotic window.

    Args:
        steps: n, increasing; doubling is best.
        errors: e(n) >= 0.
        scatter: the relative standard error of an error, where it was sampled: local slopes are
            then compared, and weighted, no sharper than it lets them be.

    Raises:
        ConfigError: fewer than three errors above rounding, or one that is not finite.

    Example:
        >>> n = [10, 20, 40, 80, 160]
        >>> found = fit_slope(n, [5.0, *(3 / k**2 for k in n[1:])])  # 10 steps are too few
        >>> round(found.value, 6), found.window
        (2.0, (20, 160))
    """
    n = np.asarray(steps, dtype=np.float64)
    e = np.asarray(errors, dtype=np.float64)
    if len(n) != len(e) or not np.isfinite(e).all() or (np.diff(n) <= 0).any():
        raise ConfigError(f"a finite error for every of increasing steps is needed, got {errors}")
    count = len(e) if e.all() else int((e == 0).argmax())  # nothing after a zero is a power of n
    x, y = np.log2(n[:count]), np.log2(e[:count])
    slopes = -np.diff(y) / np.diff(x)
    blur = math.sqrt(2) / math.log(2) * scatter  # of the slope of a doubling
    end = len(y)
    while end >= _LEAST and e[end - 1] < _ROUNDING and not _falls(slopes[: end - 1]):
        end -= 1
    if end < _LEAST:
        raise ConfigError(
            f"no order can be seen: the errors {', '.join(f'{v:.1e}' for v in e)} are at rounding "
            "but for fewer than three; take coarser steps, or data on which the sampler errs"
        )
    last = slopes[end - 2]
    off = np.abs(slopes[: end - 1] - last)
    begin = end - _LEAST
    while begin > 0 and off[begin - 1] <= _STEADY * max(1.0, abs(last)) + 2 * blur:
        begin -= 1
    weights = 1 / (np.append(off, 0.0)[begin:end] ** 2 + _SHARP**2 + blur**2)
    slope, stderr = _regression(x[begin:end], y[begin:end], weights)
    limit = 2 * last - slopes[end - 3]  # where slopes go whose changes halve
    half = float(special.stdtrit(end - begin - 2, 0.975)) * stderr + abs(float(limit) + slope)
    return Slope(-slope, (-slope - half, half - slope), (int(n[begin]), int(n[end - 1])))


def _falls(slopes: np.ndarray) -> bool:
    """Whether the last slope is that of an error which still falls as before."""
    last, before = slopes[-1], slopes[-2]
    return last > _FALLING and abs(last - before) <= _STEADY * max(1.0, last)


def _regression(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """The slope of weighted least squares and its standard error, weights up to a factor."""
    weights = weights / weights.sum()
    away = x - weights @ x
    spread = weights @ away**2
    slope = weights @ (away * y) / spread
    rest = y - weights @ y - slope * away
    return float(slope), float(np.sqrt(weights @ rest**2 / (len(x) - 2) / spread))


def convergence_order(
    sampler: str | Sampler,
    sde: str | LinearSDE,
    *,
    target: Gaussian | None = None,
    steps: Sequence[int] | None = None,
    interval: tuple[float, float] = (0.05, 0.95),
    paths: int = 64,
    seed: int = 0,
) -> Order:
    """Measure the order of a sampler on an SDE: its real steps, against the exact law.

    The weak error is the largest relative error of a variance and error of a mean (in standard
    deviations) over the principal axes of the data. One that claims no order (order=None: a
    corrector, or a bias that no number of steps takes away) is measured all the same, weakly.

    Args:
        sampler: a sampler of fixed steps, or the spelling of one.
        sde: a continuous SDE, or the spelling of one.
        target: Gaussian data; by default with variances 0.01, 0.2, 1 and 6 and means that are
            not 0.
        steps: at least three increasing numbers of steps; by default 10, 20, 40 .. 640. The strong
            order needs four of them, each twice the one before, and uses those up to 320.
        interval: where the steps lie, in units of t_max, uniform in the log-SNR.
        paths: how many Brownian paths the strong error is the mean of.
        seed: of the paths.

    Returns:
        An `Order`.

    Raises:
        ConfigError: an adaptive sampler, a chain, fewer than three numbers of steps, errors at
            rounding.
        DtypeError: target is no Gaussian.
        NotAffine: the sampler's steps depend on the sample.
        TimeError: the interval leaves [t_min, t_max].

    Reference: Kloeden and Platen (1992), sections 9.6 and 9.7.

    Example:
        >>> from sdekit import VPSDE
        >>> print(convergence_order("heun", VPSDE(), steps=(20, 40, 80, 160)))
        weak order 2.02 (1.97 to 2.08) over 20 to 160 steps
    """
    method: Sampler = make_one("sampler", sampler, Sampler)
    process: LinearSDE = make_one("sde", sde, LinearSDE)
    _refuse_without_order(method, process)
    if target is None:
        means, variances = (torch.tensor(v, dtype=torch.float64) for v in (_MEANS, _VARIANCES))
        target = Gaussian.from_spectrum(means, variances)
    elif not isinstance(target, Gaussian):
        raise DtypeError(f"target must be a Gaussian, got {shown(target)}")
    counts = tuple(integer("steps", n, ge=1) for n in (_LADDER if steps is None else steps))
    if len(counts) < _LEAST or any(b <= a for a, b in pairwise(counts)):
        raise ConfigError(f"steps must be at least {_LEAST} increasing numbers, got {counts}")
    low = number("interval[0]", interval[0], gt=0, lt=1)
    high = number("interval[1]", interval[1], gt=low, le=1)
    integer("paths", paths, ge=1, error=ConfigError)
    model = ExactScore(target, process)
    grids = [inner_grid(process, n, low, high) for n in counts]
    errors = tuple(_moment_error(method, model, grid) for grid in grids)
    weak = fit_slope(counts, errors)
    strong = None
    doubling = all(b == 2 * a for a, b in pairwise(counts))  # the distances are those of n to 2 n
    followed = len(counts) > _LEAST and doubling and _one_row_a_step(method, model, grids[0])
    if "noise" in method.needs and followed and method.order is not None:
        rungs = max(sum(n <= _STRONG_STEPS for n in counts), _LEAST + 1)
        strong = _strong_order(method, model, counts[:rungs], grids[:rungs], paths, seed)
    return Order(weak.value, strong, weak.interval, weak.window, counts, errors)


def _refuse_without_order(sampler: Sampler, sde: LinearSDE) -> None:
    """ConfigError where there is nothing to measure."""
    if "adaptive" in sampler.needs:
        raise ConfigError(f"{sampler!r} chooses its own steps: it has no order in their number")
    if "ddpm" in sde.kinds:
        raise ConfigError(
            f"{sde!r} is a chain, and steps cannot be refined between its nodes: measure on a "
            "continuous SDE such as vp"
        )


def inner_grid(sde: LinearSDE, steps: int, low: float, high: float) -> Tensor:
    """Equal steps in the log-SNR between low and high times t_max [(steps + 1,)]."""
    ends = torch.tensor([high * sde.t_max, low * sde.t_max], dtype=torch.float64)
    first, last = sde.log_snr(ends).tolist()
    inner = torch.linspace(first, last, steps + 1, dtype=torch.float64)[1:-1]
    return torch.cat([ends[:1], sde.t_from_log_snr(inner), ends[1:]])


def _moment_error(sampler: Sampler, model: ExactScore, grid: Tensor) -> float:
    """The largest error of a variance (relative) and of a mean (in standard deviations)."""
    found = output_law(sampler, model, grid=grid, prior=model.at(float(grid[0])))
    truth = model.at(float(grid[-1]))
    assert isinstance(truth, Gaussian)  # as the target is one
    away, cov = found.mean - truth.mean, found.cov
    variances, axes = truth.spectrum
    if axes is not None:
        away, cov = axes.T @ away, axes.T @ cov @ axes
    relative = (cov.diagonal() / variances - 1).abs()
    return float(torch.maximum(relative, away.abs() / variances.sqrt()).max())


def _one_row_a_step(sampler: Sampler, model: ExactScore, grid: Tensor) -> bool:
    """Whether the rows of a run are the steps of its grid, as a Brownian path needs them."""
    visited = plan_for(sampler, model.sde, model.parametrization, grid).grid
    return torch.equal(visited, grid)


def _strong_order(
    sampler: Sampler,
    model: ExactScore,
    counts: Sequence[int],
    grids: Sequence[Tensor],
    paths: int,
    seed: int,
) -> float:
    """The order of the distance between runs of neighbouring numbers of steps on one path."""
    key = seed_from(seed)
    source = torch.Generator().manual_seed(key % 2**63)
    start, end = (model.at(float(t)) for t in (grids[0][0], grids[0][-1]))
    x = start.sample(paths, generator=source, dtype=torch.float64)
    assert isinstance(end, Gaussian)
    std = end.cov.diagonal().sqrt()
    out = [_driven(sampler, model, x, grid, Brownian(key)) for grid in grids]
    apart = [float(((a - b) / std).square().mean().sqrt()) for a, b in pairwise(out)]
    # as if one axis of the data made the whole error
    return fit_slope(counts[:-1], apart, scatter=1 / math.sqrt(2 * paths)).value


def _driven(
    sampler: Sampler, model: ExactScore, x: Tensor, grid: Tensor, noise: Brownian
) -> Tensor:
    """The end of a run [(paths, d)] along these paths."""
    with torch.no_grad():
        for frame in iterate(model, x, sampler=sampler, grid=grid, noise=noise):
            x = frame.x
    return x
