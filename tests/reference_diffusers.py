"""diffusers' schedulers, with the exact eps-model; the state after every call is stored.

Its integer timestep i is node i + 1 of the chain. Schedulers that only step between training
steps run on the chain itself; the others on the levels that they list (`LevelVP`), or, where
their states are in sigma units (Euler, Heun, LMS, KDPM2, EDM), on `LevelVE`. Built in:

1. DDIM steps to t - T//n whatever its own next timestep is: one run per row.
2. DDPM with the large variance draws noise even in a step that lands on the data; sdekit does
   not, and that noise is added here.
3. PNDM's last call has a step of length 0.
4. UniPC with bh1 makes NaN of its last state, where sigma = 0; sdekit lands, and what is compared
   are the states before.
5. lower_order_final acts below 15 steps; a landing at sigma = 0 is of order 1 in any case.
6. DPMSolverSinglestep's rows span several of its timesteps, at which it calls the model inside:
   one run per row, with their places in the row as `fractions`. For order 3 its second stage is
   `HalvedStage`.
7. The third weight of sde-dpmsolver++ of order 3 has a wrong sign in it: `LessOne`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from reference_support import (
    LevelVE,
    LevelVP,
    Outcome,
    Walk,
    bank,
    exact,
    flat,
    gaps,
    missing,
    outside,
    rows,
    walk,
)  # fmt: skip

from sdekit.sampling import (
    DDIM,
    DEIS,
    IPNDM,
    LMS,
    Ancestral,
    DPMSolver,
    DPMSolverPP,
    Heun,
    Renoised,
    SDEDPMSolverPP,
    UniPC,
)  # fmt: skip
from sdekit.sampling.integrals import Levels, Semilinear
from sdekit.sde import DDPM, EDM, VESDE

FILE = "diffusers_schedulers"
SCHEDULES = {
    "linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine",
    "sigmoid": "sigmoid",
}  # fmt: skip


def _chain(about, n: int) -> DDPM:
    fields = {} if about["beta_schedule"] == "squaredcos_cap_v2" else {
        k: about[k] for k in ("beta_start", "beta_end")
    }  # fmt: skip
    return getattr(DDPM, SCHEDULES[about["beta_schedule"]])(n, **fields)


def _ramp(levels: torch.Tensor) -> torch.Tensor:
    return torch.linspace(1, 0, len(levels), dtype=torch.float64)


def _betas(case, data) -> Outcome:
    """A table."""
    if "rule" in case:
        return missing("a chain that ends at a SNR of 0, which sdekit refuses")
    chain = _chain(case, case["T"])
    error = max(
        rows(chain.betas, data.array(case, "betas")),
        rows(chain.alphas_bar, data.array(case, "alphas_cumprod")),
    )
    return Outcome(repr(chain), error)


class Case:
    """A run of the source: its chain, its levels, what it stored."""

    def __init__(self, about, reference) -> None:
        self.about, self.reference, self.data = about, reference, reference.load(FILE)
        self.config, self.steps = about["config"], about["num_inference_steps"]
        self.name = about["scheduler"].removesuffix("Scheduler").removesuffix("Discrete")
        self.x = flat(self.data, about, "x_T")
        self.states = list(flat(self.data, about, "x_steps"))
        self.draws = bank(self.data, about) if about.get("noise_rows") else []

    @property
    def chain(self) -> DDPM:
        return _chain(self.config, self.config["num_train_timesteps"])

    def array(self, name: str) -> torch.Tensor:
        return self.data.array(self.about, name)

    def nodes(self) -> torch.Tensor:
        """The nodes of the timesteps."""
        return self.array("timesteps").to(torch.int64) + 1

    def model(self, sde):
        return exact(self.reference, self.about["target"], sde)

    def level(self, t) -> torch.Tensor:
        chain = self.chain
        at = torch.as_tensor(t, dtype=torch.float64)
        return chain.sigma(at) / chain.alpha(at)

    def found(self, run: Walk, ours: str, note: str = "", *, states=None, seen=None) -> Outcome:
        """All states, and the levels of the calls."""
        mine = run.states if states is None else states
        stored = self.array("model_sigma" if "model_sigma" in self.about["arrays"] else "sigmas")
        seen = torch.tensor(run.times if seen is None else seen, dtype=torch.float64)
        levels = max(rows(seen, stored[: len(seen)]), self.listed())
        return Outcome(ours, gaps(mine, self.states), levels, note)

    def listed(self) -> float:
        """The levels that the source lists, against sdekit's own by the same rule."""
        if "sigmas" not in self.about["arrays"]:
            return 0.0
        levels = self.array("sigmas").unique().flip(0)
        levels = levels[levels > 0]
        if self.name.startswith("EDM"):
            return rows(EDM().sigma(_ramp(levels)), levels)
        low, high = (float(self.level(i / self.chain.n)) for i in (1, self.chain.n))
        if self.config.get("use_karras_sigmas"):
            return rows(EDM(sigma_min=low, sigma_max=high).sigma(_ramp(levels)), levels)
        if self.config.get("use_lu_lambdas"):
            return rows(VESDE(sigma_min=low, sigma_max=high).sigma(_ramp(levels)), levels)
        times = self.array("timesteps")
        nodes = times[times == times.round()].unique().flip(0).to(torch.int64) + 1
        if self.config.get("final_sigmas_type") == "sigma_min" or self.name == "DEISMultistep":
            nodes = torch.cat([nodes, torch.ones(1, dtype=torch.int64)])
        return rows(self.level(self.chain.time(nodes)), levels)


