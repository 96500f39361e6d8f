"""Claim: `Brownian` follows one path of Brownian motion, whatever the grid and the batch.

The path is linear in the keyed normals, so with unit vectors in their place a draw *is* its vector
of weights, and all covariances of draws, of one grid or two, are exact scalar products. Increments
add up over grids; sample i of a path is bitwise the same in any batch.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import spectrum
from scipy.stats import norm
from strategies import f64
from support import assert_close, law_test

from sdekit.errors import ConfigError, DtypeError, ShapeError, TimeError
from sdekit.model import ExactScore
from sdekit.sampling import Brownian, EulerMaruyama, brownian, iterate, sample
from sdekit.sampling.noise import KeyedNoise
from sdekit.sde import VPSDE

X = torch.empty(3, 2, dtype=torch.float64)
FINE = f64([1.9, 1.25, 1.0, 0.9999, 0.73, 0.5, 0.4375, 0.3, 0.1, 0.02, 1e-3, 1e-6, 0.0])
COARSE = FINE[[0, 3, 4, 8, 11, 12]]


def lengths(times):
    """Of the rows, of the times as the source rounds them [(K,)]."""
    return -(times * 2**30).round().diff() / 2**30


def draws_of(source, rows, x=X):
    return torch.stack([source(x) for _ in range(rows)])


class _Basis:
    """Unit vectors in place of keyed normals: every (source, draw, part) has its coordinate."""

    def __init__(self, seed, *, first=0):
        self.seed, self.draw = seed, 0

    def __call__(self, x):
        out = torch.zeros_like(x)
        for part in range(x.shape[1]):
            place = self.seen.setdefault((self.seed, self.draw, part), len(self.seen))
            out[:, part, place] = 1.0
        self.draw += 1
        return out


@pytest.fixture
def weights(monkeypatch):
    """A function (times, ...) -> the weights of its draws [(draws, coordinates)]."""
    monkeypatch.setattr(_Basis, "seen", {}, raising=False)
    monkeypatch.setattr(brownian, "KeyedNoise", _Basis)

    def of(times, rows=None, **options):
        source = Brownian(5, times, **options)
        rows = rows or (len(times) - 1) * source.per_row
        return draws_of(source, rows, torch.empty(1, 1500, dtype=torch.float64))[:, 0]

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
    a, b = (weights(t) for t in (FINE, odd))
    assert_close(a @ a.T, torch.eye(len(FINE) - 1, dtype=torch.float64), tol=1e-12)
    assert_close(a @ b.T, overlap(*rounded), tol=1e-12)


def test_paths_of_a_row_are_independent(weights):
    """Draw n is of path n % per_row: two paths on one grid share nothing; path 0 is the first."""
    both = weights(COARSE, per_row=2)
    one = weights(COARSE)
    assert_close(both @ both.T, torch.eye(len(both), dtype=torch.float64), tol=1e-12)
    assert torch.equal(both[::2], one)


def test_other_seeds_have_other_paths():
    a, b = (Brownian(seed, COARSE)(X) for seed in (1, 2))
    assert not bool((a == b).any())


def test_normals_are_normal(alpha_budget):
    """The whole law of a draw: that of the keyed normals behind it."""
    z = Brownian(11, f64([0.8, 0.3]))(torch.empty(200_000, 1, dtype=torch.float64))
    assert law_test(z[:, 0], cdf=norm.cdf, alpha=alpha_budget.spend("brownian draws"))


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_increments_add_up(stride):
    """sum over fine rows of sqrt(h) z = sqrt(H) z of the coarse row."""
    coarse = FINE[::stride]
    fine = draws_of(Brownian(3, FINE), len(FINE) - 1)
    whole = draws_of(Brownian(3, coarse), len(coarse) - 1)
    parts = lengths(FINE).sqrt()[:, None, None] * fine
    parts = parts.unflatten(0, (-1, stride)).sum(1)
    assert_close(parts, lengths(coarse).sqrt()[:, None, None] * whole, tol=1e-12, scale=1)


def test_a_draw_depends_on_seed_sample_and_time_alone():
    """Bitwise: batches, `first`, other samples' number, and the rows asked for before."""
    rows = len(FINE) - 1
    for dims in [(), (1,), (3,), (2, 5)]:
        whole = draws_of(Brownian(9, FINE), rows, torch.empty(40, *dims, dtype=torch.float64))
        for low, high in [(0, 1), (0, 17), (5, 6), (16, 40), (39, 40)]:
            part = torch.empty(high - low, *dims, dtype=torch.float64)
            assert torch.equal(
                draws_of(Brownian(9, FINE, first=low), rows, part), whole[:, low:high]
            )
    source, order = Brownian(9, FINE), torch.randperm(rows, generator=torch.Generator())
    straight = draws_of(source, rows)
    for k in order.tolist():
        for _ in range(2):  # the second time up again, from the lower end of the row
            source.draw = k
            assert torch.equal(source(X), straight[k])
        assert torch.equal(source.at(k)(X), straight[k])
    assert source.at(3).draw == 3
    # a time belongs to no grid
    other = Brownian(9, f64([1.9, 1.1, 0.73, 0.5, 0.49, 0.0]))
    other.draw = 2
    assert torch.equal(other(X), straight[4])


