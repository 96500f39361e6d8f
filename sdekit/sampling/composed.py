r"""Samplers around a sampler without memory: churn, ancestral noise, restarts.

Each takes the rows of a deterministic sampler between other times than the grid's, and adds noise
that leaves the marginals as they are. In y = x / alpha and r = sigma / alpha:

    churned     before a row from t:   y <- y + sqrt(r_h^2 - r_t^2) z,  r_h = (1 + gamma) r_t   (1)
    renoised    the row ends below s:  r_d^2 = r_s^2 (1 - eta^2 + eta^2 r_s^2 / r_t^2), then
                y <- y + sqrt(r_s^2 - r_d^2) z                                                (2)
    restart     at r_low, some times:  y <- y + sqrt(r_high^2 - r_low^2) z, and rows down again (3)

With the exact flow in place of the sampler each of them would have exact marginals. So the order
of (1) and (2) is the sampler's; the rows of a restart do not become more with the grid's, and what
they leave does not go to 0.

References: Karras et al., arXiv:2206.00364, algorithm 2 (1); Crowson's k-diffusion and Song et
al., arXiv:2010.02502, eq. 16 (2); Xu et al., arXiv:2306.14878, algorithm 1 (3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sdekit._cache import cached
from sdekit._catalogue import make_one, register
from sdekit._check import MOST_STEPS, integer, number
from sdekit.errors import ConfigError
from sdekit.sampling.base import CountedModel, Sampler, kick
from sdekit.sampling.churn import Churning, level_of
from sdekit.sampling.integrals import Levels
from sdekit.sampling.noise import Noise
from sdekit.sampling.plan import some_rows
from sdekit.sde.base import LinearSDE

__all__ = ["Churned", "Renoised", "Restart"]

_RHO = 7.0  # of the rows of a restart, as in the paper


def _made(sampler: object) -> Sampler:
    """The inner sampler, which must be deterministic and without memory."""
    inner: Sampler = make_one("sampler", sampler, Sampler, name="sampler")
    unfit = inner.needs & {"noise", "adaptive", "grad"}
    if unfit or inner.memory or inner.order is None:
        raise ConfigError(
            "sampler must be deterministic, on the grid and without memory (ddim, heun, "
            f"dpm_solver(multistep=False), midpoint, ...), got {inner!r}"
        )
    return inner


def _between(inner: Sampler, sde: LinearSDE, t: Tensor, s: Tensor) -> dict[str, Any]:
    """The inner sampler's rows from t to s, which need not follow one another."""
    columns = inner.coefficients(sde, torch.stack([t, s], dim=1).flatten())
    return {"t": t, "s": s, **some_rows(columns, slice(None, None, 2))}


class _Composed(Sampler):
    """The inner sampler, and what is the same for all three."""

    sampler: Any

    @property
    def order(self) -> int | None:
        """The inner sampler's."""
        return self.sampler.order

    @property
    def weak_order(self) -> int | None:
        """The inner sampler's."""
        return self.sampler.weak_order

    @property
    def nfe_per_step(self) -> int:
        """The inner sampler's."""
        return self.sampler.nfe_per_step

    @property
    def exact_on(self) -> frozenset[str]:
        """The inner sampler's data."""
        return self.sampler.exact_on

    @property
    def needs(self) -> frozenset[str]:
        """Noise, and what the inner sampler needs."""
        return self.sampler.needs | {"noise"}

    def _lifted(self, x: Tensor, c: Any, noise: Noise) -> Tensor:
        """Eqs. (1) and (3): c.lift x + c.fresh z."""
        moved = c.fresh or c.lift != 1
        return kick(torch.mul(x, c.lift), c.fresh, noise) if moved else x


