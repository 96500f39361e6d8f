r"""ER-SDE solvers: the extended reverse-time SDE with a free noise scale.

With r = sigma / alpha and any increasing phi(r) > 0, whose choice sets how much noise is injected,
a row from t to s is, p = phi(r_s) / phi(r_t),

    x_s = (alpha_s / alpha_t) p x_t + alpha_s phi(r_s) int_{r_t}^{r_s} x_0(r) d(1/phi)
          + alpha_s sqrt(r_s^2 - r_t^2 p^2) z                                                  (1)

exact but for the prediction of x_0, for which a polynomial in r stands. phi(r) = r is the
probability flow, phi(r) = r^2 the reverse SDE; the authors' choice is r (exp(r^0.3) + 10).
With k and k' the predictions' first and second backward differences, the paper integrates the
Taylor polynomial k (r - r_t) + k' (r - r_t)^2 / 2: its first difference is not the derivative at
t, so that with three terms it converges no faster than with two. `corrected=True` has the
polynomial through the three predictions.

Reference: Cui et al., arXiv:2309.06169, propositions 1 to 4, algorithms 1 and 2, eq. 17 for phi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdekit._catalogue import register
from sdekit._check import choice, flag
from sdekit.errors import ConfigError
from sdekit.sampling.integrals import Levels, legendre, weights
from sdekit.sampling.multistep import Multistep
from sdekit.sampling.plan import Array, Mix
from sdekit.sde.base import LinearSDE

__all__ = ["ERSDE"]

# log phi as a function of log r
_SCALES = {
    "er_sde_5": lambda log_r: log_r + np.log(np.exp(np.exp(0.3 * log_r)) + 10),
    "sde": lambda log_r: 2 * log_r,
    "ode": lambda log_r: log_r,
}
_NODES, _WEIGHTS = legendre(24)


@register("sampler", "er_sde", paper="arXiv:2309.06169, algorithm 2")
@dataclass(frozen=True, kw_only=True)
class ERSDE(Multistep):
    """ER-SDE-Solver-1, 2 and 3 on any linear SDE, eq. (1).

    Args:
        order: the number of predictions, 1 to 3; the first rows have 1, 2, ...
        scale: phi: "er_sde_5" (the paper's recommendation), "sde" or "ode".
        corrected: order 3 with the interpolating polynomial in place of the paper's.
        final_order: of the last row, to which orders fall one by one; None: they do not.

    Raises:
        ConfigError: a field out of range.

    Reference: arXiv:2309.06169, algorithms 1 and 2.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (4, 2), sampler="er_sde", steps=20, seed=0).nfe
        20
    """

    order: int = 3
    scale: str = "er_sde_5"
    corrected: bool = False
    most: ClassVar[int] = 3
    quiet_fields: ClassVar[tuple[str, ...]] = ("scale", "corrected", "warmup", "final_order")

    def __post_init__(self) -> None:
        """Check the fields."""
        choice("scale", self.scale, _SCALES)
        flag("corrected", self.corrected)
        super().__post_init__()
        if self.start == "heun" and self.scale != "ode":
            raise ConfigError(
                f"warmup='heun' repeats a row, which the noise of scale={self.scale!r} forbids"
            )

    @property
    def weak_order(self) -> int:
        """`order`, but 2 for three predictions as published, and with noise."""
        return super().weak_order if self.corrected else min(self.order, 2)

    @property
    def needs(self) -> frozenset[str]:
        """Noise, unless phi is that of the flow."""
        return frozenset({"linear"} if self.scale == "ode" else {"linear", "noise"})

    def what(self, t: Array) -> Mix:
        """The clean sample."""
        return Mix(t, x0=1.0)

    def variable(self, level: Levels) -> Array:
        """R = sigma / alpha."""
        return level.sigma / level.alpha

    def integral(
        self, sde: LinearSDE, at: Levels, to: Levels, nodes: Array, order: Array
    ) -> dict[str, Array]:
        """Eq. (1)."""
        landing, log_phi = to.sigma == 0, _SCALES[self.scale]
        end = np.where(landing, at.l, to.l)
        p = np.where(landing, 0.0, np.exp(log_phi(-end) - log_phi(-at.l)))
        # the integral by parts: 1 for k >= 1, less int k part^(k - 1) phi(r_s) / phi(r) dr / h
        columns, width = [1 - p], (end - at.l)[:, None]
        log_r = -(at.l[:, None] + width * _NODES)
        r_t, r_s = self.variable(at), self.variable(to)
        h = (r_s - r_t)[:, None]
        part = (np.exp(log_r) - r_t[:, None]) / h
        density = np.exp(log_phi(-end)[:, None] - log_phi(log_r) + log_r) * (-width / h) * _WEIGHTS
        columns += [1 - (density * k * part ** (k - 1)).sum(1) for k in range(1, nodes.shape[1])]
        order = np.where(landing, 1, order)
        w = self._weights(nodes, np.stack(columns, axis=1), order)
        spread = np.sqrt(np.maximum(r_s**2 - (r_t * p) ** 2, 0.0))
        quiet = landing | (self.scale == "ode")
        return {
            "x": to.alpha / at.alpha * p, "w": to.alpha[:, None] * w,
            "std": np.where(quiet, 0.0, to.alpha * spread),
        }  # fmt: skip

    def _weights(self, nodes: Array, mu: Array, order: Array) -> Array:
        """Of the interpolating polynomial, or of the paper's differences."""
        if self.corrected or nodes.shape[1] < 3:
            return weights(nodes, mu, order)
        w = np.zeros_like(mu)
        w[:, :2] = weights(nodes[:, :2], mu[:, :2], np.minimum(order, 2))
        # the second difference: half of it is the divided difference of the three predictions
        unit = np.zeros_like(mu)
        unit[:, 2] = mu[:, 2]
        return w + np.where(order[:, None] == 3, weights(nodes, unit, order), 0.0)

    @classmethod
    def examples(cls) -> list[ERSDE]:
        """The paper's orders, the third corrected, and the two known choices of phi."""
        return [
            cls(), cls(order=2), cls(order=1), cls(corrected=True), cls(scale="sde"),
            cls(scale="ode", corrected=True, warmup="heun"),
        ]  # fmt: skip
