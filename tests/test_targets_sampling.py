"""Draws follow the law they are drawn from, agree between dtypes, and use only their generator."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from support import law_test, mean_test, proportion_test, variance_test

from sdekit._catalogue import catalogue
from sdekit.errors import ConfigError, DeviceError, DtypeError
from sdekit.targets import Empirical, Gaussian, GaussianMixture, Moons, Tutorial

N = 100_000
EXAMPLES = [example for entry in catalogue("target").values() for example in entry.examples()]
every_target = pytest.mark.parametrize("law", EXAMPLES, ids=lambda t: repr(t)[:40])


@pytest.mark.parametrize("i", range(len(Gaussian.examples())))
def test_gaussian(i, generator, alpha_budget):
    """Along each eigenvector and one oblique direction, the whole marginal law is normal."""
    law = Gaussian.examples()[i]
    x = law.sample(N, generator=generator, dtype=torch.float64) - law.mean
    directions = [*torch.linalg.eigh(law.cov)[1].T, torch.ones(law.shape, dtype=torch.float64)]
    for j, direction in enumerate(directions):
        var = float(direction @ law.cov @ direction)
        alpha = alpha_budget.spend(f"targets gaussian {i} {j}", parts=3) / 3
        y = x @ direction
        assert mean_test(y, mean=0.0, std=math.sqrt(var), alpha=alpha)
        assert variance_test(y, var=var, alpha=alpha)
        assert law_test(y, cdf=stats.norm(0, math.sqrt(var)).cdf, alpha=alpha)


@pytest.mark.parametrize("i", range(len(GaussianMixture.examples())))
def test_mixture(i, generator, alpha_budget):
    """Each coordinate and one oblique direction follow the mixture of normal laws."""
    law = GaussianMixture.examples()[i].perturbed(0.8, 0.1)
    x = law.sample(N, generator=generator, dtype=torch.float64)
    eye = torch.eye(*law.shape * 2, dtype=torch.float64)
    for j, direction in enumerate([*eye, torch.ones(law.shape, dtype=torch.float64)]):
        means = (law.means @ direction).numpy()
        stds = torch.einsum("i,kij,j->k", direction, law.covs, direction).sqrt().numpy()
        parts = list(zip(law.weights.tolist(), means, stds, strict=True))

        def cdf(v, parts=parts):
            return sum(w * stats.norm(m, s).cdf(v) for w, m, s in parts)

        alpha = alpha_budget.spend(f"targets mixture {i} {j}")
        assert law_test(x @ direction, cdf=cdf, alpha=alpha)


def test_the_tutorial_has_its_weights(generator, alpha_budget):
    law = Tutorial()
    hits = int((law.component(law.sample(N, generator=generator)) == 1).sum())
    alpha = alpha_budget.spend("targets tutorial weight")
    p = float(0.8 * stats.norm.cdf((18 + math.log(4)) / math.sqrt(36 * 2)) + 0.2 * stats.norm.cdf(
        -(18 - math.log(4)) / math.sqrt(36 * 2)))  # fmt: skip
    assert proportion_test(hits, N, p=p, alpha=alpha)


def test_a_component_of_weight_zero_is_never_drawn(generator):
    law = GaussianMixture([0.0, 0.5, 0.0, 0.5, 0.0], [[float(i)] for i in range(5)], 0.0)
    assert set(law.sample(5000, generator=generator).flatten().tolist()) == {1.0, 3.0}


def test_data_are_drawn_with_replacement(generator, alpha_budget):
    law = Empirical(torch.arange(4.0).reshape(4, 1))
    x = law.sample(N, generator=generator).flatten()
    for i in range(4):
        alpha = alpha_budget.spend(f"targets data {i}")
        assert proportion_test(int((x == i).sum()), N, p=0.25, alpha=alpha)
    y = law.perturbed(0.5, 0.25).sample(N, generator=generator).flatten()
    alpha = alpha_budget.spend("targets smoothed data")
    assert law_test(
        y,
        cdf=lambda v: np.mean([stats.norm(0.5 * i, 0.5).cdf(v) for i in range(4)], 0),
        alpha=alpha,
    )


@every_target
def test_shape_dtype_and_reproducibility(law):
    def draw(n=100, seed=7, **options):
        return law.sample(n, generator=torch.Generator().manual_seed(seed), **options)

    x = draw(dtype=torch.float64)
    assert x.shape == (100, *law.shape)
    assert torch.equal(draw(dtype=torch.float64), x)
    assert not torch.equal(draw(seed=8, dtype=torch.float64), x)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(draw(dtype=dtype), x.to(dtype))
    assert draw().dtype == torch.float32
    assert draw(n=0).shape == (0, *law.shape)
    assert law.sample(3).shape == (3, *law.shape)
    assert torch.isfinite(x).all()


@every_target
def test_without_a_generator_streams_are_fresh_and_global_state_is_left(law):
    """The state itself is watched by the suite's own guard."""
    assert not torch.equal(law.sample(20), law.sample(20))


@every_target
def test_bad_arguments(law):
    for n, error in ((-1, ConfigError), (2.0, DtypeError), (True, DtypeError), ("3", DtypeError)):
        with pytest.raises(error, match="n must"):
            law.sample(n)
    for dtype in (torch.int64, torch.complex64, "float32"):
        with pytest.raises(DtypeError, match="dtype"):
            law.sample(1, dtype=dtype)
    for generator in (0, np.random.default_rng(0)):
        with pytest.raises(DtypeError, match="generator"):
            law.sample(1, generator=generator)
    with pytest.raises(DeviceError, match="generator is on cpu"):
        law.sample(1, generator=torch.Generator(), device="meta")
    with pytest.raises(DeviceError, match="no generator"):
        law.sample(1, device="meta")


def test_own_dtype_is_float64_where_a_parameter_is():
    double = torch.zeros(2, dtype=torch.float64)
    assert Gaussian(double, 1.0).sample(1).dtype == torch.float64
    assert Gaussian(double, 1.0).perturbed(0.5, 1.0).sample(1).dtype == torch.float64
    assert Gaussian(double.float(), 1.0).sample(1).dtype == torch.float32
    assert GaussianMixture([1.0], double[None], 1.0).sample(1).dtype == torch.float64
    assert Empirical(double[None]).sample(1).dtype == torch.float64
    assert Moons().sample(1).dtype == torch.float32
