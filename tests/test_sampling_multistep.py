"""Claim: the rows of multistep and composed samplers are the papers' formulas, with their memory.

What the stored runs of other projects do not hold: SA-Solver's two nodes, the rows of a restart,
gamma of churn, what a corrector of the last row may not undo, and the orders that options cap.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import Wrapped, draws, two_modes
from strategies import f64
from support import assert_close

from sdekit.errors import ConfigError, DtypeError
from sdekit.model import ExactScore
from sdekit.sampling import (
    DEIS,
    LMS,
    AdaptiveSDE,
    Churned,
    DPMSolver,
    DPMSolverPP,
    Heun,
    PredictorCorrector,
    Restart,
    SASolver,
    UniPC,
    iterate,
    sample,
)
from sdekit.sampling.noise import Replay
from sdekit.sde import EDM, VESDE, VPSDE
from sdekit.targets import Gaussian

GRID = f64([0.8, 0.55, 0.3, 0.2])


def levels(sde):
    alpha, sigma = sde.alpha(GRID), sde.sigma(GRID)
    return alpha, sigma, (alpha / sigma).log()


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("corrector", [0, 2])
def test_sa_solver_by_hand(tau, corrector):
    """arXiv:2305.14267, eqs. 14 and 17 with two nodes: mu_0 = 1 - e^-c, mu_1 -> c / 2."""
    sde = VPSDE()
    model = ExactScore(two_modes(), sde)
    x, z = draws(1, (4, 2))[0], draws(3, (4, 2), seed=1)
    alpha, sigma, level = levels(sde)
    sampler = SASolver(tau=tau, corrector_order=corrector, final_order=2)
    run = sample(model, (4, 2), sampler=sampler, grid=GRID, x_init=x, noise=Replay(z))

    def row(x, k, m, slope):
        h = float(level[k + 1] - level[k])
        c = (1 + tau**2) * h
        a = float(sigma[k + 1] / sigma[k]) * math.exp(-(tau**2) * h)
        std = float(sigma[k + 1]) * math.sqrt(-math.expm1(-2 * tau**2 * h))
        inner = -math.expm1(-c) * m + c / 2 * slope
        return a * x + float(alpha[k + 1]) * inner + std * z[k]

    seen, y, start = [], x, x
    for k in range(3):
        seen.append(model(y, float(GRID[k])).x0)
        if k and corrector:  # the last row again: nodes 1 and 0, the same noise
            y = row(start, k - 1, seen[-2], seen[-1] - seen[-2])
        ratio = float((level[k] - level[k - 1]) / (level[k + 1] - level[k])) if k else 1.0
        slope = (seen[-1] - seen[-2]) / ratio if k else 0 * x
        if k == 0:  # one node
            h = float(level[1] - level[0])
            c = (1 + tau**2) * h
            a = float(sigma[1] / sigma[0]) * math.exp(-(tau**2) * h)
            std = float(sigma[1]) * math.sqrt(-math.expm1(-2 * tau**2 * h))
            start, y = y, a * y - math.expm1(-c) * float(alpha[1]) * seen[0] + std * z[0]
        else:
            start, y = y, row(y, k, seen[-1], slope)
    assert_close(run.x, y, tol=1e-12)


def test_tau_acts_inside_its_levels():
    sde = VPSDE()
    ratio = (sde.sigma(GRID) / sde.alpha(GRID)).tolist()
    inside = SASolver(tau_min=ratio[1] - 1e-9, tau_max=ratio[1] + 1e-9).coefficients(sde, GRID)
    assert [float(v) > 0 for v in inside["std"]] == [False, True, False]


def test_rows_of_a_restart():
    """arXiv:2306.14878, algorithm 1: up at once, down in equal steps of the seventh root."""
    sde = EDM()
    grid = f64([0.9, 0.5, 0.2, 0.0])
    level = sde.sigma(grid)
    low, high = float(level[2]), 3 * float(level[2])
    sampler = Restart(sampler="ddim", intervals=((low * 1.01, high, 3, 2),))
    t, s = sampler.times(sde, grid)
    found = sde.sigma(torch.cat([t[:1], s]))
    down = torch.linspace(high ** (1 / 7), low ** (1 / 7), 4, dtype=torch.float64) ** 7
    expected = torch.cat([level[:3], down, down, level[3:]])
    assert_close(found, expected, tol=1e-9)
    again = Restart(
        sampler="ddim", intervals=((0.98 * float(level[0]), 2 * float(level[0]), 1, 1),)
    )
    assert again.times(sde, grid)[1].tolist() == [0.5, 0.9, 0.5, 0.2, 0.0]  # no jump at the start
    c = sampler.coefficients(sde, grid)
    assert_close(c["fresh"][2], f64(math.sqrt(high**2 - low**2)), tol=1e-9)


@pytest.mark.parametrize(
    "sampler", [Heun(churn=0.6), Churned(sampler="heun", churn=0.6)], ids=repr
)
def test_gamma_is_churn_over_the_rows(sampler):
    sde = VESDE()
    model = Wrapped(ExactScore(two_modes(), sde))
    sample(model, (2, 2), sampler=sampler, grid=f64([0.8, 0.6, 0.4, 0.2]), seed=0)
    raised = sde.sigma(f64(model.times[0::2])) / sde.sigma(f64([0.8, 0.6, 0.4]))
    assert_close(raised, f64([1.2, 1.2, 1.2]), tol=1e-9)


@pytest.mark.parametrize(
    "name", ["heun(churn=9.0, noise_scale={})", "churned(churn=9.0, noise_scale={})"]
)
def test_churn_without_noise_still_lifts(name):
    model = ExactScore(two_modes(), VPSDE())
    none, little = (
        sample(model, (3, 2), sampler=name.format(scale), steps=12, seed=0, dtype=torch.float64).x
        for scale in ("0.0", "1e-12")
    )
    assert_close(none, little, tol=1e-9)


@pytest.mark.parametrize("name", ["unipc", "sa_solver(tau=0.0)"])
def test_the_correction_keeps_what_moved_the_sample_meanwhile(name):
    """A shift between two rows stays in the state, as it does in DDIM's."""
    model = ExactScore(Gaussian(f64([0.0, 0.0]), 1.0), VPSDE())
    x = torch.full((500, 2), 30.0, dtype=torch.float64)
    both = PredictorCorrector(
        predictor=name, corrector="langevin(snr=0.4)", corrections=20, first="predictor"
    )
    run = sample(model, (500, 2), sampler=both, steps=20, seed=0, x_init=x)
    assert abs(float(run.x.mean())) < 0.3  # the mean of 1000 numbers of variance 1: 9 deviations


