"""The flow carried from one end of the process to the other, by our own steps or a library's.

The own solver of `solve.py` is the fast one. The libraries' take their own steps, with the change
of the density as further coordinates of the state: an independent check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sdekit._check import choice, integer, number
from sdekit.errors import SdekitError, SolverError
from sdekit.likelihood.flow import Flow
from sdekit.likelihood.quadrature import along
from sdekit.likelihood.solve import integrate
from sdekit.sampling.probability_flow import SCIPY, TORCHDIFFEQ

if TYPE_CHECKING:
    from sdekit.likelihood.density import Change

__all__ = ["SOLVERS", "carried", "checked_solve"]

SOLVERS = (
    "dopri5",
    *(f"torchdiffeq:{name}" for name in TORCHDIFFEQ),
    *(f"scipy:{name}" for name in SCIPY),
)


_PATH = 0.1  # of the tolerances: those of the path, on which a likelihood depends twice


def checked_solve(
    solver: object, rtol: object, atol: object, max_nfe: object
) -> tuple[float, float]:
    """The tolerances, with all that says how a solve goes checked.

    Raises:
        ConfigError: an unknown solver, a tolerance that is not positive, max_nfe < 1.
        DtypeError: a value of another type.
    """
    choice("solver", solver, SOLVERS)
    if max_nfe is not None:
        integer("max_nfe", max_nfe, ge=1)
    return number("rtol", rtol, gt=0), number("atol", atol, gt=0)


def carried(
    flow: Flow,
    z: Tensor,
    solver: str,
    rtol: float,
    atol: float,
    *,
    back: bool = False,
    change: Change | None = None,
) -> tuple[Tensor, Tensor]:
    """Coordinates at the other end, and the change of the density on the way.

    Args:
        flow: the flow.
        z: coordinates [(batch, d)] at the first time, or with `back` at the last one.
        solver: one of `SOLVERS`.
        rtol: relative tolerance.
        atol: absolute tolerance.
        back: from the latents to the data.
        change: what changes the density; None: it is not asked for.

    Returns:
        The coordinates [(batch, d)], and the change [(batch, columns)].

    Raises:
        SolverError: the solve did not reach its end.
    """
    ends = (flow.end, flow.start) if back else (flow.start, flow.end)
    columns = 0 if change is None else change.by.columns
    if flow.start == flow.end or not len(z):  # a chain of one step starts where it ends
        return z, z.new_zeros(len(z), columns)
    if solver == "dopri5":
        scale = 1.0 if change is None else _PATH
        path = integrate(
            flow.slope, flow.levels, z, *ends, rtol=scale * rtol, atol=scale * atol, time=flow.time
        )
        if change is not None:
            return along(change.rates, path, _PATH * (rtol + atol), time=flow.time)
        for piece in path:
            end = piece.end
        return end, z.new_zeros(len(z), 0)

    def slope(u: float, state: Tensor) -> Tensor:
        # an error estimate may look a little beyond the ends
        at = flow.levels([min(max(u, flow.start), flow.end)], trace=change is not None)[0]
        z = state[:, : flow.dim]
        if change is None:
            return flow.slope(z, at)
        x = flow.placed(z, at)
        raw, rate = change.rate(x, at)
        value = torch.cat([flow.slope_of(z, x, raw, at), rate], 1)
        if not bool(torch.isfinite(value).all()):
            raise SolverError(
                f"{solver}: the flow is not finite at t = {at.t:.6g} (call {flow.nfe}): the model "
                "or the state overflowed"
            )
        return value

    library, _, name = solver.partition(":")
    start = torch.cat([z, z.new_zeros(len(z), columns)], 1)
    solve = _by_scipy if library == "scipy" else _by_torchdiffeq
    try:
        state = solve(slope, start, ends, name, rtol, atol)
    except SdekitError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        raise SolverError(
            f"{solver} failed after {flow.nfe} calls between t = {flow.t_min:g} and "
            f"{flow.t_max:g}: {error}"
        ) from error
    return state[:, : flow.dim], state[:, flow.dim :]


def _by_torchdiffeq(
    slope: Any, y: Tensor, ends: tuple[float, float], name: str, rtol: float, atol: float
) -> Tensor:
    from torchdiffeq import odeint

    times = torch.tensor(ends, dtype=torch.float64, device=y.device)
    return odeint(
        lambda t, state: slope(float(t), state), y, times, rtol=rtol, atol=atol, method=name
    )[-1]


def _by_scipy(
    slope: Any, y: Tensor, ends: tuple[float, float], name: str, rtol: float, atol: float
) -> Tensor:
    from scipy.integrate import solve_ivp

    def flat(t: float, state: np.ndarray) -> np.ndarray:
        return slope(t, torch.from_numpy(state).reshape(y.shape).to(y)).cpu().reshape(-1).numpy()

    start = y.cpu().reshape(-1).numpy()
    found = solve_ivp(flat, ends, start, method=name, rtol=rtol, atol=atol)
    if not found.success:
        raise SolverError(f"scipy:{name}: {found.message} ({found.nfev} calls)")
    return torch.from_numpy(found.y[:, -1].copy()).reshape(y.shape).to(y)
