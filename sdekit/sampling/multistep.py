r"""Samplers that combine predictions: rows of one or several calls, with memory.

    x_s = a x_t + sum_j w_j m_j + std z                                                       (1)

over the predictions m_j of this row's calls and of earlier rows. The state that a sampler carries
is the tuple of the earlier predictions, the latest first: explicit, and empty at the first row.
The first rows of a multistep sampler know fewer predictions than its order:

    "rising"    they have orders 1, 2, ..., as published everywhere: the first row alone then costs
                an error of h^2, so that a method of order 3 or more converges at order 2
    "heun"      the first row repeats itself with the prediction at its end, for one call more: the
                error of the start is of h^3

The last rows may fall back to lower orders one by one, where steps are few.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sdekit._check import choice, integer
from sdekit.sampling.base import CountedModel, Sampler, kick
from sdekit.sampling.integrals import Levels, ramp
from sdekit.sampling.noise import Noise
from sdekit.sampling.plan import Array, Mix
from sdekit.sde.base import LinearSDE

__all__ = ["Corrected", "Multistep", "Staged", "combined", "past"]


def combined(
    x: Tensor, a: float, values: tuple[Tensor, ...], weights: tuple[float, ...]
) -> Tensor:
    """A x + sum of weights[j] values[j], a new tensor; what has no weight costs nothing."""
    y = torch.mul(x, a)
    for value, weight in zip(values, weights, strict=False):
        if weight:
            y.add_(value, alpha=weight)
    return y


def past(column: Array, count: int) -> Array:
    """Each row with the `count` - 1 before it [(K, count)]; the first rows repeat the first."""
    rows = np.arange(len(column))[:, None] - np.arange(count)
    return column[np.maximum(rows, 0)]


class Staged(Sampler):
    """A sampler whose row is a list of stages, the last of which is the row's result.

    Its columns have `stages`: dicts with the time `t` and the prediction `what` of a call, and x,
    w, std for what follows from it; w is of this row's predictions, then of those of earlier rows.
    A stage may have `present`, and is left out of the rows where that is false.
    """

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """The stages in turn, each from x; the first prediction is remembered."""
        seen: tuple[Tensor, ...] = ()
        earlier, y = state or (), x
        for stage in c.stages:
            seen = (*seen, model(y, stage.t).mix(stage.what))
            y = kick(combined(x, stage.x, seen + earlier, stage.w), stage.std, noise)
        return y, (seen[0], *earlier)[: self.memory]


@dataclass(frozen=True, kw_only=True)
class Multistep(Staged):
    """One call a row, and the predictions of order - 1 earlier rows, eq. (1).

    A subclass says what is predicted, in which variable predictions are a polynomial, and what
    such a polynomial integrates to.
    """

    order: int = 2
    final_order: int | None = None
    warmup: str | None = "rising"
    most: ClassVar[int] = 4
    few: ClassVar[int] = 0  # rows below which orders fall to 1 where final_order is None

    def __post_init__(self) -> None:
        self._set(order=integer("order", self.order, ge=1, le=self.most))
        choice("warmup", self.start, self._warmups())
        if self.final_order is not None:
            integer("final_order", self.final_order, ge=1, le=self.order)

    @classmethod
    def _warmups(cls) -> tuple[str, ...]:
        return ("rising", "heun")

    @property
    def start(self) -> str | None:
        """The warm-up: the field, or what None stands for."""
        return self.warmup

    @abstractmethod
    def what(self, t: Array) -> Mix:
        """The prediction that a call at t gives."""

    @abstractmethod
    def variable(self, level: Levels) -> Array:
        """u at the times of a grid [(K + 1,)]: predictions are a polynomial in it."""

    @abstractmethod
    def integral(
        self, sde: LinearSDE, at: Levels, to: Levels, nodes: Array, order: Array
    ) -> dict[str, Array]:
        """x, w and std of eq. (1), for predictions at nodes r = (u - u_t)/(u_s - u_t) [(K, m)]."""

    @property
    def weak_order(self) -> int:
        """As far as the first row and the last one let it."""
        last = self.order if self.final_order is None else self.final_order + 1
        return min(self.order, last, {"rising": 2, "heun": 3}.get(str(self.start), self.order))

    @property
    def exact_on(self) -> frozenset[str]:
        """A point: along the flow its x_0 and its eps are constant."""
        return frozenset({"point"})

    @property
    def warmup_nfe(self) -> int:
        """One, where the first row is repeated."""
        return int(self.start == "heun" and self.order > 1)

    @property
    def memory(self) -> int:
        """The earlier predictions of a row."""
        return self.order - 1

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Eq. (1) for the rows, and for the repetition of the first one."""
        level = Levels(sde, grid)
        at, to, u = level[:-1], level[1:], self.variable(level)
        h = np.where(np.isfinite(u[1:]), u[1:] - u[:-1], 1.0)[:, None]
        nodes = (past(u[:-1], self.order) - u[:-1, None]) / h
        order = ramp(len(h), self.order, self.final_order, self.few)
        if self.order == 1 or self.start != "heun":
            row = self.integral(sde, at, to, nodes, order)
            return {"stages": [{"t": at.t, "what": self.what(at.t), **row}]}
        # one more row, the repetition of the first: two nodes, its own end among them
        more = [*range(len(h)), 0]
        nodes = np.concatenate([nodes, np.eye(self.order)[1:2]])
        row = self.integral(sde, at[more], to[more], nodes, np.append(order, 2))
        first = {name: column[:-1] for name, column in row.items()}
        second = {
            name: np.broadcast_to(column[-1:], first[name].shape) for name, column in row.items()
        }
        again = (np.arange(len(h)) == 0) & (to.sigma > 0)
        call = np.where(again, to.t, at.t)
        return {
            "stages": [
                {"t": at.t, "what": self.what(at.t), **first},
                {"t": call, "what": self.what(call), **second, "present": again},
            ]
        }


class Corrected(Sampler):
    """A multistep predictor with a corrector that uses the call which the next row makes anyway.

    Columns: `what` of the call at t; x, w and std of the row from here; and, where `corrects` is
    not 0, `correct` with x, w and std, which repeats the row that led here with the prediction
    here among the values and with the noise that it drew. In the state: where the last row began,
    its noise, the predictions, and what it returned.
    """

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """One call; the correction of the last row; the prediction of this one."""
        seen: tuple[Tensor, ...] = (model(x, c.t).mix(c.what),)
        if state:
            start, z, earlier, left = state
            seen += earlier
            if c.corrects:
                came, x = x, combined(start, c.correct.x, seen, c.correct.w)
                if z is not None:
                    x.add_(z, alpha=c.correct.std)
                if came is not left:  # somebody moved it since: a corrector, known entries
                    x.add_(came).sub_(left)
        y, z = combined(x, c.x, seen, c.w), None
        if c.std:
            z = noise(y)
            y.add_(z, alpha=c.std)
        return y, (x, z, seen[: self.memory], y)
