"""Claim: elbo is the sum of its terms, whatever the batch, the chunks or the times drawn.

A term is the loss `VLB` at the noise keyed by (seed, step); drawn times are unbiased by counting;
the standard error is that of the estimate; the curve of progressive coding is the terms' running
sum; bits are nats / (D log 2). Bad data and settings are named (FAULTS, section F).
"""

from __future__ import annotations

import math

import pytest
import torch
from support import assert_close

from sdekit import DDPM, VPSDE, ExactScore, Gaussian, ScoreModel
from sdekit.errors import (
    ConfigError,
    DataError,
    DtypeError,
    ModelError,
    NonFiniteError,
)
from sdekit.likelihood import elbo
from sdekit.likelihood.bound import _collapsed
from sdekit.likelihood.steps import _chosen
from sdekit.model import MLP
from sdekit.model.prediction import Prediction
from sdekit.objectives import VLB
from sdekit.sampling.noise import KeyedNoise

CHAIN = DDPM.linear(9, beta_start=0.02, beta_end=0.5)
X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def f64(values):
    return torch.as_tensor(values, dtype=torch.float64)


def network(x, time, shift=0.0):
    return torch.tanh(x) * 0.3 + shift


def learned(x, time):
    return torch.cat([0.3 * torch.tanh(x), torch.sin(2 * x)], dim=1)


MODEL = ScoreModel(network, CHAIN)


def same(a, b, tol=1e-13):
    for name in ("prior", "terms", "decoder", "total", "stderr", "squared_error"):
        assert_close(getattr(a, name), getattr(b, name), tol=tol)


# the value ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["posterior", "beta", "learned"])
def test_a_term_is_the_loss_at_its_noise(variance):
    model = ScoreModel(learned, CHAIN, variance="learned_range")
    found = elbo(model, X, variance=variance, seed=4)
    assert CHAIN.index(found.times).tolist() == [9, 8, 7, 6, 5, 4, 3, 2]
    assert CHAIN.index(found.decoder_time) == 1
    loss = VLB(variance=variance)
    for k, t in enumerate(found.times.tolist()):
        noise = KeyedNoise(4).at(2 * (CHAIN.index(t) - 1))(X)
        assert_close(found.terms[k], loss.loss_at(model, X, t, noise) / 9, tol=1e-12)
        x_t = CHAIN.perturb(X, t, noise)
        square = (model(x_t, t).x0 - X).square().mean(1)
        assert_close(found.squared_error[k], square, tol=1e-10)
    assert_close(found.total, found.prior + found.terms.sum(0) + found.decoder, tol=1e-14)
    assert_close(found.bits_per_dim, found.total / (2 * math.log(2)), tol=1e-14)
    assert found.mean == float(found.total.mean())
    assert found.nfe == 8 + 2


def test_draws_are_averaged():
    """The noise of draw r of step i is draw number i R + r of the source."""
    found = elbo(MODEL, X, draws=3, seed=4)
    loss = VLB()
    for k, t in enumerate(found.times.tolist()):
        number = 3 * (CHAIN.index(t) - 1)
        each = [loss.loss_at(MODEL, X, t, KeyedNoise(4).at(number + r)(X)) / 9 for r in range(3)]
        assert_close(found.terms[k], torch.stack(each).mean(0), tol=1e-12)
    assert found.nfe == 27


@pytest.mark.parametrize("sde", [CHAIN, VPSDE()], ids=repr)
@pytest.mark.parametrize("options", [{}, {"draws": 3}, {"times": 5}], ids=repr)
def test_batches_and_chunks(sde, options):
    """A sample's bound is its own: in another batch, in chunks across samples and steps."""
    model = ScoreModel(network, sde)
    whole = elbo(model, X, seed=7, **options)
    for chunk in (17, 100):
        same(elbo(model, X, seed=7, chunk=chunk, **options), whole)
    first = elbo(model, X[:5], seed=7, **options)
    assert_close(first.total, whole.total[:5], tol=1e-13)
    again = elbo(model, X, seed=7, **options)
    assert torch.equal(again.total, whole.total)
    assert not torch.equal(elbo(model, X, seed=8, **options).total, whole.total)


def test_conditions_are_cut_with_the_samples():
    shift = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None]
    whole = elbo(MODEL, X, seed=1, cond={"shift": shift})
    for chunk in (7, 200):
        same(elbo(MODEL, X, seed=1, cond={"shift": shift}, chunk=chunk), whole)
    apart = elbo(MODEL, X, seed=1, cond={"shift": 0.0}).total - whole.total
    assert float(apart.abs().max()) > 0.1


