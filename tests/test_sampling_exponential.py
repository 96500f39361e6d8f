"""Claim: ExponentialEuler solves the reverse SDE exactly wherever the score is constant.

So the law of its output does not depend on the grid there, its coefficients are the integrals that
the module states (closed forms, and quadrature in time of f and g^2), and on Gaussian data it has
the error that Pierret and Galerne's scheme of that name has.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import Given, entries, probe
from scipy.integrate import quad
from strategies import f64
from support import assert_close

from sdekit.model import ExactScore
from sdekit.sampling import ExponentialEuler, sample
from sdekit.sampling.exponential import _mean_alpha
from sdekit.sampling.grid import resolve_grid
from sdekit.sampling.noise import Zero
from sdekit.sde import DDPM, VPSDE, FlowSDE, LinearSDE, SubVPSDE
from sdekit.targets import Gaussian

SDES = entries("sde")
LONG = {key: sde for key, sde in SDES.items() if sde.default_steps >= 10}  # not a chain of one


def columns(sde, grid):
    """The weights of x and of the score, and the noise [(K,) each]."""
    found = ExponentialEuler().coefficients(sde, grid)
    return found["mean"].x, found["mean"].score, found["std"]


@pytest.mark.parametrize("sde", LONG.values(), ids=LONG)
def test_with_a_constant_score_any_grid_gives_the_same_law(sde):
    """The weights of x_T, of the score and of the noise, composed over a grid."""
    on_data = float(sde.var(sde.t_min)) == 0  # where no noise is added: leave that row out
    start = float(resolve_grid("uniform", sde, 10)[-2]) if on_data else sde.t_min
    whole = [float(c[0]) for c in columns(sde, f64([sde.t_max, start]))]
    for n in (2, 5, 9):
        grid = sde.align(torch.linspace(sde.t_max, start, n + 1, dtype=torch.float64), keep=True)
        x, score, var = 1.0, 0.0, 0.0
        for a, b, std in zip(*(c.tolist() for c in columns(sde, grid)), strict=True):
            x, score, var = x * a, score * a + b, var * a * a + std * std
        assert_close(f64([x, score, var**0.5]) / f64(whole), f64([1.0, 1.0, 1.0]), tol=1e-11)


@pytest.mark.parametrize("name", ["vp-0", "sub_vp-0", "ve-0", "cosine-0", "edm-0", "flow-0"])
def test_coefficients_are_integrals_of_f_and_g2(name):
    """SciPy's quadrature in time, which shares nothing with the sum in the log-SNR."""
    sde = SDES[name]
    t, s = 0.7, 0.4
    scale, score, std = (float(c[0]) for c in columns(sde, f64([t, s])))

    def growth(u):  # alpha_s / alpha_u
        return math.exp(float(sde.log_alpha(s) - sde.log_alpha(u)))

    frozen = quad(lambda u: growth(u) * float(sde.g2(u)), s, t, epsabs=0, epsrel=1e-12)[0]
    var = quad(lambda u: growth(u) ** 2 * float(sde.g2(u)), s, t, epsabs=0, epsrel=1e-12)[0]
    assert_close(f64([scale, score, std]), f64([growth(t), frozen, var**0.5]), tol=1e-11, scale=1)


@pytest.mark.parametrize("steps", [1, 3, 50, 400])
def test_closed_forms(steps):
    """VP (by the rule for any SDE too), sub-VP and flow, from one giant step to hundreds."""
    vp, sub_vp, flow = VPSDE(), SubVPSDE(), FlowSDE()
    beta = LinearSDE.from_coefficients(lambda t: -0.05 - 9.95 * t, lambda t: 0.1 + 19.9 * t)
    grid = resolve_grid("uniform", vp, steps)
    t, s = grid[:-1], grid[1:]
    scale, std = vp.transition(s, t)
    expected = 2 * torch.expm1(vp.log_alpha(s) - vp.log_alpha(t))
    assert_close(columns(vp, grid)[1] / expected, torch.ones_like(t), tol=1e-15)
    by_rule = std.square() / scale * _mean_alpha(vp, s, t)
    assert_close(by_rule / expected, torch.ones_like(t), tol=1e-12)
    assert_close(columns(beta, grid)[1] / expected, torch.ones_like(t), tol=1e-11)
    a, b = sub_vp.alpha(t), sub_vp.alpha(s)
    exact = 2 * b * (1 / a - 1 / b - (b**3 - a**3) / 3)  # which cancels in short steps
    assert_close(columns(sub_vp, grid)[1], exact, tol=1e-12)
    grid = resolve_grid("uniform", flow, steps)
    t, s = grid[:-1], grid[1:]
    exact = 2 * (1 - s) * (1 / (1 - t) - 1 / (1 - s) + ((1 - t) / (1 - s)).log())
    assert_close(columns(flow, grid)[1], exact, tol=1e-12)


def test_the_mean_path_of_a_run_is_the_solution():
    """Noise off and one score for all times: x_s = (a_s/a_t) x_t + 2 (a_s/a_t - 1) score on VP."""
    vp = VPSDE()
    x, score = f64([[0.3, -2.0]]), f64([[1.5, 0.5]])
    model = Given(lambda x, t: score.expand_as(x), vp)
    out = sample(model, (1, 2), sampler="exponential_euler", steps=9, x_init=x, noise=Zero()).x
    ratio = float((vp.log_alpha(vp.t_min) - vp.log_alpha(1.0)).exp())
    assert_close(out, ratio * x + 2 * (ratio - 1) * score, tol=1e-12)


def test_landing_on_data_adds_no_noise():
    chain = DDPM.linear(20)
    grid = resolve_grid("uniform", chain)
    std = columns(chain, grid)[2]
    assert grid[-1] == 0
    assert std[-1] == 0
    assert bool((std[:-1] > 0).all())


def test_error_of_the_published_scheme(reference):
    """Exact W2 to the data, prior N(0, I), on a seven-dimensional Gaussian (arXiv:2405.14250)."""
    data = reference.load("gaussian_w2")
    lam = data.array("toy", "lam")
    eps, counts = data.array("toy", "eps"), data.array("toy", "N")
    published = data.array("toy", "W2_EI")
    target = Gaussian(torch.zeros_like(lam), torch.diag(lam))
    for i in range(1, len(eps)):  # eps = 0 calls the score of the data
        sde = VPSDE(t_min=float(eps[i]))
        for j, n in enumerate(counts.to(torch.int64).tolist()):
            if n > 130:
                continue
            grid = resolve_grid("uniform", sde, n - 1)
            affine = probe(ExponentialEuler(), ExactScore(target, sde), grid)
            _, var = affine.law(torch.zeros_like(lam), torch.ones_like(lam))
            w2 = (var.sqrt() - lam.sqrt()).square().sum().sqrt()
            assert_close(w2, published[1, i, j], tol=1e-9)
