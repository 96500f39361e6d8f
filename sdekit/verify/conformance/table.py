r"""The measurement of a row: exact errors at some numbers of steps, their order, and the checks.

Data are Gaussian with variances 0.01, 0.2, 1 and 6 and means that are not 0, for on a single
variance some samplers pass through zero error on the way. The model is exact. The start is the
true law at the first time of the sampler's own list, so that what is left is the sampler's. The
error is

    W_2(law of the result, law of the data),                                                 (1)

the law by `sdekit.exact.probe_callable`, without Monte Carlo. The order is the slope of log (1)
over log n by `sdekit.exact.order.fit_slope`, on doubled numbers of steps and on divisors of 1000:
where n does not divide a chain its steps are uneven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.errors import ConfigError
from sdekit.exact import bures_wasserstein, output_law, probe_callable
from sdekit.exact.order import Slope, fit_slope
from sdekit.model import ExactScore
from sdekit.sde import DDPM, VPSDE
from sdekit.targets import Gaussian
from sdekit.verify.conformance.libraries import SINGLE, quiet, walk
from sdekit.verify.conformance.rows import Row, version
from sdekit.verify.front import check
from sdekit.verify.probes import inner_grid
from sdekit.verify.probes import spectrum as dense
from sdekit.verify.report import Report

__all__ = ["COUNTS", "DIVISORS", "Measured", "errors_of", "measure", "scheduler_error"]

COUNTS = (10, 20, 40, 80, 160)
DIVISORS = (10, 20, 50, 100)
EXAMPLES = 5  # cases a check: a run of a scheduler takes a millisecond a step


@dataclass(frozen=True)
class Measured:
    """What was found of a row.

    Attributes:
        row: the row.
        version: of its library.
        errors: eq. (1) at `COUNTS`.
        slope: their order, or None where none can be seen.
        even: the order at `DIVISORS`, where a chain has them.
        report: of the checks, or None for sdekit's own: `sdekit verify` asks them.
    """

    row: Row
    version: str
    errors: tuple[float, ...]
    slope: Slope | None
    even: Slope | None
    report: Report | None


def spectrum() -> Gaussian:
    """The data."""
    data = dense()
    return Gaussian.from_spectrum(data.mean, data.cov.diagonal())


def scheduler_error(made: object, steps: int, data: Gaussian) -> float:
    """Eq. (1) of a scheduler.

    Args:
        made: the scheduler.
        steps: how many are asked for.
        data: the data, without a matrix.

    Raises:
        SdekitError: the scheduler refuses, or returns NaN.
    """
    chain = DDPM(torch.as_tensor(made.betas).double())  # type: ignore[attr-defined]
    model = ExactScore(data, chain)

    mean, var, levels = data.mean, data.spectrum[0], {}

    def eps(x: Tensor, t: float) -> Tensor:
        """The model's, by its formula: a run asks at the same times again and again."""
        if t not in levels:
            levels[t] = float(chain.alpha(t)), float(chain.sigma(t))
        alpha, sigma = levels[t]
        return sigma * (x - alpha * mean) / (alpha**2 * var + sigma**2)

    def f(x: Tensor) -> Tensor:
        return walk(made, eps, x, steps)

    with quiet():
        made.set_timesteps(steps)  # type: ignore[attr-defined]
    first = (float(made.timesteps[0]) + 1) / chain.n  # type: ignore[attr-defined]
    start = model.at(first)
    assert isinstance(start, Gaussian)
    return float(bures_wasserstein(probe_callable(f, start, tolerance=SINGLE), data))


def errors_of(row: Row, counts: Sequence[int], data: Gaussian | None = None) -> tuple[float, ...]:
    """Eq. (1) at these numbers of steps."""
    data = spectrum() if data is None else data
    if row.library == "azula":
        return tuple(_azula_error(row, n, data) for n in counts)
    if row.library == "sdekit":
        model = ExactScore(data, DDPM.linear(1000))
        laws = [
            output_law(row.cls, model, steps=n, grid="ddpm_trailing", prior=model.at(1.0))
            for n in counts
        ]
        return tuple(float(bures_wasserstein(law, data)) for law in laws)
    made = row.function().made  # type: ignore[attr-defined]
    return tuple(scheduler_error(made, n, data) for n in counts)


def _azula_error(row: Row, steps: int, data: Gaussian) -> float:
    """On VP, equal steps in the log-SNR between 0.05 and 0.95 of the interval."""
    sde = VPSDE()
    model, grid, function = ExactScore(data, sde), inner_grid(sde, steps), row.function()
    start, end = (model.at(float(t)) for t in (grid[0], grid[-1]))
    assert isinstance(start, Gaussian)
    assert isinstance(end, Gaussian)

    def f(x: Tensor) -> Tensor:
        return function(model, x, grid, torch.randn_like)

    return float(bures_wasserstein(probe_callable(f, start), end))


def _slope(counts: Sequence[int], errors: Sequence[float]) -> Slope | None:
    try:
        return fit_slope(counts, errors)
    except ConfigError:
        return None


def measure(row: Row, *, checks: bool = True) -> Measured:
    """All of a row.

    Args:
        row: the row.
        checks: whether the checks of samplers are asked too.

    Raises:
        ImportError: its library is not installed.
    """
    counts = COUNTS if row.library == "azula" else tuple(sorted({*COUNTS, *DIVISORS}))
    found = dict(zip(counts, errors_of(row, counts), strict=True))
    errors = tuple(found[n] for n in COUNTS)
    even = None if row.library == "azula" else _slope(DIVISORS, [found[n] for n in DIVISORS])
    report = None
    if checks and row.library != "sdekit":
        report = check(row.function(), kind="sampler", max_examples=EXAMPLES)
    return Measured(row, version(row.library), errors, _slope(COUNTS, errors), even, report)
