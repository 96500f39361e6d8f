"""Claim: the solvers of the probability flow agree with each other and with its closed forms.

Property 57 and 23: a Gaussian is moved by x sqrt(v_s / v_t) around its mean, in 1-D quantiles go
to quantiles. Adaptive solves that cannot end are errors with their reason, never a number or a
hang.
"""

from __future__ import annotations

import time

import pytest
import torch
from sampling_support import Given, Wrapped, draws, spectrum, two_modes
from strategies import EVERY, f64
from support import assert_close, leaving

from sdekit.errors import ConfigError, DtypeError, SolverError
from sdekit.model import ExactScore
from sdekit.sampling import DDIM, EulerMaruyama, Heun, ProbabilityFlow, sample
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, SubVPSDE
from sdekit.targets import GaussianMixture

SDES = {"vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE(sigma_max=10.0), "flow": EVERY["flow-0"]}
every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
TIGHT = dict(rtol=1e-9, atol=1e-9)


def flowed(sampler, model, x, **how):
    return sample(model, tuple(x.shape), sampler=sampler, x_init=x, **how).x


def gaussian_flow(model, x, t, s):
    """The closed form: every coordinate keeps its standard score."""

    def moments(u):
        alpha, var = float(model.sde.alpha(u)), float(model.sde.var(u))
        return alpha * model.target.mean, (alpha**2 * model.target.cov.diagonal() + var).sqrt()

    (mean_t, std_t), (mean_s, std_s) = moments(t), moments(s)
    return mean_s + std_s * (x - mean_t) / std_t


@every_sde
@pytest.mark.parametrize("solver", ["dopri5", "scipy:DOP853"])
def test_gaussians_in_closed_form(sde, solver):
    model = ExactScore(spectrum(), sde)
    x = draws(1, (3, 4))[0] * sde.prior_std()
    found = flowed(ProbabilityFlow(solver=solver, **TIGHT), model, x)
    assert_close(found, gaussian_flow(model, x, sde.t_max, sde.t_min), tol=1e-6)


@pytest.mark.parametrize(
    "solver",
    [
        "bosh3",
        "fehlberg2",
        "adaptive_heun",
        "scipy:RK23",
        "scipy:Radau",
        "scipy:BDF",
        "scipy:LSODA",
    ],
)
def test_the_other_solvers_too(solver):
    model = ExactScore(spectrum(), VPSDE(t_min=0.05))
    x = draws(1, (2, 4))[0]
    found = flowed(ProbabilityFlow(solver=solver, rtol=1e-5, atol=1e-6), model, x)
    assert_close(found, gaussian_flow(model, x, 1.0, 0.05), tol=1e-3)


@pytest.mark.parametrize("sde", leaving(SDES, lambda name: name not in ("vp", "ve")))
def test_all_deterministic_samplers_have_one_limit(sde):
    """Property 57, on a mixture, where nothing is affine."""
    model, x = ExactScore(two_modes(), sde), draws(1, (3, 2), seed=5)[0] * sde.prior_std()
    grid = torch.linspace(0.9, 0.05, 401, dtype=torch.float64) * sde.t_max
    expected = flowed(ProbabilityFlow(solver="dopri5", **TIGHT), model, x, grid=grid)
    for sampler, near in (
        (ProbabilityFlow(solver="rk4"), 1e-5), (ProbabilityFlow(solver="heun"), 2e-3),
        (ProbabilityFlow(solver="midpoint"), 2e-3), (Heun(), 1e-3), (DDIM(), 2e-2),
        (ProbabilityFlow(solver="euler"), 0.1), (EulerMaruyama(eta=0.0), 0.1),
    ):  # fmt: skip
        assert_close(flowed(sampler, model, x, grid=grid), expected, tol=near)


def test_quantiles_go_to_quantiles():
    """Property 22: in one dimension the flow is the monotone map of the marginals."""
    law = GaussianMixture(f64([0.3, 0.7]), f64([[-1.5], [1.0]]), f64([0.3, 0.05]))
    sde = VPSDE(t_min=0.02)
    model = ExactScore(law, sde)

    def cdf(x, t):
        alpha, var = sde.alpha(t), sde.var(t)
        z = (x - alpha * f64([-1.5, 1.0])) / (alpha**2 * f64([0.3, 0.05]) + var).sqrt()
        return (f64([0.3, 0.7]) * torch.special.ndtr(z)).sum(1)

    x = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)[:, None]
    out = flowed(ProbabilityFlow(rtol=1e-10, atol=1e-10), model, x)
    torch.testing.assert_close(cdf(out, 0.02), cdf(x, 1.0), rtol=0, atol=1e-6)


def test_a_tighter_tolerance_is_closer():
    model, x = ExactScore(spectrum(), VPSDE()), draws(1, (3, 4))[0]
    expected = gaussian_flow(model, x, 1.0, 1e-3)
    for solver in ("dopri5", "scipy:RK45"):
        errors = [
            float(
                (flowed(ProbabilityFlow(solver=solver, rtol=r, atol=r), model, x) - expected)
                .abs()
                .max()
            )
            for r in (1e-3, 1e-5, 1e-7)
        ]
        assert errors[0] > 5 * errors[1] > 25 * errors[2]


