"""Transitions, posteriors and draws of a linear SDE."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit.verify.claims import Finding, agree, claim
from sdekit.verify.strategies import f64, time_pairs, times

_RELATIVE = 1e-9  # s / t stays below 0.99, so that differences of log-SNRs keep their digits


@claim(
    "sde",
    "transitions compose: scale(u, t) = scale(u, s) scale(s, t), "
    "var(u, t) = scale(s, t)^2 var(u, s) + var(s, t)",
    "Chapman-Kolmogorov; arXiv:2107.00630, eq. 25",
    needs=("transition",),
    cases=lambda sde: st.tuples(time_pairs(sde, least=1e-8), st.floats(0.05, 0.95)),
)
def semigroup(sde: Any, case: Any) -> Finding:
    """For u < s < t; on a chain s is a node between."""
    pair, part = case
    s, t = pair["s"], pair["t"]
    on_chain = "ddpm" in sde.kinds
    u = f64([sde.time(int(part * sde.index(s)))]) if on_chain else part * s
    (a, p), (b, q), (c, r) = sde.transition(u, s), sde.transition(s, t), sde.transition(u, t)
    at = {"u": u, "s": s, "t": t}
    scales = agree("scale(u, t)", c, "scale(u, s) scale(s, t)", a * b, tol=_RELATIVE, at=at)
    if not scales.ok:
        return scales
    return agree(
        "var(u, t)",
        r**2,
        "scale(s, t)^2 var(u, s) + var(s, t)",
        b**2 * p**2 + q**2,
        tol=_RELATIVE,
        at=at,
    )


@claim(
    "sde",
    "the transition carries the marginals: alpha_t = scale alpha_s, var_t = scale^2 var_s + std^2",
    "arXiv:2107.00630, eqs. 21 to 24",
    needs=("transition", "log_alpha", "var"),
    cases=time_pairs,
)
def marginal_from_transition(sde: Any, case: Any) -> Finding:
    """For s < t."""
    s, t = case["s"], case["t"]
    scale, std = sde.transition(s, t)
    log_scale = sde.log_alpha(t) - sde.log_alpha(s)
    means = agree("scale", scale, "alpha_t / alpha_s", log_scale.exp(), tol=_RELATIVE, at=case)
    if not means.ok:
        return means
    return agree(
        "std^2",
        std**2,
        "var_t - scale^2 var_s",
        sde.var(t) - scale**2 * sde.var(s),
        tol=_RELATIVE,
        scale=sde.var(t),
        at=case,
    )


@claim(
    "sde",
    "x_s | x_t, x_0 is Bayes' rule of two Gaussians: 1/var = 1/var_s + scale^2/std^2, "
    "weights var scale/std^2 and var alpha_s/var_s",
    "arXiv:2006.11239, eqs. 6 and 7",
    needs=("posterior", "transition", "alpha", "var"),
    cases=time_pairs,
)
def posterior_is_bayes(sde: Any, case: Any) -> Finding:
    """Precision and mean; at var_s = 0 it is x_0 itself."""
    s, t = case["s"], case["t"]
    found, (scale, std), var_s = sde.posterior(s, t), sde.transition(s, t), sde.var(s)
    variance = var_s * std**2 / (std**2 + scale**2 * var_s)
    zero = torch.zeros_like(variance)
    expected = {
        "the variance": (found.var, variance),
        "the weight of x_t": (found.x_t, variance * scale / std**2),
        "the weight of x_0": (found.x_0, sde.alpha(s) * std**2 / (std**2 + scale**2 * var_s)),
    }
    worst = Finding(0.0, 1e-8)
    for name, (seen, bayes) in expected.items():
        bayes = torch.where(torch.isfinite(bayes), bayes, zero)
        one = agree(name, seen, "that of Bayes' rule", bayes, tol=1e-8, at=case)
        if one.measured >= worst.measured:
            worst = one
    return worst


@claim(
    "sde",
    "perturb returns alpha x_0 + sigma noise",
    "arXiv:2011.13456, eq. 29",
    needs=("perturb", "log_alpha", "var"),
    cases=lambda sde: times(sde, 4),
)
def perturb_draws_the_marginal(sde: Any, t: Tensor) -> Finding:
    """For samples and noise that are given."""
    x0 = torch.linspace(-2, 1, 3, dtype=torch.float64).repeat(len(t), 1)
    noise = torch.linspace(1.5, -0.5, 3, dtype=torch.float64).repeat(len(t), 1)
    alpha, sigma = sde.log_alpha(t).exp()[:, None], sde.var(t).sqrt()[:, None]
    return agree(
        "perturb(x0, t, noise)",
        sde.perturb(x0, t, noise),
        "alpha x0 + sigma noise",
        alpha * x0 + sigma * noise,
        tol=1e-13,
        scale=alpha * x0.abs() + sigma * noise.abs(),
        at={"t": t[:, None].expand_as(x0)},
    )
