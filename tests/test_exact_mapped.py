"""Claim: `mapped_law` is the law of f(x) for anybody's deterministic f on the line.

Against closed forms: an affine map, a cubic, a fold. And against `output_law_1d` of sdekit's own
samplers, whose map it is given as a mere function.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special

from sdekit import VPSDE, ExactScore, Gaussian, GaussianMixture, make
from sdekit.errors import NonFiniteError, NotAffine, ShapeError
from sdekit.exact import Law1D, mapped_law, output_law_1d
from sdekit.sampling import iterate

NORMAL = Gaussian([0.0], 1.0)
DATA = GaussianMixture([0.2, 0.8], [[3.0], [-3.0]], 1.0)
X = np.linspace(-4, 4, 41)


def test_an_affine_map_of_a_mixture_is_a_mixture():
    found = mapped_law(lambda x: 1 - 2 * x, DATA)
    truth = Law1D.of(GaussianMixture([0.2, 0.8], [[-5.0], [7.0]], 4.0))
    assert found.wasserstein(truth) < 1e-6
    assert np.abs(found.distribution(X) - truth.distribution(X)).max() < 1e-8


def test_a_steep_map_has_its_mass_where_it_belongs():
    """Two modes made of one: y = x + 6 tanh(400 (x - 0.3)); the divide is at 0.3."""
    found = mapped_law(lambda x: x + 6 * torch.tanh(400 * (x - 0.3)), NORMAL)
    assert abs(found.probability(-20.0, 0.3) - special.ndtr(0.3)) < 1e-6


def test_a_cubic_and_a_fold():
    cubic = mapped_law(lambda x: x**3 + 0.1 * x, NORMAL)
    assert np.abs(cubic.distribution(X**3 + 0.1 * X) - special.ndtr(X)).max() < 1e-6
    folded = mapped_law(torch.abs, NORMAL)
    at = np.linspace(0.05, 3, 30)
    assert np.abs(folded.distribution(at) - (2 * special.ndtr(at) - 1)).max() < 2e-3


@pytest.mark.parametrize("sampler", ["ddim", "heun", "euler_maruyama(eta=0)"])
def test_our_own_samplers_from_outside(sampler):
    model = ExactScore(DATA, VPSDE())
    grid = torch.linspace(1, 1e-3, 11, dtype=torch.float64)

    def run(x):
        with torch.no_grad():
            *_, last = iterate(model, x, sampler=make("sampler", sampler), grid=grid)
        return last.x

    found, inside = mapped_law(run, NORMAL), output_law_1d(sampler, model, grid=grid)
    assert found.wasserstein(inside) < 1e-5
    assert float((found.weights(DATA) - inside.weights(DATA)).abs().max()) < 1e-7


@pytest.mark.parametrize(
    ("f", "error", "said"),
    [
        (lambda x: x + torch.randn_like(x), NotAffine, "without noise"),
        (lambda x: x[:, 0], ShapeError, "f\\(x\\)"),
        (lambda x: x * math.nan, NonFiniteError, "finite"),
    ],
)
@pytest.mark.touches_global_rng
def test_refused(f, error, said):
    with pytest.raises(error, match=said):
        mapped_law(f, NORMAL)