def test_dtype_and_change_of_shape():
    narrow = Brownian(2, FINE)
    wide = Brownian(2, FINE)
    z = narrow(X.float())
    assert z.dtype == torch.float32
    assert torch.equal(z, wide(X).float())
    assert torch.equal(narrow(X[:1]), wide(X)[:1])  # another batch goes on with the next row


def test_memory_does_not_grow_with_the_grid():
    """Ten levels of eight: what is kept is one way down the tree."""
    times = torch.linspace(0.97, 0.013, 301, dtype=torch.float64)
    source = Brownian(1, times)
    kept = []
    for _ in range(300):
        source(X)
        kept.append(len(source._paths[0].way))
    assert max(kept) <= 11


def test_in_sample_and_iterate():
    """With one path a run on a finer grid is near; with independent noise it is not."""
    model = ExactScore(spectrum(), VPSDE())
    x = sample(model, (16, 4), sampler="ddim", steps=1, seed=0, dtype=torch.float64).x

    def run(steps, **noise):
        grid = torch.linspace(0.95, 0.05, steps + 1, dtype=torch.float64)
        noise = noise or {"noise": Brownian(4, grid)}
        return sample(model, (16, 4), sampler="euler_maruyama", grid=grid, x_init=x, **noise).x

    near = (run(256) - run(512)).square().mean().sqrt()
    far = (run(256, seed=1) - run(512, seed=2)).square().mean().sqrt()
    assert near < 0.05 * far
    grid = torch.linspace(0.95, 0.05, 33, dtype=torch.float64)
    frames = list(iterate(model, x, sampler="euler_maruyama", grid=grid, noise=Brownian(4, grid)))
    assert torch.equal(frames[-1].x, run(32))
    # the start is drawn by a seed beside it, and never by the path
    seeded = sample(
        model, (16, 4), sampler=EulerMaruyama(), grid=grid, seed=6, noise=Brownian(4, grid)
    )
    assert seeded.nfe == 32
    with pytest.raises(ConfigError, match="32 rows of 1 draws"):
        sample(model, (16, 4), sampler=EulerMaruyama(), grid=grid, noise=Brownian(4, grid))


def test_a_path_is_not_the_noise_of_the_same_seed():
    z = Brownian(3, f64([1.0, 0.0]))(X)
    assert not bool(torch.isin(z, KeyedNoise(3)(X)).any())


@pytest.mark.parametrize(
    ("times", "error", "said"),
    [
        (f64([0.5, 0.7]), TimeError, "times[0] = 0.5"),
        (f64([0.5, 0.5 - 1e-11]), TimeError, "2^-30"),
        (f64([0.5, -0.5]), TimeError, "times[1] = -0.5"),
        (f64([0.5, math.nan]), TimeError, "times[1] = nan"),
        (f64([0.5]), ShapeError, "(1,)"),
        ([0.5, 0.1], DtypeError, "torch.Tensor"),
    ],
)
def test_bad_times(times, error, said):
    with pytest.raises(error) as caught:
        Brownian(0, times)
    assert said in str(caught.value)


def test_bad_counts():
    with pytest.raises(ConfigError, match="per_row"):
        Brownian(0, FINE, per_row=0)
    with pytest.raises(ConfigError, match="first"):
        Brownian(0, FINE, first=-1)
    with pytest.raises(DtypeError, match="seed"):
        Brownian("one", FINE)
