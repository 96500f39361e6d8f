r"""One Gaussian: the law on which a sampler's output is known without Monte Carlo.

    p(x) = N(x; m, C),    grad log p(x) = -C^{-1} (x - m),                                      (1)
    alpha x_0 + sqrt(var) eps ~ N(alpha m, alpha^2 C + var I).                                  (2)

C may be singular, down to the point mass C = 0: such a law can be sampled and perturbed, and has a
density only once var > 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit.targets._batchwise import tree_sum
from sdekit.targets.base import ClosedForm, Draws, parameter
from sdekit.targets.covariance import Covariances, Whitening

__all__ = ["LITERAL", "Gaussian", "own_dtype"]

LITERAL = 64  # numbers that a repr spells out; a longer one shows shapes


def own_dtype(*parameters: object) -> torch.dtype | None:
    """float64 where a parameter is a float64 tensor, else None: torch's default."""
    wide = any(isinstance(p, Tensor) and p.dtype == torch.float64 for p in parameters)
    return torch.float64 if wide else None


class _Slope(NamedTuple):
    """For the score where C is diagonal: m, None where it is 0 [(d,)], and 1 / lambda."""

    mean: Tensor | None
    precision: Tensor | float


class _Density(NamedTuple):
    """For the density: m [(d,)], what whitens, and the logarithm of the constant."""

    mean: Tensor
    whitening: Whitening
    log_normalizer: float


