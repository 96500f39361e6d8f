r"""The variational bound on -log p(x_0), term by term, with its standard errors.

    -log p(x_0) <= L_T + sum of terms + L_0,                                                    (1)

    prior     L_T, what is left of the data at t_max, exact
    terms     the steps back: KL divergences on a chain, `chain.py`; on a continuous linear SDE
              1/2 |eps_hat - eps|^2, of which the integral over the log-SNR is taken, `steps.py`
    decoder   L_0, the data given the least noisy state, `decoder.py`

in nats per sample. The terms are expectations over the noise, and here one draw (or `draws`) of it
each, so that the total is unbiased. What it leaves open is said:

- per sample, from several draws: the variance of the draws. From one draw, or where the times are
  drawn too, from neighbouring times in pairs, sum of (y_k - y_{k+1})^2: that counts the terms' own
  change from time to time as noise, and is on average too large (Cochran). That is of its mean
  over seeds: with a handful of times few runs meet the last strata, where a chain's terms are
  large, and a run that does not is surer than it should be. Take all times, or some dozens.
- of the mean over the data, by the central limit theorem, samples being drawn independently; the
  times are the same for all samples, so that their part is added.

The rate-distortion curve is that of progressive coding: at the state x_t a receiver has been sent
L_T and the terms above t, and x_0(x_t) is what it can show.

References: Ho et al., arXiv:2006.11239, eq. 5, section 4.3 and figure 5; Kingma et al.,
arXiv:2107.00630, eq. 11; Cochran, Sampling Techniques (1977), section 5A.12 (collapsed strata).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit._check import integer, readable
from sdekit.errors import DataError, NonFiniteError
from sdekit.likelihood.chain import prior_kl
from sdekit.likelihood.decoder import Decoder
from sdekit.likelihood.density import data
from sdekit.likelihood.seen import linear_sde
from sdekit.likelihood.steps import Steps, steps_of
from sdekit.model import Predictor
from sdekit.sampling.noise import KeyedNoise, seed_from
from sdekit.sampling.setup import conditions, quiet, sliced

__all__ = ["ELBO", "RateDistortion", "elbo"]

_TIMES, _PROBES = 0x5EED, 0x9B0B  # what tells the streams of one seed apart


class RateDistortion(NamedTuple):
    """Progressive coding, from t_max to the decoder's time, each [(K + 1,)].

    `rate` is nats sent so far, a mean over the data; `distortion` the root mean square of
    x_0(x_t) - x_0 over the data and its elements.
    """

    times: Tensor
    rate: Tensor
    distortion: Tensor


@dataclass(frozen=True, eq=False)
class ELBO:
    """The bound on -log p of each sample, in nats, float64.

    Attributes:
        prior: L_T [(batch,)].
        terms: of one step, or of one unit of log-SNR, at each time [(K, batch)].
        decoder: L_0 [(batch,)].
        times: of the terms, from t_max down [(K,)].
        decoder_time: at which the decoder's call is made.
        weights: how many steps, or how much log-SNR, each term stands for [(K,)].
        stderr: the standard error of `total` [(batch,)], from the noise and from drawn times;
            infinite where one time and one draw say nothing about it.
        squared_error: the mean square of x_0(x_t) - x_0 over the elements, at the times and at
            the decoder's [(K + 1, batch)].
        above: the share of each weight that lies above its time [(K,)].
        sampled: whether the times were drawn.
        elements: the number of elements D of a sample.
        nfe: calls of the model a sample.
    """

    prior: Tensor
    terms: Tensor
    decoder: Tensor
    times: Tensor
    decoder_time: float
    weights: Tensor
    stderr: Tensor
    squared_error: Tensor
    above: Tensor
    sampled: bool
    elements: int
    nfe: int

    @property
    def total(self) -> Tensor:
        """The bound [(batch,)], eq. (1)."""
        return self.prior + _weighted(self.weights, self.terms) + self.decoder

    @property
    def mean(self) -> float:
        """The bound's mean over the samples."""
        return float(self.total.mean())

    @property
    def mean_stderr(self) -> float:
        """The standard error of `mean` for independent samples; infinite for one sample."""
        n = len(self.prior)
        if n < 2:
            return math.inf
        square = float(self.total.var()) / n
        if self.sampled:  # the same times for all samples
            square += float(_collapsed(self.weights * self.terms.mean(1).cpu()))
        return math.sqrt(square)

    @property
    def bits_per_dim(self) -> Tensor:
        """`total` in bits per element [(batch,)]: nats / (D log 2)."""
        return self.total / (self.elements * math.log(2))

    def rate_distortion(self) -> RateDistortion:
        """The curve of progressive coding, arXiv:2006.11239, figure 5.

        Its last point is the state that the decoder sees; the rate lacks L_0 there.
        """
        steps = self.weights * self.terms.mean(1).cpu()
        sent = torch.cat([0 * steps[:1], steps.cumsum(0)]) if len(steps) else torch.zeros(1)
        partial = torch.cat([self.above * steps, torch.zeros(1, dtype=torch.float64)])
        return RateDistortion(
            torch.cat([self.times, torch.tensor([self.decoder_time], dtype=torch.float64)]),
            float(self.prior.mean()) + sent.to(torch.float64) + partial,
            self.squared_error.mean(1).sqrt().cpu(),
        )


