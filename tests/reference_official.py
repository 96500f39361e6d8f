"""The official DPM-Solver(++) and UniPC codes: VP in continuous time, from t = 1 to 1e-3.

1. Its "discrete" schedule takes log alpha as linear in t between t_i = i/N, which is the SDE of a
   DDPM chain between its nodes too; sdekit's grids keep to the nodes, so it is `Between` here.
2. A singlestep run has rows of orders 3, 3, ..., 1 or 2, whose inner times follow the same spacing
   as its outer ones: one run per row, with their places in the row as `fractions`.
3. lower_order_final acts for fewer than 10 steps, and always in UniPC's code.
4. The last four states are stored.
5. The corrector of UniPC's "vary_coeff", whose sums over k stop one term short from order 2 on, is
   not that of the paper: `Short`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from reference_support import (
    Outcome,
    Walk,
    exact,
    flat,
    gap,
    gaps,
    missing,
    rows,
    walk,
)  # fmt: skip
from torch import Tensor

from sdekit.sampling import DPMSolver, DPMSolverPP, UniPC
from sdekit.sampling.grid import resolve_grid
from sdekit.sampling.integrals import Levels, Semilinear
from sdekit.sde import DDPM, VPSDE, LinearSDE
from sdekit.sde.vp import VariancePreserving

FILE = "dpm_solver_official"
GRIDS = {"time_uniform": "uniform", "logSNR": "log_snr", "time_quadratic": "quadratic"}
SOLVERS = {"dpmsolver": DPMSolver, "dpmsolver++": DPMSolverPP}
VARIANTS = {"dpmsolver": "midpoint", "taylor": "heun"}
_CHAIN = DDPM.linear(1000)


@dataclass(frozen=True, kw_only=True)
class Between(VariancePreserving):
    """The linear chain of 1000 steps at all times (convention 1)."""

    def log_alpha(self, t):
        return _CHAIN.log_alpha(t)

    def t_from_log_alpha(self, log_alpha: Tensor) -> Tensor:
        nodes = _CHAIN.time(torch.arange(_CHAIN.n + 1))
        known = _CHAIN.log_alpha(nodes)
        k = torch.searchsorted(-known, -log_alpha.contiguous()).clamp(1, _CHAIN.n)
        part = (log_alpha - known[k - 1]) / (known[k] - known[k - 1])
        return nodes[k - 1] + part * (nodes[k] - nodes[k - 1])


class Short(UniPC):
    """UniPC's "vary_coeff" as released (convention 5)."""

    difference = "the corrector's sums stop one term short"

    def coefficients(self, sde, grid):
        columns = super().coefficients(sde, grid)
        level = Levels(sde, grid)
        at, to = level[:-1], level[1:]
        _, factor, c, _ = Semilinear(self.prediction).parts(at, to)
        w = np.zeros_like(columns["correct"]["w"])
        for k, order in enumerate(self._orders(len(c))[0].tolist()[:-1]):
            r = (at.l[k - order + 1 : k][::-1] - at.l[k]) / (to.l[k] - at.l[k])
            w[k + 1, : order + 1] = -factor[k] * self._weights(-float(c[k]), r.tolist())
        columns["correct"]["w"] = w
        return columns

    def _weights(self, h: float, behind: list[float]) -> Tensor:
        """Of the predictions at the row's end, at its start, and behind it."""
        r = torch.tensor([*behind, 1.0], dtype=torch.float64)
        order = len(r)
        factorial = torch.tensor([math.factorial(j + 1) for j in range(order)])
        inverse = torch.linalg.inv(r[:, None] ** torch.arange(order) / factorial)
        phi = [math.expm1(h)]
        for k in range(order):
            phi.append(phi[-1] / h - 1 / math.factorial(k + 1))
        slopes = torch.zeros(order, dtype=torch.float64)  # of (m_i - m_0) / r_i
        for k in range(order - 1):
            slopes[:-1] += phi[k + 1] * inverse[k, :-1]
        slopes[-1] = phi[order] * inverse[max(order - 2, 0), -1]
        w = slopes / r
        return torch.cat([w[-1:], phi[0] - w.sum()[None], w[:-1]])


def _process(case) -> LinearSDE:
    if case["schedule"] == "discrete":
        return Between()
    return VPSDE(beta_min=0.1, beta_max=20.0)


