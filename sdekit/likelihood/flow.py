r"""The probability flow in a moving frame, in which Gaussian data is at rest.

The flow of a model with score s, and the change of the density along it, are

    dx/dt = f x - g^2/2 s(x, t),    d log p_t(x_t)/dt = -div (f x - g^2/2 s).                   (1)

If data had mean m and covariance Q diag(c) Q^T, x_t would have variances v = alpha^2 c + sigma^2
along Q. In the coordinates z of

    x_t = alpha m + Q diag(v)^{1/2} z                                                           (2)

the linear part of (1) and the score -Q diag(v)^{-1} Q^T (x - alpha m) of that Gaussian cancel:

    dz/du = r diag(v)^{-1/2} (Q^T s + diag(v)^{-1/2} z),    r = -g^2/2 dt/du,                   (3)
    log p_a(x_a) = log p_b(x_b) + 1/2 sum log(v_b / v_a) + int_a^b r (div s + sum 1/v) du.      (4)

Both right-hand sides vanish for Gaussian data. For other data they are small where the noise has
washed the data out, and no stiffness is left near the data, where v ~ sigma^2 changes fast. The
moments are the model's; without any, m = 0 and c = 1. They decide about the steps that a solver
takes, not about what it converges to.

The clock u is an angle, in which every process takes the same path at the same pace:

    tan u = sigma / (alpha k),   k^2 = mean of c,   r = -(alpha k)^2 tan u / cos^2 u,           (5)

since g^2 dt = alpha^2 d(sigma^2 / alpha^2). On VP with k = 1, alpha = cos u and sigma = sin u. A
chain, whose g^2 jumps from node to node, is smooth in it.

References: Chen et al., arXiv:1806.07366, theorem 1 (the density along a flow); Song et al.,
arXiv:2011.13456, eq. 39; Lawson 1967, doi:10.1137/0704033 (integrating factors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import ShapeError
from sdekit.model import Moments, Predictor
from sdekit.model.parametrization import Score
from sdekit.model.prediction import RawCall, bind
from sdekit.sampling.base import CountedModel

__all__ = ["Flow", "Frame", "Level"]

_TURNED = 64  # dimensions up to which the frame turns to the data's axes, by products of matrices


@dataclass(frozen=True, eq=False)
class Frame:
    """The mean m, the variances c and their axes Q (None: the coordinate axes) of eq. (2)."""

    mean: Tensor
    variances: Tensor
    axes: Tensor | None

    @classmethod
    def of(cls, moments: Moments | None, dim: int, device: torch.device) -> Frame:
        """The frame of these moments, or of m = 0 and c = 1."""
        if moments is None:
            one = torch.ones(dim, dtype=torch.float64, device=device)
            return cls(torch.zeros_like(one), one, None)
        if moments.vectors is None:
            variances, axes = moments.values.expand(dim), None
        elif dim <= _TURNED:
            variances, axes = torch.linalg.eigh(moments.cov)
        else:  # the variances of the coordinates
            of_axes = moments.vectors.square() @ (moments.values - moments.rest)
            variances, axes = of_axes + moments.rest, None
        return cls(
            moments.mean.to(device),
            variances.clamp_min(0).to(device),
            None if axes is None else axes.to(device),
        )


class Level(NamedTuple):
    """What eqs. (2) to (4) need at one place of the path: float64 tensors on the device, floats.

    Attributes:
        t: the time.
        centre: alpha m [(d,)].
        std: v^{1/2} [(d,)].
        precision: 1/v [(d,)].
        total: the sum of 1/v.
        rate: r.
        score: the weights of x and of the model's raw output in the score.
    """

    t: float
    centre: Tensor
    std: Tensor
    precision: Tensor
    total: float
    rate: float
    score: tuple[float, float]


# x [(batch, *dims)] and a float time -> the raw output and its divergence [(batch,)]
TraceCall = Callable[[Tensor, float], tuple[Tensor, Tensor]]


class Flow:
    """The flow of a model for batches like x, between the ends of its process.

    Args:
        model: the predictor.
        x: samples or latents [(batch, *dims)].
        cond: what the model is called with besides.
        max_nfe: calls after which a solve fails; None: no limit.

    Raises:
        ShapeError: x has not the shape of the data that the model knows.
    """

    def __init__(
        self, model: Predictor, x: Tensor, *, cond: Mapping[str, Any], max_nfe: int | None
    ) -> None:
        self.model = model
        self.counted = CountedModel(model, cond=cond, max_nfe=max_nfe)
        self.sde = self.counted.sde
        self.shape = tuple(x.shape)
        self.dim = math.prod(x.shape[1:])
        target = getattr(model, "target", None)
        moments = getattr(model, "moments", None)
        known = getattr(target, "shape", None) or getattr(moments, "shape", None)
        if known is not None and tuple(known) != self.shape[1:]:
            raise ShapeError(f"x must have shape (batch, {', '.join(map(str, known))}), "
                             f"got {self.shape}")  # fmt: skip
        self.frame = Frame.of(moments, self.dim, x.device)
        self._like = x.new_empty(x.shape, dtype=torch.float64)
        self.raw: RawCall = _unbound
        self.trace: TraceCall | None = None  # where the model knows its divergence
        # on a chain the flow ends at its first node: a model is not defined at the data
        first = self.sde.to_model_time(torch.tensor(self.sde.t_min, dtype=torch.float64))
        self.t_min, self.t_max = float(first), self.sde.t_max
        self.unit = float(self.frame.variances.mean()) ** 0.5 or 1.0  # k; 1 for a point
        ends = torch.tensor([self.t_min, self.t_max], dtype=torch.float64)
        self.start, self.end = self.places(ends)

    @property
    def nfe(self) -> int:
        """The model calls made so far."""
        return self.counted.nfe

    def time(self, u: float) -> float:
        """The time of a place, eq. (5)."""
        return float(self._times(torch.tensor([u], dtype=torch.float64)))

    def places(self, t: Tensor) -> list[float]:
        """The places u of times [(K,)], eq. (5)."""
        return torch.atan((-0.5 * self.sde.log_snr(t)).exp() / self.unit).tolist()

    def _times(self, u: Tensor) -> Tensor:
        low, high = self.sde.log_snr_range
        log_snr = -2 * (self.unit * torch.tan(u.clamp(self.start, self.end))).log()
        return self.sde.t_from_log_snr(log_snr.clamp(low, high)).clamp(self.t_min, self.t_max)

    def levels(self, places: Sequence[float], *, trace: bool = False) -> list[Level]:
        """The levels at these places u; the model is made ready for calls there.

        With `trace` it is made ready for divergences too, where it knows them.
        """
        u = torch.tensor(places, dtype=torch.float64)
        t = self._times(u)
        t.checked_until = self.sde.t_max  # type: ignore[attr-defined]  # by `_times`
        times, cond = t.tolist(), self.counted.cond
        self.raw = bind(self.model, self._like, times, cond)
        if trace and hasattr(self.model, "bind_trace"):
            self.trace = self.model.bind_trace(self._like, times, cond)
        alpha, var = self.sde.alpha(t), self.sde.var(t)
        v = self._variances(alpha, var)
        precisions = 1 / v
        rates = -(self.unit * alpha).square() * torch.tan(u) / torch.cos(u).square()
        on_x: Sequence[float] = [0.0] * len(places)
        on_raw: Sequence[float] = [1.0] * len(places)
        if self.counted.parametrization != Score():  # else the output is the score itself
            weights = self.counted.parametrization.weights(self.sde, t, score=1.0)
            on_x, on_raw = (weight.tolist() for weight in weights)
        columns = zip(
            times,
            (alpha.to(v.device)[:, None] * self.frame.mean).unbind(),
            v.sqrt().unbind(),
            precisions.unbind(),
            precisions.sum(1).tolist(),
            rates.tolist(),
            zip(on_x, on_raw, strict=True),
            strict=True,
        )
        return [Level(*row) for row in columns]

    def _variances(self, alpha: Tensor, var: Tensor) -> Tensor:
        """The variances v [(K, d)] of eq. (2)."""
        device = self._like.device
        return alpha.to(device)[:, None].square() * self.frame.variances + var.to(device)[:, None]

    # the frame ----------------------------------------------------------------------------------

    def placed(self, z: Tensor, at: Level) -> Tensor:
        """x [(batch, *dims)] of coordinates z [(batch, d)], eq. (2)."""
        y = z * at.std
        axes = self.frame.axes
        x = y + at.centre if axes is None else torch.addmm(at.centre, y, axes.T)
        return x.reshape(self.shape)

    def coordinates(self, x: Tensor, at: Level) -> Tensor:
        """z [(batch, d)] of x [(batch, *dims)], the inverse of eq. (2)."""
        y = x.detach().to(torch.float64).reshape(len(x), self.dim) - at.centre
        return (y if self.frame.axes is None else y @ self.frame.axes) / at.std

    def log_volume(self) -> float:
        """1/2 sum log(v_b / v_a) from one end to the other, of eq. (4)."""
        t = torch.tensor([self.t_min, self.t_max], dtype=torch.float64)
        low, high = self._variances(self.sde.alpha(t), self.sde.var(t)).log().sum(1).tolist()
        return 0.5 * (high - low)

    # the right-hand sides -----------------------------------------------------------------------

    def slope(self, z: Tensor, at: Level) -> Tensor:
        """dz/du [(batch, d)], eq. (3)."""
        x = self.placed(z, at)
        return self.slope_of(z, x, self.counted.ask(self.raw, x, at.t), at)

    def slope_of(self, z: Tensor, x: Tensor, raw: Tensor, at: Level) -> Tensor:
        """dz/du [(batch, d)], eq. (3), where the model's raw output at x is known."""
        score = self.score_of(x, raw, at).reshape(len(z), self.dim)
        along = score if self.frame.axes is None else score @ self.frame.axes
        return (along / at.std).addcmul_(z, at.precision).mul_(at.rate)

    def score_of(self, x: Tensor, raw: Tensor, at: Level) -> Tensor:
        """The score [(batch, *dims)] from the model's raw output."""
        on_x, on_raw = at.score
        score = raw.to(torch.float64) * on_raw
        return score.add_(x, alpha=on_x) if on_x else score


def _unbound(x: Tensor, t: float) -> Tensor:
    raise AssertionError("levels come first")
