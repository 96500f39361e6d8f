"""Wrong losses."""

from __future__ import annotations

from typing import Any

import torch

from sdekit.objectives import DSM, ImplicitScoreMatching, SlicedScoreMatching
from sdekit.verify.mutants._make import Table

_TABLE = Table("objective")
_add = _TABLE.add

_DSM, _LIKELIHOOD = DSM(), DSM(weighting="likelihood", reduction="sum")


def _terms(change: Any) -> Any:
    """`_terms` with its list (x_t, t, wanted, factor...) changed."""

    def terms(self: Any, model: Any, x0: Any, t: Any, noise: Any, ratio: Any = None) -> Any:
        found = list(DSM._terms(self, model, x0, t, noise, ratio))
        return tuple(change(found, self, model, x0, t, noise) or found)

    return terms


def _put(found: list[Any], k: int, value: Any) -> list[Any]:
    found[k] = value
    return found


_add(
    "dsm_target_sign",
    _DSM,
    "loss_is_least_at_the_score",
    "the network is trained towards -eps",
    _terms=_terms(lambda f, self, model, x0, t, noise: _put(f, 2, -f[2])),
)
_add(
    "dsm_target_half_a_percent",
    _DSM,
    "loss_is_least_at_the_score",
    "the target is 0.5 % too small",
    _terms=_terms(lambda f, self, model, x0, t, noise: _put(f, 2, 0.995 * f[2])),
)
_add(
    "dsm_noise_by_variance",
    _DSM,
    "loss_is_least_at_the_score",
    "x_t = alpha x_0 + var eps",
    _terms=_terms(
        lambda f, self, model, x0, t, noise: _put(
            f, 0, f[0] + (model.sde.var(t) - model.sde.sigma(t))[:, None] * noise
        )
    ),
)
_add(
    "dsm_fresh_noise_in_the_target",
    _DSM,
    "loss_is_least_at_the_score",
    "the target is another draw than the noise that was added",
    _terms=_terms(lambda f, self, model, x0, t, noise: _put(f, 2, noise.flip(0))),
)
_add(
    "dsm_without_alpha",
    _DSM,
    "loss_is_least_at_the_score",
    "x_t = x_0 + sigma eps",
    _terms=_terms(
        lambda f, self, model, x0, t, noise: _put(f, 0, x0 + model.sde.sigma(t)[:, None] * noise)
    ),
)
_add(
    "dsm_weight_for_its_root",
    _LIKELIHOOD,
    "loss_is_the_published_one",
    "the error is multiplied by w before it is squared",
    _terms=_terms(lambda f, self, model, x0, t, noise: _put(f, 3, f[3] ** 2)),
)
_add(
    "dsm_sum_for_mean",
    _DSM,
    "loss_is_the_published_one",
    "a sum over the elements under the name of a mean",
    losses=lambda self, model, *terms, **cond: DSM(reduction="sum").losses(model, *terms, **cond),
)
_add(
    "dsm_without_square",
    _DSM,
    "loss_is_least_at_the_score loss_is_the_published_one",
    "the absolute error",
    losses=lambda self, model, *terms, **cond: (
        (model(terms[0], terms[1]).raw - terms[2]).abs().mean(1)
    ),
)
_add(
    "dsm_raw_for_the_noise",
    _DSM,
    "same_loss_for_every_parametrization",
    "the raw output's own error, whatever it predicts",
    peer=18,
    _terms=_terms(lambda f, self, model, x0, t, noise: f[:3]),
)
_add(
    "dsm_batch_centred",
    _DSM,
    "rows_are_independent",
    "the mean loss of the batch is taken off, a little",
    losses=lambda self, model, *terms, **cond: (
        (loss := DSM.losses(self, model, *terms, **cond)) - 1e-3 * loss.mean()
    ),
)
_add(
    "dsm_detached",
    _DSM,
    "gradient_of_the_loss",
    "half of the gradient is cut off",
    losses=lambda self, model, *terms, **cond: (
        0.5 * (loss := DSM.losses(self, model, *terms, **cond)) + 0.5 * loss.detach()
    ),
)
_add(
    "dsm_explodes_at_t_min",
    _DSM,
    "finite_to_the_end",
    "the weight grows like exp(1/t)",
    _terms=_terms(
        lambda f, self, model, x0, t, noise: _put(f, 2, f[2] * (1 + 1e12 * (t < 1.5e-3))[:, None])
    ),
)
_add(
    "dsm_times_cut_short",
    _DSM,
    "times_are_drawn_from_their_law",
    "no time above 0.97 is ever drawn",
    prepare=lambda self, model, x0, generator: self._terms(
        model,
        x0,
        1e-3 + 0.969 * (1 - torch.rand(len(x0), generator=generator, dtype=torch.float64)),
        torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(x0),
    ),
)
_add(
    "dsm_one_time_a_batch",
    _DSM,
    "times_are_drawn_from_their_law",
    "all samples of a batch get one time",
    prepare=lambda self, model, x0, generator: self._terms(
        model,
        x0,
        DSM.prepare(self, model, x0, generator)[1][:1].expand(len(x0)),
        torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(x0),
    ),
)
_add(
    "dsm_noise_wide",
    _DSM,
    "noise_is_standard",
    "the noise that is added has variance 1.05",
    prepare=lambda self, model, x0, generator: self._terms(
        model,
        x0,
        DSM.prepare(self, model, x0, generator)[1],
        1.05**0.5 * torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(x0),
    ),
)
_add(
    "dsm_drops_the_generator",
    _DSM,
    "seed_decides_the_loss",
    "the generator that was passed is not used",
    prepare=lambda self, model, x0, generator: DSM.prepare(self, model, x0, torch.Generator()),
)

