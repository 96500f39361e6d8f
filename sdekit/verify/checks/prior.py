"""The law that sampling starts from."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sdekit.verify.claims import Finding, agree, claim, no_more_than
from sdekit.verify.statistics import bonferroni, normal
from sdekit.verify.strategies import f64, times


def _std(sde: Any, t: float | None = None) -> float:
    """prior_std at a start; a stranger's may know one start only."""
    try:
        return float(sde.prior_std() if t is None else sde.prior_std(t))
    except TypeError:
        return float(sde.prior_std())


@claim(
    "sde",
    "the prior is the marginal up to what is left of the data: prior_std^2 = var where "
    "alpha stays 1, within 2 alpha^2 on VP, within 2 alpha otherwise",
    "arXiv:2011.13456, section 3.4; arXiv:2305.08891, section 2.2",
    needs=("prior_std", "log_alpha", "var"),
    cases=lambda sde: times(sde, 1, least=0.1),
)
def prior_gap(sde: Any, t: Tensor) -> Finding:
    """At t_max and at other starts."""
    t = torch.cat([f64([sde.t_max]), t])
    alpha, var = sde.log_alpha(t).exp(), sde.var(t)
    claimed = f64([_std(sde, float(v)) ** 2 for v in t])
    exploding = "ve" in sde.kinds
    allowed = torch.zeros_like(t) if exploding else 2 * (alpha**2 if "vp" in sde.kinds else alpha)
    beyond = ((claimed - var).abs() - allowed) / var
    k = int(beyond.argmax())
    says = (
        f"prior_std^2 = {float(claimed[k]):.6g}, var = {float(var[k]):.6g}, "
        f"alpha = {float(alpha[k]):.3g} at t = {float(t[k]):.6g}"
    )
    return no_more_than(float(beyond[k]), 1e-9, says)


@claim(
    "sde",
    "prior_log_prob(x) = -|x|^2 / (2 std^2) - d log std - d/2 log 2 pi",
    "arXiv:2011.13456, section 4.3",
    needs=("prior_log_prob", "prior_std"),
)
def prior_density(sde: Any) -> Finding:
    """At points on and off the bulk, in three dimensions."""
    std = _std(sde)
    x = std * torch.tensor(
        [[0.0, 0.0, 0.0], [1.0, -0.5, 2.0], [-4.0, 0.1, 0.3]], dtype=torch.float64
    )
    expected = -0.5 * (x / std).square().sum(1) - 3 * (math.log(std) + 0.5 * math.log(2 * math.pi))
    return agree(
        "prior_log_prob",
        sde.prior_log_prob(x),
        "the log density of N(0, prior_std^2)",
        expected,
        tol=1e-10,
        scale=expected.abs().clamp_min(1.0),
    )


@claim(
    "sde",
    "prior_sample draws N(0, prior_std^2 I) from the generator that it is given",
    "arXiv:2011.13456, section 4.3",
    needs=("prior_sample", "prior_std"),
    statistical=True,
)
def prior_draws(sde: Any, n: int, generator: torch.Generator) -> float:
    """Mean, variance and whole law; the same generator, the same draws."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    first, again = (
        sde.prior_sample(
            (n, 1), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        for _ in range(2)
    )
    return bonferroni(normal(first / _std(sde)), 1.0 if torch.equal(first, again) else 0.0)
