"""The SDEs that every test runs over, their smooth times and pairs of times, two exact densities.

Strategies, odd SDEs and the density at every noise level are those of the public kit.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.sde import LinearSDE
from sdekit.verify import odd
from sdekit.verify.density import LINE, PLANE, Mixture
from sdekit.verify.odd import PiecewiseBeta, PlainOU, WarpedVP
from sdekit.verify.strategies import _betas, f64, log_uniform, sdes, tables, times, unit_times

__all__ = [
    "EPS", "EVERY", "MIXTURES", "ODD", "Mixture", "PiecewiseBeta", "PlainOU", "WarpedVP", "_betas",
    "every_mixture", "every_sde", "f64", "log_uniform", "own_examples", "pairs", "room", "sdes",
    "smooth_times", "tables", "times", "unit_times",
]  # fmt: skip

EPS = torch.finfo(torch.float64).eps
ODD = {key: sde for key, sde in odd.SDES.items() if isinstance(sde, LinearSDE)}


def catalogue_examples() -> dict[str, LinearSDE]:
    """Every example of every SDE in the catalogue, by a readable id."""
    return {
        f"{name}-{k}": sde
        for name, entry in catalogue("sde").items()
        for k, sde in enumerate(entry.examples())
    }


def own_examples() -> dict[str, LinearSDE]:
    """Those examples whose class belongs to sdekit itself."""
    return {
        key: sde
        for key, sde in catalogue_examples().items()
        if type(sde).__module__.startswith("sdekit.")
    }


EVERY = {**catalogue_examples(), **ODD}

every_sde = pytest.mark.parametrize("sde", EVERY.values(), ids=EVERY)


def kinks(sde) -> list[float]:
    """The times inside (0, t_max) at which f or g jumps."""
    if "ddpm" in sde.kinds:
        return [i / sde.n for i in range(1, sde.n)]
    if sde is ODD["two_lambdas_jump"]:
        return [0.25]
    return list(getattr(sde, "kinks", []))


def smooth_times(sde, n: int = 24, low: float = 1e-6) -> Tensor:
    """Rising times inside (0, t_max) [(<= n,)], log-spaced then even, away from kinks."""
    t = torch.cat(
        [
            torch.logspace(math.log10(low), -1.2, n // 2, dtype=torch.float64),
            torch.linspace(0.08, 0.985, n - n // 2, dtype=torch.float64),
        ]
    )
    t = t * sde.t_max
    if "ddpm" in sde.kinds:  # into their intervals
        first = (t * sde.n).floor()
        t = torch.where(t * sde.n < 0.8, t, (first + 0.1 + 0.8 * (t * sde.n - first)) / sde.n)
        t = t.sort().values
    return t[room(sde, t) > 1e-3 * t]


def room(sde, t: Tensor) -> Tensor:
    """The distance from each t to the nearest of 0, t_max and the kinks [shape of t]."""
    at = torch.tensor([0.0, sde.t_max, *kinks(sde)], dtype=torch.float64)
    return (t[..., None] - at).abs().amin(-1)


def pairs(sde, n: int = 14) -> tuple[Tensor, Tensor]:
    """Times s < t inside (0, t_max], all pairs of a grid; nodes on a DDPM."""
    if "ddpm" in sde.kinds:
        nodes = torch.linspace(1, sde.n, min(n, sde.n)).round().to(torch.int64).unique()
        grid = torch.cat([torch.zeros(1, dtype=torch.float64), sde.time(nodes)])
    else:
        grid = torch.cat([smooth_times(sde, n), torch.tensor([sde.t_max], dtype=torch.float64)])
    s, t = torch.meshgrid(grid, grid, indexing="ij")
    return s[s < t], t[s < t]


MIXTURES = {"1d": LINE, "2d": PLANE}
every_mixture = pytest.mark.parametrize("law", MIXTURES.values(), ids=MIXTURES)
