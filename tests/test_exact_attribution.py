"""Claim: the error budget names the cause that was put in, and its parts are what they say.

One cause at a time is planted and all others taken away; the parts are compared with closed forms,
and the weights' shifts add up. Samples agree with the exact laws within their standard errors.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from sampling_support import Given
from strategies import f64

from sdekit import DDPM, VESDE, VPSDE, ExactScore, Gaussian, ScoreModel, make
from sdekit.errors import ConfigError, DtypeError, NotAffine
from sdekit.exact import Law1D, attribute_error, bures_wasserstein, output_law
from sdekit.exact.attribution import CAUSES
from sdekit.model import MLP, Moments
from sdekit.targets import Empirical, GaussianMixture

LAW = Gaussian(f64([0.5, -1.0, 0.0]), torch.diag(f64([0.02, 0.5, 2.0])))
TWO = GaussianMixture(f64([0.3, 0.7]), f64([[-2.0], [1.0]]), f64([0.09, 0.25]))


class Tilted(Given):
    """The exact score of a Gaussian, a tenth too steep: a network that is affine."""

    def __init__(self, target, sde, factor: float = 0.9) -> None:
        exact = ExactScore(target, sde)
        super().__init__(lambda x, t: factor * exact.at(t).score(x), sde)


def test_each_part_is_the_distance_it_says():
    sde = VPSDE()
    exact, net = ExactScore(LAW, sde), Tilted(LAW, sde)
    budget = attribute_error("ddim", net, LAW, steps=20)
    true, zero = exact.at(1.0), Gaussian(torch.zeros(3, dtype=torch.float64), 1.0)
    ideal = output_law("ddim", exact, steps=20, prior=true)
    started = output_law("ddim", exact, steps=20, prior=zero)
    learned = output_law("ddim", net, steps=20, prior=true, dim=3)
    output = output_law("ddim", net, steps=20, prior=zero, dim=3)
    cut = exact.at(sde.t_min)
    expected = {
        "initialisation": (started, ideal),
        "truncation": (cut, LAW),
        "discretisation": (ideal, cut),
        "score": (learned, ideal),
        "total": (output, LAW),
    }
    for name, pair in expected.items():
        assert getattr(budget, name).w2 == pytest.approx(bures_wasserstein(*pair), rel=1e-9)
    parts = sum(getattr(budget, name).w2 for name in CAUSES)
    assert budget.interaction.w2 == pytest.approx(budget.total.w2 - parts, abs=1e-12)
    assert budget.method == "gaussian"
    assert budget.exact
    assert budget.truth is None


@pytest.mark.parametrize(
    ("cause", "settings"),
    [
        ("initialisation", {"sde": VPSDE(beta_max=2.0), "steps": 60, "sampler": "heun"}),
        ("truncation", {"sde": VPSDE(t_min=0.2), "steps": 60, "sampler": "heun"}),
        ("discretisation", {"sde": VPSDE(), "steps": 4, "sampler": "ddim"}),
        ("score", {"sde": VPSDE(), "steps": 60, "sampler": "heun", "net": True}),
    ],
)
@pytest.mark.parametrize("target", [LAW, TWO], ids=["gaussian", "mixture"])
def test_the_planted_cause_is_named(cause, settings, target):
    sde = settings["sde"]
    model = Tilted(target, sde, 0.7) if settings.get("net") else ExactScore(target, sde)
    budget = attribute_error(settings["sampler"], model, target, steps=settings["steps"])
    assert budget.cause == cause
    others = [getattr(budget, name).w2 for name in CAUSES if name != cause]
    assert getattr(budget, cause).w2 > 3 * max(others)
    assert budget.exact
    if cause != "score":
        assert budget.score.w2 == 0


def test_shifts_of_weights_add_up():
    """Signed, so that they telescope: what is left is the interaction of start and score."""
    sde = VPSDE(beta_max=5.0)
    budget = attribute_error("ancestral", Tilted(TWO, sde), TWO, steps=30)
    parts = sum(getattr(budget, name).weights for name in (*CAUSES, "interaction"))
    assert (budget.total.weights - parts).abs().max() < 1e-12
    assert (budget.weights - budget.truth - budget.total.weights).abs().max() < 1e-12
    assert budget.truth[0] == pytest.approx(0.3, abs=1e-3)
    alone = attribute_error("ancestral", ExactScore(TWO, sde), steps=30)
    assert alone.interaction.weights.abs().max() < 1e-12


@pytest.mark.slow
def test_the_story():
    """Initialisation, with the exact weight, its W2 and TV; mended, it is no cause any more."""
    model = ExactScore(make("target", "tutorial"), DDPM.linear(100))
    budget = attribute_error("ancestral", model)
    assert budget.cause == "initialisation"
    assert budget.method == "line"
    assert 0.598 < float(budget.weights[1]) < 0.605
    assert budget.initialisation.w2 > 0.95 * budget.total.w2 > 2.0
    assert 0.4 < budget.total.tv < 0.6
    assert budget.truncation.w2 == pytest.approx(0.0, abs=1e-6)
    mended = attribute_error("ancestral", model, prior=model.at(1.0))
    assert mended.initialisation.w2 < 1e-6
    assert mended.cause == "discretisation"


@pytest.mark.slow
def test_denoising_is_part_of_truncation():
    """Both the output and the marginal are those of E[x_0 | x_t]."""
    sde = VESDE(sigma_min=0.3, sigma_max=20.0)
    for target in (LAW, TWO):
        model = ExactScore(target, sde)
        rough, clean = (attribute_error("heun", model, steps=60, denoise=d) for d in (False, True))
        assert clean.truncation.w2 < 0.8 * rough.truncation.w2
        assert clean.discretisation.w2 < 0.1 * clean.truncation.w2
    alpha, var = 1.0, 0.09
    shrunk = Gaussian.from_spectrum(
        LAW.mean, f64([0.02, 0.5, 2.0]) ** 2 / (alpha * f64([0.02, 0.5, 2.0]) + var)
    )
    found = attribute_error("heun", ExactScore(LAW, sde), steps=60, denoise=True)
    assert found.truncation.w2 == pytest.approx(bures_wasserstein(shrunk, LAW), rel=1e-9)


@pytest.mark.slow
def test_samples_agree_with_the_exact_laws():
    """The tutorial, by 20,000 samples and by quadrature: weights within five standard errors."""
    model = ExactScore(make("target", "tutorial"), DDPM.linear(100))
    exact = attribute_error("ancestral", model)
    drawn = attribute_error("ancestral", model, method="samples", seed=4)
    assert not drawn.exact
    assert drawn.cause == "initialisation"
    for name in (*CAUSES, "total"):
        a, b = getattr(exact, name), getattr(drawn, name)
        assert ((a.weights - b.weights).abs() <= 5 * b.weights_stderr + 1e-12).all()
        assert b.kl is None
        assert b.tv is None
    assert 0 < drawn.floor < 0.2
    # the sliced distance, scaled by the dimension, of laws that differ along one line
    assert drawn.total.w2 == pytest.approx(exact.total.w2, rel=0.1)


def test_a_network_in_two_dimensions_is_sampled():
    model = ScoreModel(MLP(2, width=8, seed=0), VPSDE())
    target = make("target", "tutorial")
    budget = attribute_error("ddim", model, target, steps=5, n=500)
    assert budget.method == "samples"
    assert budget.cause == "score"
    assert budget.score.stderr > 0
    with pytest.raises(NotAffine):
        attribute_error("ddim", model, target, steps=5, method="exact")
    one = ScoreModel(MLP(1, width=8, seed=0), VPSDE())
    assert attribute_error("ddim", one, TWO, steps=5).method == "line"


def test_any_closed_form_will_do():
    """The smoothed sample of a data set has no exact law, and is sampled."""
    data = Empirical(torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), var=0.04)
    budget = attribute_error("heun", ExactScore(data, VPSDE()), steps=5, n=400)
    assert budget.method == "samples"
    assert budget.truth is None
    assert "sliced" in str(budget)


def test_atoms_and_what_is_too_wide_are_sampled():
    """No exact law: "auto" goes on to samples, "exact" says why."""
    atoms = GaussianMixture(f64([0.3, 0.7]), f64([[1.0], [-1.0]]), 0.0)
    wide = GaussianMixture(f64([0.5, 0.5]), f64([[1e4], [-1e4]]), 1.0)
    for law in (atoms, wide):
        model = ExactScore(law, VPSDE())
        assert attribute_error("ancestral", model, steps=10, n=500).method == "samples"
        with pytest.raises(NotAffine, match=r"atom|points"):
            attribute_error("ancestral", model, steps=10, method="exact")


def test_infinite_parts_leave_no_interaction():
    budget = attribute_error("ddim", ExactScore(Gaussian(f64([1.0, 2.0]), 0.0), VPSDE()), steps=10)
    assert budget.total.kl == math.inf
    assert budget.interaction.kl is None
    assert "nan" not in str(budget)


@pytest.mark.slow
def test_a_standard_error_is_that_of_other_seeds():
    """Of the total's W2, over 30 seeds: within a factor of two."""
    model = ExactScore(make("target", "tutorial"), DDPM.linear(20))
    found = [
        attribute_error("ancestral", model, method="samples", n=1000, seed=7 * k).total
        for k in range(30)
    ]
    spread = torch.tensor([effect.w2 for effect in found]).std()
    said = torch.tensor([effect.stderr for effect in found]).mean()
    assert 0.5 < float(said / spread) < 2.0


