r"""Which times a bound is summed over, and what one call at each of them costs.

A chain has its own steps, all of them or one drawn from each of n strata of neighbouring steps.
On a continuous linear SDE the sum is an integral. With d log_snr / dt = -g^2 / sigma^2,

    1/2 int g^2 E|s(x_t) - grad log q(x_t | x_0)|^2 dt = 1/2 int E|eps_hat - eps|^2 d log_snr,  (1)

taken at one uniform log-SNR in each of n equal strata: the weight is then the same everywhere, and
no time near t_min, where g^2 / sigma^2 is large, has to be met by luck. In expectation over the
noise the error in (1) is, by Stein's identity E<eps, eps_hat> = sigma E div eps_hat,

    E|eps_hat - eps|^2 = E[|eps_hat|^2 - 2 sigma div eps_hat + D],                              (2)

which is the bound in the form of Hyvarinen's loss (`form="ism"`). The last step of a continuous
process is the decoder's: x_0 ~ N(x_0(x_t), sigma^2/alpha^2) at t_min.

References: Kingma et al., arXiv:2107.00630, eqs. 11 to 15; Song et al., arXiv:2101.09258, theorem
3; Huang et al., arXiv:2106.02808, eqs. 20 and 24; Hyvarinen, JMLR 6 (2005), theorem 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdekit._check import choice, integer, shown
from sdekit._times import expand_like
from sdekit.errors import ConfigError
from sdekit.likelihood.chain import CHAIN_VARIANCES, chain_rows, step_nats
from sdekit.likelihood.decoder import Decoder
from sdekit.likelihood.divergence import Divergence
from sdekit.likelihood.seen import aim, called, columns, fraction_of
from sdekit.model import Predictor
from sdekit.sde.base import LinearSDE

__all__ = ["DIVERGENCES", "FORMS", "Cost", "Steps", "steps_of"]

FORMS = ("dsm", "ism")
DIVERGENCES = ("exact", "rademacher")
_STRATA = 128  # of a continuous process, where nobody says how many


@dataclass(frozen=True, eq=False)
class Cost:
    """What one call costs: nats [(batch,)] and the mean square of x_0(x_t) - x_0 [(batch,)]."""

    nats: Tensor
    squares: Tensor


@dataclass(frozen=True, eq=False)
class Steps(ABC):
    """The times of a bound, from t_max down, and the cost of a call at each; the last decodes.

    Attributes:
        model: the model.
        sde: its process.
        decoder: the law of the last step.
        t: the times [(K + 1,)], the decoder's the last.
        weight: how many steps, or how much log-SNR, each stands for [(K + 1,)]; 1 at the decoder.
        above: the share of it that lies above t [(K + 1,)].
        number: which of all steps each is [(K + 1,)]; its noise is keyed by it.
        sampled: whether the times were drawn.
        probes: whether `cost` needs a probe of the divergence.
    """

    model: Predictor
    sde: LinearSDE
    decoder: Decoder
    t: Tensor
    weight: Tensor
    above: Tensor
    number: Tensor
    sampled: bool
    probes: bool
    _columns: Tensor = field(init=False)

    @abstractmethod
    def cost(
        self, k: Tensor, x0: Tensor, noise: Tensor, probe: Tensor | None, cond: dict[str, Any]
    ) -> Cost:
        """Of one call at the steps k [(batch,)], all of them the decoder's or none.

        Args:
            k: the steps [(batch,)].
            x0: clean samples [(batch, *dims)].
            noise: their noise [(batch, *dims)].
            probe: other standard normal draws, where `probes` says that they are used.
            cond: what the model is called with besides.
        """

    def __post_init__(self) -> None:
        """Evaluate the schedules, once for all calls."""
        object.__setattr__(self, "_columns", columns(self.model, self.sde, self.t))

    def _rows(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """The times and the columns of the steps k, of one where all are that one."""
        at = k[0] if bool((k == k[0]).all()) else k
        return self.t[at], self._columns[at]

    def _seen(self, k: Tensor, x0: Tensor, noise: Tensor, cond: dict[str, Any]) -> Any:
        """eps_hat - eps and x_0(x_t) - x_0, in float64, and the fraction."""
        t, rows = self._rows(k)
        x_t, wanted = aim(rows, x0, noise)
        raw, fraction = called(self.model, x_t, t.to(x0.device), cond)
        wide = (raw - wanted).to(torch.float64)
        error = expand_like(rows[..., 4].to(x0.device), wide) * wide
        return error, self._off(rows, error), fraction

    @staticmethod
    def _off(rows: Tensor, error: Tensor) -> Tensor:
        """x_0(x_t) - x_0 from the error of the noise."""
        return expand_like(rows[..., 5].to(error.device), error) * error


@dataclass(frozen=True, eq=False)
class ChainSteps(Steps):
    """Those of a chain."""

    variance: str

    def cost(
        self, k: Tensor, x0: Tensor, noise: Tensor, probe: Tensor | None, cond: dict[str, Any]
    ) -> Cost:
        """L_{i-1}, or L_0 of the last; `chain.py`, eqs. (3) to (5)."""
        _, off, fraction = self._seen(k, x0, noise, cond)
        fraction = fraction_of(fraction, self.variance)
        i = self.number[k]
        first = (i == 0).to(x0.device)
        nats = step_nats(
            chain_rows(self.sde).at(i), first, x0, off, self.variance, fraction, self.decoder
        )
        return Cost(nats, _rows(off.square()).mean(1))


@dataclass(frozen=True, eq=False)
class ContinuousSteps(Steps):
    """Those of the integral (1)."""

    form: str

    def cost(
        self, k: Tensor, x0: Tensor, noise: Tensor, probe: Tensor | None, cond: dict[str, Any]
    ) -> Cost:
        """1/2 |eps_hat - eps|^2 or the same by (2), and the decoder's at t_min."""
        last = int(k[0]) == len(self.t) - 1
        if last or self.form == "dsm":
            error, off, _ = self._seen(k, x0, noise, cond)
            nats = 0.5 * _rows(error.square()).sum(1)
        else:
            off, nats = self._by_parts(k, x0, noise, probe, cond)
        if last:
            log_var = -self.sde.log_snr(self.t[-1]).to(x0.device)
            each = self.decoder.nats(x0, x0.to(torch.float64) + off, log_var)
            nats = _rows(each).sum(1)
        return Cost(nats, _rows(off.square()).mean(1))

    def _by_parts(
        self, k: Tensor, x0: Tensor, noise: Tensor, probe: Tensor | None, cond: dict[str, Any]
    ) -> Any:
        """x_0(x_t) - x_0, and half of the right-hand side of (2)."""
        t, rows = self._rows(k)
        x_t, _ = aim(rows, x0, noise)
        told = t.to(x0.device, copy=True)  # one made in inference mode is nothing for autograd
        by = Divergence(None if probe is None else torch.where(probe < 0, -1.0, 1.0)[None])
        found = by(lambda x, at: called(self.model, x, told, cond)[0], x_t, float(t.max()))
        *_, c, _, on_x = rows.to(x0.device).unbind(-1)
        raw, x_t = found.raw.to(torch.float64), x_t.to(torch.float64)
        seen = expand_like(c, raw) * raw + expand_like(on_x, raw) * x_t
        trace = c * found.divergence[:, 0] + on_x * seen[0].numel()
        sigma = rows[..., 1].to(x0.device)
        nats = 0.5 * (_rows(seen.square()).sum(1) + seen[0].numel()) - sigma * trace
        return self._off(rows, seen - noise.to(torch.float64)), nats


