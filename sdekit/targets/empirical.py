r"""The law of a finite data set, and its smoothed versions: the ideal denoiser.

    x_0 uniform on y_1 .. y_n,     alpha x_0 + sqrt(v) eps:  p(x) = mean_i N(x; alpha y_i, v I) (1)
    r_i(x) = softmax_i(-|x - alpha y_i|^2 / 2v),   grad log p = (sum_i r_i alpha y_i - x) / v   (2)
    Delta log p = (sum_i r_i |alpha y_i - x|^2 - |v grad log p|^2) / v^2 - d / v                (3)

A network that fits denoising score matching on y perfectly has this score, and sampling with it
gives back the data. The sums over i run through the data in pieces with a running maximum, so that
memory stays bounded however large n is; the pieces do not depend on the batch, nor does a row.

References: Karras et al., arXiv:2206.00364, eq. 57 (the ideal denoiser); Milakov and Gimelshein,
arXiv:1805.02867, algorithm 3 (the running maximum).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import floating, number, shown
from sdekit.errors import ConfigError, DataError, ShapeError
from sdekit.targets._batchwise import BLOCK, tree_sum
from sdekit.targets.base import ClosedForm, Draws, parameter
from sdekit.targets.gaussian import LITERAL

__all__ = ["Empirical"]

_PIECE = (
    2**12
)  # numbers of the data that one piece holds; a fixed size fixes the order of the sums


class _Sums(NamedTuple):
    """Over i: the largest logit, the sums of w = exp(logit - largest), w gap and w |gap|^2."""

    top: Tensor
    total: Tensor
    pull: Tensor
    squares: Tensor | None


def _data(value: object) -> Tensor:
    """A private copy of the data [(n, *shape)] on the CPU."""
    if isinstance(value, list | tuple):
        array = parameter("data", value, ("", *(["(n, *shape)"] * 8)))
        return torch.tensor(array)
    data = floating("data", value).detach().cpu().clone()
    if data.ndim < 2:
        raise ShapeError(f"data must have shape (n, *shape), got {tuple(data.shape)}")
    if data.numel() == 0:
        raise DataError(f"data must hold at least one point, got shape {tuple(data.shape)}")
    bad = ~torch.isfinite(data).flatten(1).all(dim=1)
    if bool(bad.any()):
        rows = bad.nonzero().flatten()
        raise DataError(
            f"data must be finite; {len(rows)} of {len(data)} points are not, "
            f"first: {rows[:5].tolist()}"
        )
    return data


@register("target", "empirical", paper="arXiv:2206.00364, eq. 57")
class Empirical(ClosedForm):
    """The law of the data points themselves, smoothed by a Gaussian kernel where var > 0, eq. (1).

    Args:
        data: the points [(n, *shape)]; a copy is kept, in its own dtype
            (float64 for lists).
        var: the variance of the kernel, 0 by default: points, which have no density and no score
            until they are perturbed.

    Raises:
        DataError: no points, or points that are not finite; the first such indices are named.
        ShapeError: data has fewer than two dimensions.
        ConfigError: var < 0.
        DtypeError: data is no floating tensor or nested list of floats.

    Example:
        >>> import torch
        >>> law = Empirical(torch.tensor([[0.0, 1.0], [4.0, 1.0]]))
        >>> law.denoise(torch.tensor([[0.5, 0.0]]), 1.0, 0.01)  # the nearest point
        tensor([[0., 1.]])
    """

    _data: Tensor
    _alpha: float
    _var: float

    def __init__(self, data: Tensor | list[Any], var: float = 0.0) -> None:
        with torch.inference_mode(False):
            points = _data(data)
        self._set(_dtype=points.dtype if isinstance(data, Tensor) else None)
        self._fill(points, 1.0, number("var", var, ge=0))

    def _fill(self, data: Tensor, alpha: float, var: float) -> None:
        self._set(_data=data, _alpha=alpha, _var=var, _plans={}, shape=tuple(data.shape[1:]))

    @classmethod
    def from_fields(cls, **fields: Any) -> Empirical:
        """The law with these fields; four points of a square by default."""
        square = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]
        return cls(**{"data": square, **fields})

    @classmethod
    def examples(cls) -> list[Empirical]:
        """The corners of a square, and three smoothed points in one dimension."""
        return [cls.from_fields(), cls([[0.0], [1.0], [3.0]], var=0.25)]

    @property
    def data(self) -> Tensor:
        """The centres alpha y_i [(n, *shape)]."""
        return self._alpha * self._data

    @property
    def var(self) -> float:
        """The variance of the kernel around each centre."""
        return self._var

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws with replacement [(n, *shape)], plus kernel noise; see `Target.sample`."""
        draws = Draws(n, generator, dtype, device, self._dtype)
        rows = draws.index(len(self._data))
        points = self._data[rows.cpu()].to(draws.device, torch.float64) * self._alpha
        if self._var > 0:
            points += self._var**0.5 * draws.normal(*self.shape)
        return draws.cast(points)

    def _perturbed(self, alpha: float, var: float) -> Empirical:
        law = object.__new__(Empirical)
        law._set(_dtype=self._dtype)
        law._fill(self._data, alpha * self._alpha, alpha**2 * self._var + var)
        law._set(_plans=self._plans)  # the same points, in the same dtypes
        return law

    def _prepare_points(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The points [(n, d, 1)]."""
        return self._data.flatten(1)[:, :, None].to(device, dtype)

    def _sums(self, x: Tensor, squares: bool) -> _Sums:
        """The sums of eq. (2) for a part of the batch x [(d, batch)]."""
        points = self._plan(self._prepare_points, x)
        sums = None
        for piece in points.split(max(1, _PIECE // points.shape[1])):
            gap = self._alpha * piece - x  # (i, d, batch)
            apart = tree_sum(gap * gap, 1)
            logits = apart * (-0.5 / self._var)
            top = logits.detach().amax(0)
            if sums is not None:
                top = torch.maximum(top, sums.top)
            weights = (logits - top).exp()
            total, pull = tree_sum(weights, 0), tree_sum(weights[:, None] * gap, 0)
            square = tree_sum(weights * apart, 0) if squares else None
            if sums is not None:
                kept = (sums.top - top).exp()
                total, pull = total + kept * sums.total, pull + kept * sums.pull
                if square is not None and sums.squares is not None:
                    square = square + kept * sums.squares
            sums = _Sums(top, total, pull, square)
        assert sums is not None  # there is at least one point
        return sums

    def _in_parts(self, x: Tensor, squares: bool = False) -> list[_Sums]:
        if self._var == 0:
            raise ConfigError(
                "the law of data points has no density and no score; use .perturbed(alpha, var) "
                "with var > 0, or Empirical(data, var=...)"
            )
        d = self._data[0].numel()
        flat = x.reshape(len(x), d).t()
        piece = min(len(self._data), max(1, _PIECE // d)) * d
        return [self._sums(part, squares) for part in flat.split(max(1, BLOCK // piece), dim=1)]

    def _log_prob(self, x: Tensor) -> Tensor:
        if x.itemsize < 4:
            return self._log_prob(x.float()).to(x.dtype)
        logs = torch.cat([part.total.log() + part.top for part in self._in_parts(x)])
        d = self._data[0].numel()
        return logs - (math.log(len(self._data)) + 0.5 * d * math.log(2 * math.pi * self._var))

    def _score(self, x: Tensor) -> Tensor:
        if x.itemsize < 4:
            return self._score(x.float()).to(x.dtype)
        pulls = [part.pull / (part.total * self._var) for part in self._in_parts(x)]
        return torch.cat(pulls, 1).t().reshape(x.shape)

    def _curved(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Eqs. (2) and (3)."""
        if x.itemsize < 4:
            score, laplacian = self._curved(x.float())
            return score.to(x.dtype), laplacian.to(x.dtype)
        means, spreads = [], []
        for part in self._in_parts(x, squares=True):
            assert part.squares is not None  # asked for
            mean = part.pull / part.total
            means.append(mean)
            spreads.append(part.squares / part.total - tree_sum(mean * mean, 0))
        d, var = self._data[0].numel(), self._var
        score = (torch.cat(means, 1) / var).t().reshape(x.shape)
        return score, (torch.cat(spreads).clamp_min(0) / var - d) / var

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Empirical):
            return NotImplemented
        same = torch.equal(self.data.double(), other.data.double())
        return self._var == other._var and same

    def __hash__(self) -> int:
        return hash((tuple(self._data.shape), self._var))

    def __repr__(self) -> str:
        if self._data.numel() > LITERAL:
            return f"Empirical(<data {tuple(self._data.shape)}>, var={self._var!r})"
        return f"empirical(data={shown(self.data.tolist(), 10**6)}, var={self._var!r})"
