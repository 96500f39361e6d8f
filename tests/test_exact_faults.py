"""Claim: planted faults show in the exact W2, and every sampler's law is that of its samples.

Five wrong formulas that live in released code, each planted by one edit, change W2 at 50 steps on
VP by at least 1 % (noise in a last step to var = 0: on VP as a chain of 50 betas). And brute
force: the moments of 200,000 samples, every sampler of the catalogue, on VP, sub-VP and VE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from sampling_support import adaptive, each, entries
from strategies import f64
from support import leaving, mean_test, variance_test

from sdekit import VESDE, VPSDE, ExactScore, Gaussian, SubVPSDE, sample
from sdekit.exact import Law1D, bures_wasserstein, output_law, output_law_1d
from sdekit.sampling import DDIM, Ancestral, EulerMaruyama, Mix, ReverseDiffusion
from sdekit.targets import GaussianMixture

SPECTRUM = Gaussian.from_spectrum(f64([0.5, -0.3, 1.0, 0.0]), f64([0.01, 0.25, 1.0, 4.0]))
TWO = GaussianMixture(f64([0.3, 0.7]), f64([[-2.0], [1.0]]), f64([0.09, 0.25]))


@dataclass(frozen=True, kw_only=True)
class NoHalf(EulerMaruyama):
    """The probability flow without its 1/2: PEER_BUGS 1's ODE."""

    def coefficients(self, sde, grid):
        columns = super().coefficients(sde, grid)
        mean = columns["mean"]
        return {**columns, "mean": Mix(mean.at, x=mean.x, score=2 * mean.score)}


class AlphaOfT(DDIM):
    """x_0 multiplied by alpha(t) where alpha(s) belongs: PEER_BUGS 4."""

    def coefficients(self, sde, grid):
        columns = super().coefficients(sde, grid)
        mean = columns["mean"]
        return {**columns, "mean": Mix(mean.at, x0=sde.alpha(grid[:-1]), eps=mean.eps)}


class NoisyLanding(ReverseDiffusion):
    """Noise also in the last step, which lands at var = 0: PEER_BUGS 19."""

    def coefficients(self, sde, grid):
        return {**super().coefficients(sde, grid), "std": sde.transition(grid[1:], grid[:-1])[1]}


class WrongStep(EulerMaruyama):
    """dt = 1/N on a grid of N - 1 steps: PEER_BUGS 5."""

    def coefficients(self, sde, grid):
        t = grid[:-1]
        h = torch.full_like(t, 1 / len(grid))
        mean = Mix(t, x=1 - h * sde.f(t), score=h * sde.g2(t))
        return {"mean": mean, "std": (h * sde.g2(t)).sqrt()}


FAULTS = {
    "missing 1/2": (EulerMaruyama(eta=0.0), NoHalf(eta=0.0), VPSDE()),
    "alpha(t) for alpha(s)": (DDIM(), AlphaOfT(), VPSDE()),
    "noise at var = 0": (ReverseDiffusion(), NoisyLanding(), VPSDE().discretize(50)),
    "dt = 1/N": (EulerMaruyama(), WrongStep(), VPSDE()),
    "beta for beta-tilde": (Ancestral(), Ancestral(variance="beta"), VPSDE()),
}


@pytest.mark.parametrize(("right", "wrong", "sde"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_shows_on_a_spectrum(right, wrong, sde):
    model = ExactScore(SPECTRUM, sde)
    truth = model.at(sde.t_min)
    w2 = [bures_wasserstein(output_law(s, model, steps=50), truth) for s in (right, wrong)]
    assert abs(w2[1] / w2[0] - 1) > 0.01, w2


@pytest.mark.parametrize(("right", "wrong", "sde"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_shows_on_a_mixture(right, wrong, sde):
    model = ExactScore(TWO, sde)
    truth = Law1D.of(model.at(sde.t_min))
    w2 = [output_law_1d(s, model, steps=50).wasserstein(truth) for s in (right, wrong)]
    assert abs(w2[1] / w2[0] - 1) > 0.01, w2


# brute force ------------------------------------------------------------------------------------

SDES = {"vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE(sigma_min=0.02, sigma_max=20.0)}
SAMPLED = {
    key: s
    for key, s in entries("sampler").items()
    if not adaptive(s) and "rejects" not in s.needs and "norm" not in getattr(s, "rule", "")
}


# sub-VP lies between the other two
@pytest.mark.parametrize("sde", leaving(SDES, lambda name: name == "sub_vp"))
@pytest.mark.parametrize("sampler", each(SAMPLED))
def test_the_moments_of_samples(sampler, sde, alpha_budget):
    """200,000 draws of three variances, five steps: means and variances by their own laws."""
    data = Gaussian.from_spectrum(f64([0.5, -0.3, 1.0]), f64([0.01, 0.5, 4.0]))
    model = ExactScore(data, sde)
    law = output_law(sampler, model, steps=5)
    x = sample(model, (200_000, 3), sampler=sampler, steps=5, seed=11, dtype=torch.float64).x
    mean, var = law.mean, law.spectrum[0]
    for i in range(3):
        alpha = alpha_budget.spend(f"moments {sampler} {sde} {i}") / 2
        column = x[:, i]
        assert mean_test(column, mean=float(mean[i]), std=math.sqrt(float(var[i])), alpha=alpha)
        assert variance_test(column, var=float(var[i]), alpha=alpha)
