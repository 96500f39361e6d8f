"""Wrong parametrisations, predictors and targets."""

from __future__ import annotations

from typing import Any

import torch

from sdekit.model import ExactScore
from sdekit.model.parametrization import X0, EDMPrecond, Eps, Flow, Score, V
from sdekit.model.prediction import Prediction
from sdekit.sde import VPSDE
from sdekit.targets import Gaussian, GaussianMixture
from sdekit.verify.mutants._make import Table

_ROWS = Table("parametrization")
_add = _ROWS.add

_add(
    "eps_sign",
    Eps(),
    "published_meaning",
    "predicts -eps",
    row=lambda self, sde, t: (torch.zeros_like(t), -torch.ones_like(t)),
)
_add(
    "score_without_sigma",
    Score(),
    "published_meaning",
    "predicts -eps under the name of the score",
    row=lambda self, sde, t: (torch.zeros_like(t), -torch.ones_like(t)),
)
_add(
    "score_over_variance",
    Score(),
    "published_meaning",
    "-eps / sigma^2 for the score",
    row=lambda self, sde, t: (torch.zeros_like(t), -1 / sde.var(t)),
)
_add(
    "v_sign",
    V(),
    "published_meaning",
    "sigma x_0 - alpha eps",
    row=lambda self, sde, t: (sde.sigma(t), -sde.alpha(t)),
)
_add(
    "v_exchanged",
    V(),
    "published_meaning",
    "alpha x_0 - sigma eps: the coefficients are exchanged",
    row=lambda self, sde, t: (sde.alpha(t), -sde.sigma(t)),
)
_add(
    "flow_backwards",
    Flow(),
    "published_meaning",
    "the velocity towards the data",
    row=lambda self, sde, t: tuple(-c for c in Flow.row(self, sde, t)),
)
_add(
    "velocity_without_half",
    Flow(),
    "published_meaning",
    "sigma' = f sigma + g^2 / sigma: a half is missing",
    row=lambda self, sde, t: (
        sde.f(t) * sde.alpha(t),
        sde.f(t) * sde.sigma(t) + sde.g2(t) / sde.sigma(t),
    ),
)
_add(
    "edm_skip_sign",
    EDMPrecond(),
    "published_meaning",
    "c_skip has the wrong sign",
    row=lambda self, sde, t: (EDMPrecond.row(self, sde, t)[0], -EDMPrecond.row(self, sde, t)[1]),
)
_add(
    "edm_input_unscaled",
    EDMPrecond(),
    "input_scale",
    "c_in = 1 / S^2",
    input_scale=lambda self, sde, t: EDMPrecond.input_scale(self, sde, t) ** 2,
)
_add(
    "edm_input_one_percent",
    EDMPrecond(),
    "input_scale",
    "c_in is 1 % too large",
    input_scale=lambda self, sde, t: 1.01 * EDMPrecond.input_scale(self, sde, t),
)
_add(
    "x0_weights_without_sigma",
    X0(),
    "predictions_are_consistent",
    "eps = x - alpha x_0, not divided by sigma",
    weights=lambda self, sde, t, *, x=0.0, x0=0.0, eps=0.0, score=0.0: X0.weights(
        self, sde, t, x=x, x0=x0, eps=eps * sde.sigma(t), score=score
    ),
)
_add(
    "score_view_without_sigma",
    Eps(),
    "predictions_are_consistent",
    "the score's view is -eps",
    weights=lambda self, sde, t, *, x=0.0, x0=0.0, eps=0.0, score=0.0: Eps.weights(
        self, sde, t, x=x, x0=x0, eps=eps - score
    ),
)
_add(
    "eps_view_of_alpha",
    V(),
    "round_trip",
    "the inverse of v takes sigma for alpha",
    weights=lambda self, sde, t, *, x=0.0, x0=0.0, eps=0.0, score=0.0: V.weights(
        self, sde, t, x=x, x0=x0 * 1.01, eps=eps, score=score
    ),
)
_add(
    "x0_and_a_constant",
    X0(),
    "conversions_are_linear",
    "a constant is added to the weight of x",
    weights=lambda self, sde, t, **of: tuple(
        w + 0.01 * (k == 0) for k, w in enumerate(X0.weights(self, sde, t, **of))
    ),
)
_add(
    "v_without_information",
    V(),
    "well_posed",
    "raw = alpha x_0 + sigma eps, which is x itself",
    row=lambda self, sde, t: (sde.alpha(t), (1 + 1e-13) * sde.sigma(t)),
)

