"""Wrong SDEs: coefficients, kernels, posteriors, schedules, priors."""

from __future__ import annotations

import copy
import math

import torch

from sdekit.sde import EDM, VESDE, VPSDE, CosineSDE, FlowSDE, LinearSDE, SubVPSDE
from sdekit.sde.base import Posterior
from sdekit.sde.coefficients import CoefficientSDE
from sdekit.verify.mutants._make import Table

_TABLE = Table("sde")
_add = _TABLE.add
ROWS = _TABLE.rows

VP, SUB, VE, FLOW = VPSDE(), SubVPSDE(), VESDE(), FlowSDE()

# drift and diffusion ------------------------------------------------------------------------

_add(
    "vp_g2_twice",
    VP,
    "variance_equation marginals_integrated",
    "g^2 is twice what the variance implies",
    peer=1,
    g2=lambda self, t: 2 * VPSDE.g2(self, t),
)
_add(
    "general_sde_variance_twice",
    LinearSDE.from_coefficients(lambda t: -2.0 + 0 * t, lambda t: 4.0 + 0 * t),
    "variance_equation",
    "sigma = sqrt(2 int g^2), the factor 2 of another convention",
    peer=2,
    var=lambda self, t: 2 * CoefficientSDE.var(self, t),
)
_add(
    "vp_drift_without_half",
    VP,
    "drift_and_diffusion",
    "the drift is -beta x, not -beta x / 2",
    drift=lambda self, x, t: 2 * VPSDE.drift(self, x, t),
)
_add(
    "vp_drift_sign",
    VP,
    "drift_and_diffusion fokker_planck",
    "the drift points away from the origin",
    drift=lambda self, x, t: -VPSDE.drift(self, x, t),
)
_add(
    "vp_diffusion_not_rooted",
    VP,
    "drift_and_diffusion",
    "the diffusion is beta, not sqrt(beta)",
    diffusion=lambda self, t: self.beta(t),
)
_add(
    "vp_diffusion_of_half_beta",
    VP,
    "drift_and_diffusion",
    "the diffusion is sqrt(beta / 2)",
    diffusion=lambda self, t: (0.5 * self.beta(t)).sqrt(),
)
_add(
    "vp_diffusion_a_percent",
    VP,
    "drift_and_diffusion",
    "the diffusion is 1 % too large",
    diffusion=lambda self, t: 1.01 * VPSDE.diffusion(self, t),
)
_add(
    "vp_beta_ends_exchanged",
    VP,
    "drift_and_diffusion",
    "the integral of beta has its ends exchanged",
    log_alpha=lambda self, t: (
        -0.5 * t * (self.beta_max + 0.5 * t * (self.beta_min - self.beta_max))
    ),
)
_add(
    "vp_integral_without_half",
    VP,
    "drift_and_diffusion",
    "the integral of t is t^2, not t^2 / 2",
    log_alpha=lambda self, t: -0.5 * t * (self.beta_min + t * (self.beta_max - self.beta_min)),
)
_add(
    "vp_log_alpha_half_a_percent",
    VP,
    "drift_and_diffusion log_snr_inverse",
    "log alpha is 0.5 % too large",
    log_alpha=lambda self, t: 1.005 * VPSDE.log_alpha(self, t),
)
_add("vp_f_sign", VP, "mean_equation", "f has the wrong sign", f=lambda self, t: -VPSDE.f(self, t))
_add(
    "vp_f_not_divided",
    VP,
    "mean_equation",
    "f is d alpha / dt, not divided by alpha",
    f=lambda self, t: VPSDE.f(self, t) * self.alpha(t),
)
_add(
    "vp_f_a_percent",
    VP,
    "mean_equation",
    "f is 1 % too large",
    f=lambda self, t: 1.01 * VPSDE.f(self, t),
)
_add(
    "vp_f_explodes_at_the_end",
    VP,
    "mean_equation",
    "f is -1e6 at t_max alone",
    peer=13,
    f=lambda self, t: torch.where(t == self.t_max, -1e6, VPSDE.f(self, t)),
)
_add(
    "vp_g2_without_drift",
    VP,
    "variance_equation",
    "g^2 is d var / dt: the drift's part is missing",
    g2=lambda self, t: VPSDE.g2(self, t) + 2 * self.f(t) * self.var(t),
)
_add(
    "vp_g2_half_the_drift",
    VP,
    "variance_equation",
    "g^2 is d var / dt - f var: a 2 is missing",
    g2=lambda self, t: VPSDE.g2(self, t) + self.f(t) * self.var(t),
)
_add(
    "vp_g2_a_percent",
    VP,
    "variance_equation exploding_form time_change",
    "g^2 is 1 % too large",
    g2=lambda self, t: 1.01 * VPSDE.g2(self, t),
)
_add(
    "sub_vp_diffusion_exponent",
    SUB,
    "drift_and_diffusion",
    "1 - exp(-B), not 1 - exp(-2 B), in g^2",
    diffusion=lambda self, t: (-self.beta(t) * torch.expm1(2 * self.log_alpha(t))).sqrt(),
)
_add(
    "ve_diffusion_without_two",
    VE,
    "drift_and_diffusion",
    "sqrt(log r), not sqrt(2 log r), in g",
    diffusion=lambda self, t: VESDE.diffusion(self, t) / math.sqrt(2),
)
_add(
    "ve_diffusion_of_variance",
    VE,
    "drift_and_diffusion",
    "sigma^2, not sigma, in g",
    diffusion=lambda self, t: VESDE.diffusion(self, t) * self.sigma(t),
)