@register("sampler", "churned", paper="arXiv:2206.00364, algorithm 2")
@dataclass(frozen=True, kw_only=True)
class Churned(Churning, _Composed):
    """EDM's churn before every row of any deterministic sampler, eq. (1).

    Args:
        sampler: deterministic and without memory: an object or a spelling.
        churn: S_churn, >= 0; gamma = min(churn / K, sqrt(2) - 1).
        churn_min: S_tmin, in units of sigma/alpha.
        churn_max: S_tmax, in units of sigma/alpha; None: no limit.
        noise_scale: S_noise.

    Raises:
        ConfigError: a negative value, a sampler with noise or memory; churn on a DDPM chain.
        TimeError: churn above t_max on a process that does not extend there.

    Reference: arXiv:2206.00364, algorithm 2 and eq. 8.

    Example:
        >>> import torch
        >>> from sdekit import EDM, ExactScore, Gaussian, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), EDM())
        >>> sample(model, (4, 2), sampler="churned(sampler='ddim', churn=10)", steps=9, seed=0).nfe
        9
    """

    sampler: Any = "ddim"  # a Sampler once made
    quiet_fields: ClassVar[tuple[str, ...]] = ("churn_min", "churn_max", "noise_scale")

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(sampler=_made(self.sampler))
        super().__post_init__()

    @property
    def weak_order(self) -> int | None:
        """The inner sampler's; None where noise_scale != 1 adds a variance that stays."""
        return None if self.churn and self.noise_scale != 1 else self.sampler.weak_order

    @property
    def exact_on(self) -> frozenset[str]:
        """The inner sampler's data, unless noise_scale adds a variance that stays."""
        return self.sampler.exact_on & super().exact_on

    @property
    def needs(self) -> frozenset[str]:
        """Noise, where there is churn."""
        return self.sampler.needs | ({"noise"} if self.churn else frozenset())

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Eq. (1), and the inner rows from the raised times."""
        t, s = self.times(sde, grid)
        high, lift, fresh = self.raised(sde, t)
        long = sde.reaching(float(high.max()))
        return {"lift": lift, "fresh": fresh, "inner": _between(self.sampler, long, high, s)}

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """Up, then the inner row."""
        return self.sampler.step(self._lifted(x, c, noise), c.inner, model, None, noise)

    @classmethod
    def examples(cls) -> list[Churned]:
        """Nothing but DDIM, and churn around a sampler of order 2."""
        two = "dpm_solver(order=2, multistep=False)"
        return [cls(), cls(sampler=two, churn=5.0, churn_max=5.0)]


@register("sampler", "renoised", paper="arXiv:2010.02502, eq. 16")
@dataclass(frozen=True, kw_only=True)
class Renoised(_Composed):
    """An ancestral step from any deterministic sampler: below s, and back with noise, eq. (2).

    Around DDIM it is DDIM(eta). Around the singlestep DPM-Solver and DPM-Solver++ of order 2 it is
    what is known as "DPM2 ancestral" and "DPM++ 2S ancestral".

    Args:
        sampler: deterministic and without memory: an object or a spelling.
        eta: in [0, 1]; 1 is ancestral.

    Raises:
        ConfigError: eta outside [0, 1], a sampler with noise or memory.

    Reference: arXiv:2010.02502, eq. 16 for the levels; Crowson, k-diffusion.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> inner = "dpmpp_2m(order=2, multistep=False)"
        >>> sample(model, (4, 2), sampler=Renoised(sampler=inner), steps=9, seed=0).nfe
        18
    """

    sampler: Any = "ddim"  # a Sampler once made
    eta: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(sampler=_made(self.sampler), eta=number("eta", self.eta, ge=0, le=1))

    @property
    def needs(self) -> frozenset[str]:
        """Noise, unless eta = 0."""
        return self.sampler.needs | ({"noise"} if self.eta else frozenset())

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """The inner rows to r_d; then what takes alpha there to alpha at s, and the noise."""
        levels = Levels(sde, grid)
        at, to = levels[:-1], levels[1:]
        # r_d^2 / r_s^2, never below 0; and r_d not below what VE and EDM have at t = 0
        left = 1 - self.eta**2 + self.eta**2 * np.exp(2 * (at.l - to.l))
        left = np.maximum(left, np.exp(2 * to.l - sde.log_snr_range[1]))
        moved = (left < 1) & (to.sigma > 0)
        log_snr = np.where(moved, 2 * to.l - np.log(left), 2 * at.l)
        below = sde.t_from_log_snr(torch.from_numpy(log_snr)).numpy()
        down = torch.from_numpy(np.where(moved, below, to.t))
        lift = np.where(moved, to.alpha / sde.alpha(down).numpy(), 1.0)
        fresh = np.where(moved, to.sigma * np.sqrt(np.maximum(1 - left, 0.0)), 0.0)
        return {
            "lift": lift, "fresh": fresh, "inner": _between(self.sampler, sde, grid[:-1], down),
        }  # fmt: skip

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """The inner row, then up."""
        x, state = self.sampler.step(x, c.inner, model, None, noise)
        return self._lifted(x, c, noise), state

    @classmethod
    def examples(cls) -> list[Renoised]:
        """Around DDIM, and the field's two of order 2."""
        return [
            cls(),
            cls(sampler="dpmpp_2m(order=2, multistep=False)"),
            cls(sampler="dpm_solver(order=2, multistep=False)"),
        ]


