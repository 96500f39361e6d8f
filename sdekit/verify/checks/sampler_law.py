"""What a sampler returns, by exact laws: its order, its limit, the cases in which it is exact."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit.errors import ConfigError, TimeError
from sdekit.exact.order import fit_slope
from sdekit.model import ExactScore
from sdekit.sampling.grid import resolve_grid
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE
from sdekit.targets import Empirical, Gaussian
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.probes import (
    draws,
    exact_law,
    inner_grid,
    law_errors,
    probe,
    processes,
    replay,
    run_of,
    spectrum,
)
from sdekit.verify.published import STEPS
from sdekit.verify.strategies import f64, grids

# some slips cannot be seen on VE, some not on VP
_THREE = (VPSDE(), SubVPSDE(), VESDE())
_CHAIN = DDPM.linear(20, beta_start=0.005, beta_end=0.5)
STAGES = (*_THREE, EDM(), CosineSDE(), FlowSDE(), _CHAIN, DDPM.linear(100))
_LADDER = (20, 40, 80, 160, 320)


def _ordered(sampler: Any) -> int:
    """The order that is declared, or a Skip."""
    if sampler.order is None:
        raise Skip("it declares no order: its bias does not vanish with the number of steps")
    if "adaptive" in sampler.needs:
        raise Skip("it chooses its own steps")
    if "own_times" in sampler.needs:
        raise Skip("it places its own times, and they cannot be refined inside an interval")
    return int(getattr(sampler, "weak_order", sampler.order))


@lru_cache(maxsize=6)
def _errors(sampler: Any, sde: Any) -> list[Tensor]:
    """Signed errors on the ladder; order and limit look at the same ones."""
    model = ExactScore(spectrum(), sde)
    return [law_errors(sampler, model, inner_grid(sde, n)) for n in _LADDER]


@claim(
    "sampler",
    "the moments converge at the declared order p: e(n) = C n^-p, slope >= p - 0.1 on "
    "VP, sub-VP and VE",
    "Kloeden and Platen (1992), section 9.7",
    cost="slow",
)
def declared_order(sampler: Any) -> Finding:
    """Exact moments of the real steps, on a grid uniform in the log-SNR inside the interval."""
    declared = _ordered(sampler)
    worst = Finding(-math.inf, 0.1, "exact on Gaussian data at every number of steps")
    for sde in _THREE:
        errors = [float(e.abs().max()) for e in _errors(sampler, sde)]
        try:
            found = fit_slope(_LADDER, errors).value
        except ConfigError:  # at rounding from the start
            continue
        says = (
            f"order {found:.2f} on {sde!r}, declared {declared}; errors "
            f"{', '.join(f'{e:.2g}' for e in errors)} at {_LADDER} steps"
        )
        worst = max(worst, no_more_than(declared - found, 0.1, says), key=lambda f: f.measured)
    return worst


def _limit(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Where errors go whose differences shrink by a constant factor; else where they are."""
    bend = (c - b) - (b - a)
    still = ((c - b).abs() >= 0.8 * (b - a).abs()) | ((c - b).abs() < 1e-10)
    return torch.where(still, c, c - (c - b) ** 2 / torch.where(still, 1.0, bend))


@claim(
    "sampler",
    "with more and more steps the law of the output goes to the true law: the limit of e(n) is 0",
    "Kloeden and Platen (1992), section 9.4",
    cost="slow",
)
def limit_law(sampler: Any) -> Finding:
    """By Aitken's extrapolation of signed errors: what it leaves falls too, or is small."""
    _ordered(sampler)
    worst = Finding(0.0, 1.0)
    for sde in _THREE:
        errors = _errors(sampler, sde)
        a, b, c = errors[-3:]
        before, limit = _limit(*errors[-4:-1]), _limit(a, b, c)
        allowed = torch.maximum(0.6 * before.abs(), 0.1 * c.abs().max() + 1e-5)
        k = int((limit.abs() / allowed).argmax())
        what, d = ("variance", k) if k < len(c) // 2 else ("mean", k - len(c) // 2)
        says = (
            f"the {what} of coordinate {d} goes to {float(limit[k]):+.3g} from the true one on "
            f"{sde!r}; errors {float(a[k]):.3g}, {float(b[k]):.3g}, {float(c[k]):.3g} at 80, 160, "
            "320 steps"
        )
        found = no_more_than(float(limit[k].abs() / allowed[k]), 1.0, says)
        worst = max(worst, found, key=lambda f: f.measured)
    return worst


