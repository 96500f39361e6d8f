r"""The discrete DDPM chain as a linear SDE with piecewise-constant beta.

A chain of N steps x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) eps, i = 1 .. N, has nodes t_i =
i/N and, with alpha_bar_i = product of (1 - beta_j) for j <= i,

    log_alpha(t_i) = 1/2 log alpha_bar_i = 1/2 sum_{j <= i} log1p(-beta_j), linear between.     (1)

On the nodes the kernels of this SDE are the chain's own: alpha^2 = alpha_bar, var = 1 - alpha_bar,
and the posterior x_s | x_t, x_0 of neighbours is DDPM's

    mean  sqrt(alpha_bar_{i-1}) beta_i / (1 - alpha_bar_i) x_0
          + sqrt(1 - beta_i) (1 - alpha_bar_{i-1}) / (1 - alpha_bar_i) x_i,
    var   beta_i (1 - alpha_bar_{i-1}) / (1 - alpha_bar_i).                                     (2)

t = 0 is the data itself: no model is called there. f and g at a node are those of the interval
that a step back from it crosses. Only `DDPM.time` and `DDPM.index` speak of indices.

References: Ho et al., arXiv:2006.11239, eqs. 4, 6, 7; Nichol and Dhariwal, arXiv:2102.09672, eq.
17; Rombach et al., arXiv:2112.10752 (scaled linear); Song et al., arXiv:2011.13456, appendix B.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import MOST_STEPS, choice, integer, nearest, number, shown
from sdekit._times import Time, as_time, entries
from sdekit.errors import ConfigError, DtypeError, ShapeError, TimeError
from sdekit.sde.vp import VPSDE, VariancePreserving

__all__ = ["DDPM", "PosteriorMean"]


class PosteriorMean(NamedTuple):
    """The weights of x_0 and of x_t in eq. (2), each [(N,)]."""

    x_0: Tensor
    x_t: Tensor


def linear(n: int, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Equally spaced betas [(n,)], arXiv:2006.11239, section 4."""
    return torch.linspace(beta_start, beta_end, n, dtype=torch.float64)


