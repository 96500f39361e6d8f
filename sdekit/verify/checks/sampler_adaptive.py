"""What a stochastic sampler that chooses its own steps must keep: the law of its Brownian path."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from sdekit.model import ExactScore
from sdekit.model.parametrization import Score
from sdekit.model.prediction import Prediction
from sdekit.sampling.noise import KeyedNoise
from sdekit.sde import VPSDE, FlowSDE
from sdekit.targets import GaussianMixture
from sdekit.verify.claims import Finding, Skip, claim, no_more_than
from sdekit.verify.probes import processes, run_of
from sdekit.verify.strategies import f64

__all__ = ["OnALine"]

_WEIGHTS, _MEANS, _VAR = f64([0.2, 0.8]), f64([2.0, -2.0]), 0.2
_RUNS = 2000
_TOLERANCE = 0.02


class OnALine:
    """The exact score of 0.2 N(2, 0.2) + 0.8 N(-2, 0.2) at one time a sample, all at once.

    Args:
        sde: the process.
    """

    law = GaussianMixture(_WEIGHTS, _MEANS[:, None], _VAR)

    def __init__(self, sde: Any) -> None:
        self.sde = sde

    def __call__(self, x: Tensor, t: Any, **cond: Any) -> Prediction:
        """The prediction at x [(batch, 1)] and t [() or (batch,)]."""
        at = torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1)
        alpha = self.sde.alpha(at)
        var = alpha**2 * _VAR + self.sde.var(at)
        away = alpha * _MEANS - x.double()
        logits = _WEIGHTS.log() - away**2 / (2 * var)
        share = (logits - logits.amax(1, keepdim=True)).exp()
        # two terms: the sum of a dimension may depend on the rest of the batch
        pull = share[:, :1] * away[:, :1] + share[:, 1:] * away[:, 1:]
        score = pull / (share[:, :1] + share[:, 1:]) / var
        return Prediction(x, score.to(x.dtype), t, (self.sde, Score()))


@claim(
    "sampler",
    "steps that are tried and rejected leave the law alone: with a tight tolerance the spread of "
    "two modes, and of each, is right",
    "doi:10.3934/dcdsb.2017133, section 1",
    cost="fast",
)
def rejections_keep_the_law(sampler: Any) -> Finding:
    """2000 runs of fixed noise from the true law at t_max: a mean is good to 3 per cent."""
    if not {"adaptive", "noise"} <= sampler.needs:
        raise Skip("it rejects no step that has met noise")
    if {"rtol", "atol"} <= {field.name for field in fields(sampler)}:
        sampler = replace(sampler, rtol=_TOLERANCE, atol=_TOLERANCE)
    worst = Finding(0.0, 0.1)
    for sde in processes(sampler, (VPSDE(), FlowSDE())):
        model = OnALine(sde)
        grid = f64([sde.t_max, sde.t_min])
        start = ExactScore(model.law, sde).at(sde.t_max)
        x = start.sample(_RUNS, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        out = run_of(sampler, model, x, grid, KeyedNoise(11)).x
        alpha, noise = float(sde.alpha(sde.t_min)), float(sde.var(sde.t_min))
        spread = float(model.law.cov)
        inner = (out.abs() - 2 * alpha).square().mean().sqrt()
        for what, seen, var in (("all", out.std(), spread), ("a mode", inner, _VAR)):
            var = alpha**2 * var + noise
            off = abs(float(seen) / math.sqrt(var) - 1)
            says = f"the deviation of {what} is {float(seen):.4g}, not {var**0.5:.4g}, on {sde!r}"
            worst = max(worst, no_more_than(off, 0.1, says), key=lambda f: f.measured)
    return worst
