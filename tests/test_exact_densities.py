"""Claim: `output_law_1d` is the law of what the real sampler returns on a mixture, to 1e-6.

Against `output_law` on Gaussians, against the exact map of quantiles of a fine flow, against a
single step by brute quadrature, and against the moments of samples. Mixtures along a line in the
plane are those of the line.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampling_support import Given, draws
from scipy import integrate, stats
from strategies import f64
from support import leaving, mean_test

from sdekit import (
    DDPM,
    EDM,
    VESDE,
    VPSDE,
    CosineSDE,
    ExactScore,
    FlowSDE,
    Gaussian,
    ScoreModel,
    make,
    sample,
)
from sdekit.errors import ConfigError, NotAffine
from sdekit.exact import Law1D, output_law, output_law_1d
from sdekit.exact.densities import denoised_law
from sdekit.model import MLP
from sdekit.sampling import DDIM, Ancestral, OneKick
from sdekit.sampling.grid import resolve_grid
from sdekit.targets import Empirical, GaussianMixture

TWO = GaussianMixture(f64([0.3, 0.7]), f64([[-2.0], [1.0]]), f64([0.09, 0.25]))
MAPS = ["ddim", "heun", "euler_maruyama(eta=0)", "probability_flow(solver='rk4')"]
KERNELS = ["ancestral", "ancestral(variance='beta')", "ddim(eta=0.5)", "euler_maruyama",
           "reverse_diffusion", "exponential_euler"]  # fmt: skip
SDES = {"vp": VPSDE(), "ve": VESDE(sigma_min=0.05, sigma_max=10.0), "flow": FlowSDE()}


ON = {"vp": VPSDE(), "ve": VESDE(sigma_max=20.0), "ddpm": DDPM.linear(40)}
PAIRS = [
    pytest.param(sampler, sde, id=f"{sampler}-{name}")
    for sampler in MAPS + KERNELS
    for name, sde in ON.items()
    if not ("rk4" in sampler and name == "ddpm")  # which needs the model at t = 0
]


@pytest.mark.parametrize(("sampler", "sde"), PAIRS)
def test_a_gaussian_is_that_of_the_affine_map(sampler, sde):
    """Two ways to one law: quadrature, and derivatives of the sampler."""
    model = ExactScore(Gaussian(f64([0.7]), 0.2), sde)
    settings = {"steps": 20, "denoise": "ve" in sde.kinds}
    found, exact = (
        output_law_1d(sampler, model, **settings),
        output_law(sampler, model, **settings),
    )
    away = found.wasserstein(Law1D.of(exact))
    assert away < 1e-6 * (1 + float(exact.cov) ** 0.5)
    assert away < found.error + 1e-7
    assert found.mean == pytest.approx(float(exact.mean), abs=1e-6)
    assert found.var == pytest.approx(float(exact.cov), rel=1e-6)


@pytest.mark.parametrize("sde", leaving(SDES, lambda name: name == "flow"))
def test_the_flow_maps_quantiles_to_quantiles(sde):
    """Property 22: from the true x_T a fine probability flow ends at the true marginal."""
    model = ExactScore(TWO, sde)
    grid = resolve_grid("log_snr", sde, 80)
    law = output_law_1d("heun", model, grid=grid, prior=model.at(sde.t_max))
    assert law.wasserstein(Law1D.of(model.at(sde.t_min))) < 2e-2
    assert float(law.weights(TWO)[0]) == pytest.approx(0.3, abs=2e-3)
    # a wrong start keeps its own levels: the prior's mass below the watershed is what comes out
    off = output_law_1d("heun", model, grid=grid)
    table = Law1D.of(model.at(sde.t_max))
    edge = table.quantile(np.array([0.3]))[0]
    assert float(off.weights(TWO)[0]) == pytest.approx(
        stats.norm.cdf(edge / sde.prior_std()), abs=3e-3
    )


@pytest.mark.parametrize("sampler", leaving(KERNELS, lambda name: name in KERNELS[1::2]))
def test_one_row_by_brute_quadrature(sampler):
    """p_s(y) = int p_t(x) N(y; m(x), std^2) dx, with SciPy, m from the plan's own weights."""
    model = ExactScore(TWO, VPSDE())
    grid = f64([0.6, 0.35])
    law = output_law_1d(sampler, model, grid=grid, prior=model.at(0.6))
    start = model.at(0.6)

    def run(x: float, z: float) -> float:
        point = torch.tensor([[x]], dtype=torch.float64)
        noise = torch.tensor([[z]], dtype=torch.float64)
        made = sample(model, (1, 1), sampler=sampler, grid=grid, x_init=point,
                      noise=lambda y: noise)  # fmt: skip
        return float(made.x)

    std = run(0.3, 1.0) - run(0.3, 0.0)

    def integrand(x: float, y: float) -> float:
        density = float(start.log_prob(torch.tensor([[x]], dtype=torch.float64)).exp())
        return density * stats.norm.pdf(y, run(x, 0.0), std)

    for y in (-1.5, 0.2, 0.9):
        nodes = np.linspace(-5, 5, 241)
        true = integrate.trapezoid([integrand(x, y) for x in nodes], nodes)
        assert float(law.density(np.array([y]))[0]) == pytest.approx(true, abs=2e-5)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_the_tutorial_is_a_line(sampler):
    """Along (1, 1) the mixture in the plane is one in one dimension; beside it a Gaussian."""
    plane, sde = make("target", "tutorial"), DDPM.linear(100)
    line = GaussianMixture(f64([0.2, 0.8]), f64([[18**0.5], [-(18**0.5)]]), 1.0)
    found = output_law_1d(sampler, ExactScore(plane, sde))
    alone = output_law_1d(sampler, ExactScore(line, sde))
    assert np.abs(found.weights(plane).numpy() - alone.weights(line).numpy()).max() < 1e-9
    beside = output_law(sampler, ExactScore(Gaussian(f64([0.0]), 1.0), sde))
    assert float(found.across.cov) == pytest.approx(float(beside.cov), rel=1e-12)


