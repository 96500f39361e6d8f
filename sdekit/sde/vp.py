r"""Variance-preserving processes, and sub-VP, which never has more variance than VP.

With B(t) = integral of beta from 0 to t:

    VP       dx = -1/2 beta x dt + sqrt(beta) dW                                        (1)
             log_alpha = -B/2, var = 1 - exp(-B) = -expm1(2 log_alpha)                  (2)
    sub-VP   dx = -1/2 beta x dt + sqrt(beta (1 - exp(-2 B))) dW                        (3)
             log_alpha = -B/2, var = (1 - exp(-B))^2                                    (4)
    cosine   VP with alpha = cos(pi/2 (t + c) / (1 + c)) / cos(pi/2 c / (1 + c))        (5)

Here beta(t) = beta_min + t (beta_max - beta_min), so B = t beta_min + t^2 (beta_max - beta_min)/2.

References: Song et al., arXiv:2011.13456, eqs. 11, 14 and 29, appendix C; Nichol and Dhariwal,
arXiv:2102.09672, eq. 17.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sdekit._catalogue import register
from sdekit._check import MOST_STEPS, integer, number
from sdekit._times import Time, check_order, schedule
from sdekit.errors import ConfigError
from sdekit.sde.base import LinearSDE

if TYPE_CHECKING:
    from sdekit.sde.ddpm import DDPM

__all__ = ["VPSDE", "CosineSDE", "SubVPSDE", "VariancePreserving"]


@dataclass(frozen=True, kw_only=True)
class VariancePreserving(LinearSDE):
    """alpha^2 + sigma^2 = 1: a subclass gives `log_alpha` and its inverse; the prior: N(0, I)."""

    kinds: ClassVar[frozenset[str]] = frozenset({"linear", "vp"})

    def var(self, t: Time) -> Tensor:
        """1 - alpha^2 without cancellation [shape of t], eq. (2)."""
        return -torch.expm1(2 * self.log_alpha(t))

    def transition(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """x_t | x_s: scale k = alpha_t / alpha_s, std sqrt(1 - k^2) [broadcast shape]."""
        check_order(s, t)
        log_scale = self.log_alpha(t) - self.log_alpha(s)
        return log_scale.exp(), (-torch.expm1(2 * log_scale)).clamp_min(0).sqrt()

    def prior_std(self, t: float | None = None) -> float:
        """1: the stationary law of the process."""
        return 1.0

    @abstractmethod
    def t_from_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The inverse of `log_alpha`, float64 in and out, not limited to [0, t_max]."""

    def _solve_log_snr(self, log_snr: Tensor) -> Tensor:
        # alpha^2 = SNR / (1 + SNR), so 2 log_alpha = -softplus(-log_snr)
        return self.t_from_log_alpha(-0.5 * softplus(-log_snr, threshold=700.0))


@dataclass(frozen=True, kw_only=True)
class _LinearBeta(LinearSDE):
    """What VP and sub-VP share: beta(t) and its integral."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    extends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        low = number("beta_min", self.beta_min, ge=0)
        high = number("beta_max", self.beta_max, ge=0)
        if low > high:
            raise ConfigError(
                f"beta_min <= beta_max is needed, got {low:g} > {high:g} (swap them?)"
            )
        if high == 0:
            raise ConfigError("beta_min = beta_max = 0 is degenerate: no noise is ever added")
        self._set(beta_min=low, beta_max=high)
        self._check_start()

    def beta(self, t: Time) -> Tensor:
        """beta_min + t (beta_max - beta_min) [shape of t]."""
        return _beta(self, t)

    def log_alpha(self, t: Time) -> Tensor:
        """-B(t) / 2 [shape of t], eq. (2)."""
        return t * (-0.5 * self.beta_min - 0.25 * (self.beta_max - self.beta_min) * t)

    def f(self, t: Time) -> Tensor:
        """-1/2 beta(t) [shape of t], eq. (1): written out, and compared with log_alpha."""
        return -0.5 * self.beta(t)

    def prior_std(self, t: float | None = None) -> float:
        """1: the stationary law of the process."""
        return 1.0

    def t_from_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The root of B(t) = -2 log_alpha, in the form of the quadratic that does not cancel."""
        total = -2 * log_alpha
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * total).sqrt()
        return torch.where(total == 0, 0.0, 2 * total / (self.beta_min + root))


@schedule
def _beta(sde: _LinearBeta, t: Tensor) -> Tensor:
    return sde.beta_min + t * (sde.beta_max - sde.beta_min)


@register("sde", "vp", paper="arXiv:2011.13456, eq. 11")
@dataclass(frozen=True, kw_only=True)
class VPSDE(_LinearBeta, VariancePreserving):
    """The variance-preserving SDE, the limit of DDPM for many steps.

    dx = -1/2 beta(t) x dt + sqrt(beta(t)) dW, beta(t) = beta_min + t (beta_max - beta_min).

    Args:
        beta_min: beta(0), >= 0.
        beta_max: beta(1), >= beta_min.
        t_min: where sampling ends, 0.001 by default.
        t_max: where sampling begins, 1 by default.

    Raises:
        ConfigError: a value that is negative, not finite, reversed, or no noise at all.

    Reference: arXiv:2011.13456, eqs. 11 and 29 (VP).

    Example:
        >>> sde = VPSDE()
        >>> float(sde.alpha(0.5)**2 + sde.var(0.5))
        1.0
        >>> f"{float(sde.sigma(1e-12)):.6e}"  # 1 - exp(-small) does not lose it
        '3.162278e-07'
    """

    def g2(self, t: Time) -> Tensor:
        """beta(t) [shape of t], eq. (1)."""
        return self.beta(t)

    def discretize(self, n: int) -> DDPM:
        """The chain of n steps with betas linspace(beta_min/n, beta_max/n, n).

        Its alpha_bar differs from alpha^2 by O(1/n).

        Raises:
            ConfigError: n is not an int >= 1, or a beta is 0 or >= 1 (n <= beta_max).

        Reference: arXiv:2011.13456, appendix B and C.
        """
        from sdekit.sde.ddpm import DDPM  # it needs VPSDE for the way back

        n = integer("n", n, ge=1, le=MOST_STEPS, error=ConfigError)
        if n <= self.beta_max:
            raise ConfigError(
                f"n must be > beta_max = {self.beta_max:g}: every beta is < 1; got {n}"
            )
        return DDPM.linear(n, beta_start=self.beta_min / n, beta_end=self.beta_max / n)

    @classmethod
    def examples(cls) -> list[VPSDE]:
        """The paper's, a constant beta, and a strong one on a shorter interval."""
        return [
            cls(),
            cls(beta_min=2.0, beta_max=2.0),
            cls(beta_min=0.01, beta_max=40.0, t_max=0.8),
        ]


