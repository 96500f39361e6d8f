r"""Explicit Runge-Kutta steps of Dormand and Prince for a batch, with the path between them.

A step of length h takes y to y + h sum_i b_i k_i, of order 5; its difference to the embedded
solution of order 4 is the error that is controlled:

    error = max over samples of  rms_j |h sum_i e_i k_ij| / (atol + rtol |y_j|)  <=  1.         (1)

The largest over the samples, not their mean: one sample on the ridge between two modes decides
about the steps, and no sample is less accurate than it asks for. The next step is

    h <- h * 0.9 error^{-0.14} last_error^{0.08},   at most 5 times as long,                    (2)

and within a step the path is the continuous extension of order 4. All schedules of a step are
evaluated in one call.

References: Dormand and Prince 1980, doi:10.1016/0771-050X(80)90013-3 (table 2); Hairer, Norsett
and Wanner 1993, doi:10.1007/978-3-540-78862-1, sections II.4 to II.6 (control, eq. 2; dense
output); Gustafsson 1991, doi:10.1145/210232.210242.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import SolverError

__all__ = ["Piece", "Slope", "integrate"]

# from a state [(batch, m)] and what `levels` gave for the time to the derivative [(batch, m)]
Slope = Callable[[Tensor, Any], Tensor]

_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)  # of stages 2 to 6; the seventh is at the end too
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_DENSE = (
    -12715105075 / 11282082432, 0.0, 87487479700 / 32700410799, -10690763975 / 1880347072,
    701980252875 / 199316789632, -1453857185 / 822651844, 69997945 / 29380423,
)  # fmt: skip
_FIRST = 0.08  # of the longest step: the first one
_LONGEST = 0.125  # of the way: a state at rest tells nothing of what it will meet;
_COARSE = 8.0  # times as long where a tolerance asks for no more than a figure
_SHORTEST = 1e-13  # of the way
_TRIES = 8  # steps of a solve that may overflow, each tried again at a fifth of its length


class Piece(NamedTuple):
    """One step: from time a to time b, and the polynomial of the path between them.

    With u = (t - a)/(b - a): y + u (d_1 + (1 - u) (d_2 + u (d_3 + (1 - u) d_4))).
    """

    a: float
    b: float
    y: Tensor
    parts: tuple[Tensor, Tensor, Tensor, Tensor]

    @property
    def end(self) -> Tensor:
        """The state at b [(batch, m)]."""
        return self.y + self.parts[0]

    def __call__(self, t: float) -> Tensor:
        """The state at t [(batch, m)]."""
        u = (t - self.a) / (self.b - self.a)
        first, second, third, fourth = self.parts
        inner = torch.add(third, fourth, alpha=1 - u)
        inner = torch.add(second, inner, alpha=u)
        inner = torch.add(first, inner, alpha=1 - u)
        return torch.add(self.y, inner, alpha=u)


def integrate(
    slope: Slope,
    levels: Callable[[Sequence[float]], Sequence[Any]],
    y: Tensor,
    a: float,
    b: float,
    *,
    rtol: float,
    atol: float,
    time: Callable[[float], float] = float,
) -> Iterator[Piece]:
    """The path from a to b, step by step; none where a = b.

    Args:
        slope: the derivative.
        levels: from times to what `slope` needs there.
        y: the state at time a [(batch, m)], float64.
        a: the first time.
        b: the last time, on either side of a.
        rtol: relative tolerance of eq. (1).
        atol: absolute tolerance.
        time: the time of a place, for messages.

    Raises:
        SolverError: steps fall below rounding, or the slope is not finite; the time, the step and
            the number of steps are named.
    """
    batch, m = y.shape
    k = y.new_zeros(7, batch * m)
    stages = [y.new_tensor(row) for row in _STAGES]
    errors, bends = y.new_tensor(_ERROR), y.new_tensor(_DENSE)
    way, t, last = b - a, a, 1e-4
    longest = _LONGEST * min(_COARSE, max(1.0, _COARSE * (rtol + atol)))
    h, steps, overflowed = _FIRST * longest * way, 0, 0
    k[0] = slope(y, levels([a])[0]).reshape(-1)
    _refuse(k[0], time(t), h, 0)
    while t != b:
        if abs(h) < _SHORTEST * abs(way):
            raise SolverError(
                f"dopri5: steps fall below rounding at t = {time(t):.6g} on the way from "
                f"{time(a):g} to {time(b):g} (h = {h:.2g}, {steps} steps kept): the slope jumps "
                "there, or rtol and atol are too small"
            )
        # the last two steps are alike rather than one long and one tiny
        left = b - t
        h = left if abs(h) >= abs(left) else left / 2 if abs(h) > 0.6 * abs(left) else h
        end = b if h == left else t + h
        at = levels([*(t + c * h for c in _NODES[:-1]), end])
        flat = y.reshape(-1)
        for i, row in enumerate(stages):
            new = torch.addmv(flat, k[: i + 1].T, row, alpha=h).reshape(batch, m)
            k[i + 1] = slope(new, at[min(i, 4)]).reshape(-1)
        off = torch.mv(k.T, errors).reshape(batch, m) * h
        allowed = torch.maximum(y.abs(), new.abs()).mul_(rtol).add_(atol)
        error = float((off / allowed).square_().mean(1).sqrt_().max()) if batch and m else 0.0
        if not error <= 1:
            overflowed += not math.isfinite(error)
            if overflowed > _TRIES:
                _refuse(k, time(t), h, steps)
            h *= max(0.2, 0.9 * error**-0.2) if math.isfinite(error) else 0.2
            continue
        yield _piece(t, end, y, new, k, bends)
        steps, t, y = steps + 1, end, new
        k[0] = k[6]
        error = max(error, 1e-10)
        h *= min(5.0, max(0.2, 0.9 * error**-0.14 * last**0.08))  # eq. (2)
        h = math.copysign(min(abs(h), longest * abs(way)), way)
        last = max(error, 1e-4)


def _piece(a: float, b: float, y: Tensor, new: Tensor, k: Tensor, bends: Tensor) -> Piece:
    gain, h = new - y, b - a
    start = h * k[0].reshape(y.shape) - gain
    end = gain - h * k[6].reshape(y.shape) - start
    bend = h * torch.mv(k.T, bends).reshape(y.shape)
    return Piece(a, b, y, (gain, start, end, bend))


def _refuse(k: Tensor, t: float, h: float, steps: int) -> None:
    if not bool(torch.isfinite(k).all()):
        raise SolverError(
            f"dopri5: the flow is not finite beyond t = {t:.6g} (h = {h:.2g}, {steps} steps "
            "kept): the model or the state overflowed"
        )
