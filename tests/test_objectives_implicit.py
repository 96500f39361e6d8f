"""Claim: implicit and sliced score matching are denoising score matching but for a constant.

Property 38 without the noise: the implicit loss exceeds the explicit one by a constant that no
model enters, by Gauss-Hermite sums at 1e-8, and with the weight w d (or w) it is the denoising
loss. Over all 2^D sign slices the sliced loss is the implicit one; gradients are second
derivatives and pass gradcheck (44). `FisherDivergence` is that of closed forms.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from support import assert_close

from sdekit import (
    DDPM,
    DSM,
    VESDE,
    VPSDE,
    ExactScore,
    Gaussian,
    GaussianMixture,
    ImplicitScoreMatching,
    ScoreModel,
    SlicedScoreMatching,
    SubVPSDE,
    Trainer,
)  # fmt: skip
from sdekit.errors import ConfigError, DtypeError, ModelError, ShapeError, TimeError
from sdekit.model import MLP
from sdekit.objectives import FisherDivergence

SDES = [VPSDE(), SubVPSDE(), VESDE(sigma_min=0.05, sigma_max=5.0), DDPM.linear(20, beta_end=0.3)]
WEIGHTINGS = ["simple", "likelihood", "min_snr"]
PARAMETRISATIONS = ["eps", "x0", "score", "v", "flow", "edm"]


def hermite(n):
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def bent(a, b, c):
    """A network with a divergence of its own at every x: entire, so that sums converge."""

    def network(x, time):
        return a * x + b + c * torch.sin(x).flip(-1) * torch.cos(x)

    return network


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_implicit_is_denoising_but_for_the_weight(sde, weighting, reduction):
    """E ISM = E DSM - w d (sum) or - w (mean), for N(0, C) data in two dimensions."""
    z, p = hermite(24)
    t = float(sde.to_model_time(torch.tensor(0.4, dtype=torch.float64)))
    data_std = torch.tensor([0.8, 1.3], dtype=torch.float64)
    both = torch.cartesian_prod(z, z)
    p_x = torch.cartesian_prod(p, p).prod(1)
    total = (sde.alpha(t) ** 2 * data_std**2 + sde.var(t)).sqrt()
    # any x_0 and noise that make this x_t: the implicit loss sees x_t alone
    x0, noise = both * total / sde.alpha(t), torch.zeros_like(both)
    how = {"weighting": weighting, "reduction": reduction}
    implicit, denoising = ImplicitScoreMatching(**how), DSM(**how)
    w = denoising.weighting.weight(sde, torch.tensor(t, dtype=torch.float64))
    # for the denoising loss the noise given x_t is normal: mean m = sigma x / total^2
    mean = sde.sigma(t) * both / total
    spread = sde.alpha(t) * data_std / total
    for a, b, c in ((0.0, 0.0, 0.0), (0.7, 0.2, 0.0), (-0.3, 0.1, 0.5)):
        model = ScoreModel(bent(a, b, c), sde)
        seen = (p_x * implicit.loss_at(model, x0, t, noise)).sum()
        error = (bent(a, b, c)(both * total, t) - mean).square() + spread**2
        value = w * (error.sum(1) if reduction == "sum" else error.mean(1))
        expected = (p_x * value).sum() - w * (2 if reduction == "sum" else 1)
        assert_close(seen.detach(), expected, tol=1e-8, scale=float(w))


def test_and_the_denoising_loss_is_what_that_formula_says():
    """The same expectation by the library's own DSM, in one dimension."""
    z, p = hermite(40)
    sde, t, std = VPSDE(), 0.4, 0.8
    x0, noise = torch.cartesian_prod(std * z, z)[:, :, None].unbind(1)
    weights = torch.cartesian_prod(p, p).prod(1)
    for a, b, c in ((0.7, 0.2, 0.0), (-0.3, 0.1, 0.5)):
        model = ScoreModel(bent(a, b, c), sde)
        losses = [
            (weights * objective.loss_at(model, x0, t, noise)).sum().detach()
            for objective in (DSM(), ImplicitScoreMatching())
        ]
        assert_close(losses[0] - losses[1], torch.ones(()).double(), tol=1e-8)