# the marginal -------------------------------------------------------------------------------

_add(
    "vp_variance_of_half_exponent",
    VP,
    "variance_preserved",
    "var = 1 - exp(-B/2)",
    var=lambda self, t: -torch.expm1(self.log_alpha(t)),
)
_add(
    "vp_variance_offset",
    VP,
    "variance_preserved",
    "alpha^2 + sigma^2 = 1 + sigma_min^2 under the name VP",
    peer=21,
    var=lambda self, t: VPSDE.var(self, t) + 1e-4,
)
_add(
    "vp_cancellation",
    VP,
    "small_times",
    "var = 1 - exp(-B), which loses its digits near t = 0",
    peer=12,
    var=lambda self, t: 1 - torch.exp(2 * self.log_alpha(t)),
)
_add(
    "vp_single_precision",
    VP,
    "small_times",
    "log alpha is computed in float32",
    log_alpha=lambda self, t: VPSDE.log_alpha(self, t.float()).double(),
)
_add(
    "sub_vp_variance_of_vp",
    SUB,
    "drift_and_diffusion",
    "sub-VP with the variance of VP",
    var=lambda self, t: -torch.expm1(2 * self.log_alpha(t)),
)
_add(
    "ve_variance_from_zero",
    VE,
    "marginal_from_transition",
    "var(t) = sigma(t)^2 - sigma_min^2, but kernels of sigma(t)",
    peer=10,
    var=lambda self, t: VESDE.var(self, t) - self.sigma_min**2,
)
_add(
    "edm_ends_exchanged",
    EDM(),
    "log_snr_falls",
    "sigma falls with t",
    var=lambda self, t: EDM.var(self, self.t_max - t),
)
_add(
    "cosine_not_normalised",
    CosineSDE(shift=0.1),
    "starts_at_the_data",
    "alpha(0) = cos(pi/2 s / (1 + s)), not 1",
    log_alpha=lambda self, t: CosineSDE.log_alpha(self, t) + math.log(math.cos(self._start)),
)
_add(
    "cosine_bar_for_alpha",
    CosineSDE(),
    "log_snr_inverse",
    "alpha^2 stands for alpha in the schedule, not in its inverse",
    log_alpha=lambda self, t: 2 * CosineSDE.log_alpha(self, t),
)
_add(
    "flow_variance_is_t",
    FLOW,
    "marginal_from_transition",
    "var = t, not t^2",
    var=lambda self, t: 1.0 * t,
)
_add(
    "sigma_is_the_variance",
    VP,
    "standard_deviation",
    "sigma = var",
    sigma=lambda self, t: self.var(t),
)
_add(
    "alpha_is_the_square",
    VP,
    "standard_deviation",
    "alpha = exp(2 log_alpha)",
    alpha=lambda self, t: (2 * self.log_alpha(t)).exp(),
)
_add(
    "log_snr_without_two",
    VP,
    "log_snr_falls",
    "log_snr = log_alpha - log var",
    log_snr=lambda self, t: self.log_alpha(t) - self.var(t).log(),
)
_add(
    "log_snr_sign",
    VP,
    "log_snr_falls",
    "log_snr has the wrong sign",
    log_snr=lambda self, t: -VPSDE.log_snr(self, t),
)
_add(
    "variance_goes_negative",
    VP,
    "positive_and_finite",
    "a variance below 0 near the data",
    var=lambda self, t: VPSDE.var(self, t) - 1e-5,
)
_add(
    "inverse_half_the_log_snr",
    VP,
    "log_snr_inverse",
    "the inverse takes log(alpha/sigma) for log(alpha^2/sigma^2)",
    _solve_log_snr=lambda self, log_snr: VPSDE._solve_log_snr(self, 0.5 * log_snr),
)
_add(
    "inverse_a_thousandth",
    VP,
    "log_snr_inverse",
    "the inverse is 0.1 % too late",
    _solve_log_snr=lambda self, log_snr: 1.001 * VPSDE._solve_log_snr(self, log_snr),
)

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
