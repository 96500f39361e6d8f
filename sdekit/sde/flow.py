r"""The linear interpolation of flow matching and rectified flow, as a linear SDE.

    x_t = (1 - t) x_0 + t eps,  f = -1 / (1 - t),  g^2 = 2 t / (1 - t)                    (1)

f and g are those of the unique linear SDE with these marginals; its probability-flow ODE is the
flow dx/dt = E[eps - x_0 | x_t] that flow matching trains.

References: Lipman et al., arXiv:2210.02747; Liu et al., arXiv:2209.03003; Ma et al.,
arXiv:2401.08740 (the SDE behind an interpolant).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import number
from sdekit._times import Time, check_order
from sdekit.sde.base import LinearSDE

__all__ = ["FlowSDE"]


@register("sde", "flow", paper="arXiv:2209.03003, eq. 1")
@dataclass(frozen=True, kw_only=True)
class FlowSDE(LinearSDE):
    """alpha = 1 - t, sigma = t: straight lines between data and N(0, I).

    Args:
        t_min: where sampling ends, 0.001 by default.
        t_max: where sampling begins, 0.999 by default and less than 1: alpha(1) = 0.

    Raises:
        ConfigError: t_max >= 1 or t_min <= 0.

    Reference: arXiv:2209.03003, eq. 1.

    Example:
        >>> sde = FlowSDE()
        >>> round(float(sde.g2(0.25)), 6), round(2 * 0.25 / 0.75, 6)
        (0.666667, 0.666667)
    """

    t_max: float = 0.999
    kinds: ClassVar[frozenset[str]] = frozenset({"linear"})

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        number("t_max", self.t_max, lt=1)
        self._check_start()

    def log_alpha(self, t: Time) -> Tensor:
        """log(1 - t) [shape of t], eq. (1)."""
        return torch.log1p(-t)

    def var(self, t: Time) -> Tensor:
        """t^2 [shape of t], eq. (1)."""
        return t.square()

    def transition(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """x_t | x_s: (1-t)/(1-s), and var = (t-s)(t + s - 2ts)/(1-s)^2 [broadcast shape]."""
        check_order(s, t)
        return (1 - t) / (1 - s), ((t - s) * (t * (1 - s) + s * (1 - t))).sqrt() / (1 - s)

    def prior_std(self, t: float | None = None) -> float:
        """1: the law at t = 1."""
        return 1.0

    def _solve_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-0.5 * log_snr)
