r"""Covariances of Gaussians by their spectra, so that noise levels cost next to nothing.

With C_k = Q_k diag(lambda_k) Q_k^T, found once in float64, alpha x_0 + sqrt(var) eps has

    alpha^2 C_k + var I = Q_k diag(alpha^2 lambda_k + var) Q_k^T,                               (1)

and with z = diag(lambda_k)^{-1/2} Q_k^T (x - m_k), the whitened sample,

    log N(x; m_k, C_k) = -1/2 |z|^2 - 1/2 sum_i log lambda_ki - d/2 log(2 pi),                  (2)
    grad log N(x; m_k, C_k) = -Q_k diag(lambda_k)^{-1/2} z.                                     (3)

Where all C_k are diagonal there is no Q; where each is a multiple of I one value stands for d.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import ConfigError, ShapeError
from sdekit.targets._batchwise import rotate
from sdekit.targets.base import parameter

__all__ = ["Covariances", "Whitening", "rotate"]

_ROUNDING = 1e-6  # of the largest entry: what a matrix that was computed in float32 may be off by


class Whitening(NamedTuple):
    """For eqs. (2) and (3): 1/sqrt(lambda) [(k, d or 1, 1)], Q and Q^T [(k, d, d)] or None."""

    inv_std: Tensor
    vectors: Tensor | None
    transposed: Tensor | None

    def whiten(self, y: Tensor) -> Tensor:
        """z [(k, d, batch)] of y = x - m [(k, d, batch)]."""
        return (y if self.transposed is None else rotate(self.transposed, y)) * self.inv_std

    def slope(self, z: Tensor) -> Tensor:
        """Q diag(lambda)^{-1/2} z [(k, d, batch)], the negative of eq. (3)."""
        return z * self.inv_std if self.vectors is None else rotate(self.vectors, z * self.inv_std)


@dataclass(frozen=True, eq=False)
class Covariances:
    """k covariances in d dimensions.

    Args:
        values: the eigenvalues [(k, d)], or [(k, 1)] where each matrix is a multiple of I.
        vectors: the eigenvectors, in columns [(k, d, d)], or None where all matrices are diagonal.
        given: the matrices [(k, d, d)], or None where they are diagonal.
        dim: d.
    """

    values: np.ndarray
    vectors: np.ndarray | None
    given: np.ndarray | None
    dim: int

    @classmethod
    def parse(
        cls, name: str, value: object, k: int, d: int, *, single: bool = False
    ) -> Covariances:
        """The covariances that an argument describes.

        Args:
            name: the argument's name.
            value: a float, variances [(k,)] or matrices [(k, d, d)]; a float or [(d, d)]
                where `single`.
            k: the number of components.
            d: the dimension.
            single: the argument is that of one Gaussian.

        Raises:
            ShapeError: another shape.
            ConfigError: a negative variance, or a matrix that is not symmetric or has a negative
                eigenvalue; its index is named.
            DtypeError: not real numbers.
        """
        shapes = ("a float", "", f"({d}, {d})") if single else (
            "a float", f"({k},)", "", f"({k}, {d}, {d})")  # fmt: skip
        array = parameter(name, value, shapes)
        if single and array.ndim == 2:
            array = array[None]
        if array.shape not in ((), (k,), (k, d, d)) or (single and array.shape == (k,)):
            shape = array.shape[1:] if single else array.shape
            raise ShapeError(
                f"{name} must be {' or '.join(s for s in shapes if s)} for means of {d} dimensions"
                f"{'' if single else f' and {k} weights'}, got shape {shape}"
            )

        def label(i: int) -> str:
            return name if single or array.ndim == 0 else f"{name}[{i}]"

        if array.ndim < 3:
            values = np.broadcast_to(array.reshape(-1, 1), (k, 1)).copy()
            for i in np.flatnonzero(values < 0).tolist():
                raise ConfigError(f"{label(i)} must be a variance >= 0, got {values[i, 0]:g}")
            return cls(values, None, None, d)
        return cls._of_matrices(array, label)

    @classmethod
    def of_spectrum(cls, values: np.ndarray, vectors: np.ndarray | None, d: int) -> Covariances:
        """One covariance in d dimensions with these eigenvalues [(d,)] and eigenvectors.

        Raises:
            ShapeError: another shape.
            ConfigError: a negative eigenvalue, or eigenvectors that are not orthonormal.
        """
        if values.shape != (d,):
            raise ShapeError(f"variances must be ({d},) for a mean of {d}, got {values.shape}")
        for i in np.flatnonzero(values < 0).tolist():
            raise ConfigError(f"variances[{i}] must be >= 0, got {values[i]:g}")
        if vectors is None:
            alike = bool((values == values[0]).all())
            return cls(values[None, :1] if alike else values[None], None, None, d)
        if vectors.shape != (d, d):
            raise ShapeError(f"vectors must be ({d}, {d}), got {vectors.shape}")
        skew = float(np.abs(vectors.T @ vectors - np.eye(d)).max())
        if skew > _ROUNDING:
            raise ConfigError(f"vectors must be orthonormal, got a product {skew:g} away from I")
        given = (vectors * values) @ vectors.T
        return cls(values[None], vectors[None], (given + given.T)[None] / 2, d)

    @classmethod
    def _of_matrices(cls, matrices: np.ndarray, label: Callable[[int], str]) -> Covariances:
        d = matrices.shape[-1]
        largest = np.abs(matrices).max(axis=(1, 2))
        skew = np.abs(matrices - matrices.transpose(0, 2, 1)).max(axis=(1, 2))
        for i in np.flatnonzero(skew > _ROUNDING * largest).tolist():
            raise ConfigError(f"{label(i)} must be symmetric, got entries {skew[i]:g} apart")
        matrices = (matrices + matrices.transpose(0, 2, 1)) / 2
        values = np.diagonal(matrices, axis1=1, axis2=2).copy()
        vectors = given = None
        if (matrices[:, ~np.eye(d, dtype=bool)] != 0).any():
            values, vectors = np.linalg.eigh(matrices)
            given = matrices
            values[np.abs(values) <= d * np.finfo(float).eps * largest[:, None]] = 0.0
        for i in np.flatnonzero((values < -_ROUNDING * largest[:, None]).any(axis=1)).tolist():
            raise ConfigError(
                f"{label(i)} must be positive semi-definite, got an eigenvalue {values[i].min():g}"
            )
        values = values.clip(min=0.0)
        if vectors is None and (values == values[:, :1]).all():
            values = values[:, :1]
        return cls(values, vectors, given, d)

    def perturbed(self, alpha: float, var: float) -> Covariances:
        """alpha^2 C + var I, eq. (1)."""
        return Covariances(
            alpha**2 * self.values + var, self.vectors, self._moved(alpha, var), self.dim
        )

    def _moved(self, alpha: float, var: float) -> np.ndarray | None:
        return None if self.given is None else alpha**2 * self.given + var * np.eye(self.dim)

    @property
    def isotropic(self) -> bool:
        """Whether each matrix is a multiple of I."""
        return self.values.shape[1] == 1

    def log_det(self) -> np.ndarray:
        """log det C_k [(k,)]."""
        return np.log(self.values).sum(axis=1) * (self.dim if self.isotropic else 1)

    def trace_inverse(self) -> np.ndarray:
        """The trace of C_k^{-1} [(k,)]."""
        return (1 / self.values).sum(axis=1) * (self.dim if self.isotropic else 1)

    def matrices(self) -> np.ndarray:
        """C_k [(k, d, d)]."""
        if self.given is not None:
            return self.given
        return self.values[:, :, None] * np.eye(self.dim)

    def literal(self) -> float | list[float] | list[Any]:
        """As the argument was spelled: one float, floats, or matrices."""
        if not self.isotropic:
            return self.matrices().tolist()
        flat = self.values[:, 0]
        return float(flat[0]) if (flat == flat[0]).all() else flat.tolist()

    def same(self, other: Covariances) -> bool:
        """Whether the matrices are equal."""
        if (self.given is None) != (other.given is None):
            return False
        if self.given is None:
            return bool((self.values == other.values).all())
        return np.array_equal(self.given, other.given)  # type: ignore[arg-type]  # neither is None

    def check_density(self) -> None:
        """Refuse where eq. (2) has no value."""
        if not self.values.min() > 0:
            i = int(np.flatnonzero((self.values <= 0).any(axis=1))[0])
            which = f"covariance {i}" if len(self.values) > 1 else "the covariance"
            raise ConfigError(
                f"{which} is singular (smallest eigenvalue 0): the law has no density and no "
                "score; use .perturbed(alpha, var) with var > 0"
            )

    def log_normalizer(self) -> np.ndarray:
        """-1/2 log det C_k - d/2 log(2 pi) [(k,)], of eq. (2)."""
        return -0.5 * (self.log_det() + self.dim * math.log(2 * math.pi))

    def whitening(self, dtype: torch.dtype, device: torch.device) -> Whitening:
        """The tensors of eqs. (2) and (3)."""

        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=dtype, device=device)

        inv_std = tensor(self.values[:, :, None] ** -0.5)
        if self.vectors is None:
            return Whitening(inv_std, None, None)
        return Whitening(inv_std, tensor(self.vectors), tensor(self.vectors.transpose(0, 2, 1)))

    def color(self, i: int, noise: Tensor) -> Tensor:
        """Draws [(n, d)] of N(0, C_i) from standard normal ones [(n, d)] in float64."""
        scaled = noise * torch.tensor(self.values[i] ** 0.5, device=noise.device)
        if self.vectors is None:
            return scaled
        return scaled @ torch.tensor(self.vectors[i].T.copy(), device=noise.device)
