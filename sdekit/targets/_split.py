"""Which rows of a data set are held out: a choice that a fraction and a seed make again."""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit._check import integer, number
from sdekit.errors import DataError

__all__ = ["split_rows"]


def split_rows(
    n: int, fraction: float, seed: int, *, name: str = "holdout"
) -> tuple[Tensor, Tensor]:
    """The indices that stay and those that are held out, both rising [(n - m,)] and [(m,)].

    m is the integer next to fraction n. The same three numbers give the same rows.

    Args:
        n: rows in all.
        fraction: of them, in [0, 1).
        seed: of the choice.
        name: what messages call the fraction.

    Raises:
        ConfigError: fraction outside [0, 1).
        DataError: a fraction > 0 of which no row, or every row, comes out.
    """
    fraction = number(name, fraction, ge=0, lt=1)
    held = round(fraction * n)
    if fraction > 0 and not 0 < held < n:
        raise DataError(
            f"{name}={fraction!r} of {n} samples holds out {held}: some must be on both sides"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(integer("seed", seed)))
    return order[held:].sort().values, order[:held].sort().values