@pytest.mark.slow
def test_samples_share_their_data():
    """The marginal is the data noised: truncation is not drowned in the floor."""
    budget = attribute_error(
        "heun", ExactScore(make("target", "tutorial"), VPSDE()), steps=20, method="samples"
    )
    assert budget.truncation.w2 < 0.03 < budget.floor
    assert budget.score.w2 == 0.0
    assert budget.score.weights_stderr.abs().max() == 0.0
    assert "two true samples" in str(budget)


def test_what_it_prints_and_writes():
    budget = attribute_error("heun", ExactScore(TWO, VPSDE()), steps=10)
    text = str(budget)
    assert [line.split()[0] for line in text.splitlines()[1:]] == [*CAUSES, "interaction", "total"]
    assert f"{budget.total.w2:.4f}" in text
    plain = json.loads(json.dumps(budget.to_json(), allow_nan=False))
    assert plain["cause"] == budget.cause
    assert plain["effects"]["total"]["w2"] == budget.total.w2
    assert plain["effects"]["truncation"]["weights"] == budget.truncation.weights.tolist()


def test_bad_arguments():
    model = ExactScore(TWO, VPSDE())
    with pytest.raises(DtypeError, match="closed form"):
        attribute_error("ddim", model, make("target", "moons"))
    with pytest.raises(DtypeError, match="target"):
        attribute_error("ddim", ScoreModel(MLP(1, seed=0), VPSDE()))
    with pytest.raises(ConfigError, match="method"):
        attribute_error("ddim", model, method="guess")
    with pytest.raises(ConfigError, match="steps"):
        attribute_error("ddim", model, steps=0)
    with pytest.raises(ConfigError, match="matched"):
        attribute_error("ddim", Tilted(TWO, VPSDE()), TWO, steps=3, prior="matched")