def test_options_cap_the_order_that_is_claimed():
    assert DPMSolverPP(order=3, corrected=True).weak_order == 3
    assert DPMSolverPP(order=3, corrected=True, final_order=1).weak_order == 2
    assert LMS(order=3, warmup="heun", final_order=1).weak_order == 2
    assert SASolver(predictor_order=2, corrector_order=1).weak_order == 1
    assert UniPC(order=3, final_order=1).weak_order == 2


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: DPMSolver(fractions=5), ConfigError, "fractions"),
        (lambda: DPMSolver(order=3, fractions=(0.7, 0.2)), ConfigError, "increasing"),
        (lambda: DPMSolver(warmup=0), DtypeError, "warmup"),
        (lambda: DPMSolver(warmup="heun", eta=1.0), ConfigError, "noise"),
        (lambda: UniPC(final_order=10**30), ConfigError, "final_order"),
        (lambda: AdaptiveSDE(extrapolate="no"), DtypeError, "extrapolate"),
        (lambda: Restart(intervals=((1.0, 0.5, 3, 1),)), ConfigError, "high"),
        (lambda: Restart(intervals=((0.1, 1.0, 3, 10**6),)), ConfigError, "repeats must be"),
        (lambda: Churned(sampler="ancestral"), ConfigError, "deterministic"),
        (lambda: Churned(sampler="dpmpp_2m"), ConfigError, "memory"),
    ],
)
def test_what_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_a_restart_above_the_process_starts_at_its_start():
    for sde in (VPSDE(), VESDE()):
        run = sample(
            ExactScore(two_modes(), sde), (2, 2), steps=8, seed=0,
            sampler=Restart(intervals=((0.1, 1e6, 2, 1),)),
        )  # fmt: skip
        assert float(run.grid[1:].max()) == pytest.approx(sde.t_max)


def test_mala_on_no_samples():
    model = ExactScore(two_modes(), VPSDE())
    frames = iterate(model, torch.empty(0, 2), sampler="mala", grid="uniform", steps=2)
    assert [tuple(frame.x.shape) for frame in frames] == [(0, 2)] * 3


@pytest.mark.parametrize(
    "sampler",
    [
        LMS(order=3, warmup="heun"),
        DEIS(order=3, warmup="heun"),
        DPMSolver(order=3, warmup="heun", variant="heun"),
    ],
    ids=repr,
)
def test_a_first_row_by_heun_integrates_the_line_through_its_two_ends(sampler):
    """Its weights are the integrals over rho of 1 - r and r, r from 0 to 1 along the row."""
    sde, grid = VPSDE(), f64([0.9, 0.6, 0.3])
    first, second = sampler.coefficients(sde, grid)["stages"]
    whole, (start, end) = float(first["w"][0, 0]), second["w"][0, :2]
    assert start + end == pytest.approx(whole, rel=1e-12)
    r, rho = torch.linspace(0, 1, 20001, dtype=torch.float64), sde.sigma(grid) / sde.alpha(grid)
    if sampler.catalogue_name == "lms":
        share = 0.5
    else:  # u = -log rho: the mean of r over d rho along the row
        u = rho[0] * (rho[1] / rho[0]) ** r
        share = float(torch.trapezoid(r, u) / (u[-1] - u[0]))
    assert float(end) / whole == pytest.approx(share, rel=1e-8)
    assert second["present"].tolist() == [True, False]
