r"""MALA: Langevin steps that are accepted or rejected, so that p_t itself is at rest.

A step proposes y from x and keeps x where y is rejected,

    y = x + h score(x) + sqrt(2 h) z,    i.e. q(y | x) = N(y; x + h score(x), 2 h I),           (1)
    A(x, y) = min(1, p(y) q(x | y) / (p(x) q(y | x))).                                          (2)

Detailed balance, p(x) q(y | x) A(x, y) = p(y) q(x | y) A(y, x), holds for any step h: unlike plain
Langevin's, the law at rest has no bias. With z the proposal's noise, and z' the noise that would
lead back from y,

    log q(x | y) - log q(y | x) = (|z|^2 - |z'|^2) / 2,                                         (3)
    z' = (x - y - h score(y)) / sqrt(2 h).

The densities' ratio is an integral of the score, which every model has,

    log p(y) - log p(x) = int_0^1 score(x + u (y - x)) . (y - x) du,                            (4)

by Gauss-Lobatto's rule: its two outer nodes are x and y, where the scores are needed anyway, and
the inner ones take a call each. m nodes are exact for polynomials in u of degree 2m - 3, so that
for Gaussian data two are, and the usual three (Simpson's rule) for scores that are cubic along the
segment. Or it is that of the model's own density, where there is one.

References: Besag, J. R. Stat. Soc. B 56 (1994), p. 591; Roberts and Tweedie, Bernoulli 2 (1996),
section 1.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, integer, number
from sdekit.errors import ConfigError
from sdekit.sampling.base import Corrector, CountedModel, count_rejected
from sdekit.sampling.langevin import langevin_columns
from sdekit.sampling.noise import Noise
from sdekit.sde.base import LinearSDE
from sdekit.targets._batchwise import tree_sum

__all__ = ["MALA", "log_acceptance"]

# Gauss-Lobatto on [0, 1]: inner nodes, their weights, and the weight of either end
_LOBATTO: dict[int, tuple[Sequence[float], Sequence[float], float]] = {
    2: ((), (), 1 / 2),
    3: ((0.5,), (2 / 3,), 1 / 6),
    4: ((0.5 - 0.05**0.5, 0.5 + 0.05**0.5), (5 / 12, 5 / 12), 1 / 12),
    5: (
        (0.5 - (3 / 28) ** 0.5, 0.5, 0.5 + (3 / 28) ** 0.5),
        (49 / 180, 16 / 45, 49 / 180),
        1 / 20,
    ),
}


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each sample [(n, *dims) and (n, *dims) -> (n,)], not in half."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return tree_sum((a.to(wide) * b.to(wide)).reshape(len(a), math.prod(a.shape[1:])), 1)


def log_acceptance(
    x: Tensor, y: Tensor, score_x: Tensor, score_y: Tensor, log_ratio: Tensor, step: float
) -> Tensor:
    """log A(x, y), eqs. (2) and (3).

    Args:
        x: where the samples are [(n, *dims)].
        y: what is proposed [(n, *dims)].
        score_x: the score at x [(n, *dims)].
        score_y: the score at y [(n, *dims)].
        log_ratio: log p(y) - log p(x) [(n,)].
        step: h > 0.

    Returns:
        The logarithm of the probability that y is accepted [(n,)], at most 0.

    Reference: Roberts and Tweedie, Bernoulli 2 (1996), section 1.4.

    Example:
        >>> x, y = torch.tensor([[0.0]]), torch.tensor([[1.0]])
        >>> there = log_acceptance(x, y, -x, -y, torch.tensor([-0.5]), 0.1)  # N(0, 1)
        >>> round(float(there), 4)  # h (|x|^2 - |y|^2) / 4
        -0.025
    """
    out = y - x - step * score_x
    back = x - y - step * score_y
    return (log_ratio + (_dot(out, out) - _dot(back, back)) / (4 * step)).clamp_max(0.0)


@register("sampler", "mala", paper="Roberts and Tweedie, Bernoulli 2 (1996), section 1.4")
@dataclass(frozen=True, kw_only=True)
class MALA(Corrector):
    """The Metropolis-adjusted Langevin algorithm: steps at each level, accepted or rejected.

    A step takes two draws like x. The first is z; of the second, each sample's first entry is
    turned into the uniform number that decides, by the normal distribution function.

    With a network, "path" is as good as its score is a gradient: what is at rest is then a law
    near p_t. In float32 the logarithm of (2) is rounded to about 1e-6 times the squared norm of
    z.

    Args:
        snr: the signal-to-noise ratio r, > 0, of the step h = 2 (r sigma_t)^2, as in `Langevin`.
        repeats: steps a level, >= 1.
        ratio: "path", eq. (4), with any model; or "density", with a model that has `at(t)`, the
            law at t, whose `log_prob` is taken: an `ExactScore`.
        nodes: of eq. (4), 2 to 5; all but two of them cost a call a step.

    Raises:
        ConfigError: snr <= 0, repeats < 1, an unknown ratio, nodes outside 2 to 5; in a run,
            ratio="density" with a model that has no density.

    Reference: Roberts and Tweedie, Bernoulli 2 (1996), section 1.4.

    Example:
        >>> from sdekit.sampling import PredictorCorrector
        >>> MALA(repeats=2).nfe_per_step, MALA(ratio="density").nfe_per_step
        (5, 2)
        >>> PredictorCorrector(corrector="mala(snr=0.5)").nfe_per_step
        4
    """

    snr: float = 0.16
    repeats: int = 1
    ratio: str = "path"
    nodes: int = 3
    needs = frozenset({"linear", "noise", "rejects"})
    acceptance = staticmethod(log_acceptance)

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(
            snr=number("snr", self.snr, gt=0),
            repeats=integer("repeats", self.repeats, ge=1),
            ratio=choice("ratio", self.ratio, ("path", "density")),
            nodes=integer("nodes", self.nodes, ge=2, le=max(_LOBATTO)),
        )

    @property
    def nfe_per_step(self) -> int:
        """One call at the start; for each step one at its proposal, and the inner nodes."""
        inner = self.nodes - 2 if self.ratio == "path" else 0
        return 1 + self.repeats * (1 + inner)

    def corrections(self, sde: LinearSDE, level: Tensor, below: Tensor) -> dict[str, Any]:
        """The step of `Langevin`, and the score."""
        return langevin_columns(sde, level, below, self.snr, scaled=False)

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """Eqs. (1) and (2), `repeats` times."""
        if not c.active:
            return x, state
        score = model(x, c.t).mix(c.score)
        for _ in range(self.repeats):
            y = torch.add(x, score, alpha=c.step).add_(noise(x), alpha=c.std)
            score_y = model(y, c.t).mix(c.score)
            ratio = self._log_ratio(x, y, score, score_y, c, model)
            log_a = self.acceptance(x, y, score, score_y, ratio, c.step)
            first = noise(x).reshape(len(x), math.prod(x.shape[1:]))[:, 0]
            # NaN is no reason to stay: the run must see it
            moves = ~(torch.special.log_ndtr(first.to(log_a.dtype)) >= log_a)
            count_rejected(model, ~moves)
            moves = moves.reshape(-1, *[1] * (x.ndim - 1))
            x, score = torch.where(moves, y, x), torch.where(moves, score_y, score)
        return x, state

    def _log_ratio(
        self, x: Tensor, y: Tensor, score_x: Tensor, score_y: Tensor, c: Any, model: CountedModel
    ) -> Tensor:
        """log p(y) - log p(x) [(n,)]."""
        if self.ratio == "density":
            law = getattr(model.model, "at", None)
            if law is None:
                raise ConfigError(
                    "ratio='density' needs a model with at(t), the law at t (an ExactScore), got "
                    f"{type(model.model).__name__}; take ratio='path'"
                )
            at = law(c.t)
            return at.log_prob(y) - at.log_prob(x)
        inner, weights, end = _LOBATTO[self.nodes]
        mean = end * (score_x + score_y)
        for u, weight in zip(inner, weights, strict=True):
            mean += weight * model(torch.lerp(x, y, u), c.t).mix(c.score)
        return _dot(mean, y - x)

    @classmethod
    def examples(cls) -> list[MALA]:
        """The default, and long steps."""
        return [cls(), cls(snr=0.5, repeats=2, nodes=5)]