@lru_cache(maxsize=64)
def _serves(sampler: Any, sde: Any) -> bool:
    """Whether it runs there, or refuses."""
    model = ExactScore(spectrum(), sde)
    x = torch.zeros(1, len(spectrum().mean), dtype=torch.float64)
    try:
        run_of(sampler, model, x, resolve_grid("uniform", sde, 3), torch.zeros_like)
    except (ConfigError, TimeError):
        return False
    return True


def _staged(sampler: Any) -> Any:
    """The processes that it serves, each with any grid."""
    served = [sde for sde in STAGES if _serves(sampler, sde)] or list(STAGES)
    return st.sampled_from(served).flatmap(
        lambda sde: st.fixed_dictionaries({"sde": st.just(sde), "grid": grids(sde, 6)})
    )


@claim(
    "sampler",
    "on a single data point the output is N(alpha_s x_0, var_s I) on any grid",
    "arXiv:2010.02502, theorem 1",
    needs=("exact_on",),
    cost="fast",
    share=0.5,
    cases=_staged,
)
def point_data(sampler: Any, case: Any) -> Finding:
    """From the true x_T, for samplers that claim it: "point" in exact_on."""
    if "point" not in sampler.exact_on:
        raise Skip("it does not claim to be exact on point data")
    if "own_times" in sampler.needs:
        raise Skip("it places its own times; state_lies_at_its_time looks at them")
    sde, grid = case["sde"], case["grid"]
    x0 = f64([[0.8, -1.7]])
    model = ExactScore(Empirical(x0), sde)
    affine = probe(sampler, model, grid)
    (a, v), (b, w) = ((float(sde.alpha(t)), float(sde.var(t))) for t in (grid[0], grid[-1]))
    mean, var = affine.law(a * x0[0], f64([v, v]))
    size = math.sqrt(w) if w else 1.0
    # x_0 is what is left of x_T after its noise is taken off; a call whose result is used with
    # that of another one takes off what the first left, at a level where that is large
    left = math.sqrt(v) / a / size
    several = (sampler.nfe_per_step or 2) > 1 or any(
        getattr(sampler, name, 0) for name in ("warmup_nfe", "memory")
    )
    loss = getattr(sampler, "rounding", 1e-9) + 2e-15 * left * (1 + 10 * left * several)
    means = agree("the mean", mean, "alpha_s x_0", b * x0[0], tol=loss, scale=size)
    if not means.ok:
        return means
    return agree("the variance", var, "var_s", f64([w, w]), tol=loss, scale=size**2)


@claim(
    "sampler",
    "one step is the published formula",
    "the paper of each method",
    needs=("catalogue_name",),
)
def published_step(sampler: Any) -> Finding:
    """A formula written from the paper, for methods whose law alone does not tell them apart."""
    if sampler.catalogue_name not in STEPS:
        raise Skip(f"no formula is on file for {sampler.catalogue_name}")
    row = STEPS[sampler.catalogue_name]
    worst: Finding | None = None
    data = Gaussian(f64([0.6]), 0.3)
    for sde, t, s in row.steps:
        expected = row.formula(sampler, sde, t, s)
        if expected is None:
            continue
        affine = probe(sampler, ExactScore(data, sde), f64([t, s]))
        kick = affine.kicks.square().sum().sqrt()
        # the score of N(alpha m, total) is -(x - alpha m)/total
        level = s if row.at_end else t
        alpha = float(sde.alpha(level))
        total = alpha**2 * 0.3 + float(sde.var(level))
        slope, pull = expected.x - expected.score / total, expected.score * alpha * 0.6 / total
        seen = torch.stack([affine.start[0], affine.offset[0], kick])
        wanted = f64([slope, pull, expected.std])
        found = agree(
            "the step (slope, shift, noise)",
            seen,
            f"that of {row.source}",
            wanted,
            tol=1e-10,
            scale=wanted.abs().clamp_min(1e-3),
            at={"t": t, "s": s},
        )
        worst = found if worst is None else max(worst, found, key=lambda f: f.measured)
    if worst is None:
        raise Skip("the formula on file is that of other options")
    return worst


