"""Wrong kernels, posteriors, plumbing and priors of SDEs."""

from __future__ import annotations

import copy
import math

import torch

from sdekit.sde import VESDE, VPSDE, SubVPSDE
from sdekit.sde.base import Posterior
from sdekit.verify.mutants._make import Table

_TABLE = Table("sde")
_add = _TABLE.add
ROWS = _TABLE.rows

VP, SUB, VE = VPSDE(), SubVPSDE(), VESDE()

# kernels ------------------------------------------------------------------------------------

_add(
    "transition_variance_for_std",
    VP,
    "marginal_from_transition",
    "the transition returns its variance as its std",
    transition=lambda self, s, t: (
        VPSDE.transition(self, s, t)[0],
        VPSDE.transition(self, s, t)[1] ** 2,
    ),
)
_add(
    "transition_scale_inverted",
    VP,
    "marginal_from_transition",
    "alpha_s / alpha_t for alpha_t / alpha_s",
    transition=lambda self, s, t: (
        1 / VPSDE.transition(self, s, t)[0],
        VPSDE.transition(self, s, t)[1],
    ),
)
_add(
    "transition_without_scale_squared",
    VP,
    "semigroup marginal_from_transition",
    "var_t - var_s: the scale of the past variance is missing",
    transition=lambda self, s, t: (
        VPSDE.transition(self, s, t)[0],
        (self.var(t) - self.var(s)).clamp_min(0).sqrt(),
    ),
)
_add(
    "sub_vp_transition_sign",
    SUB,
    "semigroup marginal_from_transition",
    "b - a for b + a in the second factor",
    transition=lambda self, s, t: (
        SubVPSDE.transition(self, s, t)[0],
        -torch.expm1(2 * (self.log_alpha(t) - self.log_alpha(s))),
    ),
)
_add(
    "posterior_weights_exchanged",
    VP,
    "posterior_is_bayes",
    "the weights of x_t and x_0 are exchanged",
    posterior=lambda self, s, t: Posterior(*(VPSDE.posterior(self, s, t)[k] for k in (1, 0, 2))),
)
_add(
    "posterior_variance_is_beta",
    VP,
    "posterior_is_bayes",
    "the forward variance stands for the posterior's",
    posterior=lambda self, s, t: VPSDE.posterior(self, s, t)._replace(
        var=self.transition(s, t)[1].square()
    ),
)
_add(
    "posterior_alpha_of_t",
    VP,
    "posterior_is_bayes",
    "alpha_t for alpha_s in the weight of x_0",
    posterior=lambda self, s, t: VPSDE.posterior(self, s, t)._replace(
        x_0=VPSDE.posterior(self, s, t).x_0 * self.alpha(t) / self.alpha(s)
    ),
)
_add(
    "perturb_with_variance",
    VP,
    "perturb_draws_the_marginal",
    "x_t = alpha x_0 + var eps",
    perturb=lambda self, x0, t, noise: VPSDE.perturb(
        self, x0, t, noise * self.sigma(t).to(noise).reshape(-1, *[1] * (noise.ndim - 1))
    ),
)
_add(
    "perturb_without_alpha",
    SUB,
    "perturb_draws_the_marginal",
    "x_t = x_0 + sigma eps",
    perturb=lambda self, x0, t, noise: SubVPSDE.perturb(self, 0 * x0, t, noise) + x0,
)

# plumbing -----------------------------------------------------------------------------------

_add(
    "schedule_depends_on_the_batch",
    VP,
    "times_of_any_form",
    "times are normalised by the largest of the batch",
    log_alpha=lambda self, t: (
        VPSDE.log_alpha(self, t) * (1 + 1e-3 * t.detach().amax() * bool(t.ndim))
    ),
)
_add(
    "schedule_detached",
    VP,
    "gradients_in_time",
    "no gradient flows through the variance",
    var=lambda self, t: VPSDE.var(self, t.detach()) + 0 * t,
)
_add(
    "copy_forgets_a_field",
    VPSDE(beta_max=10.0),
    "copies_agree",
    "a deep copy has the default beta_max",
    __deepcopy__=lambda self, memo: VPSDE(beta_min=self.beta_min),
)
_add(
    "copy_shares_nothing_but_rounds",
    VPSDE(beta_max=10.0 / 3),
    "copies_agree",
    "a copy keeps three digits of its fields",
    __deepcopy__=lambda self, memo: copy.copy(VPSDE(beta_max=round(self.beta_max, 3))),
)

# the prior ----------------------------------------------------------------------------------

_add(
    "ve_prior_of_vp",
    VE,
    "prior_gap",
    "VE starts from N(0, I)",
    peer=11,
    prior_std=lambda self, t=None: 1.0,
)
_add(
    "ve_prior_is_the_variance",
    VE,
    "prior_gap",
    "the prior's std is sigma_max^2",
    prior_std=lambda self, t=None: VESDE.prior_std(self, t) ** 2,
)
_add(
    "vp_prior_a_percent",
    VP,
    "prior_gap",
    "the prior is 1 % too wide",
    prior_std=lambda self, t=None: 1.01,
)
_add(
    "ve_prior_forgets_the_start",
    VE,
    "prior_gap",
    "the prior at any start is that of t_max",
    peer=20,
    prior_std=lambda self, t=None: VESDE.prior_std(self),
)
_add(
    "prior_draws_wide",
    VP,
    "prior_draws",
    "the draws are 5 % wider than the prior",
    prior_sample=lambda self, shape, **how: 1.05 * VPSDE.prior_sample(self, shape, **how),
)
_add(
    "prior_draws_uniform",
    VP,
    "prior_draws",
    "uniform draws of the right variance",
    prior_sample=lambda self, shape, *, generator=None, dtype=None, device=None: (
        math.sqrt(12) * (torch.rand(*shape, generator=generator, dtype=dtype) - 0.5)
    ),
)
_add(
    "prior_draws_drop_the_generator",
    VP,
    "prior_draws",
    "the generator that was passed is not used",
    prior_sample=lambda self, shape, *, generator=None, dtype=None, device=None: (
        VPSDE.prior_sample(self, shape, dtype=dtype)
    ),
)
_add(
    "prior_density_without_2_pi",
    VP,
    "prior_density",
    "log(2 pi)/2 is missing from the density",
    prior_log_prob=lambda self, x: (
        VPSDE.prior_log_prob(self, x) + 0.5 * math.log(2 * math.pi) * x[0].numel()
    ),
)
_add(
    "prior_density_mean",
    VE,
    "prior_density",
    "the log density is a mean over the dimensions, not a sum",
    prior_log_prob=lambda self, x: VESDE.prior_log_prob(self, x) / x[0].numel(),
)