def elbo(
    model: Predictor,
    x: Tensor,
    *,
    decoder: str = "gaussian",
    levels: int = 256,
    data_range: Sequence[float] = (-1.0, 1.0),
    tanh: bool = False,
    variance: str = "posterior",
    form: str = "dsm",
    divergence: str = "exact",
    times: int | None = None,
    draws: int = 1,
    seed: int | torch.Generator | None = None,
    cond: Mapping[str, Any] | None = None,
    chunk: int | None = None,
) -> ELBO:
    """The variational bound on -log p of each sample.

    Args:
        model: a model of a linear SDE; a network is put in evaluation mode meanwhile.
        x: the data [(batch, *dims)]; on the levels, for a discretized decoder.
        decoder: gaussian, a density, or discretized, a probability.
        levels: of data that are discretized.
        data_range: their first and last level.
        tanh: Ho et al.'s approximation of the normal distribution function.
        variance: of a chain's steps: posterior, beta, or learned.
        form: dsm, or ism, `steps.py` eq. (2), which needs the divergence of the prediction.
        divergence: of ism: exact, D backward passes a call, or rademacher, one.
        times: how many times are drawn, one from each of as many strata. None: every step of a
            chain; 128 of a continuous process.
        draws: of the noise, for each time and sample. The decoder's time has at least two.
        seed: an int, a torch.Generator (one key is taken from it) or None for a fresh one. Sample
            i gets the same noise whatever the batch or the chunks.
        cond: what the model is called with besides; tensors with one row a sample are cut.
        chunk: samples times steps in one call. None: the whole batch, one time a call.

    Raises:
        DataError: no data, NaN or infinity, or data off the levels.
        DtypeError: data that are not floating: dequantise or rescale them first.
        ConfigError: an unknown name, levels < 2, more times than steps, a learned variance of a
            model or a process without one, ism on a chain.
        NonFiniteError: the model's output is not finite; the time is named.
        ModelError: the model returns no `Prediction`, or has no derivative for ism.

    Reference: arXiv:2006.11239, eq. 5; arXiv:2107.00630, eq. 11; arXiv:2101.09258, theorem 3.

    Example:
        >>> import torch
        >>> from sdekit import DDPM, ExactScore, Gaussian
        >>> data = Gaussian(torch.zeros(2, dtype=torch.float64), 0.5)
        >>> x = data.sample(500, generator=torch.Generator().manual_seed(0))
        >>> model = ExactScore(data, DDPM.linear(200, beta_end=0.1))
        >>> bound = elbo(model, x, variance="beta", draws=2, seed=0)
        >>> gap = bound.total - -data.log_prob(x)
        >>> abs(float(gap.mean())) < 5 * bound.mean_stderr  # of 2.1 nats
        True
        >>> bound.terms.shape, bound.nfe
        (torch.Size([199, 500]), 400)
    """
    sde, x = linear_sde(model), _data(x)
    last = Decoder(kind=decoder, levels=levels, data_range=data_range, tanh=tanh)
    last.check(x)
    draws = integer("draws", draws, ge=1)
    chunk = len(x) if chunk is None else integer("chunk", chunk, ge=1)
    key, given = seed_from(seed), dict(conditions(cond))
    generator = torch.Generator().manual_seed((key ^ _TIMES) % 2**63)
    steps = steps_of(
        model, sde, last, times=times, variance=variance, form=form, divergence=divergence,
        generator=generator,
    )  # fmt: skip
    parts = []
    with quiet(model):
        for low in range(0, len(x), chunk):
            rows = x[low : low + chunk]
            mine = sliced(given, low, low + len(rows), len(x))
            parts.append(_costs(steps, rows, draws, KeyedNoise(key, first=low), mine, chunk))
    mean, spread, squares = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
    weights = steps.weight[:-1]
    error = spread[-1] / max(draws, 2)  # the decoder's
    if steps.sampled or draws == 1:
        error = error + _collapsed(weights.to(x.device)[:, None] * mean[:-1])
    else:
        error = error + _weighted(weights.square(), spread[:-1]) / draws
    return ELBO(
        prior_kl(sde, x), mean[:-1], mean[-1], steps.t[:-1], float(steps.t[-1]), weights,
        error.sqrt(), squares, steps.above[:-1], steps.sampled, x[0].numel(),
        len(weights) * draws + max(draws, 2),
    )  # fmt: skip


