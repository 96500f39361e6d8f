r"""Laws of the time at which a loss is taken, each as a map of uniform draws u on (0, 1].

    uniform        t = t_min + u (t_max - t_min)                                              (1)
    stratified     (1) with one u in each ((k - 1)/n, k/n] of a batch of n, in random order   (2)
    log_normal     log(sigma / alpha) ~ N(mean, std^2), cut to the process's range            (3)
    logit_normal   (t - t_min)/(t_max - t_min) = 1/(1 + e^-z), z ~ N(mean, std^2)             (4)
    log_snr        log_snr is uniform on its range over [t_min, t_max]                        (5)
    importance     p(t) proportional to the weighting's w(t)                                  (6)

and then moved to the nearest time above at which the model is defined. On a chain of N steps (1)
gives the nodes 1/N .. 1 with probability 1/N each; the node 0 is the data itself and is never
drawn. There (5) goes to the node of the nearest log-SNR, and (6) has p_i proportional to w(t_i).

(2) leaves the expected loss as it is and takes variance from its mean over a batch. (6) leaves it
as it is too, because the loss is multiplied by p_uniform / p: w p_uniform / p is a constant, and
times where w is large are visited often instead of being counted much. For w = g^2 / sigma^2 =
-d log_snr / dt the law (6) is (5), exactly. For any other w it is a table of cells: p is constant
inside a cell and proportional to Simpson's rule for w, and because the ratio is that of the table,
nothing is biased by its being one. (3), (4) and (5) are the plain choices of their papers: they
change what is minimised, like a weighting p / p_uniform, and nothing corrects for it.

References: Ho et al., arXiv:2006.11239, algorithm 1; Song et al., arXiv:2011.13456, eq. 7; Kingma
et al., arXiv:2107.00630, appendix I.1, for (2) (there of equal spacing); Karras et al.,
arXiv:2206.00364, table 1, for (3); Esser et al., arXiv:2403.03206, eq. 19, for (4); Song et al.,
arXiv:2101.09258, section 5, for (6).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit._cache import cached
from sdekit._catalogue import register
from sdekit._check import Checked, number
from sdekit._times import entries
from sdekit.errors import ConfigError
from sdekit.objectives.weightings import Weighting
from sdekit.sde import LinearSDE

__all__ = [
    "Importance", "LogNormal", "LogSNR", "LogitNormal", "Stratified", "TimeLaw", "Uniform",
    "draw_times",
]  # fmt: skip

_CELLS = 512  # of the table of eq. (6), in t and again in log t


class TimeLaw(Checked, ABC):
    """A law of the time of a loss.

    `kinds` may hold "joint", where the times of a batch depend on each other, and "corrected",
    where the loss is multiplied by `ratio`, so that its expectation is that of uniform times.
    """

    kinds: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def times(self, sde: LinearSDE, u: Tensor, weighting: Weighting) -> Tensor:
        """The times in [t_min, t_max] of uniform draws on (0, 1] [shape of u], float64.

        Args:
            sde: the process.
            u: the draws [(n,)].
            weighting: that of the loss, which only importance sampling looks at.
        """

    def uniforms(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform draws on (0, 1] [(n,)], float64."""
        return 1 - torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)

    def ratio(self, sde: LinearSDE, t: Tensor, weighting: Weighting) -> Tensor | None:
        """p_uniform(t) / p(t) [shape of t] at times of this law; None: nothing is corrected."""
        return None

    @classmethod
    def examples(cls) -> list[Any]:
        """Instances that tests run over."""
        return [cls()]


def draw_times(
    law: TimeLaw, sde: LinearSDE, n: int, generator: torch.Generator, weighting: Weighting
) -> Tensor:
    """Times [(n,)] in float64 by the law, at which a model of this process is defined."""
    return sde.to_model_time(law.times(sde, law.uniforms(n, generator), weighting))


@register("time", "uniform", paper="arXiv:2011.13456, eq. 7")
@dataclass(frozen=True, kw_only=True)
class Uniform(TimeLaw):
    """Every time between t_min and t_max alike, eq. (1).

    Example:
        >>> import torch
        >>> from sdekit import FlowSDE
        >>> from sdekit.objectives import Simple
        >>> u = torch.tensor([0.5, 1.0], dtype=torch.float64)
        >>> [round(t, 6) for t in Uniform().times(FlowSDE(), u, Simple()).tolist()]
        [0.5, 0.999]
    """

    def times(self, sde: LinearSDE, u: Tensor, weighting: Weighting) -> Tensor:
        """Eq. (1) [shape of u]."""
        t = sde.t_min + u * (sde.t_max - sde.t_min)
        return t.clamp(sde.t_min, sde.t_max)  # the sum may round past t_max


