r"""Mixtures along a line: the part of a law in d dimensions that is not Gaussian, apart.

Let the means of a mixture lie on a line in direction e, and let every covariance be
c_k e e^T + C with the same C across the line. In the coordinates y = e^T x and w = Q^T x, with
(e, Q) orthonormal, the law is a product

    p(x) = sum_k w_k N(y; e^T m_k, c_k)  N(w; Q^T m, Q^T C Q),                                  (1)

and stays one at every noise level. Its score has the two scores as its coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit._check import shown
from sdekit.errors import NotAffine
from sdekit.targets import Gaussian, GaussianMixture, Target

__all__ = ["Line", "line_of", "split"]

_ROUNDING = 1e-9  # of the law's size: how far from a line rounding may have put the means


@dataclass(frozen=True, eq=False)
class Line:
    """A direction in d dimensions and an orthonormal basis across it.

    Attributes:
        along: e [(d,)].
        across: Q [(d, d - 1)].
    """

    along: Tensor
    across: Tensor

    @classmethod
    def through(cls, means: Tensor, covs: Tensor) -> Line | None:
        """The line on which the means [(k, d)] lie; None where they do not.

        Where all are one point, an eigenvector along which the covariances [(k, d, d)] differ.
        """
        centred = means - means[0]
        size = float(means.abs().max()) or 1.0
        if float(centred.abs().max()) > _ROUNDING * size:
            _, values, basis = torch.linalg.svd(centred)
            if len(values) > 1 and float(values[1]) > _ROUNDING * size:
                return None
            return cls._of(basis)
        spread = covs - covs.mean(0)
        _, basis = torch.linalg.eigh((spread @ spread).sum(0))
        return cls._of(basis.T.flip(0))

    @classmethod
    def _of(cls, basis: Tensor) -> Line:
        """From an orthonormal basis in rows, the first one along the line, pointing upwards."""
        along = basis[0]
        sign = along[along.abs().argmax()].sign()
        return cls(along * sign, basis[1:].T)


def _split_mixture(law: GaussianMixture, line: Line) -> tuple[GaussianMixture, Gaussian] | None:
    """The two factors of eq. (1), or None where the law is no such product."""
    means, covs = law.means, law.covs
    beside = means @ line.across
    spread = line.across.T @ covs @ line.across
    mixed = covs @ line.along @ line.across
    size = float(covs.abs().max()) or 1.0
    apart = [
        (beside - beside[0]).abs().max() / (float(means.abs().max()) or 1.0),
        (spread - spread[0]).abs().max() / size,
        mixed.abs().max() / size,
    ]
    if any(float(a) > _ROUNDING for a in apart):
        return None
    variances = torch.einsum("i,kij,j->k", line.along, covs, line.along)
    on_line = GaussianMixture(law.weights, (means @ line.along)[:, None], variances)
    return on_line, Gaussian(beside[0], (spread[0] + spread[0].T) / 2)


def _split_gaussian(law: Gaussian, line: Line) -> tuple[Gaussian, Gaussian] | None:
    """A Gaussian along the line and across it, or None where the two depend on each other."""
    cov = law.cov
    if float((line.across.T @ cov @ line.along).abs().max()) > _ROUNDING * float(cov.abs().max()):
        return None
    inner = line.across.T @ cov @ line.across
    return (
        Gaussian((law.mean @ line.along)[None], (line.along @ cov @ line.along).reshape(1, 1)),
        Gaussian(line.across.T @ law.mean, (inner + inner.T) / 2),
    )


def line_of(law: Target) -> Line | None:
    """The line along which a law lies; None in one dimension, where there is no choice.

    Raises:
        NotAffine: it lies along none.
    """
    if not isinstance(law, Gaussian | GaussianMixture):
        raise NotAffine(
            f"a Gaussian or a GaussianMixture along a line is needed, got {shown(law)}"
        )
    if law.shape == (1,):
        return None
    if isinstance(law, Gaussian):
        line = Line.through(law.mean[None], law.cov[None])
    else:
        line = Line.through(law.means, law.covs)
    if line is None or (isinstance(law, GaussianMixture) and _split_mixture(law, line) is None):
        raise NotAffine(
            f"{shown(law)} does not lie along a line: its means must, and its covariances agree "
            "across it"
        )
    return line


def split(law: Target, line: Line) -> tuple[Gaussian | GaussianMixture, Gaussian]:
    """The two factors of a law, along the line and across it, eq. (1).

    Raises:
        NotAffine: the law is no such product.
    """
    parts: tuple[Gaussian | GaussianMixture, Gaussian] | None = None
    if isinstance(law, GaussianMixture):
        parts = _split_mixture(law, line)
    elif isinstance(law, Gaussian):
        parts = _split_gaussian(law, line)
    if parts is None:
        raise NotAffine(f"{shown(law)} is no product along and across the line of the data")
    return parts
