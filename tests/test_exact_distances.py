"""Claim: distances of Gaussians are their closed forms, close pairs and singular ones included.

Against the textbook trace formula in 50 digits, quadrature of the definitions, and identities:
symmetry, invariance under rotations, Pinsker's inequality.
"""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from strategies import f64

from sdekit import Gaussian
from sdekit.errors import DtypeError, ShapeError
from sdekit.exact import bures_wasserstein, compare, kl_divergence, total_variation


def random_cov(seed: int, d: int, least: float = 0.01) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return root @ root.T + least * torch.eye(d, dtype=torch.float64)


def random_law(seed: int, d: int) -> Gaussian:
    generator = torch.Generator().manual_seed(seed + 1000)
    return Gaussian(torch.randn(d, generator=generator, dtype=torch.float64), random_cov(seed, d))


def textbook(p: Gaussian, q: Gaussian) -> tuple[float, float]:
    """W2 by the trace formula and KL by determinants, in 50 digits."""
    with mpmath.workdps(50):
        a, b = (mpmath.matrix(law.cov.tolist()) for law in (p, q))
        shift = mpmath.matrix((p.mean - q.mean).tolist())
        root = mpmath.sqrtm(a)
        trace = sum((a + b - 2 * mpmath.sqrtm(root * b * root))[i, i] for i in range(a.rows))
        w2 = mpmath.sqrt((shift.T * shift)[0] + trace)
        inverse = b**-1
        kl = sum((inverse * a)[i, i] for i in range(a.rows)) - a.rows
        kl += (shift.T * inverse * shift)[0] + mpmath.log(mpmath.det(b) / mpmath.det(a))
        return float(mpmath.re(w2)), float(kl / 2)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_full_covariances(d, seed):
    p, q = random_law(seed, d), random_law(seed + 100, d)
    w2, kl = textbook(p, q)
    assert bures_wasserstein(p, q) == pytest.approx(w2, rel=1e-10)
    assert kl_divergence(p, q) == pytest.approx(kl, rel=1e-10)


def test_close_laws_keep_their_digits():
    """The trace formula in float64 would give 0 or 1e-8 here."""
    p = random_law(1, 3)
    bent = p.cov.clone()
    bent[0, 1] += 1e-9
    bent[1, 0] += 1e-9
    bent[2, 2] += 3e-9
    q = Gaussian(p.mean, bent)
    w2, kl = textbook(p, q)
    assert bures_wasserstein(p, q) == pytest.approx(w2, rel=1e-5)
    assert kl_divergence(p, q) == pytest.approx(kl, rel=1e-4, abs=1e-18)


@given(
    st.lists(st.floats(-3, 1), min_size=2, max_size=5),
    st.lists(st.floats(-3, 1), min_size=5, max_size=5),
    st.floats(-2, 2),
)
def test_one_basis(left, right, shift):
    """Commuting laws, given as spectra, as matrices, and turned: one number each."""
    d = len(left)
    a, b = 10.0 ** f64(left), 10.0 ** f64(right[:d])
    mean = f64([shift] + [0.0] * (d - 1))
    zero = torch.zeros(d, dtype=torch.float64)
    p, q = Gaussian.from_spectrum(mean, a), Gaussian.from_spectrum(zero, b)
    basis = torch.linalg.qr(random_cov(7, d))[0]
    turned = [Gaussian.from_spectrum(basis @ m, v, basis) for m, v in ((mean, a), (zero, b))]
    w2 = math.sqrt(shift**2 + float((a.sqrt() - b.sqrt()).square().sum()))
    ratio = a / b
    kl = 0.5 * (float((ratio - 1 - ratio.log()).sum()) + shift**2 / float(b[0]))
    for pair in ((p, q), (Gaussian(mean, a.diag()), Gaussian(zero, b.diag())), turned):
        assert bures_wasserstein(*pair) == pytest.approx(w2, rel=1e-9, abs=1e-12)
        assert kl_divergence(*pair) == pytest.approx(kl, rel=1e-7, abs=1e-12)
        found = compare(*pair)
        assert found.commute
        assert float(found.spectrum.square().sum()) ** 0.5 == pytest.approx(
            w2, rel=1e-9, abs=1e-12
        )


@pytest.mark.parametrize(
    ("shift", "a", "b"), [(0.7, 1.0, 1.0), (0.0, 2.0, 0.5), (1.3, 0.2, 3.0), (-2.0, 4.0, 3.9)]
)
def test_total_variation_on_a_line(shift, a, b):
    p, q = stats.norm(shift, math.sqrt(a)), stats.norm(0.0, math.sqrt(b))
    edges = [-30.0, -3.0, -1.0, -0.3, 0.0, 0.3, 1.0, 3.0, 30.0]
    true = sum(
        integrate.quad(lambda x: abs(p.pdf(x) - q.pdf(x)), low, high, limit=200)[0]
        for low, high in itertools.pairwise(edges)
    )
    found = total_variation(Gaussian(f64([shift]), a), Gaussian(f64([0.0]), b))
    assert found == pytest.approx(true / 2, abs=1e-7)
    # the same line inside a plane, and a plane whose other coordinate agrees
    other = Gaussian(f64([shift, 5.0]), f64([[a, 0.0], [0.0, 7.0]]))
    assert total_variation(other, Gaussian(f64([0.0, 5.0]), f64([[b, 0.0], [0.0, 7.0]]))) == found