def test_the_sixty_forty_of_the_story():
    """Exact: 0.60 from N(0, I), 0.80 from the true x_T, at T = 100."""
    target = make("target", "tutorial")
    model = ExactScore(target, DDPM.linear(100))
    wrong, right = (
        float(output_law_1d("ancestral", model, prior=prior).weights(target)[1])
        for prior in ("standard", model.at(1.0))
    )
    assert 0.598 < wrong < 0.605
    assert right == pytest.approx(0.80, abs=2e-3)
    assert output_law_1d("ancestral", model).error < 1e-6


@pytest.mark.parametrize("sampler", ["ancestral", "heun", "ddim(eta=0.5)", "euler_maruyama"])
def test_samples_have_these_moments(sampler, alpha_budget):
    """100,000 draws of the real thing."""
    model = ExactScore(TWO, VPSDE())
    law = output_law_1d(sampler, model, steps=8)
    x = sample(model, (100_000, 1), sampler=sampler, steps=8, seed=5, dtype=torch.float64).x[:, 0]
    edge = 0.0
    share = law.probability(edge, 50.0)
    for name, values, mean, std in (
        ("mean", x, law.mean, math.sqrt(law.var)),
        ("share", (x > edge).double(), share, math.sqrt(share * (1 - share))),
    ):
        alpha = alpha_budget.spend(f"output_law_1d {sampler} {name}")
        assert mean_test(values, mean=mean, std=std, alpha=alpha, skewness=3.0)


