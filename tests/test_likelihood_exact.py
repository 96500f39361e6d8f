"""Claim: the log-likelihood of a known law is the law's own, on every process and solver.

Properties 65, 66, 68 to 72: closed forms of Gaussians, densities that integrate to one, changes of
variables, independent coordinates, tolerances, solvers and batches; and the stored numbers of
yang-song/score_sde_pytorch and SciPy.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import Wrapped, entries, reference_target
from support import assert_close, reference_cases

from sdekit import ExactScore, Gaussian, GaussianMixture, ScoreModel, log_prob
from sdekit.model import MLP, Moments
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE
from sdekit.targets import Empirical, Tutorial

SDES = {
    "vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE(), "cosine": CosineSDE(), "flow": FlowSDE(),
    "edm": EDM(), "ddpm": DDPM.linear(200, beta_end=0.1),
}  # fmt: skip
every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
TIGHT = dict(rtol=1e-9, atol=1e-9)
TRIPLE = GaussianMixture([0.2, 0.3, 0.5], [[-4.0], [0.0], [3.0]], 0.25)


def unframed(model):
    """The model without its moments: the frame is then that of N(0, I)."""
    return Wrapped(model)


def drawn(law, n, seed=0):
    return law.sample(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_sde
@pytest.mark.parametrize(
    "law", [Gaussian([1.0, -1.0], [[2.0, 1.2], [1.2, 1.0]]), Gaussian([3.0], 0.04)]
)
def test_gaussians_are_exact_whatever_the_tolerance(sde, law):
    model, x = ExactScore(law, sde), drawn(law, 20)
    found = log_prob(model, x)
    assert_close(found.corrected(), model.at(found.t_min).log_prob(x), tol=1e-6, scale=1.0)
    # in the frame of its own moments the data is at rest: only rounding is left
    assert_close(found.corrected(), model.at(found.t_min).log_prob(x), tol=1e-11, scale=1.0)


@every_sde
def test_gaussians_without_their_frame(sde):
    law = Gaussian([1.0, -1.0], [[2.0, 1.2], [1.2, 1.0]])
    model, x = ExactScore(law, sde), drawn(law, 20)
    found = log_prob(unframed(model), x, rtol=1e-7, atol=1e-7)
    latent = model.at(sde.t_max).log_prob(found.latent)
    gap = latent - sde.prior_log_prob(found.latent)
    assert found.prior_gap is None
    assert_close(found.nats + gap, model.at(found.t_min).log_prob(x), tol=1e-6, scale=1.0)


@every_sde
def test_the_tutorial_within_a_ten_thousandth(sde):
    model, x = ExactScore(Tutorial(), sde), drawn(Tutorial(), 100)
    # a point on the ridge between the modes, where paths part
    x = torch.cat([x, torch.tensor([[0.2, 0.1], [0.0, 0.0]], dtype=torch.float64)])
    found = log_prob(model, x)
    assert_close(found.corrected(), model.at(found.t_min).log_prob(x), tol=1e-4, scale=1.0)


def test_a_point_at_rest_alone():
    """In a symmetric mixture the middle does not move, and the divergence there changes fast."""
    law = GaussianMixture([0.5, 0.5], [[4.0], [-4.0]], 0.09)
    model, x = ExactScore(law, VPSDE()), torch.zeros(1, 1, dtype=torch.float64)
    found = log_prob(model, x)
    assert_close(found.latent, x, tol=1e-12, scale=1.0)
    assert_close(found.corrected(), model.at(found.t_min).log_prob(x), tol=1e-4, scale=1.0)


@pytest.mark.parametrize(
    "sde", [SDES["vp"], SDES["sub_vp"], SDES["ve"]], ids=["vp", "sub_vp", "ve"]
)
def test_densities_integrate_to_one(sde):
    line = torch.linspace(-9.0, 8.0, 1701, dtype=torch.float64)
    density = log_prob(ExactScore(TRIPLE, sde), line[:, None]).corrected().exp()
    assert abs(float(torch.trapezoid(density, line)) - 1) < 1e-5
    # the model's own density, with its prior, is normalised too
    model = unframed(ExactScore(TRIPLE, sde))
    assert abs(float(torch.trapezoid(log_prob(model, line[:, None]).nats.exp(), line)) - 1) < 1e-5


def test_a_density_in_the_plane_integrates_to_one():
    side = torch.linspace(-8.0, 8.0, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    density = log_prob(ExactScore(Tutorial(), VPSDE()), grid).corrected().exp()
    assert abs(float(density.sum()) * 0.2**2 - 1) < 1e-4


class Small(torch.nn.Module):
    """An untrained network of float64 weights, with a drift that is no gradient."""

    def __init__(self):
        super().__init__()
        self.inner = MLP(1, width=8, depth=1, seed=3).double()

    def forward(self, x, time):
        return x / 2 + torch.tanh(self.inner(x, time))


def test_a_network_has_a_density_that_integrates_to_one():
    line = torch.linspace(-12.0, 12.0, 2401, dtype=torch.float64)
    model = ScoreModel(Small(), VPSDE(beta_max=5.0))
    found = log_prob(model, line[:, None])
    assert found.prior_gap is None
    assert abs(float(torch.trapezoid(found.nats.exp(), line)) - 1) < 1e-5


@pytest.mark.parametrize("case", reference_cases("likelihood"))
def test_stored_runs_of_score_sde(reference, case):
    data = reference.load("likelihood")
    fields = ("beta_min", "beta_max", "sigma_min", "sigma_max")
    cls = {"VP": VPSDE, "sub-VP": SubVPSDE, "VE": VESDE}[case["sde"]]
    sde = cls(t_min=case["eps"], **{name: case[name] for name in fields if name in case})
    model = ExactScore(reference_target(reference, case["target"]), sde)
    x = data.array(case, "x").flatten(1)
    found = log_prob(model, x, rtol=1e-10, atol=1e-10)
    assert_close(found.latent, data.array(case, "latent").flatten(1), tol=1e-8)
    assert_close(found.nats, data.array(case, "logp_prior_model"), tol=1e-8)
    assert_close(found.corrected(), data.array(case, "logp_exact_at_eps"), tol=1e-8)
    assert_close(
        found.nats - sde.prior_log_prob(found.latent), data.array(case, "delta_logp"), tol=1e-8
    )


LIBRARIES = ("torchdiffeq:dopri5", "torchdiffeq:dopri8", "scipy:RK45", "scipy:LSODA")
SLOWER = (
    "torchdiffeq:bosh3", "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "scipy:RK23",
    "scipy:DOP853", "scipy:Radau", "scipy:BDF",
)  # fmt: skip


@pytest.mark.parametrize(
    "solver", [*LIBRARIES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOWER)]
)
def test_libraries_agree(solver):
    model, x = ExactScore(TRIPLE, VPSDE()), drawn(TRIPLE, 3)
    coarse = solver.endswith(("heun", "fehlberg2", "BDF", "RK23", "bosh3"))
    tol = 1e-5 if coarse else 1e-7
    found = log_prob(model, x, solver=solver, rtol=tol, atol=tol)
    assert_close(found.nats, log_prob(model, x, **TIGHT).nats, tol=100 * tol, scale=1.0)


@pytest.mark.parametrize("name", ["vp", "ve", "ddpm"])
def test_errors_follow_the_tolerance(name):
    model, x = ExactScore(Tutorial(), SDES[name]), drawn(Tutorial(), 10)
    exact = log_prob(model, x, rtol=1e-9, atol=1e-9).nats
    for tol in (1e-3, 1e-5, 1e-7):
        off = (log_prob(model, x, rtol=tol, atol=tol).nats - exact).abs()
        assert float(off.max()) <= 2 * tol


def test_scaling_the_data_shifts_by_its_logarithm():
    """Property 68, on VE, whose process scales with the data."""
    c, x = 2.5, drawn(TRIPLE, 10)
    wide = GaussianMixture([0.2, 0.3, 0.5], (c * TRIPLE.means).tolist(), 0.25 * c**2)
    here = log_prob(ExactScore(TRIPLE, VESDE(sigma_min=0.01, sigma_max=20.0)), x)
    there = log_prob(ExactScore(wide, VESDE(sigma_min=0.01 * c, sigma_max=20.0 * c)), c * x)
    assert_close(there.nats + math.log(c), here.nats, tol=1e-8, scale=1.0)


def test_independent_coordinates_add():
    first, second = Tutorial(), Gaussian([1.0], 2.0)
    means = torch.cat([first.means, torch.ones(2, 1, dtype=torch.float64)], 1)
    covs = torch.diag_embed(torch.tensor([[1.0, 1.0, 2.0]] * 2, dtype=torch.float64))
    both = GaussianMixture(first.weights, means, covs)
    x, y = drawn(first, 10), drawn(second, 10, seed=1)
    sde = VPSDE()
    whole = log_prob(ExactScore(both, sde), torch.cat([x, y], 1), **TIGHT).nats
    parts = (
        log_prob(ExactScore(law, sde), z, **TIGHT).nats for law, z in ((first, x), (second, y))
    )
    assert_close(sum(parts), whole, tol=1e-7, scale=1.0)


@pytest.mark.parametrize("divergence", ["exact", "rademacher", "gaussian"])
def test_a_sample_does_not_depend_on_its_batch(divergence):
    """Up to the tolerance: the steps are those that the hardest sample asks for."""
    model, x = ExactScore(Tutorial(), VPSDE()), drawn(Tutorial(), 12)
    how = dict(divergence=divergence, probes=1 if divergence == "exact" else 3, seed=4)
    whole = log_prob(model, x, **TIGHT, **how)
    part = log_prob(model, x[:5], **TIGHT, **how)
    assert_close(part.nats, whole.nats[:5], tol=1e-7, scale=1.0)


def test_far_in_the_tail():
    model = ExactScore(Tutorial(), VPSDE())
    x = torch.tensor([[1e4, -1e4], [3.0, 3.0]], dtype=torch.float64)
    found, exact = log_prob(model, x), model.at(VPSDE().t_min).log_prob(x)
    assert_close(found.corrected()[0], exact[0], tol=1e-6)
    assert_close(found.corrected()[1], exact[1], tol=1e-4, scale=1.0)


def test_points_without_a_density_say_t_min():
    """The likelihood of a point grows without bound as t_min -> 0, and says where it was taken."""
    law, x = Empirical([[0.0, 1.0], [4.0, 1.0]]), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    near, nearer = (log_prob(ExactScore(law, VPSDE(t_min=t)), x) for t in (1e-3, 1e-6))
    assert (near.t_min, nearer.t_min) == (1e-3, 1e-6)
    for found, t in ((near, 1e-3), (nearer, 1e-6)):
        exact = ExactScore(law, VPSDE()).at(t).log_prob(x)
        assert_close(found.corrected(), exact, tol=1e-4, scale=1.0)
    assert float(nearer.nats) > float(near.nats) + 5


def test_images_and_half_precision():
    """A batch of any rank is its flattened one; the state is float64 whatever x is."""
    flat = torch.tensor([[1.0, 0.0, 2.0, -1.0], [0.0, 3.0, 1.0, 0.0]], dtype=torch.float64)
    cube = Empirical(flat.reshape(2, 1, 2, 2), var=0.5)
    law = GaussianMixture([0.5, 0.5], flat, 0.5)
    x = drawn(law, 4)
    of_cube = log_prob(ExactScore(cube, VPSDE()), x.reshape(4, 1, 2, 2))
    of_flat = log_prob(ExactScore(law, VPSDE()), x)
    assert of_cube.latent.shape == (4, 1, 2, 2)
    assert_close(of_cube.nats, of_flat.nats, tol=1e-6, scale=1.0)
    half = log_prob(ExactScore(law, VPSDE()), x.half())
    assert half.nats.dtype == torch.float64
    assert half.latent.dtype == torch.float16
    assert_close(half.nats, log_prob(ExactScore(law, VPSDE()), x.half().double()).nats, tol=1e-9)


def test_the_frame_decides_about_steps_alone():
    """Moments that are wrong, none, or of low rank give the same density with more calls."""
    law = Gaussian(torch.zeros(3), torch.diag(torch.tensor([9.0, 1.0, 0.04])))
    x = drawn(law, 5)

    def found(moments):
        model = Wrapped(ExactScore(law, VPSDE()))
        model.moments = moments
        return log_prob(model, x, rtol=1e-6, atol=1e-6)

    right, none = found(Moments.of(law)), found(None)
    wrong = found(Moments(torch.ones(3), torch.full((3,), 5.0)))
    low = found(Moments.of(drawn(law, 200), covariance="low_rank", rank=1))
    for other in (none, wrong, low):
        assert_close(other.nats, right.nats, tol=1e-5, scale=1.0)
        assert other.nfe > right.nfe


def test_an_empty_batch():
    found = log_prob(ExactScore(Tutorial(), VPSDE()), torch.zeros(0, 2))
    assert found.nats.shape == (0,)
    assert found.latent.shape == (0, 2)
    assert found.nfe == 0
    assert found.budget.total.shape == (0,)


def test_every_process_of_the_catalogue():
    law = Gaussian([0.5], 2.0)
    x = drawn(law, 3)
    for name, sde in entries("sde").items():
        model = ExactScore(law, sde)
        found = log_prob(model, x)
        expected = model.at(found.t_min).log_prob(x)
        assert float((found.corrected() - expected).abs().max()) < 1e-6, name