def test_the_matched_prior_takes_the_floor_away():
    """A 64-dimensional anisotropic Gaussian: what N(0, I) leaves, and what its moments leave."""
    variances = torch.logspace(-3, 1.5, 64, dtype=torch.float64)
    mean = torch.linspace(-2, 2, 64, dtype=torch.float64)
    model = ExactScore(Gaussian.from_spectrum(mean, variances), VPSDE())
    marginal = model.at(1e-3)
    left = {
        prior: bures_wasserstein(
            output_law(
                "probability_flow(solver='rk4')", model, grid="log_snr", steps=200, prior=prior
            ),
            marginal,
        )
        for prior in ("standard", "matched")
    }
    assert left["matched"] < 0.1 * left["standard"]
    assert left["standard"] > 1e-2  # the floor under every deterministic sampler
    assert math.isfinite(Law1D.of(TWO).mean)


def test_the_exact_score_starts_from_the_models_own_moments():
    """A network's moments are those of its data, not the target's: both runs take them."""
    net = Tilted(TWO, VPSDE(beta_max=5.0))
    net.moments = Moments(f64([2.0]), f64([0.5]))
    with_own = attribute_error("ddim", net, TWO, steps=20, prior="matched")
    alpha, var = float(net.sde.alpha(1.0)), float(net.sde.var(1.0))
    same = attribute_error(
        "ddim", net, TWO, steps=20, prior=Gaussian(f64([2.0 * alpha]), 0.5 * alpha**2 + var)
    )
    for name in CAUSES:
        assert getattr(with_own, name).w2 == pytest.approx(getattr(same, name).w2, abs=1e-9)
