"""Claim: samplers commute with shifts and changes of scale of the data.

Property 53, on the real loop with replayed noise. A shift of the data by d moves the sample by
alpha(t) d: on VE for every sampler, elsewhere for those that treat the linear part exactly.
Rotations are a check of the kit.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import adaptive, draws, each, entries
from strategies import EVERY, f64

from sdekit.model import ExactScore
from sdekit.sampling import sample
from sdekit.sampling.noise import Replay
from sdekit.sde import VESDE, VPSDE, SubVPSDE
from sdekit.targets import GaussianMixture

SAMPLERS = {key: s for key, s in entries("sampler").items() if not adaptive(s)}
SDES = {
    "vp": VPSDE(),
    "sub_vp": SubVPSDE(),
    "ve": VESDE(sigma_max=10.0),
    "cosine": EVERY["cosine-0"],
}
every_sampler = pytest.mark.parametrize("sampler", each(SAMPLERS))
WEIGHTS, MEANS, SPREADS = (
    f64([0.3, 0.7]),
    f64([[1.0, 0.5, -0.2], [-0.8, 0.2, 0.9]]),
    f64([0.2, 0.5]),
)


def run(law, sde, sampler, x, z):
    grid = torch.linspace(0.9, 0.02, 9, dtype=torch.float64) * sde.t_max
    how = dict(sampler=sampler, grid=grid, x_init=x, noise=Replay(z))
    return sample(ExactScore(law, sde), tuple(x.shape), **how).x


def near(found, expected):
    torch.testing.assert_close(
        found, expected, rtol=0, atol=1e-10 * float(expected.abs().max() + 1)
    )


# elsewhere than on VE, Euler's drift step, say, does not move the mean exactly: its order tells
EXACT_LINEAR = {
    key: s for key, s in SAMPLERS.items() if s.catalogue_name in ("ddim", "ancestral", "heun")
}
SHIFTED = [
    pytest.param(sde, *one.values, id=f"{name}-{one.id}", marks=one.marks)
    for name, sde in SDES.items()
    for one in each(SAMPLERS if "ve" in sde.kinds else EXACT_LINEAR)
]


@pytest.mark.parametrize(("sde", "sampler"), SHIFTED)
def test_shifts_of_the_data(sde, sampler):
    x, z, shift = draws(1, (5, 3))[0], draws(60, (5, 3), seed=1), f64([2.0, -1.0, 0.5])
    plain = run(GaussianMixture(WEIGHTS, MEANS, SPREADS), sde, sampler, x, z)
    start, end = sde.alpha(0.9 * sde.t_max), sde.alpha(0.02 * sde.t_max)
    law = GaussianMixture(WEIGHTS, MEANS + shift, SPREADS)
    near(run(law, sde, sampler, x + start * shift, z), plain + end * shift)


@every_sampler
def test_scaling_of_data_and_noise_levels(sampler):
    """Property 14: on VE, sigma -> c sigma is x -> c x."""
    c, x, z = 3.0, draws(1, (5, 3))[0], draws(60, (5, 3), seed=1)
    small, large = VESDE(sigma_min=0.02, sigma_max=10.0), VESDE(sigma_min=0.06, sigma_max=30.0)
    plain = run(GaussianMixture(WEIGHTS, MEANS, SPREADS), small, sampler, x, z)
    if any(getattr(sampler, name, None) for name in ("churn", "tau_max", "intervals")):
        return  # a window that is given in units of sigma
    if "flow" in repr(sampler) or getattr(sampler, "scale", "") == "er_sde_5":
        return  # alpha + sigma, and exp(sigma^0.3), have a unit of their own
    law = GaussianMixture(WEIGHTS, c * MEANS, c**2 * SPREADS)
    near(run(law, large, sampler, c * x, z), c * plain)
