"""Claim: what declares no order does not converge: a bias remains at any number of steps.

What declares one is measured by the kit (`declared_order`, `limit_law`).
"""

from __future__ import annotations

from sampling_support import (
    inner_grid,
    law_error,
    spectrum,
)  # fmt: skip

from sdekit.model import ExactScore
from sdekit.sampling import Ancestral, Heun, Langevin, PredictorCorrector
from sdekit.sde import VPSDE

# two step counts where the leading term leads; rk4 is near rounding beyond


def test_what_declares_no_order_does_not_converge():
    """Correctors, and what contains one of fixed step, are biased at any step count."""
    model = ExactScore(spectrum(), VPSDE())
    for sampler in (
        PredictorCorrector(predictor=Ancestral(), corrector=Langevin(snr=0.3)),
        Heun(churn=5.0, noise_scale=1.01),
    ):
        assert sampler.order is None
        errors = [law_error(sampler, model, inner_grid(model.sde, n)) for n in (320, 640)]
        assert errors[1] > 0.8 * errors[0] > 1e-3
    assert Langevin().order is None
    assert Heun(noise_scale=1.01).order == 2  # unused without churn
