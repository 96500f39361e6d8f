"""Property 5 and beta: coefficients are finite on the closed interval, beta is the papers'.

The moment equations are checks of the kit (`test_verify_catalogue`).
"""

import math

import pytest
import torch
from strategies import every_sde

from sdekit.sde import VPSDE


@pytest.mark.parametrize("name", ["alpha", "sigma", "var", "log_alpha", "f", "g2", "diffusion"])
@every_sde
def test_peer_bug_13_coefficients_are_finite_on_the_closed_interval(sde, name):
    """flow_matching's VP and linear-VP schedules have d_sigma = -inf at an end of the interval."""
    ends = [0.0, sde.t_min, sde.t_max]
    if name in ("f", "g2", "diffusion") and sde.t_min > 0:
        ends = ends[1:]  # d sqrt(...) at 0 is the schedule's own business where 0 is not its end
    assert bool(torch.isfinite(getattr(sde, name)(torch.tensor(ends, dtype=torch.float64))).all())
    wrong = 1 / (1 - torch.tensor(1.0))  # sigma' = -t/sqrt(1 - t^2) of that schedule, at t = 1
    assert not torch.isfinite(wrong)


def test_beta_is_the_papers():
    """Song et al., eqs. 11 and 29: f = -beta/2, log alpha = -t^2 (b1 - b0)/4 - t b0/2."""
    sde = VPSDE(beta_min=0.3, beta_max=7.0)
    t = torch.linspace(0.01, 1, 7, dtype=torch.float64)
    assert torch.allclose(sde.beta(t), 0.3 + 6.7 * t, rtol=1e-14, atol=0)
    assert torch.allclose(sde.log_alpha(t), -0.25 * t**2 * 6.7 - 0.15 * t, rtol=1e-14, atol=0)
    assert math.isclose(float(sde.beta(1.0)), 7.0, rel_tol=1e-15)
