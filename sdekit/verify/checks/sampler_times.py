r"""How many steps a sampler takes, when it asks its model, and whether its states lie there.

With a single data point x_0 every state of a sampler that is exact on point data is

    x = alpha_s x_0 + sigma_s e,                                                             (1)

e the noise of the start, for some time s. Two coordinates, x_0 = (1, 0) and e = (0, 1), read
alpha_s and sigma_s off a state, and the process says which s has them. It must be the time t that
the model is asked at: a step whose target is not the next time of its own list shows as s != t.
"""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit.errors import NonFiniteError, SdekitError
from sdekit.model import ExactScore
from sdekit.sampling.grid import resolve_grid
from sdekit.sampling.noise import KeyedNoise
from sdekit.targets import Empirical
from sdekit.verify.checks.sampler_law import _THREE, STAGES
from sdekit.verify.checks.sampler_runs import _TWO
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.probes import draws, inner_grid, processes, run_of
from sdekit.verify.strategies import f64

_SPACING = "arXiv:2305.08891, table 2"
_OFF = 1e-6  # of t_max, for a process
_NODES = 0.75  # of a chain's nodes: a time rounded to a node is half of one away


def _cases(sampler: Any) -> Any:
    """A process and a number of steps; the mean of a noisy method must tell the time."""
    offered = processes(sampler, _THREE)
    if "noise" in sampler.needs:
        offered = [sde for sde in offered if hasattr(sde, "t_from_log_alpha")]
    return st.fixed_dictionaries({"sde": st.sampled_from(offered), "steps": st.integers(1, 30)})


