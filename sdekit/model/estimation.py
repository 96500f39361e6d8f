r"""Moments of a tensor of samples, or of a target: in closed form where it has one.

With n samples x_i of mean m, the covariance is C = mean_i (x_i - m)(x_i - m)^T, that of the law of
the points. Of C = sum_j lambda_j q_j q_j^T, in falling order, a low rank keeps

    q_1 .. q_r,   lambda_1 .. lambda_r,   rest = mean of lambda_{r+1} .. lambda_d,              (1)

and needs no d x d matrix for them where d is large. With A the centred rows of a part of the data,
the eigenvectors u of A A^T give directions B = A^T u: those of (1) where the part is all. Where it
is not, all rows turn them: C is diagonalised within the span of

    B, C B, C^2 B, C^3 B, C^4 B,                                                                (2)

which by the powers of C leans to its leading eigenvectors also where the eigenvalues fall slowly.

References: Tipping and Bishop 1999, doi:10.1111/1467-9868.00196, eqs. 7 and 8, for (1); Sirovich
1987, doi:10.1090/qam/910462, section 3 (the matrix of inner products); Musco and Musco,
arXiv:1504.05477, algorithm 2, for (2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sdekit._check import choice, integer, samples, shown
from sdekit.errors import DataError, DtypeError
from sdekit.targets import Empirical, Target

__all__ = ["COVARIANCES", "FULL", "Parts", "moments_of"]

COVARIANCES = ("auto", "full", "diagonal", "low_rank")
FULL = 512  # the largest d at which "auto" keeps all d^2 numbers
_DRAWS = 2**16  # of a target without moments in closed form,
_DRAWN = 2**24  # and as many numbers at most
_KEY = 0  # of the generator of these draws, and of the rows taken out of a large tensor
_NUMBERS = 2**26  # of a tensor that is read as a whole; of a larger one, rows with as many
_PIECE = 2**22  # numbers taken to float64 at a time
_PART = 1024  # rows that give the directions B, at least,
_RANKS = 8  # and at least this many times the rank,
_WIDTH = 8  # which are this many times as many rows as directions
_BLOCKS = 5  # of eq. (2)


class Parts(NamedTuple):
    """The arguments of `Moments`: mean [(d,)], values [(r,)], vectors [(d, r)] or None."""

    mean: Tensor
    values: Tensor
    vectors: Tensor | None = None
    rest: float = 0.0
    shape: tuple[int, ...] | None = None


def moments_of(data: object, covariance: str, rank: int) -> Parts:
    """What `Moments.of` documents."""
    choice("covariance", covariance, COVARIANCES)
    rank = integer("rank", rank, ge=1)
    if isinstance(data, Tensor):
        return _of_rows(samples("data", data), covariance, rank)
    if not isinstance(data, Target):
        raise DtypeError(f"data must be a tensor (n, *dims) or a Target, got {shown(data)}")
    if isinstance(data, Empirical):
        found = _of_rows(data.data, covariance, rank)
        rest = 0.0 if found.vectors is None else found.rest + data.var
        return found._replace(values=found.values + data.var, rest=rest)
    mean = getattr(data, "mean", None)
    if isinstance(mean, Tensor) and hasattr(data, "spectrum"):
        values, vectors = data.spectrum
        return _of_spectrum(mean, values, vectors, covariance, rank)
    cov = getattr(data, "cov", None)
    if isinstance(mean, Tensor) and isinstance(cov, Tensor):
        return _of_matrix(mean, cov, covariance, rank)
    n = max(1, min(_DRAWS, _DRAWN // max(1, math.prod(data.shape))))
    generator = torch.Generator().manual_seed(_KEY)
    return _of_rows(data.sample(n, generator=generator, dtype=torch.float64), covariance, rank)


def _of_matrix(mean: Tensor, cov: Tensor, covariance: str, rank: int) -> Parts:
    """The moments of a law with this mean [(d,)] and covariance [(d, d)]."""
    d = len(mean)
    if covariance == "diagonal" or (covariance == "auto" and not _off_diagonal(cov).any()):
        return Parts(mean, cov.diagonal())
    if covariance == "full" or (covariance == "auto" and d <= FULL):
        values, vectors = torch.linalg.eigh(cov)
        return Parts(mean, values.clamp_min(0), vectors)
    from scipy.linalg import eigh  # the leading ones alone: a third of the time of all of them

    top = eigh(cov.numpy(), subset_by_index=[max(0, d - rank), d - 1])
    values, vectors = (torch.from_numpy(part.copy()) for part in top)
    return _leading(mean, values, vectors, float(cov.trace()), (d,))


def _of_spectrum(
    mean: Tensor, values: Tensor, vectors: Tensor | None, covariance: str, rank: int
) -> Parts:
    """The moments of a law whose eigenvalues [(d,)] and vectors [(d, d)] or None are known."""
    d = len(mean)
    if vectors is None and covariance in ("auto", "diagonal"):
        return Parts(mean, values)
    if covariance == "diagonal":
        assert vectors is not None  # decided above
        return Parts(mean, (vectors.square() * values).sum(dim=1))
    if covariance == "full" or (covariance == "auto" and d <= FULL):
        identity = torch.eye(d, dtype=torch.float64)
        return Parts(mean, values, identity if vectors is None else vectors)
    top = values.argsort()[-rank:]
    if vectors is None:
        chosen = torch.zeros(d, len(top), dtype=mean.dtype)
        chosen[top, torch.arange(len(top))] = 1.0
    else:
        chosen = vectors[:, top]
    return _leading(mean, values[top], chosen, float(values.sum()), (d,))


def _leading(
    mean: Tensor, values: Tensor, vectors: Tensor, total: float, shape: tuple[int, ...]
) -> Parts:
    """Eq. (1) from the leading eigenvalues and vectors and the sum of all variances."""
    left = len(mean) - len(values)
    rest = max(0.0, total - float(values.sum())) / left if left else 0.0
    return Parts(mean, values.clamp_min(0), vectors, rest=rest, shape=shape)


def _of_rows(x: Tensor, covariance: str, rank: int) -> Parts:
    """The moments of samples [(n, *dims)], in one pass for each thing that is known of them."""
    if x.numel() == 0:
        raise DataError(f"data must hold at least one sample, got shape {tuple(x.shape)}")
    shape, d = tuple(x.shape[1:]), x[0].numel()
    flat = _some(x.detach().reshape(len(x), d), _NUMBERS // d)
    n = len(flat)
    pieces = flat.split(max(1, _PIECE // d))
    mean = sum((_wide(piece).sum(dim=0) for piece in pieces), torch.zeros((), dtype=torch.float64))
    mean = mean / n

    def second(of: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean over all samples of what `of` makes of centred ones [(m, d)]."""
        zero = torch.zeros((), dtype=torch.float64)
        total = sum((of(_wide(piece) - mean) for piece in pieces), zero) / n
        if not bool(torch.isfinite(total).all()):
            raise DataError("the squares of data overflow: its values are too large for moments")
        return total

    if covariance == "auto":
        covariance = "diagonal" if d == 1 else "full" if d <= FULL else "low_rank"
    if covariance == "diagonal":
        return Parts(mean, second(lambda rows: rows.square().sum(dim=0)), shape=shape)
    part = max(_PART, _RANKS * rank)
    if covariance == "full" or d <= min(n, part):
        values, vectors = torch.linalg.eigh(second(lambda rows: rows.T @ rows))
        total = float(values.sum())
    else:
        total = float(second(lambda rows: rows.square().sum()))
        few = _wide(_some(flat, part)) - mean
        # all rows give eigenvectors that nothing need turn
        blocks, kept = (1, rank) if len(few) == n else (_BLOCKS, part // _WIDTH)
        values, vectors = _within(_directions(few, kept), second, blocks)
    if covariance == "full":
        return Parts(mean, values.clamp_min(0), vectors, shape=shape)
    top = (values > d * torch.finfo(torch.float64).eps * values[-1:]).nonzero().flatten()[-rank:]
    if len(top) == 0:  # all samples, or those that give directions, are the same
        return Parts(mean, torch.full((1,), total / d, dtype=torch.float64), shape=shape)
    return _leading(mean, values[top], vectors[:, top], total, shape)


def _directions(few: Tensor, most: int) -> Tensor:
    """The leading eigenvectors [(d, k)], k <= most, of few^T few for rows [(m, d)]."""
    values, vectors = torch.linalg.eigh(few @ few.T)
    real = values > len(few) * torch.finfo(torch.float64).eps * values[-1]
    top = real.nonzero().flatten()[-most:]
    return torch.linalg.qr(few.T @ vectors[:, top] / values[top].sqrt()).Q


def _within(
    block: Tensor, second: Callable[[Callable[[Tensor], Tensor]], Tensor], count: int
) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of C within `count` blocks of eq. (2), from B [(d, k)]."""

    def image(block: Tensor) -> Tensor:
        return second(lambda rows: rows.T @ (rows @ block))

    blocks, images = [block], [image(block)]
    while len(images) < count:
        known = len(blocks) * block.shape[1]
        # the last columns of Q are what the image adds to the span of the blocks
        blocks.append(torch.linalg.qr(torch.cat([*blocks, images[-1]], dim=1)).Q[:, known:])
        images.append(image(blocks[-1]))
    basis = torch.cat(blocks, dim=1)
    inside = basis.T @ torch.cat(images, dim=1)
    values, turned = torch.linalg.eigh((inside + inside.T) / 2)
    return values, basis @ turned


def _wide(piece: Tensor) -> Tensor:
    return piece.to("cpu", torch.float64)


def _some(rows: Tensor, most: int) -> Tensor:
    """All rows, or that many of them, drawn by a generator of their own."""
    if len(rows) <= max(1, most):
        return rows
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(_KEY))
    return rows[order[: max(1, most)].sort().values.to(rows.device)]


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix - torch.diag(matrix.diagonal())
