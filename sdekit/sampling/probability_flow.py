r"""The probability-flow ODE, by explicit Runge-Kutta steps on the grid or by a library's solver.

    dx/dt = f(t) x - 1/2 g(t)^2 score(x, t)                                                   (1)

has the marginals of the SDE. The fixed solvers (euler, midpoint, heun, rk4) take one step a row,
by the tableaus of `sdekit.sampling.runge_kutta`. torchdiffeq's adaptive solvers and SciPy's
(`scipy:RK45`, ...) go from the first time of the grid to the last in one row, with an error
control over the whole batch; on a DDPM they end at the first node, since f and g are not defined
at t = 0.

Reference: Song et al., arXiv:2011.13456, eq. 13.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, integer, number
from sdekit.errors import SdekitError, SolverError
from sdekit.sampling.base import CountedModel, Sampler, count_rejected
from sdekit.sampling.noise import Noise
from sdekit.sampling.runge_kutta import TABLEAUS, columns, taken
from sdekit.sde.base import LinearSDE

__all__ = ["ProbabilityFlow"]

# adaptive solver -> its order
TORCHDIFFEQ = {"dopri5": 5, "dopri8": 8, "bosh3": 3, "fehlberg2": 2, "adaptive_heun": 2}
SCIPY = {"RK45": 5, "RK23": 3, "DOP853": 8, "Radau": 5, "BDF": 5, "LSODA": 5}
_ORDERS: Mapping[str, int] = {
    **{name: tableau.order for name, tableau in TABLEAUS.items()},
    **TORCHDIFFEQ,
    **{f"scipy:{name}": order for name, order in SCIPY.items()},
}


@register("sampler", "probability_flow", paper="arXiv:2011.13456, eq. 13")
@dataclass(frozen=True, kw_only=True)
class ProbabilityFlow(Sampler):
    """The probability-flow ODE, eq. (1).

    Args:
        solver: euler, midpoint, heun or rk4 (steps of the grid); dopri5, dopri8, bosh3, fehlberg2
            or adaptive_heun (torchdiffeq); scipy:RK45, scipy:RK23, scipy:DOP853, scipy:Radau,
            scipy:BDF or scipy:LSODA. The adaptive ones use only the ends of the grid.
        rtol: relative tolerance of the adaptive ones, > 0.
        atol: absolute tolerance, > 0.
        max_nfe: calls after which an adaptive solve fails.

    Raises:
        ConfigError: an unknown solver, a tolerance that is not positive; at planning, a fixed
            solver that needs the model at t = 0 of a DDPM.
        SolverError: the solve did not reach its end: tolerance, step size, max_nfe or non-finite
            model.

    Reference: arXiv:2011.13456, section 4.3 and appendix D.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 1.0), VPSDE())
        >>> x = torch.ones(1, 2, dtype=torch.float64)
        >>> out = sample(model, (1, 2), sampler="probability_flow", x_init=x)
        >>> bool((out.x - x).abs().max() < 1e-6)  # N(0, I) is at rest under its own flow
        True
    """

    solver: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 10_000

    def __post_init__(self) -> None:
        """Check the fields."""
        choice("solver", self.solver, _ORDERS)
        for name in ("rtol", "atol"):
            self._set(**{name: number(name, getattr(self, name), gt=0)})
        self._set(max_nfe=integer("max_nfe", self.max_nfe, ge=1))

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its own steps."""
        return self.solver not in TABLEAUS

    @property
    def order(self) -> int:
        """The solver's."""
        return _ORDERS[self.solver]

    @property
    def nfe_per_step(self) -> int:
        """The stages of a fixed solver; 1, the least, for an adaptive one."""
        return 1 if self.adaptive else len(TABLEAUS[self.solver].nodes)

    @property
    def needs(self) -> frozenset[str]:
        """Adaptive solvers say so."""
        return frozenset({"linear", "adaptive"} if self.adaptive else {"linear"})

    def times(self, sde: LinearSDE, grid: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the grid, or one row from end to end (on a DDPM, to a node above 0)."""
        if not self.adaptive:
            return grid[:-1], grid[1:]
        return grid[:1], sde.to_model_time(grid[-1:])

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """The stages of eq. (1) for the fixed solvers."""
        t, s = self.times(sde, grid)
        if self.adaptive:
            return {}
        return columns(sde, t, s, self.solver)

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """One Runge-Kutta step, or the whole solve."""
        if self.adaptive:  # a chain of one step ends where it starts
            return self._solve(x, c.t, c.s, model) if c.s < c.t else x.clone(), state
        return taken(x, c, model, len(TABLEAUS[self.solver].nodes)), state

    def _solve(self, x: Tensor, t: float, s: float, model: CountedModel) -> Tensor:
        """The adaptive solve of eq. (1) from t to s."""
        sde, parametrization, start = model.sde, model.parametrization, model.nfe

        def slope(time: float, y: Tensor) -> Tensor:
            if model.nfe - start >= self.max_nfe:
                raise SolverError(
                    f"{self.solver} used max_nfe={self.max_nfe} calls and is at t = {time:.6g} on "
                    f"the way from {t:g} to {s:g}; loosen rtol, atol or raise max_nfe"
                )
            at = torch.tensor(min(max(time, s), t), dtype=torch.float64)
            weights = parametrization.weights(sde, at, x=sde.f(at), score=-0.5 * sde.g2(at))
            value = model(y, float(at)).mix([float(w) for w in weights])
            if not bool(torch.isfinite(value).all()):
                raise SolverError(
                    f"{self.solver}: the flow is not finite at t = {time:.6g} (call "
                    f"{model.nfe - start}): the model or the state overflowed"
                )
            return value

        solve = _scipy_solve if self.solver.startswith("scipy:") else _torchdiffeq_solve
        try:
            return solve(slope, x, t, s, self, model)
        except SdekitError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            raise SolverError(
                f"{self.solver} failed after {model.nfe - start} calls between t = {t:g} and "
                f"{s:g}: {error}"
            ) from error

    @classmethod
    def examples(cls) -> list[ProbabilityFlow]:
        """The default, SciPy's, and the fixed solvers."""
        names = ("dopri5", "scipy:RK45", "euler", "midpoint", "heun", "rk4")
        return [cls(solver=name) for name in names]


def _torchdiffeq_solve(
    slope: Any, x: Tensor, t: float, s: float, how: ProbabilityFlow, model: CountedModel
) -> Tensor:
    from torchdiffeq import odeint

    def flow(time: Tensor, y: Tensor) -> Tensor:
        return slope(float(time), y)

    def rejected(*_: Any) -> None:  # a step is that of the whole batch
        count_rejected(model, torch.ones(len(x)))

    flow.callback_reject_step = rejected  # type: ignore[attr-defined]  # where torchdiffeq looks
    times = torch.tensor([t, s], dtype=torch.float64, device=x.device)
    return odeint(
        flow,
        x,
        times,
        rtol=how.rtol,
        atol=how.atol,
        method=how.solver,
    )[-1]


def _scipy_solve(
    slope: Any, x: Tensor, t: float, s: float, how: ProbabilityFlow, model: CountedModel
) -> Tensor:
    from scipy.integrate import solve_ivp

    model.rejected = math.nan  # it does not say

    def flat_slope(time: float, y: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(y).reshape(x.shape).to(x)
        return slope(time, state).detach().cpu().double().reshape(-1).numpy()

    start = x.detach().cpu().double().reshape(-1).numpy()
    method = how.solver.removeprefix("scipy:")
    found = solve_ivp(flat_slope, (t, s), start, method=method, rtol=how.rtol, atol=how.atol)
    if not found.success:
        raise SolverError(
            f"{how.solver}: {found.message} (at t = {found.t[-1]:.6g}, {found.nfev} calls)"
        )
    return torch.from_numpy(found.y[:, -1].copy()).reshape(x.shape).to(x)