def scaled_linear(n: int, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Betas [(n,)] whose square roots are equally spaced, arXiv:2112.10752."""
    for name, value in (("beta_start", beta_start), ("beta_end", beta_end)):
        number(name, value, ge=0)
    ends = math.sqrt(beta_start), math.sqrt(beta_end)
    return torch.linspace(*ends, n, dtype=torch.float64).square()


def cosine(n: int, *, shift: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Betas [(n,)] of alpha_bar = cos^2(pi/2 (t + shift)/(1 + shift)), arXiv:2102.09672."""
    shift = number("shift", shift, ge=0, lt=1)
    max_beta = number("max_beta", max_beta, gt=0, lt=1)
    t = torch.arange(n + 1, dtype=torch.float64) / n
    bar = torch.cos((t + shift) / (1 + shift) * (0.5 * math.pi)).square()
    return (1 - bar[1:] / bar[:-1]).clamp_max(max_beta)


def sigmoid(n: int, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Betas [(n,)] that rise like a logistic function on [-6, 6], arXiv:2203.02923."""
    rise = torch.sigmoid(torch.linspace(-6, 6, n, dtype=torch.float64))
    return beta_start + (beta_end - beta_start) * rise


SCHEDULES: Mapping[str, Callable[..., Tensor]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
}


@register("sde", "ddpm", paper="arXiv:2006.11239, eq. 2")
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DDPM(VariancePreserving):
    """A DDPM chain of N betas as an exact linear SDE, eq. (1).

    By name: `ddpm(n=1000, schedule="linear", beta_start=1e-4, beta_end=0.02)`, with schedule one
    of linear, scaled_linear, cosine (shift, max_beta) and sigmoid.

    Args:
        betas: the table beta_1 .. beta_N [(N,)], each in (0, 1).
        t_min: the node where sampling ends, 0 by default: the chain's own end.
        t_max: the node where sampling begins, 1 by default.

    Raises:
        ConfigError: an empty table, a beta outside (0, 1) (the first bad index is named), or t_min
            or t_max that is no node.
        DtypeError: betas that are not real numbers.
        ShapeError: betas that are not one-dimensional.

    Reference: arXiv:2006.11239, eqs. 2 to 7.

    Example:
        >>> chain = DDPM.linear(100)
        >>> chain
        ddpm(n=100, schedule='linear', beta_start=0.0001, beta_end=0.02)
        >>> round(float(chain.alphas_bar[-1]), 2)  # where a well-known tutorial's chain ends
        0.36
        >>> chain.index(chain.time(37))
        37
    """

    betas: Tensor = field(kw_only=False)
    t_min: float = 0.0
    t_max: float = 1.0
    kinds: ClassVar[frozenset[str]] = frozenset({"linear", "vp", "ddpm"})
    closed_start: ClassVar[bool] = True
    _log_alphas: Tensor = field(init=False)
    _fields: dict[str, Any] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Check the fields and sum the table."""
        super().__post_init__()
        betas = self.betas
        if not isinstance(betas, Tensor | np.ndarray | list | tuple):
            raise DtypeError(f"betas must be a 1-d tensor of real numbers, got {shown(betas)}")
        try:
            # by way of NumPy a list keeps its floats' 53 bits
            table = betas if isinstance(betas, Tensor) else torch.as_tensor(np.array(betas))
        except (TypeError, ValueError, RuntimeError):
            raise DtypeError(f"betas must hold real numbers, got {shown(betas)}") from None
        if table.dtype.is_complex or table.dtype == torch.bool:
            raise DtypeError(f"betas must hold real numbers, got {table.dtype}")
        table = table.detach().to("cpu", torch.float64, copy=True)
        if table.ndim != 1:
            raise ShapeError(f"betas must have shape (N,), got {tuple(table.shape)}")
        if len(table) == 0:
            raise ConfigError("betas must hold at least one value, got an empty table")
        wrong = ~((table > 0) & (table < 1))  # NaN is neither
        if wrong.any():
            first = int(wrong.nonzero()[0])
            raise ConfigError(
                f"betas must lie in (0, 1) so that the SNR falls at every step, got "
                f"betas[{first}] = {table[first].item():g} (beta_{first + 1} of {len(table)})"
            )
        sums = 0.5 * torch.log1p(-table).cumsum(0)
        self._set(betas=table, _log_alphas=torch.cat([torch.zeros(1, dtype=torch.float64), sums]))
        for name in ("t_min", "t_max"):
            t = getattr(self, name) * self.n
            if abs(t - round(t)) > 1e-6:
                raise ConfigError(f"{name} must be a node i/{self.n}, got {getattr(self, name):g}")

    # building -----------------------------------------------------------------------------------

    @classmethod
    def from_fields(cls, **fields: Any) -> DDPM:
        """The chain with these fields: n, schedule, the schedule's own, t_min, t_max.

        Raises:
            ConfigError: n < 1, an unknown schedule or a bad value.
            DtypeError: n is not an int.
            TypeError: a field that the schedule does not have.
        """
        n = integer("n", fields.pop("n", 1000), ge=1, le=MOST_STEPS, error=ConfigError)
        schedule = choice("schedule", fields.pop("schedule", "linear"), SCHEDULES)
        ends: dict[str, Any] = {
            name: fields.pop(name) for name in ("t_min", "t_max") if name in fields
        }
        parameters = inspect.signature(SCHEDULES[schedule]).parameters
        options = {p.name: p.default for p in parameters.values() if p.kind is p.KEYWORD_ONLY}
        for name, value in fields.items():
            if name not in options:
                raise TypeError(
                    f"ddpm({schedule=}) has no field {name!r}; "
                    f"{nearest(name, ['n', 'schedule', 't_min', 't_max', *options])}"
                )
            options[name] = number(name, value)
        chain = cls(SCHEDULES[schedule](n, **options), **ends)
        spelled: dict[str, Any] = {"n": n, "schedule": schedule, **options, **ends}
        chain._set(_fields=spelled)
        return chain

    @classmethod
    def linear(cls, n: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> DDPM:
        """Equally spaced betas, arXiv:2006.11239, section 4."""
        return cls.from_fields(n=n, schedule="linear", beta_start=beta_start, beta_end=beta_end)

    @classmethod
    def scaled_linear(
        cls, n: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> DDPM:
        """Betas with equally spaced square roots, arXiv:2112.10752."""
        return cls.from_fields(
            n=n, schedule="scaled_linear", beta_start=beta_start, beta_end=beta_end
        )

    @classmethod
    def cosine(cls, n: int = 1000, *, shift: float = 0.008, max_beta: float = 0.999) -> DDPM:
        """The cosine table, arXiv:2102.09672, eq. 17."""
        return cls.from_fields(n=n, schedule="cosine", shift=shift, max_beta=max_beta)

    @classmethod
    def sigmoid(cls, n: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> DDPM:
        """Betas that rise like a logistic function, arXiv:2203.02923."""
        return cls.from_fields(n=n, schedule="sigmoid", beta_start=beta_start, beta_end=beta_end)

    def respaced(self, indices: Sequence[int]) -> DDPM:
        """The shorter chain whose alpha_bar are exactly this one's at `indices` (1 .. N, rising).

        1 - beta_k = alpha_bar_{i_k} / alpha_bar_{i_{k-1}}; arXiv:2102.09672, section 4.

        Raises:
            TimeError: an index outside 1 .. N, or not rising.
            DtypeError: an index that is no int.
        """
        kept = [integer("indices", i) for i in indices]
        if not kept or kept[0] < 1 or kept[-1] > self.n or any(np.diff(kept) <= 0):
            raise TimeError(f"indices must rise inside 1 .. {self.n}, got {shown(kept)}")
        log_alphas = self._log_alphas[[0, *kept]]
        chain = type(self)(-torch.expm1(2 * log_alphas.diff()))
        chain._set(_log_alphas=log_alphas)  # exactly, not through 1 - beta
        return chain

    # the table ----------------------------------------------------------------------------------

    @property
    def n(self) -> int:
        """The number of steps N."""
        return len(self.betas)

    @property
    def alphas(self) -> Tensor:
        """1 - betas [(N,)]."""
        return 1 - self.betas

    @property
    def alphas_bar(self) -> Tensor:
        """The products of alphas [(N,)], as exp of a sum of log1p."""
        return (2 * self._log_alphas[1:]).exp()

    @property
    def posterior_mean_coefficients(self) -> PosteriorMean:
        """The weights of x_0 and x_t in eq. (2), each [(N,)]; arXiv:2006.11239, eq. 7."""
        rest, rest_before = (
            -torch.expm1(2 * self._log_alphas[1:]),
            -torch.expm1(2 * self._log_alphas[:-1]),
        )
        return PosteriorMean(
            self._log_alphas[:-1].exp() * self.betas / rest,
            self.alphas.sqrt() * rest_before / rest,
        )

    @property
    def posterior_variance(self) -> Tensor:
        """The variance in eq. (2) [(N,)], 0 at the first step; arXiv:2006.11239, eq. 7."""
        return (
            self.betas
            * torch.expm1(2 * self._log_alphas[:-1])
            / torch.expm1(2 * self._log_alphas[1:])
        )

    @property
    def default_steps(self) -> int:
        """Every step of the chain between t_min and t_max."""
        return round((self.t_max - self.t_min) * self.n)

    def to_vpsde(self) -> VPSDE:
        """The continuous VP SDE of a linear table: the inverse of `VPSDE.discretize`.

        Raises:
            ConfigError: the table is not linear.
        """
        straight = torch.linspace(
            float(self.betas[0]), float(self.betas[-1]), self.n, dtype=torch.float64
        )
        gap = float((self.betas - straight).abs().max())
        if gap > 1e-9 * float(self.betas.max()):
            raise ConfigError(
                f"to_vpsde needs linear betas; these leave the straight line by {gap:.3g}"
            )
        return VPSDE(
            beta_min=float(self.betas[0]) * self.n, beta_max=float(self.betas[-1]) * self.n
        )

    # indices ------------------------------------------------------------------------------------

    def time(self, i: int | Tensor) -> Any:
        """The time of node i: i/N, a float for an int, a float64 tensor for an integer tensor.

        Raises:
            DtypeError: i is not an integer.
            TimeError: i is outside 0 .. N.
        """
        if isinstance(i, Tensor):
            if i.dtype == torch.bool or i.dtype.is_floating_point or i.dtype.is_complex:
                raise DtypeError(f"i must be an integer tensor, got {i.dtype}")
            low, high = (int(i.min()), int(i.max())) if i.numel() else (0, 0)
        else:
            low = high = i = integer("i", i)
        if low < 0 or high > self.n:
            raise TimeError(f"i must lie in 0 .. {self.n}, got {low if low < 0 else high}")
        return i.to(torch.float64) / self.n if isinstance(i, Tensor) else i / self.n

    def index(self, t: Time) -> Any:
        """The index round(t N) of a time: an int for a number, an int64 tensor for a tensor.

        Raises:
            TimeError: t is outside [0, t_max] or NaN.
        """
        wide, _ = as_time(t, self.t_max)
        nodes = (wide * self.n).round().to(torch.int64)
        return nodes if isinstance(t, Tensor) else int(nodes)

    def _interval(self, t: Tensor) -> Tensor:
        """The number, from 0, of the interval that ends at or holds t; nodes by rounding.

        A node that came through float32 is still that node; any other time beside it is not.
        """
        t = t.detach()
        position = t * self.n
        node = position.round()
        slack = torch.where(t.to(torch.float32) == t, 5e-7, 1e-15)
        near = (position - node).abs() < slack * self.n
        return (torch.where(near, node, position).ceil() - 1).clamp(0, self.n - 1).to(torch.int64)

    # the SDE ------------------------------------------------------------------------------------

    def log_alpha(self, t: Time) -> Tensor:
        """Eq. (1) [shape of t]."""
        i = self._interval(t)
        ends = entries(self._log_alphas, i), entries(self._log_alphas, i + 1)
        return torch.lerp(*ends, t * self.n - i)

    def f(self, t: Time) -> Tensor:
        """N/2 log(1 - beta_i) on the interval before t [shape of t]."""
        return 0.5 * self.n * entries(torch.log1p(-self.betas), self._interval(t))

    def g2(self, t: Time) -> Tensor:
        """-2 f [shape of t]: variance preserving."""
        return -2 * self.f(t)

    def t_from_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The inverse of eq. (1): the table is strictly decreasing and linear between nodes."""
        rising = -self._log_alphas.to(log_alpha.device)
        wanted = -log_alpha
        i = (torch.searchsorted(rising, wanted.contiguous()) - 1).clamp(0, self.n - 1)
        start = entries(rising, i)
        return (i + (wanted - start) / (entries(rising, i + 1) - start)) / self.n

    def to_model_time(self, t: Tensor) -> Tensor:
        """The node at or above t, at least t_1: where a chain's model is defined [shape of t]."""
        node = (
            self._interval(t.to(torch.float64)) + 1
        )  # not ceil(t n), which overshoots some nodes
        return (node.clamp(1, self.index(self.t_max)).to(torch.float64) / self.n).to(t.dtype)

    def align(self, grid: Tensor, *, keep: bool) -> Tensor:
        """The grid rounded to nodes [(steps + 1,)].

        With `keep` a time that falls on a taken node moves to the nearest free one, so that a
        named grid keeps its number of steps.

        Raises:
            ConfigError: more steps than nodes.
            TimeError: without `keep`, two times that fall on one node; both are named.
        """
        wanted = self.index(grid).tolist()
        low, high = self.index(self.t_min), self.index(self.t_max)
        if len(wanted) - 1 > high - low:
            raise ConfigError(
                f"steps must be <= {high - low}, the steps of this chain, got {len(wanted) - 1}"
            )
        if not keep:
            for k in range(1, len(wanted)):
                if wanted[k] == wanted[k - 1]:
                    raise TimeError(
                        f"grid[{k - 1}] = {grid[k - 1]:.6g} and grid[{k}] = {grid[k]:.6g} fall on "
                        f"the same node {wanted[k]}/{self.n} of this chain"
                    )
            return torch.tensor(wanted, dtype=torch.float64) / self.n
        free = set(range(low, high + 1)) - {wanted[0], wanted[-1]}
        taken = [wanted[0], wanted[-1]]
        for node in wanted[1:-1]:
            reach = next(d for d in range(high - low + 1) if {node - d, node + d} & free)
            chosen = node + reach if node + reach in free else node - reach
            free.discard(chosen)
            taken.append(chosen)
        return torch.tensor(sorted(taken, reverse=True), dtype=torch.float64) / self.n

    # identity -----------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """The same table and the same ends."""
        if not isinstance(other, DDPM):
            return NotImplemented
        ends = (self.t_min, self.t_max) == (other.t_min, other.t_max)
        return ends and torch.equal(self.betas, other.betas)

    def __hash__(self) -> int:
        """Of the table's length, ends and sum: equal tables agree."""
        return hash((self.n, self.t_min, self.t_max, float(self._log_alphas[-1])))

    def __repr__(self) -> str:
        """The spelling by name where the table came from one."""
        if self._fields is None:
            return f"DDPM(<{self.n} betas>)"
        return f"ddpm({', '.join(f'{name}={value!r}' for name, value in self._fields.items())})"

    @classmethod
    def examples(cls) -> list[DDPM]:
        """The paper's chain, a short one, one step, and the other schedules."""
        return [
            cls.linear(1000),
            cls.linear(20, beta_start=0.005, beta_end=0.5),
            cls(torch.tensor([0.5])),
            cls.scaled_linear(50, beta_end=0.2),
            cls.cosine(40),
            cls.sigmoid(30, beta_end=0.3),
        ]