_WHOLE = (
    "dequantise it for a Gaussian decoder, or scale its levels to data_range "
    "for decoder='discretized'"
)


def _data(x: object) -> Tensor:
    """A finite, non-empty batch of data without gradient."""
    found = data(x, whole=_WHOLE)
    if found.numel() == 0:
        raise DataError(f"x must hold at least one sample, got shape {tuple(found.shape)}")
    return found


def _costs(
    steps: Steps, x: Tensor, draws: int, source: KeyedNoise, cond: dict[str, Any], chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of the draws' nats, and the mean squared error [(K + 1, batch)] each."""
    n, many = len(x), max(draws, 2)
    probing = KeyedNoise(source.seed ^ _PROBES, first=source.first) if steps.probes else None
    count = torch.zeros(len(steps.t), dtype=torch.int64)
    mean, square, error = torch.zeros(3, len(steps.t), n, dtype=torch.float64, device=x.device)
    for pairs in _groups(len(steps.t), draws, max(1, chunk // n)):
        at = [int(steps.number[k]) * many + r for k, r in pairs]
        noise = torch.cat([source.at(draw)(x) for draw in at])
        probe = torch.cat([probing.at(draw)(x) for draw in at]) if probing else None
        k = torch.tensor([k for k, _ in pairs]).repeat_interleave(n)
        together = x if len(pairs) == 1 else x.repeat(len(pairs), *[1] * (x.ndim - 1))
        found = steps.cost(k, together, noise, probe, _repeated(cond, n, len(pairs)))
        _refuse_nonfinite(steps, k, found.nats)
        nats, squares = found.nats.reshape(-1, n), found.squares.reshape(-1, n)
        for (at_k, _), value, off in zip(pairs, nats, squares, strict=True):  # Welford's update
            count[at_k] += 1
            change = value - mean[at_k]
            mean[at_k] += change / count[at_k]
            square[at_k] += change * (value - mean[at_k])
            error[at_k] += (off - error[at_k]) / count[at_k]
    return mean, square / (count - 1).clamp_min(1).to(x.device)[:, None], error


def _groups(rows: int, draws: int, size: int) -> Iterator[list[tuple[int, int]]]:
    """(step, draw) in groups of at most `size`; the decoder's, the last step, by themselves."""
    pairs = [(k, r) for k in range(rows - 1) for r in range(draws)]
    last = [(rows - 1, r) for r in range(max(draws, 2))]
    for each in (pairs, last):
        for start in range(0, len(each), size):
            yield each[start : start + size]


def _repeated(cond: dict[str, Any], n: int, times: int) -> dict[str, Any]:
    """The conditions of a batch of n for `times` copies of it."""
    if times == 1:
        return cond
    return {
        name: value.repeat(times, *[1] * (value.ndim - 1))
        if isinstance(value, Tensor) and value.ndim and len(value) == n
        else value
        for name, value in cond.items()
    }


def _refuse_nonfinite(steps: Steps, k: Tensor, nats: Tensor) -> None:
    if readable(nats) and not bool(nats.isfinite().all()):
        t = float(steps.t[k][~nats.isfinite().cpu()][0])
        raise NonFiniteError(
            f"the model's output at t = {t!r} is not finite, or too large to be squared"
        )


def _weighted(weights: Tensor, terms: Tensor) -> Tensor:
    """sum_k weights_k terms_k [(batch,)]."""
    return (weights.to(terms.device)[:, None] * terms).sum(0)


def _collapsed(y: Tensor) -> Tensor:
    """An estimate of the variance of the sum of independent y_k [(K, ...)], not too small.

    Neighbours in pairs, or three at the end, as if each group had one mean.
    """
    n = len(y)
    if n < 2:
        return torch.full_like(y.sum(0), math.inf if n else 0.0)
    even = n - 3 * (n % 2)
    pairs = (y[0:even:2] - y[1:even:2]).square().sum(0)
    return pairs + (1.5 * (y[even:] - y[even:].mean(0)).square().sum(0) if n % 2 else 0.0)
