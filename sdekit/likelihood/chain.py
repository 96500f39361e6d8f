r"""The bound of a discrete chain, term by term.

Along nodes 0 < t_1 < ... < t_N of a linear SDE the model steps back by
p(x_s | x_t) = N(w_t x_t + w_0 x_0(x_t), v I) with the weights of the posterior of `LinearSDE`, and

    -log p(x_0) <= L_T + sum_{i >= 2} L_{i-1} + L_0,                                            (1)

    L_T     = KL(q(x_T | x_0) || N(0, P^2 I))                                                   (2)
    L_{i-1} = KL(q(x_{t_{i-1}} | x_{t_i}, x_0) || p(x_{t_{i-1}} | x_{t_i}))                     (3)
    L_0     = -log p(x_0 | x_{t_1}), `decoder.py`.                                              (4)

Both laws in (3) are Gaussian and their means differ by w_0 (x_0(x_t) - x_0) alone: with
u = log(beta_tilde / v), element by element,

    L_{i-1} = 1/2 (e^u - 1 - u) + w_0^2 (x_0(x_t) - x_0)^2 / (2 v)                              (5)
            = 1/2 (e^u - 1 - u) + beta_i^2 / (2 v alpha_i (1 - alpha_bar_i)) (eps_hat - eps)^2  (6)

on a chain. The variance v is, with beta = 1 - alpha_bar_i / alpha_bar_{i-1},

    posterior    log beta_tilde, which is -infinity at t_1: there that of t_2 is taken          (7)
    beta         log beta_i, and at t_1 that of (7)
    learned      r log beta_i + (1 - r) log beta_tilde, r = (1 + fraction) / 2, with (7)        (8)

as in the released code of Ho et al. and of Nichol and Dhariwal. Where t_1 has no such neighbour
(one step, or a chain that ends above its first node) (7) is sigma^2 / alpha^2 at t_1, the variance
of x_0 given x_{t_1} if nothing else is known. Everything is in nats, summed over the elements.

References: Ho et al., arXiv:2006.11239, eqs. 5 to 8 and 12; Nichol and Dhariwal, arXiv:2102.09672,
eqs. 4 to 7 and 15; Sohl-Dickstein et al., arXiv:1503.03585, eq. 14.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit._cache import cached
from sdekit._check import choice
from sdekit._times import entries, expand_like
from sdekit.errors import ConfigError
from sdekit.likelihood.decoder import Decoder
from sdekit.sde.base import LinearSDE

__all__ = ["CHAIN_VARIANCES", "Rows", "chain_rows", "log_variance", "prior_kl", "step_nats"]

CHAIN_VARIANCES = ("posterior", "beta", "learned")


class Rows(NamedTuple):
    """The steps back of a chain, each column [(N,)] in float64, from t_1 (the decoder) up.

    `log_q` is log beta_tilde (-infinity at t_1), `low` and `high` are the ends of eq. (8), `w_0`
    the weight of the predicted x_0 in the step.
    """

    t: Tensor
    w_0: Tensor
    log_q: Tensor
    low: Tensor
    high: Tensor

    def at(self, i: Tensor) -> Rows:
        """The rows of these indices."""
        return Rows(*(entries(column, i) for column in self))


@cached(16)
def chain_rows(sde: LinearSDE) -> Rows:
    """The steps of a chain from its last node to t_min's, or node 1, and from there to the data.

    Raises:
        ConfigError: a process that is no chain.
    """
    if "ddpm" not in sde.kinds:
        raise ConfigError(f"the terms of a chain need a DDPM, got {sde!r}")
    chain: Any = sde
    first, last = max(chain.index(chain.t_min), 1), chain.index(chain.t_max)
    i = torch.arange(first, last + 1)
    t = chain.time(i)
    s = torch.cat([torch.zeros_like(t[:1]), t[:-1]])
    posterior = chain.posterior(s, t)
    log_q, high = posterior.var.log(), 2 * chain.transition(s, t)[1].log()
    clipped = log_q[1] if first == 1 and len(t) > 1 else -chain.log_snr(t[0])
    low = torch.cat([clipped[None], log_q[1:]])  # eq. (7)
    return Rows(t, posterior.x_0, log_q, low, high)


def log_variance(rows: Rows, variance: str, first: Tensor) -> Tensor:
    """Log v of a variance that is not learned [shape of the rows]; `first` marks the decoder."""
    if choice("variance", variance, CHAIN_VARIANCES) == "beta":
        return torch.where(first, rows.low, rows.high)
    return rows.low


def prior_kl(sde: LinearSDE, x0: Tensor) -> Tensor:
    """KL(q(x_T | x_0) || N(0, prior_std^2 I)) in nats [(batch,)], float64; eq. (2).

    Args:
        sde: any linear SDE; T is its t_max.
        x0: clean samples [(batch, *dims)].
    """
    t = torch.tensor(sde.t_max, dtype=torch.float64)
    log_prior = 2 * math.log(sde.prior_std())
    u = float(sde.var(t).log()) - log_prior
    squares = x0.to(torch.float64).square().reshape(len(x0), -1).sum(1)
    spread = 0.5 * math.prod(x0.shape[1:]) * (math.expm1(u) - u)
    return 0.5 * math.exp(2 * float(sde.log_alpha(t)) - log_prior) * squares + spread


def step_nats(
    rows: Rows,
    first: Tensor,
    x0: Tensor,
    off: Tensor,
    variance: str,
    fraction: Tensor | None,
    decoder: Decoder,
) -> Tensor:
    """L_{i-1}, eq. (5), or L_0 where the row is the first, of each sample [(batch,)], float64.

    Args:
        rows: the row of each sample [(batch,)].
        first: which of them are the decoder's [(batch,)], bool.
        x0: clean samples [(batch, *dims)].
        off: x_0(x_t) - x_0 [(batch, *dims)].
        variance: one of `CHAIN_VARIANCES`.
        fraction: of a learned variance [(batch, *dims)].
        decoder: the law of L_0.
    """
    off = off.to(torch.float64)
    w_0, log_q, low, high = (
        expand_like(column.to(off.device), off)
        for column in (rows.w_0, rows.log_q, rows.low, rows.high)
    )
    if fraction is None:
        log_var = expand_like(log_variance(rows, variance, first.cpu()).to(off.device), off)
    else:  # eq. (8)
        log_var = torch.lerp(low, high, 0.5 * (1 + fraction.to(torch.float64)))
    u = torch.where(expand_like(first, off) > 0, 0.0, log_q - log_var)
    each = 0.5 * (torch.expm1(u) - u + (w_0 * off).square() * torch.exp(-log_var))
    nats = each.expand_as(off).reshape(len(off), -1).sum(1)
    at = first.nonzero().flatten()
    if len(at):
        log_var = log_var.expand_as(off)[at] if log_var.ndim else log_var
        last = decoder.nats(x0[at], x0[at].to(torch.float64) + off[at], log_var)
        nats = nats.index_copy(0, at, last.reshape(len(at), -1).sum(1))
    return nats