def test_images_and_types():
    """(batch, *dims) in float32; a network in training mode is put back."""
    x = 0.1 * torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = elbo(MODEL, x, seed=0)
    assert found.total.shape == (6,)
    assert found.total.dtype == torch.float64
    assert found.elements == 48
    assert_close(found.total, elbo(MODEL, x.double(), seed=0).total, tol=1e-5)
    network = ScoreModel(MLP(2, width=4, depth=1), CHAIN).train()
    elbo(network, X.float(), seed=0)
    assert network.training
    assert elbo(MODEL, X[:, 0], seed=0).total.shape == (40,)  # samples of no dimension


def test_discretised_data_and_their_bits():
    """17 levels of [0, 16]: each is a probability, so at least 0 nats."""
    levels = torch.randint(0, 17, (30, 4), generator=torch.Generator().manual_seed(2))
    options = dict(decoder="discretized", levels=17, data_range=(0.0, 16.0), seed=0)
    found = elbo(MODEL, levels.double(), **options)
    assert bool((found.decoder >= 0).all())
    with pytest.raises(DataError, match="17 levels"):
        elbo(MODEL, levels.double() / 8 - 1, **options)
    with pytest.raises(DtypeError, match="dequantise"):
        elbo(MODEL, levels, **options)


# times that are drawn ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "times"), [(8, 8), (8, 3), (8, 1), (999, 10)])
def test_drawn_times_are_unbiased(n, times):
    """Over all places in the strata each step has weight 1 in the mean, and one is in each."""
    whole = torch.zeros(n + 1, dtype=torch.float64)
    most = -(-n // times)
    u = (torch.arange(20 * most) + 0.5) / (20 * most)

    class Fixed(torch.Generator):
        pass

    rand, calls = torch.rand, iter(u.tolist())
    try:
        for _ in u:
            value = next(calls)
            torch.rand = lambda k, value=value, **_: torch.full((k,), value, dtype=torch.float64)
            number, weight, above = _chosen(n, times, Fixed())
            whole[number] += weight / len(u)
            assert float(weight[:-1].sum()) == n
            assert bool(((above >= 0) & (above < 1)).all())
    finally:
        torch.rand = rand
    assert_close(whole[1:], torch.ones(n, dtype=torch.float64), tol=0.11 if n % times else 1e-9)


def test_all_strata_of_one_step_are_all_steps():
    same(elbo(MODEL, X, times=8, draws=1, seed=3), elbo(MODEL, X, seed=3))


def test_the_standard_error():
    """Against the spread of one point's bounds, for several draws, one draw, and drawn times.

    From several draws it is unbiased in square; else it may only be too large.
    """
    x = X[:1].repeat(1000, 1)
    for options, most in (({"draws": 3}, 1.15), ({}, 9.0)):
        found = elbo(MODEL, x, seed=0, **options)
        ratio = float(found.stderr.square().mean() / found.total.var())
        assert 0.85 < ratio < most, (options, ratio)
    drawn = [elbo(MODEL, x[:20], times=4, seed=seed) for seed in range(60)]
    spread = torch.stack([each.total for each in drawn]).var()
    ratio = float(torch.stack([each.stderr.square() for each in drawn]).mean() / spread)
    assert 0.85 < ratio < 9, ratio


def test_pairs_of_neighbours():
    y = f64([1.0, 4.0, 2.0, 2.0, 5.0])  # (1, 4), and three that have mean 3
    assert float(_collapsed(y)) == 9.0 + 1.5 * (1 + 1 + 4)
    assert float(_collapsed(y[:4])) == 9.0
    assert float(_collapsed(y[:1])) == math.inf
    assert float(_collapsed(y[:0])) == 0.0


def test_one_sample_has_no_error_over_the_data():
    assert elbo(MODEL, X[:1], seed=0).mean_stderr == math.inf
    found = elbo(MODEL, X, seed=0)
    assert found.mean_stderr == pytest.approx(float(found.total.std()) / 40**0.5)


@pytest.mark.parametrize("options", [{}, {"times": 3}, {"times": 3, "draws": 2}], ids=str)
def test_the_error_of_the_mean_is_its_spread_over_data_noise_and_times(options):
    """80 runs on data of their own; drawn times are the same for all samples of a run."""
    source, runs = torch.Generator().manual_seed(5), []
    for seed in range(80):
        x = torch.randn(100, 2, generator=source, dtype=torch.float64)
        runs.append(elbo(MODEL, x, seed=seed, **options))
    seen = float(f64([run.mean for run in runs]).var())
    said = float(f64([run.mean_stderr for run in runs]).square().mean())
    # a variance of 80 has 16 % of standard error; pairs of strata take their trend for noise
    assert 0.5 < said / seen < (9 if options else 2), said / seen


# progressive coding ------------------------------------------------------------------------------


def test_the_curve_of_progressive_coding():
    found = elbo(MODEL, X, seed=0)
    curve = found.rate_distortion()
    assert curve.times.tolist() == [*found.times.tolist(), found.decoder_time]
    assert_close(curve.rate[0], found.prior.mean(), tol=1e-14)
    assert_close(curve.rate[3], (found.prior + found.terms[:3].sum(0)).mean(), tol=1e-14)
    assert_close(curve.rate[-1], (found.total - found.decoder).mean(), tol=1e-13)
    assert_close(curve.distortion, found.squared_error.mean(1).sqrt(), tol=1e-14)
    assert bool((curve.rate.diff() >= 0).all())


def test_the_curve_of_the_exact_model():
    """N(0, c): the distortion is the root of the posterior variance; the rate is the information.

    Rate from 0 to t is 1/2 log((1 + c snr_t) / (1 + c snr_T)) an element, in continuous time.
    """
    c, sde = 0.5, VPSDE()
    data = Gaussian(torch.zeros(2, dtype=torch.float64), c)
    x = data.sample(2000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = elbo(ExactScore(data, sde), x, times=64, seed=0)
    curve = found.rate_distortion()
    snr = sde.log_snr(curve.times).exp()
    wanted = (c / (1 + c * snr)).sqrt()
    assert float((curve.distortion / wanted - 1).abs().max()) < 6 / math.sqrt(2 * 4000)
    information = torch.log1p(c * snr) - torch.log1p(c * sde.log_snr(sde.t_max).exp())
    off = (curve.rate - found.prior.mean() - information).abs()
    assert float(off.max()) < 6 * found.mean_stderr


# what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        (dict(decoder="discretised"), ConfigError, "discretized"),
        (dict(levels=0), ConfigError, "levels"),
        (dict(levels=None), ConfigError, "levels"),
        (dict(variance="small"), ConfigError, "posterior"),
        (dict(variance="learned"), ConfigError, "learned_range"),
        (dict(form="ism"), ConfigError, "continuous"),
        (dict(form="hyvarinen"), ConfigError, "form"),
        (dict(divergence="trace"), ConfigError, "divergence"),
        (dict(times=0), ConfigError, "times"),
        (dict(times=9), ConfigError, "times"),
        (dict(times=2.0), DtypeError, "times"),
        (dict(draws=0), ConfigError, "draws"),
        (dict(chunk=0), ConfigError, "chunk"),
        (dict(seed="a"), DtypeError, "seed"),
        (dict(cond=3), DtypeError, "cond"),
    ],
)
def test_settings(options, error, word):
    with pytest.raises(error, match=word):
        elbo(MODEL, X, **options)


