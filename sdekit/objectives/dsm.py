r"""Denoising score matching, for whatever the network predicts.

At x_t = alpha x_0 + sigma eps, a network that predicts raw = a x_0 + b eps gives
eps_hat = (alpha raw - a x_t) / det, det = alpha b - sigma a, which is eps where raw is exact. So

    eps_hat - eps = c (raw - (a x_0 + b eps)),   c = alpha / det,                               (1)
    loss = w(t) mean_i (eps_hat - eps)_i^2,                                                     (2)

with w from the weighting. The right-hand side of (1) is what is computed: no difference of nearly
equal numbers, so that a network that predicts x_0 or EDM's output is trained as precisely as one
that predicts eps. The expected loss has its minimum at eps_hat = -sigma grad log p_t (Vincent).

References: Vincent 2011, doi:10.1162/NECO_a_00142; Ho et al., arXiv:2006.11239, eq. 14;
Song et al., arXiv:2011.13456, eq. 7; Karras et al., arXiv:2206.00364, eq. 8 (raw targets).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import readable
from sdekit._times import expand_like
from sdekit.errors import ConfigError
from sdekit.likelihood.seen import called, kind_of, linear_sde
from sdekit.model import Predictor
from sdekit.objectives.timed import Timed, reduced

__all__ = ["DSM"]


@register("objective", "dsm", paper="arXiv:2011.13456, eq. 7")
@dataclass(frozen=True, kw_only=True)
class DSM(Timed):
    """Denoising score matching: the weighted squared error of the predicted noise, eq. (2).

    Args:
        weighting: a name of the catalogue (simple, likelihood, min_snr, ...), or a `Weighting`.
        time: the law of the time: uniform, importance, log_normal, ..., or a `TimeLaw`.
        reduction: over the elements of a sample: "mean", or "sum", which is what bounds on the
            likelihood are made of.

    Raises:
        ConfigError: an unknown name.
        DtypeError: a value that is no name, and no weighting or law.

    Reference: arXiv:2011.13456, eq. 7; arXiv:2006.11239, eq. 14 and algorithm 1.

    Example:
        >>> import torch
        >>> from sdekit import ScoreModel, VPSDE
        >>> from sdekit.model import MLP
        >>> model = ScoreModel(MLP(2), VPSDE(), parametrization="v")
        >>> loss = DSM(weighting="likelihood")
        >>> loss
        dsm(weighting='likelihood()', time='uniform()', reduction='mean')
        >>> loss(model, torch.zeros(4, 2), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([4])
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"denoising"})

    def _terms(
        self,
        model: Predictor,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        ratio: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """x_t, t [(batch,)], a x_0 + b eps and, unless it is 1, c sqrt(w) [(batch,)]; eq. (1).

        A learned weighting adds log(sigma / alpha) / 4 and what the whole loss is multiplied by.
        """
        sde, parametrization, weighting = linear_sde(model), kind_of(model), self._weighting
        a, b = parametrization.row(sde, t)
        _, c = parametrization.weights(sde, t, eps=1.0)
        learned = "learned" in weighting.kinds
        w = weighting.weight(sde, t)
        factor = c * (w if ratio is None or learned else w * ratio).sqrt()
        columns = [sde.alpha(t), sde.sigma(t), a, b, factor]
        if learned:
            _believed(model)
            columns += [-0.125 * sde.log_snr(t), torch.ones_like(t) if ratio is None else ratio]
        self._refuse_singular(sde, t, columns, repr(parametrization))
        alpha, sigma, a, b = (expand_like(column, x0) for column in columns[:4])
        terms = (alpha * x0 + sigma * noise, t, a * x0 + b * noise)
        if learned:
            return *terms, *columns[4:]
        plain = readable(factor) and bool((factor == 1).all())  # eps with the simple weighting
        return terms if plain else (*terms, factor)

    def losses(self, model: Predictor, *terms: Tensor, **cond: Any) -> Tensor:
        """One call of the model; c^2 w |raw - (a x_0 + b eps)|^2 of each sample [(batch,)]."""
        x_t, t, wanted, *factor = terms
        t.checked_until = linear_sde(model).t_max  # type: ignore[attr-defined]  # in `_terms`
        raw, _ = called(model, x_t, t, cond)
        error = raw - wanted
        if factor:
            error = error * expand_like(factor[0], wanted)
        if error.dtype.itemsize < 4:  # the squares of half types overflow
            error = error.float()
        squares = error.square()
        if len(factor) > 1:  # w err / e^u + u for every element
            _, c_noise, ratio = factor
            u = expand_like(_believed(model)(c_noise), squares)
            squares = (squares * (-u).exp() + u) * expand_like(ratio, squares)
        return reduced(squares, self.reduction)

    @classmethod
    def examples(cls) -> list[DSM]:
        """A sum over the elements, and one of each kind of weighting and law."""
        return [
            cls(),
            cls(weighting="sigma2"),
            cls(weighting="likelihood", reduction="sum"),
            cls(weighting="likelihood", time="importance"),
            cls(weighting="min_snr", time="stratified"),
            cls(weighting="edm", time="log_normal"),
            cls(weighting="uncertainty", time="logit_normal"),
        ]


def _believed(model: Predictor) -> Any:
    """The module that knows log E[w err]."""
    found = getattr(model, "uncertainty", None)
    if found is None:
        raise ConfigError(
            "a learned weighting needs a model with an uncertainty to learn: "
            "ScoreModel(..., uncertainty=True)"
        )
    return found