def _schedule(case, data) -> Outcome:
    """Log alpha, sigma, half the log-SNR, and the time back from it."""
    sde, t = _process(case), data.array(case, "t")
    lam = data.array(case, "lam")
    back = data.array(case, "t_back")
    error = max(
        rows(sde.log_alpha(t), data.array(case, "log_alpha")),
        rows(sde.sigma(t), data.array(case, "std")),
        gap(0.5 * sde.log_snr(t), lam),
        rows(sde.t_from_log_snr(2 * lam), back),
    )
    return Outcome(f"{sde!r}: log_alpha, sigma, log_snr, t_from_log_snr", error)


def _orders(steps: int, order: int) -> list[int]:
    """The orders of the rows of a singlestep run of `steps` calls."""
    if order == 3:
        whole, rest = divmod(steps, 3)
        return [3] * (whole - 1) + [2, 1] if rest == 0 else [3] * whole + [rest]
    return [2] * (steps // 2) + [1] * (steps % 2) if order == 2 else [1] * steps


def _singlestep(case, model, x: Tensor) -> tuple[Walk, str]:
    """Row by row (convention 2)."""
    sde, rule, steps = model.sde, GRIDS[case["skip_type"]], case["steps"]
    orders = _orders(steps, case["order"])
    if case["method"] == "singlestep_fixed":
        orders = [case["order"]] * (steps // case["order"])
    if case["method"] == "singlestep_fixed" or rule == "log_snr":
        outer = resolve_grid(rule, sde, len(orders))
    else:
        ends = torch.tensor([0, *orders]).cumsum(0)
        outer = resolve_grid(rule, sde, steps)[ends]
    run = Walk(model)
    for k, order in enumerate(orders):
        t, s = (float(u) for u in outer[k : k + 2])
        inner = resolve_grid(rule, replace(sde, t_min=s, t_max=t), order)
        u = sde.log_snr(inner)
        fractions = tuple(((u[1:-1] - u[0]) / (u[-1] - u[0])).tolist())
        sampler = SOLVERS[case["algorithm_type"]](
            order=order, multistep=False, fractions=fractions or None,
            variant=VARIANTS[case.get("solver_type", "dpmsolver")],
        )  # fmt: skip
        x = run.go(sampler, outer[k : k + 2], x).x
    name = type(sampler).__name__
    return run, f"{name}(multistep=False) of orders {', '.join(map(str, orders))}"


def _multistep(case, model, x: Tensor) -> tuple[Walk, str]:
    """One run."""
    order, steps = case["order"], case["steps"]
    lower = case["lower_order_final"] and steps < 10
    sampler = SOLVERS[case["algorithm_type"]](
        order=order, variant=VARIANTS[case.get("solver_type", "dpmsolver")],
        final_order=1 if lower else order,
    )  # fmt: skip
    times = resolve_grid(GRIDS[case["skip_type"]], model.sde, steps)
    denoise = bool(case.get("denoise_to_zero"))
    return walk(model, sampler, times, x, denoise=denoise), repr(sampler)


def _unipc(case, model, x: Tensor) -> tuple[Walk, str]:
    """UniPC's own code."""
    variant = {"vary_coeff": "exact"}.get(case["variant"], case["variant"])
    kind = {"data_prediction": "x0", "noise_prediction": "eps"}[case["algorithm_type"]]
    fields = dict(order=case["order"], variant=variant, final_order=1, prediction=kind)
    sampler = (Short if variant == "exact" else UniPC)(**fields)
    times = resolve_grid(GRIDS[case["skip_type"]], model.sde, case["steps"])
    return walk(model, sampler, times, x), repr(UniPC(**fields))


def outcome(case, reference) -> Outcome:
    """One case of the file."""
    data = reference.load(FILE)
    if case["case"].startswith("schedule"):
        return _schedule(case, data)
    if case.get("method") == "adaptive":
        return missing("no adaptive DPM-Solver in sdekit")
    run = {"UniPC": _unipc, "multistep": _multistep}.get(
        case["peer"] if case["peer"] == "UniPC" else case["method"], _singlestep
    )
    model = exact(reference, case["target"], _process(case))
    walked, ours = run(case, model, flat(data, case, "x_T"))
    error = gap(walked.x, flat(data, case, "x_out"))
    if "x_steps" in case["arrays"]:
        stored = list(flat(data, case, "x_steps"))
        states = [*walked.path, walked.x] if case.get("denoise_to_zero") else walked.path
        error = max(error, gaps(states[-len(stored) :], stored))
    levels = rows(walked.times, data.array(case, "t_model"))
    if case.get("variant") == "vary_coeff":
        return Outcome(ours, error, levels, Short.difference, adapted=True)
    return Outcome(ours, error, levels)
