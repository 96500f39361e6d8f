r"""One Brownian path for every grid: the noise with which strong convergence can be measured.

A row from t to s < t of a sampler takes a standard normal z, and a path W gives it one,

    z = (W(t) - W(s)) / sqrt(t - s),                                                        (1)

so that runs on different grids, driven by the same W, approach the same solution path by path. W
is a function of time, not of the grid: each unit of time is a tree, in which an interval of length
h and increment D has eight children with the increments

    D_i = D / 8 + sqrt(h / 8) (xi_i - mean of xi_1 .. xi_8),                                  (2)

the law of the parts given their sum (with two children it is Levy's midpoint construction), and
the normals xi are keyed by (seed, sample, interval). Times are rounded to
multiples of 2^-30 and (1) is divided by the rounded length, so that z is exactly standard normal,
and normals of rows without common time are independent.

References: Levy, Processus stochastiques et mouvement brownien (1948), chapter 1; Kidger et al.,
arXiv:2105.13493, appendix E (queries of a tree of keys, with memory for one path down).
"""

from __future__ import annotations

import copy
import hashlib
import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sdekit._check import floating, integer
from sdekit.errors import ConfigError, ShapeError, TimeError
from sdekit.sampling.noise import KeyedNoise, seed_from

__all__ = ["Brownian"]

_BITS = 30  # of a time within its unit; nodes have fewer numbers than a key of 32 bits keeps apart
_UNIT = 2**_BITS
_LATEST = 4096  # W at the beginning of a unit is a sum over the units before it
_PARTS = 8  # three bits a level: more would draw more normals than are used, fewer take more keys


class Brownian:
    """A noise source that follows Brownian paths along a grid, eq. (1).

    Draw n belongs to row n // per_row of the grid and to path n % per_row. Sample i of a path is a
    function of (seed, i, time): neither the batch nor the grid matters. The starting point is no
    increment of a path: in `sample` give x_init, or a seed, beside this source.

    Args:
        seed: any int.
        times: the grid [(K + 1,)], strictly decreasing, in [0, 4096].
        first: the index of the first sample of the batches it will see.
        per_row: the number of draws that the sampler makes in a row.

    Raises:
        ConfigError: per_row < 1 or first < 0; a draw after the last row.
        DtypeError, ShapeError: times is no floating tensor of one dimension.
        TimeError: times that do not decrease, or by less than 2^-30, or outside [0, 4096].

    Reference: arXiv:2105.13493, appendix E.

    Example:
        >>> import torch
        >>> fine = torch.linspace(1.0, 0.0, 9, dtype=torch.float64)
        >>> noise, x = Brownian(7, fine), torch.empty(4, 2, dtype=torch.float64)
        >>> path = sum(noise(x) * (1 / 8) ** 0.5 for _ in range(8))
        >>> bool(torch.allclose(path, Brownian(7, fine[::8])(x)))
        True
    """

    def __init__(self, seed: int, times: Tensor, *, first: int = 0, per_row: int = 1) -> None:
        self.seed = seed_from(seed)
        self.times = _rounded(times)
        self.first = integer("first", first, ge=0)
        self.per_row = integer("per_row", per_row, ge=1, error=ConfigError)
        self.draw = 0
        self._paths: dict[int, _Path] = {}
        self._like = torch.empty(0, dtype=torch.float64)

    def __call__(self, x: Tensor) -> Tensor:
        """The next draw [shape, dtype and device of x]."""
        row, path = divmod(self.draw, self.per_row)
        if row >= len(self.times) - 1:
            raise ConfigError(
                f"noise=Brownian has {len(self.times) - 1} rows of {self.per_row} draws, and one "
                "more was asked for (give x_init or a seed too: a path has no starting point)"
            )
        if x.shape != self._like.shape or x.device != self._like.device:
            self._paths.clear()
            self._like = torch.empty_like(x, dtype=torch.float64)
        if path not in self._paths:
            self._paths[path] = _Path((self.seed, path), self.first, self._like)
        self.draw += 1
        t, s = self.times[row], self.times[row + 1]
        before, after = self._paths[path].at(t), self._paths[path].at(s)
        return ((before - after) / math.sqrt((t - s) / _UNIT)).to(x.dtype)

    def at(self, draw: int) -> Brownian:
        """The same source, about to make its draw number `draw`: runs can be repeated."""
        other = copy.copy(self)
        other.draw, other._paths = draw, {}
        return other