@register("time", "stratified", paper="arXiv:2107.00630, appendix I.1")
@dataclass(frozen=True, kw_only=True)
class Stratified(Uniform):
    """Uniform, with one time of a batch in each of as many equal parts of the span, eq. (2).

    Each sample's time is uniform, and the mean over a batch has less variance.

    Example:
        >>> import torch
        >>> u = Stratified().uniforms(4, torch.Generator().manual_seed(0))
        >>> (4 * u).ceil().sort().values.tolist()
        [1.0, 2.0, 3.0, 4.0]
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"joint"})

    def uniforms(self, n: int, generator: torch.Generator) -> Tensor:
        """One in each ((k - 1)/n, k/n], in random order [(n,)]."""
        part = torch.randperm(n, generator=generator, device=generator.device)
        return (part + super().uniforms(n, generator)) / n


@register("time", "log_normal", paper="arXiv:2206.00364, table 1")
@dataclass(frozen=True, kw_only=True)
class LogNormal(TimeLaw):
    """EDM's: log(sigma / alpha) is normal, cut to the process's own range, eq. (3).

    Args:
        mean: of log(sigma / alpha); -1.2 in the paper.
        std: its standard deviation, > 0; 1.2 in the paper.

    Raises:
        ConfigError: std <= 0.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(mean=number("mean", self.mean), std=number("std", self.std, gt=0))

    def times(self, sde: LinearSDE, u: Tensor, weighting: Weighting) -> Tensor:
        """Eq. (3) by the quantile of the normal law between its two ends [shape of u]."""
        ends = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
        low, high = (-0.5 * sde.log_snr(ends) - self.mean) / self.std
        # in the tail that has the digits: Phi(9) is 1, Phi(-9) is not 0 (though ndtr says so)
        flip = bool(low + high > 0)
        between = torch.stack([-high, -low] if flip else [low, high])
        first, last = 0.5 * torch.erfc(between * -math.sqrt(0.5))
        part = first + (last - first) * ((1 - u) if flip else u)
        z = torch.special.ndtri(part)
        z = (-z if flip else z).clamp(float(low), float(high))
        wanted = -2 * (self.mean + self.std * z)
        least, most = sde.log_snr_range
        return sde.t_from_log_snr(wanted.clamp(least, most)).clamp(sde.t_min, sde.t_max)

    @classmethod
    def examples(cls) -> list[LogNormal]:
        """The paper's, and one around as much noise as signal."""
        return [cls(), cls(mean=0.0, std=2.0)]


