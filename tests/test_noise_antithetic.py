"""Claim: `Antithetic` gives sample 2i + 1 minus the noise of sample 2i, in any batch and chunk.

So the mean over pairs loses all noise of an affine sampler. `shifted` makes any source of sdekit
that a user passes give sample i the same noise whatever the chunk.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import spectrum, two_modes
from scipy.stats import norm
from strategies import f64
from support import assert_close, law_test

from sdekit.errors import ConfigError, DtypeError
from sdekit.model import ExactScore
from sdekit.sampling import Antithetic, Brownian, sample
from sdekit.sampling.noise import KeyedNoise, Zero
from sdekit.sde import VPSDE

SOURCES = {"keyed": KeyedNoise, "antithetic": Antithetic, "brownian": Brownian}
every_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)


@pytest.mark.parametrize("dims", [(), (1,), (3,), (2, 5)])
@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_pairs(n, dims):
    x = torch.empty(n, *dims)
    for source in (Antithetic(7), Antithetic(7).at(2)):
        z = source(x)
        assert z.shape == x.shape
        assert torch.equal(z[1::2], -z[: n // 2 * 2 : 2])
    keyed = KeyedNoise(7)(torch.empty((n + 1) // 2, *dims))
    assert torch.equal(Antithetic(7)(x)[::2], keyed)


def test_a_sample_is_the_same_in_any_batch():
    """Bitwise, pairs cut in the middle too, and draw after draw."""
    whole = Antithetic(9)
    z = torch.stack([whole(torch.empty(41, 3)) for _ in range(4)])
    for low, high in [(0, 1), (1, 2), (1, 18), (5, 41), (40, 41), (7, 7)]:
        for part in (
            Antithetic(9, first=low),
            Antithetic(9, first=low // 3).shifted(low - low // 3),
        ):
            for k in range(4):
                assert torch.equal(part(torch.empty(high - low, 3)), z[k, low:high])
            assert torch.equal(part.at(2)(torch.empty(high - low, 3)), z[2, low:high])
    assert whole.draw == 4
    assert torch.equal(whole.at(1).shifted(3)(torch.empty(5, 3)), z[1, 3:8])


def test_dtype():
    x = torch.empty(5, 2, dtype=torch.float64)
    assert torch.equal(Antithetic(1)(x), Antithetic(1)(x.float()).double())


def test_each_is_normal(alpha_budget):
    z = Antithetic(11)(torch.empty(200_000, 1))[1::2, 0]
    assert law_test(z, cdf=norm.cdf, alpha=alpha_budget.spend("antithetic draws"))


def test_the_mean_of_a_pair_has_no_noise():
    """On Gaussian data an ancestral run is affine: each pair's mean is the run without noise."""
    model, how = ExactScore(spectrum(), VPSDE()), dict(sampler="ancestral", steps=20)
    x = torch.zeros(6, 4, dtype=torch.float64)
    out = sample(model, (6, 4), x_init=x, noise=Antithetic(3), **how).x
    still = sample(model, (6, 4), x_init=x, noise=Zero(), **how).x
    assert float((out - still).abs().min()) > 1e-3
    assert_close((out[::2] + out[1::2]) / 2, still[::2], tol=1e-6, scale=1.0)


@every_source
@pytest.mark.parametrize("sampler", ["ancestral", "heun(churn=4.0)", "predictor_corrector"])
def test_chunks(source, sampler):
    """A source that is passed gives the same samples in any chunk, and again."""
    model, noise = ExactScore(two_modes(), VPSDE()), source(5)
    how = dict(sampler=sampler, steps=4, noise=noise)
    for more in ({}, {"seed": 3}):
        whole = sample(model, (23, 2), **how, **more).x
        for chunk in (1, 4, 7, 23):
            assert torch.equal(sample(model, (23, 2), chunk=chunk, **how, **more).x, whole)
    bare = f64([[0.0, 0.0]]).expand(3, 2)
    part = sample(model, (3, 2), x_init=bare, **how).x
    assert not torch.equal(part[0], part[1])


@every_source
def test_shifts_add_up(source):
    a, b = source(2, first=5).shifted(3).shifted(4), source(2, first=12)
    assert torch.equal(a(torch.empty(3, 2)), b(torch.empty(3, 2)))


def test_bad_arguments():
    with pytest.raises(ConfigError, match="first"):
        Antithetic(0, first=-1)
    with pytest.raises(DtypeError, match="seed"):
        Antithetic(0.5)
