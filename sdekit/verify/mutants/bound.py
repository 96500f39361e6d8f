"""Wrong variational bounds: weights, variances, the ends of the chain."""

from __future__ import annotations

from typing import Any

import torch

from sdekit.likelihood.chain import chain_rows
from sdekit.likelihood.decoder import Decoder
from sdekit.objectives import VLB
from sdekit.verify.mutants._make import Table

_TABLE = Table("objective")
_add = _TABLE.add
ROWS = _TABLE.rows

_BETA = VLB(variance="beta")
# the columns of the table that `VLB._terms` ends with
_LOG_Q, _LOW, _FIRST, _RATIO = 2, 3, 5, 7


def _columns(change: Any) -> Any:
    """`_terms` with its table of columns changed: change(table, model, i, t)."""

    def terms(self: Any, model: Any, x0: Any, i: Any, noise: Any) -> Any:
        *found, table = VLB._terms(self, model, x0, i, noise)
        change(table, model, i, found[1])
        return *found, table

    return terms


def _times(column: int, factor: Any) -> Any:
    """`_terms` with a column times a factor of the time, but for the last step."""

    def change(table: Any, model: Any, i: Any, t: Any) -> None:
        table[:, column] *= torch.where(i == 0, 1.0, factor(model.sde, t))

    return _columns(change)


def _shifted(table: Any, model: Any, i: Any, t: Any) -> None:
    rows = chain_rows(model.sde)
    table[:, _LOG_Q] = rows.low[(i + 1).clamp_max(len(rows.t) - 1)]


def _with_tanh(self: Any) -> None:
    VLB.__post_init__(self)
    self._set(_last=Decoder(kind=self.decoder, levels=self.levels, tanh=True))


_add(
    "vlb_weight_precedence",
    VLB(),
    "bound_step_is_a_kl bound_is_its_definition",
    "the weight is divided by (2 * 1 - alpha_bar) for 2 (1 - alpha_bar)",
    peer=27,
    _terms=_times(_RATIO, lambda sde, t: (2 * sde.var(t) / (1 + sde.var(t))).sqrt()),
)
_add(
    "vlb_whole_for_half",
    VLB(),
    "bound_step_is_a_kl bound_last_step_decodes bound_is_its_definition",
    "the factor 1/2 is missing",
    losses=lambda self, model, *terms, **cond: 2 * VLB.losses(self, model, *terms, **cond),
)
_add(
    "vlb_half_a_percent",
    _BETA,
    "bound_step_is_a_kl",
    "the error of the noise counts 0.5 % too little",
    _terms=_times(_RATIO, lambda sde, t: 0.995**0.5),
)
_add(
    "vlb_posterior_variance_of_the_next_step",
    VLB(),
    "bound_step_is_a_kl bound_is_its_definition",
    "q's variance is taken one index too high",
    _terms=_columns(_shifted),
)
_add(
    "vlb_without_the_variances",
    _BETA,
    "bound_step_is_a_kl",
    "the part of the divergence that is of the variances alone is left out",
    _terms=_columns(lambda table, model, i, t: table[:, _LOG_Q].copy_(table[:, 4])),
)
_add(
    "vlb_without_the_last_step",
    VLB(),
    "bound_last_step_decodes bound_is_its_definition",
    "L_0 counts nothing",
    losses=lambda self, model, *terms, **cond: (
        VLB.losses(self, model, *terms, **cond) * (1 - terms[4][:, _FIRST])
    ),
)
_add(
    "vlb_last_step_with_beta",
    VLB(),
    "bound_last_step_decodes",
    "the decoder has the variance beta_1, not the released code's",
    _terms=_columns(
        lambda table, model, i, t: table[:, _LOW].copy_(
            torch.where(i == 0, table[:, 4], table[:, _LOW])
        )
    ),
)
_add(
    "vlb_tanh_for_the_distribution_function",
    VLB(),
    "bound_last_step_decodes",
    "bins by the tanh approximation, under the name of the normal distribution",
    __post_init__=_with_tanh,
)
_add(
    "vlb_prior_sign",
    VLB(),
    "bound_is_its_definition",
    "the divergence of the prior is subtracted",
    prior=lambda self, model, x0: -VLB.prior(self, model, x0),
)
_add(
    "vlb_steps_but_one",
    _BETA,
    "bound_step_is_a_kl bound_last_step_decodes bound_is_its_definition",
    "a step is scaled by N - 1, as if the last were not drawn",
    losses=lambda self, model, *terms, **cond: (
        VLB.losses(self, model, *terms, **cond) * (1 - 1 / getattr(model.sde, "n", 1e9))
    ),
)
