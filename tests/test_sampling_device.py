"""Claim: on any device a sampler returns what it returns on the CPU, given the same draws.

With a network and with an exact score, in float64; the noise is drawn on the CPU and moved. The
library's own noise is the device's, and independent of batch and chunks there too.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import adaptive, defaults, draws, two_modes

from sdekit.errors import ConfigError
from sdekit.model import ExactScore, ScoreModel
from sdekit.sampling import Antithetic, Brownian, sample
from sdekit.sde import VESDE, VPSDE

SAMPLERS = {key: s for key, s in defaults("sampler").items() if not adaptive(s)}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


class Bent(torch.nn.Module):
    """A network with a parameter, so that it lives on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor([0.7, 0.4], dtype=torch.float64))

    def forward(self, x, time):
        return torch.tanh(x * self.slope + time.reshape(-1, 1).to(x.dtype))


class Moved:
    """Draws of the CPU, by their number, on whatever device asks."""

    def __init__(self) -> None:
        self.draw = 0

    def __call__(self, x):
        self.draw += 1
        return draws(1, tuple(x.shape), seed=self.draw)[0].to(x)


def run(model, sampler, x):
    return sample(model, tuple(x.shape), sampler=sampler, steps=8, x_init=x, noise=Moved()).x


@every_sampler
def test_a_device_returns_what_the_cpu_returns(sampler, device):
    x = draws(1, (5, 2))[0]
    for sde in (VPSDE(), VESDE()):
        exact = ExactScore(two_modes(), sde)
        here = run(exact, sampler, x * sde.prior_std())
        there = run(exact, sampler, (x * sde.prior_std()).to(device))
        assert there.device.type == device.type
        torch.testing.assert_close(there.cpu(), here, rtol=1e-8, atol=1e-8)
    here = run(ScoreModel(Bent(), VPSDE()), sampler, x)
    there = run(ScoreModel(Bent().to(device), VPSDE()), sampler, x.to(device))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "source", [None, Antithetic(3), Brownian(3)], ids=["keyed", "antithetic", "brownian"]
)
def test_chunks_do_not_change_the_noise(source, device):
    model = ExactScore(two_modes(), VPSDE())
    how = dict(sampler="ancestral", steps=6, seed=4, noise=source, device=device)
    whole = sample(model, (40, 2), **how).x
    assert whole.device.type == device.type
    for chunk in (16, 7):
        torch.testing.assert_close(
            sample(model, (40, 2), chunk=chunk, **how).x, whole, rtol=0, atol=1e-12
        )


def test_a_wrong_name_of_a_sampler_is_refused_on_any_device(device):
    with pytest.raises(ConfigError, match="dpmpp_2m"):
        sample(ExactScore(two_modes(), VPSDE()), (2, 2), sampler="dpmp_2m", device=device)