def _rounded(times: Tensor) -> list[int]:
    """The times in units of 2^-30."""
    if floating("times", times).ndim != 1 or len(times) < 2:
        raise ShapeError(f"times must have shape (K + 1,), got {tuple(times.shape)}")
    given = times.detach().to("cpu", torch.float64).tolist()
    for k, t in enumerate(given):
        if not 0 <= t <= _LATEST:  # NaN is outside too
            raise TimeError(f"times must lie in [0, {_LATEST}], got times[{k}] = {t:.6g}")
    found = [round(t * _UNIT) for t in given]
    for k, (t, s) in enumerate(pairwise(found)):
        if s >= t:
            raise TimeError(
                f"times must decrease by 2^-{_BITS} at least, got times[{k}] = {given[k]:.12g} "
                f"and times[{k + 1}] = {given[k + 1]:.12g}"
            )
    return found


class _Node(NamedTuple):
    """An interval: its number, where it begins and ends; W at the beginning, its increment."""

    number: int
    start: int
    end: int
    before: Tensor
    increment: Tensor


class _Path:
    """W of one path, for a batch. It keeps the last value and the way down to it, no more.

    Args:
        key: what the normals depend on, beside sample and node.
        first: the index of the first sample.
        like: what the values look like [(batch, *dims)], float64.
    """

    def __init__(self, key: tuple[int, int], first: int, like: Tensor) -> None:
        self.key = key
        self.first = first
        self.like = like
        self.parts = like.new_empty((len(like), _PARTS, *like.shape[1:]))
        self.time = -1
        self.value = like
        self._enter(0)

    def at(self, time: int) -> Tensor:
        """W(time) [(batch, *dims)], W(0) = 0; time in units of 2^-30."""
        if time != self.time:
            unit = max(0, (time - 1) // _UNIT)  # the end of a unit needs no tree of the next one
            if unit != self.unit:
                self._enter(unit)
            self.time, self.value = time, self._descend(time - unit * _UNIT)
        return self.value

    def _source(self, unit: int) -> KeyedNoise:
        """The normals of a unit's tree: draw 0 is its increment, draw n for node n."""
        text = f"brownian {self.key} {unit}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return KeyedNoise(int.from_bytes(digest, "big"), first=self.first)

    def _enter(self, unit: int) -> None:
        """The root of a unit's tree; W at its beginning is the sum of the units before it."""
        before = torch.zeros_like(self.like)
        for earlier in range(unit):
            before = before + self._source(earlier)(self.parts)[:, 0]
        self.unit = unit
        self.nodes = self._source(unit)
        self.way = [_Node(1, 0, _UNIT, before, self.nodes(self.parts)[:, 0])]

    def _descend(self, time: int) -> Tensor:
        """W at a time of the current unit, by eq. (2), from the last node that still holds it.

        A time is read off the first interval from the root that ends with it: one way, bit by bit.
        """
        way = self.way
        if time == 0:
            return way[0].before
        while not way[-1].start < time <= way[-1].end or (len(way) > 1 and time == way[-2].end):
            way.pop()
        while time != way[-1].end:
            node = way[-1]
            size = (node.end - node.start) // _PARTS
            child = (time - node.start - 1) // size
            self.nodes.draw = node.number
            xi = self.nodes(self.parts) * math.sqrt(size / _UNIT)
            sums = xi.cumsum(1)  # in order: a sum over eight may depend on the shape of the batch
            rest = (node.increment - sums[:, -1]) / _PARTS
            before = node.before + (sums[:, child - 1] + child * rest if child else 0.0)
            number = _PARTS * node.number + child - (_PARTS - 2)  # as in a heap, from 1
            start = node.start + child * size
            way.append(_Node(number, start, start + size, before, xi[:, child] + rest))
        return way[-1].before + way[-1].increment
