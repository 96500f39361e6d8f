r"""Data laws: what can be sampled, and what is known in closed form at every noise level.

A target is the law of x_0 [shape]. An exact one also knows, for any alpha and var >= 0, the law

    x = alpha x_0 + sqrt(var) eps,   eps ~ N(0, I),                                             (1)

that is its density p and its score grad log p, whence the posterior mean by Tweedie's formula

    E[x_0 | x] = (x + var grad log p(x)) / alpha.                                               (2)

Sample i of `score` and `log_prob` is bitwise the same whatever batch it is in. Draws are made in
float64 and cast once, so that dtypes agree; the global random state is never used.

References: Robbins 1956 and Efron 2011, doi:10.1198/jasa.2011.tm11181 (Tweedie's formula);
Song et al., arXiv:2011.13456, eq. 29 for (1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sdekit._check import (
    Checked,
    floating,
    integer,
    number,
    readable,
    samples,
    shown,
    transformed,
)
from sdekit.errors import ConfigError, DeviceError, DtypeError, ShapeError

__all__ = ["ClosedForm", "Draws", "ExactTarget", "Target", "parameter"]

T = TypeVar("T")


class Target(Checked, ABC):
    """A data law, from which samples can be drawn; a subclass has `shape` and `sample`."""

    shape: tuple[int, ...]

    @abstractmethod
    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Independent draws [(n, *shape)].

        Args:
            n: how many, >= 0.
            generator: the source of randomness; without one, a fresh stream.
            dtype: a floating dtype; by default the target's own, which is torch's default unless
                its parameters were given as float64 tensors.
            device: by default the generator's.

        Raises:
            ConfigError: n < 0.
            DtypeError: n is not an int, dtype is not a floating one, or generator is no generator.
            DeviceError: the generator lives on another device.
        """


class ExactTarget(Target):
    """A data law in closed form at every noise level.

    `_log_prob` and `_score` are the same functions without checks of x, for loops that call them
    thousands of times, and `_perturbed` is `perturbed` for two floats that were checked before.
    """

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats [(batch,)] at x [(batch, *shape)].

        Raises:
            ShapeError: x is not (batch, *shape).
            DtypeError: x is not a real floating tensor.
            NonFiniteError: x holds NaN or infinity; the rows are named.
            ConfigError: the law has no density (it is singular).
        """

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """grad log p [(batch, *shape)] at x [(batch, *shape)]; raises as `log_prob` does."""

    def laplacian(self, x: Tensor) -> Tensor:
        """Delta log p, the divergence of the score [(batch,)], at x [(batch, *shape)].

        By Tweedie's formula for the second moment, Cov(x_0 | x) = var/alpha^2 (I + var H) with the
        Hessian H of log p, it is what the posterior's spread says: arXiv:2310.06721, eq. 9.

        Raises:
            ShapeError: and DtypeError, NonFiniteError, ConfigError, as `log_prob` does.

        Example:
            >>> import torch
            >>> from sdekit import Gaussian
            >>> Gaussian([0.0, 0.0], 0.5).laplacian(torch.zeros(3, 2))  # -d / v
            tensor([-4., -4., -4.])
        """
        return self._curved(samples("x", x, self.shape))[1]

    @abstractmethod
    def perturbed(self, alpha: float, var: float) -> ExactTarget:
        """The law of alpha x_0 + sqrt(var) eps, eq. (1).

        Raises:
            ConfigError: alpha or var is not finite, or var < 0.
            DtypeError: alpha or var is not a real number.
        """

    def denoise(self, x: Tensor, alpha: float, var: float) -> Tensor:
        """The posterior mean E[x_0 | alpha x_0 + sqrt(var) eps = x] [(batch, *shape)], eq. (2).

        Raises:
            ConfigError: alpha = 0 (x then says nothing about x_0), or as `perturbed`.
            ShapeError: and DtypeError, NonFiniteError: x, as in `log_prob`.
        """
        alpha, var = number("alpha", alpha), number("var", var, ge=0)
        if alpha == 0:
            raise ConfigError(
                "alpha must not be 0 in denoise, got 0: x holds no trace of x_0 there"
            )
        samples("x", x, self.shape)
        if var == 0:
            return x / alpha
        return (x + var * self._perturbed(alpha, var)._score(x)) / alpha

    def _log_prob(self, x: Tensor) -> Tensor:
        return self.log_prob(x)

    def _score(self, x: Tensor) -> Tensor:
        return self.score(x)

    def _perturbed(self, alpha: float, var: float) -> ExactTarget:
        return self.perturbed(alpha, var)

    def _curved(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The score [(batch, *shape)] and its divergence [(batch,)]; here by autograd."""
        with torch.inference_mode(False), torch.enable_grad():
            point = x.detach().clone().requires_grad_()
            score = self._score(point)
            flat, total = score.reshape(len(x), -1), x.new_zeros(len(x))
            for i in range(flat.shape[1]):
                (slope,) = torch.autograd.grad(flat[:, i].sum(), point, retain_graph=True)
                total = total + slope.reshape(len(x), -1)[:, i]
        return score.detach(), total


