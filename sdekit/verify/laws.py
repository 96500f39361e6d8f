"""The laws of the time of a loss, as distribution functions written from their papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sdekit.verify.published import WEIGHTS

__all__ = ["LAWS"]


def _phi(x: Tensor) -> Tensor:
    """The distribution function of the standard normal law."""
    return 0.5 * torch.erfc(-x / math.sqrt(2))


def _line(sde: Any, t: Tensor) -> Tensor:
    return (t - sde.t_min) / (sde.t_max - sde.t_min)


def _between_ends(of: Callable[[Tensor], Tensor], sde: Any, t: Tensor) -> Tensor:
    """An increasing function of the time, from 0 at t_min to 1 at t_max."""
    low, high = (of(torch.tensor(end, dtype=torch.float64)) for end in (sde.t_min, sde.t_max))
    return (of(t) - low) / (high - low)


def _log_level(sde: Any, t: Tensor) -> Tensor:
    return torch.log(sde.sigma(t) / sde.alpha(t))


def _karras(law: Any, weighting: Any, sde: Any, t: Tensor) -> Tensor:
    """log(sigma/alpha) ~ N(mean, std^2), given that it lies in the process's range."""
    return _between_ends(lambda t: _phi((_log_level(sde, t) - law.mean) / law.std), sde, t)


def _by_weight(law: Any, weighting: Any, sde: Any, t: Tensor) -> Tensor:
    """The integral of w up to t over the whole, by the trapezoid rule on 20,001 times."""
    grid = torch.linspace(0, 1, 20001, dtype=torch.float64) ** 3
    grid = sde.t_min + (sde.t_max - sde.t_min) * grid
    w = WEIGHTS[weighting.catalogue_name][0](weighting, sde, grid)
    sums = torch.cat([grid[:1] * 0, (0.5 * (w[1:] + w[:-1]) * grid.diff()).cumsum(0)])
    k = torch.searchsorted(grid, t).clamp(1, len(grid) - 1)
    inside = (t - grid[k - 1]) / (grid[k] - grid[k - 1])
    return (sums[k - 1] + inside * (sums[k] - sums[k - 1])) / sums[-1]


# name -> (the distribution function of the time by (law, weighting, process, times), source)
LAWS: Mapping[str, tuple[Callable[[Any, Any, Any, Tensor], Tensor], str]] = {
    "uniform": (lambda law, w, sde, t: _line(sde, t), "arXiv:2011.13456, eq. 7"),
    "stratified": (lambda law, w, sde, t: _line(sde, t), "arXiv:2107.00630, appendix I.1"),
    "log_normal": (_karras, "arXiv:2206.00364, table 1"),
    "logit_normal": (
        lambda law, w, sde, t: _phi((torch.logit(_line(sde, t)) - law.mean) / law.std),
        "arXiv:2403.03206, eq. 19",
    ),
    "log_snr": (
        lambda law, w, sde, t: _between_ends(lambda t: _log_level(sde, t), sde, t),
        "arXiv:2107.00630, section 5.1",
    ),
    "importance": (_by_weight, "arXiv:2101.09258, section 5"),
}
