r"""Variance-exploding processes: alpha = 1, the data is only ever blurred.

    VE    dx = sigma(t) sqrt(2 log r) dW, sigma(t) = sigma_min r^t, r = sigma_max/sigma_min   (1)
    EDM   sigma(t) = (a + t (b - a))^rho, a = sigma_min^(1/rho), b = sigma_max^(1/rho)         (2)

var(0) = sigma_min^2 is not 0: at t = 0 the sample carries that noise already, and the SDE adds
var(t) - var(0) to it. The prior is N(0, sigma(t_max)^2 I).

References: Song et al., arXiv:2011.13456, eqs. 9 and 29; Karras et al., arXiv:2206.00364, eq. 5:
uniform t in (2) is their time grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import number
from sdekit._times import Time, check_order
from sdekit.errors import ConfigError
from sdekit.sde.base import LinearSDE

__all__ = ["EDM", "VESDE"]

_LARGEST = 1e18  # sigma^2 must be representable in float32, where the samples may live
_SMALLEST = 1e-18


@dataclass(frozen=True, kw_only=True)
class _Exploding(LinearSDE):
    """What VE and EDM share: alpha = 1 and the two ends of sigma."""

    t_min: float = 0.0
    kinds: ClassVar[frozenset[str]] = frozenset({"linear", "ve"})
    extends: ClassVar[bool] = True

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        low = number("sigma_min", self.sigma_min, gt=0, ge=_SMALLEST)
        high = number("sigma_max", self.sigma_max, gt=0, le=_LARGEST)
        if low > high:
            raise ConfigError(
                f"sigma_min < sigma_max is needed, got {low:g} > {high:g} (swap them?)"
            )
        if low == high:
            raise ConfigError(f"sigma_min = sigma_max = {low:g} is degenerate: no noise is added")
        self._set(sigma_min=low, sigma_max=high)

    def log_alpha(self, t: Time) -> Tensor:
        """0 [shape of t]."""
        return 0.0 * t  # not zeros_like: gradients in t stay defined

    def f(self, t: Time) -> Tensor:
        """0 [shape of t], eq. (1)."""
        return 0.0 * t

    def log_sigma_gain(self, s: Tensor, t: Tensor) -> Tensor:
        """log(sigma_t / sigma_s) [broadcast shape], without cancellation."""
        raise NotImplementedError

    def transition(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """x_t | x_s: 1 and sqrt(var_t - var_s) [broadcast shape], as sigma_s^2 expm1(...)."""
        check_order(s, t)
        std = self.sigma(s) * torch.expm1(2 * self.log_sigma_gain(s, t)).clamp_min(0).sqrt()
        return torch.ones_like(std), std


@register("sde", "ve", paper="arXiv:2011.13456, eq. 9")
@dataclass(frozen=True, kw_only=True)
class VESDE(_Exploding):
    """The variance-exploding SDE, the limit of SMLD: geometric noise levels.

    sigma(t) = sigma_min (sigma_max / sigma_min)^t, dx = sigma(t) sqrt(2 log(sigma_max/sigma_min))
    dW.

    Args:
        sigma_min: sigma(0), at least 1e-18: the noise that the data is declared to carry already.
        sigma_max: sigma(1), > sigma_min, at most 1e18.
        t_min: where sampling ends, 0 by default.
        t_max: where sampling begins, 1 by default.

    Raises:
        ConfigError: a value that is not positive, reversed, equal, or too large.

    Reference: arXiv:2011.13456, eqs. 9 and 29 (VE), appendix C.

    Example:
        >>> sde = VESDE(sigma_min=0.01, sigma_max=50.0)
        >>> float(sde.sigma(0.0)), float(sde.sigma(1.0)), sde.prior_std()
        (0.01, 50.0, 50.0)
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def var(self, t: Time) -> Tensor:
        """sigma_min^2 (sigma_max / sigma_min)^(2 t) [shape of t], eq. (1)."""
        return self.sigma_min**2 * torch.pow(self.sigma_max / self.sigma_min, 2 * t)

    def g2(self, t: Time) -> Tensor:
        """2 log(sigma_max / sigma_min) sigma(t)^2 [shape of t], eq. (1)."""
        return 2 * self._log_ratio * self.var(t)

    def log_sigma_gain(self, s: Tensor, t: Tensor) -> Tensor:
        """(t - s) log(sigma_max / sigma_min) [broadcast shape]."""
        return (t - s) * self._log_ratio

    def _solve_log_snr(self, log_snr: Tensor) -> Tensor:
        return (-0.5 * log_snr - math.log(self.sigma_min)) / self._log_ratio

    @classmethod
    def examples(cls) -> list[VESDE]:
        """The paper's CIFAR-10 setting, and a narrow one that ends above 0."""
        return [cls(), cls(sigma_min=0.05, sigma_max=10.0, t_min=0.01)]


@register("sde", "edm", paper="arXiv:2206.00364, eq. 5")
@dataclass(frozen=True, kw_only=True)
class EDM(_Exploding):
    """Karras et al.'s noise levels as an SDE: uniform times are their time grid.

    alpha = 1, sigma(t) = (a + t (b - a))^rho with a, b the rho-th roots of sigma_min, sigma_max.

    Args:
        sigma_min: sigma(0), at least 1e-18.
        sigma_max: sigma(1), > sigma_min, at most 1e18.
        rho: the exponent, > 0; 7 in the paper. Tiny ones, whose powers overflow, are refused.
        t_min: where sampling ends, 0 by default.
        t_max: where sampling begins, 1 by default.

    Raises:
        ConfigError: a value that is not positive, reversed, equal, or too large.

    Reference: arXiv:2206.00364, eq. 5 and table 1.

    Example:
        >>> round(float(EDM().sigma(0.5)), 4)
        2.5152
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self._set(rho=number("rho", self.rho, gt=0))
        least = math.log(self.sigma_max / self.sigma_min) / 700
        if self.rho < least:
            raise ConfigError(
                f"rho must be >= {least:.3g} so that (sigma_max/sigma_min)^(1/rho) is "
                f"representable, got {self.rho:g}"
            )

    @property
    def _growth(self) -> float:
        """(b - a) / a, which does not cancel for large rho, where b - a would."""
        return math.expm1(math.log(self.sigma_max / self.sigma_min) / self.rho)

    def var(self, t: Time) -> Tensor:
        """(a + t (b - a))^(2 rho) [shape of t], eq. (2), with a^rho = sigma_min taken out."""
        return self.sigma_min**2 * torch.exp(2 * self.rho * torch.log1p(t * self._growth))

    def g2(self, t: Time) -> Tensor:
        """d sigma^2 / dt [shape of t], eq. (2)."""
        return 2 * self.rho * self._growth / (1 + t * self._growth) * self.var(t)

    def log_sigma_gain(self, s: Tensor, t: Tensor) -> Tensor:
        """rho log((a + t (b - a)) / (a + s (b - a))) [broadcast shape]."""
        return self.rho * torch.log1p((t - s) * self._growth / (1 + s * self._growth))

    def _solve_log_snr(self, log_snr: Tensor) -> Tensor:
        log_gain = -0.5 * log_snr - math.log(self.sigma_min)
        return torch.expm1(log_gain / self.rho) / self._growth

    @classmethod
    def examples(cls) -> list[EDM]:
        """The paper's, and rho = 1: sigma linear in t."""
        return [cls(), cls(sigma_min=0.02, sigma_max=20.0, rho=1.0)]
