r"""A sampler's exact error on many laws of a line at once, by quadrature over its map.

A sampler without noise is a map S of the line. With F_T and Q_0 the distribution function of x_T
and the quantile function of x at t_min,

    W2(S on p, p_{t_min})^2 = int_0^1 (S(Q_T(u)) - Q_0(u))^2 du                                 (1)

where S rises, and an upper bound where it folds. The real sampler runs on the nodes of all laws,
and a node stands for the mass of a cell.

The nodes share out, for each law, a measure that is part mass, part width in deviations of the
normal law (the tails), part width in x and part mass of the softened law (what lies about a mode),
and part distance from the levels u_j that divide two modes, on a logarithmic scale: the map is
steep there, and where its step lies is the error of a mode's weight. Then the cells that matter
most, between whose ends the error jumps, are divided, and divided again.

Reference: Villani, Topics in Optimal Transportation, theorem 2.18.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.exact.bank import Bank, Laws
from sdekit.exact.passes import ZeroNoise
from sdekit.sampling.base import CountedModel, Sampler
from sdekit.sde.base import LinearSDE

__all__ = ["MapErrors", "nodes"]

_REACH = 6.0  # deviations about every mode in which the measure is known,
_FINE = 61  # at so many points,
_BETWEEN = 41  # and at so many between two modes
_TAIL = 2e-8  # of mass, that no node is given
_SHARES = (0.3, 0.15, 0.15, 0.1, 0.3)  # of the five parts of the measure
_SOFT = 0.2  # of a law's deviation: the noise that softens it
_CLOSE = 1e-6  # of mass: the nearest that nodes come to a level that divides two modes
_ROUNDS = 2  # of dividing
_PIECES = 6  # into which a cell is
_CELLS = 3  # of a law that are, at most: one between every two modes
_HALVINGS = 20  # of the cell in which the true image of a new node lies
_WIDTHS = (2,)  # components up to which laws run together: none is padded to the longest


def nodes(laws: Laws, n: int) -> Tensor:
    """The places of n nodes on each law, rising [(laws, n)]."""
    stds = laws.vars.sqrt()
    fine = torch.linspace(-_REACH, _REACH, _FINE, dtype=torch.float64)
    modes = laws.means[..., None] + stds[..., None] * fine
    between, levels = _divides(laws)
    x = torch.cat([modes.flatten(1), between.flatten(1)], 1).sort(1).values
    inside = laws.cdf(x).clamp(_TAIL, 1 - _TAIL)
    held = (inside > _TAIL) & (inside < 1 - _TAIL)
    ends = (
        torch.where(held, x, torch.inf).amin(1, keepdim=True),
        torch.where(held, x, -torch.inf).amax(1, keepdim=True),
    )
    x = torch.maximum(torch.minimum(x, ends[1]), ends[0])
    u = laws.cdf(x)
    away = torch.asinh((u[:, None] - levels[..., None]) / _CLOSE)
    none = torch.isnan(levels).all(1, keepdim=True)
    soft = laws.perturbed(1.0, (_SOFT * laws.std).square())
    parts = (u, torch.special.ndtri(u), x, soft.cdf(x), away.nansum(1) + none * u)
    measure = sum(
        share * (part - part[:, :1]) / (part[:, -1:] - part[:, :1])
        for share, part in zip(_SHARES, parts, strict=True)
    )
    assert isinstance(measure, Tensor)
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return _interpolated(places.expand(len(laws), -1), measure, x)


def _divides(laws: Laws) -> tuple[Tensor, Tensor]:
    """Points between neighbouring modes [(laws, k - 1, n)] and the levels u that divide them.

    A level [(laws, k - 1)] is NaN where two modes are one.
    """
    # what pads stands last, not between a mode and its neighbour
    order = torch.where(laws.weights > 0, laws.means, torch.inf).argsort(1)
    weights, means, stds = (
        table.gather(1, order) for table in (laws.weights, laws.means, laws.vars.sqrt())
    )
    gap, reach = means.diff(dim=1), stds[:, 1:] + stds[:, :-1]
    middle = means[:, :-1] + gap * stds[:, :-1] / reach
    fine = torch.linspace(-0.5, 0.5, _BETWEEN, dtype=torch.float64)
    two = (gap > reach) & (weights[:, 1:] > 0) & (weights[:, :-1] > 0)
    levels = torch.where(two, laws.cdf(middle), torch.nan)
    return middle[..., None] + gap[..., None] * fine, levels


def _above(at: Tensor, x: Tensor) -> Tensor:
    """Which of the rising x [(laws, m)] ends the cell of every place [(laws, n)]."""
    return torch.searchsorted(x.contiguous(), at.contiguous()).clamp(1, x.shape[1] - 1)


def _interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y at places [(laws, n)] between rising x, for x and y [(laws, m)]."""
    k = _above(at, x)
    (x0, x1), (y0, y1) = ((of.gather(1, k - 1), of.gather(1, k)) for of in (x, y))
    return y0 + ((at - x0) / (x1 - x0)).nan_to_num(0.0).clamp(0, 1) * (y1 - y0)