def _ddpm(case: Case) -> Outcome:
    """Ancestral sampling on the chain's own nodes."""
    large = case.config["variance_type"] == "fixed_large"
    sampler = Ancestral(variance="beta" if large else "posterior")
    chain, nodes = case.chain, case.nodes()
    times = chain.time(torch.cat([nodes, torch.zeros(1, dtype=torch.int64)]))
    run = walk(case.model(chain), sampler, times, case.x, case.draws)
    states, note = run.states, ""
    if len(case.draws) > run.draws and large:
        std = chain.transition(times[-1], times[-2])[1]
        states = [*states[:-1], states[-1] + std * case.draws[-1]]
        note = "the noise of the landing step is added"
    elif len(case.draws) > run.draws:
        note = "the landing step's draw has a standard deviation of 1e-10 there, and 0 here"
    return case.found(run, repr(sampler), note, states=states, seen=case.level(run.times).tolist())


def _ddim(case: Case) -> Outcome:
    """DDIM row by row, from a node to the one T // n below it."""
    sampler, chain = DDIM(eta=case.about["eta"]), case.chain
    stride, x = chain.n // case.steps, case.x
    end = 0 if case.config["set_alpha_to_one"] else 1
    nodes, run = case.nodes(), Walk(case.model(chain))
    states, off = [], False
    for k, node in enumerate(nodes.tolist()):
        below = node - stride if node - stride > 0 else end
        off |= k + 1 < len(nodes) and below != int(nodes[k + 1])
        times = chain.time(torch.tensor([node, below]))
        x = run.go(sampler, times, x, case.draws[k : k + 1]).x
        states.append(x)
    note = "steps to t - T//n, off its own timesteps" if off else ""
    return case.found(run, repr(sampler), note, states=states, seen=case.level(run.times).tolist())


