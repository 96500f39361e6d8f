"""Grids, noise sources, and averages of weights."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from torch import nn

from sdekit.errors import ConfigError
from sdekit.model import ScoreModel
from sdekit.sde import VPSDE
from sdekit.verify.checks.sampler_law import STAGES
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.published import SPACINGS
from sdekit.verify.statistics import bonferroni, normal
from sdekit.verify.strategies import f64


@claim(
    "grid",
    "n steps are n + 1 times, strictly decreasing from t_max to t_min",
    "conventions of sdekit, 1",
    cases=lambda grid: st.fixed_dictionaries(
        {"sde": st.sampled_from(STAGES), "steps": st.sampled_from([1, 2, 3, 5, 10, 19])}
    ),
)
def grid_contract(grid: Any, case: Any) -> Finding:
    """As the rule places them, before a chain rounds them to nodes."""
    sde, steps = case["sde"], case["steps"]
    try:
        times = grid.times(sde, steps)
    except ConfigError as error:
        raise Skip(f"it is for other processes: {error}") from error
    if tuple(times.shape) != (steps + 1,):
        return no_more_than(1.0, 0.0, f"{steps} steps are {tuple(times.shape)} times on {sde!r}")
    rise = float(times.diff().max())
    if not rise < 0:
        return no_more_than(1.0, 0.0, f"neighbours rise by {rise:.3g} on {sde!r}")
    ends = torch.stack([times[0] - sde.t_max, times[-1] - sde.t_min]).abs()
    says = f"from {float(times[0]):.6g} to {float(times[-1]):.6g} on {sde!r}"
    return no_more_than(float(ends.max()) / sde.t_max, 1e-12, says)


@claim(
    "grid",
    "what the name says is equally spaced: t, sqrt(t), the log-SNR or (sigma/alpha)^(1/rho)",
    "the paper of each name",
    needs=("catalogue_name",),
    cases=lambda grid: st.sampled_from([sde for sde in STAGES if "ddpm" not in sde.kinds]),
)
def published_spacing(grid: Any, sde: Any) -> Finding:
    """Ten steps on every process with continuous time."""
    if grid.catalogue_name not in SPACINGS:
        raise Skip(f"no formula is on file for {grid.catalogue_name}")
    formula, source = SPACINGS[grid.catalogue_name]
    t = grid.times(sde, 10)
    spaced = formula(grid, sde, t)
    even = torch.linspace(float(spaced[0]), float(spaced[-1]), 11, dtype=torch.float64)
    size = (spaced[0] - spaced[-1]).abs()
    name = f"even steps of {source}"
    return agree("what is spaced", spaced, name, even, tol=1e-7, scale=size, at={"t": t})


@claim(
    "noise", "draws are independent standard normal", "conventions of sdekit, 9", statistical=True
)
def noise_law(noise: Any, n: int, generator: torch.Generator) -> float:
    """Draws, and sums over neighbouring draws, coordinates and samples, which see dependence."""
    source = type(noise)(int(torch.randint(2**62, (1,), generator=generator)))
    x = torch.empty(n // 2, 2, dtype=torch.float64)
    first, second = source(x).clone(), source(x).clone()
    sums = (
        first + second,
        first[:, :1] + first[:, 1:],
        first[: n // 4] + first[n // 4 : n // 4 * 2],
    )
    return bonferroni(normal(first), normal(second), *(normal(z / 2**0.5) for z in sums))


@claim(
    "noise",
    "sample i's noise is its own: a slice of the batch, made alone, gets the same bits; "
    "the next draw others",
    "conventions of sdekit, 9",
    cases=lambda noise: st.fixed_dictionaries(
        {"seed": st.integers(0, 2**63 - 1), "n": st.integers(2, 70), "cut": st.floats(0.0, 0.9)}
    ),
)
def noise_by_the_sample(noise: Any, case: Any) -> Finding:
    """For any seed, size and slice."""
    n, low = case["n"], int(case["cut"] * case["n"])
    source, part = type(noise)(case["seed"]), type(noise)(case["seed"], first=low)
    whole, tail = source(torch.empty(n, 3)).clone(), part(torch.empty(n - low, 3)).clone()
    found = agree("a slice", tail, "the slice of the batch", whole[low:], tol=0.0, scale=1.0)
    if not found.ok:
        return found
    again = source(torch.empty(n, 3))
    return no_more_than(float(torch.equal(again, whole)), 0.0, "the second draw is the first")


class _Network(nn.Module):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The weight times x."""
        return self.weight * x


def _weights(k: int) -> torch.Tensor:
    return torch.sin(f64([0.3, 1.1, 2.0]) * (k + 1))


def _run(average: Any, model: Any, of: Any, low: int, high: int) -> torch.Tensor:
    for k in range(low, high):
        with torch.no_grad():
            model.network.weight.copy_(_weights(k))
        of.update()
    return of.model.network.weight.detach().clone()


@claim(
    "average",
    "the average is sum_k (1 - d_k) prod_{j > k} d_j w_k with d_n = min(decay, "
    "(1 + n)/(10 + n)) and d_1 = 0",
    "Polyak and Juditsky (1992); torch.optim.swa_utils",
    cases=lambda average: st.fixed_dictionaries(
        {"decay": st.floats(0.0, 0.999), "steps": st.integers(1, 40)}
    ),
)
def average_closed_form(average: Any, case: Any) -> Finding:
    """The sum written out."""
    model = ScoreModel(_Network(), VPSDE())
    n = case["steps"]
    d = [min(case["decay"], (1 + k) / (10 + k)) if k > 1 else 0.0 for k in range(1, n + 1)]
    left, expected = 1.0, torch.zeros(3, dtype=torch.float64)
    for k in reversed(range(n)):
        expected += left * (1 - d[k]) * _weights(k)
        left *= d[k]
    seen = _run(average, model, average(model, case["decay"]), 0, n)
    return agree(
        "the average",
        seen,
        "its closed form",
        expected,
        tol=1e-12,
        scale=1.0,
        at={"steps": float(n)},
    )


@claim(
    "average",
    "an average that is stored and restored goes on as if it had not been",
    "FAULTS: H13",
    cases=lambda average: st.fixed_dictionaries(
        {"decay": st.floats(0.3, 0.999), "steps": st.integers(1, 20)}
    ),
)
def average_goes_on(average: Any, case: Any) -> Finding:
    """Stopped after some steps and taken up by a new object."""
    model, n = ScoreModel(_Network(), VPSDE()), case["steps"]
    whole = average(model, case["decay"])
    _run(average, model, whole, 0, n)
    kept = {name: value.clone() for name, value in whole.model.state_dict().items()}
    resumed = average(model, case["decay"])
    resumed.restore(kept, whole.count)
    expected, seen = (_run(average, model, of, n, n + 5) for of in (whole, resumed))
    return agree("the average gone on", seen, "the average", expected, tol=0.0, scale=1.0)