def _rows(x: Tensor) -> Tensor:
    """The elements of each sample [(batch, D)]."""
    return x.reshape(len(x), -1)


def steps_of(
    model: Predictor,
    sde: LinearSDE,
    decoder: Decoder,
    *,
    times: int | None,
    variance: str,
    form: str,
    divergence: str,
    generator: torch.Generator,
) -> Steps:
    """The steps of a bound on this process; `elbo` documents the arguments."""
    choice("variance", variance, CHAIN_VARIANCES)
    choice("form", form, FORMS)
    choice("divergence", divergence, DIVERGENCES)
    if times is not None:
        times = integer("times", times, ge=1)
    if "ddpm" in sde.kinds:
        if form != "dsm":
            raise ConfigError(f"form={form!r} is of continuous processes; got {shown(sde)}")
        table = chain_rows(sde).t
        number, weight, above = _chosen(len(table) - 1, times, generator)
        parts = table[number], weight, above, number, times is not None, False
        return ChainSteps(model, sde, decoder, *parts, variance)
    if variance == "learned":
        raise ConfigError(f"variance='learned' needs a chain, a DDPM; got {shown(sde)}")
    n = _STRATA if times is None else times
    ends = sde.log_snr(torch.tensor([sde.t_max, sde.t_min], dtype=torch.float64))
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    place = torch.lerp(ends[0], ends[1], (torch.arange(n) + u) / n)
    t = torch.cat([sde.t_from_log_snr(place), torch.tensor([sde.t_min], dtype=torch.float64)])
    one = torch.ones(1, dtype=torch.float64)
    weight = torch.cat([(ends[1] - ends[0]).expand(n) / n, one])
    number = torch.arange(n, -1, -1)
    above = torch.cat([u, 0 * one])
    probes = form == "ism" and divergence == "rademacher"
    return ContinuousSteps(model, sde, decoder, t, weight, above, number, True, probes, form)


def _chosen(n: int, times: int | None, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Steps n .. 1 or one of each stratum, and 0; how many each stands for; the share above.

    Raises:
        ConfigError: more times than steps.
    """
    if times is None:
        number = torch.arange(n, -1, -1)
        one = torch.ones(n + 1, dtype=torch.float64)
        return number, one, 0 * one
    if times > n:
        raise ConfigError(f"times must be <= {n}, the steps of this chain, got {times}")
    edges = torch.linspace(n, 0, times + 1, dtype=torch.float64).round().to(torch.int64)
    size = edges[:-1] - edges[1:]
    u = torch.rand(times, generator=generator, dtype=torch.float64)
    down = (u * size).to(torch.int64).clamp_max(size - 1)  # how far below the stratum's top
    zero = torch.zeros(1, dtype=torch.int64)
    number = torch.cat([edges[:-1] - down, zero])
    weight = torch.cat([size, zero + 1]).to(torch.float64)
    return number, weight, torch.cat([down / size, zero.to(torch.float64)])
