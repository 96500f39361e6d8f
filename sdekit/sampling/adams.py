r"""Linear multistep samplers: the probability flow as a plain integral of predicted noise.

With y = x / alpha and r = sigma / alpha the flow is dy/dr = eps, so that from t to s

    x_s = (alpha_s / alpha_t) x_t + alpha_s int_{r_t}^{r_s} eps dr                             (1)

and eps is replaced by the polynomial through its values in this row and in earlier ones. The
samplers of this file differ in the variable of that polynomial:

    lms      r itself (Adams-Bashforth with variable steps; `form="flow"` is the same with
             y = x / (alpha + sigma), r = sigma / (alpha + sigma) and dy/dr = eps - x_0)        (2)
    deis     log r ("log_rho"), t ("t", the paper's tAB), or r ("rho")                          (3)
    ipndm    the number of the row: the classical coefficients for equal steps, whatever the
             grid                                                                              (4)

`gradient_estimation` is (4) with two predictions, and a weight gamma of the newest to choose.

References: Zhang and Chen, arXiv:2204.13902, eqs. 14, 15 and appendix (DEIS, iPNDM); Liu et al.,
arXiv:2202.09778, eqs. 9, 11, 12 (PNDM); Permenter and Yuan, arXiv:2306.04848, algorithm 2
(gradient estimation); Katherine Crowson's k-diffusion for LMS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, number
from sdekit.sampling.integrals import Levels, Semilinear, legendre, weights
from sdekit.sampling.multistep import Multistep, Staged
from sdekit.sampling.plan import Array, Mix
from sdekit.sde.base import LinearSDE

__all__ = ["DEIS", "IPNDM", "LMS", "GradientEstimation"]


def _equal(nodes: Array) -> Array:
    """int_0^1 r^k dr [shape of the nodes]: the moments of a plain integral."""
    return np.broadcast_to(1 / np.arange(1, nodes.shape[1] + 1), nodes.shape)


@register("sampler", "lms", paper="arXiv:2204.13902, eq. 15")
@dataclass(frozen=True, kw_only=True)
class LMS(Multistep):
    """Linear multistep in sigma/alpha, eq. (2).

    Args:
        order: 1 to 4; the first rows have orders 1, 2, ...
        final_order: of the last row, to which orders fall one by one; None: they do not.
        form: "sigma", the integral of eps over sigma/alpha, or "flow", that of the velocity
            eps - x_0 over sigma/(alpha + sigma).
        warmup: "rising" orders, or the first row by "heun".

    Raises:
        ConfigError: a field out of range.

    Reference: arXiv:2204.13902, eq. 15 (rho-AB); Crowson, k-diffusion, `sample_lms`.

    Example:
        >>> import torch
        >>> from sdekit import EDM, ExactScore, Gaussian, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), EDM())
        >>> sample(model, (4, 2), sampler="lms", steps=20, seed=0).nfe
        20
    """

    order: int = 4
    form: str = "sigma"
    quiet_fields: ClassVar[tuple[str, ...]] = ("warmup", "final_order", "form")

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        choice("form", self.form, ("sigma", "flow"))

    def _scale(self, level: Levels) -> Array:
        return level.alpha + level.sigma if self.form == "flow" else level.alpha

    def what(self, t: Array) -> Mix:
        """dy/dr."""
        return Mix(t, eps=1.0, x0=-1.0 if self.form == "flow" else 0.0)

    def variable(self, level: Levels) -> Array:
        """R itself."""
        return level.sigma / self._scale(level)

    def integral(
        self, sde: LinearSDE, at: Levels, to: Levels, nodes: Array, order: Array
    ) -> dict[str, Array]:
        """Eq. (1), or its form for the velocity."""
        scale, h = self._scale(to), self.variable(to) - self.variable(at)
        w = weights(nodes, _equal(nodes), order)
        ratio = scale / self._scale(at)
        return {"x": ratio, "w": (scale * h)[:, None] * w, "std": np.zeros_like(h)}

    @classmethod
    def examples(cls) -> list[LMS]:
        """The default, a lower order, and the flow's velocity."""
        return [cls(), cls(order=2), cls(order=3, form="flow", warmup="heun")]


