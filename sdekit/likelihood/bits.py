r"""Whole numbers and densities: the declared transform, bits per dimension, dequantisation.

An image of n levels 0 .. n - 1 in each of d numbers, shown to a model as

    x = low + (high - low) (k + u) / n,    u in [0, 1)^d,                                       (1)

has the probability of its cell, and for any q(u | k) Jensen's inequality gives

    log P(k) >= E_q [log p(x) - log q(u | k)] + d log((high - low) / n).                        (2)

Uniform dequantisation has q = 1. In bits per dimension

    bits = -(log p(x) - log q(u | k)) / (d log 2) - log2((high - low) / n):                     (3)

the second term is 7 for 256 levels on [-1, 1] and 8 on [0, 1]. It belongs to the transform: it is
computed from what is declared, and a change of the range leaves the bits as they are.

References: Theis et al., arXiv:1511.01844, section 3.1, eqs. 5 to 8 (uniform); Ho et al.,
arXiv:1902.00275, section 3.1, eqs. 4 and 5 (variational).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit._check import Checked, integer, number, shown
from sdekit.errors import ConfigError, DataError, DtypeError, ShapeError
from sdekit.objectives.base import same_generator

__all__ = ["Quantization", "bits_per_dim", "dequantize"]


@dataclass(frozen=True, kw_only=True)
class Quantization(Checked):
    """How whole numbers became what a model sees, eq. (1).

    Args:
        levels: n, >= 2.
        low: where the cell of 0 begins.
        high: where the cell of n - 1 ends, > low.

    Raises:
        ConfigError: a value out of range.
        DtypeError: no int, or no number.

    Reference: arXiv:1511.01844, section 3.1.

    Example:
        >>> Quantization(levels=256).offset, Quantization(low=0.0, high=1.0).offset
        (7.0, 8.0)
    """

    levels: int = 256
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        integer("levels", self.levels, ge=2, le=2**53, error=ConfigError)
        low = number("low", self.low)
        self._set(low=low, high=number("high", self.high, gt=low))
        if not 0 < self.width < math.inf:
            raise ConfigError(
                f"low={low:g} and high={self.high:g} with {self.levels} levels have cells of "
                f"width {self.width:g}, which must be a positive number"
            )

    @property
    def width(self) -> float:
        """Of a cell: (high - low) / levels."""
        return (self.high - self.low) / self.levels

    @property
    def offset(self) -> float:
        """-log2 of that width: the second term of eq. (3)."""
        return -math.log2(self.width)

    def placed(self, values: Tensor, u: Tensor) -> Tensor:
        """x of eq. (1), in the dtype of u and inside [low, high).

        Args:
            values: whole numbers 0 .. levels - 1, of any shape and any real dtype.
            u: where in their cells, in [0, 1) [the same shape].

        Raises:
            DataError: a value that is no whole number in 0 .. levels - 1; the first is named.
        """
        values = self.checked(values)
        whole = values.to(torch.float64)
        x = (self.low + self.width * (whole + u.to(torch.float64))).to(u.dtype)
        # rounding in a narrow type, or u = 1, may leave the cell: then its middle stands for it
        middle = (self.low + self.width * (whole + 0.5)).to(u.dtype)
        x = torch.where(self.cells(x) == whole, x, middle)
        if bool((self.cells(x) != whole).any()):
            raise DtypeError(
                f"{u.dtype} cannot tell cells of width {self.width:g} apart on "
                f"[{self.low:g}, {self.high:g}]; use a wider type"
            )
        return x

    def checked(self, values: object) -> Tensor:
        """The values, all whole numbers in 0 .. levels - 1."""
        if not isinstance(values, Tensor) or values.dtype.is_complex:
            raise DtypeError(f"values must be a tensor of whole numbers, got {shown(values)}")
        if values.ndim == 0:
            raise ShapeError("values must have shape (batch, *dims), got a 0-d tensor")
        wide = values.to(torch.float64)  # 256 is no uint8
        wrong = ~((wide >= 0) & (wide < self.levels) & (wide == wide.round()))
        if bool(wrong.any()):
            raise DataError(
                f"values must be whole numbers in 0 .. {self.levels - 1}, got "
                f"{values[wrong].flatten()[0].item()!r}"
            )
        return values

    def cells(self, x: Tensor) -> Tensor:
        """The whole numbers of samples, int64 [the shape of x]; the inverse of `placed`.

        A sample outside [low, high) has a number outside 0 .. levels - 1.
        """
        return ((x.detach().to(torch.float64) - self.low) / self.width).floor().to(torch.int64)

    def bits_per_dim(self, nats: Tensor, shape: Sequence[int]) -> Tensor:
        """Eq. (3) of log-likelihoods [(batch,)] of x, less log q where q is not 1."""
        return _per_dim(nats, shape) + self.offset

    def nats(self, bits: Tensor, shape: Sequence[int]) -> Tensor:
        """The log-likelihoods that have these bits per dimension: the inverse."""
        return -(bits - self.offset) * math.prod(shape) * math.log(2)


def dequantize(
    values: Tensor,
    *,
    levels: int = 256,
    low: float = -1.0,
    high: float = 1.0,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Whole numbers as samples of a density: uniform dequantisation, eq. (1).

    Args:
        values: whole numbers 0 .. levels - 1 [(batch, *dims)].
        levels: as for `Quantization`.
        low: as for `Quantization`.
        high: as for `Quantization`.
        generator: of the noise; without one, a fresh stream.
        dtype: of the samples; torch's default.

    Raises:
        DataError: a value that is no such number.
        ConfigError: and DtypeError, as for `Quantization`.

    Reference: arXiv:1511.01844, section 3.1.

    Example:
        >>> import torch
        >>> x = dequantize(torch.tensor([[0, 255]]), generator=torch.Generator().manual_seed(0))
        >>> bool(x[0, 0] < -0.99), bool(x[0, 1] > 0.99)
        (True, True)
    """
    how = Quantization(levels=levels, low=low, high=high)
    how.checked(values)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise DtypeError(f"dtype must be a floating torch.dtype or None, got {shown(dtype)}")
    source = same_generator(generator, values.device)
    u = torch.rand(values.shape, generator=source, dtype=torch.float64, device=values.device)
    return how.placed(values, u.to(dtype))


