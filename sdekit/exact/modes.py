"""The components of a mixture on a line, and the intervals that each of them owns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdekit._check import shown
from sdekit.errors import NotAffine, ShapeError
from sdekit.targets import Gaussian, GaussianMixture, Target

__all__ = ["Array", "mixture_parts", "territories"]

Array = NDArray[np.float64]


def mixture_parts(law: Target) -> tuple[Array, Array, Array]:
    """Weights, means and standard deviations [(k,)] of a law in one dimension.

    Raises:
        NotAffine: it is neither a Gaussian nor a mixture.
        ShapeError: it is not one-dimensional.
    """
    if not isinstance(law, Gaussian | GaussianMixture):
        raise NotAffine(f"a Gaussian or a GaussianMixture is needed, got {shown(law)}")
    if law.shape != (1,):
        raise ShapeError(f"a law in one dimension is needed, got shape {law.shape}")
    if isinstance(law, Gaussian):
        return np.ones(1), law.mean.numpy(), law.cov.reshape(1).sqrt().numpy()
    return law.weights.numpy(), law.means.reshape(-1).numpy(), law.covs.reshape(-1).sqrt().numpy()


def territories(weights: Array, means: Array, stds: Array) -> tuple[NDArray[np.intp], Array]:
    """The components that are likeliest from left to right, and the points between them.

    Args:
        weights: of the components [(k,)].
        means: likewise.
        stds: their standard deviations, > 0.
    """
    with np.errstate(divide="ignore"):
        level = np.log(weights) - np.log(stds)
    spans = np.stack([means - 40 * stds, means + 40 * stds])
    edges = [float(spans.min()), float(spans.max())]
    for i in range(len(means)):
        for j in range(i):
            # level_i - (x - m_i)^2 / 2 v_i = level_j - (x - m_j)^2 / 2 v_j, a quadratic in x
            a = 0.5 / stds[j] ** 2 - 0.5 / stds[i] ** 2
            b = means[i] / stds[i] ** 2 - means[j] / stds[j] ** 2
            c = level[i] - level[j] - 0.5 * (means[i] / stds[i]) ** 2
            c += 0.5 * (means[j] / stds[j]) ** 2
            if np.isfinite(c):
                roots = np.roots([a, b, c] if a else [b, c] if b else [])
                edges += [float(r.real) for r in roots if abs(r.imag) <= 1e-12 * abs(r)]
    edges = sorted(e for e in set(edges) if edges[0] <= e <= edges[1])
    middles = 0.5 * (np.array(edges[1:]) + np.array(edges[:-1]))
    score = level - 0.5 * ((middles[:, None] - means) / stds) ** 2
    owner = score.argmax(axis=1)
    changes = np.flatnonzero(np.diff(owner)) + 1
    return np.append(owner[0], owner[changes]), np.array(edges)[changes]