@register("sampler", "deis", paper="arXiv:2204.13902, eq. 15")
@dataclass(frozen=True, kw_only=True)
class DEIS(Multistep):
    """DEIS: the polynomial in log rho, in t or in rho, integrated exactly, eq. (3).

    Args:
        order: the number of predictions, 1 to 4 (a polynomial of degree order - 1); 1 is DDIM.
        polynomial: in "log_rho", rho = sigma/alpha; in "t", tAB-DEIS; in "rho", as `LMS`.
        warmup: "rising" orders, or the first row by "heun".
        final_order: of the last row, to which orders fall one by one; None: they do not.

    Raises:
        ConfigError: a field out of range.

    Reference: arXiv:2204.13902, eqs. 14 and 15.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (4, 2), sampler="deis(order=3)", steps=10, seed=0).nfe
        10
    """

    polynomial: str = "log_rho"
    quiet_fields: ClassVar[tuple[str, ...]] = ("warmup", "final_order", "polynomial")

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        choice("polynomial", self.polynomial, ("log_rho", "t", "rho"))

    @property
    def weak_order(self) -> int:
        """At most 2: with warmup="heun" 3 in the limit, and less up to 320 steps on VE."""
        return min(self.order, 2)

    def what(self, t: Array) -> Mix:
        """The noise."""
        return Mix(t, eps=1.0)

    def variable(self, level: Levels) -> Array:
        """As the polynomial says."""
        if self.polynomial == "t":
            return level.t
        return level.l if self.polynomial == "log_rho" else level.sigma / level.alpha

    def integral(
        self, sde: LinearSDE, at: Levels, to: Levels, nodes: Array, order: Array
    ) -> dict[str, Array]:
        """Eq. (1) as eq. (4) of `sdekit.sampling.integrals`, with other moments for t and rho."""

        def moments_of(mu: Array, c: Array) -> Array:
            if self.polynomial == "log_rho":
                return mu
            equal = self.polynomial == "rho"
            return mu[:, :1] * (_equal(nodes) if equal else _in_time(sde, at, to, mu.shape[1]))

        return Semilinear("eps").row(at, to, nodes, order, moments_of)

    @classmethod
    def examples(cls) -> list[DEIS]:
        """Orders 2 and 3 in log rho, and the paper's polynomial in t."""
        return [cls(), cls(order=3), cls(order=3, polynomial="t", warmup="heun")]


_NODES, _WEIGHTS = legendre(12)


def _in_time(sde: LinearSDE, at: Levels, to: Levels, count: int) -> Array:
    """Mean of ((u - t)/(s - t))^k over d rho [(K, count)], by quadrature in log rho."""
    h = np.where(to.sigma > 0, to.l - at.l, 0.0)[:, None]
    u = sde.t_from_log_snr(torch.from_numpy(2 * (at.l[:, None] + h * _NODES))).numpy()
    r = (u - at.t[:, None]) / (to.t - at.t)[:, None]
    kernel = _WEIGHTS * np.exp(-h * _NODES)
    kernel = kernel / kernel.sum(1, keepdims=True)
    return np.stack([(kernel * r**k).sum(1) for k in range(count)], axis=1)


