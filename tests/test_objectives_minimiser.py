"""Claim: the score is the minimiser of denoising score matching, exactly (property 38).

Expectations over x_0 and the noise are Gauss-Hermite sums, so that nothing here is random. At the
score every directional derivative of the expected loss is 0, for every weighting, process and
parametrisation; and the loss exceeds explicit score matching by a constant known in closed form.
"""

import math

import numpy as np
import pytest
import torch
from support import assert_close

from sdekit import DSM, ScoreModel, catalogue
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE

SDES = [
    VPSDE(), SubVPSDE(), VESDE(sigma_min=0.05, sigma_max=5.0), CosineSDE(),
    EDM(sigma_min=0.05, sigma_max=5.0), FlowSDE(), DDPM.linear(20, beta_start=0.005, beta_end=0.4),
]  # fmt: skip
WEIGHTS, MEANS, VARIANCE = (0.3, 0.7), (-1.0, 0.8), 0.5


def hermite(n):
    """Nodes and probabilities of a sum that integrates polynomials times a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def law_and_noise(n=60):
    """x_0 [(rows, 1)] of the mixture, noise [(rows, 1)], and their probabilities [(rows,)]."""
    z, p = hermite(n)
    x0 = torch.cat([m + math.sqrt(VARIANCE) * z for m in MEANS])
    p0 = torch.cat([w * p for w in WEIGHTS])
    first, second = torch.cartesian_prod(x0, z).unbind(1)
    return first[:, None], second[:, None], torch.cartesian_prod(p0, p).prod(1)


class Perturbed(torch.nn.Module):
    """The exact raw output plus theta_k times test functions of x."""

    def __init__(self, sde, t):
        super().__init__()
        self.sde, self.t = sde, t
        self.theta = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.row = (0.0, 1.0)

    def exact_eps(self, x):
        alpha, var = self.sde.alpha(self.t), self.sde.var(self.t)
        total = alpha**2 * VARIANCE + var
        pulls = [alpha * m - x for m in MEANS]
        logits = [math.log(w) - 0.5 * d**2 / total for w, d in zip(WEIGHTS, pulls, strict=True)]
        share = torch.softmax(torch.stack(logits), dim=0)
        score = sum(r * d for r, d in zip(share, pulls, strict=True)) / total
        return -var.sqrt() * score

    def forward(self, x, time):
        """The raw output for x as it is; `edm` hands over a scaled x, which is undone."""
        scale = self.scale
        x = x / scale
        eps = self.exact_eps(x)
        x0 = (x - self.sde.sigma(self.t) * eps) / self.sde.alpha(self.t)
        a, b = self.row
        tests = torch.stack([torch.ones_like(x), x, torch.sin(x), torch.exp(-x.square())])
        return a * x0 + b * eps + torch.tensordot(self.theta, tests, dims=1)


def model_at(sde, t, parametrization):
    network = Perturbed(sde, t)
    model = ScoreModel(network, sde, parametrization=parametrization)
    time = torch.tensor(t, dtype=torch.float64)
    network.row = model.parametrization.row(sde, time)
    scale = model.parametrization.input_scale(sde, time)
    network.scale = torch.ones(()) if scale is None else scale
    return model


@pytest.mark.parametrize("parametrization", list(catalogue("parametrization")))
@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_gradient_vanishes_at_the_score(sde, parametrization):
    x0, noise, p = law_and_noise()
    for t in (0.2, 0.7):
        for weighting in catalogue("weighting"):
            model = model_at(sde, t, parametrization)
            losses = DSM(weighting=weighting).loss_at(model, x0, t, noise)
            (slope,) = torch.autograd.grad((p * losses).sum(), model.network.theta)
            # compared with the mean size of what is averaged to 0
            (size,) = torch.autograd.grad(
                (p * DSM(weighting=weighting).loss_at(model, x0, t, noise).sqrt()).sum(),
                model.network.theta,
                allow_unused=True,
            )
            scale = 1 + losses.detach().mean().sqrt() * size.abs().max()
            assert float(slope.abs().max() / scale) < 1e-8, (t, weighting, slope)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_another_network_has_a_slope(sde):
    """The zero above is the score's doing: half of it has a slope."""
    x0, noise, p = law_and_noise(20)
    model = model_at(sde, 0.4, "eps")
    model.network.row = (0.0, 0.5)
    losses = DSM().loss_at(model, x0, 0.4, noise)
    (slope,) = torch.autograd.grad((p * losses).sum(), model.network.theta)
    assert float(slope.abs().max()) > 1e-3


@pytest.mark.parametrize("weighting", list(catalogue("weighting")))
@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_denoising_exceeds_explicit_score_matching_by_a_constant(sde, weighting):
    """N(0, c) data of variance C at t, any affine network: the difference is W (1 - v / C)."""
    z, p = hermite(40)
    c, t = 0.7, torch.tensor(0.55, dtype=torch.float64)
    if "ddpm" in sde.kinds:
        t = sde.to_model_time(t)
    alpha, v = sde.alpha(t), sde.var(t)
    total = alpha**2 * c + v
    objective = DSM(weighting=weighting)
    weight = objective.weighting.weight(sde, t)
    x0, noise = torch.cartesian_prod(math.sqrt(c) * z, z)[:, :, None].unbind(1)
    p2 = torch.cartesian_prod(p, p).prod(1)
    for slope, offset in ((0.0, 0.0), (1.0, 0.2), (-0.4, 1.0)):
        model = ScoreModel(lambda x, time, a=slope, b=offset: a * x + b, sde)
        denoising = (p2 * objective.loss_at(model, x0, float(t), noise)).sum()
        x = total.sqrt() * z
        true_eps = v.sqrt() * x / total
        explicit = (p * weight * (slope * x + offset - true_eps) ** 2).sum()
        assert_close(denoising - explicit, weight * (1 - v / total), tol=1e-8)
