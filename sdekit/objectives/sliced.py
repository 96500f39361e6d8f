r"""Sliced score matching: implicit score matching along random directions.

With E v v^T = I, E_v v^T (ds/dx) v = div s and E_v (v . s)^2 = |s|^2, so that

    variance reduced   loss = w sigma^2 mean_k (2 v_k^T (ds/dx) v_k) + w sigma^2 |s|^2         (1)
    plain              loss = w sigma^2 mean_k (2 v_k^T (ds/dx) v_k + (v_k . s)^2)             (2)

have the expectation of the implicit loss (`sdekit.objectives.implicit`, eq. (1)) over the slices
v_k, at one more backward pass whatever the dimension. They are the paper's objectives, 2 w sigma^2
times.

Reference: Song, Garg, Shi and Ermon, arXiv:1905.07088, eqs. 7 for (2) and 8 for (1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, flag, integer
from sdekit.errors import ConfigError
from sdekit.model import Predictor
from sdekit.objectives.implicit import ImplicitScoreMatching

__all__ = ["SlicedScoreMatching"]


@register("objective", "sliced", paper="arXiv:1905.07088, eqs. 7 and 8")
@dataclass(frozen=True, kw_only=True)
class SlicedScoreMatching(ImplicitScoreMatching):
    """Sliced score matching: the trace along random directions, eqs. (1) to (2).

    `loss_at` is the expectation over the slices, which is the implicit loss: it takes the
    coordinate directions, whose mean is exact.

    Args:
        slices: directions a sample, >= 1.
        variance_reduced: eq. (1), where |s|^2 is not sliced; else eq. (2).
        projection: their law, "rademacher" or "gaussian".
        weighting: as for `DSM`; not a learned one.
        time: as for `DSM`.
        reduction: as for `DSM`.

    Raises:
        ConfigError: slices < 1, an unknown name, or a learned weighting.
        DtypeError: a value of another type.

    Example:
        >>> import torch
        >>> from sdekit import ScoreModel, VPSDE
        >>> from sdekit.model import MLP
        >>> model = ScoreModel(MLP(2), VPSDE())
        >>> loss = SlicedScoreMatching(slices=3)
        >>> loss(model, torch.zeros(4, 2), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([4])
    """

    slices: int = 1
    variance_reduced: bool = True
    projection: str = "rademacher"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self._set(
            slices=integer("slices", self.slices, ge=1, error=ConfigError),
            variance_reduced=flag("variance_reduced", self.variance_reduced),
        )
        choice("projection", self.projection, ("rademacher", "gaussian"))

    def _prepared(
        self, model: Predictor, x0: Tensor, generator: torch.Generator, batch_size: int
    ) -> tuple[Tensor, ...]:
        """The terms of the implicit loss, and the slices [(batch, slices, *dims)]."""
        terms = super()._prepared(model, x0, generator, batch_size)
        shape = (x0.shape[0], self.slices, *x0.shape[1:])
        if self.projection == "gaussian":
            drawn = torch.randn(
                shape, generator=generator, dtype=torch.float64, device=generator.device
            )
        else:
            drawn = 2.0 * torch.randint(2, shape, generator=generator, device=generator.device) - 1
        return *terms, drawn.to(x0.dtype)

    def _squares(self, eps: Tensor, slices: Tensor) -> Tensor:
        """|eps_hat|^2, or (v . eps_hat)^2 [(batch, slices)]."""
        if self.variance_reduced:
            return super()._squares(eps, slices)
        return (eps * slices).sum(-1).square()

    @classmethod
    def examples(cls) -> list[Any]:
        """Both equations."""
        return [cls(), cls(slices=2, variance_reduced=False, projection="gaussian")]
