"""Claim: prior="matched" starts a run from the Gaussian of the data's moments at its first time.

On Gaussian data that is the law of x_t itself: mean and covariance of the start are read off by
unit impulses in the injected noise, without Monte Carlo, and compared with the target's closed
form. Moments of every form agree with dense linear algebra; a start depends on the seed and its
index alone.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sampling_support import Wrapped, draws, spectrum, two_modes
from strategies import f64
from support import assert_close

from sdekit import catalogue
from sdekit.errors import ConfigError, DataError, DtypeError, NonFiniteError, ShapeError
from sdekit.model import MLP, ExactScore, Moments, ScoreModel, estimation
from sdekit.model.estimation import FULL
from sdekit.sampling import sample
from sdekit.sampling.noise import KeyedNoise
from sdekit.sampling.setup import starting_law
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, FlowSDE, SubVPSDE
from sdekit.targets import Empirical, Gaussian, GaussianMixture, Target

EXACT = 1e-12  # relative to the largest entry
SDES = [VPSDE(), VESDE(), FlowSDE(), SubVPSDE(), EDM(), DDPM.linear(20, beta_end=0.3)]
every_sde = pytest.mark.parametrize("sde", SDES, ids=repr)


def eye(d: int):
    return torch.eye(d, dtype=torch.float64)


def turned(d: int, seed: int = 0):
    """An orthogonal matrix [(d, d)]."""
    return torch.linalg.qr(draws(d, (d,), seed)).Q


def correlated(d: int = 5):
    """A Gaussian with a full covariance of eigenvalues 0, and 0.01 to 9."""
    values = torch.cat([f64([0.0]), torch.logspace(-2, 0.95, d - 1, dtype=torch.float64)])
    q = turned(d)
    return Gaussian(draws(1, (d,), 3)[0], (q * values) @ q.T)


def low_rank(d: int = 7, r: int = 3, rest: float = 0.2, shape=None):
    values = f64([0.1, 1.0, 5.0])[:r]
    return Moments(draws(1, (d,), 4)[0], values, turned(d)[:, :r], rest=rest, shape=shape)


MOMENTS = {
    "full": Moments.of(correlated()),
    "full, one": Moments(f64([1.0]), f64([4.0]), f64([[1.0]])),
    "diagonal": Moments(f64([1.0, -2.0, 0.0]), f64([4.0, 0.0, 0.25])),
    "isotropic": Moments(f64([1.0, -2.0, 0.0]), f64([4.0])),
    "low rank": low_rank(),
    "low rank, no rest": low_rank(rest=0.0),
    "images": low_rank(8, 2, shape=(2, 2, 2)),
    "large": Moments.of(correlated(70)),  # coloured by a matrix product
}
every_moments = pytest.mark.parametrize("moments", MOMENTS.values(), ids=MOMENTS)


def start(model, shape, **how):
    how = dict(prior="matched", steps=1, keep="all", dtype=torch.float64) | how
    return sample(model, shape, **how).trajectory[0]


def law_of_start(model, dims, **how):
    """Mean [(d,)] and covariance [(d, d)] of the start: without noise, then with each impulse."""
    d = torch.Size(dims).numel()
    noise = torch.cat([eye(d)[:1] * 0, eye(d)]).reshape(d + 1, *dims)

    def source(x):
        return noise

    found = start(model, (d + 1, *dims), noise=source, sampler="ddim", **how).reshape(d + 1, d)
    root = found[1:] - found[0]
    return found[0], root.T @ root


# the claim ------------------------------------------------------------------------------------


@every_sde
@pytest.mark.parametrize(
    "law", [correlated(), spectrum(), Gaussian([2.0], 0.5)], ids=["full", "diagonal", "1-D"]
)
def test_on_gaussian_data_it_is_the_law_of_x_t(sde, law):
    """At t_max, and wherever else a grid begins."""
    model = ExactScore(law, sde)
    grids = [None, f64([0.55 * sde.t_max, 0.3 * sde.t_max])]
    for grid in grids:
        how = {} if grid is None else {"grid": grid}
        t = float(sample(model, (0, *law.shape), steps=1, **how).grid[0])
        mean, cov = law_of_start(model, law.shape, **how)
        assert_close(mean, model.at(t).mean, tol=EXACT, scale=1.0)
        assert_close(cov, model.at(t).cov, tol=EXACT)


@every_sde
def test_on_a_mixture_it_has_the_moments_of_x_t(sde):
    model = ExactScore(two_modes(), sde)
    mean, cov = law_of_start(model, (2,))
    at = model.at(sde.t_max)
    assert_close(mean, at.mean, tol=EXACT, scale=1.0)
    assert_close(cov, at.cov, tol=EXACT)


@every_moments
def test_the_model_s_own_moments_are_used(moments):
    """A network, with images, and a predictor without `bind`."""
    sde = FlowSDE()
    model = ScoreModel(lambda x, t: torch.zeros_like(x), sde, moments=moments)
    bare = Wrapped(model)
    bare.moments = moments
    alpha, var = float(sde.alpha(sde.t_max)), float(sde.var(sde.t_max))
    for predictor in (model, bare):
        mean, cov = law_of_start(predictor, moments.shape)
        assert_close(mean, alpha * moments.mean, tol=EXACT, scale=1.0)
        assert_close(cov, alpha**2 * moments.cov + var * eye(moments.dim), tol=EXACT)


@every_sde
def test_the_laws_that_a_run_starts_from(sde):
    model, t = ExactScore(correlated(), sde), sde.t_max
    standard = starting_law(model, "standard", t, (5,))
    assert not standard.mean.any()
    assert_close(standard.cov, sde.prior_std() ** 2 * eye(5), tol=EXACT)
    assert starting_law(model, model.target, t, (5,)) is model.target
    matched, exact = starting_law(model, "matched", t, (5,)).as_gaussian(), model.at(t)
    assert_close(matched.mean, exact.mean, tol=EXACT, scale=1.0)
    assert_close(matched.cov, exact.cov, tol=EXACT)


@every_sde
def test_the_standard_start_is_bitwise_what_it_was(sde):
    """One multiplication of the draw, in any dtype."""
    model = ExactScore(two_modes(), sde)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        z = KeyedNoise(6)(torch.empty(40, 2, dtype=dtype))
        found = start(model, (40, 2), prior="standard", seed=6, dtype=dtype)
        assert torch.equal(found, z * sde.prior_std())


def test_it_takes_the_draw_of_the_standard_start():
    """One draw, the same keys: on N(0, I) both are the same start."""
    model = ExactScore(Gaussian([0.0, 0.0], 1.0), VPSDE())
    one, two = (start(model, (40, 2), prior=p, seed=2) for p in ("standard", "matched"))
    assert_close(one, two, tol=EXACT)


# one sample, whatever its batch -----------------------------------------------------------------


@every_moments
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_and_batch_sizes(moments, dtype):
    model = ScoreModel(lambda x, t: torch.zeros_like(x), VESDE(sigma_max=3.0), moments=moments)
    how = dict(seed=11, dtype=dtype)
    whole = start(model, (37, *moments.shape), **how)
    parts = [start(model, (37, *moments.shape), chunk=chunk, **how) for chunk in (1, 5, 16, 36)]
    parts.append(torch.cat([start(model, (9, *moments.shape), **how), whole[9:]]))
    for found in parts:
        if moments.dim <= 64:
            assert torch.equal(found, whole)
        else:  # documented: a matrix product rounds as its size tells it
            assert_close(found, whole, tol=200 * torch.finfo(dtype).eps)


def test_precision_changes_it_by_rounding_only():
    model = ExactScore(correlated(), VPSDE())
    single, double = (
        start(model, (50, 5), seed=0, dtype=dtype) for dtype in (torch.float32, torch.float64)
    )
    assert_close(single.double(), double, tol=1e-6)
    z = draws(1, (50, 5))[0].bfloat16()
    assert torch.equal(
        model.moments.colored(z), model.moments.colored(z.float()).to(torch.bfloat16)
    )


def test_no_samples():
    assert start(ExactScore(correlated(), VPSDE()), (0, 5)).shape == (0, 5)


# moments against dense linear algebra -----------------------------------------------------------


@every_moments
def test_every_form_is_its_dense_covariance(moments):
    d = moments.dim
    values, vectors = torch.linalg.eigh(moments.cov)
    dense = Moments(moments.mean, values.clamp_min(0), vectors, shape=moments.shape)
    z = draws(9, moments.shape, seed=5)
    for alpha, var in ((1.0, 0.0), (0.3, 0.91), (-2.0, 1e-3), (0.0, 1.0), (1.0, 2500.0)):
        here, there = moments.perturbed(alpha, var), dense.perturbed(alpha, var)
        expected = alpha**2 * moments.cov + var * eye(d)
        assert_close(here.cov, expected, tol=EXACT)
        assert_close(here.mean, alpha * moments.mean, tol=EXACT)
        values, vectors = torch.linalg.eigh(expected)
        root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        want = (z.reshape(9, d) @ root + here.mean).reshape(z.shape)
        # a root of what is 0 but for rounding is large
        tol = EXACT if float(values[0]) > 1e-9 else 1e-7
        assert_close(here.colored(z), want, tol=tol)
        assert_close(there.colored(z), want, tol=tol)
        law = here.as_gaussian()
        assert_close(law.cov, expected, tol=EXACT)
        assert_close(law.mean, here.mean, tol=EXACT)


def data(n=400, d=12, seed=0):
    """Correlated samples [(n, d)] with a mean that is large beside their spread."""
    return draws(n, (d,), seed) @ (turned(d, 8) * torch.logspace(-2, 1, d).double()) + 100.0


def dense_moments(x):
    """Mean and covariance with 1/n, by definition."""
    centred = x - x.mean(dim=0)
    return x.mean(dim=0), centred.T @ centred / len(x)


def test_of_samples():
    x = data()
    mean, cov = dense_moments(x)
    for kind in ("auto", "full"):
        found = Moments.of(x, covariance=kind)
        assert found.kind == "full"
        assert_close(found.mean, mean, tol=EXACT)
        assert_close(found.cov, cov, tol=EXACT)
    found = Moments.of(x, covariance="diagonal")
    assert found.kind == "diagonal"
    assert_close(found.values, cov.diagonal(), tol=EXACT)
    single = Moments.of(x.float())
    assert single.mean.dtype == torch.float64
    assert_close(single.cov, dense_moments(x.float().double())[1], tol=EXACT)
    assert Moments.of(x.reshape(400, 3, 4)).shape == (3, 4)
    assert Moments.of(x[:, 0]).shape == ()
    assert_close(Moments.of(x[:, 0]).cov[0, 0], cov[0, 0], tol=EXACT)


@pytest.mark.parametrize("n", [400, 9])
def test_a_low_rank_is_the_leading_eigenvectors_and_the_mean_of_the_rest(n):
    """Tipping and Bishop 1999, eqs. 7 and 8, also for fewer samples than dimensions."""
    x = data(n)
    mean, cov = dense_moments(x)
    values, vectors = torch.linalg.eigh(cov)
    for rank in (1, 3, 8):
        found = Moments.of(x, covariance="low_rank", rank=rank)
        assert found.kind == "low_rank"
        assert_close(found.mean, mean, tol=EXACT)
        assert_close(found.values, values[-rank:], tol=EXACT)
        top = vectors[:, -rank:]
        rest = values[:-rank].sum() / (12 - rank)
        want = (top * values[-rank:]) @ top.T + rest * (eye(12) - top @ top.T)
        assert_close(found.cov, want, tol=EXACT)
    assert_close(Moments.of(x, covariance="low_rank", rank=50).cov, cov, tol=EXACT)


def test_a_low_rank_of_more_rows_than_give_its_directions():
    """The variances are those of all rows; two large ones are found by a part of them."""
    q = turned(30, 1)[:, :2]
    x = draws(5000, (2,), 1) * f64([3.0, 9.0]) @ q.T + 1e-3 * draws(5000, (30,), 2)
    values, vectors = torch.linalg.eigh(dense_moments(x)[1])
    found = Moments.of(x, covariance="low_rank", rank=2)
    assert_close(found.values, values[-2:], tol=1e-9)
    assert_close((found.vectors.T @ vectors[:, -2:]).abs(), eye(2), tol=1e-4)
    assert_close(found.cov.trace(), values.sum(), tol=EXACT)


def slowly_falling(n, d):
    """Samples whose standard deviations fall from 5 to 0.1, linearly: no direction stands out."""
    return draws(n, (d,), 1) * torch.linspace(5, 0.1, d).double() @ turned(d, 2)


@pytest.mark.parametrize(("n", "d"), [(3000, 600), (1100, 800), (500, 600)])
def test_a_slowly_falling_spectrum_is_cut_exactly_up_to_1024_rows_or_dimensions(n, d):
    x = slowly_falling(n, d)
    values, vectors = np.linalg.eigh(dense_moments(x)[1].numpy())
    found = Moments.of(x)
    assert found.kind == "low_rank"
    assert_close(found.values, torch.from_numpy(values[-64:]), tol=EXACT)
    assert_close(found.vectors.T @ torch.from_numpy(vectors[:, -64:]) @ (
        torch.from_numpy(vectors[:, -64:]).T @ found.vectors), eye(64), tol=1e-9)  # fmt: skip
    assert found.rest == pytest.approx(values[:-64].mean(), rel=1e-10)


@pytest.mark.parametrize(("flat", "least"), [
    pytest.param(False, 0.998, marks=pytest.mark.slow), (True, 0.99),
])  # fmt: skip
def test_beyond_1024_it_captures_nearly_what_the_best_directions_do(flat, least):
    """A slowly falling spectrum, and noise of one variance, the worst there is."""
    x = draws(3000, (1100,), 3) if flat else slowly_falling(3000, 1100)
    best = np.linalg.eigvalsh(dense_moments(x)[1].numpy())[-64:]
    found = Moments.of(x)
    assert least * best.sum() <= float(found.values.sum()) <= (1 + EXACT) * best.sum()
    centred = x - x.mean(dim=0)
    assert_close(found.values, (centred @ found.vectors).square().mean(dim=0), tol=EXACT)


def test_fewer_real_directions_than_are_sought():
    """3 in 1100 dimensions; rows of which most are the same; all but one row the same."""
    x = draws(2000, (3,), 1) @ turned(1100)[:3]
    found = Moments.of(x)
    assert found.values.shape == (3,)
    assert_close(found.cov, dense_moments(x)[1], tol=EXACT)
    x = torch.zeros(1050, 1100, dtype=torch.float64)
    for rows in (40, 1):
        x[:rows] = draws(rows, (1100,))
        assert_close(Moments.of(x).cov.trace(), dense_moments(x)[1].trace(), tol=EXACT)


def test_a_tensor_beyond_the_limit_is_measured_on_some_rows_of_it(monkeypatch):
    x = data()
    monkeypatch.setattr(estimation, "_NUMBERS", 12 * 150)
    found = Moments.of(x)
    assert found == Moments.of(x)
    some = estimation._some(x, 150)
    assert len({tuple(row) for row in some.tolist()} & {tuple(row) for row in x.tolist()}) == 150
    assert_close(found.cov, dense_moments(some)[1], tol=EXACT)


def test_beyond_512_dimensions_it_is_of_low_rank():
    x = draws(40, (FULL + 1,)) @ torch.diag(torch.linspace(0, 1, FULL + 1).double())
    found = Moments.of(x)
    assert found.kind == "low_rank"
    assert found.vectors.shape == (FULL + 1, 39)  # the rank that 40 points have
    assert_close(found.cov, dense_moments(x)[1], tol=EXACT)
    assert Moments.of(x[:, 1:]).kind == "full"


def test_of_targets_in_closed_form():
    full = correlated(9)
    values, vectors = torch.linalg.eigh(full.cov)
    for law in (full, two_modes(), spectrum()):
        found = Moments.of(law)
        assert_close(found.mean, law.mean, tol=EXACT, scale=1.0)
        assert_close(found.cov, law.cov, tol=EXACT)
        assert_close(Moments.of(law, covariance="diagonal").values, law.cov.diagonal(), tol=EXACT)
    assert Moments.of(spectrum()).kind == Moments.of(Gaussian([0.0, 0.0], 3.0)).kind == "diagonal"
    assert Moments.of(spectrum(), covariance="full").kind == "full"
    # a mixture along a line with the moments of N(0, diag(5, 1)): another way to the same
    line = GaussianMixture([0.5, 0.5], [[2.0, 0.0], [-2.0, 0.0]], 1.0)
    for law, cov in ((full, full.cov), (spectrum(), spectrum().cov), (line, line.cov)):
        values, vectors = torch.linalg.eigh(cov)
        found = Moments.of(law, covariance="low_rank", rank=1)
        top, d = vectors[:, -1:], len(cov)
        want = values[-1] * top @ top.T + values[:-1].mean() * (eye(d) - top @ top.T)
        assert_close(found.cov, want, tol=EXACT)


def test_of_points_and_of_smoothed_points():
    x = data(20)
    mean, cov = dense_moments(x)
    assert Moments.of(Empirical(x)) == Moments.of(x).perturbed(1.0, 0.0)
    found = Moments.of(Empirical(x, var=0.5))
    assert_close(found.cov, cov + 0.5 * eye(12), tol=EXACT)
    assert_close(ExactScore(Empirical(x), VPSDE()).moments.mean, mean, tol=EXACT)


class Halves(Target):
    """Points of which the moments are known by draws alone: -1 and 1 in each coordinate."""

    shape = (2, 3)

    def sample(self, n, *, generator=None, dtype=None, device=None):
        return 2.0 * torch.randint(2, (n, 2, 3), generator=generator).to(dtype) - 1


def test_of_any_target_by_draws_of_its_own_generator():
    found = Moments.of(Halves())
    assert found == Moments.of(Halves())
    assert found.shape == (2, 3)
    # six standard errors of 2^16 draws, of which nothing but the code can change
    assert float(found.mean.abs().max()) < 6 / 256
    assert float((found.cov - eye(6)).abs().max()) < 6 / 256


@pytest.mark.parametrize("name", catalogue("target"))
def test_every_target_of_the_catalogue_has_moments(name):
    for law in catalogue("target")[name].examples():
        found = Moments.of(law)
        x = law.sample(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        spread = x.std(dim=0).clamp_min(1e-12)  # some pixels of digits never change
        assert float(((x.mean(dim=0) - found.mean) / spread).abs().max()) < 6 / 4000**0.5
        assert_close(x.T.cov().diagonal() if x.shape[1] > 1 else x.var(dim=0),
                     found.cov.diagonal(), tol=0.2)  # fmt: skip


def test_points_that_are_all_the_same():
    x = torch.full((5, 4), 3.0)
    for kind in ("auto", "diagonal", "low_rank"):
        found = Moments.of(x, covariance=kind)
        assert found.mean.tolist() == [3.0] * 4
        assert_close(found.perturbed(0.5, 0.25).cov, 0.25 * eye(4), tol=EXACT)


def test_they_are_kept_and_compared_bitwise():
    for moments in MOMENTS.values():
        assert Moments.from_state(*moments.state()) == moments
        assert hash(Moments.from_state(*moments.state())) == hash(moments)
        assert moments != moments.perturbed(1.0, 1e-9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        moments.rest = 3.0
    x = data(20)
    before = x.clone()
    found = Moments.of(x)
    kept = found.mean.clone()
    x.zero_()
    assert torch.equal(found.mean, kept)
    assert not torch.equal(before, x)


# what is refused ------------------------------------------------------------------------------


def refused(error, *words, **how):
    model = how.pop("model", ExactScore(two_modes(), VPSDE()))
    with pytest.raises(error) as caught:
        sample(model, how.pop("shape", (3, 2)), steps=1, **how)
    assert all(word in str(caught.value) for word in words), caught.value


def test_priors_that_cannot_be():
    network = ScoreModel(MLP(2, width=4, depth=1), VPSDE())
    refused(ConfigError, "prior", "Moments.of", "standard", model=network, prior="matched")
    refused(ConfigError, "prior", "'macthed'", "did you mean 'matched'", prior="macthed")
    refused(DtypeError, "prior", "3", "matched", prior=3)
    refused(ConfigError, "x_init", "prior", prior="matched", x_init=torch.zeros(3, 2))
    network.moments = low_rank()
    refused(ShapeError, "prior", "(7,)", "(2,)", model=network, prior="matched")
    network.moments = torch.zeros(2)
    refused(DtypeError, "prior", "Moments", model=network, prior="matched")
    with pytest.raises(DtypeError, match=r"moments must be a Moments or None"):
        ScoreModel(MLP(2), VPSDE(), moments=(0.0, 1.0))


EYE = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("error", "words", "make"),
    [
        (ShapeError, "mean", lambda: Moments([[0.0]], [1.0])),
        (ShapeError, "values", lambda: Moments([0.0] * 3, [1.0, 2.0])),
        (ShapeError, "vectors", lambda: Moments([0.0, 0.0], [1.0, 2.0, 3.0], EYE)),
        (ShapeError, "vectors", lambda: Moments([0.0] * 3, [1.0, 2.0], EYE)),
        (ShapeError, "vectors", lambda: Moments([0.0], [1.0, 1.0], [[1.0, 0.0]])),
        (ConfigError, "orthonormal", lambda: Moments([0.0] * 2, [1.0] * 2, [[1.0, 0.1], [0, 1]])),
        (ConfigError, "values must be >= 0", lambda: Moments([0.0], [-1.0])),
        (ConfigError, "values", lambda: Moments([0.0, 0.0], [1.0, float("nan")])),
        (ConfigError, "mean", lambda: Moments([float("inf")], [1.0])),
        (ConfigError, "rest", lambda: Moments([0.0], [1.0], rest=1.0)),
        (ConfigError, "rest", lambda: Moments([0.0] * 2, [1.0], [[1.0], [0.0]], rest=-1.0)),
        (ShapeError, "shape", lambda: Moments([0.0] * 6, [1.0], shape=(2, 2))),
        (DtypeError, "mean", lambda: Moments(torch.zeros(2, dtype=torch.int64), [1.0])),
        (ConfigError, "covariance", lambda: Moments.of(torch.zeros(2, 2), covariance="fulll")),
        (ConfigError, "rank", lambda: Moments.of(torch.zeros(2, 2), rank=0)),
        (DtypeError, "data", lambda: Moments.of([[0.0]])),
        (DtypeError, "data", lambda: Moments.of(torch.zeros(2, 2, dtype=torch.int64))),
        (DataError, "data", lambda: Moments.of(torch.zeros(0, 2))),
        (DataError, "overflow", lambda: Moments.of(f64([[1e200, 0.0], [-1e200, 0.0]]))),
        (NonFiniteError, "data", lambda: Moments.of(f64([[0.0], [float("nan")]]))),
        (ConfigError, "var", lambda: Moments([0.0], [1.0]).perturbed(1.0, -1.0)),
        (ConfigError, "alpha", lambda: Moments([0.0], [1.0]).perturbed(float("inf"), 1.0)),
        (ShapeError, "z", lambda: Moments([0.0], [1.0]).colored(torch.zeros(3, 2))),
        (DtypeError, "z", lambda: Moments([0.0], [1.0]).colored(torch.zeros(3, 1).long())),
    ],
)
def test_moments_that_cannot_be(error, words, make):
    with pytest.raises(error, match=words):
        make()