class _Asked:
    """A predictor that notes the first state, and the time, of every call."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.sde = model.sde
        self.calls: list[tuple[Tensor, float]] = []

    def __call__(self, x: Tensor, t: Any, **cond: Any) -> Any:
        self.calls.append((x[0].clone(), float(t)))
        return self.model(x, t, **cond)


def _run(sampler: Any, case: Any, noise: Any) -> tuple[list[tuple[Tensor, float]], Tensor]:
    """The states and times of the calls from a start of eq. (1), and the result."""
    sde, grid = case["sde"], inner_grid(case["sde"], case["steps"])
    model = ExactScore(Empirical(f64([[1.0, 0.0]])), sde)

    def run(t: float) -> tuple[list[tuple[Tensor, float]], Tensor]:
        asked = _Asked(model)
        start = f64([[float(sde.alpha(t)), float(sde.sigma(t))]])
        return asked.calls, run_of(sampler, asked, start, grid, noise).x[0]

    calls, out = run(float(grid[0]))
    first = calls[0][1]
    # some spacings begin below the process's end: the start is then that of their first time;
    # churn begins above it, and goes there itself
    return (calls, out) if first >= float(grid[0]) else run(first)


@claim(
    "sampler",
    "the model is asked at t with a state of time t: on a single data point x_0 it is "
    "alpha_t x_0 + sigma_t e, and the result is that of the grid's end",
    f"arXiv:2010.02502, theorem 1; {_SPACING}",
    needs=("exact_on",),
    cost="fast",
    share=0.3,
    cases=_cases,
)
def state_lies_at_its_time(sampler: Any, case: Any) -> Finding:
    """By eq. (1); of a noisy method alpha_s without noise, then the end with noise."""
    if "point" not in sampler.exact_on:
        raise Skip("it does not claim to be exact on point data")
    sde, noisy = case["sde"], "noise" in sampler.needs
    count = getattr(sde, "n", None)
    unit, tol, of = (count, _NODES, f" of {count}") if count else (1 / sde.t_max, _OFF, "")
    calls, out = _run(sampler, case, torch.zeros_like)
    worst = Finding(0.0, tol)
    for x, t in calls:
        if noisy:
            lies = float(sde.t_from_log_alpha(x[0].abs().log()))
        else:
            lies = float(sde.t_from_log_snr(2 * (x[0] / x[1]).abs().log()))
        says = f"asked at time {unit * t:.6g}{of} with the state of time {unit * lies:.6g}"
        off = unit * abs(lies - t)
        if not off <= worst.measured:
            worst = no_more_than(off, tol, says)
    return worst if not worst.ok else _at_the_end(sampler, case, out)


def _at_the_end(sampler: Any, case: Any, out: Tensor) -> Finding:
    """The result is x_0 where there is no noise left, whatever was drawn; else eq. (1)."""
    sde, end = case["sde"], float(inner_grid(case["sde"], 1)[-1])
    expected = f64([float(sde.alpha(end)), float(sde.sigma(end))])
    if "noise" in sampler.needs:
        if expected[1] == 0:
            out = _run(sampler, case, KeyedNoise(0))[1]
        else:
            out, expected = out[:1], expected[:1]
    tol = 100 * getattr(sampler, "rounding", 1e-9)
    return agree("the result", out, "alpha_s x_0 + sigma_s e", expected, tol=tol, scale=1.0)


@claim(
    "sampler",
    "a method of one call a step asks at strictly decreasing times",
    _SPACING,
    needs=("nfe_per_step",),
    share=0.3,
    cases=lambda sampler: st.fixed_dictionaries(
        {"sde": st.sampled_from(processes(sampler, _THREE)), "steps": st.integers(1, 30)}
    ),
)
def times_go_down(sampler: Any, case: Any) -> Finding:
    """The times of the calls."""
    if sampler.nfe_per_step != 1 or sampler.order is None or "adaptive" in sampler.needs:
        raise Skip("it may ask twice at a time")
    if getattr(sampler, "warmup_nfe", 0):
        raise Skip("its first rows ask twice at a time")
    calls, _ = _run(sampler, case, KeyedNoise(0))
    t = f64([t for _, t in calls])
    if len(t) < 2:
        return no_more_than(0.0, 0.0, "one call")
    still = (t.diff() >= 0).nonzero().flatten()
    if not len(still):
        return no_more_than(0.0, 0.0, f"{len(t)} times")
    k = int(still[0])
    unit = getattr(case["sde"], "n", 1)
    says = (
        f"call {k + 2} is at time {unit * float(t[k + 1]):.6g}, the one before at "
        f"{unit * float(t[k]):.6g}; {len(still)} of {len(t) - 1} steps do not go down"
    )
    return no_more_than(float(len(still)), 0.0, says)


@claim(
    "sampler",
    "at any number of steps the result is finite and of the size of the law, or the "
    "sampler refuses",
    "diffusers #12771, #14569",
    cost="fast",
)
def any_number_of_steps(sampler: Any) -> Finding:
    """1, 2, 3 and 10 steps on every process, 1000 on VP; other grids; a refusal is an error."""
    worst, ran = Finding(0.0, 1.0), 0
    on = frozenset(sampler.needs) - {"noise", "grad", "adaptive", "own_times", "rejects"}
    home = processes(sampler, ())
    for sde in home or STAGES:
        if not on <= sde.kinds:
            continue
        model = ExactScore(_TWO, sde)
        size = float(sde.prior_std()) + 3.0
        for name, steps in _asked(sampler, long=bool(home) or sde is _THREE[0]):
            try:
                grid = _times(sampler, sde, name, steps)
                x = float(sde.prior_std()) * draws(1, (4, 2))[0]
                out = run_of(sampler, model, x, grid, KeyedNoise(0)).x
            except NonFiniteError as error:  # the model was asked with NaN: that is no refusal
                return no_more_than(math.inf, 1.0, f"after {steps} steps on {sde!r}: {error}")
            except SdekitError:
                continue
            ran += 1
            peak = float(out.abs().max())
            # few steps of a stiff process grow by orders; garbage grows by more
            found = no_more_than(
                peak / (1e6 * size) if math.isfinite(peak) else math.inf,
                1.0,
                f"values up to {peak:.3g} after {steps} steps of the {name} grid on {sde!r}",
            )
            worst = max(worst, found, key=lambda f: f.measured)
    return worst if ran else no_more_than(math.inf, 0.0, "it refuses everything")


def _asked(sampler: Any, *, long: bool) -> list[tuple[str, int]]:
    """The grids and numbers of steps that a sampler is run with."""
    if "adaptive" in sampler.needs:
        return [("uniform", 1)]
    counts = (1, 2, 3, 10, 1000) if long else (1, 2, 3, 10)
    other = (
        [] if "own_times" in sampler.needs else [("log_snr", 2), ("karras", 10), ("quadratic", 3)]
    )
    return [*(("uniform", steps) for steps in counts), *other]


def _times(sampler: Any, sde: Any, name: str, steps: int) -> Tensor:
    """A grid; one that is not looked at may have more steps than a chain has nodes."""
    if "own_times" in sampler.needs:
        return torch.linspace(sde.t_max, sde.t_min, steps + 1, dtype=torch.float64)
    return resolve_grid(name, sde, steps)
