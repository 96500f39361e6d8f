"""Wrong discrete chains: products, posteriors, indices, limits."""

from __future__ import annotations

from typing import Any

import torch

from sdekit.sde import DDPM, VPSDE
from sdekit.sde.ddpm import PosteriorMean
from sdekit.verify.mutants._make import Table

_TABLE = Table("sde")
_add = _TABLE.add
_weights: Any = vars(DDPM)["posterior_mean_coefficients"].fget
ROWS = _TABLE.rows

CHAIN = DDPM.linear(20, beta_start=0.005, beta_end=0.5)

_add(
    "chain_sum_of_betas",
    CHAIN,
    "chain_product",
    "alpha_bar = exp(-sum beta), not the product of 1 - beta",
    fields={
        "_log_alphas": -0.5
        * torch.cat([torch.zeros(1, dtype=torch.float64), CHAIN.betas.cumsum(0)])
    },
)
_add(
    "chain_bar_starts_at_one",
    CHAIN,
    "chain_product",
    "alpha_bar is shifted by one step",
    alphas_bar=property(lambda self: (2 * self._log_alphas[:-1]).exp()),
)
_add(
    "chain_posterior_variance_beta",
    CHAIN,
    "chain_posterior",
    "beta stands for the posterior's variance",
    posterior_variance=property(lambda self: self.betas),
)
_add(
    "chain_posterior_weights_exchanged",
    CHAIN,
    "chain_posterior",
    "the weights of x_0 and x_t are exchanged",
    posterior_mean_coefficients=property(lambda self: PosteriorMean(*reversed(_weights(self)))),
)
_add(
    "chain_posterior_bar_of_i",
    DDPM.linear(1000),
    "chain_posterior",
    "alpha_bar_i for alpha_bar_{i-1} in the weight of x_0",
    posterior_mean_coefficients=property(
        lambda self: PosteriorMean(
            self._log_alphas[1:].exp() * self.betas / -torch.expm1(2 * self._log_alphas[1:]),
            _weights(self).x_t,
        )
    ),
)
_add(
    "chain_index_floors",
    DDPM.linear(1000),
    "chain_nodes",
    "t N is truncated, not rounded",
    peer=6,
    index=lambda self, t: (
        (t * self.n).to(torch.int64) if isinstance(t, torch.Tensor) else int(t * self.n)
    ),
)
_add(
    "chain_time_from_one",
    CHAIN,
    "chain_nodes",
    "node i lies at (i + 1)/N",
    time=lambda self, i: (i + 1) / self.n,
)
_add(
    "chain_respaced_betas",
    CHAIN,
    "chain_respaced",
    "the respaced chain takes the betas at the kept steps",
    respaced=lambda self, indices: DDPM(self.betas[[i - 1 for i in indices]]),
)
_add(
    "chain_respaced_by_sums",
    DDPM.linear(1000),
    "chain_respaced",
    "the betas of the skipped steps are added up",
    respaced=lambda self, indices: DDPM(
        (2 * self._log_alphas[[0, *indices]]).diff().neg().clamp_max(0.999)
    ),
)
_add(
    "chain_transition_of_two_steps",
    CHAIN,
    "chain_transition",
    "a step's scale is 1 - beta, not its root",
    transition=lambda self, s, t: (
        DDPM.transition(self, s, t)[0] ** 2,
        DDPM.transition(self, s, t)[1],
    ),
)
_add(
    "vp_discretised_without_half_beta",
    VPSDE(),
    "chain_limit",
    "the chain has half of the betas",
    peer=7,
    discretize=lambda self, n: DDPM.linear(
        n, beta_start=0.5 * self.beta_min / n, beta_end=0.5 * self.beta_max / n
    ),
)
_add(
    "vp_discretised_two_percent_short",
    VPSDE(),
    "chain_limit",
    "the last beta is 2 % too small",
    discretize=lambda self, n: DDPM.linear(
        n, beta_start=self.beta_min / n, beta_end=0.98 * self.beta_max / n
    ),
)