def bits_per_dim(
    nats: Tensor,
    shape: Sequence[int],
    *,
    levels: int = 256,
    low: float = -1.0,
    high: float = 1.0,
) -> Tensor:
    """Bits per dimension of dequantised data, eq. (3).

    Args:
        nats: log-likelihoods of x (less log q where the noise was not uniform) [(batch,)].
        shape: of a sample, (*dims).
        levels: how many values a number had.
        low: what the transform sent the bottom of the lowest cell to.
        high: what it sent the top of the highest one to.

    Raises:
        ConfigError: levels < 2 or none, high <= low.
        ShapeError: shape is no tuple of sizes >= 1.

    Reference: arXiv:1511.01844, section 3.1; arXiv:2011.13456, appendix D.2.

    Example:
        >>> import math, torch
        >>> uniform = torch.tensor([-4 * math.log(2.0)])  # of the square [-1, 1]^4
        >>> bits_per_dim(uniform, (4,))  # one of 256 cells in each dimension
        tensor([8.])
    """
    return Quantization(levels=levels, low=low, high=high).bits_per_dim(nats, shape)


def _per_dim(nats: Tensor, shape: Sequence[int]) -> Tensor:
    """-nats / (d log 2)."""
    if not isinstance(nats, Tensor) or not nats.dtype.is_floating_point:
        raise DtypeError(f"nats must be a floating tensor, got {shown(nats)}")
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not len(shape):
        raise ShapeError(f"shape must be the sizes (*dims) of a sample, got {shown(shape)}")
    dim = math.prod(integer("shape", size, ge=1) for size in shape)
    return -nats / (dim * math.log(2))
