"""The laws for which a grid is made, and the many more on which it must not be worse.

A grid that is fitted to Gaussians alone gains a thousandfold there, and loses to a plain one on
mixtures; so the errors that are minimised are those of `family` as well. A group of it holds one
law in three sizes: at a single law the error of one grid may vanish by accident.

It is the accidents that make a grid worse somewhere, and `guards` look for them: many laws, each
for itself. Most have two modes. What goes wrong there is the weight of a mode, it goes wrong in
either direction and vanishes in between; and four numbers are all such laws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdekit.exact.bank import Laws

__all__ = ["OFFSET", "SIZES", "SPECTRUM", "family", "gaussians", "guards"]

Array = NDArray[np.float64]
Parts = tuple[Array, Array, Array]  # weights, means, deviations

SPECTRUM = np.logspace(-3, 1, 12)  # variances, where none are given; the mixtures belong to them
SIZES = (0.8, 1.0, 1.25)  # of the laws of a group
OFFSET = 0.3  # mean of a Gaussian, in units of the largest deviation's: nothing is centred

_GROUPS = 60  # of the family
_SEED = 2024  # from which it is drawn; the guards have the next one
_TILT = 0.5  # deviation of log w between the laws of a group
_PAIRS = 2048  # guards of two modes
_LOW = (0.03, 0.5, 0.05, 0.05)  # of theirs: the least weight, gap and deviations
_HIGH = (0.5, 7.0, 1.0, 1.0)
_SEVERAL = 512  # guards of three to seven modes
_LIGHTEST = 1e-3  # weight of a mode among them


@cache
def family() -> Laws:
    """The mixtures of unit scale, three a group: at random, alike, nested, rare, in combs."""
    draw = np.random.default_rng(_SEED)  # of its own: nothing global is touched
    kinds = (_scattered, _alike, _nested, _rare, _comb, _narrow)
    laws: list[Parts] = []
    for i in range(_GROUPS):
        weights, means, stds = kinds[i % len(kinds)](draw)
        for size in SIZES:
            tilted = weights * np.exp(_TILT * draw.normal(size=len(weights)) * (size != 1))
            laws.append((tilted, size * means, size * stds))
    return _table(laws)


@cache
def guards() -> Laws:
    """Mixtures of unit scale: pairs of modes evenly over all of them, and several modes."""
    low, high = np.log(_LOW), np.log(_HIGH)
    even = torch.quasirandom.SobolEngine(len(low), scramble=True, seed=_SEED + 1).draw(_PAIRS)
    laws = [
        _pair(w, gap, np.array(stds))
        for w, gap, *stds in np.exp(low + (high - low) * even.double().numpy())
    ]
    draw = np.random.default_rng(_SEED + 1)
    for _ in range(_SEVERAL):
        k = int(draw.integers(3, 8))
        weights = np.maximum(draw.dirichlet(np.ones(k)), _LIGHTEST)
        means = draw.normal(size=k) * _log_uniform(draw, 0.4, 3.0)
        laws.append((weights, means, _log_uniform(draw, 0.05, 1.0, k)))
    return _table(laws)


def gaussians(variances: Sequence[float] | Array, sizes: Sequence[float] = SIZES) -> Laws:
    """One law for every variance and size, the sizes of a variance together."""
    centre = OFFSET * math.sqrt(max(variances) / float(SPECTRUM.max()))
    one = np.ones(1)
    pairs = [(size, math.sqrt(v)) for v in variances for size in sizes]
    return _table([(one, size * centre * one, size * std * one) for size, std in pairs])


def _table(laws: Sequence[Parts]) -> Laws:
    """Laws of these parts, their weights scaled to the sum 1."""
    k = max(len(weights) for weights, _, _ in laws)

    def padded(column: Array, mode: Any) -> Tensor:
        return torch.from_numpy(np.pad(column, (0, k - len(column)), mode=mode))

    weights = torch.stack([padded(w / w.sum(), "constant") for w, _, _ in laws])
    means = torch.stack([padded(m, "edge") for _, m, _ in laws])
    stds = torch.stack([padded(s, "edge") for _, _, s in laws])
    return Laws(weights, means, stds.square())


# kinds ------------------------------------------------------------------------------------------


def _log_uniform(
    draw: np.random.Generator, low: float, high: float, k: int | None = None
) -> Array:
    return np.exp(draw.uniform(math.log(low), math.log(high), size=k))


def _pair(w: float, gap: float, stds: Array) -> Parts:
    """Two modes about 0."""
    return np.array([w, 1 - w]), np.array([gap * (1 - w), -gap * w]), stds


def _scattered(draw: np.random.Generator) -> Parts:
    k = int(draw.integers(2, 5))
    means = draw.normal(size=k) * _log_uniform(draw, 0.5, 2.7)
    return draw.dirichlet(np.full(k, 1.5)), means, _log_uniform(draw, 0.05, 0.8, k)


def _alike(draw: np.random.Generator) -> Parts:
    k = int(draw.integers(2, 5))
    means = np.linspace(-1, 1, k) * _log_uniform(draw, 0.6, 3.7)
    return np.full(k, 1 / k), means, np.full(k, _log_uniform(draw, 0.05, 0.8))


def _nested(draw: np.random.Generator) -> Parts:
    k = int(draw.integers(2, 4))
    return draw.dirichlet(np.full(k, 2.0)), np.zeros(k), _log_uniform(draw, 0.05, 2.0, k)


def _rare(draw: np.random.Generator) -> Parts:
    w, gap = draw.uniform(0.03, 0.5), _log_uniform(draw, 0.5, 7.4)
    return _pair(w, float(gap), _log_uniform(draw, 0.05, 1.0, 2))


def _comb(draw: np.random.Generator) -> Parts:
    k, gap = int(draw.integers(4, 9)), _log_uniform(draw, 0.3, 1.2)
    means = gap * (np.arange(k) - (k - 1) / 2)
    return np.full(k, 1 / k), means, np.full(k, gap * draw.uniform(0.08, 0.5))


def _narrow(draw: np.random.Generator) -> Parts:
    w, gap = _log_uniform(draw, 0.01, 0.2), _log_uniform(draw, 0.4, 8)
    stds = np.array([_log_uniform(draw, 0.03, 0.3), _log_uniform(draw, 0.1, 1)])
    return _pair(float(w), float(gap), stds)
