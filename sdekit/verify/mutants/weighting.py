"""Wrong weightings, and wrong laws of the time."""

from __future__ import annotations

import torch

from sdekit.objectives.times import (
    Importance,
    LogitNormal,
    LogNormal,
    LogSNR,
    Stratified,
    Uniform,
)
from sdekit.objectives.weightings import (
    P2,
    EDMWeighting,
    Likelihood,
    MinSNR,
    Simple,
    SoftMinSNR,
    UncertaintyWeighting,
)
from sdekit.verify.mutants._make import Table

_WEIGHTS = Table("weighting")
_add = _WEIGHTS.add

_add(
    "likelihood_g_for_g2",
    Likelihood(),
    "published_weight",
    "lambda = g, not g^2",
    weight=lambda self, sde, t: sde.g2(t).sqrt() / sde.var(t),
)
_add(
    "likelihood_on_the_score",
    Likelihood(),
    "published_weight",
    "lambda = g^2 on the error of the noise: 1/sigma^2 is missing",
    weight=lambda self, sde, t: sde.g2(t),
)
_add(
    "likelihood_one_percent",
    Likelihood(),
    "published_weight",
    "1 % too large",
    weight=lambda self, sde, t: 1.01 * Likelihood.weight(self, sde, t),
)
_add(
    "simple_weighs_by_variance",
    Simple(),
    "published_weight",
    "sigma^2 for 1",
    weight=lambda self, sde, t: sde.var(t),
)
_add(
    "simple_goes_negative",
    Simple(),
    "weight_is_positive",
    "below 0 for large t",
    weight=lambda self, sde, t: 1.0 - 1.2 * t,
)

_add(
    "min_snr_for_its_inverse",
    MinSNR(),
    "published_weight",
    "min(1, gamma SNR): the SNR for one over it",
    weight=lambda self, sde, t: (self.gamma * sde.log_snr(t).exp()).clamp_max(1.0),
)
_add(
    "min_snr_on_the_noise",
    MinSNR(),
    "published_weight",
    "min(SNR, gamma), which is the weight on x_0, on the noise",
    weight=lambda self, sde, t: sde.log_snr(t).exp().clamp_max(self.gamma),
)
_add(
    "soft_min_snr_exponent",
    SoftMinSNR(),
    "published_weight",
    "gamma / (sqrt(SNR) + gamma)",
    weight=lambda self, sde, t: self.gamma / ((0.5 * sde.log_snr(t)).exp() + self.gamma),
)
_add(
    "p2_exponent",
    P2(gamma=0.5),
    "published_weight",
    "gamma is left out of the exponent",
    weight=lambda self, sde, t: 1 / (self.k + sde.log_snr(t).exp()),
)
_add(
    "edm_without_alpha",
    EDMWeighting(),
    "published_weight",
    "sigma for sigma / alpha",
    weight=lambda self, sde, t: 1 + sde.var(t) / self.sigma_data**2,
)
_add(
    "uncertainty_without_its_base",
    UncertaintyWeighting(),
    "published_weight",
    "the simple weight instead of EDM's",
    weight=lambda self, sde, t: torch.ones_like(t),
)

_TIMES = Table("time")
_add = _TIMES.add

_add(
    "uniform_beyond_the_end",
    Uniform(),
    "times_are_inside",
    "t_min is added and t_max is not shortened by it",
    times=lambda self, sde, u, weighting: sde.t_min + u * sde.t_max,
)
_add(
    "uniform_folded",
    Uniform(),
    "times_are_inside",
    "from the middle outward: the law is right, a stratum is two",
    times=lambda self, sde, u, weighting: Uniform.times(self, sde, (2 * u - 1).abs(), weighting),
)
_add(
    "stratified_without_strata",
    Stratified(),
    "one_draw_in_each_part",
    "independent draws under the name",
    uniforms=Uniform.uniforms,
)
_add(
    "stratified_in_order",
    Stratified(),
    "one_draw_in_each_part",
    "the rows of a batch get rising times",
    uniforms=lambda self, n, generator: Stratified.uniforms(self, n, generator).sort().values,
)
_add(
    "log_normal_wide",
    LogNormal(),
    "published_law",
    "the law of log sigma^2 for that of log sigma: twice too wide",
    times=lambda self, sde, u, weighting: LogNormal(mean=self.mean, std=2 * self.std).times(
        sde, u, weighting
    ),
)
_add(
    "log_normal_clamped",
    LogNormal(mean=0.0, std=2.0),
    "published_law",
    "draws outside the range are moved to its ends instead of being left out",
    times=lambda self, sde, u, weighting: sde.t_from_log_snr(
        (-2 * (self.mean + self.std * torch.special.ndtri(u))).clamp(
            float(sde.log_snr(sde.t_max)), float(sde.log_snr(sde.t_min or 1e-9))
        )
    ),
)
_add(
    "logit_normal_unshifted",
    LogitNormal(mean=0.1),
    "published_law",
    "the mean of the logit is left out",
    times=lambda self, sde, u, weighting: LogitNormal(std=self.std).times(sde, u, weighting),
)
_add(
    "log_snr_bent",
    LogSNR(),
    "published_law",
    "a little more often near the data than uniform in log-SNR",
    times=lambda self, sde, u, weighting: LogSNR.times(self, sde, u**1.03, weighting),
)
_add(
    "importance_ratio_inverted",
    Importance(),
    "corrected_to_uniform_times",
    "the loss is multiplied by p / p_uniform",
    ratio=lambda self, sde, t, weighting: 1 / Importance.ratio(self, sde, t, weighting),
)
_add(
    "importance_ratio_by_the_weight",
    Importance(),
    "corrected_to_uniform_times",
    "1 / w without its mean",
    ratio=lambda self, sde, t, weighting: 1 / weighting.weight(sde, t),
)
_add(
    "importance_not_by_the_weight",
    Importance(),
    "published_law",
    "a power law, whatever the weighting",
    times=lambda self, sde, u, weighting: Uniform.times(self, sde, u**1.2, weighting),
)

ROWS = [*_WEIGHTS.rows, *_TIMES.rows]