@register("sampler", "ipndm", paper="arXiv:2204.13902, appendix; arXiv:2202.09778, eq. 12")
@dataclass(frozen=True, kw_only=True)
class IPNDM(Multistep):
    """Classical Adams-Bashforth coefficients in DDIM's transfer, eq. (4).

    From t to s with e = sum_j w_j eps_j: x_s = (alpha_s / alpha_t) x_t + (sigma_s - sigma_t
    alpha_s / alpha_t) e. On grids that are not even in sigma/alpha it converges at order 2.

    Args:
        order: 1 to 4.
        warmup: the first order - 1 rows: "rising" orders (iPNDM); the first row by a "heun" step
            (PNDM's PLMS as released); or "runge_kutta", pseudo Runge-Kutta rows of four calls
            (PNDM).
        final_order: of the last row, to which orders fall one by one; None: they do not.

    Raises:
        ConfigError: a field out of range.

    Reference: arXiv:2204.13902 (iPNDM); arXiv:2202.09778, eqs. 9, 11, 12 (PNDM).

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (4, 2), sampler="ipndm", steps=20, seed=0).nfe
        20
    """

    order: int = 4
    quiet_fields: ClassVar[tuple[str, ...]] = ("warmup", "final_order")

    @classmethod
    def _warmups(cls) -> tuple[str, ...]:
        return ("rising", "heun", "runge_kutta")

    @property
    def weak_order(self) -> int:
        """At most 2: nodes are where only an even grid has them."""
        return min(self.order, 2)

    @property
    def warmup_nfe(self) -> int:
        """Of rows of two or four calls."""
        pseudo = 3 * (self.order - 1)
        return pseudo if self.start == "runge_kutta" else super().warmup_nfe

    def what(self, t: Array) -> Mix:
        """The noise."""
        return Mix(t, eps=1.0)

    def variable(self, level: Levels) -> Array:
        """The number of the row."""
        return np.arange(len(level.t), dtype=float)

    def integral(
        self, sde: LinearSDE, at: Levels, to: Levels, nodes: Array, order: Array
    ) -> dict[str, Array]:
        """The transfer along the weighted noise."""
        w = weights(nodes, _equal(nodes), order)
        return _transfer(at, to, w)

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Rows of one call, and the Runge-Kutta rows of four."""
        columns = super().coefficients(sde, grid)
        if self.start != "runge_kutta":
            return columns
        level = Levels(sde, grid)
        at, to = level[:-1], level[1:]
        rows = len(at.t)
        warm = (np.arange(rows) < self.order - 1) & (to.sigma > 0)
        if not warm.any():
            return columns
        (first,) = columns["stages"]
        times = [np.where(warm, u, at.t) for u in (0.5 * (at.t + to.t), to.t)]
        middle, end = (Levels(sde, u) for u in times)
        stages = []
        for call, reach, w in (
            (at, middle, (1.0,)), (middle, middle, (0.0, 1.0)), (middle, end, (0.0, 0.0, 1.0)),
            (end, end, (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
        ):  # fmt: skip
            row = _transfer(at, reach, np.tile(w, (rows, 1)))
            stages.append({"t": call.t, "what": self.what(call.t), **row, "present": warm})
        return {"stages": [{**first, "present": ~warm}, *stages]}

    @classmethod
    def examples(cls) -> list[IPNDM]:
        """iPNDM, and PNDM with both of its beginnings."""
        return [cls(), cls(warmup="heun"), cls(order=2)]


def _transfer(at: Levels, to: Levels, w: Array) -> dict[str, Array]:
    """DDIM's step from t to s along sum_j w_j eps_j."""
    ratio = to.alpha / at.alpha
    on_eps = to.sigma - at.sigma * ratio
    return {"x": ratio, "w": on_eps[:, None] * w, "std": np.zeros_like(ratio)}


@register("sampler", "gradient_estimation", paper="arXiv:2306.04848, algorithm 2")
@dataclass(frozen=True, kw_only=True)
class GradientEstimation(Staged):
    """DDIM along gamma eps_t + (1 - gamma) eps_u, u the row before.

    Args:
        gamma: finite; 2 in the paper, 1 is DDIM, 1.5 is iPNDM of order 2.

    Raises:
        ConfigError: gamma is not a finite number.

    Reference: arXiv:2306.04848, algorithm 2.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (4, 2), sampler="gradient_estimation", steps=10, seed=0).nfe
        10
    """

    gamma: float = 2.0
    memory = 1
    exact_on = frozenset({"point"})

    def __post_init__(self) -> None:
        """Check the field."""
        self._set(gamma=number("gamma", self.gamma))

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """DDIM's transfer."""
        level = Levels(sde, grid)
        at, to = level[:-1], level[1:]
        w = np.tile([self.gamma, 1 - self.gamma], (len(at.t), 1))
        w[0] = (1.0, 0.0)
        return {"stages": [{"t": at.t, "what": Mix(at.t, eps=1.0), **_transfer(at, to, w)}]}