class ClosedForm(ExactTarget):
    """An exact target whose arguments are checked here, once; it cannot be changed.

    A subclass keeps its parameters as they are, and asks `_plan` for the tensors made of them,
    once for each dtype and device.
    """

    _dtype: torch.dtype | None = None  # its own, where a parameter asked for one
    _plans: dict[tuple[str, torch.dtype, torch.device], Any]

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a target never changes."""
        raise FrozenInstanceError(f"cannot assign to {name!r}: {type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> None:
        """Refuse likewise."""
        raise FrozenInstanceError(f"cannot delete {name!r}: {type(self).__name__} is frozen")

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats [(batch,)] at x [(batch, *shape)]; see `ExactTarget.log_prob`."""
        return self._log_prob(samples("x", x, self.shape))

    def score(self, x: Tensor) -> Tensor:
        """grad log p [(batch, *shape)] at x [(batch, *shape)]; see `ExactTarget.score`."""
        return self._score(samples("x", x, self.shape))

    def perturbed(self, alpha: float, var: float) -> ExactTarget:
        """The law of alpha x_0 + sqrt(var) eps, eq. (1); see `ExactTarget.perturbed`."""
        return self._perturbed(number("alpha", alpha), number("var", var, ge=0))

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _score(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _perturbed(self, alpha: float, var: float) -> ExactTarget: ...

    def _plan(self, prepare: Callable[[torch.dtype, torch.device], T], x: Tensor) -> T:
        """What `prepare` gives for the dtype and device of x, kept for the next call."""
        key = (prepare.__name__, x.dtype, x.device)
        plan: T | None = self._plans.get(key)
        if plan is None:
            if torch.is_inference_mode_enabled():
                with torch.inference_mode(False):  # its tensors could not be used by autograd
                    return self._plan(prepare, x)
            plan = prepare(x.dtype, x.device)
            # nor may a tensor that belongs to a transform of torch.func outlive it
            if readable(x) and not transformed():
                self._plans[key] = plan
        return plan

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the cached tensors."""
        return {**self.__dict__, "_plans": {}}


class Draws:
    """The checked arguments of `sample`, and draws in float64 from their generator.

    Args:
        n: how many samples, >= 0.
        generator: None for a fresh stream.
        dtype: of the samples, None for `own`.
        device: of the samples, None for the generator's.
        own: the target's own dtype, None for torch's default.
    """

    def __init__(
        self,
        n: object,
        generator: object,
        dtype: object,
        device: torch.device | str | None,
        own: torch.dtype | None = None,
    ) -> None:
        self.n = integer("n", n, ge=0)
        if dtype is None:
            dtype = own or torch.get_default_dtype()
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise DtypeError(f"dtype must be a floating torch.dtype or None, got {shown(dtype)}")
        self.dtype = dtype
        if generator is None:
            try:
                generator = torch.Generator(device=device or "cpu")
            except RuntimeError as error:
                raise DeviceError(f"device={shown(device)} has no generator: {error}") from error
            generator.seed()
        if not isinstance(generator, torch.Generator):
            raise DtypeError(
                f"generator must be a torch.Generator or None, got {shown(generator)}"
            )
        wanted = torch.device(device or generator.device)
        at = generator.device
        if wanted.type != at.type or (wanted.index or 0) != (at.index or 0):
            raise DeviceError(
                f"generator is on {at} and device={wanted}; pass a generator of {wanted}"
            )
        self.generator, self.device = generator, wanted

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws [(n, *shape)]."""
        return torch.randn(
            self.n, *shape, generator=self.generator, dtype=torch.float64, device=self.device
        )

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws on [0, 1) [(n, *shape)]."""
        return torch.rand(
            self.n, *shape, generator=self.generator, dtype=torch.float64, device=self.device
        )

    def index(self, high: int) -> Tensor:
        """Integers that are uniform on 0 .. high - 1 [(n,)]."""
        return torch.randint(high, (self.n,), generator=self.generator, device=self.device)

    def choice(self, weights: np.ndarray) -> Tensor:
        """Indices [(n,)] with these probabilities [(k,)]; one of weight 0 never comes up."""
        heights = np.cumsum(weights)
        # u < 1 always lies below the last height, and `right` skips the steps of no height
        return torch.searchsorted(self.tensor(heights / heights[-1]), self.uniform(), right=True)

    def tensor(self, values: np.ndarray) -> Tensor:
        """Parameters as a float64 tensor beside the draws."""
        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def cast(self, x: Tensor) -> Tensor:
        """The samples in the dtype that was asked for."""
        return x.to(self.dtype)


def parameter(name: str, value: object, shapes: Sequence[str]) -> np.ndarray:
    """A parameter as a float64 array: a number, a floating tensor, or (nested) lists of numbers.

    Args:
        name: the argument's name.
        value: the argument.
        shapes: the shapes allowed, in words for messages, by number of dimensions: "" where that
            number is not allowed.

    Raises:
        DtypeError: something else, or integers or complex numbers in a tensor.
        ShapeError: a number of dimensions that is not allowed, or ragged lists.
        ConfigError: a value that is not finite; its index is named.
    """
    allowed = " or ".join(text for text in shapes if text)
    if isinstance(value, Tensor):
        if value.is_meta:
            raise DeviceError(f"{name} is on the meta device and has no values")
        array = floating(name, value).detach().cpu().double().numpy().copy()
    elif isinstance(value, list | tuple):
        try:
            array = np.array(value)
        except ValueError:
            raise ShapeError(f"{name} must be {allowed}, got lists of unequal lengths") from None
        if array.dtype.kind not in "fiu" and array.size:
            raise DtypeError(f"{name} must hold real numbers, got {shown(value)}")
        array = array.astype(np.float64)
    elif isinstance(value, np.ndarray):
        raise DtypeError(f"{name} must be a torch.Tensor or lists of floats, got a NumPy array; "
                         "use torch.as_tensor(...)")  # fmt: skip
    else:
        array = np.array(number(name, value))
    if array.ndim >= len(shapes) or not shapes[array.ndim] or array.size == 0:
        raise ShapeError(f"{name} must be {allowed}, got shape {array.shape}")
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        place = f"[{', '.join(map(str, index))}]" if index else ""
        raise ConfigError(f"{name}{place} must be finite, got {array[index]}")
    array.flags.writeable = False
    return array
