r"""Explicit Runge-Kutta steps of the probability flow in t, on the grid.

    dx/dt = f(t) x - 1/2 g(t)^2 score(x, t)                                                   (1)

Reference: Song et al., arXiv:2011.13456, eq. 13; Hairer, Norsett and Wanner, Solving Ordinary
Differential Equations I, tables II.1.1 and II.1.2 (tableaus).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._times import as_time
from sdekit.sampling.base import CountedModel, Sampler
from sdekit.sampling.noise import Noise
from sdekit.sampling.plan import Mix
from sdekit.sde.base import LinearSDE

__all__ = ["RK4", "TABLEAUS", "Midpoint", "columns", "taken"]


class Tableau(NamedTuple):
    """Order, stage times, rows of stage weights, final weights."""

    order: int
    nodes: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    final: tuple[float, ...]


TABLEAUS: Mapping[str, Tableau] = {
    "euler": Tableau(1, (0.0,), ((),), (1.0,)),
    "midpoint": Tableau(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": Tableau(2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": Tableau(
        4, (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}  # fmt: skip


def columns(sde: LinearSDE, t: Tensor, s: Tensor, solver: str) -> dict[str, Any]:
    """The stages of eq. (1): times, slopes and weights, multiplied by s - t."""
    _, nodes, weights, final = TABLEAUS[solver]
    stages: dict[str, Any] = {}
    h = (s - t)[:, None]
    # one evaluation for all of the stages: on so few numbers a call costs more than its arithmetic
    distinct = sorted(set(nodes))
    times, _ = as_time(torch.stack([t + v * (s - t) if v < 1 else s for v in distinct]), sde.t_max)
    on_x, on_score = sde.f(times), -0.5 * sde.g2(times)
    for i, (node, row) in enumerate(zip(nodes, weights, strict=True)):
        k = distinct.index(node)
        stages[f"t{i}"] = times[k]
        stages[f"k{i}"] = Mix(times[k], x=on_x[k], score=on_score[k])
        full = (*row, *[0.0] * (len(nodes) - len(row)))
        stages[f"a{i}"] = h * torch.tensor(full, dtype=torch.float64)
    return {**stages, "b": h * torch.tensor(final, dtype=torch.float64)}


def taken(x: Tensor, c: Any, model: CountedModel, stages: int) -> Tensor:
    """One step from c.t to c.s."""
    slopes: list[Tensor] = []
    for i in range(stages):
        y = _advanced(x, slopes, getattr(c, f"a{i}"))
        slopes.append(model(y, getattr(c, f"t{i}")).mix(getattr(c, f"k{i}")))
    return _advanced(x, slopes, c.b)


def _advanced(x: Tensor, slopes: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """x + sum of weights[i] slopes[i]."""
    y = x
    for slope, weight in zip(slopes, weights, strict=False):
        if weight:
            y = torch.add(y, slope, alpha=weight) if y is x else y.add_(slope, alpha=weight)
    return y


class _OnGrid(Sampler):
    """One step a row by a tableau."""

    solver: ClassVar[str]

    @property
    def order(self) -> int:
        """The tableau's."""
        return TABLEAUS[self.solver].order

    @property
    def nfe_per_step(self) -> int:
        """The stages."""
        return len(TABLEAUS[self.solver].nodes)

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """The stages of eq. (1)."""
        t, s = self.times(sde, grid)
        return columns(sde, t, s, self.solver)

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """One Runge-Kutta step."""
        return taken(x, c, model, self.nfe_per_step), state


@register("sampler", "midpoint", paper="arXiv:2011.13456, eq. 13")
@dataclass(frozen=True, kw_only=True)
class Midpoint(_OnGrid):
    """The midpoint method on the probability flow in t: two calls a row, order 2.

    k = slope(x_t, t),  x_s = x_t + (s - t) slope(x_t + (s - t) k / 2, (t + s) / 2), eq. (1).

    Raises:
        ConfigError: at planning, on a DDPM where it needs the model at t = 0.

    Reference: arXiv:2011.13456, eq. 13; Hairer et al., table II.1.1.

    Example:
        >>> Midpoint().nfe_per_step
        2
    """

    solver: ClassVar[str] = "midpoint"


@register("sampler", "rk4", paper="arXiv:2011.13456, eq. 13")
@dataclass(frozen=True, kw_only=True)
class RK4(_OnGrid):
    """The classical Runge-Kutta method on the probability flow in t: four calls, order 4.

    Raises:
        ConfigError: at planning, on a DDPM where it needs the model at t = 0.

    Reference: arXiv:2011.13456, eq. 13; Hairer et al., table II.1.2.

    Example:
        >>> RK4().order
        4
    """

    solver: ClassVar[str] = "rk4"
