r"""The reverse SDE with steps that each sample chooses for itself, on a Brownian path that stays.

From t to s = t - h, with the drift a(x, t) = g(t)^2 score(x, t) - f(t) x of the reverse SDE and an
increment w of its Brownian motion, a pair of estimates

    x'  = x + h a(x, t) + g(t) w                                   (Euler-Maruyama)             (1)
    x'' = (x' + x + h a(x', s) + g(s) w) / 2                       (stochastic improved Euler)  (2)

gives the error of a step, relative to a tolerance of every coordinate, and the next step:

    E = |(x' - x'') / max(atol, rtol max(|x'|, |x'_before|))|,
    h <- min(what is left, theta h E^-r).                                                       (3)

The step is taken where E <= 1; otherwise it is tried again, shorter.

A rejected step has seen w, and its rejection has chosen among paths. To draw anew would leave the
paths on which long steps do well: a bias that no tolerance takes away. So w stays. Ahead of its
time a sample keeps what it knows of its path, pieces (length, increment); a step that ends inside
a piece of length l and increment w splits it at a by the Brownian bridge,

    w_a ~ N(a/l w, a (l - a) / l I),                                                            (4)

and one that ends beyond them draws what is missing. One normal a sample and try is enough for it.

References: Jolicoeur-Martineau et al., arXiv:2105.14080, algorithm 1; Rackauckas and Nie, Discrete
Contin. Dyn. Syst. B 22 (2017), doi:10.3934/dcdsb.2017133 (rejection sampling with memory).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, flag, integer, number
from sdekit._times import expand_like
from sdekit.errors import SolverError
from sdekit.sampling.base import CountedModel, Sampler, count_rejected
from sdekit.sampling.noise import Noise
from sdekit.sde.base import LinearSDE
from sdekit.targets._batchwise import tree_sum

__all__ = ["AdaptiveSDE", "PathAhead"]

_LEAST = 2.0**-50  # of the first time: a shorter step is lost in the rounding of times
NORMS = ("l2", "linf")

_Rates = tuple[Tensor, Tensor]  # f and g^2 at each sample's time [(batch,), (batch,)]


class PathAhead:
    """What is known of the Brownian paths of a batch ahead of each sample's own time, eq. (4).

    Args:
        x: what an increment looks like [(batch, *dims)].

    Example:
        >>> import torch
        >>> path, h = PathAhead(torch.zeros(1, 1)), torch.ones(1, dtype=torch.float64)
        >>> whole = path.look(h, torch.full((1, 1), 2.0))  # a step of length 1 ...
        >>> path.settle(torch.tensor([False]))  # ... is rejected
        >>> half = path.look(h / 2, torch.zeros(1, 1))  # a shorter one sees its part
        >>> path.settle(torch.tensor([True]))
        >>> rest = path.look(h / 2, torch.ones(1, 1))  # and the next one the rest
        >>> float(whole), float(half + rest)
        (2.0, 2.0)
    """

    def __init__(self, x: Tensor) -> None:
        self._like = x
        # nearest first, each (length [(batch,)] float64, increment [(batch, *dims)]); a sample
        # that knows fewer pieces than another one has some of length 0
        self._pieces: list[tuple[Tensor, Tensor]] = []
        self._parts: list[tuple[Tensor, Tensor]] = []

    def look(self, h: Tensor, z: Tensor) -> Tensor:
        """The increments over the next h [(batch,)], with fresh normals z [(batch, *dims)]."""
        left, total = h, torch.zeros_like(self._like)
        self._parts = []
        for length, increment in self._pieces:
            a = torch.minimum(left, length)
            left = left - a
            inside = (a > 0) & (a < length)
            whole = torch.where(length > 0, length, 1.0)  # an empty piece has nothing to share
            mean = self._scaled(increment, torch.where(inside, a / whole, (a > 0).double()))
            spread = torch.where(inside, a * (length - a) / whole, 0.0).sqrt()
            part = mean + self._scaled(z, spread)
            self._parts += [(a, part), (length - a, increment - part)]
            total = total + part  # one by one: a sum over all may depend on their number
        beyond = self._scaled(z, left.sqrt())
        self._parts.append((left, beyond))
        return total + beyond

    def settle(self, taken: Tensor) -> None:
        """End a look: where the step was taken [(batch,)], the path ahead begins after it."""
        kept = []
        for k, (length, increment) in enumerate(self._parts):
            seen = k % 2 == 0  # the parts inside the step alternate with those after it
            kept.append((torch.where(taken, 0.0, length) if seen else length, increment))
        lengths = torch.stack([length for length, _ in kept], dim=1)
        order = (lengths == 0).to(torch.uint8).argsort(dim=1, stable=True)
        rows = torch.arange(len(order), device=order.device)
        count = int((lengths > 0).sum(1).max()) if len(order) else 0
        increments = torch.stack([increment for _, increment in kept], dim=1)
        self._pieces = [
            (lengths[rows, order[:, k]], increments[rows, order[:, k]]) for k in range(count)
        ]
        self._parts = []

    def _scaled(self, x: Tensor, by: Tensor) -> Tensor:
        return x * expand_like(by, x)


@register("sampler", "adaptive_sde", paper="arXiv:2105.14080, algorithm 1")
@dataclass(frozen=True, kw_only=True)
class AdaptiveSDE(Sampler):
    """The reverse SDE with an error control for every sample, eqs. (1) to (4).

    All samples try their steps together, each at its own time; those that have arrived, or that
    need no new drift after a rejection, are left out of the model's batch. Only the ends of the
    grid are used; on a DDPM a run ends at node 1. A run with conditions calls the model on the
    whole batch.

    Args:
        rtol: relative tolerance, > 0; the paper's range is 0.01 to 0.1.
        atol: absolute tolerance, > 0; the paper's, 1/256 of the range of data in [-1, 1].
        h_init: the first step, > 0, in units of t.
        safety: theta in eq. (3), in (0, 1].
        exponent: r in eq. (3), > 0; the paper's range is [0.5, 1].
        growth: the most that a step grows by, > 1. The paper has no such bound; without one, E
            that is small by chance makes a step so long that it is unstable, and accepted.
        norm: of eq. (3) over the coordinates of a sample: "l2", the root of the mean square, or
            "linf", the largest.
        extrapolate: go on from x'', eq. (2), else from x', eq. (1).
        max_nfe: calls after which a solve fails.

    Raises:
        ConfigError: a field out of range.
        SolverError: max_nfe is used up, steps fall below rounding, or a state or the model is not
            finite; the time is named.

    Reference: arXiv:2105.14080, algorithm 1 and section 3; doi:10.3934/dcdsb.2017133.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 1.0), VPSDE())
        >>> loose, tight = (
        ...     sample(model, (4, 2), sampler=f"adaptive_sde(rtol={rtol}, atol=1e-3)", seed=0)
        ...     for rtol in (0.1, 0.01)
        ... )
        >>> loose.nfe < tight.nfe
        True
    """

    rtol: float = 0.05
    atol: float = 2 / 256
    h_init: float = 0.01
    safety: float = 0.9
    exponent: float = 0.9
    growth: float = 2.0
    norm: str = "l2"
    extrapolate: bool = True
    max_nfe: int = 10_000
    quiet_fields: ClassVar[tuple[str, ...]] = (
        "h_init", "safety", "exponent", "growth", "norm", "extrapolate", "max_nfe",
    )  # fmt: skip

    needs = frozenset({"linear", "noise", "adaptive"})

    def __post_init__(self) -> None:
        """Check the fields."""
        for name in ("rtol", "atol", "h_init", "exponent"):
            self._set(**{name: number(name, getattr(self, name), gt=0)})
        self._set(growth=number("growth", self.growth, gt=1))
        self._set(safety=number("safety", self.safety, gt=0, le=1))
        choice("norm", self.norm, NORMS)
        flag("extrapolate", self.extrapolate)
        self._set(max_nfe=integer("max_nfe", self.max_nfe, ge=1))

    @property
    def order(self) -> int:
        """The weak order of the estimate that a step goes on from, at steps of equal length."""
        return 2 if self.extrapolate else 1

    def times(self, sde: LinearSDE, grid: Tensor) -> tuple[Tensor, Tensor]:
        """One row from end to end (on a DDPM, to a node above 0)."""
        return grid[:1], sde.to_model_time(grid[-1:])

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """None: every sample has its own times."""
        return {}

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """The whole solve, from c.t to c.s."""
        if c.s >= c.t or not len(x):  # a chain of one step ends where it starts
            return x.clone(), state
        return _Solve(self, model, x, c.t, c.s).run(noise).to(x.dtype), state

    def path(self, x: Tensor) -> PathAhead:
        """The Brownian paths that a run with samples like x follows."""
        return PathAhead(x)

    def error(self, low: Tensor, high: Tensor, before: Tensor) -> Tensor:
        """E of eq. (3) [(batch,)], float64, of x', x'' and the last x' [(batch, *dims)]."""
        allowed = (self.rtol * torch.maximum(low.abs(), before.abs())).clamp_min(self.atol)
        off = ((low - high) / allowed).to(torch.float64).reshape(len(low), -1).abs()
        if self.norm == "linf":
            return off.amax(1)
        return (tree_sum(off.square(), 1) / off.shape[1]).sqrt()

    @classmethod
    def examples(cls) -> list[AdaptiveSDE]:
        """The default, and the other options."""
        return [cls(), cls(rtol=0.2, atol=0.1, norm="linf", extrapolate=False)]


class _Solve:
    """A run of one batch: each sample's state, time, next step, drift and last x'."""

    def __init__(
        self, how: AdaptiveSDE, model: CountedModel, x: Tensor, start: float, end: float
    ) -> None:
        self.how = how
        self.model = model
        self.sde = model.sde
        self.called = model.nfe
        self.start, self.end = start, end
        self.x = self.before = x
        self.t = torch.full((len(x),), start, dtype=torch.float64, device=x.device)
        self.h = torch.full_like(self.t, how.h_init).clamp_max(start - end)
        self.slope = torch.zeros_like(x)
        self.levels = self._levels(self.t)

    def run(self, noise: Noise) -> Tensor:
        """Steps until all have arrived."""
        path = self.how.path(self.x)
        new = torch.ones_like(self.t, dtype=torch.bool)  # whose drift is not known yet
        live = new
        while bool(live.any()):
            found = self._drift(self.x, self.t, self.levels, new)
            self.slope = self._where(new, found, self.slope)
            left = self.t - self.end
            lands = self.h >= left
            # an arrived sample tries steps of length 0
            h = torch.where(live, torch.where(lands, left, self.h), 0.0)
            s = torch.where(lands, self.end, self.t - h)
            w = path.look(h, noise(self.x))
            levels = self._levels(s)
            g_t, g_s = (expand_like(g2.sqrt(), w) for _, g2 in (self.levels, levels))
            length = expand_like(h, w)
            low = self.x + length * self.slope + g_t * w  # eq. (1)
            self._check(low, "the state")
            high = self.x + length * self._drift(low, s, levels, live) + g_s * w
            high = (low + high) / 2  # eq. (2)
            error = self.how.error(low, high, self.before)
            self._check(error, "the error")
            new = live & (error <= 1)
            count_rejected(self.model, live & ~new)
            path.settle(new)
            self.x = self._where(new, high if self.how.extrapolate else low, self.x)
            self.before = self._where(new, low, self.before)
            self.t = torch.where(new, s, self.t)
            f, g2 = (torch.where(new, *both) for both in zip(levels, self.levels, strict=True))
            self.levels = f, g2
            live = self.t > self.end
            # not by pow, which rounds by the place in the batch
            factor = self.how.safety * (-self.how.exponent * error.log()).exp()
            self.h = torch.where(live, factor.clamp_max(self.how.growth) * h, 0.0)  # eq. (3)
            self._check_steps(live)
            new = new & live
        return self.x

    def _where(self, chosen: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(chosen.reshape(-1, *(1,) * (x.ndim - 1)), x, y)

    def _levels(self, t: Tensor) -> _Rates:
        return self.sde.f(t), self.sde.g2(t).clamp_min(0)

    def _drift(self, x: Tensor, t: Tensor, levels: _Rates, rows: Tensor) -> Tensor:
        """g^2 score - f x of these rows [(batch, *dims)], any finite value in the others."""
        if not bool(rows.any()):
            return torch.zeros_like(x)
        if self.model.nfe - self.called >= self.how.max_nfe:
            raise SolverError(
                f"adaptive_sde used max_nfe={self.how.max_nfe} calls and is at t = "
                f"{float(self.t.max()):.6g} on the way from {self.start:g} to {self.end:g}; "
                "loosen rtol, atol or raise max_nfe"
            )
        # conditions belong to samples of the whole batch
        whole = bool(rows.all()) or bool(self.model.cond)
        needed = (x, t, *levels) if whole else [part[rows] for part in (x, t, *levels)]
        at, times, f, g2 = needed
        found = self.model.each(at, times).linear(x=-f, score=g2)
        self._check(found, "the drift")
        if whole:
            return found
        drift = torch.zeros_like(x)
        drift[rows] = found
        return drift

    def _check(self, value: Tensor, what: str) -> None:
        if not bool(torch.isfinite(value).all()):
            raise SolverError(
                f"adaptive_sde: {what} is not finite in call {self.model.nfe - self.called}, "
                f"with samples at t = {float(self.t.min()):.6g} to {float(self.t.max()):.6g}: the "
                "model or the state overflowed"
            )

    def _check_steps(self, live: Tensor) -> None:
        short = live & (self.h < _LEAST * self.start) & (self.h < self.t - self.end)
        if bool(short.any()):
            raise SolverError(
                f"adaptive_sde: the steps of {int(short.sum())} of {len(short)} samples fall "
                f"below rounding at t = {float(self.t[short].max()):.6g} after "
                f"{self.model.nfe - self.called} calls: the drift jumps there, or rtol and atol "
                "are too small"
            )
