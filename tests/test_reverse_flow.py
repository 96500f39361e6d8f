"""Properties 22 to 24: the flow carries quantiles to quantiles; its divergence is exact."""

from itertools import pairwise

import pytest
import torch
from scipy.integrate import solve_ivp
from strategies import EVERY, MIXTURES, every_mixture, every_sde, f64, kinks, smooth_times
from support import assert_close
from test_reverse_family import exact_score
from test_sde_fokker_planck import divergence

QUANTILES = 1e-6


def quantile(law, alpha, var, p):
    """Quantiles of a 1-D mixture at a noise level, by bisection of its distribution function."""
    spread = (alpha**2 * law.spreads + var).sqrt()
    centre = alpha * law.means[:, 0]
    low, high = centre.min() - 12 * spread.max(), centre.max() + 12 * spread.max()
    low, high = low.expand(len(p)).clone(), high.expand(len(p)).clone()
    for _ in range(80):
        middle = 0.5 * (low + high)
        z = (middle[:, None] - centre) / spread
        below = (law.weights * torch.special.ndtr(z)).sum(1) < p
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * (low + high)


def flow(process, x, start, end):
    """The flow's end point, by DOP853 between the kinks of its coefficients."""
    inside = sorted(k for k in kinks(process.sde) if min(start, end) < k < max(start, end))
    stops = [start, *(inside if end > start else inside[::-1]), end]
    for a, b in pairwise(stops):
        # a hair inside, so that f and g are those of the interval that is crossed
        low, high = min(a, b) * (1 + 1e-12), max(a, b) * (1 - 1e-12)

        def slope(t, y, low=low, high=high):
            at = min(max(t, low), high)
            return process.drift(torch.from_numpy(y)[:, None], at)[:, 0].numpy()

        solved = solve_ivp(slope, (a, b), x.numpy(), method="DOP853", rtol=1e-8, atol=1e-9)
        assert solved.success
        x = torch.from_numpy(solved.y[:, -1].copy())
    return x


def span(sde):
    """A stretch of time with few kinks on which the law changes."""
    if "ddpm" in sde.kinds:
        return (sde.time(sde.n), 0.05) if sde.n <= 10 else (sde.time(sde.n), sde.time(sde.n - 8))
    return (sde.t_max, 0.1 * sde.t_max)


@every_sde
def test_quantiles_go_to_quantiles(sde):
    """Property 22, from noise towards data, on a bimodal mixture."""
    law = MIXTURES["1d"]
    start, end = span(sde)
    p = f64([0.02, 0.2, 0.3, 0.5, 0.9])
    process = sde.reverse(exact_score(sde, law), eta=0.0)
    x = quantile(law, sde.alpha(start), sde.var(start), p)
    expected = quantile(law, sde.alpha(end), sde.var(end), p)
    assert_close(flow(process, x, start, end), expected, tol=QUANTILES)


@pytest.mark.parametrize("key", ["vp-0", "ve-1", "flow-0"])
def test_twice_the_score_weight_is_seen(key):
    """PEER_BUGS 1: with g^2 twice too large the flow collapses, and the quantiles show it."""
    sde, law = EVERY[key], MIXTURES["1d"]
    start, end = span(sde)
    p = f64([0.2, 0.9])
    score = exact_score(sde, law)
    process = sde.reverse(lambda x, t: 2 * score(x, t), eta=0.0)
    x = quantile(law, sde.alpha(start), sde.var(start), p)
    expected = quantile(law, sde.alpha(end), sde.var(end), p)
    assert float((flow(process, x, start, end) - expected).abs().max()) > 1e4 * QUANTILES


@every_sde
def test_gaussian_flow(sde):
    """Property 23: on N(0, c) data the flow multiplies x by sqrt(v_end/v_start), for every c."""
    start, end = span(sde)
    spread = f64([0.01, 1.0, 9.0])

    def total(t):
        return sde.alpha(t).square() * spread + sde.var(t)

    def score(x, t):
        return -x / total(t)[:, None]

    x = f64([-1.0, 0.5, 2.0])
    ended = flow(sde.reverse(score, eta=0.0), x, start, end)
    assert_close(ended / x, (total(end) / total(start)).sqrt(), tol=QUANTILES)


@every_mixture
@every_sde
def test_divergence(sde, law):
    """Property 24: div of the flow = D f - g^2 Laplacian(log p)/2, against autograd's trace."""
    t = smooth_times(sde)
    alpha, var = sde.alpha(t), sde.var(t)
    x = law.points(alpha, var)
    process = sde.reverse(exact_score(sde, law), eta=0.0)
    measured = divergence(lambda y: process.drift(y, t), x)
    outward, inward = law.d * sde.f(t), 0.5 * sde.g2(t) * law.laplacian(x, alpha, var)
    size = outward.abs() + inward.abs()
    assert float(((measured - outward + inward).abs() / size).max()) <= 1e-10
