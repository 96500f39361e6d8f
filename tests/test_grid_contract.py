"""Claim: a named grid is steps + 1 strictly decreasing times from t_max to t_min, on any SDE.

On a DDPM they are nodes i/N, as many as were asked for, and all of them where steps = N. Only
`ddpm_leading` starts below t_max: that is its definition. Read from `sample(...).grid` of no
samples.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import defaults
from strategies import EVERY, every_sde

from sdekit.errors import ConfigError
from sdekit.model import ExactScore
from sdekit.sampling import Karras, sample
from sdekit.sde import DDPM, VPSDE
from sdekit.targets import Gaussian

GRIDS = {**defaults("grid"), "karras-3": Karras(rho=3.0)}
CHAINS = {
    **{name: sde for name, sde in EVERY.items() if "ddpm" in sde.kinds},
    "inner": DDPM([0.01 * i for i in range(1, 21)], t_min=0.25, t_max=0.75),
}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def times(sde, grid, steps=None) -> torch.Tensor:
    model = ExactScore(Gaussian([0.0], 1.0), sde)
    return sample(model, (0, 1), grid=grid, steps=steps).grid


def chain_grid(grid) -> bool:
    return getattr(grid, "catalogue_name", "").startswith("ddpm")


@every_sde
@every_grid
def test_contract(sde, grid):
    if chain_grid(grid) and "ddpm" not in sde.kinds:
        with pytest.raises(ConfigError, match="grid"):
            times(sde, grid, 5)
        return
    most = round((sde.t_max - sde.t_min) * sde.n) if "ddpm" in sde.kinds else 1000
    for steps in sorted({k for k in (1, 2, 3, 10, 137, 1000, most) if k <= most}):
        t = times(sde, grid, steps)
        assert t.dtype == torch.float64
        assert t.shape == (steps + 1,)
        assert bool((t.diff() < 0).all())
        assert float(t[-1]) == sde.t_min
        if getattr(grid, "catalogue_name", "") != "ddpm_leading":
            assert float(t[0]) == sde.t_max


@pytest.mark.parametrize("sde", CHAINS.values(), ids=CHAINS)
@every_grid
def test_on_a_chain_the_times_are_nodes(sde, grid):
    low, high = sde.index(sde.t_min), sde.index(sde.t_max)
    for steps in sorted({1, 2, 3, (high - low + 1) // 2, max(high - low - 1, 1)}):
        if steps > high - low:
            continue
        t = times(sde, grid, steps)
        nodes = sde.index(t)
        assert len(t) == steps + 1
        assert int(nodes[-1]) == low
        assert int(nodes[0]) <= high
        assert bool((nodes.diff() < 0).all())
        assert torch.equal(sde.time(nodes), t)  # bit for bit: nodes, not times near them
    everything = sde.time(torch.arange(high, low - 1, -1))
    assert torch.equal(times(sde, grid, high - low), everything)
    assert torch.equal(times(sde, grid), everything)  # steps=None is all of a chain


@pytest.mark.parametrize("sde", CHAINS.values(), ids=CHAINS)
@every_grid
def test_a_chain_refuses_more_steps_than_it_has(sde, grid):
    most = round((sde.t_max - sde.t_min) * sde.n)
    with pytest.raises(ConfigError, match=rf"steps.*{most}.*{most + 1}"):
        times(sde, grid, most + 1)


def test_the_default_is_fifty_steps():
    assert len(times(VPSDE(), "uniform")) == 51


@pytest.mark.parametrize("n", [1, 7, 83, 1000, 2000, 4096])
def test_index_to_grid_and_back_is_one_to_one(n):
    """Bugs 6 and 22: a truncated index skips nodes (half of 2000 are off), rounding does not."""
    sde = DDPM.linear(n, beta_end=0.02)
    t = times(sde, "uniform", n)
    nodes = torch.arange(n, -1, -1)
    assert torch.equal(sde.index(t), nodes)
    assert torch.equal(sde.index(t.float()), nodes)
    if n == 2000:
        source = torch.linspace(1, 1e-3, n, dtype=torch.float64)
        truncated = (source * (n - 1)).long()
        assert int((truncated != torch.arange(n - 1, -1, -1)).sum()) > 900


@pytest.mark.parametrize("steps", [15, 20, 50, 300, 999])
def test_no_time_is_visited_twice_on_the_cosine_chain(steps):
    """Bugs 22 and 34: 8 duplicates of 20 with a Karras spacing, 999 distinct times of 1000."""
    for grid in GRIDS.values():
        t = times(DDPM.cosine(1000), grid, steps)
        assert len(set(t.tolist())) == steps + 1
