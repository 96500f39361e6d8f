r"""Predictor-corrector sampling: any sampler as predictor, any corrector at each noise level.

A row from t to s is, with `first="corrector"` as in the released code of the paper,

    x <- corrections steps of the corrector at t;    x <- one row of the predictor from t to s,

or, with `first="predictor"` as in its algorithm 1, the predictor and then the corrector at s.

Reference: Song et al., arXiv:2011.13456, algorithm 1 and appendix G.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import make_one, register
from sdekit._check import choice, integer
from sdekit.errors import ConfigError
from sdekit.sampling.base import Corrector, CountedModel, Sampler
from sdekit.sampling.noise import Noise
from sdekit.sde.base import LinearSDE

__all__ = ["PredictorCorrector"]


@register("sampler", "predictor_corrector", paper="arXiv:2011.13456, algorithm 1")
@dataclass(frozen=True, kw_only=True)
class PredictorCorrector(Sampler):
    """A predictor with correction steps at every noise level.

    Args:
        predictor: a sampler, or the spelling of one.
        corrector: a corrector, or the spelling of one.
        corrections: rows of the corrector at each level, >= 1.
        first: which of the two acts first in a row.

    Raises:
        ConfigError: an unknown name, a predictor that solves adaptively, a corrector that is none.

    Reference: arXiv:2011.13456, algorithm 1.

    Example:
        >>> PredictorCorrector(predictor="ddim", corrections=2).nfe_per_step
        3
    """

    predictor: Any = "reverse_diffusion"  # a Sampler once made
    corrector: Any = "langevin"  # a Corrector once made
    corrections: int = 1
    first: str = "corrector"
    order = None  # a corrector of fixed snr biases each level by a step that no grid shrinks

    def __post_init__(self) -> None:
        """Check the fields and make the parts of their spellings."""
        predictor: Sampler = make_one("sampler", self.predictor, Sampler, name="predictor")
        corrector: Sampler = make_one("sampler", self.corrector, Sampler, name="corrector")
        if not isinstance(corrector, Corrector):
            raise ConfigError(
                f"corrector must stay at one noise level (langevin, ...), got {corrector!r}"
            )
        if isinstance(predictor, Corrector) or "adaptive" in predictor.needs:
            raise ConfigError(f"predictor must step along the grid, got {predictor!r}")
        self._set(
            predictor=predictor,
            corrector=corrector,
            corrections=integer("corrections", self.corrections, ge=1),
            first=choice("first", self.first, ("corrector", "predictor")),
        )

    @property
    def nfe_per_step(self) -> int:
        """Those of the parts."""
        return self.predictor.nfe_per_step + self.corrections * self.corrector.nfe_per_step

    @property
    def memory(self) -> int:
        """The predictor's."""
        return self.predictor.memory

    @property
    def warmup_nfe(self) -> int:
        """The predictor's."""
        return self.predictor.warmup_nfe

    @property
    def needs(self) -> frozenset[str]:
        """Those of the parts."""
        return self.predictor.needs | self.corrector.needs

    def times(self, sde: LinearSDE, grid: Tensor) -> tuple[Tensor, Tensor]:
        """The predictor's rows."""
        return self.predictor.times(sde, grid)

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """The columns of the two parts, each with its own t and s."""
        t, s = self.times(sde, grid)
        level, below = (t, s) if self.first == "corrector" else (s, torch.cat([s[1:], s[-1:]]))
        predictor = self.predictor.coefficients(sde, grid)
        corrector = self.corrector.corrections(sde, level, below)
        return {
            "predict": {"t": t, "s": s, **predictor},
            "correct": {"t": level, "s": level, **corrector},
        }

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """Both parts, in the chosen order; the state is the pair of theirs."""
        predicted, corrected = state or (None, None)
        if self.first == "predictor":
            x, predicted = self.predictor.step(x, c.predict, model, predicted, noise)
        for _ in range(self.corrections):
            x, corrected = self.corrector.step(x, c.correct, model, corrected, noise)
        if self.first == "corrector":
            x, predicted = self.predictor.step(x, c.predict, model, predicted, noise)
        return x, (predicted, corrected)

    @classmethod
    def examples(cls) -> list[PredictorCorrector]:
        """The paper's pair, and another in the other order."""
        return [
            cls(),
            cls(predictor="ddim", corrector="annealed_langevin(repeats=1)", first="predictor"),
        ]