@register("time", "logit_normal", paper="arXiv:2403.03206, eq. 19")
@dataclass(frozen=True, kw_only=True)
class LogitNormal(TimeLaw):
    """The logit of the rescaled time is normal, which favours the middle, eq. (4).

    Args:
        mean: of the logit; above 0 it favours noise.
        std: its standard deviation, > 0.

    Raises:
        ConfigError: std <= 0.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(mean=number("mean", self.mean), std=number("std", self.std, gt=0))

    def times(self, sde: LinearSDE, u: Tensor, weighting: Weighting) -> Tensor:
        """Eq. (4) [shape of u]."""
        part = torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))
        return Uniform().times(sde, part, weighting)


@register("time", "log_snr", paper="arXiv:2107.00630, section 5.1")
@dataclass(frozen=True, kw_only=True)
class LogSNR(TimeLaw):
    """Uniform in the log-SNR: every factor of the noise level alike, eq. (5)."""

    def times(self, sde: LinearSDE, u: Tensor, weighting: Weighting) -> Tensor:
        """Eq. (5) [shape of u]; on a chain the node that is nearest in log-SNR."""
        least, most = _log_snr_ends(sde)
        wanted = most + u * (least - most)
        if "ddpm" in sde.kinds:
            known = sde.log_snr(_nodes(sde))
            which = torch.bucketize(-wanted, (-0.5 * (known[1:] + known[:-1])).to(u.device))
            return entries(_nodes(sde), which)
        return sde.t_from_log_snr(wanted.clamp(least, most)).clamp(sde.t_min, sde.t_max)


@register("time", "importance", paper="arXiv:2101.09258, section 5")
@dataclass(frozen=True, kw_only=True)
class Importance(TimeLaw):
    """Times as often as the weighting counts them, the loss divided by how often, eq. (6).

    The expected loss, and its gradient, are those of uniform times, with less variance where the
    weighting varies and the error does not: on VP with the likelihood weighting the losses of a
    batch then all have one weight instead of 1/t.

    Raises:
        ConfigError: when times are drawn: a weighting that is not finite somewhere, or 0
            everywhere.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"corrected"})

    def times(self, sde: LinearSDE, u: Tensor, weighting: Weighting) -> Tensor:
        """Eq. (6) [shape of u]."""
        if _is_log_snr(sde, weighting):
            return LogSNR().times(sde, u, weighting)
        edges, mass = _table(sde, weighting)
        heights = mass.cumsum(0).to(u.device)
        # u in (0, 1]: a cell without mass is passed over
        cell = torch.bucketize(u * heights[-1], heights).clamp_max(len(mass) - 1)
        if "ddpm" in sde.kinds:
            return entries(_nodes(sde), cell)
        inside = (u * heights[-1] - entries(heights, cell)) / entries(mass, cell) + 1
        low, high = entries(edges, cell), entries(edges, cell + 1)
        return (low + inside.clamp(0, 1) * (high - low)).clamp(sde.t_min, sde.t_max)

    def ratio(self, sde: LinearSDE, t: Tensor, weighting: Weighting) -> Tensor:
        """1 / ((t_max - t_min) p(t)) [shape of t]."""
        span = sde.t_max - sde.t_min
        if _is_log_snr(sde, weighting):  # p = -(d log_snr / dt) / range
            least, most = _log_snr_ends(sde)
            return (most - least) / (span * weighting.weight(sde, t))
        edges, mass = _table(sde, weighting)
        cell = torch.bucketize(t, edges.to(t.device)) - 1  # (low, high], as `times` makes it
        cell = cell.clamp(0, len(mass) - 1)
        share = entries(mass, cell) / mass.sum()
        return entries(edges.diff(), cell) / (span * share)


def _is_log_snr(sde: LinearSDE, weighting: Weighting) -> bool:
    """Whether the law (6) is (5): on a chain, which has no time between its nodes, it is not."""
    return "log_snr" in weighting.kinds and "ddpm" not in sde.kinds


def _nodes(sde: Any) -> Tensor:
    """The times of a chain at which its model is called, first to last."""
    first, last = sde.index(sde.t_min) + 1, sde.index(sde.t_max)
    return sde.time(torch.arange(first, last + 1))


def _log_snr_ends(sde: LinearSDE) -> tuple[float, float]:
    """The least and the largest log-SNR that a model is trained at."""
    first = float(_nodes(sde)[0]) if "ddpm" in sde.kinds else sde.t_min
    return float(sde.log_snr(sde.t_max)), float(sde.log_snr(first))


@cached(8)
def _table(sde: LinearSDE, weighting: Weighting) -> tuple[Tensor, Tensor]:
    """Cells of the time [(K + 1,)] and the integral of w over each [(K,)]; a chain's are nodes."""
    if "ddpm" in sde.kinds:
        nodes = _nodes(sde)
        edges = torch.cat([nodes.new_tensor([sde.t_min]), nodes])
        mass = weighting.weight(sde, nodes)
    else:
        low = max(sde.t_min, 1e-6 * sde.t_max)
        even = torch.linspace(sde.t_min, sde.t_max, _CELLS + 1, dtype=torch.float64)
        fine = low * (sde.t_max / low) ** torch.linspace(0, 1, _CELLS + 1, dtype=torch.float64)
        edges = torch.cat([even, fine[1:-1]]).unique()
        middle = weighting.weight(sde, 0.5 * (edges[1:] + edges[:-1]))
        ends = weighting.weight(sde, edges)
        mass = edges.diff() * (ends[1:] + 4 * middle + ends[:-1]) / 6
    if not (bool(mass.isfinite().all()) and bool((mass >= 0).all()) and float(mass.sum()) > 0):
        raise ConfigError(
            f"importance needs a weighting that is finite and positive, and {weighting!r} on "
            f"{sde!r} is not"
        )
    return edges, mass
