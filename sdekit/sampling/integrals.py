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

All of it in NumPy: on a few dozen numbers its calls cost half of torch's. What is not finite is
refused by the plan, which names the row, and so warns of nothing here.

Reference: Golub and Van Loan, Matrix Computations, algorithm 4.6.2, for (2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit._times import as_time
from sdekit.sampling.plan import Array
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


def moments(c: Array, count: int) -> Array:
    """mu_0 .. mu_(count - 1) of eq. (5) [(..., count)], for c of either sign [(...)]."""
    mu = np.empty((*c.shape, count))
    mu[..., 0] = -np.expm1(-c)
    if count > 1:
        small = np.abs(c) < _SMALL
        far = np.where(small, _SMALL, c)
        for k in range(1, count):
            mu[..., k] = 1 - k / far * mu[..., k - 1]
        near = c[small, None]
        kernel = near * np.exp(-near * (1 - _NODES))
        # a sum, not a product of matrices, whose rounding depends on the number of rows
        mu[small, 1:] = (kernel[:, :, None] * _POWERS[:, 1:count]).sum(1)
    return mu


def weights(nodes: Array, mu: Array, order: Array) -> Array:
    """The w of eq. (2) [(..., m)], for the first `order` of the nodes [(..., m)], 0 for the rest.

    Bjorck and Pereyra's algorithm for Vandermonde systems: accurate, and no row's result depends
    on the others.

    Args:
        nodes: r_j, in columns; those from `order` on may hold anything finite.
        mu: the moments [(..., m)].
        order: how many nodes a row uses [(...)], at least one.
    """
    r, w, count = nodes, mu.copy(), nodes.shape[-1]
    used = np.arange(count) < order[..., None]
    for k in range(count - 1):  # integrals of Newton's products (r - r_0) ... (r - r_k)
        w[..., k + 1 :] -= r[..., k, None] * w[..., k:-1]
    w[~used] = 0.0  # a polynomial of lower degree has fewer of them
    for k in range(count - 2, -1, -1):  # and divided differences as sums over nodes
        apart = r[..., k + 1 :] - r[..., : count - k - 1]
        w[..., k + 1 :] /= np.where(used[..., k + 1 :], apart, 1.0)
        w[..., k:-1] -= w[..., k + 1 :]
    return w


def ramp(rows: int, order: int, final: int | None, few: int) -> Array:
    """The orders of the rows [(K,)]: rising from 1, and falling to `final` in the last row.

    None stands for 1 where there are fewer rows than `few`, for `order` otherwise (Lu et al.).
    """
    k = np.arange(rows)
    last = (1 if rows < few else order) if final is None else final
    return np.minimum(np.minimum(k + 1, order), last + (rows - 1 - k))


class Levels:
    """t, alpha, sigma and l = log(alpha / sigma) at given times [shape of t], each found once."""

    def __init__(self, sde: LinearSDE, t: Tensor | Array) -> None:
        time, _ = as_time(torch.as_tensor(t), sde.t_max)
        log_alpha, var = sde.log_alpha(time), sde.var(time)
        self.t, self.alpha, self.sigma, self.l = (
            v.numpy() for v in (time, log_alpha.exp(), var.sqrt(), log_alpha - 0.5 * var.log())
        )

    def mapped(self, change: Callable[..., Array], *others: Levels) -> Levels:
        """`change` of t, alpha, sigma and l, each with those of the others."""
        made = object.__new__(Levels)
        for name, value in vars(self).items():
            setattr(made, name, change(value, *(getattr(other, name) for other in others)))
        return made

    def __getitem__(self, rows: Any) -> Levels:
        return self.mapped(lambda value: value[rows])


# in place of moments: (mu, c) -> mu, for what a paper has instead of the exact integral
Rule = Callable[[Array, Array], Array]


def with_pair(mu: Array, order: Array, pair: Array) -> Array:
    """The moments [(..., m)] with `pair` [(...)] for mu_1 in the rows of two nodes."""
    if mu.shape[-1] > 1:
        mu = mu.copy()
        mu[..., 1] = np.where(order == 2, pair, mu[..., 1])
    return mu


@dataclass(frozen=True)
class Semilinear:
    """Eq. (3) or (4): what is predicted, and how much noise there is.

    Args:
        prediction: "x0", eq. (3), or "eps", eq. (4).
        eta: the stochasticity; a float, or one value a row [(K,)].
    """

    prediction: str
    eta: float | Array = 0.0

    def parts(self, at: Levels, to: Levels) -> tuple[Array, Array, Array, Array]:
        """a, the factor of the integral, c and std [(..., K) each], from t to s.

        A step that lands where sigma = 0 is the prediction of x_0 itself, without noise.
        """
        landing = to.sigma == 0
        h = np.where(landing, 1.0, to.l - at.l)  # any finite number: replaced below
        eta2 = self.eta**2
        ratio = to.alpha / at.alpha
        if self.prediction == "x0":
            a = np.where(landing, 0.0, to.sigma / at.sigma * np.exp(-eta2 * h))
            c = np.where(landing, 1.0, (1 + eta2) * h)
            factor = np.where(landing, to.alpha / -np.expm1(-c), to.alpha)
            return a, factor, c, to.sigma * np.sqrt(-np.expm1(-2 * eta2 * h))
        c = -h
        factor = np.where(landing, -ratio * at.sigma / -np.expm1(-c), (1 + eta2) * to.sigma)
        return ratio, factor, c, to.sigma * np.sqrt(eta2 * np.expm1(2 * h))

    def row(
        self, at: Levels, to: Levels, nodes: Array, order: Array, rule: Rule | None = None
    ) -> dict[str, Array]:
        """The columns x, w and std of eq. (1), for the predictions at `nodes` [(..., K, m)]."""
        return self.rows(at, to, (nodes, order, rule))[0]

    def rows(
        self, at: Levels, to: Levels, *of: tuple[Array, Array, Rule | None]
    ) -> list[dict[str, Array]]:
        """The columns of `row` for several choices of nodes, order and rule."""
        a, factor, c, std = self.parts(at, to)
        moment = moments(c, max(nodes.shape[-1] for nodes, _, _ in of))
        found, landing = [], to.sigma == 0
        for nodes, order, rule in of:
            mu = moment[..., : nodes.shape[-1]]
            w = weights(nodes, rule(mu, c) if rule else mu, np.where(landing, 1, order))
            found.append({"x": a, "w": factor[..., None] * w, "std": std})
        return found
