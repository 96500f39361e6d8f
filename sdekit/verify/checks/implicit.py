"""Losses that see the score and its divergence, and never the noise."""

from __future__ import annotations

from typing import Any

import torch

from sdekit.verify.checks.objective import CASES, SDES, Given
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.probes import draws
from sdekit.verify.published import WEIGHTS
from sdekit.verify.strategies import f64


@claim(
    "objective",
    "the loss of a sample is w sigma^2 (|s|^2 + 2 div s), summed or over the number of elements",
    "Hyvarinen, JMLR 6 (2005), theorem 1",
    cases=lambda objective: CASES,
    of=("implicit",),
    needs=("loss_at", "weighting", "reduction"),
)
def implicit_loss_is_the_published_one(objective: Any, case: Any) -> Finding:
    """For s = A tanh(x), whose divergence is the trace of A times 1 - tanh^2."""
    weighting = objective.weighting
    name: str = getattr(weighting, "catalogue_name", "")
    if name not in WEIGHTS:
        raise Skip(f"no weight is on file for {name}")
    sde, t = case["sde"], f64([case["t"] * case["sde"].t_max] * 3)
    (x0, noise), matrix = draws(2, (3, 4), case["seed"]), draws(1, (4, 4), case["seed"])[0]
    model = Given(sde, lambda x, t: -sde.sigma(t) * (torch.tanh(x) @ matrix.T))
    x = sde.alpha(t)[:, None] * x0 + sde.sigma(t)[:, None] * noise
    score = torch.tanh(x) @ matrix.T
    divergence = (matrix.diagonal() * (1 - torch.tanh(x).square())).sum(1)
    whole = sde.var(t) * (score.square().sum(1) + 2 * divergence)
    whole = WEIGHTS[name][0](weighting, sde, t) * whole
    return agree(
        "the loss",
        objective.loss_at(model, x0, t, noise),
        "w sigma^2 (|s|^2 + 2 div s)",
        whole / 4 if objective.reduction == "mean" else whole,
        tol=1e-9,
        scale=whole.abs().max(),
        at={"t": t},
    )


@claim(
    "objective",
    "averaged over its slices the loss is the implicit one",
    "arXiv:1905.07088, eqs. 7 and 8",
    of=("slices",),
    needs=("loss_at", "prepare", "losses"),
)
def slices_average_to_the_trace(objective: Any) -> Finding:
    """Over all 2^4 sign slices in the place of those that were drawn."""
    sde, x0 = SDES[0], draws(1, (3, 4))[0]
    matrix = draws(1, (4, 4), 1)[0]
    model = Given(sde, lambda x, t: torch.tanh(x) @ matrix)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        *terms, drawn = objective.prepare(model, x0, generator)
    signs = torch.cartesian_prod(*[f64([-1.0, 1.0])] * 4).expand(3, 16, 4)
    seen = objective.losses(model, *terms, signs)
    # the coordinate directions, of length sqrt(4): the trace itself
    whole = objective.losses(model, *terms, (2 * torch.eye(4).double()).expand(3, 4, 4))
    if drawn.shape != (3, objective.slices, 4):
        return no_more_than(float("inf"), 0.0, f"slices of shape {tuple(drawn.shape)}")
    return agree("the average", seen, "the trace", whole, tol=1e-12, scale=whole.abs().max())
