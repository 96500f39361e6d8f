"""Claim: the bound exceeds -log p by the KL divergence that it should, on exact targets.

With Gaussian data the exact score is affine, so a chain's reverse process is jointly Gaussian and
-log p_theta(x_0), the bound and KL(q(x_1:T | x_0) || p_theta(x_1:T | x_0)) are closed forms; every
term of the bound is quadratic in its noise, which three Gauss-Hermite nodes integrate exactly. In
continuous time the excess is that of the prior and that of the decoder. Nothing here is random but
the last test.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampling_support import WithFraction
from support import assert_close

from sdekit import DDPM, ExactScore, Gaussian, GaussianMixture
from sdekit.likelihood import Decoder, elbo
from sdekit.likelihood.chain import chain_rows, prior_kl
from sdekit.likelihood.steps import steps_of
from sdekit.objectives import VLB
from sdekit.sde import EDM, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE

MEAN, C = 0.7, 0.6
CONTINUOUS = [
    VPSDE(), SubVPSDE(), VESDE(sigma_min=0.05, sigma_max=5.0), CosineSDE(), FlowSDE(),
    EDM(sigma_min=0.05, sigma_max=5.0),
]  # fmt: skip


def f64(values):
    return torch.as_tensor(values, dtype=torch.float64)


def hermite(n):
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return f64(nodes), f64(weights / weights.sum())


def target():
    return Gaussian(f64([MEAN]), C)


def chain_bound(model, x0, variance, nodes=3):
    """The exact expectation of the bound at each x_0 [(n,)]."""
    chain, (z, p) = model.sde, hermite(nodes)
    loss = VLB(variance=variance)
    rows = chain_rows(chain)
    total = prior_kl(chain, x0)
    noise = z.repeat_interleave(len(x0))[:, None]
    for t in rows.t:
        at = loss.loss_at(model, x0.repeat(nodes, 1), float(t), noise).reshape(nodes, -1)
        total = total + p @ at / len(rows.t)
    return total


def reverse_joint(chain, variance, fraction):
    """Mean [(N + 1,)] and covariance of (x_T, ..., x_0) under the model, step by step.

    Everything by hand from betas: the exact score of x_t, and x_{t-1} = mean + std z.
    """
    bar = torch.cat([f64([1.0]), (1 - chain.betas).cumprod(0)])
    n = chain.n
    mean, cov = f64([0.0]), f64([[1.0]])
    for i in range(n, 0, -1):
        b, a = chain.betas[i - 1], bar[i]
        var_t = a * C + 1 - a
        # x_0(x_t) = MEAN + sqrt(a) C / var_t (x_t - sqrt(a) MEAN)
        gain = a.sqrt() * C / var_t
        on_x0 = bar[i - 1].sqrt() * b / (1 - a)
        on_xt = (1 - b).sqrt() * (1 - bar[i - 1]) / (1 - a)
        slope, shift = on_xt + on_x0 * gain, on_x0 * (MEAN - gain * a.sqrt() * MEAN)
        j = max(i, 2)
        small = chain.betas[j - 1] * (1 - bar[j - 1]) / (1 - bar[j])
        large = b
        v = {
            "posterior": small,
            "beta": small if i == 1 else large,
            "learned": small ** (0.5 - 0.5 * fraction) * large ** (0.5 + 0.5 * fraction),
        }[variance]
        mean = torch.cat([mean, slope * mean[-1:] + shift])
        row = slope * cov[-1]
        corner = slope**2 * cov[-1, -1] + v
        cov = torch.cat([torch.cat([cov, row[None]]), torch.cat([row, corner[None]])[:, None]], 1)
    return mean, cov


def kl(m1, c1, m2, c2):
    solve = torch.linalg.solve
    off = m2 - m1
    return 0.5 * (
        torch.trace(solve(c2, c1)) - len(m1) + off @ solve(c2, off)
        + torch.logdet(c2) - torch.logdet(c1)
    )  # fmt: skip


@pytest.mark.parametrize("variance", ["posterior", "beta", "learned"])
@pytest.mark.parametrize(
    "chain",
    [DDPM(f64([0.1, 0.3, 0.2, 0.5, 0.7])), DDPM.linear(12, beta_start=0.01, beta_end=0.6)],
    ids=repr,
)
def test_the_gap_of_a_chain_is_the_kl_of_its_paths(chain, variance):
    model = ExactScore(target(), chain)
    if variance == "learned":
        model = WithFraction(model, f64([[0.3]]))
    x0 = f64([[-1.0], [0.2], [2.5]])
    bound = chain_bound(model, x0, variance)
    mean, cov = reverse_joint(chain, variance, 0.3)
    marginal = torch.distributions.Normal(mean[-1], cov[-1, -1].sqrt())
    bar = (1 - chain.betas).cumprod(0).flip(0)  # of x_T .. x_1, as in the joint
    for k, x in enumerate(x0[:, 0]):
        gain = cov[:-1, -1] / cov[-1, -1]
        p_mean = mean[:-1] + gain * (x - mean[-1])
        p_cov = cov[:-1, :-1] - gain[:, None] * cov[-1, :-1]
        low, high = torch.minimum(bar[:, None], bar), torch.maximum(bar[:, None], bar)
        q_cov = (low / high).sqrt() * (1 - high)  # alpha_t/alpha_s var_s for s <= t
        gap = kl(bar.sqrt() * x, q_cov, p_mean, p_cov)
        assert gap > 1e-3
        assert_close(bound[k], -marginal.log_prob(x) + gap, tol=1e-9)


def test_the_bound_holds_on_a_mixture_and_closes_with_more_steps():
    """E_data[bound] >= entropy, by quadrature over data and noise.

    With beta at the decoder too (fraction 1) the excess goes to the prior's. With the released
    code's variance there, that of the second step, it need not: by up to 0.15 nats an element.
    """
    law = GaussianMixture(f64([0.3, 0.7]), f64([[-1.5], [1.0]]), f64([0.2, 0.4]))
    x = torch.linspace(-6, 6, 61, dtype=torch.float64)[:, None]
    p = law.log_prob(x).exp()
    p = p / p.sum()
    entropy = -(p * law.log_prob(x)).sum()
    gaps = {"beta": [], "learned": []}
    for n in (12, 48, 192):
        chain = VPSDE(beta_max=10.0).discretize(n)
        model = WithFraction(ExactScore(law, chain), f64([[1.0]]))
        for variance, found in gaps.items():
            bound = (p * chain_bound(model, x, variance, nodes=10)).sum()
            found.append(float(bound - entropy))
    assert min(gaps["beta"]) > 0
    first, second, third = gaps["learned"]
    assert first > 2 * second > 4 * third > 0
    assert third < 0.03


# continuous time --------------------------------------------------------------------------------


def continuous(sde, form="dsm", **options):
    model = ExactScore(target(), sde)
    return steps_of(
        model, sde, Decoder(), times=options.get("times", 6), variance="posterior", form=form,
        divergence="exact", generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


def expected(steps, k, x0):
    """The expectation over the noise of the cost of step k at each x_0 [(n,)]."""
    z, p = hermite(5)
    at = torch.full((len(x0),), k)
    costs = [steps.cost(at, x0, torch.full_like(x0, float(node)), None, {}).nats for node in z]
    return (p[:, None] * torch.stack(costs)).sum(0)


@pytest.mark.parametrize("sde", CONTINUOUS, ids=repr)
def test_the_integrand(sde):
    """Of data N(m, c): half of alpha^2 c / (alpha^2 c + sigma^2), and the same by parts."""
    dsm, ism = continuous(sde), continuous(sde, form="ism")
    z, p = hermite(5)
    x0 = (MEAN + math.sqrt(C) * z)[:, None]
    for k in range(6):
        signal = sde.alpha(dsm.t[k]) ** 2 * C
        mine = expected(dsm, k, x0)
        assert_close((p * mine).sum(), 0.5 * signal / (signal + sde.var(dsm.t[k])), tol=1e-10)
        assert_close(expected(ism, k, x0), mine, tol=1e-9)
    ends = sde.log_snr(f64([sde.t_min, sde.t_max]))
    assert_close(dsm.weight[:-1].sum(), ends[0] - ends[1], tol=1e-12)
    assert bool((dsm.t.diff() < 0).all())


@pytest.mark.parametrize("sde", CONTINUOUS, ids=repr)
def test_the_excess_in_continuous_time(sde):
    """E_data[bound] - entropy = KL(p_T || prior) + E KL(p(x_0 | x_tmin) || decoder)."""
    z, p = hermite(5)
    x0 = (MEAN + math.sqrt(C) * z)[:, None]
    snr = sde.log_snr(f64([sde.t_min, sde.t_max])).exp()
    steps = continuous(sde)
    integral = 0.5 * (torch.log1p(snr[0] * C) - torch.log1p(snr[1] * C))
    bound = (p * (prior_kl(sde, x0) + expected(steps, 6, x0))).sum() + integral
    entropy = f64(0.5 * math.log(2 * math.pi * math.e * C))
    prior = f64([[sde.prior_std() ** 2]])
    end = sde.alpha(sde.t_max)
    at_end = (end**2 * C + sde.var(sde.t_max)).reshape(1, 1)
    excess = kl(f64([end * MEAN]), at_end, f64([0.0]), prior)
    given = 1 / (1 / C + snr[0])  # the variance of x_0 given x_tmin; the decoder has 1 / snr
    excess = excess + 0.5 * (given * snr[0] - 1 - (given * snr[0]).log())
    assert_close(bound - entropy, excess, tol=1e-8, scale=1.0)
    assert excess > 0


def test_the_excess_of_the_decoder_vanishes_at_small_times():
    gaps = []
    for t_min in (1e-1, 1e-2, 1e-3):
        sde = VPSDE(t_min=t_min)
        snr = float(sde.log_snr(t_min).exp())
        given = C * snr / (1 + C * snr)
        gaps.append(0.5 * (given - 1 - math.log(given)))
        assert gaps[-1] >= 0
    assert gaps[0] > 100 * gaps[1] > 100 * gaps[2]


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(sigma_min=0.05, sigma_max=5.0)], ids=repr)
@pytest.mark.parametrize("form", ["dsm", "ism"])
def test_the_estimate_is_the_expectation(sde, form):
    """The mean over 300 samples and 40 strata lies within 6.5 of its own standard errors."""
    data = target()
    x = data.sample(300, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = elbo(ExactScore(data, sde), x, times=40, form=form, divergence="rademacher", seed=1)
    snr = sde.log_snr(f64([sde.t_min, sde.t_max])).exp()
    # at these x_0, by the posterior mean's bias and spread under the integral in log_snr
    grid = torch.linspace(float(snr[1].log()), float(snr[0].log()), 4001, dtype=torch.float64)
    ratio = C * grid.exp() / (1 + C * grid.exp())
    away = (x - MEAN).square()  # |eps_hat - eps|^2 = ratio^2 + snr (1 - ratio)^2 (x - m)^2
    inside = 0.5 * (ratio**2 + grid.exp() * (1 - ratio) ** 2 * away)
    exact = prior_kl(sde, x) + torch.trapezoid(inside, grid, dim=1)
    exact = exact + expected(continuous(sde, times=40), 40, x)
    error = found.total - exact
    assert abs(float(error.mean())) < 6.5 * found.mean_stderr
    assert float(error.square().mean() / found.stderr.square().mean()) < 1.3  # not too small