_PREDICTORS = Table("predictor")
_add = _PREDICTORS.add
_TWO = GaussianMixture([0.3, 0.7], [[1.0, 0.5], [-0.8, 0.2]], [0.2, 0.5])
EXACT = ExactScore(_TWO, VPSDE())


def _seen(change: Any) -> Any:
    """`__call__` that changes the raw output: change(self, x, t, raw)."""

    def call(self: Any, x: Any, t: Any, **cond: Any) -> Any:
        seen = ExactScore.__call__(self, x, t)
        return Prediction(x, change(self, x, t, seen.raw), t, seen._origin)

    return call


_add(
    "predictor_score_sign",
    EXACT,
    "score_is_the_gradient tweedie",
    "the score has the wrong sign",
    __call__=_seen(lambda self, x, t, raw: -raw),
)
_add(
    "predictor_score_half_a_percent",
    EXACT,
    "score_is_the_gradient tweedie",
    "the score is 0.5 % too large",
    __call__=_seen(lambda self, x, t, raw: 1.005 * raw),
)
_add(
    "predictor_of_another_time",
    EXACT,
    "score_is_the_gradient tweedie",
    "the score of 1.01 t",
    __call__=lambda self, x, t, **cond: Prediction(
        x,
        ExactScore.__call__(self, x, min(1.01 * float(t), 1.0)).raw,
        t,
        (self.sde, self.parametrization),
    ),
)
_add(
    "predictor_not_a_gradient",
    EXACT,
    "posterior_covariance score_is_the_gradient",
    "a rotation is added: no gradient field",
    __call__=_seen(lambda self, x, t, raw: raw + 0.05 * torch.stack([-x[:, 1], x[:, 0]], 1)),
)
_add(
    "predictor_batch_mean",
    EXACT,
    "predictions_by_the_sample",
    "the batch's mean leaks into every sample",
    __call__=_seen(lambda self, x, t, raw: raw + 1e-4 * x.mean(0)),
)

_TARGETS = Table("target")
_add = _TARGETS.add

_add(
    "target_score_unweighted",
    _TWO,
    "score_of_the_density",
    "the modes' pulls are averaged without their responsibilities",
    _score=lambda self, x: (
        torch.stack(
            [self.weights[k] * (self.means[k] - x) / self.covs[k].diagonal() for k in range(2)]
        )
        .sum(0)
        .to(x)
    ),
)
_add(
    "target_score_sign",
    Gaussian([0.0, 1.0], 0.5),
    "score_of_the_density",
    "the score has the wrong sign",
    _score=lambda self, x: -Gaussian._score(self, x),
)
_add(
    "target_tail_underflows",
    _TWO,
    "score_of_the_density",
    "far out the density is exp, then log: the score is 0 there",
    peer=26,
    _score=lambda self, x: GaussianMixture._score(self, x) * (x.norm(dim=1, keepdim=True) < 30),
)
_add(
    "target_alpha_squared",
    _TWO,
    "noised_laws_add_up",
    "the noised law has alpha^2 for alpha",
    _perturbed=lambda self, alpha, var: GaussianMixture._perturbed(self, alpha**2, var),
)
_add(
    "target_noise_std_for_variance",
    _TWO,
    "noised_laws_add_up",
    "the noised law has sqrt(var) for var",
    _perturbed=lambda self, alpha, var: GaussianMixture._perturbed(self, alpha, var**0.5),
)
_add(
    "target_not_normalised",
    _TWO,
    "density_integrates_to_one",
    "the density integrates to 1.01",
    _log_prob=lambda self, x: GaussianMixture._log_prob(self, x) + 0.01,
)
_add(
    "target_draws_wide",
    _TWO,
    "target_draws",
    "the samples are 3 % too wide",
    sample=lambda self, n, **how: 1.03 * GaussianMixture.sample(self, n, **how),
)
_add(
    "target_draws_equal_weights",
    _TWO,
    "target_draws",
    "the modes are drawn with other weights",
    sample=lambda self, n, **how: GaussianMixture(
        torch.tensor([0.33, 0.67]), self.means, self.covs
    ).sample(n, **how),
)
_add(
    "target_drops_the_generator",
    _TWO,
    "target_draws",
    "the generator that was passed is not used",
    sample=lambda self, n, *, generator=None, dtype=None, device=None: GaussianMixture.sample(
        self, n, dtype=dtype
    ),
)

ROWS = [*_ROWS.rows, *_PREDICTORS.rows, *_TARGETS.rows]