@register("target", "gaussian", paper="arXiv:2011.13456, eq. 29")
class Gaussian(ClosedForm):
    """The normal law N(mean, cov), eq. (1).

    Args:
        mean: the mean [(d,)].
        cov: the covariance [(d, d)], or a variance for all coordinates alike.

    Raises:
        ShapeError: mean is not (d,), or cov not (d, d).
        ConfigError: cov is not symmetric or has a negative eigenvalue, or a value is not finite.
        DtypeError: an argument is no floating tensor, list of numbers, or number.

    Reference: arXiv:2011.13456, eq. 29, for the law at a noise level.

    Example:
        >>> import torch
        >>> law = Gaussian(torch.zeros(2), 4.0)
        >>> law.score(torch.tensor([[4.0, -8.0]]))
        tensor([[-1.,  2.]])
        >>> law.perturbed(0.5, 3.0)
        gaussian(mean=[0.0, 0.0], cov=4.0)
    """

    def __init__(self, mean: Tensor | list[float], cov: Tensor | list[Any] | float) -> None:
        centre = parameter("mean", mean, ("", "(d,)"))
        spread = Covariances.parse("cov", cov, 1, len(centre), single=True)
        self._set(_dtype=own_dtype(mean, cov))
        self._fill(centre, spread)

    def _fill(self, mean: np.ndarray, cov: Covariances) -> None:
        self._set(_mean=mean, _cov=cov, _plans={}, shape=(cov.dim,))

    _mean: np.ndarray
    _cov: Covariances

    @classmethod
    def from_fields(cls, **fields: Any) -> Gaussian:
        """The law with these fields; N(0, I) in two dimensions by default."""
        return cls(**{"mean": [0.0, 0.0], "cov": 1.0, **fields})

    @classmethod
    def examples(cls) -> list[Gaussian]:
        """A standard, a shifted isotropic, a diagonal and a correlated law, and one in 1-D."""
        return [
            cls([0.0, 0.0], 1.0),
            cls([3.0, -1.0], 0.25),
            cls([0.0, 1.0, 2.0], [[4.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.01]]),
            cls([1.0, -1.0], [[2.0, 1.2], [1.2, 1.0]]),
            cls([0.5], 2.0),
        ]

    @classmethod
    def from_spectrum(
        cls, mean: Tensor, variances: Tensor, vectors: Tensor | None = None
    ) -> Gaussian:
        """N(mean, Q diag(variances) Q^T), without a matrix where Q is the identity.

        Args:
            mean: the mean [(d,)].
            variances: the eigenvalues of the covariance [(d,)], >= 0.
            vectors: Q, orthonormal columns [(d, d)]; None: the coordinates are independent.

        Raises:
            ShapeError: and DtypeError, as for the class.
            ConfigError: a variance is negative or a value not finite, or Q is not orthonormal.

        Example:
            >>> law = Gaussian.from_spectrum(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
            >>> law.cov.diagonal().tolist()
            [1.0, 2.0, 3.0]
        """
        law = object.__new__(Gaussian)  # no subclass: those are laws of their own
        centre = parameter("mean", mean, ("", "(d,)"))
        spread = Covariances.of_spectrum(
            parameter("variances", variances, ("", f"({len(centre)},)")),
            None if vectors is None else parameter("vectors", vectors, ("", "", "(d, d)")),
            len(centre),
        )
        law._set(_dtype=own_dtype(mean, variances, vectors))
        law._fill(centre, spread)
        return law

    @property
    def spectrum(self) -> tuple[Tensor, Tensor | None]:
        """The eigenvalues [(d,)] of the covariance and its eigenvectors in columns [(d, d)].

        The eigenvectors are None where the coordinates are independent: they are then the axes.
        """
        values = np.broadcast_to(self._cov.values[0], (self._cov.dim,))
        vectors = self._cov.vectors
        return torch.tensor(values), None if vectors is None else torch.tensor(vectors[0])

    @property
    def mean(self) -> Tensor:
        """The mean [(d,)], float64."""
        return torch.tensor(self._mean)

    @property
    def cov(self) -> Tensor:
        """The covariance [(d, d)], float64; made on demand where it is a multiple of I."""
        return torch.tensor(self._cov.matrices()[0])

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Independent draws [(n, d)]; see `Target.sample`."""
        draws = Draws(n, generator, dtype, device, self._dtype)
        return draws.cast(draws.tensor(self._mean) + self._cov.color(0, draws.normal(*self.shape)))

    def _perturbed(self, alpha: float, var: float) -> Gaussian:
        law = object.__new__(Gaussian)
        law._set(_dtype=self._dtype)
        law._fill(alpha * self._mean, self._cov.perturbed(alpha, var))  # eq. (2)
        return law

    def _prepare_density(self, dtype: torch.dtype, device: torch.device) -> _Density:
        self._cov.check_density()
        mean = torch.tensor(self._mean, dtype=dtype, device=device)
        constant = float(self._cov.log_normalizer()[0])
        return _Density(mean, self._cov.whitening(dtype, device), constant)

    def _prepare_score(self, dtype: torch.dtype, device: torch.device) -> _Slope | _Density:
        self._cov.check_density()
        if self._cov.vectors is not None:
            return self._prepare_density(dtype, device)
        mean = torch.tensor(self._mean, dtype=dtype, device=device) if self._mean.any() else None
        inverse = 1 / self._cov.values[0]
        if self._cov.isotropic:
            return _Slope(mean, float(inverse[0]))
        return _Slope(mean, torch.tensor(inverse, dtype=dtype, device=device))

    def _log_prob(self, x: Tensor) -> Tensor:
        if x.itemsize < 4:
            return self._log_prob(x.float()).to(x.dtype)
        plan = self._plan(self._prepare_density, x)
        z = plan.whitening.whiten((x - plan.mean).t()[None])[0]
        return plan.log_normalizer - 0.5 * tree_sum(z * z, 0)

    def _score(self, x: Tensor) -> Tensor:
        if x.itemsize < 4:
            return self._score(x.float()).to(x.dtype)
        plan = self._plan(self._prepare_score, x)
        if isinstance(plan, _Density):
            z = plan.whitening.whiten((x - plan.mean).t()[None])
            return -plan.whitening.slope(z)[0].t()
        if plan.mean is None:
            return x * -plan.precision
        return (plan.mean - x) * plan.precision

    def _curved(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._score(x), x.new_full((len(x),), -float(self._cov.trace_inverse()[0]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Gaussian):
            return NotImplemented
        return np.array_equal(self._mean, other._mean) and self._cov.same(other._cov)

    def __hash__(self) -> int:
        return hash((self.shape, float(self._mean.sum()), float(self._cov.values.sum())))

    def __repr__(self) -> str:
        if self._mean.size + (0 if self._cov.isotropic else self._mean.size**2) > LITERAL:
            return f"Gaussian(<mean {self.shape}>, <cov {self.shape * 2}>)"
        cov = self._cov.literal()
        return (
            f"gaussian(mean={self._mean.tolist()}, cov={cov[0] if isinstance(cov, list) else cov})"
        )
