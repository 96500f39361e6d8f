r"""Mean and covariance of the data, from which the start of a run is matched to the data.

For data of mean m and covariance C, x_t = alpha x_0 + sigma eps has

    E x_t = alpha m,    Cov x_t = alpha^2 C + sigma^2 I,                                        (1)

and the Gaussian of these moments is nearer to the law of x_T, in any sense that sees two moments,
than N(0, sigma_T^2 I): on Gaussian data it *is* the law of x_T. A covariance is kept as

    C = Q diag(values) Q^T + rest (I - Q Q^T):                                                  (2)

full where Q is square, diagonal where there is no Q, and of low rank where Q has r < d columns,
the leading eigenvectors, and `rest` is the mean of the eigenvalues left out: probabilistic PCA,
the most likely Gaussian of that form. By (2) the covariance in (1) has the same Q, and

    C^{1/2} z = sqrt(rest) z + Q (diag(values)^{1/2} - sqrt(rest) I) Q^T z.                     (3)

References: Tipping and Bishop 1999, doi:10.1111/1467-9868.00196, eqs. 7 and 8 (low rank);
Song et al., arXiv:2011.13456, eq. 29 (the kernel).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError
from typing import Any

import torch
from torch import Tensor

from sdekit._check import Checked, floating, integer, number, shown
from sdekit.errors import ConfigError, DtypeError, ShapeError
from sdekit.model.estimation import moments_of
from sdekit.targets import Gaussian, Target
from sdekit.targets.base import parameter
from sdekit.targets.covariance import rotate

__all__ = ["Moments"]

_ORTHONORMAL = 1e-8  # what Q^T Q may be off by
_BITWISE = 64**2  # entries of Q up to which a row does not depend on its batch, in any bit


class Moments(Checked):
    """A mean and a covariance, eq. (2); frozen, in float64 on the CPU.

    Args:
        mean: of the flattened sample [(d,)].
        values: the variances [(d,)] of independent coordinates, or one for all [(1,)]; with
            `vectors` the variances along them [(r,)].
        vectors: Q, orthonormal columns [(d, r)].
        rest: the variance in every direction orthogonal to the vectors, >= 0.
        shape: of a sample, (*dims); by default (d,).

    Raises:
        ShapeError: the shapes do not fit together.
        ConfigError: a variance is negative, a value not finite, or Q not orthonormal.
        DtypeError: an argument is no floating tensor or list of numbers.

    Reference: Tipping and Bishop 1999, doi:10.1111/1467-9868.00196, eqs. 7 and 8.

    Example:
        >>> import torch
        >>> from sdekit.model import Moments
        >>> law = Moments.of(torch.tensor([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]))
        >>> law.mean.tolist(), law.kind
        ([2.0, 2.0], 'full')
        >>> bool(torch.allclose(law.cov, torch.tensor(8 / 3, dtype=torch.float64)))
        True
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor | None
    rest: float
    shape: tuple[int, ...]

    def __init__(
        self,
        mean: Tensor | list[float],
        values: Tensor | list[float],
        vectors: Tensor | list[Any] | None = None,
        *,
        rest: float = 0.0,
        shape: Sequence[int] | None = None,
    ) -> None:
        centre = parameter("mean", mean, ("", "(d,)"))
        d = len(centre)
        spread = parameter("values", values, ("", f"({d},), (1,) or, with vectors, (r,)"))
        basis = None if vectors is None else parameter("vectors", vectors, ("", "", "(d, r)"))
        rest = number("rest", rest, ge=0)
        if basis is None and len(spread) not in (1, d):
            raise ShapeError(f"values must be ({d},) or (1,) without vectors, got {spread.shape}")
        if basis is None and rest:
            raise ConfigError(f"rest belongs to vectors, and there are none; got {rest:g}")
        if basis is not None and (basis.shape != (d, len(spread)) or len(spread) > d):
            raise ShapeError(
                f"vectors must be (d, r) for d = {d} and r = {len(spread)} <= d values, "
                f"got {basis.shape}"
            )
        if (spread < 0).any():
            raise ConfigError(f"values must be >= 0, got {spread.min():g}")
        dims = (d,) if shape is None else tuple(integer("shape", n, ge=1) for n in shape)
        if math.prod(dims) != d:
            raise ShapeError(f"shape must hold the mean's {d} numbers, got {dims}")
        with torch.inference_mode(False):  # a tensor made there could not be used by autograd
            turned = None if basis is None else torch.tensor(basis)
            if turned is not None:
                away = turned.T @ turned - torch.eye(len(spread), dtype=torch.float64)
                if float(away.abs().max()) > _ORTHONORMAL:
                    raise ConfigError(
                        "vectors must have orthonormal columns, got products "
                        f"{float(away.abs().max()):.2g} away from those"
                    )
            self._set(mean=torch.tensor(centre), values=torch.tensor(spread), vectors=turned)
        self._set(rest=rest, shape=dims)

    @classmethod
    def isotropic(cls, shape: Sequence[int], var: float) -> Moments:
        """The moments of N(0, var I) on samples of this shape."""
        dims = tuple(integer("shape", n, ge=0) for n in shape)
        values = torch.tensor([number("var", var, ge=0)], dtype=torch.float64)
        zero = torch.zeros((), dtype=torch.float64).expand(math.prod(dims))  # one number in memory
        return cls._of_parts(zero, values, None, 0.0, dims)

    @classmethod
    def of(cls, data: Tensor | Target, *, covariance: str = "auto", rank: int = 64) -> Moments:
        """The moments of data, with 1/n in the covariance: those of the law of its points.

        A tensor is used whole up to 2^26 numbers, and beyond that by as many in rows drawn at
        random. A target gives its `mean` and `cov`, or its `spectrum`; one without them is known
        by 2^16 draws (2^24 numbers at most). Such draws have a generator of their own.

        A low rank of n rows is exact up to k = max(1024, 8 rank) rows or dimensions, by the matrix
        of inner products of the fewer of the two. Beyond that the leading k/8 directions of a part
        of k rows are widened by what four products with the covariance of all rows add to them (a
        block Krylov space), within which that covariance is diagonalised. On spectra that fall,
        however slowly, and on noise of one variance, the directions kept had within 1 % of the
        variance of the best. Memory is a few times k d numbers, never d^2.

        Args:
            data: samples [(n, *dims)], or a target.
            covariance: "full", "diagonal", "low_rank", or "auto": full up to d = 512 and low_rank
                beyond, but diagonal where a target's own covariance is.
            rank: how many eigenvectors a low rank keeps, as far as there are so many.

        Raises:
            DataError: no samples, or their squares overflow.
            NonFiniteError: a sample is not finite; the rows are named.
            ConfigError: an unknown covariance, or rank < 1.
            DtypeError: data is neither a floating tensor nor a target.

        Example:
            >>> from sdekit import GaussianMixture
            >>> law = GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)
            >>> [round(v, 9) for v in Moments.of(law).values.tolist()]  # 1, 1 + 0.16 |m_1 - m_2|^2
            [1.0, 12.52]
        """
        found = moments_of(data, covariance, rank)
        return cls(found.mean, found.values, found.vectors, rest=found.rest, shape=found.shape)

    @classmethod
    def _of_parts(
        cls,
        mean: Tensor,
        values: Tensor,
        vectors: Tensor | None,
        rest: float,
        shape: tuple[int, ...],
    ) -> Moments:
        """Parts that need no check."""
        made = object.__new__(cls)
        made._set(mean=mean, values=values, vectors=vectors, rest=rest, shape=shape)
        return made

    @property
    def dim(self) -> int:
        """d, the numbers of a sample."""
        return len(self.mean)

    @property
    def kind(self) -> str:
        """How the covariance is kept: "full", "diagonal" or "low_rank"."""
        if self.vectors is None:
            return "diagonal"
        return "full" if len(self.values) == self.dim else "low_rank"

    @property
    def cov(self) -> Tensor:
        """C [(d, d)], float64, made on demand; eq. (2)."""
        identity = torch.eye(self.dim, dtype=torch.float64)
        if self.vectors is None:
            return self.values * identity
        return (self.vectors * (self.values - self.rest)) @ self.vectors.T + self.rest * identity

    def perturbed(self, alpha: float, var: float) -> Moments:
        """The moments of alpha x_0 + sqrt(var) eps, eq. (1).

        Raises:
            ConfigError: alpha or var is not finite, or var < 0.
        """
        alpha, var = number("alpha", alpha), number("var", var, ge=0)
        rest = 0.0 if self.vectors is None else alpha**2 * self.rest + var
        values = alpha**2 * self.values + var
        return self._of_parts(alpha * self.mean, values, self.vectors, rest, self.shape)

    def colored(self, z: Tensor) -> Tensor:
        """mean + C^{1/2} z [(n, *dims)], in the dtype and on the device of z; eq. (3).

        The root is the symmetric one: it does not depend on the signs of eigenvectors, and draws
        move little where C is near a multiple of I. A row is bitwise the same in every batch,
        but for a Q of more than 64^2 entries, where a matrix product rounds as its size tells it.

        Args:
            z: standard normal draws [(n, *dims)].

        Raises:
            ShapeError: z is not (n, *dims).
            DtypeError: z is no floating tensor.
        """
        if floating("z", z).ndim == 0 or tuple(z.shape[1:]) != self.shape:
            raise ShapeError(f"z must have shape (n, *dims) with dims {self.shape}, "
                             f"got {tuple(z.shape)}")  # fmt: skip
        if z.itemsize < 4:
            return self.colored(z.float()).to(z.dtype)
        flat, base = z.reshape(len(z), self.dim), math.sqrt(self.rest)
        if self.vectors is not None:
            basis = self.vectors.to(z.device, z.dtype)
            gain = (self.values.sqrt() - base).to(z.device, z.dtype)
            out = flat * base + _rotated(basis, _rotated(basis.T, flat) * gain)
        elif len(self.values) == 1:
            out = flat * math.sqrt(float(self.values))
        else:
            out = flat * self.values.sqrt().to(z.device, z.dtype)
        if bool(self.mean.any()):
            out = out + self.mean.to(z.device, z.dtype)
        return out.reshape(z.shape)

    def as_gaussian(self) -> Gaussian:
        """The Gaussian of these moments, on the flattened sample; a low rank becomes (d, d)."""
        if self.vectors is None:
            return Gaussian.from_spectrum(self.mean, self.values.expand(self.dim).contiguous())
        values, vectors, r = self.values, self.vectors, len(self.values)
        if r < self.dim:
            others = torch.linalg.qr(vectors, mode="complete").Q[:, r:]
            vectors = torch.cat([vectors, others], dim=1)
            values = torch.cat([values, values.new_full((self.dim - r,), self.rest)])
        return Gaussian.from_spectrum(self.mean, values, vectors)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `from_state` needs: tensors by name, and JSON."""
        tensors = {"mean": self.mean, "values": self.values}
        if self.vectors is not None:
            tensors["vectors"] = self.vectors
        return tensors, {"shape": list(self.shape), "rest": self.rest}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Moments:
        """The moments that `state` took apart, bitwise; every part is checked.

        Raises:
            ConfigError: a part is missing or unknown, or as for the class.
            DtypeError: and ShapeError, as for the class; or a tensor that is not float64.
        """
        if not {"mean", "values"} <= set(tensors) <= {"mean", "values", "vectors"}:
            raise ConfigError(f"moments hold mean, values and vectors, got {sorted(tensors)}")
        if not isinstance(meta, Mapping) or set(meta) != {"shape", "rest"}:
            raise ConfigError(f"moments have a shape and a rest, got {shown(meta)}")
        if not isinstance(meta["shape"], list):
            raise DtypeError(f"shape must be a list of ints, got {shown(meta['shape'])}")
        for name, value in tensors.items():
            if value.dtype != torch.float64:
                raise DtypeError(f"{name} must be float64, got {value.dtype}")
        return cls(**tensors, rest=meta["rest"], shape=meta["shape"])

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: moments never change."""
        raise FrozenInstanceError(f"cannot assign to {name!r}: Moments is frozen")

    def __delattr__(self, name: str) -> None:
        """Refuse likewise."""
        raise FrozenInstanceError(f"cannot delete {name!r}: Moments is frozen")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        mine, theirs = self.state(), other.state()
        return (
            mine[1] == theirs[1]
            and mine[0].keys() == theirs[0].keys()
            and all(torch.equal(value, theirs[0][name]) for name, value in mine[0].items())
        )

    def __hash__(self) -> int:
        return hash((self.shape, float(self.mean.sum()), float(self.values.sum())))

    def __repr__(self) -> str:
        rank = f", rank {len(self.values)}" if self.kind == "low_rank" else ""
        return f"Moments(<{self.kind}{rank}, shape {self.shape}>)"


def _rotated(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix [(e, d)] times every row of x [(n, d)] -> [(n, e)]."""
    if matrix.numel() > _BITWISE:
        return x @ matrix.T
    return rotate(matrix[None], x.T[None])[0].T
