"""k-diffusion's samplers: x = x_0 + sigma z on levels that end at 0, the exact denoiser.

Times are levels (`LevelVE`), so its grids are grids. Built in, case by case:

1. Churned samplers draw at every step, also where gamma is 0 and the draw is multiplied away;
   sdekit draws where noise is used: those rows of the bank are left out.
2. Draws that are multiplied by an eta of 0 are not drawn here.
3. `dpm_fast` has rows of orders 3, 3, ..., 2, 1 on its own levels: one run per row.
4. The last row of the multistep samplers is of order 1 because it ends at 0, whatever their order.
"""

from __future__ import annotations

import math

import torch
from reference_support import (
    LevelVE,
    Outcome,
    Walk,
    bank,
    exact,
    flat,
    gap,
    gaps,
    missing,
    outside,
    rows,
    walk,
)  # fmt: skip

from sdekit.sampling import (
    DDIM,
    LMS,
    Churned,
    DPMSolver,
    DPMSolverPP,
    Heun,
    Renoised,
    SDEDPMSolverPP,
)  # fmt: skip
from sdekit.sampling.grid import resolve_grid
from sdekit.sde import EDM, VESDE, VPSDE

FILE = "kdiffusion_samplers"
_SECOND = DPMSolver(order=2, multistep=False)
_SECOND_PP = DPMSolverPP(order=2, multistep=False)


def _churn(kwargs) -> dict[str, float]:
    return {
        "churn": kwargs.get("s_churn", 0.0), "churn_min": kwargs.get("s_tmin", 0.0),
        "churn_max": kwargs.get("s_tmax"), "noise_scale": kwargs.get("s_noise", 1.0),
    }  # fmt: skip


def _sampler(name: str, kwargs):
    """Sdekit's sampler of the same method."""
    eta = kwargs.get("eta", 1.0)
    churned = kwargs.get("s_churn", 0.0) > 0
    return {
        "euler": lambda: Churned(sampler=DDIM(), **_churn(kwargs)) if churned else DDIM(),
        "heun": lambda: Heun(**_churn(kwargs)) if churned else Heun(),
        "dpm_2": lambda: Churned(sampler=_SECOND, **_churn(kwargs)) if churned else _SECOND,
        "lms": lambda: LMS(order=kwargs["order"]),
        "euler_ancestral": lambda: DDIM(eta=eta),
        "dpm_2_ancestral": lambda: Renoised(sampler=_SECOND, eta=eta),
        "dpmpp_2s_ancestral": lambda: Renoised(sampler=_SECOND_PP, eta=eta) if eta else _SECOND_PP,
        "dpmpp_sde": lambda: SDEDPMSolverPP(order=2, multistep=False, eta=eta),
        "dpmpp_2m": lambda: DPMSolverPP(order=2, final_order=2),
        "dpmpp_2m_sde": lambda: SDEDPMSolverPP(
            order=2, eta=eta, variant=kwargs["solver_type"], final_order=2
        ),
        "dpmpp_3m_sde": lambda: SDEDPMSolverPP(order=3, eta=eta, variant="heun", final_order=3),
    }[name]()


def _grid(case, data) -> Outcome:
    """The grids, by sdekit's own rules, the final 0 left out."""
    levels = data.array(case, "sigmas")[:-1]
    ends = {"sigma_min": float(levels[-1]), "sigma_max": float(levels[0])}
    steps = len(levels) - 1
    name = case["grid"].rstrip("0123456789")
    if name == "polyexp":
        # log sigma has (ramp)^rho: the power is not stored, and found from the second level
        sde = VESDE(**ends)
        t = (float(levels[1]) / ends["sigma_min"]), ends["sigma_max"] / ends["sigma_min"]
        rho = round(math.log(math.log(t[0]) / math.log(t[1])) / math.log(1 - 1 / steps), 6)
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** rho
        return Outcome(f"{sde!r} at linspace(1, 0)^{rho:g}", rows(sde.sigma(times), levels))
    sde, rule = {
        "karras": (EDM(**ends), "uniform"),
        "exponential": (VESDE(**ends), "log_snr"),
        "vp": (VPSDE(beta_min=0.1, beta_max=20.0), "uniform"),
    }[name]
    times = resolve_grid(rule, sde, steps)
    return Outcome(f"grid {rule!r} on {sde!r}", rows(sde.sigma(times) / sde.alpha(times), levels))


