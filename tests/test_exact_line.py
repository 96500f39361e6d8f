"""Claim: a `Law1D` holds a law on a line to better than 1e-7, and its distances are exact.

Against closed forms for Gaussians, against quantiles and densities of mixtures by mpmath and
SciPy, and by the identities that hold for any law.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from strategies import f64

from sdekit import Gaussian, make
from sdekit.errors import DtypeError, NotAffine, ShapeError
from sdekit.exact import Law1D, bures_wasserstein, kl_divergence, total_variation
from sdekit.targets import GaussianMixture

TWO = GaussianMixture(f64([0.2, 0.8]), f64([[3.0], [-3.0]]), 1.0)
MOVED = GaussianMixture(f64([0.4, 0.6]), f64([[3.0], [-3.0]]), 1.0)
NARROW = GaussianMixture(f64([0.3, 0.7]), f64([[-2.0], [1.0]]), f64([1e-4, 4e-2]))


def cdf(law: GaussianMixture, x: float) -> float:
    return sum(
        float(w) * stats.norm.cdf(x, float(m), math.sqrt(float(v)))
        for w, m, v in zip(law.weights, law.means, law.covs, strict=True)
    )


def test_a_mixture_and_its_quantiles():
    for law in (TWO, NARROW):
        table = Law1D.of(law)
        assert table.mean == pytest.approx(float(law.mean), abs=1e-9)
        assert table.var == pytest.approx(float(law.cov), rel=1e-8)
        u = np.array([1e-6, 0.05, 0.2, 0.3, 0.5, 0.9, 1 - 1e-6])
        x = table.quantile(u)
        for level, at in zip(u, x, strict=True):
            assert cdf(law, at) == pytest.approx(level, abs=1e-9)
            assert float(table.distribution(np.array([at]))[0]) == pytest.approx(level, abs=1e-12)
        inside = np.array([-3.3, -2.0, 0.7, 1.2, 3.1])
        true = law.log_prob(torch.from_numpy(inside)[:, None]).exp().numpy()
        assert np.abs(table.density(inside) - true).max() < 1e-5 * true.max()


@settings(max_examples=40)
@given(st.floats(-2, 2), st.floats(-1, 1), st.floats(-1, 1))
def test_gaussians_in_closed_form(shift, log_a, log_b):
    p, q = Gaussian(f64([shift]), 10**log_a), Gaussian(f64([0.0]), 10**log_b)
    left, right = Law1D.of(p), Law1D.of(q)
    assert left.wasserstein(right) == pytest.approx(bures_wasserstein(p, q), rel=1e-7, abs=1e-9)
    # the tails of a narrow q are those of its parabola
    assert left.kl(right) == pytest.approx(kl_divergence(p, q), rel=1e-5, abs=1e-6)
    assert left.total_variation(right) == pytest.approx(total_variation(p, q), abs=1e-6)


@pytest.mark.slow
def test_mixtures_that_differ_in_weights():
    """W2 by brute quadrature in u with SciPy's root finder; KL and TV by quadrature in x."""
    p, q = Law1D.of(TWO), Law1D.of(MOVED)

    def quantile(law, u):
        return optimize.brentq(lambda x: cdf(law, x) - u, -12, 12, xtol=1e-13)

    # both quantiles leap where their law has a gap: levels 0.6 to 0.8 travel the whole way
    edges = [1e-12, 1e-6, 1e-3, 0.1, 0.5, 0.59, 0.599, 0.6, 0.601, 0.61, 0.7, 0.79, 0.799, 0.8,
             0.801, 0.81, 0.9, 0.999, 1 - 1e-6, 1 - 1e-12]  # fmt: skip
    true = sum(
        integrate.quad(lambda u: (quantile(TWO, u) - quantile(MOVED, u)) ** 2, a, b, limit=100)[0]
        for a, b in itertools.pairwise(edges)
    )
    assert p.wasserstein(q) == pytest.approx(math.sqrt(true), rel=1e-6)

    def densities(x):
        point = torch.tensor([[x]], dtype=torch.float64)
        return float(TWO.log_prob(point).exp()), float(MOVED.log_prob(point).exp())

    def integral(f):
        parts = [-12.0, -3.0, 0.0, 0.2, 3.0, 12.0]
        return sum(
            integrate.quad(lambda x: f(*densities(x)), a, b, limit=200)[0]
            for a, b in itertools.pairwise(parts)
        )

    assert p.kl(q) == pytest.approx(integral(lambda a, b: a * math.log(a / b)), abs=1e-7)
    assert p.total_variation(q) == pytest.approx(integral(lambda a, b: abs(a - b)) / 2, abs=1e-6)


def test_small_distances_keep_their_digits():
    p, q = Law1D.of(Gaussian(f64([1e-7]), 1.0)), Law1D.of(Gaussian(f64([0.0]), 1.0))
    assert p.wasserstein(q) == pytest.approx(1e-7, rel=1e-6)
    assert p.kl(q) < 1e-10