@register("sde", "sub_vp", paper="arXiv:2011.13456, eq. 14")
@dataclass(frozen=True, kw_only=True)
class SubVPSDE(_LinearBeta):
    """The sub-VP SDE: VP's drift and mean, and VP's variance squared.

    dx = -1/2 beta(t) x dt + sqrt(beta(t) (1 - exp(-2 B(t)))) dW.

    Args:
        beta_min: beta(0), >= 0.
        beta_max: beta(1), >= beta_min.
        t_min: where sampling ends, 0.001 by default.
        t_max: where sampling begins, 1 by default.

    Raises:
        ConfigError: as for `VPSDE`.

    Reference: arXiv:2011.13456, eqs. 14 and 29 (sub-VP).

    Example:
        >>> import torch
        >>> bool(torch.isclose(SubVPSDE().var(0.3), VPSDE().var(0.3) ** 2))
        True
    """

    def var(self, t: Time) -> Tensor:
        """(1 - exp(-B))^2 [shape of t], eq. (4)."""
        return torch.expm1(2 * self.log_alpha(t)).square()

    def g2(self, t: Time) -> Tensor:
        """beta (1 - exp(-2 B)) [shape of t], eq. (3)."""
        return -self.beta(t) * torch.expm1(4 * self.log_alpha(t))

    def transition(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """x_t | x_s: scale and std [broadcast shape]; the variance factorises, so it is >= 0.

        With a = log_alpha(s), b = log_alpha(t): var = expm1(2 (b - a)) expm1(2 (b + a)).
        """
        check_order(s, t)
        a, b = self.log_alpha(s), self.log_alpha(t)
        return (b - a).exp(), (torch.expm1(2 * (b - a)) * torch.expm1(2 * (b + a))).sqrt()

    def _solve_log_snr(self, log_snr: Tensor) -> Tensor:
        # alpha / (1 - alpha^2) = exp(log_snr / 2) gives 1/alpha = y + sqrt(1 + y^2) with
        # y = exp(-log_snr / 2) / 2, i.e. -log_alpha = asinh(y); for large y, log(2 y)
        y = 0.5 * torch.exp(-0.5 * log_snr.clamp_min(-200.0))
        minus = torch.where(log_snr > -200.0, torch.asinh(y), -0.5 * log_snr)
        return self.t_from_log_alpha(-minus)


@register("sde", "cosine", paper="arXiv:2102.09672, eq. 17")
@dataclass(frozen=True, kw_only=True)
class CosineSDE(VariancePreserving):
    """The cosine schedule in continuous time, variance preserving.

    alpha(t) = cos(pi/2 (t + shift) / (1 + shift)) / cos(pi/2 shift / (1 + shift)).

    Args:
        shift: the offset s of the paper, in [0, 1).
        t_min: where sampling ends, 0.001 by default.
        t_max: where sampling begins, 0.999 by default and less than 1: alpha(1) = 0.

    Raises:
        ConfigError: shift outside [0, 1), or t_max >= 1.

    Reference: arXiv:2102.09672, eq. 17.

    Example:
        >>> round(float(CosineSDE().alpha(0.5)), 4)
        0.7027
    """

    shift: float = 0.008
    t_max: float = 0.999

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self._set(shift=number("shift", self.shift, ge=0, lt=1))
        number("t_max", self.t_max, lt=1)
        self._check_start()

    @property
    def _start(self) -> float:
        return 0.5 * math.pi * self.shift / (1 + self.shift)

    def log_alpha(self, t: Time) -> Tensor:
        """log of eq. (5) [shape of t], by cos(a + d) / cos(a) = cos d - tan a sin d."""
        d = t * (0.5 * math.pi / (1 + self.shift))
        near = torch.log1p(-2 * torch.sin(0.5 * d).square() - math.tan(self._start) * torch.sin(d))
        # near t = 1 the same number is the small cos itself, sin(pi/2 - a - d), taken directly
        far = (torch.sin(0.5 * math.pi / (1 + self.shift) * (1 - t)) / math.cos(self._start)).log()
        return torch.where(d < 1.0, near, far)

    def t_from_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The inverse of eq. (5), by the half-angle u = tan(d/2): small times stay exact."""
        sine, cosine = math.sin(self._start), math.cos(self._start)
        q = -cosine * torch.expm1(log_alpha)  # cos a - cos(a + d)
        u = q / (sine + (sine**2 + q * (2 * cosine - q)).sqrt())
        return 2 * torch.arctan(torch.where(q == 0, 0.0, u)) * (1 + self.shift) / (0.5 * math.pi)

    @classmethod
    def examples(cls) -> list[CosineSDE]:
        """The paper's, and one without offset."""
        return [cls(), cls(shift=0.0, t_min=0.01)]
