r"""The change of the density along a path that is known: few nodes, each with a divergence.

A divergence costs many calls' worth of work and nothing on the path depends on it. So the path is
solved first, and then

    integral of r (div s + sum 1/v) du,   eq. (4) of `flow.py`,                                 (1)

is taken by Gauss and Legendre's rule with five nodes over two steps of the path at a time: 2.5
divergences a step where a Runge-Kutta method takes six. The four outer nodes make a rule of their
own. Where an analytic function's rules differ by delta, relative to the integral S of its absolute
value, the error of the better one is about S (delta / S)^2 or less, and where that is more than is
allowed for any sample, the panel is halved.

Reference: Piessens et al. 1983, QUADPACK, doi:10.1007/978-3-642-61786-7, section 2.2.4 (error
estimates that know how fast a rule converges).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import SolverError
from sdekit.likelihood.solve import Piece

__all__ = ["along"]

_X, _W = np.polynomial.legendre.leggauss(5)
_NODES, _WEIGHTS = (_X + 1) / 2, _W / 2
_OUTER = [0, 1, 3, 4]
# the rule on the outer nodes that is right for cubics
_COARSE = np.zeros(5)
_COARSE[_OUTER] = np.linalg.solve(
    np.vander(_NODES[_OUTER], increasing=True).T, 1 / np.arange(1, 5)
)
_TOGETHER = 2  # steps of the path in a panel
_HALVINGS = 12
_HELD = 2**24  # numbers of the path: 128 MB

Rates = Callable[[Sequence[float], Sequence[Tensor]], list[Tensor]]


def along(
    rates: Rates,
    path: Iterable[Piece],
    allowed: float,
    *,
    time: Callable[[float], float] = float,
) -> tuple[Tensor, Tensor]:
    """The state at the end of a path [(batch, m)], and the integral along it [(batch, columns)].

    Args:
        rates: from places and states there to rates [(batch, columns)].
        path: the pieces, one after another, at least one; few are held at once.
        allowed: the error allowed in a panel.
        time: the time of a place, for messages.

    Raises:
        SolverError: a rate is not finite, or panels are halved without end.
    """
    total: Tensor | float = 0.0
    held: list[Piece] = []
    for piece in path:
        held.append(piece)
        if len(held) % _TOGETHER == 0 and len(held) * 5 * piece.y.numel() > _HELD:
            total, end, held = total + _summed(rates, held, allowed, time), piece.end, []
    if held:
        total, end = total + _summed(rates, held, allowed, time), held[-1].end
    assert isinstance(total, Tensor)  # a path has at least one piece
    return end, total


def _summed(
    rates: Rates, path: Sequence[Piece], allowed: float, time: Callable[[float], float]
) -> Tensor:
    """The integral along these pieces [(batch, columns)]."""
    panels = [tuple(path[k : k + _TOGETHER]) for k in range(0, len(path), _TOGETHER)]
    todo = [(pieces, pieces[0].a, pieces[-1].b) for pieces in panels]
    total: Tensor | None = None
    for _ in range(_HALVINGS):
        times, states = [], []
        for pieces, a, b in todo:
            for u in _NODES.tolist():
                t = a + u * (b - a)
                times.append(t)
                states.append(_piece_at(pieces, t)(t))
        found = rates(times, states)
        again = []
        for k, (pieces, a, b) in enumerate(todo):
            values = torch.stack(found[5 * k : 5 * k + 5])
            weights = values.new_tensor(np.stack([_WEIGHTS, _COARSE])) * (b - a)
            fine, coarse = torch.tensordot(weights, values, 1)
            size = torch.tensordot(weights[0].abs(), values.abs(), 1)
            if not bool(torch.isfinite(size).all()):
                raise SolverError(
                    f"the divergence is not finite between t = {time(a):.6g} and {time(b):.6g}: "
                    "the model's derivatives overflowed"
                )
            off = (fine - coarse).square() / size.clamp_min(torch.finfo(size.dtype).tiny)
            if off.numel() and float(off.max()) > allowed:
                middle = (a + b) / 2
                again += [(pieces, a, middle), (pieces, middle, b)]
            else:
                total = fine if total is None else total + fine
        todo = again
        if not todo:
            break
    else:
        raise SolverError(
            f"the divergence along the path cannot be integrated to {allowed:.2g} near "
            f"t = {time(todo[0][1]):.6g}: it jumps there, or rtol and atol are too small"
        )
    assert total is not None  # a path has at least one piece
    return total


def _piece_at(pieces: Sequence[Piece], t: float) -> Piece:
    """The piece that t lies in; a path may go either way."""
    return next((p for p in pieces if (t - p.b) * (p.b - p.a) <= 0), pieces[-1])
