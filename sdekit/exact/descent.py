r"""The descent to a grid on which no kind of data fares worse: a penalty and linear programs.

With l_i the logarithm of an error over that on a reference grid, the first n of them those that
are to fall, the value of a grid is

    (1 / n) (sum_{i < n} l_i + price sum_i max(0, l_i + margin))                                (1)

and the grids near a base, with steps h_j in the log-SNR, are those with the steps

    h_j exp(sum_k w_k cos(pi k (j + 1/2) / n)),                                                 (2)

scaled to the same sum. In w, (1) is minimised by linear programs, in which the l_i are linear, in
a trust region that shrinks where they mislead.

Reference: Nocedal and Wright, Numerical Optimization, section 18.5 (l1 penalties and trust
regions).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.sde.base import LinearSDE

__all__ = ["Merit", "Path", "descended"]

Array = NDArray[np.float64]

_TERMS = 12  # of the cosine series
_RADIUS = 0.3  # of a weight, in the first program
_SMALLEST = 1e-3  # radius
_STEP = 1e-3  # of a weight, for differences
_WORTH = 3e-4  # of eq. (1), that is worth a program


@dataclass(frozen=True)
class Merit:
    """Eq. (1).

    Attributes:
        gains: how many logarithms are to fall, n.
        price: of the others' rising, and of theirs.
        margin: below which they shall stay.
    """

    gains: int
    price: float
    margin: float

    def __call__(self, logs: Array) -> float:
        """The value; infinite where a run failed."""
        worse = np.maximum(0.0, logs + self.margin)
        total = float(logs[: self.gains].sum() + self.price * worse.sum()) / self.gains
        return total if math.isfinite(total) else math.inf

    def programmed(self, at: Array, slopes: Array, radius: float) -> Array | None:
        """The best move with linear l_i, by slacks s_i >= max(0, l_i + margin)."""
        if not np.isfinite(slopes).all():
            return None
        rows, n = slopes.shape
        found = linprog(
            np.concatenate([slopes[: self.gains].sum(0), np.full(rows, self.price)]) / self.gains,
            A_ub=np.hstack([slopes, -np.eye(rows)]),
            b_ub=-self.margin - at,
            bounds=[(-radius, radius)] * n + [(0, None)] * rows,
        )
        return None if found.x is None else found.x[:n]


@dataclass(frozen=True, eq=False)
class Path:
    """The grids near a base, eq. (2).

    Attributes:
        sde: the process.
        base: a grid [(steps + 1,)].
        level: the log-SNR along it, without a last time where it is infinite.
        terms: how many weights; 0 where nothing can move.
    """

    sde: LinearSDE
    base: Tensor
    level: Tensor
    terms: int

    @classmethod
    def near(cls, base: Tensor, sde: LinearSDE) -> Path:
        """The path about a grid."""
        inner = base[:-1] if float(sde.var(float(base[-1]))) == 0 else base
        free = len(inner) - 2 + (len(inner) < len(base))
        return cls(sde, base, sde.log_snr(inner), max(0, min(_TERMS, free)))

    def __call__(self, weights: Array) -> Tensor | None:
        """The grid with these weights [(terms,)]; None where there is none."""
        steps = self.level.diff()
        n = len(steps)
        closed = len(self.level) == len(self.base)  # else the last of the levels may move too
        order = torch.arange(self.terms, dtype=torch.float64) + closed
        places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        series = torch.cos(math.pi * order[:, None] * places)
        moved = steps * (torch.from_numpy(weights) @ series).clamp(-20, 20).exp()
        if closed:
            moved = moved * (steps.sum() / moved.sum())
        inside = self.level[0] + moved.cumsum(0)[: n - closed]
        try:
            times = self.sde.t_from_log_snr(inside)
        except SdekitError:  # beyond the last level
            return None
        grid = torch.cat([self.base[:1], times, self.base[1 + len(times) :]])
        return grid if bool((grid.diff() < 0).all()) else None


def descended(logs: Callable[[Array], Array], w: Array, merit: Merit, programs: int) -> Array:
    """The weights at a minimum of eq. (1).

    Args:
        logs: the l_i [(rows,)] as a function of the weights; infinite where a run fails.
        w: where to begin [(n,)].
        merit: the value.
        programs: how many linear ones, at most.
    """
    at = logs(w)
    best, radius = merit(at), _RADIUS
    slopes: Array | None = None
    for _ in range(programs):
        if slopes is None:
            moved = [logs(w + step) - at for step in _STEP * np.eye(len(w))]
            slopes = np.stack(moved, axis=1) / _STEP
        move = merit.programmed(at, slopes, radius)
        if move is None:
            break
        promised = best - merit(at + slopes @ move)
        if promised <= _WORTH:
            break
        there = logs(w + move)
        reached = merit(there)
        kept = (best - reached) / promised
        if kept > 0.01:
            w, at, best, slopes = w + move, there, reached, None
        radius *= 2.0 if kept > 0.7 else 0.4 if kept < 0.3 else 1.0
        if radius < _SMALLEST:
            break
    return w