@pytest.mark.parametrize("objective", [ImplicitScoreMatching(), SlicedScoreMatching()], ids=repr)
def test_every_parametrisation_is_the_same_score(objective):
    """Property 41, by networks that say one eps_hat in six ways."""
    sde, t = VPSDE(), torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    x0, noise = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    expected = None
    for name in PARAMETRISATIONS:
        plain = ScoreModel(lambda x, time: x, sde, parametrization=name)
        a, b = plain.parametrization.row(sde, t)
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        scale = plain.parametrization.input_scale(sde, t)

        def network(x, time, a=a, b=b, alpha=alpha, sigma=sigma, scale=scale):
            n = len(x) // 3
            a, b, alpha, sigma = (v.repeat_interleave(n)[:, None] for v in (a, b, alpha, sigma))
            x = x if scale is None else x / scale.repeat_interleave(n)[:, None]
            eps = torch.tanh(x)
            return a * (x - sigma * eps) / alpha + b * eps

        model = ScoreModel(network, sde, parametrization=name)
        losses = objective.loss_at(model, x0, t, noise).detach()
        expected = losses if expected is None else expected
        assert_close(losses, expected, tol=1e-8)


@pytest.mark.parametrize("variance_reduced", [True, False])
@pytest.mark.parametrize("dims", [(1,), (3,), (2, 2)])
def test_all_sign_slices_together_are_the_trace(dims, variance_reduced):
    sde, d = VPSDE(), math.prod(dims)
    objective = SlicedScoreMatching(variance_reduced=variance_reduced, weighting="likelihood")
    matrix = torch.randn(d, d, generator=torch.Generator().manual_seed(1)).double()
    model = ScoreModel(lambda x, time: torch.tanh(x.flatten(1) @ matrix).reshape(x.shape), sde)
    x0 = torch.randn(4, *dims, generator=torch.Generator().manual_seed(2)).double()
    *terms, drawn = objective.prepare(model, x0, torch.Generator().manual_seed(3))
    assert drawn.shape == (4, 1, *dims)
    assert drawn.unique().tolist() == [-1.0, 1.0]
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=d))).double()
    signs = signs.reshape(-1, *dims).expand(4, -1, *dims)
    whole = ImplicitScoreMatching(weighting="likelihood").losses(model, *terms)
    assert_close(objective.losses(model, *terms, signs), whole, tol=1e-12)
    assert float((objective.losses(model, *terms, drawn) - whole).detach().abs().max()) > 1e-3 or (
        d == 1
    )


