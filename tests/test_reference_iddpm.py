"""Claim: ancestral and DDIM sampling of DDPM chains are improved-diffusion's to 1e-9.

Its index i is sdekit's node i + 1. Two things are built here:

1. `ddpm_learned_range` gives each coordinate a constant v in [0, 1] that interpolates the two
   log-variances; it is not stored, so it is read off the first step of one case and must then
   explain every other step, case, schedule and law, by `Ancestral(variance="learned")` on a model
   that says 2 v - 1.
2. `ddim_reverse` encodes, from node 1 upwards. Grids of sdekit go down, so its step is made from
   the prediction's views: alpha_s x_0 + sigma_s eps with s the node above.

A respaced chain and the same nodes as a grid on the full chain are both run.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import EXACT, WithFraction, reference_target
from support import assert_close, reference_cases

from sdekit.model import ExactScore
from sdekit.sampling import DDIM, Ancestral, sample
from sdekit.sampling.noise import Replay, Zero
from sdekit.sde import DDPM

FILE = "iddpm_samplers"
SAMPLERS = {
    "ddpm_fixed_small": Ancestral(variance="posterior"),
    "ddpm_fixed_large": Ancestral(variance="beta"),
    "ddim_eta0": DDIM(eta=0.0),
    "ddim_eta0.5": DDIM(eta=0.5),
    "ddim_eta1": DDIM(eta=1.0),
}


class Case:
    """A case: the full chain, the kept nodes, the draws."""

    def __init__(self, about, reference) -> None:
        self.about = about
        self.data = reference.load(FILE)
        self.chain = getattr(DDPM, about["schedule"])(about["T"])
        self.kept = [int(i) + 1 for i in self.data.array(about, "timestep_map").tolist()]
        self.target = reference_target(reference, about["target"])
        self.x = self.data.array(about, "x_T").flatten(-3)
        self.states = self.data.array(about, "x_steps").flatten(-3)
        bank = self.data.array(f"noise_bank/{about['target']}", "noise").flatten(-3)
        self.draws = list(bank[: about["noise_rows"]])

    def respaced(self) -> ExactScore:
        return ExactScore(self.target, self.chain.respaced(self.kept))

    def subset(self) -> torch.Tensor:
        """The kept nodes as a grid on the full chain."""
        return self.chain.time(torch.tensor([*reversed(self.kept), 0]))


def forward_run(case: Case) -> None:
    sampler = SAMPLERS[case.about["algorithm"]]
    how = dict(sampler=sampler, x_init=case.x, keep="all")
    for model, grid in (
        (case.respaced(), "uniform"),
        (ExactScore(case.target, case.chain), case.subset()),
    ):
        # the source draws for the last step too and multiplies by 0: one row of the bank stays
        noise = Replay(case.draws)
        run = sample(model, tuple(case.x.shape), grid=grid, noise=noise, **how)
        assert_close(run.trajectory[1:], case.states, tol=EXACT)
        assert run.nfe == len(case.kept)
        assert noise.draw == max(len(case.draws) - 1, 0)


def reverse_run(case: Case) -> None:
    model, x = case.respaced(), case.x
    sde = model.sde
    for i, expected in enumerate(case.states, start=1):
        t, s = sde.time(i), sde.time(i + 1)
        x = model(x, t).linear(x0=float(sde.alpha(s)), eps=float(sde.sigma(s)))
        assert_close(x, expected, tol=EXACT)


def one_row(case: Case, sampler, k: int, noise) -> torch.Tensor:
    """Row k of the run, from the stored state before it."""
    model = case.respaced()
    i = model.sde.n - k
    x = case.x if k == 0 else case.states[k - 1]
    grid = model.sde.time(torch.tensor([i, i - 1]))
    return sample(model, tuple(x.shape), sampler=sampler, grid=grid, x_init=x, noise=noise).x


def learned_fractions(reference) -> list[float]:
    """The constant v of each coordinate, from the first step of the first such case."""
    data = reference.load(FILE)
    first = next(c for c in data.cases if c.get("algorithm") == "ddpm_learned_range")
    case = Case(first, reference)
    mean = one_row(case, Ancestral(), 0, Zero())
    log_std = ((case.states[0] - mean) / case.draws[0]).abs().log().mean(0)
    chain = case.respaced().sde
    low, high = chain.posterior_variance[-1].log(), chain.betas[-1].log()
    return ((2 * log_std - low) / (high - low)).tolist()


def learned_run(case: Case, reference) -> None:
    v = torch.tensor(learned_fractions(reference), dtype=torch.float64)
    assert bool(((v > 0) & (v < 1)).all())
    run = sample(
        WithFraction(case.respaced(), 2 * v - 1), tuple(case.x.shape), x_init=case.x,
        sampler=Ancestral(variance="learned"), noise=Replay(case.draws), keep="all",
    )  # fmt: skip
    # v comes from a difference of logarithms of 4e-4: 1e-12 there is 1e-9 in the first step
    assert_close(run.trajectory[1:], case.states, tol=EXACT, scale=10.0)


@pytest.mark.parametrize(
    "about", reference_cases(FILE, lambda c: not c["case"].startswith("noise_bank"))
)
def test_case(about, reference):
    case = Case(about, reference)
    if about["algorithm"] == "ddpm_learned_range":
        learned_run(case, reference)
    elif about["algorithm"] == "ddim_reverse":
        reverse_run(case)
    else:
        forward_run(case)


def test_no_case_is_left_out(reference):
    data = reference.load(FILE)
    algorithms = [c["algorithm"] for c in data.cases if not c["case"].startswith("noise_bank")]
    assert (len(algorithms), len(data.cases)) == (28, 30)
    assert set(algorithms) == {*SAMPLERS, "ddpm_learned_range", "ddim_reverse"}


def test_eta_enters_ddim_squared(reference):
    """Bug 33: a noise variance of eta tau agrees at eta 0 and 1 only."""
    case = Case(reference.load(FILE).case("linear_1000_ddim20/gauss/ddim_eta0.5"), reference)
    wrong = sample(
        case.respaced(), tuple(case.x.shape), sampler=DDIM(eta=0.5**0.5), x_init=case.x,
        noise=Replay(case.draws),
    ).x  # fmt: skip
    assert (wrong - case.states[-1]).abs().max() > 1e-2
