"""azula's samplers, and smalldiffusion's, with the exact denoiser; azula's times are uniform.

1. azula's schedules have var(0) = sigma_min^2 > 0 (VP and cosine: alpha^2 + sigma^2 = 1 +
   sigma_min^2), so a run ends at t = 0 with a state that has that noise: `Schedule`.
2. The noise of its DDIM has the variance eta tau, the paper's eta^2 tau: eta is the root of its.
3. The prefactor of its REAB mixes the two times of a step: `MixedPrefactor`.
4. Its PC sampler's corrector is no Langevin step: `Remixed`, a corrector of the source.
5. smalldiffusion stops at its smallest level. Its mu sets the level below the next one that a step
   goes down to; mu = 1/2 is DDIM's eta = 1, any other mu one eta for every row.
6. Its gam extrapolates the noise from the call before: `Extrapolated`, around the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
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
    outside,
    rows,
    walk,
)  # fmt: skip
from sampling_support import Given

from sdekit.sampling import (
    DDIM,
    DEIS,
    LMS,
    Ancestral,
    Corrector,
    DPMSolver,
    DPMSolverPP,
    GradientEstimation,
    Heun,
    Mix,
    PredictorCorrector,
    kick,
)  # fmt: skip
from sdekit.sampling.integrals import weights
from sdekit.sampling.multistep import Multistep
from sdekit.sde import DDPM, VESDE, LinearSDE

FILE = "azula_samplers"


@dataclass(frozen=True, kw_only=True)
class Schedule(LinearSDE):
    """azula's schedule of this name (convention 1)."""

    name: str = "vp"
    alpha_min: float = 1e-3
    sigma_min: float = 1e-3
    t_min: float = 0.0

    def log_alpha(self, t):
        if self.name == "vp":
            return math.log(self.alpha_min) * t.square()
        if self.name == "cosine":
            return torch.cos(math.acos(self.alpha_min) * t).log()
        return torch.log1p(-t * (1 - self.alpha_min))

    def var(self, t):
        if self.name == "rectified":
            return (t + (1 - t) * self.sigma_min).square()
        return -torch.expm1(2 * self.log_alpha(t)) + self.sigma_min**2


class MixedPrefactor(Multistep):
    """REAB as released (convention 3)."""

    difference = "the integral's prefactor has sigma of the step's start beside alpha of its end"

    def what(self, t):
        t = torch.as_tensor(t)
        alpha, sigma = self._sde.alpha(t), self._sde.sigma(t)
        norm = (alpha.square() + sigma.square()).sqrt()
        return Mix(t, x=alpha / (sigma * norm), x0=-norm / sigma)

    def coefficients(self, sde, grid):
        self._set(_sde=sde)
        return super().coefficients(sde, grid)

    def variable(self, level):
        return -level.l

    def integral(self, sde, at, to, nodes, order):
        # its quadrature: 257 points of the trapezoidal rule
        r = np.linspace(0, 1, 257)
        h = (at.l - to.l)[:, None]
        kernel = 0.5 / np.cosh(-at.l[:, None] + h * r)
        mu = [np.trapezoid(kernel * r**k, r, axis=1) for k in range(nodes.shape[1])]
        w = weights(nodes, np.stack(mu, axis=1), order)
        norm = [np.hypot(v.alpha, v.sigma) for v in (at, to)]
        front = np.hypot(to.alpha, at.sigma)
        none = np.zeros_like(front)
        return {"x": norm[1] / norm[0], "w": front[:, None] * h * w, "std": none}


@dataclass(frozen=True, kw_only=True)
class Remixed(Corrector):
    """The corrector of PC (convention 4)."""

    difference = "its corrector: sqrt(1 - delta) eps + sqrt(delta) z in place of eps"
    delta: float = 0.05

    def corrections(self, sde, level, below):
        sigma = sde.sigma(level)
        mean = Mix(level, x0=sde.alpha(level), eps=math.sqrt(1 - self.delta) * sigma)
        return {"mean": mean, "std": math.sqrt(self.delta) * sigma}

    def step(self, x, c, model, state, noise):
        return kick(model(x, c.t).mix(c.mean), c.std, noise), state


def _sampler(name: str, kwargs):
    """Sdekit's sampler of the same method, or the source's formula."""
    order, eta = kwargs.get("order"), kwargs.get("eta", 0.0)
    return {
        "DDPM": lambda: Ancestral(),
        "DDIM": lambda: DDIM(eta=math.sqrt(eta)),
        "Euler": lambda: DDIM(),
        "Heun": lambda: Heun(),
        "Ito": lambda: DPMSolver(order=1, eta=eta),
        "zAB": lambda: LMS(order=order),
        "vAB": lambda: LMS(order=order, form="flow"),
        "zEAB": lambda: DEIS(order=order),
        "xEAB": lambda: DPMSolverPP(
            order=order, variant="heun", corrected=True, warmup="rising", final_order=order
        ),
        "REAB": lambda: MixedPrefactor(order=order),
        "PC": lambda: PredictorCorrector(
            predictor=DDIM(), corrector=Remixed(delta=kwargs["delta"]),
            corrections=kwargs["corrections"],
        ),
    }[name.removesuffix("Sampler")]()  # fmt: skip