def _ancestral_step(case, data) -> Outcome:
    """sigma_down and sigma_up are the coefficients of eps and z in DDIM's row."""
    sde, worst = LevelVE(), 0.0
    start, end = data.array(case, "sigma_from"), data.array(case, "sigma_to")
    for eta in (1.0, 0.5):
        for k in range(len(start)):
            c = DDIM(eta=eta).coefficients(sde, torch.stack([start[k], end[k]]))
            for name, mine in (("down", c["mean"].eps), ("up", c["std"])):
                stored = data.array(case, f"{name}_eta{eta}")[k : k + 1]
                worst = max(worst, rows(mine, stored))
    return Outcome("DDIM(eta) on VE: eta 1, 0.5", worst, note="eta = 2 is refused by DDIM")


def _fast(case, data, reference) -> Outcome:
    """The rows of `dpm_fast`."""
    n, ends = case["n"], (case["sigma_max"], case["sigma_min"])
    count = n // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if n % 3 == 0 else [3] * (count - 1) + [n % 3]
    logs = torch.linspace(math.log(ends[0]), math.log(ends[1]), count + 1, dtype=torch.float64)
    levels, x = logs.exp(), flat(data, case, "x_T")
    run = Walk(exact(reference, case["target"], LevelVE()))
    for k, order in enumerate(orders):
        x = run.go(DPMSolver(order=order, multistep=False), levels[k : k + 2], x).x
    return Outcome(
        "DPMSolver(multistep=False) of orders " + ", ".join(map(str, orders)),
        gap(x, flat(data, case, "x_out")),
    )


def outcome(case, reference) -> Outcome:
    """One case of the file."""
    data, name = reference.load(FILE), case["case"]
    if name.startswith("noise_bank"):
        return outside("draws")
    if name.startswith("log_likelihood"):
        return outside("a log-likelihood, not a sample")
    if name.startswith("sigmas"):
        return _grid(case, data)
    if name == "ancestral_step":
        return _ancestral_step(case, data)
    if name.startswith("dpm_adaptive"):
        return missing("no adaptive DPM-Solver in sdekit")
    if name.startswith("dpm_fast"):
        return _fast(case, data, reference)
    return _along(case, data, reference)


def _along(case, data, reference) -> Outcome:
    levels, kwargs = data.array(case, "sigmas"), case["kwargs"]
    sampler = _sampler(case["sampler"].removeprefix("sample_"), kwargs)
    draws, notes = bank(data, case), []
    if kwargs.get("s_churn"):
        used = (levels >= kwargs["s_tmin"]) & (levels <= kwargs["s_tmax"])
        draws = [z for z, there in zip(draws, used[:-1].tolist(), strict=True) if there]
        notes.append("draws where gamma = 0 left out")
    elif not case["noise_matters"]:
        draws = []
    model = exact(reference, case["target"], LevelVE())
    run = walk(model, sampler, levels, flat(data, case, "x_T"), draws)
    if run.draws != len(draws):
        raise AssertionError(f"{run.draws} of {len(draws)} draws were used")
    stored = flat(data, case, "x_steps")
    starts = run.inputs[:: sampler.nfe_per_step]
    seen = None
    if not kwargs.get("s_churn"):
        seen = rows(run.times[:: sampler.nfe_per_step], levels[:-1])
    error = max(gaps(starts, list(stored)), gap(run.x, flat(data, case, "x_out")))
    return Outcome(repr(sampler), error, seen, "; ".join(notes))