def test_total_variation_of_isotropic_laws():
    """Two discs: where they cross, p = q, is a circle; against polar quadrature."""
    p, q = (Gaussian(f64([1.0, 2.0]), v) for v in (1.0, 2.5))

    def ring(r):
        return abs(math.exp(-(r**2) / 2) - math.exp(-(r**2) / 5) / 2.5) * r

    true = 0.5 * integrate.quad(ring, 0, 40, limit=500, points=[1.0, 2.0, 3.0])[0]
    assert total_variation(p, q) == pytest.approx(true, abs=1e-8)
    assert total_variation(p, Gaussian(f64([1.0, 2.5]), 2.5)) is None  # no closed form


@pytest.mark.parametrize("seed", range(6))
def test_inequalities(seed):
    """Symmetry, the triangle, Pinsker, and nothing negative."""
    p, q, r = (random_law(seed + k, 3) for k in (0, 50, 90))
    assert bures_wasserstein(p, q) == pytest.approx(bures_wasserstein(q, p), rel=1e-10)
    assert bures_wasserstein(p, r) <= bures_wasserstein(p, q) + bures_wasserstein(q, r) + 1e-12
    one, two = Gaussian(p.mean[:1], p.cov[:1, :1]), Gaussian(q.mean[:1], q.cov[:1, :1])
    tv = total_variation(one, two)
    assert 0 <= tv <= min(1.0, math.sqrt(kl_divergence(one, two) / 2)) + 1e-12
    assert bures_wasserstein(p, p) < 1e-14
    assert abs(kl_divergence(p, p)) < 1e-14


def test_singular_laws():
    point, line = (
        Gaussian(f64([0.0, 0.0]), 0.0),
        Gaussian(f64([0.0, 0.0]), f64([[1.0, 0.0], [0.0, 0.0]])),
    )
    full = Gaussian(f64([0.0, 0.0]), 1.0)
    assert bures_wasserstein(point, full) == pytest.approx(math.sqrt(2))
    assert kl_divergence(line, full) == kl_divergence(full, line) == math.inf
    assert kl_divergence(line, Gaussian(f64([1.0, 0.0]), f64([[1.0, 0.0], [0.0, 0.0]]))) == 0.5
    assert total_variation(point, full) == 1.0


@pytest.mark.parametrize("var", [1e-8, 1e-15, 1e-16, 1e-17, 1e-30])
def test_tiny_variances(var):
    """r - 1 - log r with r far from 1: no digits are lost, and nothing becomes infinite."""
    p, q = Gaussian(f64([0.0]), var), Gaussian(f64([0.0]), 1.0)
    assert kl_divergence(p, q) == pytest.approx(0.5 * (var - 1 - math.log(var)), rel=1e-12)
    wide, far = Gaussian(f64([0.0]), 1e-12), Gaussian(f64([3.0]), 1e12)
    true = 0.5 * (1e-24 - 1 + math.log(1e24) + 9e-12)
    assert kl_divergence(wide, far) == pytest.approx(true, rel=1e-12)
    turned = random_law(5, 2)
    thin = Gaussian(turned.mean, 1e-14 * random_cov(8, 2))
    assert kl_divergence(thin, turned) == pytest.approx(textbook(thin, turned)[1], rel=1e-9)


def test_one_singular_support():
    """Two laws on one plane in space, whose covariances do not commute there."""
    plane = torch.linalg.qr(random_cov(4, 3))[0][:, :2]
    inner = [random_cov(seed, 2) for seed in (1, 2)]
    means = [f64([0.3, -0.2]), f64([0.0, 0.5])]
    laws = [Gaussian(plane @ m, plane @ c @ plane.T) for m, c in zip(means, inner, strict=True)]
    true = kl_divergence(Gaussian(means[0], inner[0]), Gaussian(means[1], inner[1]))
    assert kl_divergence(*laws) == pytest.approx(true, rel=1e-8)
    lifted = Gaussian(laws[0].mean + torch.linalg.qr(random_cov(4, 3))[0][:, 2], laws[0].cov)
    assert kl_divergence(lifted, laws[1]) == math.inf
    assert kl_divergence(random_law(3, 3), laws[1]) == math.inf
    assert kl_divergence(laws[1], random_law(3, 3)) == math.inf


def test_the_worst_variance_is_named():
    p = Gaussian.from_spectrum(f64([0.0, 0.0, 0.0]), f64([1.0, 0.02, 9.0]))
    q = Gaussian.from_spectrum(f64([0.0, 0.0, 0.0]), f64([1.1, 0.01, 9.5]))
    found = compare(p, q)
    assert found.worst.variance == 0.01
    assert found.worst.relative == pytest.approx(math.sqrt(2) - 1)
    assert "variance 0.01" in str(found)
    crossed = compare(random_law(3, 2), random_law(9, 2))
    assert not crossed.commute
    assert crossed.worst is None
    assert "commute" in str(crossed)


def test_bad_arguments():
    law = Gaussian(f64([0.0]), 1.0)
    with pytest.raises(DtypeError, match="q must be a Gaussian"):
        bures_wasserstein(law, 3.0)
    with pytest.raises(ShapeError, match="dimension"):
        kl_divergence(law, Gaussian(f64([0.0, 0.0]), 1.0))
