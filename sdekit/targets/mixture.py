r"""Gaussian mixtures: multimodal laws whose density and score are exact at every noise level.

    p(x) = sum_k w_k N(x; m_k, C_k)                                                             (1)
    r_k(x) = softmax_k(log w_k + log N(x; m_k, C_k))                                            (2)
    grad log p(x) = -sum_k r_k C_k^{-1} (x - m_k)                                               (3)
    alpha x_0 + sqrt(var) eps:  w_k, alpha m_k, alpha^2 C_k + var I                             (4)

Where all C_k = v I, the term |x|^2 / 2v common to the logits drops out of (2): with y = x - c, c
the mean of the m_k, and g_k = (m_k - c) / v,

    r_k = softmax_k(log w_k - v |g_k|^2 / 2 + y . g_k),   grad log p = sum_k r_k g_k - y / v,   (5)

and for two components, g = (m_1 - m_2) / 2v, this is

    grad log p = tanh(1/2 log(w_1 / w_2) + y . g) g - y / v.                                    (6)

Where components meet, the logits of (2) are large and nearly equal; those of (6) are small. With
h_k = -C_k^{-1} (x - m_k) the divergence of the score is

    Delta log p = sum_k r_k (|h_k - grad log p|^2 - tr C_k^{-1}).                               (7)

References: Bishop, Pattern Recognition and Machine Learning, section 9.2; Song and Ermon,
arXiv:1907.05600, section 3.2.2 (a mixture of unlike weights as the test of samplers); Song et al.,
arXiv:2011.13456, eq. 29 for (4).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import samples
from sdekit.errors import ConfigError, ShapeError
from sdekit.targets._batchwise import logsumexp, softmax, tree_sum
from sdekit.targets.base import ClosedForm, Draws, parameter
from sdekit.targets.covariance import Covariances, Whitening
from sdekit.targets.gaussian import LITERAL, own_dtype

__all__ = ["GaussianMixture"]

_SUM = 1e-6  # how far from 1 weights may sum: what a table of float32 weights may be off by


class _Pair(NamedTuple):
    """Eq. (6): c or None where it is 0 [(d,)], g [(d,)], the constant of the tanh, 1 / v."""

    centre: Tensor | None
    slope: Tensor
    offset: float
    precision: float


class _Shared(NamedTuple):
    """Eq. (5): c [(d, 1)], g_k [(k, d, 1)], the constants of the logits [(k, 1)], 1 / v."""

    centre: Tensor
    slopes: Tensor
    offsets: Tensor
    precision: float


class _Density(NamedTuple):
    """Eqs. (2), (3), (7): m_k [(k, d, 1)], constants of the logits, tr C_k^{-1} [(k, 1)]."""

    means: Tensor
    offsets: Tensor
    whitening: Whitening
    precision: Tensor


def _weights(value: object) -> np.ndarray:
    """Weights [(k,)] that are >= 0 and sum to 1."""
    weights = parameter("weights", value, ("", "(k,)"))
    for i in np.flatnonzero(weights < 0).tolist():
        raise ConfigError(f"weights[{i}] must be >= 0, got {weights[i]:g}")
    total = math.fsum(weights)
    if abs(total - 1) > _SUM:
        raise ConfigError(f"weights must sum to 1 (within {_SUM:g}), got a sum of {total!r}")
    # what is within rounding stays as it is, so that the spelling of a mixture gives the same one
    return weights if abs(total - 1) <= len(weights) * np.finfo(float).eps else weights / total


@register("target", "gaussian_mixture", paper="arXiv:1907.05600, section 3.2.2")
class GaussianMixture(ClosedForm):
    """The law sum_k w_k N(m_k, C_k), eq. (1).

    Args:
        weights: w [(k,)], >= 0, with sum 1.
        means: m [(k, d)].
        covs: C [(k, d, d)], or variances for all coordinates alike [(k,)], or one for all.

    Raises:
        ShapeError: the shapes do not fit together.
        ConfigError: weights are negative or do not sum to 1, a covariance is not symmetric or has
            a negative eigenvalue, or a value is not finite.
        DtypeError: an argument is no floating tensor, list of numbers, or number.

    Example:
        >>> import torch
        >>> law = GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)
        >>> law.component(torch.tensor([[2.5, 2.0], [-4.0, 0.0]]))
        tensor([0, 1])
        >>> law.mean
        tensor([-1.8000, -1.8000], dtype=torch.float64)
        >>> law.perturbed(0.6, 0.64).score(torch.tensor([[1.8, 1.8]])).abs() < 1e-3
        tensor([[True, True]])
    """

    _weights: np.ndarray
    _means: np.ndarray
    _covs: Covariances

    def __init__(
        self,
        weights: Tensor | list[float],
        means: Tensor | list[list[float]],
        covs: Tensor | list[Any] | float,
    ) -> None:
        w = _weights(weights)
        m = parameter("means", means, ("", "", f"({len(w)}, d)"))
        if len(m) != len(w):
            raise ShapeError(
                f"means must be ({len(w)}, d) for {len(w)} weights, got shape {m.shape}"
            )
        self._set(_dtype=own_dtype(weights, means, covs))
        self._fill(w, m, Covariances.parse("covs", covs, *m.shape))

    def _fill(self, weights: np.ndarray, means: np.ndarray, covs: Covariances) -> None:
        self._set(_weights=weights, _means=means, _covs=covs, _plans={}, shape=(covs.dim,))

    @cached_property
    def _log_weights(self) -> np.ndarray:
        with np.errstate(divide="ignore"):  # log 0 = -inf: a component of weight 0 has no part
            return np.log(self._weights)

    @classmethod
    def from_fields(cls, **fields: Any) -> GaussianMixture:
        """The law with these fields; by default two components of unlike width in the plane."""
        default = {"weights": [0.3, 0.7], "means": [[2.0, 0.0], [-2.0, 0.0]], "covs": [0.25, 1.0]}
        return cls(**{**default, **fields})

    @classmethod
    def examples(cls) -> list[Any]:
        """Mixtures of two and three components, of shared, unlike and full covariances."""
        return [
            cls([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0),
            cls.from_fields(),
            cls([0.2, 0.3, 0.5], [[-4.0], [0.0], [3.0]], 0.25),
            cls(
                [0.5, 0.25, 0.25],
                [[0.0, 0.0], [3.0, 1.0], [-3.0, 2.0]],
                [[[1.0, 0.6], [0.6, 1.0]], [[0.5, 0.0], [0.0, 2.0]], [[0.3, -0.2], [-0.2, 0.4]]],
            ),
        ]

    @property
    def weights(self) -> Tensor:
        """w [(k,)], float64."""
        return torch.tensor(self._weights)

    @property
    def means(self) -> Tensor:
        """m [(k, d)], float64."""
        return torch.tensor(self._means)

    @property
    def covs(self) -> Tensor:
        """C [(k, d, d)], float64; made on demand where they are multiples of I."""
        return torch.tensor(self._covs.matrices())

    @property
    def mean(self) -> Tensor:
        """The mean of the whole law, sum_k w_k m_k [(d,)], float64."""
        return torch.tensor(self._weights @ self._means)

    @property
    def cov(self) -> Tensor:
        """The covariance of the whole law [(d, d)], float64: within plus between components."""
        centred = self._means - self._weights @ self._means
        between = (self._weights[:, None] * centred).T @ centred
        return torch.tensor(between + np.tensordot(self._weights, self._covs.matrices(), 1))

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
        component, noise = draws.choice(self._weights), draws.normal(*self.shape)
        if self._covs.isotropic:
            noise *= draws.tensor(self._covs.values**0.5)[component]
        else:
            for i in range(len(self._weights)):
                rows = (component == i).nonzero().flatten()
                noise[rows] = self._covs.color(i, noise[rows])
        return draws.cast(noise.add_(draws.tensor(self._means)[component]))

    def responsibilities(self, x: Tensor) -> Tensor:
        """The probability of each component given x [(batch, k)], eq. (2); raises as `score`."""
        x = samples("x", x, self.shape)
        wide = x.float() if x.itemsize < 4 else x
        logits, _ = self._logits(wide, self._plan(self._prepare_density, wide))
        return softmax(logits).t().to(x.dtype)

    def component(self, x: Tensor) -> Tensor:
        """The index of the most likely component [(batch,)], int64; raises as `log_prob`."""
        return self.responsibilities(x).argmax(dim=1)

    def _perturbed(self, alpha: float, var: float) -> GaussianMixture:
        law = object.__new__(GaussianMixture)
        law._set(_dtype=self._dtype)
        law._fill(self._weights, alpha * self._means, self._covs.perturbed(alpha, var))  # eq. (4)
        law._set(_log_weights=self._log_weights)
        return law

    def _prepare_density(self, dtype: torch.dtype, device: torch.device) -> _Density:
        self._covs.check_density()
        offsets = self._log_weights + self._covs.log_normalizer()
        return _Density(
            torch.tensor(self._means[..., None], dtype=dtype, device=device),
            torch.tensor(offsets[:, None], dtype=dtype, device=device),
            self._covs.whitening(dtype, device),
            torch.tensor(self._covs.trace_inverse()[:, None], dtype=dtype, device=device),
        )

    def _prepare_score(
        self, dtype: torch.dtype, device: torch.device
    ) -> _Pair | _Shared | _Density:
        self._covs.check_density()
        if not self._covs.isotropic or (self._covs.values != self._covs.values[0]).any():
            return self._prepare_density(dtype, device)

        def tensor(array: np.ndarray) -> Tensor:  # of an array that nobody else has
            return torch.from_numpy(array).to(device, dtype)

        var = float(self._covs.values[0, 0])
        centre = np.add.reduce(self._means) / len(self._means)  # `mean` costs eight times as much
        slopes = (self._means - centre) / var
        if len(slopes) == 2:
            offset = float(self._log_weights[0] - self._log_weights[1]) / 2
            return _Pair(
                tensor(centre) if centre.any() else None, tensor(slopes[0]), offset, 1 / var
            )
        offsets = self._log_weights - 0.5 * var * (slopes**2).sum(axis=1)
        return _Shared(
            tensor(centre[:, None]), tensor(slopes[..., None]), tensor(offsets[:, None]), 1 / var
        )

    def _logits(self, x: Tensor, plan: _Density) -> tuple[Tensor, Tensor]:
        """log w_k + log N(x; m_k, C_k) [(k, batch)], and the whitened x [(k, d, batch)]."""
        z = plan.whitening.whiten(x.t() - plan.means)
        return plan.offsets - 0.5 * tree_sum(z * z, 1), z

    def _log_prob(self, x: Tensor) -> Tensor:
        if x.itemsize < 4:
            return self._log_prob(x.float()).to(x.dtype)
        return logsumexp(self._logits(x, self._plan(self._prepare_density, x))[0])

    def _score(self, x: Tensor) -> Tensor:
        if x.itemsize < 4:
            return self._score(x.float()).to(x.dtype)
        plan = self._plan(self._prepare_score, x)
        if isinstance(plan, _Pair):  # eq. (6)
            y = x if plan.centre is None else x - plan.centre
            pull = (tree_sum(y * plan.slope, 1)[:, None] + plan.offset).tanh()
            return pull * plan.slope - y * plan.precision
        if isinstance(plan, _Shared):  # eq. (5)
            y = x.t() - plan.centre
            share = softmax(tree_sum(plan.slopes * y, 1) + plan.offsets)
            return (tree_sum(share[:, None] * plan.slopes, 0) - y * plan.precision).t()
        logits, z = self._logits(x, plan)  # eq. (3)
        return -tree_sum(softmax(logits)[:, None] * plan.whitening.slope(z), 0).t()

    def _curved(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. (3), and eq. (7) in a form without cancellation."""
        if x.itemsize < 4:
            score, laplacian = self._curved(x.float())
            return score.to(x.dtype), laplacian.to(x.dtype)
        plan = self._plan(self._prepare_density, x)
        logits, z = self._logits(x, plan)
        share, slopes = softmax(logits), plan.whitening.slope(z)
        slope = tree_sum(share[:, None] * slopes, 0)
        apart = tree_sum((slopes - slope).square(), 1) - plan.precision
        return -slope.t(), tree_sum(share * apart, 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GaussianMixture):
            return NotImplemented
        return (
            np.array_equal(self._weights, other._weights)
            and np.array_equal(self._means, other._means)
            and self._covs.same(other._covs)
        )

    def __hash__(self) -> int:
        parts = (self._weights, self._means, self._covs.values)
        return hash((self._means.shape, *(float(part.sum()) for part in parts)))

    def __repr__(self) -> str:
        k, d = self._means.shape
        if k * (1 + d) + (k if self._covs.isotropic else k * d * d) > LITERAL:
            return f"GaussianMixture(<weights ({k},)>, <means {(k, d)}>, <covs {(k, d, d)}>)"
        return (
            f"gaussian_mixture(weights={self._weights.tolist()}, means={self._means.tolist()}, "
            f"covs={self._covs.literal()})"
        )
