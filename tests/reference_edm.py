"""EDM's `edm_sampler` and `ablation_sampler`, from unit normal latents, with the exact denoiser.

1. Its levels are `EDM` at uniform times, and 0: a grid of `LevelVE`, the landing included.
2. It draws at every step, also where gamma is 0 and the draw is multiplied away; sdekit draws
   where noise is used: those draws are left out.
3. `ablation_sampler` steps in the t of its `schedule`: sigma(t) = t is `LevelVE`, sigma(t) =
   sqrt(t) is `Squared`, and schedule and scaling "vp" together are VP itself. Its last step, to
   t = 0, is an Euler step: a run of its own. Its "iddpm" levels are those of `DDPM.cosine(1000)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from reference_support import (
    LevelVE,
    Outcome,
    Walk,
    exact,
    flat,
    gap,
    missing,
    outside,
    rows,
    walk,
)  # fmt: skip

from sdekit.sampling import Churned, Heun, ProbabilityFlow
from sdekit.sde import DDPM, EDM, VPSDE, LinearSDE

FILE = "edm_samplers"


@dataclass(frozen=True, kw_only=True)
class Squared(LinearSDE):
    """alpha = 1, sigma(t) = sqrt(t), from t = 0 on: Brownian motion."""

    t_min: float = 0.0
    t_max: float = 1e6
    closed_start: ClassVar[bool] = True

    def log_alpha(self, t):
        return 0.0 * t

    def var(self, t):
        return 1.0 * t


@dataclass(frozen=True, kw_only=True)
class FromZero(VPSDE):
    """VP from t = 0 on."""

    t_min: float = 0.0
    closed_start: ClassVar[bool] = True


def _zero(times: torch.Tensor) -> torch.Tensor:
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


def _times(kwargs) -> tuple[LinearSDE, torch.Tensor]:
    """The process in whose time the source steps, and its times without the final 0."""
    steps = kwargs["num_steps"]
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    kind = kwargs["discretization"]
    if kind == "vp":
        return FromZero(beta_min=0.1, beta_max=20.0), 1 + ramp * (1e-3 - 1)
    if kind == "ve":
        return Squared(), 100.0**2 * (0.02**2 / 100.0**2) ** ramp
    if kind == "iddpm":
        chain = DDPM.cosine(1000)
        t = chain.time(torch.arange(1000, 0, -1))
        levels = chain.sigma(t) / chain.alpha(t)
        levels = levels[(levels >= 0.002) & (levels <= 81)]
        return LevelVE(), levels[((len(levels) - 1) * ramp).round().to(torch.int64)]
    return LevelVE(), EDM().sigma(1 - ramp)


def _ablation(case, data, reference) -> Outcome:
    kwargs = case["kwargs"]
    if "alpha" in kwargs:
        return missing("the two-stage method with alpha = 0.7 is no sampler of sdekit")
    sde, times = _times(kwargs)
    x, draws = float(sde.sigma(times[0])) * flat(data, case, "latents"), []
    sampler, last = ProbabilityFlow(solver=kwargs["solver"]), ProbabilityFlow(solver="euler")
    if "S_churn" in kwargs:
        draws = list(flat(data, case, "noise"))
        # gamma is churn over the number of rows, of which the last one is a run of its own
        churn = kwargs["S_churn"] / kwargs["num_steps"]
        sampler = Churned(sampler=sampler, churn=churn * (len(times) - 1))
        last = Churned(sampler=last, churn=churn)
    run = Walk(exact(reference, case["target"], sde)).go(sampler, times, x, draws)
    run.go(last, _zero(times[-1:]), run.x, draws[run.draws :])
    seen = torch.tensor(run.times, dtype=torch.float64)
    error = gap(run.x, flat(data, case, "x_out"))
    long = sde.reaching(max(run.times))  # churn goes above t_max
    levels = rows(long.sigma(seen) / long.alpha(seen), data.array(case, "sigmas_seen_by_model"))
    note = "an Euler step to t = 0" if sampler != last else ""
    return Outcome(f"{sampler!r} on {sde!r}", error, levels, note)


def outcome(case, reference) -> Outcome:
    """One case of the file."""
    data = reference.load(FILE)
    if case["case"].startswith("loss"):
        return outside("a loss")
    if case["fn"] == "ablation_sampler":
        return _ablation(case, data, reference)
    options = case["kwargs"]
    fields = {k: v for k, v in options.items() if k in ("sigma_min", "sigma_max", "rho")}
    sde = EDM(**fields)
    levels = sde.sigma(torch.linspace(1, 0, options["num_steps"], dtype=torch.float64))
    sampler, draws, note = Heun(), [], ""
    if "S_churn" in options:
        sampler = Heun(
            churn=options["S_churn"], churn_min=options["S_min"], churn_max=options["S_max"],
            noise_scale=options["S_noise"],
        )  # fmt: skip
        used = (levels >= options["S_min"]) & (levels <= options["S_max"])
        draws, note = list(flat(data, case, "noise")[used]), "draws where gamma = 0 left out"
    x = float(levels[0]) * flat(data, case, "latents")
    run = walk(exact(reference, case["target"], LevelVE()), sampler, _zero(levels), x, draws)
    if run.draws != len(draws):
        raise AssertionError(f"{run.draws} of {len(draws)} draws were used")
    seen = rows(run.times, data.array(case, "sigmas_seen_by_model"))
    return Outcome(repr(sampler), gap(run.x, flat(data, case, "x_out")), seen, note)