@claim(
    "sampler",
    "on isotropic data a rotation of start and noise rotates the output: Q S(x, z) = S(Q x, Q z)",
    "the score of N(0, c I) commutes with rotations",
    cost="fast",
    share=0.25,
    cases=lambda sampler: st.fixed_dictionaries(
        {"sde": st.sampled_from(processes(sampler, _THREE)), "seed": st.integers(0, 10**6)}
    ),
)
def rotations_commute(sampler: Any, case: Any) -> Finding:
    """Three dimensions, eight steps."""
    if "rejects" in sampler.needs:
        raise Skip("its uniform number is made of one coordinate of a draw")
    if {"adaptive", "noise"} <= sampler.needs:
        raise Skip("its steps look at coordinates one by one, and other steps meet other noise")
    sde, seed = case["sde"], case["seed"]
    q = torch.linalg.qr(draws(1, (3, 3), seed)[0]).Q
    model = ExactScore(Gaussian(torch.zeros(3, dtype=torch.float64), 0.3), sde)
    x = float(sde.prior_std()) * draws(1, (4, 3), seed + 1)[0]
    z = draws(60, (4, 3), seed + 2)
    grid = inner_grid(sde, 8)
    turned = run_of(sampler, model, x @ q.T, grid, replay(z @ q.T)).x
    plain = run_of(sampler, model, x, grid, replay(z)).x @ q.T
    # adaptive solvers see norms by coordinate, and stop within their tolerance
    tol = 1e-2 if "adaptive" in sampler.needs else getattr(sampler, "rounding", 1e-9)
    return agree("S(Q x, Q z)", turned, "Q S(x, z)", plain, tol=tol, scale=plain.abs().max())


@claim(
    "sampler",
    "a corrector leaves N(m, v) at rest but for its step h: stationary variance "
    "v/(1 - h/(2 v)), the mean exact",
    "Roberts and Tweedie, Bernoulli 2 (1996), example 2",
    cost="fast",
    of=("corrections",),
    share=0.5,
    cases=lambda sampler: st.fixed_dictionaries(
        {"sde": st.sampled_from(_THREE), "t": st.floats(0.1, 0.9)}
    ),
)
def corrector_keeps_the_law(sampler: Any, case: Any) -> Finding:
    """From the affine map of one level: out = m + A (x - m) + B z, stationary at B^2/(1 - A^2)."""
    if not callable(sampler.corrections):
        raise Skip("it is no corrector")
    sde, t = case["sde"], case["t"] * case["sde"].t_max
    model = ExactScore(spectrum(), sde)
    affine = probe(sampler, model, f64([min(1.05 * t, sde.t_max), t]))
    mean, var = exact_law(model, t)
    rest = affine.offset / (1 - affine.start)
    means = agree(
        "the mean at rest", rest, "that of the law", mean, tol=1e-8, scale=var.sqrt(), at={"t": t}
    )
    if not means.ok:
        return means
    one = affine.start.abs() ** (1 / sampler.nfe_per_step)
    stationary = affine.kicks.square().sum(0) / (1 - affine.start**2)
    return agree(
        "the variance at rest",
        stationary,
        "v/(1 - h/(2 v))",
        2 * var / (1 + one),
        tol=1e-8,
        at={"t": t, "v": var},
    )


@claim(
    "sampler",
    "after a predictor the corrector works at the level that was reached: with many "
    "corrections the law is that level's, whatever the predictor left",
    "arXiv:2011.13456, algorithm 1",
    of=("predictor", "corrector"),
    cost="fast",
)
def corrector_at_its_level(sampler: Any) -> Finding:
    """One row with 200 corrections, from a start that is far off."""
    many = replace(sampler, corrections=200 // sampler.corrector.nfe_per_step, first="predictor")
    worst = Finding(0.0, 0.1)
    for sde in _THREE:
        t, s = 0.6 * sde.t_max, 0.3 * sde.t_max
        model = ExactScore(Gaussian(f64([0.7, 0.2]), 1e-4), sde)  # narrow: every step is felt
        mean, var = probe(many, model, f64([t, s])).law(*exact_law(model, t))
        true_mean, true_var = exact_law(model, s)
        off = torch.maximum((var / true_var - 1).abs(), (mean - true_mean).abs() / true_var.sqrt())
        says = (
            f"variances {var.tolist()} for {true_var.tolist()} at the level s = {s:.3g} on {sde!r}"
        )
        worst = max(worst, no_more_than(off.max(), 0.1, says), key=lambda f: f.measured)
    return worst