def test_weights_of_modes():
    """The mass where a component is the likeliest, not the component's own weight."""
    edge = math.log(4) / 6  # where 0.2 N(x; 3, 1) = 0.8 N(x; -3, 1)
    found = Law1D.of(TWO).weights(TWO)
    assert float(found[1]) == pytest.approx(cdf(TWO, edge), abs=1e-9)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)
    # a wide component beside and below a narrow one owns both sides of it
    nested = GaussianMixture(f64([0.5, 0.5]), f64([[0.0], [0.0]]), f64([0.01, 4.0]))
    inner = optimize.brentq(
        lambda x: stats.norm.logpdf(x, 0, 0.1) - stats.norm.logpdf(x, 0, 2.0), 0.1, 1.0
    )
    own = Law1D.of(nested).weights(nested)
    assert float(own[0]) == pytest.approx(cdf(nested, inner) - cdf(nested, -inner), abs=1e-9)
    # one that is the likeliest nowhere has nothing
    hidden = GaussianMixture(f64([0.01, 0.99]), f64([[0.0], [0.1]]), 1.0)
    assert float(Law1D.of(hidden).weights(hidden)[1]) > 0.999


def test_across_a_line():
    """The tutorial's mixture is one mixture along (1, 1), times N(0, 1) beside it."""
    law = make("target", "tutorial")
    table = Law1D.of(law)
    assert table.mean == pytest.approx(-1.8 * math.sqrt(2), abs=1e-9)
    assert table.across.cov.tolist() == [[pytest.approx(1.0)]]
    wide = law.perturbed(1.0, 0.5)
    found = Law1D.of(wide, along=law)
    along = Law1D.of(GaussianMixture(f64([0.2, 0.8]), f64([[18**0.5], [-(18**0.5)]]), 1.5))
    only = Law1D.of(GaussianMixture(f64([0.2, 0.8]), f64([[18**0.5], [-(18**0.5)]]), 1.0))
    beside = Gaussian(f64([0.0]), 1.5), Gaussian(f64([0.0]), 1.0)
    assert found.wasserstein(table) == pytest.approx(
        math.hypot(along.wasserstein(only), bures_wasserstein(*beside)), rel=1e-9
    )
    assert found.kl(table) == pytest.approx(along.kl(only) + kl_divergence(*beside), rel=1e-6)
    # TV in the plane, by brute quadrature of |p - q|
    x = torch.linspace(-11, 11, 900, dtype=torch.float64)
    points = torch.cartesian_prod(x, x)
    gap = (wide.log_prob(points).exp() - law.log_prob(points).exp()).abs()
    true = 0.5 * float(gap.sum()) * float(x[1] - x[0]) ** 2
    assert found.total_variation(table) == pytest.approx(true, abs=2e-6)


def test_total_variation_across_more_dimensions():
    """Isotropic laws beside the line: the radius alone matters. Against Gaussians' own formula."""
    for d in (2, 3, 6):
        zero = torch.zeros(d, dtype=torch.float64)
        p, q = Gaussian(zero, 1.0), Gaussian(zero, 1.6)
        found = Law1D.of(p, along=q).total_variation(Law1D.of(q))
        assert found == pytest.approx(total_variation(p, q), abs=2e-6)


@pytest.mark.parametrize(
    "law",
    [
        GaussianMixture(f64([0.3, 0.3, 0.4]), f64([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 1.0),
        GaussianMixture(f64([0.5, 0.5]), f64([[0.0, 0.0], [1.0, 0.0]]), f64([1.0, 2.0])),
        GaussianMixture(
            f64([0.5, 0.5]), f64([[0.0, 0.0], [2.0, 0.0]]), f64([[[1.0, 0.5], [0.5, 1.0]]] * 2)
        ),
    ],
    ids=["triangle", "unlike-across", "correlated"],
)
def test_what_lies_along_no_line(law):
    with pytest.raises(NotAffine, match="line"):
        Law1D.of(law)


def test_lines_in_any_direction():
    """Unlike variances along the line are fine, in three dimensions and any order."""
    along = f64([1.0, -2.0, 2.0]) / 3
    means = f64([[1.0, 1.0, 1.0]]) + f64([[0.0], [2.5], [-1.0]]) * along
    spread = torch.eye(3, dtype=torch.float64) * 0.5
    covs = torch.stack([spread + c * torch.outer(along, along) for c in (0.0, 0.7, 3.0)])
    law = GaussianMixture(f64([0.5, 0.2, 0.3]), means, covs)
    table = Law1D.of(law)
    sign = 1.0 if table.mean * float(law.mean @ along) > 0 else -1.0
    assert table.mean == pytest.approx(sign * float(law.mean @ along), abs=1e-9)
    assert table.var == pytest.approx(float(along @ law.cov @ along), rel=1e-8)
    assert table.across.cov.diagonal().tolist() == pytest.approx([0.5, 0.5])
    assert float(table.weights(law).sum()) == pytest.approx(1.0)


def test_atoms_have_no_table():
    for law in (
        Gaussian(f64([1.0]), 0.0),
        GaussianMixture(f64([0.3, 0.7]), f64([[1.0], [-1.0]]), f64([0.0, 1.0])),
    ):
        with pytest.raises(NotAffine, match="atom"):
            Law1D.of(law)
    unused = GaussianMixture(f64([0.0, 1.0]), f64([[1.0], [-1.0]]), f64([0.0, 1.0]))
    assert Law1D.of(unused).mean == pytest.approx(-1.0)


def test_bad_arguments():
    line, plane = Law1D.of(TWO), Law1D.of(make("target", "tutorial"))
    with pytest.raises(DtypeError, match="Law1D"):
        line.wasserstein(TWO)
    with pytest.raises(ShapeError, match="across"):
        line.kl(plane)
    with pytest.raises(NotAffine, match=r"mixture|Mixture"):
        Law1D.of(make("target", "moons"))