def test_a_map_that_folds():
    """x -> x^2 - 1 of N(0, 1): the two branches add up to a shifted chi-squared law."""

    class Fold(OneKick):
        def coefficients(self, sde, grid):
            return {"unused": torch.zeros(len(grid) - 1, dtype=torch.float64)}

        def step(self, x, c, model, state, noise):
            return x.square() - 1, state

    model = ExactScore(Gaussian(f64([0.0]), 1.0), VPSDE())
    law = output_law_1d(Fold(), model, steps=1)
    for at in (-0.9, 0.0, 2.0):
        assert law.probability(-2.0, at) == pytest.approx(stats.chi2(1).cdf(at + 1), abs=1e-4)
    assert law.mean == pytest.approx(0.0, abs=1e-4)

    class Mirror(Fold):
        def step(self, x, c, model, state, noise):
            return 1 - 2 * x, state

    turned = output_law_1d(Mirror(), model, steps=1)
    assert turned.wasserstein(Law1D.of(Gaussian(f64([1.0]), 4.0))) < 1e-6


def test_a_steep_map_gets_nodes_where_it_is_steep():
    """10 tanh(1e4 x): what lands between the two ends started within 1.5e-4 of 0."""

    class Switch(OneKick):
        def coefficients(self, sde, grid):
            return {"unused": torch.zeros(len(grid) - 1, dtype=torch.float64)}

        def step(self, x, c, model, state, noise):
            return 10 * torch.tanh(1e4 * x), state

    law = output_law_1d(Switch(), ExactScore(Gaussian(f64([0.0]), 1.0), VPSDE()), steps=1)
    for edge in (1.0, 9.0):
        reach = math.atanh(edge / 10) / 1e4
        assert law.probability(-edge, edge) == pytest.approx(
            stats.norm.cdf(reach) - stats.norm.cdf(-reach), rel=1e-4
        )


def test_a_network_in_one_dimension():
    """Any predictor has an exact law there, its own dtype notwithstanding."""
    model = ScoreModel(MLP(1, width=8, seed=0), VPSDE(), parametrization="v")
    law = output_law_1d("ancestral", model, steps=6)
    x = sample(model, (40_000, 1), sampler="ancestral", steps=6, seed=1).x.double()
    assert abs(float(x.mean()) - law.mean) < 6 * math.sqrt(law.var / 40_000)
    assert float(x.var()) == pytest.approx(law.var, rel=0.05)


def test_the_laws_on_the_way():
    model = ExactScore(TWO, VPSDE())
    for sampler in ("ancestral", "ddim"):
        law = output_law_1d(sampler, model, steps=10, keep="all", prior=model.at(1.0))
        times = [t for t, _ in law.path]
        assert times == resolve_grid("uniform", model.sde, 10).tolist()
        assert law.path[-1][1].wasserstein(law) < 1e-4
        assert law.path[0][1].wasserstein(Law1D.of(model.at(1.0))) < 1e-9


def test_the_denoised_law():
    """E[x_0 | x_t] of the last law: for one Gaussian a linear map of it."""
    model = ExactScore(Gaussian(f64([0.5]), 0.3), EDM(t_min=0.3))
    plain, clean = (output_law_1d("ancestral", model, steps=5, denoise=d) for d in (False, True))
    var = float(model.sde.var(0.3))
    assert clean.var == pytest.approx(plain.var * (0.3 / (0.3 + var)) ** 2, rel=1e-6)