def _process(case, data) -> LinearSDE:
    name = case["schedule"].removesuffix("Schedule").lower()
    params = data.case(f"schedule/{name}")["params"]
    return VESDE(**params) if name == "ve" else Schedule(name=name, **params)


def _schedule(case, data) -> Outcome:
    sde, t = _process(case, data), data.array(case, "t")
    error = max(
        rows(sde.alpha(t), data.array(case, "alpha")),
        rows(sde.sigma(t), data.array(case, "sigma")),
    )
    ours = repr(sde) if "ve" in sde.kinds else "a `LinearSDE` of its alpha and sigma"
    return Outcome(ours, error)


def _run(case, data, reference) -> Outcome:
    """One of azula's."""
    sampler, draws = _sampler(case["sampler"], case["kwargs"]), bank(data, case)
    draws = draws if "noise" in sampler.needs else []
    times = torch.linspace(case["start"], case["stop"], case["steps"] + 1, dtype=torch.float64)
    model = exact(reference, case["target"], _process(case, data))
    run = walk(model, sampler, times, flat(data, case, "x_T"), draws)
    if run.draws != len(draws):
        raise AssertionError(f"{run.draws} of {len(draws)} draws were used")
    error = gap(run.x, flat(data, case, "x_out"))
    if case["sampler"] == "REABSampler":
        return Outcome(
            "a `Multistep` of its formula", error, None, MixedPrefactor.difference, True
        )
    if case["sampler"] == "PCSampler":
        return Outcome("PredictorCorrector with ddim", error, None, Remixed.difference, True)
    note = "its eta is ours squared" if case["kwargs"].get("eta") == 0.5 else ""
    return Outcome(repr(sampler), error, None, note if "DDIM" in case["sampler"] else "")


def _levels(case, data) -> Outcome:
    """smalldiffusion's lists of levels."""
    stored = [data.array(case, name) for name in ("sigmas", "first", "last")]
    if case["schedule"] == "loglinear":
        sde, n = VESDE(sigma_min=0.02, sigma_max=12.0), 300
        t = torch.linspace(0, 1, n, dtype=torch.float64)
    else:
        sde = DDPM.linear(1000)
        t, n = sde.time(torch.arange(1, 1001)), 1000
    levels = sde.sigma(t) / sde.alpha(t)
    steps = case["steps"]
    trailing = n - torch.arange(steps) * (n / steps)
    chosen = torch.cat([trailing.round().to(torch.int64) - 1, torch.zeros(1, dtype=torch.int64)])
    mine = [levels[chosen], levels[:5], levels[-5:]]
    return Outcome(repr(sde), max(map(rows, mine, stored)), note="index 0 after trailing ones")


class Extrapolated(Given):
    """Gradient estimation, arXiv:2306.04848, as a model (convention 6)."""

    difference = "its eps: gam eps + (1 - gam) times that of the call before"

    def __init__(self, model, gam: float) -> None:
        super().__init__(self._score, model.sde)
        self.model, self.gam = model, gam
        self.last: torch.Tensor | None = None

    def _score(self, x, t):
        eps = self.model(x, t).eps
        before, self.last = eps if self.last is None else self.last, eps
        return -(self.gam * eps + (1 - self.gam) * before) / t


def _small(case, data, reference) -> Outcome:
    """One of smalldiffusion's runs, row by row (convention 5)."""
    gam, mu = case["gam"], case["mu"]
    levels, x = data.array(case, "sigmas"), flat(data, case, "x_T")
    draws = bank(data, case) if mu else []
    model = exact(reference, case["target"], LevelVE())
    if not mu:
        sampler = GradientEstimation(gamma=gam)
        run = Walk(model)
        run.go(sampler, levels, x, [])
        error = gaps(run.path[1:], list(flat(data, case, "x_steps")))
        return Outcome(repr(sampler), error, rows(run.times, levels[:-1]))
    run = Walk(model if gam == 1 else Extrapolated(model, gam))
    for k in range(len(levels) - 1):
        q = float(levels[k + 1] / levels[k])
        eta = math.sqrt((1 - q ** (2 * mu / (1 - mu))) / (1 - q**2))
        x = run.go(DDIM(eta=eta), levels[k : k + 2], x, draws[k : k + 1]).x
    error = gaps(run.path[1:], list(flat(data, case, "x_steps")))
    seen = rows(run.times, levels[:-1])
    if gam != 1:
        return Outcome("DDIM(eta) row by row", error, seen, Extrapolated.difference, adapted=True)
    return Outcome(f"DDIM(eta={1.0 if mu else 0.0})", error, seen)


def outcome(case, reference) -> Outcome:
    """One case of the file."""
    data, name = reference.load(FILE), case["case"]
    if name.startswith("noise_bank"):
        return outside("draws")
    if name.startswith("schedule"):
        return _schedule(case, data)
    if name.startswith("smalldiffusion/sigmas"):
        return _levels(case, data)
    if name.startswith("smalldiffusion"):
        return _small(case, data, reference)
    return _run(case, data, reference)
