"""Claim: denoising exceeds explicit score matching by a constant in closed form (property 38).

Expectations over x_0 and the noise are Gauss-Hermite sums, so that nothing here is random. That
the score is the minimiser is a check of the kit.
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
        model = ScoreModel(lambda x, time, a=slope, b=offset: a * x + b, sde, uncertainty=True)
        denoising = (p2 * objective.loss_at(model, x0, float(t), noise)).sum()
        x = total.sqrt() * z
        true_eps = v.sqrt() * x / total
        explicit = (p * weight * (slope * x + offset - true_eps) ** 2).sum()
        assert_close(denoising - explicit, weight * (1 - v / total), tol=1e-8)