@register("sampler", "restart", paper="arXiv:2306.14878, algorithm 1")
@dataclass(frozen=True, kw_only=True)
class Restart(_Composed):
    """Restart sampling: noise from a low level up to a high one and rows down again, eq. (3).

    Args:
        sampler: deterministic and without memory: an object or a spelling; Heun in the paper.
        intervals: (low, high, steps, repeats) each, with levels of sigma/alpha: where the grid is
            nearest to `low`, go up to `high` (at most the grid's first level) and down again in
            `steps` rows (equal in the seventh root of the level), `repeats` times. One whose grid
            time is not below `high` is left out. The default is one of the paper's for CIFAR-10.

    Raises:
        ConfigError: an interval that is not 0 < low < high, steps and repeats >= 1; a sampler with
            noise or memory.

    Reference: arXiv:2306.14878, algorithm 1 and table 3.

    Example:
        >>> import torch
        >>> from sdekit import EDM, ExactScore, Gaussian, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), EDM())
        >>> run = sample(model, (4, 2), sampler="restart", steps=18, seed=0)
        >>> run.nfe, len(run.grid)  # two calls a row; 18 + 2 (1 up + 3 down) rows
        (48, 27)
    """

    sampler: Any = "heun"  # a Sampler once made
    intervals: tuple[tuple[float, float, int, int], ...] = ((0.06, 0.3, 3, 2),)
    order = None
    weak_order = None

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(sampler=_made(self.sampler))
        if not isinstance(self.intervals, tuple | list) or not all(
            isinstance(v, tuple | list) and len(v) == 4 for v in self.intervals
        ):
            raise ConfigError(
                f"intervals must be tuples (low, high, steps, repeats), got {self.intervals!r}"
            )
        made = []
        for low, high, steps, repeats in self.intervals:
            low = number("intervals: low", low, gt=0)
            steps = integer("intervals: steps", steps, ge=1, le=MOST_STEPS)
            made.append(
                (
                    low,
                    number("intervals: high", high, gt=low),
                    steps,
                    integer("intervals: repeats", repeats, ge=1, le=MOST_STEPS // steps),
                )
            )
        self._set(intervals=tuple(made))

    def times(self, sde: LinearSDE, grid: Tensor) -> tuple[Tensor, Tensor]:
        """The grid's rows, and where an interval's low end is reached its rows, the first up."""
        walk = _walk(self.intervals, sde, tuple(grid.tolist()))
        return walk[:-1], walk[1:]

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Eq. (3) in the rows that go up, the inner sampler in the others."""
        t, s = self.times(sde, grid)
        up = s > t
        scale, std = sde.transition(torch.minimum(t, s), torch.maximum(t, s))
        # a row up has no inner one: any row that goes down fills its place
        inner = _between(
            self.sampler, sde, torch.where(up, grid[0], t), torch.where(up, grid[1], s)
        )
        return {
            "up": up.double(), "lift": scale, "fresh": torch.where(up, std, 0.0), "inner": inner,
        }  # fmt: skip

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """A row up, or an inner row."""
        if c.up:
            return self._lifted(x, c, noise), None
        return self.sampler.step(x, c.inner, model, None, noise)

    @classmethod
    def examples(cls) -> list[Restart]:
        """The paper's, and two intervals around DDIM."""
        return [cls(), cls(sampler="ddim", intervals=((0.1, 1.0, 4, 2), (1.0, 5.0, 3, 1)))]


def _loop(sde: LinearSDE, high: float, low: float, end: float, steps: int) -> list[float]:
    """The times of a loop from the level `high` to the level `low`, which is at the time `end`."""
    if "ddpm" in sde.kinds:  # the level of a node
        start = sde.t_from_log_snr(torch.tensor([-2 * math.log(high)], dtype=torch.float64))
        high = float(level_of(sde, start.clamp_max(sde.t_max)))
    roots = torch.linspace(high ** (1 / _RHO), low ** (1 / _RHO), steps + 1, dtype=torch.float64)
    inner = sde.t_from_log_snr(-2 * _RHO * roots[:-1].log())
    found: list[float] = []
    for t in inner[:, None]:
        at = float(sde.align(t, keep=False))
        if end < at < (found[-1] if found else math.inf):  # nodes of a chain may be one
            found.append(at)
    return [*found, end] if found else []


@cached(8)  # a plan asks for it twice
def _walk(
    intervals: tuple[tuple[float, float, int, int], ...], sde: LinearSDE, grid: tuple[float, ...]
) -> Tensor:
    """The times of a run with restarts: the grid's, and after the low end of each its loops."""
    level = level_of(sde, torch.tensor(grid, dtype=torch.float64)).numpy()
    distance = np.log(np.where(level > 0, level, np.inf))
    distance[0] = np.inf  # a run does not begin with a jump
    loops: dict[int, list[float]] = {}
    for low, high, steps, repeats in intervals:
        k = int(np.abs(distance - math.log(low)).argmin())
        ends = min(high, float(level[0])), float(level[k])
        if 0 < ends[1] < ends[0]:
            loops.setdefault(k, []).extend(_loop(sde, *ends, grid[k], steps) * repeats)
    walk = [v for k, t in enumerate(grid) for v in (t, *loops.get(k, ()))]
    return torch.tensor(walk, dtype=torch.float64)
