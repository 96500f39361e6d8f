r"""Implicit score matching: the loss of a score that is compared with nothing.

Hyvarinen's identity turns E_p |s - grad log p|^2 into E_p [|s|^2 + 2 div s] + a constant, by one
integration by parts. At x_t = alpha x_0 + sigma eps, with eps_hat = -sigma s,

    loss = w(t) sigma^2 (|s|^2 + 2 div s)(x_t) = w(t) (|eps_hat|^2 - 2 sigma div eps_hat),      (1)

w from the weighting, summed over the elements or divided by their number. In this scale

    E loss = E DSM loss - w(t) |eps|^2 on average = E DSM loss - w(t) d (sum), - w(t) (mean),   (2)

for every model: the two have the same gradient and the same minimiser. The trace is exact, at the
price of a batch d times as large and one more backward pass: for tests, comparisons and few
dimensions. (1) has more variance than denoising where sigma is small.

References: Hyvarinen, JMLR 6 (2005), theorem 1; Song et al., arXiv:1905.07088, eq. 3; Vincent
2011, doi:10.1162/NECO_a_00142, for (2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sdekit._catalogue import register
from sdekit._times import expand_like
from sdekit.errors import ConfigError
from sdekit.likelihood.seen import linear_sde
from sdekit.model import Predictor
from sdekit.objectives.timed import Timed
from sdekit.objectives.trace import along_slices, coordinate_slices

__all__ = ["ImplicitScoreMatching"]


@register("objective", "implicit", paper="Hyvarinen, JMLR 6 (2005), theorem 1")
@dataclass(frozen=True, kw_only=True)
class ImplicitScoreMatching(Timed):
    """Implicit score matching with the exact trace, eq. (1).

    Args:
        weighting: as for `DSM`; not a learned one.
        time: as for `DSM`.
        reduction: as for `DSM`.

    Raises:
        ConfigError: an unknown name, or a learned weighting: it needs a loss >= 0.
        DtypeError: a value that is no name, and no weighting or law.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> model = ExactScore(Gaussian([0.0, 0.0], 1.0), VPSDE())  # s(x) = -x at every t
        >>> x = torch.tensor([[2.0, 0.0]])
        >>> loss = ImplicitScoreMatching(reduction="sum")
        >>> value = loss.loss_at(model, x, 1e-3, 0 * x)  # var (|x|^2 - 2 d)
        >>> bool(value.abs() < 1e-6)
        True
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"implicit"})

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if "learned" in self._weighting.kinds:
            raise ConfigError(
                f"weighting={self.weighting!r} needs a loss that is not negative; take its base"
            )

    def _terms(
        self,
        model: Predictor,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        ratio: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """x_t, t [(batch,)], w and sigma [(batch,)]."""
        sde = linear_sde(model)
        weight, sigma = self._weighting.weight(sde, t), sde.sigma(t)
        weight = weight if ratio is None else weight * ratio
        self._refuse_singular(sde, t, (sde.alpha(t), 1 / sigma, weight), "a score")
        x_t = expand_like(sde.alpha(t), x0) * x0 + expand_like(sigma, x0) * noise
        return x_t, t, weight, sigma

    def losses(self, model: Predictor, *terms: Tensor, **cond: Any) -> Tensor:
        """One call of the model on d copies of each sample; eq. (1) [(batch,)]."""
        x_t, t, weight, sigma, *drawn = terms
        t.checked_until = linear_sde(model).t_max  # type: ignore[attr-defined]  # in `_terms`
        slices = drawn[0].flatten(2) if drawn else coordinate_slices(x_t)
        eps, curvature = along_slices(model, x_t, t, slices.to(x_t.dtype), cond)
        if eps.dtype.itemsize < 4:  # squares of half types overflow
            eps, curvature, slices = eps.float(), curvature.float(), slices.float()
        squares = self._squares(eps, slices).mean(1)
        loss = squares - 2 * sigma.to(squares.dtype) * curvature.mean(1)
        loss = loss * weight.to(loss.dtype)
        return loss / eps.shape[-1] if self.reduction == "mean" else loss

    def _squares(self, eps: Tensor, slices: Tensor) -> Tensor:
        """|eps_hat|^2 [(batch, slices)]."""
        return eps.square().sum(-1)

    @classmethod
    def examples(cls) -> list[Any]:
        """The plain one, and a bound's."""
        return [cls(), cls(weighting="likelihood", time="importance", reduction="sum")]
