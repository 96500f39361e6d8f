r"""What a network may predict, as one table, and the 2x2 solve that converts any into any.

Every target of prediction is linear in the clean sample and the noise behind x = alpha x_0 + sigma
eps:

    raw = a x_0 + b eps,                                                                    (1)

    name    a                          b
    eps     0                          1                      arXiv:2006.11239
    x0      1                          0
    score   0                          -1/sigma               eps = -sigma score
    v       -sigma                     alpha                  arXiv:2202.00512, appendix D
    flow    d alpha/dt                 d sigma/dt             arXiv:2210.02747: the velocity dx/dt
    edm     (1 - c_skip alpha)/c_out   -c_skip sigma/c_out    arXiv:2206.00364, eq. 7

With det = alpha b - sigma a, the pair (x, raw) gives back

    x_0 = (b x - sigma raw) / det,    eps = (alpha raw - a x) / det.                        (2)

det -> 0 is where a parametrisation carries no information: eps where alpha -> 0, x0 where sigma ->
0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import make_one, register
from sdekit._check import Checked, floating, like, number, readable
from sdekit._times import Time, expand_like
from sdekit.errors import TimeError
from sdekit.sde.base import LinearSDE

__all__ = ["X0", "EDMPrecond", "Eps", "Flow", "Parametrization", "Score", "V", "convert"]


class Parametrization(Checked, ABC):
    """One row (a, b) of the table as a function of time, and the scale of the network's input."""

    @abstractmethod
    def row(self, sde: LinearSDE, t: Tensor) -> tuple[Tensor, Tensor]:
        """a and b of eq. (1) [shape of t], float64."""

    def input_scale(self, sde: LinearSDE, t: Tensor) -> Tensor | None:
        """What multiplies x before it enters the network [shape of t]; None: nothing."""
        return None

    def weights(
        self,
        sde: LinearSDE,
        t: Tensor,
        *,
        x: Any = 0.0,
        x0: Any = 0.0,
        eps: Any = 0.0,
        score: Any = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The weights of x and of the raw output in x x + x0 x_0 + eps eps + score s.

        Args:
            sde: the process that gives alpha and sigma.
            t: the times [any shape], float64.
            x: the coefficient of the noisy sample [() or shape of t].
            x0: that of the predicted clean sample.
            eps: that of the predicted noise.
            score: that of the predicted score, -eps / sigma.

        Returns:
            Two float64 tensors of the shape of t, by eq. (2). Where a = 0 or b = 0 the half that
            does not need the determinant avoids it, so that a score stays exact where alpha
            underflows.

        Raises:
            TimeError: a weight has no finite value because sigma(t) = 0.
        """
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        a, b = self.row(sde, t)
        det = alpha * b - sigma * a
        noise = eps if _is_zero(score) else eps - score / sigma
        on_x, on_raw = x + torch.zeros_like(t), torch.zeros_like(t)
        if not _is_zero(x0):
            none = b == 0
            on_x = on_x + _times(x0, (b / det).masked_fill(none, 0.0))
            on_raw = on_raw + _times(x0, torch.where(none, 1 / a, -sigma / det))
        if not _is_zero(noise):
            none = a == 0
            on_x = on_x - _times(noise, (a / det).masked_fill(none, 0.0))
            on_raw = on_raw + _times(noise, torch.where(none, 1 / b, alpha / det))
        _refuse_singular(t, sigma, on_x + on_raw)
        return on_x, on_raw

    @classmethod
    def examples(cls) -> list[Any]:
        """Instances that tests run over."""
        return [cls()]


def _is_zero(coefficient: Any) -> bool:
    return isinstance(coefficient, int | float) and coefficient == 0


def _times(coefficient: Any, weight: Tensor) -> Tensor:
    """coefficient * weight, 0 where the coefficient is, even if the weight is infinite there."""
    if isinstance(coefficient, Tensor):
        return (coefficient * weight).masked_fill(coefficient == 0, 0.0)
    return coefficient * weight


def _refuse_singular(t: Tensor, sigma: Tensor, weights: Tensor) -> None:
    # a sum is finite only if all are: one call where isfinite and all are five
    if readable(weights) and not math.isfinite(weights.detach().sum().item()):
        bad = (sigma == 0) & ~torch.isfinite(weights)
        if bool(bad.any()):
            raise TimeError(
                f"sigma(t) = 0 at t = {float(t[bad].flatten()[0]):g}, where this prediction "
                "determines no finite one of the wanted kind; use t >= t_min"
            )


@register("parametrization", "eps", paper="arXiv:2006.11239, eq. 14")
@dataclass(frozen=True, kw_only=True)
class Eps(Parametrization):
    """The noise eps."""

    def row(self, sde: LinearSDE, t: Tensor) -> tuple[Tensor, Tensor]:
        """(0, 1)."""
        return torch.zeros_like(t), torch.ones_like(t)


@register("parametrization", "x0", paper="arXiv:2202.00512, section 4")
@dataclass(frozen=True, kw_only=True)
class X0(Parametrization):
    """The clean sample x_0."""

    def row(self, sde: LinearSDE, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 0)."""
        return torch.ones_like(t), torch.zeros_like(t)


@register("parametrization", "score", paper="arXiv:2011.13456, eq. 7")
@dataclass(frozen=True, kw_only=True)
class Score(Parametrization):
    """The score grad log p_t(x) = -eps / sigma."""

    def row(self, sde: LinearSDE, t: Tensor) -> tuple[Tensor, Tensor]:
        """(0, -1/sigma)."""
        return torch.zeros_like(t), -1 / sde.sigma(t)


@register("parametrization", "v", paper="arXiv:2202.00512, appendix D")
@dataclass(frozen=True, kw_only=True)
class V(Parametrization):
    """v = alpha eps - sigma x_0."""

    def row(self, sde: LinearSDE, t: Tensor) -> tuple[Tensor, Tensor]:
        """(-sigma, alpha)."""
        return -sde.sigma(t), sde.alpha(t)


@register("parametrization", "flow", paper="arXiv:2210.02747, eq. 23")
@dataclass(frozen=True, kw_only=True)
class Flow(Parametrization):
    """The velocity dx/dt of the probability flow: alpha' x_0 + sigma' eps."""

    def row(self, sde: LinearSDE, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha', sigma') with alpha' = f alpha and sigma' = f sigma + g^2 / (2 sigma)."""
        f, sigma = sde.f(t), sde.sigma(t)
        return f * sde.alpha(t), f * sigma + 0.5 * sde.g2(t) / sigma


@register("parametrization", "edm", paper="arXiv:2206.00364, eq. 7 and table 1")
@dataclass(frozen=True, kw_only=True)
class EDMPrecond(Parametrization):
    """Karras et al.'s preconditioning, for any alpha: x_0 = c_skip x + c_out F(c_in x).

    With S^2 = alpha^2 sigma_data^2 + sigma^2: c_skip = alpha sigma_data^2 / S^2,
    c_out = sigma sigma_data / S, c_in = 1 / S.

    Args:
        sigma_data: the standard deviation of the data, > 0; 0.5 in the paper.

    Raises:
        ConfigError: sigma_data <= 0.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Check the field."""
        self._set(sigma_data=number("sigma_data", self.sigma_data, gt=0))

    def _total(self, sde: LinearSDE, t: Tensor) -> Tensor:
        return (sde.alpha(t) * self.sigma_data).square() + sde.var(t)

    def row(self, sde: LinearSDE, t: Tensor) -> tuple[Tensor, Tensor]:
        """((1 - c_skip alpha)/c_out, -c_skip sigma/c_out), where 1 - c_skip alpha = var / S^2."""
        root = self._total(sde, t).sqrt()
        return sde.sigma(t) / (self.sigma_data * root), -sde.alpha(t) * self.sigma_data / root

    def input_scale(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """c_in = 1 / S."""
        return self._total(sde, t).rsqrt()

    @classmethod
    def examples(cls) -> list[EDMPrecond]:
        """The paper's and a wide one."""
        return [cls(), cls(sigma_data=3.0)]


def convert(
    value: Tensor,
    x: Tensor,
    t: Time,
    sde: LinearSDE,
    *,
    source: str | Parametrization,
    target: str | Parametrization,
) -> Tensor:
    """A prediction of one kind as one of another kind.

    Args:
        value: the prediction [(batch, *dims)].
        x: the noisy sample it was made for [(batch, *dims)].
        t: its time [float, (), (batch,) or (batch, 1, ..., 1)].
        sde: the process.
        source: what `value` predicts: a parametrisation or its catalogue name.
        target: what is wanted.

    Returns:
        a' x_0 + b' eps with (x_0, eps) by eq. (2) [(batch, *dims)]. Its condition number is about
        1/alpha from eps to x0 and 1/sigma from x0 to eps.

    Raises:
        ShapeError: value and x differ in shape, or t does not fit the batch.
        ConfigError: an unknown parametrisation.

    Example:
        >>> import torch
        >>> from sdekit import VPSDE
        >>> eps, x = torch.ones(4, 2), torch.zeros(4, 2)
        >>> s = convert(eps, x, 0.5, VPSDE(), source="eps", target="score")
        >>> bool(torch.allclose(s, -eps / VPSDE().sigma(0.5).float()))
        True
    """
    given = make_one("parametrization", source, Parametrization, name="source")
    wanted = make_one("parametrization", target, Parametrization, name="target")
    like("value", value, "x", floating("x", x))
    times = torch.as_tensor(t, dtype=torch.float64)
    a, b = wanted.row(sde, times)
    on_x, on_raw = given.weights(sde, times, x0=a, eps=b)
    return expand_like(on_x, x) * x + expand_like(on_raw, x) * value
