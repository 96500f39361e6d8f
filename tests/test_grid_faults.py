"""Claim: a grid or a number of steps that cannot be walked is refused at once, in words.

FAULTS B4, B5, B6, B10, C9, E8 to E11: the class of the error, and a message that holds the
argument and the value. No model is called before.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampling_support import Wrapped
from strategies import f64

from sdekit.errors import ConfigError, DtypeError, SdekitError, ShapeError, TimeError
from sdekit.model import ExactScore
from sdekit.sampling import Karras, iterate, sample
from sdekit.sde import DDPM, VPSDE, FlowSDE
from sdekit.targets import Gaussian


def run(sde=None, **how):
    model = Wrapped(ExactScore(Gaussian([0.0], 1.0), sde or VPSDE()))
    try:
        result = sample(model, (3, 1), seed=0, **how)
    except SdekitError:
        assert model.calls == 0, "refused only after the model was called"
        if "max_nfe" not in how:  # the loop itself refuses too
            grid = how.pop("grid", "uniform")
            with pytest.raises(SdekitError):
                list(iterate(model, torch.zeros(3, 1), sampler="ddim", grid=grid, **how))
        raise
    return result


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ([0.1, 0.5, 0.9], ["0.1", "0.5", "grid[0]", "grid[1]"]),  # B6: ascending, C9
        ([0.9, 0.5, 0.5, 0.1], ["grid[1]", "grid[2]", "0.5"]),
        ([0.9, 0.4, 0.5, 0.1], ["grid[1]", "grid[2]", "0.4"]),
        ([0.9, math.nan, 0.1], ["grid[1]", "nan"]),
        ([math.inf, 0.1], ["grid[0]", "inf"]),
        ([1.2, 0.5, 0.1], ["grid[0]", "1.2"]),
        ([0.9, 0.5, 0.0], ["grid[2]", "0.001"]),
        ([0.9, 0.5, -0.1], ["grid[2]", "-0.1"]),
        ([0.9, 0.9], ["grid[0]", "grid[1]"]),
        ([0.9], ["grid", "(1,)"]),
        ([], ["grid", "(0,)"]),
    ],
)
def test_a_tensor_that_is_no_grid(grid, words):
    with pytest.raises(TimeError) as error:
        run(grid=f64(grid))
    for word in words:
        assert word in str(error.value)


def test_a_time_just_outside():
    """C5: t_max itself is fine, the next float is not."""
    assert run(grid=f64([1.0, 0.5])).nfe == 1
    with pytest.raises(TimeError, match=r"grid\[0\]"):
        run(grid=f64([math.nextafter(1.0, 2.0), 0.5]))
    with pytest.raises(TimeError, match=r"grid\[1\]"):
        run(grid=f64([1.0, math.nextafter(1e-3, 0.0)]))
    assert run(FlowSDE(), grid=torch.tensor([0.999, 0.001])).nfe == 1  # float32's own rounding


@pytest.mark.parametrize(
    ("grid", "error"),
    [
        (torch.tensor([3, 2, 1]), DtypeError),
        (torch.tensor([1.0, 0.5], dtype=torch.complex64), DtypeError),
        ([0.9, 0.5], DtypeError),
        (np.array([0.9, 0.5]), DtypeError),
        (None, DtypeError),
        (3, DtypeError),
        (torch.tensor([[0.9, 0.5]]), ShapeError),
        (torch.tensor(0.5), ShapeError),
    ],
)
def test_something_that_is_no_grid(grid, error):
    with pytest.raises(error, match="grid"):
        run(grid=grid)


def test_a_name_that_is_no_grid():
    with pytest.raises(ConfigError, match=r"unifrom.*uniform"):
        run(grid="unifrom")
    with pytest.raises(ConfigError, match="karras"):
        run(grid="karras(rhoo=3)")
    with pytest.raises(ConfigError, match="ddpm_leading"):
        run(grid="ddpm_leading")


@pytest.mark.parametrize("rho", [0, 0.0, -1.0, math.nan, math.inf])
def test_rho(rho):
    """B10: k-diffusion and EDM divide by zero."""
    with pytest.raises(ConfigError, match="rho"):
        Karras(rho=rho)


@pytest.mark.parametrize("steps", [0, -1, -1000])
def test_steps_below_one(steps):
    with pytest.raises(ConfigError, match=rf"steps.*{steps}"):
        run(steps=steps)


@pytest.mark.parametrize("steps", [2.5, 10.0, "10", True, math.nan, [10], torch.tensor(2.0)])
def test_steps_of_another_type(steps):
    with pytest.raises(DtypeError, match="steps"):
        run(steps=steps)


def test_steps_beyond_any_plan():
    with pytest.raises(ConfigError, match="1000000000"):
        run(steps=10**9)
    with pytest.raises(ConfigError, match=r"max_nfe=10"):
        run(steps=1000, max_nfe=10)
    with pytest.raises(ConfigError):
        run(steps=10**30)


def test_more_steps_than_a_chain_has():
    chain = DDPM.linear(20, beta_start=0.005, beta_end=0.5)
    with pytest.raises(ConfigError, match=r"steps.*20.*21"):  # B5
        run(chain, steps=21)
    with pytest.raises(ConfigError, match=r"steps.*20.*5000"):
        run(chain, steps=5000)
    with pytest.raises(ConfigError, match="20"):
        run(chain, grid=torch.linspace(1, 0, 30, dtype=torch.float64))


def test_a_tensor_that_collapses_on_nodes():
    chain = DDPM.linear(20, beta_start=0.005, beta_end=0.5)
    with pytest.raises(TimeError) as error:
        run(chain, grid=f64([1.0, 0.51, 0.49, 0.0]))
    for word in ("grid[1]", "grid[2]", "0.51", "0.49", "10/20"):
        assert word in str(error.value)
    # rounded to nodes where it does not
    assert torch.equal(run(chain, grid=f64([1.0, 0.51, 0.44, 0.0])).grid, f64([1, 0.5, 0.45, 0]))


def test_steps_that_contradict_a_tensor():
    with pytest.raises(ConfigError, match=r"steps=5.*2"):
        run(grid=f64([0.9, 0.5, 0.1]), steps=5)
    assert run(grid=f64([0.9, 0.5, 0.1]), steps=2).nfe == 2


def test_one_step_is_fine():
    assert run(steps=1).nfe == 1  # E10
    assert run(DDPM([0.5])).nfe == 1  # B3
