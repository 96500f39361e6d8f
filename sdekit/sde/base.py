r"""Forward processes: what an SDE is, and all that follows from two functions of a linear one.

An SDE takes data at t = 0 to noise at t = t_max,

    dx = drift(x, t) dt + diffusion(t) dW.                                              (1)

A *linear* one, dx = f(t) x dt + g(t) dW, has Gaussian kernels

    x_t | x_0 ~ N(alpha(t) x_0, sigma(t)^2 I),                                          (2)

and is described here by `log_alpha(t)` and `var(t) = sigma(t)^2`. The rest is derived:

    f = d log_alpha / dt                                                                (3)
    g^2 = d var / dt - 2 f var                                                          (4)
    log_snr = 2 log_alpha - log var                                                     (5)
    x_t | x_s: scale = alpha_t / alpha_s, var = var_t - scale^2 var_s                   (6)
    x_s | x_t, x_0: weights and variance by Bayes' rule of two Gaussians                (7)

With equation (5), the variance in (6) is var_t (1 - SNR_t / SNR_s): no difference of nearly equal
numbers. `var(0) > 0` is allowed (VE, EDM) and means that x_0 itself already carries that noise in
(2), while (6) and (7) speak of the increments after it.

References: Song et al., arXiv:2011.13456, sections 3 and 5; Kingma et al., arXiv:2107.00630,
appendix A (posterior in terms of the log-SNR).
"""

from __future__ import annotations

import math
import numbers
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from scipy.optimize import elementwise
from torch import Tensor

from sdekit._cache import cached
from sdekit._check import (
    floating,
    integer,
    like,
    number,
    readable,
    samples,
    shown,
)  # fmt: skip
from sdekit._times import Time, check_order, derivative, scaled, schedule
from sdekit.errors import ConfigError, DtypeError, ShapeError, TimeError
from sdekit.sde.process import SDE

__all__ = ["LinearSDE", "Posterior"]

# the methods of times alone, which get float64 times and give checked results wherever overridden
_SCHEDULES = (
    "log_alpha", "var", "alpha", "sigma", "log_snr", "f", "g2", "diffusion",
    "transition", "posterior",
)  # fmt: skip


class Posterior(NamedTuple):
    """x_s | x_t, x_0 ~ N(x_t-weight x_t + x_0-weight x_0, var I), each [shape of the times]."""

    x_t: Tensor
    x_0: Tensor
    var: Tensor


