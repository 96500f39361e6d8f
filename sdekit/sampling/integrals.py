r"""Weights of predictions: the integrals of interpolating polynomials that every fast sampler is.

A sampler of order p takes a row from t to s by

    x_s = a x_t + sum_j w_j m_j + std z                                                       (1)

with m_j the model's predictions (of x_0, of eps, ...) at t and at other times. With u the variable
in which predictions are smooth, r = (u - u_t) / (u_s - u_t) counts from 0 at t to 1 at s, and the
polynomial through the m_j at r_j, integrated against a kernel k, has the weights that solve

    sum_j w_j r_j^k = mu_k = int_0^1 k(r) r^k dr,        k = 0 .. p - 1.                      (2)

The samplers of this package differ in u, in the kernel, and in what they put in place of a mu_k.
In the log-SNR l = log(alpha / sigma), h = l_s - l_t, the probability flow and its stochastic
relatives of eta have the exact solutions (Lu et al., arXiv:2211.01095, proposition 4.1 and eq. 9)

    x_s = (sigma_s/sigma_t) e^(-eta^2 h) x_t + alpha_s int mu(k) x_0 + noise, k = (1 + eta^2) h (3)
    x_s = (alpha_s/alpha_t) x_t + (1 + eta^2) sigma_s int mu(k) eps + noise,  k = -h            (4)

with the one family of moments

    mu_k(c) = c int_0^1 e^(-c (1 - r)) r^k dr,  mu_0 = 1 - e^(-c), mu_k = 1 - (k/c) mu_(k-1)    (5)

and noise of variance sigma_s^2 (1 - e^(-2 eta^2 h)) and eta^2 sigma_s^2 (e^(2h) - 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdekit.sde.base import LinearSDE

__all__ = ["Levels", "Semilinear", "legendre", "moments", "ramp", "weights", "with_pair"]

_SMALL = 1.0  # below it the recursion of eq. (5) cancels, and quadrature of 8 nodes is exact
_MOST = 5  # nodes: a corrector of order 4 and the one before it


def legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weight = np.polynomial.legendre.leggauss(count)
    return 0.5 * (nodes + 1), 0.5 * weight


_NODES, _WEIGHTS = legendre(8)
_POWERS = _WEIGHTS[:, None] * _NODES[:, None] ** np.arange(_MOST)


# NumPy in the next two: on arrays this small its calls cost a third of torch's, and the solver
# of torch starts threads
def moments(c: Tensor, count: int) -> Tensor:
    """mu_0 .. mu_(count - 1) of eq. (5) [(K, count)], for c of either sign [(K,)]."""
    value = c.numpy()
    small = np.abs(value) < _SMALL
    near, far = np.where(small, value, 0.0), np.where(small, _SMALL, value)
    kernel = np.exp(-near[:, None] * (1 - _NODES))
    # a sum, not a product of matrices, whose rounding depends on the number of rows
    direct = near[:, None] * (kernel[:, :, None] * _POWERS[:, :count]).sum(1)
    mu = np.empty_like(direct)
    mu[:, 0] = -np.expm1(-far)
    for k in range(1, count):
        mu[:, k] = 1 - k / far * mu[:, k - 1]
    return torch.from_numpy(np.where(small[:, None], direct, mu))


def weights(nodes: Tensor, mu: Tensor, order: Tensor) -> Tensor:
    """The w of eq. (2) [(K, m)], for the first `order` of the nodes [(K, m)]; 0 for the others.

    Args:
        nodes: r_j, in columns; those from `order` on may hold anything finite.
        mu: the moments [(K, m)].
        order: how many nodes a row uses [(K,)].
    """
    count = nodes.shape[1]
    power = np.arange(count)
    used = power < order.numpy()[:, None]
    right = np.where(used, mu.numpy(), 0.0)[..., None]
    with np.errstate(all="ignore"):  # the plan refuses what is not finite, and names the row
        powers = nodes.numpy()[:, None, :] ** power[:, None]
        matrix = np.where(used[:, :, None], powers, np.eye(count))
        try:
            found = np.linalg.solve(matrix, right)
        except np.linalg.LinAlgError:  # two nodes are one: levels that underflow
            found = np.full_like(right, np.nan)
    return torch.from_numpy(found[..., 0])


def ramp(rows: int, order: int, final: int | None, few: int) -> Tensor:
    """The orders of the rows [(K,)]: rising from 1, and falling to `final` in the last row.

    None stands for 1 where there are fewer rows than `few`, for `order` otherwise (Lu et al.).
    """
    k = torch.arange(rows)
    last = (1 if rows < few else order) if final is None else final
    return torch.minimum((k + 1).clamp_max(order), last + (rows - 1 - k))


class Levels:
    """alpha, sigma and l = log(alpha / sigma) at given times, each evaluated once."""

    def __init__(self, sde: LinearSDE, t: Tensor) -> None:
        self.t = t
        log_alpha, var = sde.log_alpha(t), sde.var(t)
        self.alpha, self.sigma = log_alpha.exp(), var.sqrt()
        self.l = log_alpha - 0.5 * var.log()

    def __getitem__(self, rows: slice) -> Levels:
        part = object.__new__(Levels)
        part.t, part.alpha, part.sigma, part.l = (
            v[rows] for v in (self.t, self.alpha, self.sigma, self.l)
        )
        return part


# in place of moments: (mu, c) -> mu, for what a paper has instead of the exact integral
Rule = Callable[[Tensor, Tensor], Tensor]


def with_pair(mu: Tensor, order: Tensor, pair: Tensor) -> Tensor:
    """The moments [(K, m)] with `pair` [(K,)] for mu_1 in the rows of two nodes."""
    columns = list(mu.unbind(1))
    if len(columns) > 1:
        columns[1] = torch.where(order == 2, pair, columns[1])
    return torch.stack(columns, dim=1)


@dataclass(frozen=True)
class Semilinear:
    """Eq. (3) or (4): what is predicted, and how much noise there is.

    Args:
        prediction: "x0", eq. (3), or "eps", eq. (4).
        eta: the stochasticity; a float, or one value a row [(K,)].
    """

    prediction: str
    eta: float | Tensor = 0.0

    def parts(self, at: Levels, to: Levels) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """a, the factor of the integral, c and std [(K,) each], from t to s.

        A step that lands where sigma = 0 is the prediction of x_0 itself, without noise.
        """
        h = to.l - at.l
        landing = to.sigma == 0
        eta2 = torch.where(landing, 0.0, torch.as_tensor(self.eta, dtype=h.dtype) ** 2)
        h = torch.where(landing, 1.0, h)  # any finite number: replaced below
        ratio = to.alpha / at.alpha
        if self.prediction == "x0":
            a = torch.where(landing, 0.0, to.sigma / at.sigma * torch.exp(-eta2 * h))
            c = (1 + eta2) * h
            factor = torch.where(landing, to.alpha / -torch.expm1(-c), to.alpha)
            return a, factor, c, to.sigma * (-torch.expm1(-2 * eta2 * h)).sqrt()
        c = -h
        factor = torch.where(landing, -ratio * at.sigma / -torch.expm1(-c), (1 + eta2) * to.sigma)
        return ratio, factor, c, to.sigma * (eta2 * torch.expm1(2 * h)).sqrt()

    def row(
        self, at: Levels, to: Levels, nodes: Tensor, order: Tensor, rule: Rule | None = None
    ) -> dict[str, Tensor]:
        """The columns x, w and std of eq. (1), for the predictions at `nodes` [(K, m)]."""
        a, factor, c, std = self.parts(at, to)
        mu = moments(c, nodes.shape[1])
        mu = rule(mu, c) if rule else mu
        order = torch.where(to.sigma == 0, 1, order)
        return {"x": a, "w": factor[:, None] * weights(nodes, mu, order), "std": std}