class _Part:
    """Some laws, their nodes, and the errors on them."""

    def __init__(self, sampler: Sampler, sde: LinearSDE, laws: Laws, n: int) -> None:
        self.sampler, self.sde, self.laws = sampler, sde, laws
        self.first, self.last = (
            laws.perturbed(float(sde.alpha(t)), float(sde.var(t))) for t in (sde.t_max, sde.t_min)
        )
        self.truth = nodes(self.last, n)
        self.u = self.last.cdf(self.truth)
        self.start = self.first.quantile(self.u)
        self.banks: dict[int, Bank] = {}

    def errors(self, grid: Tensor) -> Tensor:
        """Eq. (1) for every law [(laws,)].

        Raises:
            SdekitError: the run's.
        """
        start, u = self.start, self.u
        away = self._mapped(start, grid) - self.truth
        cells = min(_CELLS, max(1, self.laws.weights.shape[1] - 1))
        within = (torch.arange(_PIECES, dtype=torch.float64) + 0.5) / _PIECES
        for _ in range(_ROUNDS):
            worth = away.diff(dim=1).square() * u.diff(dim=1)
            chosen = worth.topk(cells, dim=1).indices
            low, high = (start.gather(1, chosen + one)[..., None] for one in (0, 1))
            more = (low + (high - low) * within).flatten(1)
            there = self.first.cdf(more)
            k = _above(there, self.u)
            ends = (self.truth.gather(1, k - 1), self.truth.gather(1, k))
            missed = self._mapped(more, grid) - self.last.bisected(there, *ends, _HALVINGS)
            start, order = torch.cat([start, more], 1).sort(1)
            u, away = (
                torch.cat(pair, 1).gather(1, order) for pair in ((u, there), (away, missed))
            )
        edges = self.first.cdf(0.5 * (start[:, 1:] + start[:, :-1]))
        zero = edges.new_zeros(len(edges), 1)
        mass = torch.cat([zero, edges, zero + 1], 1).diff(dim=1)
        return (mass * away.square()).sum(1).sqrt()

    def _mapped(self, start: Tensor, grid: Tensor) -> Tensor:
        """S at starts [(laws, n)]."""
        n = start.shape[1]
        bank = self.banks.setdefault(n, Bank(self.laws, self.sde, n))
        frames = self.sampler.frames(
            CountedModel(bank), start.reshape(-1, 1), grid, ZeroNoise(), only={len(grid) - 1}
        )
        with torch.no_grad():
            *_, end = frames
        return end.x.reshape(start.shape)


@dataclass(frozen=True, eq=False)
class MapErrors:
    """Eq. (1) of a sampler without noise as a function of the grid.

    Attributes:
        sampler: the sampler.
        sde: the process.
        laws: the laws at t = 0.
        nodes: of each law, before cells are divided.
    """

    sampler: Sampler
    sde: LinearSDE
    laws: Laws
    nodes: int

    @cached_property
    def _parts(self) -> list[tuple[Tensor, _Part]]:
        """The laws by how many components they have: which, and their runs."""
        kinds = torch.bucketize(self.laws.components, torch.tensor(_WIDTHS))
        indices = ((kinds == kind).nonzero().flatten() for kind in range(len(_WIDTHS) + 1))
        return [
            (index, _Part(self.sampler, self.sde, self.laws.taken(index), self.nodes))
            for index in indices
            if len(index)
        ]

    def __call__(self, grid: Tensor) -> Tensor:
        """The error on every law [(laws,)]; infinite where the run fails."""
        errors = torch.full((len(self.laws),), torch.inf, dtype=torch.float64)
        for index, part in self._parts:
            try:
                errors[index] = part.errors(grid)
            except SdekitError:
                return torch.full_like(errors, torch.inf)
        return torch.where(torch.isfinite(errors), errors, torch.inf)