# eq=False: a subclass that is no dataclass is itself alone, whatever else it holds
@dataclass(frozen=True, kw_only=True, eq=False)
class LinearSDE(SDE):
    """dx = f(t) x dt + g(t) dW, from `log_alpha(t)` and `var(t)`; all else is derived.

    A subclass is a frozen dataclass with `log_alpha`, `var` and `examples`. In those methods `t`
    is always a float64 tensor inside [0, t_max]; write plain torch and return its shape.

    Args:
        t_min: where sampling ends and training begins; 0 only where var(0) > 0.
        t_max: where sampling begins.

    Raises:
        ConfigError: not 0 <= t_min < t_max < infinity, or t_min = 0 where var(0) = 0.

    Reference: arXiv:2011.13456, eqs. 5 and 29.
    """

    t_min: float = 1e-3
    t_max: float = 1.0
    kinds: ClassVar[frozenset[str]] = frozenset({"linear"})
    quiet_fields: ClassVar[tuple[str, ...]] = (
        "t_min",
        "t_max",
    )  # left out of repr at their defaults
    extends: ClassVar[bool] = (
        False  # whether the schedules go on beyond t_max, where a sampler may churn
    )
    closed_start: ClassVar[bool] = False  # t_min = 0 allowed although var(0) = 0 (a DDPM's nodes)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the subclass's schedules validated float64 times and checked results."""
        super().__init_subclass__(**kwargs)
        for name in _SCHEDULES:
            method = vars(cls).get(name)
            if callable(method) and not hasattr(method, "is_schedule"):
                setattr(cls, name, schedule(method))

    def __post_init__(self) -> None:
        """Check the fields; a subclass with fields of its own extends this."""
        t_max = number("t_max", self.t_max, gt=0)
        t_min = number("t_min", self.t_min, ge=0, lt=t_max)
        self._set(t_min=t_min, t_max=t_max)
        if (
            type(self).__post_init__ is LinearSDE.__post_init__
        ):  # one that extends this calls it last
            self._check_start()

    def _check_start(self) -> None:
        """Refuse t_min = 0 where the marginal at 0 is singular; called once the fields are set."""
        if self.t_min == 0 and not self.closed_start and float(self.var(0.0)) == 0:
            raise ConfigError("t_min must be > 0 where var(0) = 0, got 0")

    # the two primitives -------------------------------------------------------------------------

    @abstractmethod
    def log_alpha(self, t: Time) -> Tensor:
        """log alpha(t) [shape of t], 0 at t = 0."""

    @abstractmethod
    def var(self, t: Time) -> Tensor:
        """sigma(t)^2 [shape of t], without cancellation near 0: use `expm1`."""

    @classmethod
    def examples(cls) -> list[Any]:
        """Instances that tests and benchmarks run over."""
        return [cls()]

    # derived ------------------------------------------------------------------------------------

    @schedule
    def alpha(self, t: Time) -> Tensor:
        """alpha(t) = exp(log_alpha(t)) [shape of t], eq. (2)."""
        return self.log_alpha(t).exp()

    @schedule
    def sigma(self, t: Time) -> Tensor:
        """sigma(t) = sqrt(var(t)) [shape of t], eq. (2)."""
        return self.var(t).sqrt()

    @schedule
    def log_snr(self, t: Time) -> Tensor:
        """log(alpha^2 / sigma^2) [shape of t], strictly decreasing, eq. (5)."""
        return 2 * self.log_alpha(t) - self.var(t).log()

    @schedule
    def f(self, t: Time) -> Tensor:
        """d log_alpha / dt [shape of t], eq. (3)."""
        return derivative(self.log_alpha, t)

    @schedule
    def g2(self, t: Time) -> Tensor:
        """d var / dt - 2 f var [shape of t], eq. (4)."""
        return derivative(self.var, t) - 2 * self.f(t) * self.var(t)

    @schedule
    def transition(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """x_t | x_s for s <= t: scale and standard deviation [broadcast shape], eq. (6)."""
        check_order(s, t)
        scale = (self.log_alpha(t) - self.log_alpha(s)).exp()
        gain = self.log_snr(t) - self.log_snr(s)
        var = torch.where(s == t, 0.0, -self.var(t) * torch.expm1(gain))
        return scale, var.clamp_min(0).sqrt()

    @schedule
    def posterior(self, s: Time, t: Time) -> Posterior:
        """x_s | x_t, x_0 for s <= t, eq. (7).

        With k = alpha_t / alpha_s and v_ts the transition's variance: weights k var_s / var_t of
        x_t and alpha_s v_ts / var_t of x_0, variance var_s v_ts / var_t.

        Reference: arXiv:2006.11239, eqs. 6 and 7; arXiv:2107.00630, eq. 33.
        """
        scale, std = self.transition(s, t)
        var_s, var_t = self.var(s), self.var(t)
        kept = torch.where(s == t, 1.0, var_s / var_t)  # also at s = t = 0, where it is 0/0
        fresh = torch.where(s == t, 0.0, std.square() / var_t)
        return Posterior(scale * kept, self.alpha(s) * fresh, var_s * fresh)

    def t_from_log_snr(self, log_snr: Time) -> Tensor:
        """The time [shape of log_snr] at which the log-SNR has this value.

        Raises:
            TimeError: no time in [0, t_max] has it.
        """
        if isinstance(log_snr, Tensor):
            kept, value = log_snr.dtype, floating("log_snr", log_snr).to(torch.float64)
        elif isinstance(log_snr, numbers.Real) and not isinstance(log_snr, bool):
            kept, value = torch.float64, torch.tensor(float(log_snr), dtype=torch.float64)
        else:
            raise DtypeError(f"log_snr must be a float or a floating tensor, got {shown(log_snr)}")
        low, high = self.log_snr_range
        slack = 8 * torch.finfo(kept).eps
        least = low - slack * max(1.0, abs(low))
        most = high + slack * max(1.0, abs(high))
        if readable(value) and value.numel():
            ends = torch.aminmax(value.detach())
            if not (ends.min.item() >= least and ends.max.item() <= most):  # NaN is outside too
                flat = value.detach().flatten()
                bad = flat[~((flat >= least) & (flat <= most))][0].item()
                raise TimeError(f"log_snr must lie in [{low:.6g}, {high:.6g}], got {bad!r}")
        return self._solve_log_snr(value.clamp(low, high)).clamp(0.0, self.t_max).to(kept)

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """The least log-SNR, at t_max, and the largest, at 0."""
        return _known_range(self) if _is_constant(self) else _range(self)

    def _solve_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr` in float64; a closed form where there is one overrides this."""

        def gap(log_t: np.ndarray, wanted: np.ndarray) -> np.ndarray:
            t = torch.from_numpy(np.exp(log_t)).clamp_max(self.t_max)
            return np.clip(self.log_snr(t).detach().numpy(), -1e300, 1e300) - wanted

        # var may be 0 in float64 for tiny times; the search needs a sign, not an infinity
        wanted = log_snr.detach().cpu().reshape(-1).numpy().clip(-1e300, 1e300)
        # in log t, so that small times come out with full relative precision
        low, high = math.log(1e-300), math.log(self.t_max)
        found = elementwise.find_root(gap, (np.full_like(wanted, low), high), args=(wanted,))
        t = np.where(found.success, np.exp(found.x), np.nan)
        least, most = self.log_snr_range
        t = np.where(wanted >= min(most, 1e300), 0.0, t)
        t = np.where(wanted <= least, self.t_max, t)
        return torch.from_numpy(t).reshape(log_snr.shape).to(log_snr.device)

    # acting on samples --------------------------------------------------------------------------

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """f(t) x [(batch, *dims)]."""
        return scaled(x, self.f(t))

    @schedule
    def diffusion(self, t: Time) -> Tensor:
        """g(t) = sqrt(g2(t)) [shape of t]."""
        return self.g2(t).clamp_min(0).sqrt()

    def perturb(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """alpha(t) x0 + sigma(t) noise [(batch, *dims)], a draw of x_t | x_0, eq. (2).

        Raises:
            ShapeError: noise and x0 differ in shape, or t is not one value or one a sample.
            DtypeError: x0 is not a floating tensor.
            NonFiniteError: x0 holds NaN or infinity.
        """
        samples("x0", x0)
        like("noise", noise, "x0", x0)
        return scaled(x0, self.alpha(t)) + scaled(noise.to(x0.dtype), self.sigma(t))

    # the prior ----------------------------------------------------------------------------------

    def prior_std(self, t: float | None = None) -> float:
        """The standard deviation of the law sampling starts from: sigma(t), t_max by default."""
        return float(self.sigma(self.t_max if t is None else t))

    def prior_sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws [shape] of N(0, prior_std()^2 I).

        Without a generator a fresh stream is used; the global one is never touched.
        """
        if not isinstance(shape, Sequence) or isinstance(shape, str):
            raise ShapeError(f"shape must be (n, *dims), got {shown(shape)}")
        shape = [integer("shape", size, ge=0) for size in shape]
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise DtypeError(
                f"dtype must be a real floating torch.dtype or None, got {shown(dtype)}"
            )
        if generator is None:
            generator = torch.Generator(device=device or "cpu")
            generator.seed()
        elif not isinstance(generator, torch.Generator):
            raise DtypeError(
                f"generator must be a torch.Generator or None, got {shown(generator)}"
            )
        draw = torch.randn(*shape, generator=generator, dtype=dtype, device=generator.device)
        return self.prior_std() * draw.to(device or generator.device)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """log N(x; 0, prior_std()^2 I) in nats [(batch,)]."""
        flat = samples("x", x).reshape(x.shape[0], math.prod(x.shape[1:]))
        std = self.prior_std()
        constant = flat.shape[1] * (math.log(std) + 0.5 * math.log(2 * math.pi))
        return -0.5 * (flat / std).square().sum(dim=1) - constant

    # grids and models ---------------------------------------------------------------------------

    @property
    def default_steps(self) -> int:
        """How many steps a run takes where nobody says: 50, or all of a DDPM's."""
        return 50

    def reaching(self, t: float) -> LinearSDE:
        """This process followed up to t: itself, or, where it extends beyond t_max, a longer copy.

        Raises:
            TimeError: t > t_max and the process does not extend there.
        """
        if t <= self.t_max:
            return self
        if not self.extends:
            raise TimeError(f"{self!r} does not extend to t = {t:g} beyond t_max = {self.t_max:g}")
        return replace(self, t_max=t)

    def to_model_time(self, t: Tensor) -> Tensor:
        """The time nearest above t at which a model is defined [shape of t]: t, but on a DDPM."""
        return t

    def align(self, grid: Tensor, *, keep: bool) -> Tensor:
        """The grid on the times that this SDE can step between: any, here; nodes, on a DDPM.

        Args:
            grid: strictly decreasing float64 times [(steps + 1,)].
            keep: whether times that fall together are moved apart (a named grid) or refused.
        """
        del keep
        return grid

    @classmethod
    def from_coefficients(
        cls,
        f: Callable[[Tensor], Tensor],
        g2: Callable[[Tensor], Tensor],
        *,
        var0: float = 0.0,
        t_min: float = 1e-3,
        t_max: float = 1.0,
    ) -> LinearSDE:
        """The linear SDE with these coefficients; its kernels come from adaptive quadrature.

        log_alpha(t) = integral of f, var(t) = alpha(t)^2 (var0 + integral of g2 / alpha^2).

        Args:
            f: the drift coefficient, float64 tensor -> tensor of its shape.
            g2: the squared diffusion, likewise, >= 0.
            var0: var(0), >= 0.
            t_min: as in `LinearSDE`.
            t_max: as in `LinearSDE`.

        Raises:
            ConfigError: g2 is negative somewhere, or a coefficient is not finite or not
                integrable.

        Example:
            >>> import torch
            >>> from sdekit import LinearSDE, VPSDE
            >>> beta = lambda t: 0.1 + 19.9 * t
            >>> sde = LinearSDE.from_coefficients(lambda t: -0.5 * beta(t), beta)
            >>> abs(float(sde.var(0.3) - VPSDE().var(0.3))) < 1e-12
            True
        """
        from sdekit.sde.coefficients import CoefficientSDE  # it subclasses LinearSDE

        return CoefficientSDE(f_of_t=f, g2_of_t=g2, var0=var0, t_min=t_min, t_max=t_max)


def _range(sde: LinearSDE) -> tuple[float, float]:
    low, high = sde.log_snr(torch.tensor([sde.t_max, 0.0], dtype=torch.float64)).tolist()
    return low, high


_known_range = cached(64)(_range)


def _is_constant(sde: LinearSDE) -> bool:
    """Whether nothing about it can change: equal by value, and made of numbers alone."""
    held = vars(sde)
    return (
        type(sde).__eq__ is not object.__eq__
        and len(held) == len(fields(sde))
        and all(isinstance(value, float | int) for value in held.values())
    )
