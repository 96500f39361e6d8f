"""Claim: `Brownian` follows one path of Brownian motion, whatever the grid and the batch.

The path is linear in the keyed normals, so with unit vectors in their place a draw *is* its vector
of weights, and all covariances of draws, of one grid or two, are exact scalar products. Increments
add up over grids; sample i of a path is bitwise the same in any batch. Any sampler can be driven:
the loop tells which row begins, whether a row draws once, never, three times, or goes up in time.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from sampling_support import Given, spectrum
from scipy.stats import norm
from strategies import f64
from support import assert_close, law_test

from sdekit.errors import ConfigError, DtypeError, NonFiniteError, TimeError
from sdekit.model import ExactScore
from sdekit.sampling import (
    AdaptiveSDE,
    Brownian,
    EulerMaruyama,
    Heun,
    Langevin,
    PredictorCorrector,
    brownian,
    iterate,
    sample,
)
from sdekit.sampling.noise import KeyedNoise
from sdekit.sde import VPSDE

X = torch.empty(3, 2, dtype=torch.float64)
FINE = f64([1.9, 1.25, 1.0, 0.9999, 0.73, 0.5, 0.4375, 0.3, 0.1, 0.02, 1e-3, 1e-6, 0.0])
COARSE = FINE[[0, 3, 4, 8, 11, 12]]


def lengths(times):
    """Of the rows, of the times as the source rounds them [(K,)]."""
    return -(times * 2**30).round().diff() / 2**30


def rows_of(source, rows, x=X, number=1):
    """The draws of rows (t, s), `number` each [(rows * number, *shape of x)]."""
    found = []
    for t, s in rows:
        source.enter(float(t), float(s))
        found += [source(x) for _ in range(number)]
    return torch.stack(found)


def draws_of(source, times, x=X, number=1):
    return rows_of(source, pairwise(times), x, number)


class _Basis:
    """Unit vectors in place of keyed normals: every (source, draw, part) has its coordinate."""

    def __init__(self, seed, *, first=0):
        self.seed, self.draw = seed, 0

    def __call__(self, x):
        out = torch.zeros_like(x)
        parts = out.unsqueeze(1) if x.ndim == 2 else out  # a draw without a tree is one part
        for part in range(parts.shape[1]):
            place = self.seen.setdefault((self.seed, self.draw, part), len(self.seen))
            parts[:, part, place] = 1.0
        self.draw += 1
        return out


@pytest.fixture
def weights(monkeypatch):
    """A function (rows, number) -> the weights of their draws [(draws, coordinates)]."""
    monkeypatch.setattr(_Basis, "seen", {}, raising=False)
    monkeypatch.setattr(brownian, "KeyedNoise", _Basis)

    def of(rows, number=1):
        return rows_of(Brownian(5), rows, torch.empty(1, 2500, dtype=torch.float64), number)[:, 0]

    return of


def overlap(a, b):
    """Cov(z_j, z'_k) for the rows of two grids on one path [(J, K)]."""
    high = torch.minimum(a[:-1, None], b[None, :-1])
    low = torch.maximum(a[1:, None], b[None, 1:])
    common = (high - low).clamp_min(0)
    return common / (lengths(a)[:, None] * lengths(b)).sqrt()


def test_covariances_of_increments_are_those_of_brownian_motion(weights):
    """Standard normal, independent between rows, and tied between grids by common time only."""
    odd = f64([1.7, 0.9, 0.44, 0.0123456789])
    rounded = [(t * 2**30).round() / 2**30 for t in (FINE, odd)]
    a, b = (weights(pairwise(t)) for t in (FINE, odd))
    assert_close(a @ a.T, torch.eye(len(FINE) - 1, dtype=torch.float64), tol=1e-12)
    assert_close(a @ b.T, overlap(*rounded), tol=1e-12)


EYE = torch.eye(64, dtype=torch.float64)


def test_paths_of_a_row_are_independent(weights):
    """Draw n of a row is of path n: three paths share nothing; path 0 is the one of one draw."""
    rows = list(pairwise(COARSE))
    many, one = weights(rows, 3), weights(rows)
    assert_close(many @ many.T, EYE[: len(many), : len(many)], tol=1e-12)
    assert torch.equal(many[::3], one)


def test_rows_without_a_draw_take_their_part_along(weights):
    """A sampler that draws in every third row only meets what it would with all of them."""
    rows = list(pairwise(FINE))
    every = weights(rows)
    source, found = Brownian(5), []
    for k, row in enumerate(rows):
        source.enter(*map(float, row))
        if k % 3 == 0:
            found.append(source(torch.empty(1, 2500, dtype=torch.float64))[0])
    assert torch.equal(torch.stack(found), every[::3])


def test_rows_that_stay_and_rows_that_go_up(weights):
    """All independent of each other and of every way down, except where a way is one path."""
    down, up = [(1.0, 0.6), (0.6, 0.2)], [(0.2, 0.7), (0.7, 0.9)]
    again = [(0.9, 0.6), (0.6, 0.2)]
    walk = [*down, (0.2, 0.2), *up, *again, (0.2, 0.9), *again]
    z = weights(walk, 2)
    assert_close(z @ z.T, EYE[: len(z), : len(z)], tol=1e-12)
    level = [(0.7, 0.7), (0.3, 0.3), (0.0, 0.0)]
    z = weights(level, 3)
    assert_close(z @ z.T, EYE[:9, :9], tol=1e-12)
    assert torch.equal(weights([(0.9, 0.7), *level], 3)[3:], z)  # at the same time the same
    # a way up is a path too
    whole, parts = weights([(0.2, 0.9)]), weights([(0.2, 0.7), (0.7, 0.9)])
    assert_close(whole[0], (0.5 / 0.7) ** 0.5 * parts[0] + (0.2 / 0.7) ** 0.5 * parts[1], tol=1e-8)


def test_other_seeds_have_other_paths():
    a, b = (draws_of(Brownian(seed), COARSE) for seed in (1, 2))
    assert not bool((a == b).any())


def test_normals_are_normal(alpha_budget):
    """The whole law of a draw: that of the keyed normals behind it."""
    z = draws_of(Brownian(11), f64([0.8, 0.3]), torch.empty(200_000, 1, dtype=torch.float64))
    assert law_test(z[0, :, 0], cdf=norm.cdf, alpha=alpha_budget.spend("brownian draws"))


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_increments_add_up(stride):
    """sum over fine rows of sqrt(h) z = sqrt(H) z of the coarse row."""
    coarse = FINE[::stride]
    fine = draws_of(Brownian(3), FINE)
    whole = draws_of(Brownian(3), coarse)
    parts = lengths(FINE).sqrt()[:, None, None] * fine
    parts = parts.unflatten(0, (-1, stride)).sum(1)
    assert_close(parts, lengths(coarse).sqrt()[:, None, None] * whole, tol=1e-12, scale=1)


def test_a_draw_depends_on_seed_sample_and_time_alone():
    """Bitwise: batches, `first`, other samples' number, and the rows asked for before."""
    for dims in [(), (1,), (3,), (2, 5)]:
        whole = draws_of(Brownian(9), FINE, torch.empty(40, *dims, dtype=torch.float64))
        for low, high in [(0, 1), (0, 17), (5, 6), (16, 40), (39, 40)]:
            part = torch.empty(high - low, *dims, dtype=torch.float64)
            for source in (Brownian(9, first=low), Brownian(9, first=low // 2)):
                source = source.shifted(low - source.first)
                assert torch.equal(draws_of(source, FINE, part), whole[:, low:high])
    rows, straight = list(pairwise(FINE)), draws_of(Brownian(9), FINE)
    source, order = Brownian(9), torch.randperm(len(rows), generator=torch.Generator())
    for k in order.tolist():
        for _ in range(2):  # the second time up again, from the lower end of the row
            assert torch.equal(rows_of(source, rows[k : k + 1])[0], straight[k])
    # a time belongs to no grid
    other = draws_of(Brownian(9), f64([1.9, 1.1, 0.73, 0.5, 0.49, 0.0]))
    assert torch.equal(other[2], straight[4])


def test_a_run_can_be_repeated_from_any_row():
    """at(draw), after turns too, and on from a source that has gone further."""
    walk = [(1.0, 0.6), (0.6, 0.2), (0.2, 0.2), (0.2, 0.9), (0.9, 0.2), (0.2, 0.7), (0.7, 0.1)]
    source, marks, found = Brownian(3), [], []
    for row in walk:
        marks.append(source.draw)
        found.append(rows_of(source, [row], number=2))
    for k, mark in enumerate(marks):
        again = source.at(mark)
        assert again.draw == mark
        assert torch.equal(rows_of(again, walk[k:], number=2), torch.cat(found[k:]))


def test_a_second_run_is_the_first():
    """The same object again, from its highest time: nothing is used up."""
    walk = [(1.0, 0.5), (0.5, 0.8), (0.8, 0.1)]
    source = Brownian(3)
    assert torch.equal(rows_of(source, walk), rows_of(source, walk))


def test_dtype_and_change_of_shape():
    z, wide = draws_of(Brownian(2), FINE, X.float()), draws_of(Brownian(2), FINE)
    assert z.dtype == torch.float32
    assert torch.equal(z, wide.float())
    source = Brownian(2)
    rows_of(source, [FINE[:2]])
    assert torch.equal(rows_of(source, [FINE[1:3]], X[:1])[0], wide[1, :1])  # goes on


def test_memory_does_not_grow_with_the_grid():
    """Ten levels of eight: what is kept is one way down the tree."""
    times = torch.linspace(0.97, 0.013, 301, dtype=torch.float64)
    source = Brownian(1)
    kept = []
    for row in pairwise(times):
        rows_of(source, [row])
        kept.append(len(source._paths[0].way))
    assert max(kept) <= 11


# what draws in some rows only, several times a row, at a level, or with steps of its own
DRIVEN = {
    "euler_maruyama": EulerMaruyama(),
    "churn": Heun(churn=4.0, churn_min=0.1, churn_max=1.0),
    "predictor_corrector": PredictorCorrector(corrections=2),
    "langevin": Langevin(repeats=2),
    "adaptive_sde": AdaptiveSDE(rtol=0.3, atol=0.3),
}
every_driven = pytest.mark.parametrize("sampler", DRIVEN.values(), ids=DRIVEN)


def inner(steps):
    return torch.linspace(0.95, 0.05, steps + 1, dtype=torch.float64)


@every_driven
def test_in_sample_and_iterate(sampler):
    """One source, run after run, chunk after chunk; it draws the start as well."""
    model, noise = ExactScore(spectrum(), VPSDE()), Brownian(4)
    how = dict(sampler=sampler, grid=inner(8), dtype=torch.float64)
    whole = sample(model, (9, 4), noise=noise, keep="all", **how)
    assert torch.equal(sample(model, (9, 4), noise=noise, chunk=4, **how).x, whole.x)
    assert torch.equal(sample(model, (2, 4), noise=noise, **how).x, whole.x[:2])
    assert not torch.equal(sample(model, (9, 4), noise=Brownian(5), **how).x, whole.x)
    start = whole.trajectory[0]
    frames = list(iterate(model, start, sampler=sampler, grid=inner(8), noise=noise))
    assert torch.equal(frames[-1].x, whole.x)
    again = list(iterate(model, start, sampler=sampler, grid=inner(8), noise=noise))
    assert torch.equal(again[-1].x, whole.x)
    other = sample(model, (9, 4), sampler="ddim", grid=inner(3), noise=noise, keep="all")
    assert_close(other.trajectory[0].double(), start, tol=1e-6)  # the start is common to all


@pytest.mark.parametrize("eta", [1.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_a_finer_grid_is_near(eta):
    """With one path a run on a finer grid is near; with independent noise it is not."""
    model, sampler = ExactScore(spectrum(), VPSDE()), EulerMaruyama(eta=eta)
    x = sample(model, (16, 4), sampler="ddim", steps=1, seed=0, dtype=torch.float64).x

    def run(steps, **noise):
        noise = noise or {"noise": Brownian(4)}
        return sample(model, (16, 4), sampler=sampler, grid=inner(steps), x_init=x, **noise).x

    near = (run(256) - run(512)).square().mean().sqrt()
    far = (run(256, seed=1) - run(512, seed=2)).square().mean().sqrt()
    assert near < 0.05 * far


def test_a_bad_state_is_found_again():
    """The rows since the last good look are repeated, on the same path, to name the step."""
    model = Given(lambda x, t: -x if t > 0.25 else math.nan * x, VPSDE())
    with pytest.raises(NonFiniteError, match="after step 9 of 10"):
        sample(model, (2, 2), sampler="ancestral", steps=10, noise=Brownian(1))


def test_a_path_is_not_the_noise_of_the_same_seed():
    z = draws_of(Brownian(3), f64([1.0, 0.0]))
    assert not bool(torch.isin(z, KeyedNoise(3)(X)).any())
    assert not bool(torch.isin(Brownian(3)(X), KeyedNoise(3)(X)).any())


@pytest.mark.parametrize(
    ("t", "s", "said"),
    [(0.5, 0.5 - 1e-11, "2^-30"), (0.5, -0.5, "got -0.5"), (math.nan, 0.5, "got nan"),
     (4097.0, 1.0, "got 4097")],
)  # fmt: skip
def test_bad_rows(t, s, said):
    with pytest.raises(TimeError) as caught:
        Brownian(0).enter(t, s)
    assert said in str(caught.value)


def test_bad_arguments():
    with pytest.raises(ConfigError, match="first"):
        Brownian(0, first=-1)
    with pytest.raises(DtypeError, match="seed"):
        Brownian("one")
