"""Sums and rotations whose rows do not depend on the rest of the batch, bit for bit.

A matrix product, `Tensor.sum`, `softmax` over a leading dimension, `sigmoid` and `logaddexp`
choose their kernel, or the order of their additions, by the size of the whole tensor: a row then
differs in its last bits with the batch it is in. What is here is made of elementwise operations
alone, whose results do not (measured for `exp`, `tanh` and `log` too). Arrays have the batch last,
(k, d, batch), so that the inner loops are long however small k and d are.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BLOCK", "logsumexp", "rotate", "softmax", "tree_sum"]

BLOCK = 2**18  # elements of a temporary: 2 MB in float64, what a core's cache holds
_FEW = 3  # terms that are added in a row rather than in halves


def tree_sum(x: Tensor, dim: int) -> Tensor:
    """The sum over one dimension by halves: accurate, and the same in every batch.

    Args:
        x: any tensor whose size along `dim` is at least 1.
        dim: the dimension that is summed away.
    """
    odd = []
    while (n := x.shape[dim]) > _FEW:
        half = n // 2
        if n % 2:
            odd.append(x.select(dim, n - 1))
        x = x.narrow(dim, 0, half) + x.narrow(dim, half, half)
    total, *rest = x.unbind(dim)
    for term in rest + odd:
        total = total + term
    return total


def softmax(logits: Tensor) -> Tensor:
    """exp(logits) normalised over dimension 0 [(k, ...)], finite for any finite logits."""
    weights = (logits - logits.detach().amax(0)).exp()
    return weights / tree_sum(weights, 0)


def logsumexp(logits: Tensor) -> Tensor:
    """log sum exp over dimension 0 [(k, ...) -> (...)], finite for any finite logits."""
    top = logits.detach().amax(0)
    return tree_sum((logits - top).exp(), 0).log() + top


def rotate(matrices: Tensor, y: Tensor) -> Tensor:
    """matrices @ y for each of k matrices: [(k, e, d)] and [(k, d, batch)] -> [(k, e, batch)].

    The batch is taken in pieces, so that temporaries stay below `BLOCK` elements where d allows.
    """
    pieces = [
        tree_sum(matrices[..., None] * piece[:, None], 2)
        for piece in y.split(max(1, BLOCK // matrices.numel()), dim=-1)
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)
