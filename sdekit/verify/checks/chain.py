"""Discrete chains: the DDPM table as a linear SDE with nodes i/N."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import torch

from sdekit.errors import SdekitError
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.strategies import f64, nodes

_HO = "arXiv:2006.11239"
_CHAIN = ("ddpm",)


@claim("sde", "alpha_bar_i is the product of 1 - beta_j over j <= i", f"{_HO}, eq. 4", of=_CHAIN)
def chain_product(chain: Any) -> Finding:
    """By a running product, and at the nodes of the schedule."""
    product = (1 - chain.betas.double()).cumprod(0)
    i = torch.arange(1, chain.n + 1)
    table = agree(
        "alphas_bar", chain.alphas_bar, "the product of 1 - beta", product, tol=1e-12, at={"i": i}
    )
    if not table.ok:
        return table
    return agree(
        "alpha(i/N)^2",
        chain.alpha(i.double() / chain.n).square(),
        "alpha_bar_i",
        product,
        tol=1e-12,
        at={"i": i},
    )


@claim(
    "sde",
    "one step is x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) eps",
    f"{_HO}, eq. 2",
    of=_CHAIN,
    needs=("transition",),
)
def chain_transition(chain: Any) -> Finding:
    """Of every step of the table."""
    i = torch.arange(1, chain.n + 1, dtype=torch.float64)
    scale, std = chain.transition((i - 1) / chain.n, i / chain.n)
    scales = agree(
        "the scale", scale, "sqrt(1 - beta_i)", (1 - chain.betas).sqrt(), tol=1e-12, at={"i": i}
    )
    if not scales.ok:
        return scales
    return agree("the variance", std**2, "beta_i", chain.betas, tol=1e-10, at={"i": i})


@claim(
    "sde",
    "beta_tilde_i = beta_i (1 - alpha_bar_{i-1})/(1 - alpha_bar_i), and the weights of "
    "x_0 and x_i are sqrt(alpha_bar_{i-1}) beta_i and sqrt(1 - beta_i)(1 - alpha_bar_{i-1}) "
    "over 1 - alpha_bar_i",
    f"{_HO}, eq. 7",
    of=_CHAIN,
    needs=("posterior_variance", "posterior_mean_coefficients"),
)
def chain_posterior(chain: Any) -> Finding:
    """By Bayes' rule from the betas alone: precisions add, means are weighted by them."""
    beta = chain.betas.double()
    bar = torch.cat([f64([1.0]), (1 - beta).cumprod(0)])
    before, alpha = bar[:-1], 1 - beta
    start = 1 - before  # the variance of x_{i-1} | x_0
    variance = start * beta / (beta + alpha * start)
    weights = chain.posterior_mean_coefficients
    at = {"i": torch.arange(1, chain.n + 1)}
    parts = [
        agree(
            "the variance",
            chain.posterior_variance,
            "Bayes' rule",
            variance,
            tol=1e-9,
            at=at,
            scale=variance.clamp_min(1e-300),
        ),
        agree(
            "the weight of x_0",
            weights.x_0,
            "Bayes' rule",
            before.sqrt() * beta / (beta + alpha * start),
            tol=1e-9,
            at=at,
        ),
        agree(
            "the weight of x_i",
            weights.x_t,
            "Bayes' rule",
            alpha.sqrt() * start / (beta + alpha * start),
            tol=1e-9,
            at=at,
        ),
    ]
    return max(parts, key=lambda f: f.measured)


@claim(
    "sde",
    "node i lies at t = i/N, and index(time(i)) = i, in float64 and in float32",
    "conventions of sdekit, 5",
    of=_CHAIN,
    needs=("time", "index"),
)
def chain_nodes(chain: Any) -> Finding:
    """Of every node."""
    last = chain.index(chain.t_max)
    i = torch.arange(last + 1)
    t = chain.time(i).double()
    placed = agree("time(i)", t, "i/N", i.double() / chain.n, tol=1e-15, at={"i": i})
    if not placed.ok:
        return placed
    for form in (t, t.float()):
        back = chain.index(form)
        wrong = (back != i).nonzero().flatten()
        if len(wrong):
            k = int(wrong[0])
            says = (
                f"index(time({k})) = {int(back[k])}, and so for {len(wrong)} nodes in {form.dtype}"
            )
            return no_more_than(float(len(wrong)), 0.0, says)
    return no_more_than(0.0, 0.0, "a bijection")


@claim(
    "sde",
    "a respaced chain keeps alpha_bar at the steps that it keeps",
    "arXiv:2102.09672, section 4",
    of=_CHAIN,
    needs=("respaced",),
    cases=lambda chain: st.sets(nodes(chain), min_size=1, max_size=6),
)
def chain_respaced(chain: Any, kept: set[int]) -> Finding:
    """For any steps."""
    indices = sorted(kept)
    found = chain.respaced(indices).alphas_bar
    expected = (1 - chain.betas).cumprod(0)[[i - 1 for i in indices]]
    return agree(
        "alpha_bar of the respaced chain",
        found,
        "that of the chain",
        expected,
        tol=1e-11,
        at={"i": f64([float(i) for i in indices])},
    )


@claim(
    "sde",
    "the chain of N steps goes to the SDE as N grows: max |alpha_bar_i - alpha^2(i/N)| "
    "falls like 1/N, to 0",
    "arXiv:2011.13456, appendix B",
    of=("discretize",),
    cost="fast",
)
def chain_limit(sde: Any) -> Finding:
    """N from 500 to 4000, as far as the process has a chain."""
    counts = [n for n in (500, 1000, 2000, 4000) if n > 4 * getattr(sde, "beta_max", 0)]
    gaps = []
    for n in counts:
        try:
            chain = sde.discretize(n)
        except SdekitError as error:
            raise Skip(f"it has no chain of {n} steps: {error}") from error
        t = torch.arange(1, n + 1, dtype=torch.float64) / n
        t = t[t <= sde.t_max]
        gaps.append(float((chain.alphas_bar[: len(t)] - sde.alpha(t).square()).abs().max()))
    slope = math.log(gaps[0] / gaps[-1]) / math.log(counts[-1] / counts[0])
    # the limit itself: what a 1/N law leaves of the last gap
    left = abs(2 * gaps[-1] - gaps[-2])
    seen = ", ".join(f"{gap:.3g}" for gap in gaps)
    says = f"gaps {seen} at N = {counts}: order {slope:.2f}, limit {left:.2g}"
    return no_more_than(max(0.9 - slope, left / gaps[-1] - 0.1), 0.0, says)
