"""Weights of training losses over time, and the laws of their times."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit.objectives.weightings import Likelihood, MinSNR
from sdekit.sde import DDPM
from sdekit.verify.checks.objective import SDES
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.laws import LAWS
from sdekit.verify.published import WEIGHTS
from sdekit.verify.statistics import uniform
from sdekit.verify.strategies import f64, times

_CHAIN = DDPM.linear(20, beta_start=0.005, beta_end=0.5)
_WEIGHTINGS = (Likelihood(), MinSNR(gamma=0.5))
_weighted = st.sampled_from(SDES).flatmap(
    lambda sde: st.fixed_dictionaries({"sde": st.just(sde), "t": times(sde, 4, least=1e-4)})
)


@claim(
    "weighting",
    "the weight of the squared error of the noise is the published one",
    "the paper of each name",
    needs=("catalogue_name",),
    cases=lambda weighting: _weighted,
)
def published_weight(weighting: Any, case: Any) -> Finding:
    """By name."""
    if weighting.catalogue_name not in WEIGHTS:
        raise Skip(f"no weight is on file for {weighting.catalogue_name}")
    formula, source = WEIGHTS[weighting.catalogue_name]
    sde, t = case["sde"], case["t"]
    return agree(
        "the weight",
        weighting.weight(sde, t),
        f"that of {source}",
        formula(weighting, sde, t),
        tol=1e-9,
        at={"t": t},
    )


@claim(
    "weighting",
    "a weight is finite and positive",
    "arXiv:2101.09258, section 3",
    cases=lambda weighting: _weighted,
)
def weight_is_positive(weighting: Any, case: Any) -> Finding:
    """At all times."""
    w = weighting.weight(case["sde"], case["t"])
    bad = ~(torch.isfinite(w) & (w >= 0))
    k = int(bad.to(torch.int64).argmax())
    says = f"w = {float(w[k]):.6g} at t = {float(case['t'][k]):.6g} on {case['sde']!r}"
    return no_more_than(float(bad.sum()), 0.0, says)


# laws of the time -----------------------------------------------------------------------------


@claim(
    "time",
    "every draw on (0, 1] gives a time between t_min and t_max, in one order",
    "conventions of sdekit, 1",
)
def times_are_inside(law: Any) -> Finding:
    """From the ends inward, on processes and a chain."""
    u = torch.cat([f64([2.0**-53]), torch.linspace(0.001, 1, 1000, dtype=torch.float64)])
    worst = Finding(0.0, 0.0)
    sde: Any
    for sde in (*SDES, _CHAIN):
        for weighting in _WEIGHTINGS:
            t = law.times(sde, u, weighting)
            outside = ~((t >= sde.t_min) & (t <= sde.t_max))
            k = int(outside.to(torch.int64).argmax())
            says = f"t = {float(t[k]):.6g} for u = {float(u[k]):.6g} on {sde!r}"
            steps = t.diff().sign().unique()
            if not bool(outside.any()) and 1 in steps and -1 in steps:
                return no_more_than(1.0, 0.0, f"times rise and fall with u on {sde!r}")
            worst = max(
                worst, no_more_than(float(outside.sum()), 0.0, says), key=lambda f: f.measured
            )
    return worst


@claim("time", "times follow the published law", "the paper of each name", statistical=True)
def published_law(law: Any, n: int, generator: torch.Generator) -> float:
    """By its distribution function, on sub-VP."""
    name = getattr(law, "catalogue_name", "")
    if name not in LAWS:
        raise Skip(f"no law is on file for {name}")
    sde, weighting = SDES[1], _WEIGHTINGS[1]
    t = law.times(sde, law.uniforms(n, generator), weighting)
    return uniform(LAWS[name][0](law, weighting, sde, t))


@claim(
    "time",
    "n draws of a batch lie one in each n-th part of (0, 1], and not in the order of the rows",
    "arXiv:2107.00630, appendix I.1",
    of=("joint",),
)
def one_draw_in_each_part(law: Any) -> Finding:
    """Of 64, three times."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        part = (64 * law.uniforms(64, generator)).ceil()
        taken = len(part.unique())
        if taken < 64 or bool((part.diff() > 0).all()):
            return no_more_than(64.0 - taken or 1.0, 0.0, f"{taken} of 64 parts hold a draw")
    return no_more_than(0.0, 0.0, "one in each")


def _mean_over(law: Any, sde: Any, weighting: Any, corrected: bool) -> Tensor:
    """E w(t) h(t), by the midpoint rule over u, with the law's own correction."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    t = sde.to_model_time(law.times(sde, u, weighting))
    w = weighting.weight(sde, t)
    if corrected:
        w = w * law.ratio(sde, t, weighting)
    return (w * (2 + torch.sin(7 * t))).mean()


@claim(
    "time",
    "the expected loss, with the correction, is that of uniform times",
    "arXiv:2101.09258, section 5",
    of=("corrected",),
    cost="fast",
)
def corrected_to_uniform_times(law: Any) -> Finding:
    """E p_uniform / p w h for a smooth h against the integral over the time, by quadrature."""
    worst = Finding(0.0, 1e-4)
    sde: Any
    for sde in (*SDES, _CHAIN):
        for weighting in _WEIGHTINGS:
            if sde is _CHAIN:
                t = sde.time(torch.arange(1, sde.n + 1))
                p = torch.full_like(t, 1 / sde.n)
            else:  # equal steps in t^(1/3): weights grow like 1/t
                root = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
                t = sde.t_min + (sde.t_max - sde.t_min) * root**3
                p = 3 * root**2 / len(root)
            expected = (p * weighting.weight(sde, t) * (2 + torch.sin(7 * t))).sum()
            found = agree(
                f"the mean over {law!r}",
                _mean_over(law, sde, weighting, True)[None],
                "that over uniform times",
                expected[None],
                tol=1e-4,
            )
            says = f"{found.says}, for {weighting!r} on {sde!r}"
            worst = max(worst, Finding(found.measured, 1e-4, says), key=lambda f: f.measured)
    return worst
