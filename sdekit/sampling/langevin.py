r"""Langevin correctors: steps towards the law p_t at a fixed noise level.

    x <- x + step score(x) + sqrt(2 step) z                                                  (1)

Rules for the step, with r the signal-to-noise ratio `snr` and k the scale of the forward
transition from the next lower time to this one (k^2 = 1 - beta_i on a chain, 1 on VE):

    sigma         2 (r sigma_t)^2: the same for every sample, so the step is affine            (2)
    batch_norm    2 k^2 (r mean|z| / mean|score|)^2, means over the batch: Song et al.'s       (3)
    sample_norm   2 k^2 (r |z| / |score|)^2, sample by sample                                  (4)
    annealed      2 k^2 (r sigma_t)^2: annealed Langevin dynamics                              (5)

With (3) a sample's path depends on its batch mates. (4) has no such flaw, but in low dimension
|score| comes close to 0 with sizeable probability: the step is then heavy-tailed (infinite mean in
two dimensions).

References: Song et al., arXiv:2011.13456, algorithms 4 and 5; Song and Ermon, arXiv:1907.05600,
algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, integer, number
from sdekit.sampling.base import Corrector, CountedModel, kick
from sdekit.sampling.noise import Noise
from sdekit.sampling.plan import Mix
from sdekit.sde.base import LinearSDE

__all__ = ["AnnealedLangevin", "Langevin", "langevin_columns"]

_RULES = ("sigma", "batch_norm", "sample_norm")


def langevin_columns(
    sde: LinearSDE, level: Tensor, below: Tensor, snr: float, scaled: bool
) -> dict[str, Any]:
    """Eqs. (2) and (5), and what (3) and (4) need; nothing happens where var = 0."""
    active = sde.var(level) > 0
    at = torch.where(
        active, level, sde.to_model_time(level)
    )  # a level that is skipped is never called
    k2 = sde.transition(torch.minimum(below, level), level)[0].square()
    step = 2 * sde.var(level) * snr**2 * (k2 if scaled else 1.0)
    step = torch.where(active, step, 0.0)
    return {
        "move": Mix(at, x=1.0, score=step),
        "std": (2 * step).sqrt(),
        "score": Mix(at, score=1.0),
        "k2": k2,
        "active": active.to(torch.float64),
        "step": step,
    }


class _Repeated(Corrector):
    """Eq. (1), several times at each level."""

    snr: float
    repeats: int

    def __post_init__(self) -> None:
        self._set(
            snr=number("snr", self.snr, gt=0), repeats=integer("repeats", self.repeats, ge=1)
        )

    @property
    def nfe_per_step(self) -> int:
        """One call a repeat."""
        return self.repeats

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """Eq. (1), `repeats` times."""
        if not c.active:
            return x, state
        for _ in range(self.repeats):
            x = self._moved(x, c, model, noise)
        return x, state

    def _moved(self, x: Tensor, c: Any, model: CountedModel, noise: Noise) -> Tensor:
        return kick(model(x, c.t).mix(c.move), c.std, noise)


@register("sampler", "langevin", paper="arXiv:2011.13456, algorithm 5")
@dataclass(frozen=True, kw_only=True)
class Langevin(_Repeated):
    """Langevin steps at each level, eq. (1).

    Args:
        snr: the signal-to-noise ratio r, > 0; 0.16 in the paper for VP and VE on CIFAR-10.
        rule: how the step is chosen: sigma, batch_norm or sample_norm, eqs. (2) to (4).
        repeats: steps a level.

    Raises:
        ConfigError: snr <= 0, an unknown rule, repeats < 1.

    Reference: arXiv:2011.13456, algorithms 4 and 5, appendix G.

    Example:
        >>> from sdekit.sampling import PredictorCorrector
        >>> PredictorCorrector(corrector=Langevin(snr=0.2)).nfe_per_step
        2
    """

    snr: float = 0.16
    rule: str = "sigma"
    repeats: int = 1

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        choice("rule", self.rule, _RULES)

    def corrections(self, sde: LinearSDE, level: Tensor, below: Tensor) -> dict[str, Any]:
        """Eqs. (2) to (4)."""
        return langevin_columns(sde, level, below, self.snr, scaled=False)

    def _moved(self, x: Tensor, c: Any, model: CountedModel, noise: Noise) -> Tensor:
        if self.rule == "sigma":
            return super()._moved(x, c, model, noise)
        score, z = model(x, c.t).mix(c.score), noise(x)
        of_z, of_score = (v.reshape(len(x), -1).norm(dim=1) for v in (z, score))
        if self.rule == "batch_norm":  # one number for the whole batch
            below = of_score.mean().item()
            size = 2 * c.k2 * (self.snr * of_z.mean().item() / below) ** 2 if below else c.step
            return torch.add(x, score, alpha=size).add_(z, alpha=math.sqrt(2 * size))
        each = 2 * c.k2 * (self.snr * of_z / of_score).square()
        each = torch.where(of_score > 0, each, c.step)  # a score of zero: the step of eq. (2)
        each = each.reshape(-1, *[1] * (x.ndim - 1))
        return x + each * score + (2 * each).sqrt() * z

    @classmethod
    def examples(cls) -> list[Langevin]:
        """The default, and Song et al.'s rule."""
        return [cls(), cls(rule="batch_norm"), cls(snr=0.1, repeats=3)]


@register("sampler", "annealed_langevin", paper="arXiv:1907.05600, algorithm 1")
@dataclass(frozen=True, kw_only=True)
class AnnealedLangevin(_Repeated):
    """Annealed Langevin dynamics, eq. (5): several steps at each level.

    Args:
        snr: the ratio r, > 0.
        repeats: steps a level, 5 by default.

    Raises:
        ConfigError: snr <= 0, repeats < 1.

    Reference: arXiv:1907.05600, algorithm 1; in this form arXiv:2011.13456, appendix G.

    Example:
        >>> AnnealedLangevin(repeats=3).nfe_per_step
        3
    """

    snr: float = 0.16
    repeats: int = 5

    def corrections(self, sde: LinearSDE, level: Tensor, below: Tensor) -> dict[str, Any]:
        """Eq. (5)."""
        return langevin_columns(sde, level, below, self.snr, scaled=True)
