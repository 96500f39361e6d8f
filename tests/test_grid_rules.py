"""Claim: each grid is evenly spaced in the quantity of its definition.

Uniform in t, sqrt(t), log-SNR, (sigma/alpha)^(1/rho); on a chain the three integer spacings of
arXiv:2305.08891, table 2, written out by hand.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import defaults
from strategies import EVERY, f64
from support import assert_close

from sdekit.model import ExactScore
from sdekit.sampling import Karras, sample
from sdekit.sde import DDPM, EDM, VPSDE
from sdekit.targets import Gaussian

SMOOTH = {name: sde for name, sde in EVERY.items() if "ddpm" not in sde.kinds}
every_smooth = pytest.mark.parametrize("sde", SMOOTH.values(), ids=SMOOTH)
# times come from an inverse of the log-SNR: 1e-9 relative in the quantity itself
EVEN = 1e-9


def times(sde, grid, steps=13) -> torch.Tensor:
    return sample(ExactScore(Gaussian([0.0], 1.0), sde), (0, 1), grid=grid, steps=steps).grid


def assert_even(values: torch.Tensor) -> None:
    expected = torch.linspace(
        float(values[0]), float(values[-1]), len(values), dtype=torch.float64
    )
    assert_close(values, expected, tol=EVEN)


@every_smooth
def test_spacing(sde):
    assert_even(times(sde, "uniform"))
    assert_even(times(sde, "quadratic").sqrt())
    assert_even(sde.log_snr(times(sde, "log_snr")))


@every_smooth
@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0, 20.0])
def test_karras_spacing(sde, rho):
    t = times(sde, Karras(rho=rho))
    level = -0.5 * sde.log_snr(t)  # log(sigma / alpha)
    assert_even(((level - level.max()) / rho).exp())


def test_karras_is_the_formula_of_the_paper():
    sde, k = EDM(), torch.arange(18, dtype=torch.float64)
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    paper = (high + k / 17 * (low - high)) ** 7
    for grid in ("uniform", "karras"):  # on EDM they are the same
        assert_close(sde.sigma(times(sde, grid, 17)), paper, tol=EVEN)


def test_the_defaults_are_those_of_the_papers():
    assert defaults("grid")["karras"].rho == 7.0


@pytest.mark.parametrize(
    ("n", "steps"), [(1000, 20), (1000, 15), (50, 7), (10, 10), (30, 1), (7, 3)]
)
def test_integer_spacings(n, steps):
    sde = DDPM(torch.full((n,), 0.01))
    stride = (n - 1) / max(steps - 1, 1)
    exact = {
        "leading": [1 + k * (n // steps) for k in reversed(range(steps))],
        "linspace": [n - k * stride for k in range(steps)],
        "trailing": [n - k * n / steps for k in range(steps)],
    }
    for name, wanted in exact.items():
        nodes = sde.index(times(sde, f"ddpm_{name}", steps))
        assert int(nodes[-1]) == 0
        assert float((nodes[:-1] - f64(wanted)).abs().max()) <= 0.5 + 1e-9  # rounded


def test_a_chain_walks_the_nodes_nearest_to_a_grid():
    sde = DDPM.linear(1000)
    smooth = torch.linspace(1, 0, 8, dtype=torch.float64)
    assert_close(times(sde, "uniform", 7), (smooth * 1000).round() / 1000, tol=1e-15)


def test_nodes_that_are_taken_move_to_free_neighbours():
    sde = DDPM.linear(20, beta_start=0.005, beta_end=0.5)
    t = times(sde, Karras(rho=7.0), 15)
    assert len(set(sde.index(t).tolist())) == 16


def test_a_tensor_is_the_grid():
    grid = f64([0.9, 0.5, 0.2])
    model = ExactScore(Gaussian([0.0], 1.0), VPSDE())
    assert torch.equal(sample(model, (0, 1), grid=grid).grid, grid)
    assert torch.equal(sample(model, (0, 1), grid=grid, steps=2).grid, grid)
    # a float32 tensor may overshoot the ends by its own rounding, and is put back
    rough = torch.tensor([0.999, 0.5, 0.001])
    sde = VPSDE(t_max=0.999)
    found = sample(ExactScore(Gaussian([0.0], 1.0), sde), (0, 1), grid=rough).grid
    assert found[0] == 0.999
    assert found[-1] >= 0.001
