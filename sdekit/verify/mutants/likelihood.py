"""Wrong log-likelihoods: the divergence, the prior, the change of variables, the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdekit.likelihood import LogProb, log_prob
from sdekit.model.prediction import Prediction
from sdekit.verify.densities import Likelihood
from sdekit.verify.mutants._make import Table

_TABLE = Table("likelihood")
_add = _TABLE.add
ROWS = _TABLE.rows

_RIGHT = Likelihood()


def _joined(model: Any, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The prior at the latent, plus the integral of the divergence, changed [(batch,)]."""
    found = log_prob(model, x)
    prior = model.sde.prior_log_prob(found.latent.double())
    return prior + change(found.nats - prior)


def _with_unit_prior(model: Any, found: LogProb) -> Tensor:
    latent = found.latent.double().flatten(1)
    unit = -0.5 * latent.square().sum(1) - 0.5 * latent.shape[1] * math.log(2 * math.pi)
    return found.nats - model.sde.prior_log_prob(found.latent.double()) + unit


def _dim(x: Tensor) -> int:
    return math.prod(x.shape[1:])


def _integral_of_f(sde: Any) -> float:
    return float(sde.log_alpha(sde.t_max) - sde.log_alpha(sde.t_min))


def _log_width(model: Any) -> float:
    moments = getattr(model, "moments", None)
    return 0.0 if moments is None else 0.5 * math.log(float(moments.values.mean()))


_add(
    "divergence_with_the_wrong_sign",
    _RIGHT,
    "density_has_mass_one",
    "the integral is taken off instead of added",
    peer=29,
    __call__=lambda self, model, x: _joined(model, x, lambda gain: -gain),
)
_add(
    "divergence_forgotten",
    _RIGHT,
    "gaussian_in_closed_form",
    "the prior at the latent, and nothing else",
    __call__=lambda self, model, x: _joined(model, x, torch.zeros_like),
)
_add(
    "divergence_of_the_drift_forgotten",
    _RIGHT,
    "any_rank",
    "the linear part f x has no divergence",
    __call__=lambda self, model, x: log_prob(model, x).nats - _dim(x) * _integral_of_f(model.sde),
)
_add(
    "divergence_of_two_coordinates",
    _RIGHT,
    "mixture_in_closed_form",
    "the trace ends after the first two entries",
    peer=29,
    __call__=lambda self, model, x: _joined(model, x, lambda gain: gain * min(1.0, 2 / _dim(x))),
)
_add(
    "prior_without_its_constant",
    _RIGHT,
    "gaussian_in_closed_form",
    "-|z|^2 / 2 for log N(z; 0, 1)",
    __call__=lambda self, model, x: (
        log_prob(model, x).nats + _dim(x) * 0.5 * math.log(2 * math.pi)
    ),
)
_add(
    "prior_of_unit_width",
    _RIGHT,
    "scaling_shifts_by_the_logarithm",
    "N(0, I) at the latents of VE",
    peer=11,
    __call__=lambda self, model, x: _with_unit_prior(model, log_prob(model, x)),
)
_add(
    "offset_hard_wired",
    _RIGHT,
    "scaling_shifts_by_the_logarithm",
    "the data is brought to unit width, and the logarithm of its own width forgotten",
    peer=28,
    __call__=lambda self, model, x: log_prob(model, x).nats + _dim(x) * _log_width(model),
)
_add(
    "nats_per_dimension",
    _RIGHT,
    "independent_coordinates_add",
    "divided by the number of entries",
    __call__=lambda self, model, x: log_prob(model, x).nats / _dim(x),
)
_add(
    "batch_mean_for_the_divergence",
    _RIGHT,
    "rows_of_a_likelihood",
    "every sample gets the batch's mean divergence",
    __call__=lambda self, model, x: _joined(model, x, Tensor.mean),
)
_add(
    "score_a_tenth_too_large",
    _RIGHT,
    "gaussian_in_closed_form",
    "1.1 g^2/2 before the score: the flow of another law",
    __call__=lambda self, model, x: log_prob(_Enlarged(model), x).nats,
)
_add(
    "probes_too_narrow",
    _RIGHT,
    "gaussian_in_closed_form",
    "uniform probes on [-1, 1], whose variance is a third",
    peer=29,
    __call__=lambda self, model, x: _joined(model, x, lambda gain: gain / 3),
)


class _Enlarged:
    """A model whose score is a tenth too large."""

    def __init__(self, model: Any) -> None:
        self.model, self.sde = model, model.sde

    def __call__(self, x: Tensor, t: Any, **cond: Any) -> Prediction:
        seen = self.model(x, t, **cond)
        return Prediction(x, 1.1 * torch.as_tensor(seen.raw), t, seen._origin)
