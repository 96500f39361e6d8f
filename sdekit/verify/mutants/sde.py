"""Wrong coefficients and marginals of SDEs."""

from __future__ import annotations

import math

import torch

from sdekit.sde import EDM, VESDE, VPSDE, CosineSDE, FlowSDE, LinearSDE, SubVPSDE
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
    "mean_equation",
    "the integral of beta has its ends exchanged",
    log_alpha=lambda self, t: (
        -0.5 * t * (self.beta_max + 0.5 * t * (self.beta_min - self.beta_max))
    ),
)
_add(
    "vp_integral_without_half",
    VP,
    "mean_equation",
    "the integral of t is t^2, not t^2 / 2",
    log_alpha=lambda self, t: -0.5 * t * (self.beta_min + t * (self.beta_max - self.beta_min)),
)
_add(
    "vp_log_alpha_half_a_percent",
    VP,
    "mean_equation log_snr_inverse",
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
    "variance_equation",
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
