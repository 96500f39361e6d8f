r"""The variational bound as a loss: the terms of `sdekit.likelihood.chain` at a random step.

For a chain of N steps, with a step i drawn uniformly for each sample,

    loss = N L_{i-1}  (i >= 2)  or  N L_0  (i = 1),                                            (1)

whose expectation is L_0 + sum_{i >= 2} L_{i-1}: all of the bound but L_T, which has no parameter
(`VLB.prior`). In nats, summed over the elements of a sample. A variance that is learned is trained
by the hybrid loss

    loss = mean_i (eps_hat - eps)_i^2 + weight N L_{i-1} / D,                                   (2)

where in the second term the mean of the step is held fixed: the variance learns from the bound,
the prediction from the plain error. D is the number of elements; the released code takes the
second term in bits, which is weight = 0.001 / log 2 here.

On a continuous SDE there are no steps, no variance to choose, and the bound is an integral, of
which the loss is, at a uniform time,

    loss = (t_max - t_min) / 2 g^2 / sigma^2 |eps_hat - eps|^2:                                 (3)

score matching with the likelihood weighting. The decoder at t_min is left to `elbo`.

References: Ho et al., arXiv:2006.11239, eqs. 5 and 12; Nichol and Dhariwal, arXiv:2102.09672, eqs.
4 and 16; Song et al., arXiv:2101.09258, theorem 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, flag, like, number
from sdekit._times import Time, as_time, expand_like
from sdekit.errors import ConfigError, TimeError
from sdekit.likelihood.chain import CHAIN_VARIANCES, Rows, chain_rows, prior_kl, step_nats
from sdekit.likelihood.decoder import Decoder
from sdekit.likelihood.seen import aim, called, columns, fraction_of, linear_sde
from sdekit.model import Predictor
from sdekit.objectives.base import Objective, clean_samples
from sdekit.objectives.dsm import DSM

__all__ = ["VLB"]

_DIFFUSION = DSM(weighting="likelihood", reduction="sum")  # eq. (3) but for its constant


@register("objective", "vlb", paper="arXiv:2006.11239, eq. 5; arXiv:2102.09672, eq. 16")
@dataclass(frozen=True, kw_only=True)
class VLB(Objective):
    """The variational bound of a chain at one random step a sample, eq. (1) or (2).

    Args:
        variance: of the reverse steps: posterior, beta, or learned, which needs
            `ScoreModel(..., variance="learned_range")`.
        hybrid: eq. (2) instead of (1).
        weight: of the bound in eq. (2), >= 0.
        decoder: gaussian or discretized, of the last step; `sdekit.likelihood.decoder`.
        levels: of data that are discretized.
        data_range: their first and last level.
        tanh: Ho et al.'s approximation of the normal distribution function.

    Raises:
        ConfigError: an unknown name, a weight < 0, levels < 2.
        DtypeError: a field of the wrong type.

    Reference: arXiv:2006.11239, eq. 5; arXiv:2102.09672, eq. 16.

    Example:
        >>> import torch
        >>> from sdekit import DDPM, ScoreModel
        >>> from sdekit.model import MLP
        >>> network = MLP(2, outputs=4)
        >>> model = ScoreModel(network, DDPM.linear(100), variance="learned_range")
        >>> loss = VLB(variance="learned", hybrid=True)
        >>> loss(model, torch.zeros(4, 2), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([4])
    """

    variance: str = "posterior"
    hybrid: bool = False
    weight: float = 1e-3
    decoder: str = "gaussian"
    levels: int = 256
    data_range: Sequence[float] = (-1.0, 1.0)
    tanh: bool = False
    quiet_fields = ("weight", "levels", "data_range", "tanh")
    _last: Decoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        choice("variance", self.variance, CHAIN_VARIANCES)
        last = Decoder(
            kind=self.decoder, levels=self.levels, data_range=self.data_range, tanh=self.tanh
        )
        self._set(
            hybrid=flag("hybrid", self.hybrid),
            weight=number("weight", self.weight, ge=0),
            levels=last.levels,
            data_range=last.data_range,
            _last=last,
        )

    def prepare(
        self, model: Predictor, x0: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Steps, then noise, both drawn in float64, and what eqs. (1) to (3) need of them."""
        sde = linear_sde(model)
        if "ddpm" not in sde.kinds:
            self._only_fixed(sde)
            return _DIFFUSION.prepare(model, x0, generator)
        self._last.check(x0)
        options: Any = dict(dtype=torch.float64, device=generator.device)
        n = len(chain_rows(sde).t)
        i = (
            (torch.rand(len(x0), generator=generator, **options) * n)
            .to(torch.int64)
            .clamp_max(n - 1)
        )
        noise = torch.randn(x0.shape, generator=generator, **options)
        return self._terms(model, x0, i, noise.to(x0.dtype))

    def loss_at(self, model: Predictor, x0: Tensor, t: Time, noise: Tensor, **cond: Any) -> Tensor:
        """The loss of each sample [(batch,)] at given times with given noise.

        Args:
            model: the model that is trained.
            x0: clean samples [(batch, *dims)].
            t: their times, nodes of a chain [float, (), (batch,) or (batch, 1, ..., 1)].
            noise: standard normal draws [(batch, *dims)].
            cond: what the model is called with besides.

        Raises:
            DataError: an empty batch, or data off the levels of a discretized decoder.
            NonFiniteError: x0 holds NaN or infinity.
            ShapeError: noise and x0 differ in shape, or t does not fit the batch.
            TimeError: a time outside [0, t_max], or a node at which no step begins.

        Example:
            >>> import torch
            >>> from sdekit import DDPM, ExactScore, Gaussian
            >>> model = ExactScore(Gaussian([0.0], 1.0), DDPM.linear(10))
            >>> x0 = noise = torch.zeros(1, 1)
            >>> float(VLB(variance="posterior").loss_at(model, x0, 0.5, noise))  # nothing to pay
            0.0
        """
        x0 = clean_samples(x0)
        sde = linear_sde(model)
        like("noise", noise, "x0", x0)
        if "ddpm" not in sde.kinds:
            self._only_fixed(sde)
            return self._diffusion(sde) * _DIFFUSION.loss_at(model, x0, t, noise, **cond)
        chain: Any = sde
        self._last.check(x0)
        wide, _ = as_time(t, sde.t_max)
        each = expand_like(wide.to(x0.device), x0.new_empty(x0.shape, dtype=torch.float64))
        i = chain.index(each.detach()).reshape(-1).expand(len(x0))
        i = i - chain.index(chain_rows(sde).t[0].item())
        if bool((i < 0).any()):
            bad = each.detach().reshape(-1).expand(len(x0))[i < 0][0].item()
            raise TimeError(f"t must be a node from which {sde!r} steps back, got {bad!r}")
        with torch.no_grad():
            terms = self._terms(model, x0, i, noise.to(x0.dtype))
        return self.losses(model, *terms, **cond)

    def prior(self, model: Predictor, x0: Tensor) -> Tensor:
        """L_T in nats [(batch,)], float64: what the expected loss lacks of the whole bound.

        Args:
            model: the model; only its process is used.
            x0: clean samples [(batch, *dims)].
        """
        return prior_kl(linear_sde(model), clean_samples(x0))

    def _terms(self, model: Predictor, x0: Tensor, i: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """x_t, t [(batch,)], what raw should be, x_0, and the rows' columns [(batch, 8)]."""
        sde = linear_sde(model)
        rows = chain_rows(sde).at(i)
        seen = columns(model, sde, rows.t)
        x_t, wanted = aim(seen, x0, noise)
        table = torch.cat([torch.stack([*rows, i == 0], dim=1), seen[:, 4:6]], dim=1)
        return x_t, rows.t, wanted, x0, table

    def losses(self, model: Predictor, *terms: Tensor, **cond: Any) -> Tensor:
        """One call of the model; eq. (1), (2) or (3) of each sample [(batch,)]."""
        sde = linear_sde(model)
        if "ddpm" not in sde.kinds:
            return self._diffusion(sde) * _DIFFUSION.losses(model, *terms, **cond)
        x_t, t, wanted, x0, table = terms
        t.checked_until = sde.t_max  # type: ignore[attr-defined]  # a node
        raw, fraction = called(model, x_t, t, cond)
        fraction = fraction_of(fraction, self.variance)
        *of_chain, first, c, ratio = table.unbind(1)
        rows = Rows(*of_chain)
        error = expand_like(c, raw) * (raw - wanted)
        off = expand_like(ratio, raw) * error
        bound = step_nats(
            rows, first > 0, x0, off.detach() if self.hybrid else off, self.variance, fraction,
            self._last,
        ) * len(chain_rows(sde).t)  # fmt: skip
        if not self.hybrid:
            return bound.to(torch.promote_types(raw.dtype, torch.float32))
        plain = error.to(torch.float64).square().reshape(len(error), -1)
        loss = plain.mean(1) + self.weight / plain.shape[1] * bound
        return loss.to(torch.promote_types(raw.dtype, torch.float32))

    def _only_fixed(self, sde: object) -> None:
        """A continuous process has no steps whose variance could be learned."""
        if self.hybrid or self.variance == "learned":
            raise ConfigError(f"{self!r} needs a chain, a DDPM; got {sde!r}")

    @staticmethod
    def _diffusion(sde: Any) -> float:
        """The constant of eq. (3)."""
        return 0.5 * (sde.t_max - sde.t_min)

    @classmethod
    def examples(cls) -> list[VLB]:
        """Both fixed variances."""
        return [cls(), cls(variance="beta")]