def _pndm(case: Case) -> Outcome:
    """PLMS as released, or after Runge-Kutta rows, without the last call."""
    plms = case.config["skip_prk_steps"]
    sampler = IPNDM(warmup="heun" if plms else "runge_kutta")
    nodes = case.nodes().unique().flip(0)
    if not plms:  # between the nodes of the grid are those of the Runge-Kutta stages
        nodes = nodes[(nodes[0] - nodes) % (case.chain.n // case.steps) == 0]
    run = walk(case.model(case.chain), sampler, case.chain.time(nodes), case.x)
    levels = case.level(run.times)
    return case.found(
        run, repr(sampler), "without its last call, a step of length 0",
        states=[*run.states, run.x], seen=levels.tolist(),
    )  # fmt: skip


class HalvedStage(DPMSolverPP):
    """Order 3 of the singlestep scheduler (convention 6)."""

    difference = "the second stage of a row of order 3 has mu_0 / 2 for the exact mu_1"

    def coefficients(self, sde, grid):
        columns = super().coefficients(sde, grid)
        if self.order == 3:
            at, (r, s) = Levels(sde, grid[:-1]), self.fractions
            to = Levels(sde, columns["stages"][2]["t"])
            nodes, two = np.tile([0.0, r / s], (len(at.t), 1)), np.full(len(at.t), 2)
            rule = lambda mu, c: np.stack([mu[:, 0], 0.5 * mu[:, 0]], axis=1)  # noqa: E731
            columns["stages"][1].update(Semilinear("x0").row(at, to, nodes, two, rule))
        return columns


class LessOne(SDEDPMSolverPP):
    """Order 3 of sde-dpmsolver++ (convention 7)."""

    difference = "the constant in the third prediction's weight has the other sign: mu_2 / 2 - 1"

    def integral(self, sde, at, to, nodes, order):
        def rule(mu, c):
            half = np.where(order == 2, 0.5 * mu[:, 0], mu[:, 1])
            return np.stack([mu[:, 0], half, 0.5 * mu[:, 2] - 1], axis=1)

        return Semilinear("x0", self.eta).row(at, to, nodes, order, rule)


def _multistep(case: Case):
    """The multistep samplers by their configuration."""
    config = case.config
    order = config.get("solver_order", 2)
    few = config.get("lower_order_final", True) and case.steps < 15
    final = 1 if few or config.get("euler_at_final") else order
    if case.name == "DEISMultistep":
        return DEIS(order=order, final_order=final)
    if case.name == "UniPCMultistep":
        return UniPC(
            order=order, variant=config["solver_type"], final_order=final,
            prediction="x0" if config.get("predict_x0", True) else "eps",
            corrector="disable_corrector" not in config,
        )  # fmt: skip
    kind = config.get("algorithm_type", "dpmsolver++")
    make, options = {
        "dpmsolver++": (DPMSolverPP, {}),
        "dpmsolver": (DPMSolver, {}),
        "sde-dpmsolver++": (SDEDPMSolverPP, {}),
        "sde-dpmsolver": (DPMSolver, {"eta": 1.0}),
    }[kind]
    variant = config.get("solver_type", "midpoint")
    if kind == "sde-dpmsolver++" and order == 3:
        make = LessOne
    return make(order=order, variant=variant, final_order=final, **options)


def _along(case: Case, sampler, levels: torch.Tensor, sde, note: str = "") -> Outcome:
    """One run along levels."""
    run = walk(case.model(sde), sampler, levels, case.x, case.draws)
    states = run.states
    if case.about.get("nonfinite"):
        if not bool(case.states[-1].isnan().any()) or not bool(run.x.isfinite().all()):
            raise AssertionError("the last state is expected to be NaN there, and finite here")
        case.states, states = case.states[:-1], states[:-1]
        note = "its last state is NaN; sdekit's is finite; those before agree"
    if isinstance(sampler, LessOne):
        ours = repr(SDEDPMSolverPP(order=3, final_order=sampler.final_order))
        return replace(case.found(run, ours, LessOne.difference), adapted=True)
    return case.found(run, repr(sampler), note, states=states)


def _singlestep(case: Case) -> Outcome:
    """DPMSolverSinglestep: a row of order p spans p timesteps (convention 6)."""
    order, levels, x = case.config["solver_order"], case.array("sigmas"), case.x
    orders = {
        1: [1] * case.steps,
        2: [2] * (case.steps // 2 - 1) + [1, 1],
        3: [3] * (case.steps // 3) + [1],
    }[order]
    make = HalvedStage if order == 3 else DPMSolverPP
    run, first = Walk(case.model(LevelVP())), 0
    for p in orders:
        row = levels[first : first + p + 1]
        u = row.log()
        r = tuple(((u[1:-1] - u[0]) / (u[-1] - u[0])).tolist()) or None
        sampler = make(order=p, multistep=False, fractions=r)
        x, first = run.go(sampler, row[[0, -1]], x).x, first + p
    ours = f"DPMSolverPP(multistep=False) of orders {', '.join(map(str, orders))}"
    if order == 3:
        return replace(case.found(run, ours, HalvedStage.difference), adapted=True)
    return case.found(run, ours)


def _sigma_units(case: Case) -> Outcome:
    """The schedulers with x = x_0 + sigma z; levels from the list, without repetitions."""
    levels = case.array("sigmas").unique().flip(0)
    sampler = {
        "Euler": DDIM(),
        "EDMEuler": DDIM(),
        "EulerAncestral": DDIM(eta=1.0),
        "Heun": Heun(),
        "LMS": LMS(order=4),
        "KDPM2": DPMSolver(order=2, multistep=False),
        "KDPM2Ancestral": Renoised(sampler=DPMSolver(order=2, multistep=False), eta=1.0),
    }.get(case.name)
    if case.name == "EDMDPMSolverMultistep":
        sampler = _multistep(case)
    return _along(case, sampler, levels, LevelVE())


def outcome(about, reference) -> Outcome:
    """One case of the file."""
    if about["case"].startswith("noise_bank"):
        return outside("draws")
    if about["case"].startswith("betas"):
        return _betas(about, reference.load(FILE))
    case = Case(about, reference)
    special = {"DDPM": _ddpm, "DDIM": _ddim, "PNDM": _pndm, "DPMSolverSinglestep": _singlestep}
    if case.name in special:
        return special[case.name](case)
    if case.name in ("DPMSolverMultistep", "UniPCMultistep", "DEISMultistep"):
        return _along(case, _multistep(case), case.array("sigmas"), LevelVP())
    return _sigma_units(case)