_LEARNED = DSM(weighting="uncertainty")
_add(
    "dsm_forgets_the_price",
    _LEARNED,
    "loss_is_the_published_one",
    "the error is divided by e^u, and u is not paid",
    losses=lambda self, model, *terms, **cond: (
        DSM.losses(self, model, *terms, **cond) - model.uncertainty(terms[4])
    ),
)
_add(
    "dsm_divides_by_twice_the_uncertainty",
    _LEARNED,
    "loss_is_the_published_one",
    "err / e^(2u) + u: u is taken for a log standard deviation in one place",
    losses=lambda self, model, *terms, **cond: DSM.losses(
        self,
        model,
        *terms[:3],
        terms[3] * (-0.5 * model.uncertainty(terms[4])).exp(),
        *terms[4:],
        **cond,
    ),
)

_ISM, _SSM = ImplicitScoreMatching(), SlicedScoreMatching()

_add(
    "implicit_half_the_trace",
    _ISM,
    "implicit_loss_is_the_published_one loss_is_least_at_the_score",
    "|s|^2 + div s: the square without its half, the trace with it",
    losses=lambda self, model, *terms, **cond: ImplicitScoreMatching.losses(
        self, model, *terms[:3], 0.5 * terms[3], **cond
    ),
)
_add(
    "implicit_on_the_score",
    _ISM,
    "implicit_loss_is_the_published_one",
    "the weight is that of the score: sigma^2 is missing",
    losses=lambda self, model, *terms, **cond: (
        ImplicitScoreMatching.losses(self, model, *terms, **cond) / terms[3] ** 2
    ),
)
_add(
    "sliced_short_slices",
    _SSM,
    "slices_average_to_the_trace",
    "slices of length 1 without the factor d",
    losses=lambda self, model, *terms, **cond: SlicedScoreMatching.losses(
        self,
        model,
        *terms[:4],
        *(v / v.shape[-1] ** 0.5 if v.shape[1] != v.shape[2] else v for v in terms[4:]),
        **cond,
    ),
)
_add(
    "sliced_one_direction",
    SlicedScoreMatching(slices=2, variance_reduced=False),
    "slices_average_to_the_trace",
    "the squares are those of the first slice alone",
    _squares=lambda self, eps, slices: (
        (eps * slices).sum(-1).square()[:, :1].expand(slices.shape[:2])
    ),
)

ROWS = _TABLE.rows
