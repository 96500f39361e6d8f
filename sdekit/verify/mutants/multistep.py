"""Wrong multistep and composed samplers: weights, memory, noise, levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sdekit.sampling import (
    DEIS,
    ERSDE,
    IPNDM,
    LMS,
    RK4,
    Churned,
    DPMSolver,
    DPMSolverPP,
    Midpoint,
    Renoised,
    Restart,
    SASolver,
    SDEDPMSolverPP,
    UniPC,
)
from sdekit.sampling.multistep import Corrected
from sdekit.verify.mutants._make import Table, changed

_TABLE = Table("sampler")
_add = _TABLE.add
ROWS = _TABLE.rows


def _nodes(cls: Any, change: Callable[[Any], Any]) -> Callable[..., Any]:
    """`integral` for predictions that are placed elsewhere."""

    def integral(self: Any, sde: Any, at: Any, to: Any, nodes: Any, order: Any) -> Any:
        return cls.integral(self, sde, at, to, change(nodes), order)

    return integral


def _row(cls: Any, **columns: Callable[[Any], Any]) -> Callable[..., Any]:
    """`integral` with some of its columns changed."""

    def integral(self: Any, sde: Any, at: Any, to: Any, nodes: Any, order: Any) -> Any:
        found = cls.integral(self, sde, at, to, nodes, order)
        return {**found, **{name: change(found[name]) for name, change in columns.items()}}

    return integral


def _swapped(w: Any) -> Any:
    return w[:, ::-1]


# DPM-Solver and DPM-Solver++ ----------------------------------------------------------------

_add(
    "dpmpp_difference_reversed",
    DPMSolverPP(),
    "declared_order",
    "the difference of predictions has the wrong sign",
    integral=_nodes(DPMSolverPP, lambda nodes: -nodes),
)
_add(
    "dpmpp_equal_steps",
    DPMSolverPP(order=3, corrected=True, warmup="rising"),
    "declared_order",
    "the ratio of steps is taken as 1/2 of what it is",
    peer=24,
    integral=_nodes(DPMSolverPP, lambda nodes: 2 * nodes),
)
_add(
    "dpmpp_third_order_as_published",
    DPMSolverPP(order=3, corrected=True),
    "declared_order",
    "the second difference lacks its factor 2, and order 3 is claimed",
    peer=37,
    integral=lambda self, *row: DPMSolverPP.integral(DPMSolverPP(order=3), *row),
)
_add(
    "dpmpp_memory_of_the_latest",
    DPMSolverPP(),
    "declared_order",
    "the weights of the two predictions are exchanged",
    integral=_row(DPMSolverPP, w=_swapped),
)
_add(
    "dpm_solver_without_ratio",
    DPMSolver(),
    "limit_law published_step",
    "x is not multiplied by alpha_s / alpha_t",
    integral=_row(DPMSolver, x=np.ones_like),
)
_add(
    "dpm_solver_2s_inner_weight",
    DPMSolver(multistep=False),
    "declared_order",
    "the row uses its first prediction only",
    coefficients=lambda self, sde, grid: _last_weights(self, sde, grid, (1.0, 0.0)),
)
_add(
    "sde_dpmpp_noise_of_one_h",
    SDEDPMSolverPP(),
    "limit_law published_step",
    "noise of variance 1 - e^(-h), not 1 - e^(-2h)",
    integral=_row(SDEDPMSolverPP, std=lambda std: std * 0.75),
)
_add(
    "sde_dpmpp_point",
    SDEDPMSolverPP(order=1),
    "point_data published_step",
    "x keeps the factor of the flow",
    integral=_row(SDEDPMSolverPP, x=np.sqrt),
)


def _last_weights(self: Any, sde: Any, grid: Any, part: tuple[float, float]) -> Any:
    found = DPMSolver.coefficients(self, sde, grid)
    total = found["stages"][-1]["w"].sum(1, keepdims=True)
    found["stages"][-1]["w"] = total * part
    return found


# UniPC and SA-Solver ------------------------------------------------------------------------

_add(
    "unipc_corrects_the_corrected",
    UniPC(),
    "limit_law",
    "the corrector starts from the predicted end of the last row, not from its beginning",
    step=lambda self, x, c, model, state, noise: Corrected.step(
        self, x, c, model, (x, *state[1:]) if state else None, noise
    ),
)
_add(
    "unipc_without_corrector",
    UniPC(),
    "declared_order",
    "the corrector is left out and its order claimed",
    coefficients=changed(UniPC, corrects=np.zeros_like),
)
_add(
    "unipc_order_cut_short",
    UniPC(order=3),
    "declared_order",
    "from the second row on the coefficients are those of order 1",
    peer=24,
    coefficients=lambda self, sde, grid: {
        **UniPC.coefficients(self, sde, grid),
        "correct": UniPC.coefficients(UniPC(order=1), sde, grid)["correct"],
    },
)
_add(
    "sa_solver_noise_is_not_kept",
    SASolver(),
    "limit_law",
    "the corrector leaves the predictor's noise out",
    step=lambda self, x, c, model, state, noise: Corrected.step(
        self, x, c, model, (state[0], None, *state[2:]) if state else None, noise
    ),
)
_add(
    "sa_solver_tau_not_squared",
    SASolver(tau=0.5),
    "published_step",
    "tau where the paper has tau^2",
    coefficients=lambda self, sde, grid: SASolver.coefficients(SASolver(tau=0.5**0.5), sde, grid),
)

# plain multistep ----------------------------------------------------------------------------

_add(
    "deis_polynomial_backwards",
    DEIS(),
    "declared_order",
    "the polynomial is extrapolated the wrong way",
    integral=_nodes(DEIS, lambda nodes: -nodes),
)
_add(
    "lms_nodes_in_time",
    LMS(order=2),
    "declared_order",
    "the earlier prediction is placed half a step too far",
    integral=_nodes(LMS, lambda nodes: 1.5 * nodes),
)
_add(
    "ipndm_coefficients",
    IPNDM(order=2),
    "declared_order",
    "1.4 and -0.4 for 3/2 and -1/2",
    integral=_nodes(IPNDM, lambda nodes: 1.25 * nodes),
)
_add(
    "er_sde_noise_without_phi",
    ERSDE(),
    "limit_law point_data published_step",
    "the noise has the variance of the whole row",
    integral=_row(ERSDE, std=lambda std: 1.1 * std),
)
_add(
    "er_sde_difference_reversed",
    ERSDE(order=2),
    "declared_order",
    "the difference of predictions has the wrong sign",
    integral=_nodes(ERSDE, lambda nodes: -nodes),
)
_add(
    "midpoint_full_inner_step",
    Midpoint(),
    "declared_order",
    "the inner stage takes the whole step",
    coefficients=changed(Midpoint, a1=lambda a: 2 * a),
)
_add(
    "rk4_weights_by_name",
    RK4(),
    "declared_order",
    "the weights of RK4 are 1/4 each",
    coefficients=changed(RK4, b=lambda b: b.sum(1, keepdim=True).expand_as(b) / 4),
)

# composed -----------------------------------------------------------------------------------

_add(
    "churned_without_noise",
    Churned(churn=5.0),
    "point_data limit_law",
    "the level rises and the noise is half of what it must be",
    coefficients=changed(Churned, fresh=lambda fresh: 0.5 * fresh),
)
_add(
    "renoised_eta_not_squared",
    Renoised(eta=0.5),
    "published_step",
    "eta where eta^2 belongs",
    coefficients=lambda self, sde, grid: Renoised.coefficients(Renoised(eta=0.5**0.5), sde, grid),
)
_add(
    "renoised_down_level",
    Renoised(sampler="dpmpp_2m(order=2, multistep=False)"),
    "point_data limit_law",
    "the noise of a full ancestral step after a row that ends at s",
    peer=23,
    coefficients=changed(Renoised, fresh=lambda fresh: 1.2 * fresh),
)
_add(
    "restart_noise_of_the_difference",
    Restart(),
    "point_data",
    "the noise of a restart is r_high - r_low, not the root of the difference of squares",
    coefficients=changed(Restart, fresh=lambda fresh: 0.9 * fresh),
)