@pytest.mark.parametrize("solver", ["dopri5", "scipy:RK45"])
def test_each_tolerance_counts(solver):
    """Loosening either one alone makes the solve cheaper."""
    model = ExactScore(two_modes(), VPSDE())
    calls = {}
    for rtol, atol in ((1e-8, 1e-8), (1e-3, 1e-8), (1e-8, 1e-3)):
        how = ProbabilityFlow(solver=solver, rtol=rtol, atol=atol)
        calls[rtol, atol] = sample(model, (3, 2), sampler=how, seed=0, dtype=torch.float64).nfe
    assert calls[1e-8, 1e-8] > max(calls[1e-3, 1e-8], calls[1e-8, 1e-3])


@pytest.mark.parametrize("solver", ["dopri5", "scipy:RK45"])
def test_only_the_ends_of_a_grid_matter(solver):
    model, x = ExactScore(two_modes(), EDM()), draws(1, (3, 2))[0]
    sampler = ProbabilityFlow(solver=solver)
    one = sample(model, (3, 2), sampler=sampler, x_init=x, grid=f64([0.8, 0.1]), keep="all")
    two = sample(model, (3, 2), sampler=sampler, x_init=x, grid=f64([0.8, 0.5, 0.1]))
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.grid, f64([0.8, 0.1]))
    assert torch.equal(one.trajectory[0], x)


def test_on_a_chain_it_stops_at_the_first_node():
    for sde in (DDPM.linear(20, beta_end=0.4), DDPM.linear(1000)):
        model = Wrapped(ExactScore(spectrum(), sde))
        run = sample(model, (2, 4), sampler="probability_flow", seed=0)
        assert torch.equal(run.grid, f64([1.0, 1 / sde.n]))
        assert min(model.times) >= 1 / sde.n
    model = ExactScore(spectrum(), DDPM([0.5]))  # nothing to do
    run = sample(model, (2, 4), sampler="probability_flow", seed=0)
    assert run.nfe == 0


@pytest.mark.parametrize(
    "solver", ["dopri5", "dopri8", "scipy:RK45", "scipy:DOP853", "scipy:Radau"]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_flow_that_is_not_finite_fails_at_once(solver, bad):
    """F2: SciPy and k-diffusion hang here."""
    model = Given(lambda x, t: torch.full_like(x, bad) if t < 0.5 else -x, VPSDE())
    start = time.perf_counter()
    with pytest.raises(SolverError, match=r"not finite at t = "):
        sample(model, (2, 2), sampler=ProbabilityFlow(solver=solver), seed=0)
    assert time.perf_counter() - start < 5  # 1 s on an idle machine


@pytest.mark.parametrize("solver", ["dopri5", "scipy:RK45"])
def test_max_nfe(solver):
    """F4, with progress in the message."""
    model = Wrapped(ExactScore(two_modes(), VPSDE()))
    sampler = ProbabilityFlow(solver=solver, rtol=1e-10, atol=1e-10, max_nfe=40)
    with pytest.raises(SolverError, match=r"max_nfe=40.*t = 0\.\d+.*from 1 to 0\.001"):
        sample(model, (2, 2), sampler=sampler, seed=0)
    assert model.calls == 40


@pytest.mark.parametrize("solver", ["dopri5", "scipy:RK45"])
def test_a_jump_that_no_step_resolves(solver):
    """F1: a typed error with its place, or a finite answer; never a hang."""
    model = Given(lambda x, t: -x * (1e9 if t > 0.5 else 1.0), VPSDE())
    sampler = ProbabilityFlow(solver=solver, rtol=1e-10, atol=1e-12, max_nfe=300)
    with pytest.raises(SolverError, match=r"t = |between"):
        sample(model, (2, 2), sampler=sampler, seed=0)


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [0, 0.0, -1e-3, float("nan"), float("inf")])
def test_tolerances(name, value):
    """F3."""
    with pytest.raises(ConfigError, match=name):
        ProbabilityFlow(**{name: value})


def test_what_is_no_solver():
    with pytest.raises(ConfigError, match=r"dopri55.*dopri5"):
        ProbabilityFlow(solver="dopri55")
    with pytest.raises(DtypeError, match="solver"):
        ProbabilityFlow(solver=5)
    with pytest.raises(ConfigError, match="max_nfe"):
        ProbabilityFlow(max_nfe=0)
    with pytest.raises(DtypeError, match="max_nfe"):
        ProbabilityFlow(max_nfe=1.5)


@pytest.mark.parametrize(
    ("solver", "order"),
    [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4), ("dopri5", 5), ("dopri8", 8),
     ("bosh3", 3), ("fehlberg2", 2), ("adaptive_heun", 2), ("scipy:RK23", 3), ("scipy:RK45", 5),
     ("scipy:DOP853", 8), ("scipy:Radau", 5), ("scipy:BDF", 5), ("scipy:LSODA", 5)],
)  # fmt: skip
def test_orders_are_the_textbooks(solver, order):
    assert ProbabilityFlow(solver=solver).order == order


def test_dtype_and_shape_survive_the_libraries():
    model = Given(lambda x, t: -x, VPSDE())
    for solver in ("dopri5", "scipy:RK45"):
        for dtype in (torch.float32, torch.float64):
            x = torch.ones(2, 1, 3, dtype=dtype)
            out = flowed(ProbabilityFlow(solver=solver), model, x)
            assert out.dtype == dtype
            assert out.shape == x.shape
            torch.testing.assert_close(out, x, rtol=0, atol=1e-4)  # N(0, I) is at rest
