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

import hashlib
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit._check import integer
from sdekit.errors import TimeError
from sdekit.sampling.noise import KeyedNoise, seed_from

__all__ = ["Brownian"]

_BITS = 30  # of a time within its unit; nodes have fewer numbers than a key of 32 bits keeps apart
_UNIT = 2**_BITS
_LATEST = 4096  # W at the beginning of a unit is a sum over the units before it
_PARTS = 8  # three bits a level: more would draw more normals than are used, fewer take more keys


class _Turn(NamedTuple):
    """What a source knows of its rows, since the walk last changed its direction.

    Attributes:
        draw: the number of draws before it.
        rises: the times that the walk has turned up again, after going down.
        up: whether it goes up now.
    """

    draw: int
    rises: int
    up: bool


class Brownian:
    """A noise source that follows Brownian paths, eq. (1), whatever sampler and grid it drives.

    The loop of a sampler tells it which row begins (`enter`), and the draws of a row are numbered
    from 0: draw n of a row between two times is an increment of path n. So one source gives one
    path to samplers with other grids and other draws, common random numbers. Sample i of a path is
    a function of (seed, i, time): neither the batch nor the grid matters.

    A row that goes up in time is driven by W(s) - W(t) of paths of their own, and each time that a
    walk has turned up the rows after it follow fresh paths. A row that stays at its time, and the
    starting point, take normals keyed by (seed, time, number).

    Args:
        seed: any int.
        first: the index of the first sample of the batches it will see.

    Raises:
        ConfigError: first < 0.
        TimeError: a row outside [0, 4096], or of a length below 2^-30.

    Reference: arXiv:2105.13493, appendix E.

    Example:
        >>> import torch
        >>> x = torch.empty(4, 2, dtype=torch.float64)
        >>> def draw(t, s):
        ...     noise.enter(t, s)
        ...     return noise(x) * (t - s) ** 0.5
        >>> noise = Brownian(7)
        >>> parts, whole = draw(1.0, 0.7) + draw(0.7, 0.0), draw(1.0, 0.0)
        >>> bool(torch.allclose(parts, whole))
        True
    """

    def __init__(self, seed: int, *, first: int = 0) -> None:
        self.seed = seed_from(seed)
        self.first = integer("first", first, ge=0)
        self.draw = 0
        self._row: tuple[int, int] | None = None  # in units of 2^-30; None: before the first
        self._turns = [_Turn(0, 0, up=False)]
        self._within = 0  # draws in the row
        self._paths: dict[int, _Path] = {}
        self._like = torch.empty(0, dtype=torch.float64)

    def enter(self, t: float, s: float) -> None:
        """A row from t to s begins."""
        row = _rounded(t), _rounded(s)
        if row[0] == row[1] and t != s:
            raise TimeError(
                f"noise=Brownian tells times apart by 2^-{_BITS} at least, got a row from "
                f"{t:.12g} to {s:.12g}"
            )
        turn, up = self._turns[-1], row[1] > row[0]
        if self._row is not None and row[0] > self._row[1]:  # a new run with this source
            self._turn(_Turn(0, 0, up))
            self._turns = self._turns[-1:]
        elif row[0] != row[1] and up != turn.up:
            self._turn(_Turn(self.draw, turn.rises + up, up))
        self._row, self._within = row, 0

    def _turn(self, turn: _Turn) -> None:
        self._turns.append(turn)
        self._paths.clear()

    def __call__(self, x: Tensor) -> Tensor:
        """The next draw [shape, dtype and device of x]."""
        number = self._within
        self.draw += 1
        self._within += 1
        if self._row is None:
            return self._keyed(("start", number), x)
        t, s = self._row
        turn = self._turns[-1]
        if t == s:
            return self._keyed(("level", t, turn.rises, number), x)
        if x.shape != self._like.shape or x.device != self._like.device:
            self._paths.clear()
            self._like = torch.empty_like(x, dtype=torch.float64)
        if number not in self._paths:
            key = (self.seed, number, *turn[1:])
            self._paths[number] = _Path(key, self.first, self._like)
        before, after = self._paths[number].at(t), self._paths[number].at(s)
        away = after - before if turn.up else before - after
        return (away / math.sqrt(abs(t - s) / _UNIT)).to(x.dtype)

    def _keyed(self, key: tuple[Any, ...], x: Tensor) -> Tensor:
        return KeyedNoise(_key(self.seed, *key), first=self.first)(x)

    def at(self, draw: int) -> Brownian:
        """The same source, about to make its draw number `draw`: runs can be repeated.

        The next thing it is told must be the row that begins there.
        """
        other = self.shifted(0)
        other.draw = draw
        past = [turn for turn in self._turns if turn.draw < draw]
        other._turns = past or self._turns[:1]
        return other

    def shifted(self, first: int) -> Brownian:
        """The same source as it is before a run, for the samples from number `first` on."""
        return Brownian(self.seed, first=self.first + first)


def _rounded(t: float) -> int:
    """A time in units of 2^-30."""
    if not 0 <= t <= _LATEST:  # NaN is outside too
        raise TimeError(f"noise=Brownian needs times in [0, {_LATEST}], got {t:.6g}")
    return round(t * _UNIT)


def _key(*parts: Any) -> int:
    """A seed that depends on all parts."""
    digest = hashlib.blake2b(f"brownian {parts}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


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

    def __init__(self, key: tuple[Any, ...], first: int, like: Tensor) -> None:
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
        return KeyedNoise(_key(*self.key, unit), first=self.first)

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