@pytest.mark.parametrize("objective", [DSM(), ImplicitScoreMatching(), SlicedScoreMatching()])
def test_gradcheck(objective):
    """Property 44: through the trace the gradient is a second derivative."""
    sde = VPSDE()
    x0, noise = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0)).double()

    def losses(k, b):
        model = ScoreModel(lambda x, time: torch.tanh(x @ k) + b * x**2, sde)
        return objective.loss_at(model, x0, 0.4, noise)

    k = torch.tensor([[0.5, -0.3], [0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses, (k, b))


@pytest.mark.parametrize("cls", [ImplicitScoreMatching, SlicedScoreMatching])
def test_stratified_times_leave_the_loss_as_it_is_with_less_variance(cls, generator):
    """The mean over 200 batches of 8, by uniform times and by one in each eighth."""
    model = ScoreModel(lambda x, time: torch.tanh(x), VPSDE())
    x0 = torch.randn(8, 2, generator=generator)
    t = cls(time="stratified").prepare(model, x0, generator)[1]
    eighths = ((t - VPSDE().t_min) / (1 - VPSDE().t_min) * 8).floor()
    assert sorted(eighths.tolist()) == list(range(8))
    means, errors = [], []
    for law in ("uniform", "stratified"):
        losses = [
            float(cls(time=law)(model, x0, generator=generator).mean().detach())
            for _ in range(200)
        ]
        means.append(sum(losses) / 200)
        errors.append(float(torch.tensor(losses).var()) / 200)
    assert abs(means[0] - means[1]) < 5 * sum(errors) ** 0.5
    assert errors[1] < 0.9 * errors[0]


def test_gaussian_slices_and_several_of_them(generator):
    objective = SlicedScoreMatching(slices=5, projection="gaussian")
    model = ScoreModel(lambda x, time: torch.tanh(x), VPSDE())
    terms = objective.prepare(model, torch.zeros(2000, 3), generator)
    assert terms[-1].shape == (2000, 5, 3)
    assert abs(float(terms[-1].square().mean()) - 1) < 0.05
    assert objective.losses(model, *terms).shape == (2000,)


def test_conditions_go_along_with_the_copies():
    model = ScoreModel(lambda x, time, label, scale: scale * label[:, None] * x, VPSDE())
    x0 = torch.ones(2, 3, dtype=torch.float64)
    label = torch.tensor([0.0, 2.0], dtype=torch.float64)
    loss = ImplicitScoreMatching(reduction="sum")
    seen = loss.loss_at(model, x0, 0.5, 0 * x0, label=label, scale=0.5)
    alpha, sigma = float(VPSDE().alpha(0.5)), float(VPSDE().sigma(0.5))
    expected = torch.tensor([0.0, 3 * alpha**2 - 2 * sigma * 3], dtype=torch.float64)
    assert_close(seen, expected, tol=1e-12)


@pytest.mark.parametrize("objective", [ImplicitScoreMatching(), SlicedScoreMatching()], ids=repr)
def test_without_gradients_and_on_constant_models(objective):
    """Evaluation under no_grad and inference_mode; a field that does not depend on x."""
    x0, model = torch.ones(4, 2), ScoreModel(MLP(2, width=8, depth=1), VPSDE())
    expected = objective.loss_at(model, x0, 0.3, x0)
    assert expected.requires_grad
    for off in (torch.no_grad(), torch.inference_mode()):
        with off:
            seen = objective.loss_at(model, x0, 0.3, x0)
        assert not seen.requires_grad
        assert_close(seen.clone(), expected.detach(), tol=1e-6)
    flat = ScoreModel(lambda x, time: torch.ones_like(x), VPSDE())
    assert_close(objective.loss_at(flat, x0, 0.3, x0).detach(), torch.ones(4), tol=1e-6)


def test_training_finds_the_score():
    """A linear model of N(0, 1/4) data by each: s = -x / (alpha^2 / 4 + var) at one node."""
    var = 0.6
    best = math.sqrt(var) / (0.4 * 0.25 + var)
    data = Gaussian(torch.zeros(2, dtype=torch.float64), 0.25)

    class Slope(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.k = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

        def forward(self, x, time):
            return self.k * x

    for objective in ("implicit", "sliced"):
        model = ScoreModel(Slope(), DDPM([var]))
        trainer = Trainer(model, objective, optimizer="sgd", lr=0.1, warmup=0, ema=None)
        trainer.fit(data, steps=100)
        assert abs(float(model.network.k.detach()) - best) < 0.03, objective


# the evaluation -----------------------------------------------------------------------------


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_fisher_divergence_of_two_gaussians(sde):
    """N(0, c) for N(0, 1): F = d (1/b - 1/a)^2 a, R = (1 - a/b)^2 with a, b the variances at t."""
    c, d, n = 4.0, 2, 20_000
    model = ExactScore(Gaussian(torch.zeros(d).double(), c), sde)
    found = FisherDivergence(Gaussian(torch.zeros(d).double(), 1.0), times=5, n=n)(model)
    a = sde.alpha(found.times) ** 2 + sde.var(found.times)
    b = sde.alpha(found.times) ** 2 * c + sde.var(found.times)
    expected = d * (1 / b - 1 / a) ** 2 * a
    # |x|^2 / a has variance 2 d: seven standard errors
    assert bool(((found.absolute - expected).abs() <= 7 * found.absolute_stderr + 1e-12).all())
    exact_error = expected * math.sqrt(2 / (d * n))
    assert_close(found.absolute_stderr, exact_error, tol=0.1)
    assert_close(found.relative, (1 - a / b) ** 2, tol=1e-9, scale=1.0)  # the ratio has no noise
    assert float(found.stderr.max()) < 1e-8
    assert abs(found.mean - float(((1 - a / b) ** 2).mean())) < 1e-9


def test_fisher_divergence_has_honest_standard_errors():
    """A constant offset has no noise in F and one in R: its spread over seeds is what it says."""
    target = GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)
    exact = ExactScore(target, VPSDE())

    class Off:
        sde = VPSDE()

        def __call__(self, x, t):
            from sdekit.model import Prediction
            from sdekit.model.parametrization import Score

            return Prediction(x, exact(x, t).score + 0.5, t, (self.sde, Score()))

    t = torch.tensor([0.3], dtype=torch.float64)
    runs = [FisherDivergence(target, times=t, n=500, seed=k)(Off()) for k in range(60)]
    assert all(abs(float(run.absolute[0]) - 0.5) < 1e-5 for run in runs)
    seen = torch.tensor([run.mean for run in runs]).std()
    said = torch.tensor([run.mean_stderr for run in runs]).mean()
    assert 0.6 < float(seen / said) < 1.5
    several = [FisherDivergence(target, times=3, n=200, seed=k)(Off()) for k in range(60)]
    seen = torch.tensor([run.mean for run in several]).std()
    said = torch.tensor([run.mean_stderr for run in several]).mean()
    assert 0.6 < float(seen / said) < 1.5
    assert FisherDivergence(target, times=3)(exact).mean < 1e-10
    zero = ScoreModel(lambda x, time: 0 * x, VPSDE())
    assert abs(FisherDivergence(target, times=3)(zero).mean - 1) < 1e-9


def test_fisher_divergence_weighs_its_times():
    target, sde = Gaussian(torch.zeros(2).double(), 1.0), DDPM.linear(10)
    model = ExactScore(Gaussian(torch.zeros(2).double(), 4.0), sde)
    weights = torch.tensor([1.0, 0.0, 3.0])
    found = FisherDivergence(target, times=3, weights=weights)(model)
    assert sde.index(found.times).tolist() == [4, 7, 10]
    expected = (found.relative[0] + 3 * found.relative[2]) / 4
    assert abs(found.mean - float(expected)) < 1e-12
    assert "%" in str(found)


TARGET, X = Gaussian([0.0, 0.0], 1.0), torch.zeros(1, 2)
EXACT = ExactScore(TARGET, VPSDE())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: SlicedScoreMatching(slices=0), ConfigError, ["slices", "0"]),
        (lambda: SlicedScoreMatching(slices=1.5), ConfigError, ["slices", "1.5"]),
        (lambda: SlicedScoreMatching(projection="gauss"), ConfigError, ["gauss", "gaussian"]),
        (lambda: SlicedScoreMatching(variance_reduced=1), DtypeError, ["variance_reduced"]),
        (lambda: ImplicitScoreMatching(weighting="uncertainty"), ConfigError, ["base"]),
        (
            lambda: ImplicitScoreMatching().loss_at(EXACT, X, 0.0, X), TimeError, ["0.0"],
        ),
        (lambda: ImplicitScoreMatching()(object(), X), ConfigError, ["linear SDE"]),
        (
            lambda: ImplicitScoreMatching()(type("Bare", (), {"sde": VPSDE(), "__call__":
                lambda self, x, t: x})(), X),
            ModelError, ["Prediction"],
        ),
        (lambda: FisherDivergence(3), DtypeError, ["target", "3"]),
        (lambda: FisherDivergence(TARGET, n=1), ConfigError, ["n", "1"]),
        (lambda: FisherDivergence(TARGET, times=0), ConfigError, ["times"]),
        (lambda: FisherDivergence(TARGET, times=torch.zeros(2, 2)), ShapeError, ["times"]),
        (lambda: FisherDivergence(TARGET, times=2, weights=torch.ones(3)), ShapeError, ["(2,)"]),
        (lambda: FisherDivergence(TARGET, times=2, weights=torch.zeros(2)), ConfigError, ["sum"]),
        (
            lambda: FisherDivergence(TARGET, times=torch.tensor([2.0]))(EXACT), TimeError, ["2.0"],
        ),
    ],
)  # fmt: skip
def test_bad_input(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value
