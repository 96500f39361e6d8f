"""Claim: moments are integrals, and weights integrate polynomials through any nodes exactly."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp, mpf

from sdekit.sampling.integrals import Levels, Semilinear, moments, ramp, weights
from sdekit.sde import VESDE, VPSDE

CS = np.array([-30.0, -1.0001, -0.9999, -1e-3, -1e-9, 1e-9, 0.3, 0.9999, 1.0001, 7.0, 40.0])


@pytest.mark.parametrize("k", range(5))
def test_moments_are_integrals(k):
    """mu_k(c) = c int_0^1 e^(-c (1 - r)) r^k dr, to fifty digits."""
    found = moments(CS, 5)[:, k]
    with mp.workdps(50):
        for c, value in zip(CS, found, strict=True):
            exact = mpf(c) * mp.quad(
                lambda r, c=c: mp.exp(-mpf(c) * (1 - r)) * r**k, mp.linspace(0, 1, 9)
            )
            assert abs(float((mpf(float(value)) - exact) / exact)) < 3e-13


def test_moments_do_not_depend_on_the_other_rows():
    whole = moments(CS, 4)
    for k in range(len(CS)):
        assert np.array_equal(moments(CS[k : k + 1], 4), whole[k : k + 1])
    assert np.array_equal(moments(CS.reshape(1, -1), 4)[0], whole)


def test_weights_reproduce_the_moments():
    """sum_j w_j r_j^k = mu_k for k below the order of the row; later nodes have no weight."""
    random = np.random.default_rng(0)
    nodes = np.cumsum(random.uniform(0.3, 2.0, (60, 5)), axis=1) * random.choice([-1.0, 1.0])
    mu, order = random.normal(size=(60, 5)), np.arange(60) % 5 + 1
    nodes[3::5, 4] = nodes[3::5, 0]  # a node that is not used may be anything
    found = weights(nodes, mu, order)
    for r, m, p, w in zip(nodes, mu, order, found, strict=True):
        sums = (w[:p] * r[:p] ** np.arange(p)[:, None]).sum(1)
        scale = (np.abs(w[:p]) * np.abs(r[:p]) ** np.arange(p)[:, None]).sum(1)
        assert np.all(np.abs(sums - m[:p]) <= 1e-12 * (scale + np.abs(m[:p])))
        assert not w[p:].any()
    stacked = weights(nodes.reshape(6, 10, 5), mu.reshape(6, 10, 5), order.reshape(6, 10))
    assert np.array_equal(stacked.reshape(60, 5), found)


def test_two_nodes_that_are_one_have_no_finite_weights():
    with np.errstate(all="ignore"):
        assert not np.isfinite(weights(np.zeros((1, 2)), np.ones((1, 2)), np.array([2]))).all()


def test_orders_rise_and_fall():
    assert ramp(7, 3, 1, 0).tolist() == [1, 2, 3, 3, 3, 2, 1]
    assert ramp(4, 3, None, 5).tolist() == [1, 2, 2, 1]
    assert ramp(5, 3, None, 5).tolist() == [1, 2, 3, 3, 3]


@pytest.mark.parametrize("prediction", ["x0", "eps"])
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=["vp", "ve"])
def test_constant_predictions_are_exact(sde, eta, prediction):
    """Of eqs. (3) and (4) the marginals of a point and of one noise follow, at any length of step.

    With x_0 held, alpha_s x_0 comes out of alpha_t x_0; with eps held and eta = 0, so does sigma.
    The variance that is kept and the one that is added make sigma_s^2.
    """
    at, to = Levels(sde, np.array([0.9, 0.6])), Levels(sde, np.array([0.5, 0.59]))
    row = Semilinear(prediction, eta).row(at, to, np.zeros((2, 1)), np.ones(2, dtype=int))
    x, w, std = row["x"], row["w"][:, 0], row["std"]
    if prediction == "x0":
        np.testing.assert_allclose(x * at.alpha + w, to.alpha, rtol=1e-12)
        np.testing.assert_allclose((x * at.sigma) ** 2 + std**2, to.sigma**2, rtol=1e-12)
    else:
        np.testing.assert_allclose(x * at.alpha, to.alpha, rtol=1e-12)
        if eta == 0:
            np.testing.assert_allclose(x * at.sigma + w, to.sigma, rtol=1e-12)
        else:
            h = to.l - at.l
            np.testing.assert_allclose(std**2, (eta * to.sigma) ** 2 * np.expm1(2 * h), rtol=1e-12)