def test_data():
    bad = X.clone()
    bad[3, 1] = math.nan
    with pytest.raises(DataError, match=r"\[3\]"):
        elbo(MODEL, bad)
    with pytest.raises(DataError, match="at least one"):
        elbo(MODEL, X[:0])
    with pytest.raises(DtypeError, match="x must be"):
        elbo(MODEL, X.numpy())
    far = elbo(MODEL, 1e4 * X, seed=0)  # far in the tail
    assert bool(far.total.isfinite().all())


def test_models():
    def explodes(x, time):
        return x / 0 if float(time[0]) < 0.5 else x

    with pytest.raises(NonFiniteError, match=r"t = 0\.44"):
        elbo(ScoreModel(explodes, CHAIN), X)
    with pytest.raises(ConfigError, match="linear SDE"):
        elbo(network, X)
    with pytest.raises(ConfigError, match="DDPM"):
        elbo(ScoreModel(learned, VPSDE(), variance="learned_range"), X, variance="learned")

    class Detached:
        sde = VPSDE()
        parametrization = MODEL.parametrization

        def __call__(self, x, t):
            return Prediction(x, x.detach(), t, (self.sde, self.parametrization))

    with pytest.raises(ModelError, match="autograd"):
        elbo(Detached(), X, form="ism")
    constant = ScoreModel(lambda x, time: torch.full_like(x, 0.5), VPSDE())  # |eps|^2 = D / 4
    found = elbo(constant, X, form="ism", times=3)
    assert_close(found.terms, torch.full_like(found.terms, 0.5 * (0.5 + 2)), tol=1e-12)