def test_the_denoised_law_across_the_line():
    """The ideal denoised law at t = 0.3 is that of 200,000 exact denoised draws, both ways."""
    plane = make("target", "tutorial")
    model = ExactScore(plane, VPSDE(t_min=0.3))
    law = denoised_law(model, 0.3)
    generator = torch.Generator().manual_seed(1)
    x = model.at(0.3).sample(200_000, generator=generator, dtype=torch.float64)
    clean = model(x, 0.3).x0 @ f64([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
    assert law.var == pytest.approx(float(clean[:, 0].var()), rel=0.02)
    assert float(law.across.cov) == pytest.approx(float(clean[:, 1].var()), rel=0.02)
    alpha, var = float(model.sde.alpha(0.3)), float(model.sde.var(0.3))
    assert float(law.across.cov) == pytest.approx(
        alpha**2 / (alpha**2 + var) ** 2 * (alpha**2 + var)
    )


def test_steep_rows_get_close_points():
    """x <- x + z, then x <- 20 x + z / 2: the second kernel is narrow where it came from."""

    class Stretch(OneKick):
        def coefficients(self, sde, grid):
            return {"scale": f64([1.0, 20.0]), "std": f64([1.0, 0.5])}

        def step(self, x, c, model, state, noise):
            return c.scale * x + c.std * noise(x), state

    model = ExactScore(Gaussian(f64([0.0]), 1.0), VPSDE())
    law = output_law_1d(Stretch(), model, steps=2)
    assert law.var == pytest.approx(400 * 2 + 0.25, rel=1e-7)
    assert law.wasserstein(Law1D.of(Gaussian(f64([0.0]), 800.25))) < 1e-5


def test_resolutions_are_refined_until_two_agree():
    """A chain whose first kernels are steep: what is handed out says how good it is."""
    law = GaussianMixture(f64([0.2, 0.8]), f64([[3.0], [-3.0]]), 0.16)
    found = output_law_1d("exponential_euler", ExactScore(law, CosineSDE()))
    assert found.error < 1e-5
    assert float(found.weights(law)[0]) == pytest.approx(0.2260746711880, abs=1e-9)


@pytest.mark.parametrize(
    ("sampler", "why"),
    [
        ("predictor_corrector", "draws 2 times"),
        ("heun(churn=20)", "noise does not come last"),
        ("langevin(rule='sample_norm')", "noise does not come last"),
        ("probability_flow", "chooses its steps"),
    ],
)
def test_what_is_no_chain_of_kernels(sampler, why):
    with pytest.raises(NotAffine, match=why):
        output_law_1d(sampler, ExactScore(TWO, VPSDE()), steps=5)


def test_a_sampler_that_sees_coordinates_does_not_reduce():
    class Uneven(DDIM):
        def step(self, x, c, model, state, noise):
            y, state = super().step(x, c, model, state, noise)
            scale = torch.linspace(1.0, 1.1, x.shape[1], dtype=x.dtype)
            return y * scale, state

    with pytest.raises(NotAffine, match="coordinate"):
        output_law_1d(Uneven(), ExactScore(make("target", "tutorial"), VPSDE()), steps=5)


def test_bad_arguments():
    model = ExactScore(TWO, VPSDE())
    with pytest.raises(ConfigError, match="keep"):
        output_law_1d("ddim", model, steps=5, keep="some")
    with pytest.raises(NotAffine, match="line"):
        output_law_1d("ddim", ExactScore(Empirical(draws(5, (3,))), VPSDE()))
    tiny = GaussianMixture(f64([0.5, 0.5]), f64([[-1e5], [1e5]]), 1e-12)
    with pytest.raises(NotAffine, match="points"):  # tiny kernels on a wide law
        output_law_1d(Ancestral(), ExactScore(tiny, VESDE(sigma_min=1e-6)), steps=20)


def test_the_law_would_catch_a_wrong_kernel():
    class Loud(Ancestral):
        def coefficients(self, sde, grid):
            columns = super().coefficients(sde, grid)
            return {**columns, "std": 1.02 * columns["std"]}

    model = ExactScore(TWO, VPSDE())
    right, wrong = (output_law_1d(s, model, steps=50) for s in (Ancestral(), Loud()))
    assert wrong.wasserstein(right) > 100 * right.error
    lying = Given(lambda x, t: 1.01 * model.at(t).score(x), VPSDE())
    assert (
        output_law_1d("ddim", lying, steps=20).wasserstein(output_law_1d("ddim", model, steps=20))
        > 1e-3
    )
