r"""The Fisher divergence of a model from a known law: how wrong a score is, time by time.

    F(t) = E_{p_t} |s(x, t) - grad log p_t(x)|^2,    R(t) = F(t) / E_{p_t} |grad log p_t|^2   (1)

for the law p_t of x_t = alpha x_0 + sigma eps. Both expectations are means over the same draws,
fresh ones at every time: F has the standard error of a mean, R that of a ratio of means,

    Var R = Var(a - R b) / (n (mean b)^2),   a, b the two squares of a draw.                   (2)

Half the integral of g^2 F over time bounds the Kullback-Leibler divergence that the score is
answerable for. R = 1 is what a score of 0 has at every t.

References: Hyvarinen, JMLR 6 (2005), eq. 2; Song et al., arXiv:2101.09258, theorem 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._check import floating, integer, shown
from sdekit._times import as_time
from sdekit.errors import ConfigError, DtypeError, ShapeError
from sdekit.likelihood.seen import linear_sde
from sdekit.model import Predictor
from sdekit.sampling.setup import evaluating, placed
from sdekit.targets import ExactTarget

__all__ = ["FisherDivergence", "FisherResult"]


@dataclass(frozen=True, eq=False)
class FisherResult:
    """What `FisherDivergence` measured.

    Attributes:
        times: where [(K,)].
        absolute: F of eq. (1) [(K,)].
        absolute_stderr: its standard errors [(K,)].
        relative: R [(K,)].
        stderr: its standard errors [(K,)], eq. (2).
        mean: the weighted mean of R over the times.
        mean_stderr: its standard error.
    """

    times: Tensor
    absolute: Tensor
    absolute_stderr: Tensor
    relative: Tensor
    stderr: Tensor
    mean: float
    mean_stderr: float

    def __str__(self) -> str:
        """The mean in per cent."""
        return f"{100 * self.mean:.2f} % +- {100 * self.mean_stderr:.2f}"


class FisherDivergence:
    """The divergence of eq. (1) of a model from this law, over times; an evaluation, not a loss.

    Args:
        target: the data law, known at every noise level.
        times: how many, equally spaced on (t_min, t_max] (rounded to the nodes of a chain), or the
            times themselves [(K,)].
        weights: of the times in the mean [(K,)], >= 0; equal by default.
        n: draws at each time, >= 2.
        seed: of the draws.

    Raises:
        ConfigError: n < 2, no times, or weights that are negative or all 0.
        DtypeError: target is no ExactTarget, or a value of another type.
        ShapeError: times that are not (K,), or weights of another shape than the times.

    Example:
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> target = Gaussian([0.0, 0.0], 1.0)  # the score is -x at every t
        >>> wrong = ExactScore(Gaussian([0.0, 0.0], 4.0), VPSDE())
        >>> found = FisherDivergence(target, times=4)(wrong)
        >>> [round(float(r), 2) for r in found.relative]  # (1 - 1/(1 + 3 alpha^2))^2
        [0.37, 0.04, 0.0, 0.0]
    """

    def __init__(
        self,
        target: ExactTarget,
        *,
        times: int | Tensor = 20,
        weights: Tensor | None = None,
        n: int = 4096,
        seed: int = 0,
    ) -> None:
        if not isinstance(target, ExactTarget):
            raise DtypeError(f"target must be an ExactTarget, got {shown(target)}")
        self.target = target
        self.n = integer("n", n, ge=2, error=ConfigError)
        self.seed = integer("seed", seed)
        self.times: int | Tensor
        if isinstance(times, Tensor):
            self.times = floating("times", times).detach().double()
            if times.ndim != 1 or not len(times):
                raise ShapeError(f"times must have shape (K,), got {tuple(times.shape)}")
            count = len(times)
        else:
            self.times = count = integer("times", times, ge=1, error=ConfigError)
        if weights is None:
            weights = torch.ones(count, dtype=torch.float64)
        if floating("weights", weights).shape != (count,):
            raise ShapeError(f"weights must have shape ({count},), got {tuple(weights.shape)}")
        if not (bool((weights >= 0).all()) and 0 < float(weights.sum()) < math.inf):
            raise ConfigError(f"weights must be >= 0 with a positive sum, got {shown(weights)}")
        self.weights = weights.detach().double() / weights.sum().double()

    def __call__(self, model: Predictor, **cond: Any) -> FisherResult:
        """The divergence of a model with a linear SDE, without gradients.

        Args:
            model: the model.
            cond: what it is called with besides.

        Raises:
            ConfigError: a model without a linear SDE.
            TimeError: a time outside [0, t_max].
        """
        sde = linear_sde(model)
        if isinstance(self.times, int):
            part = torch.arange(1, self.times + 1, dtype=torch.float64) / self.times
            t = sde.t_min + part * (sde.t_max - sde.t_min)
            t = sde.to_model_time(t.clamp(max=sde.t_max))
        else:
            t, _ = as_time(self.times, sde.t_max)
        generator = torch.Generator().manual_seed(self.seed)
        rows = []
        _, device = placed(model, None, None, None)
        with evaluating(model), torch.no_grad():  # the draws and the law stay on the CPU
            for each in t.tolist():
                law = self.target.perturbed(float(sde.alpha(each)), float(sde.var(each)))
                x = law.sample(self.n, generator=generator)
                exact = law.score(x.double())
                seen = model(x.to(device), each, **cond).score.cpu()
                gap = (seen.double() - exact).flatten(1)
                a, b = gap.square().sum(1), exact.flatten(1).square().sum(1)
                ratio = a.mean() / b.mean()
                spread = (a - ratio * b).std() / b.mean()
                rows.append(torch.stack([a.mean(), a.std(), ratio, spread]))
        absolute, wide, relative, spread = torch.stack(rows, dim=1)
        stderr = spread / math.sqrt(self.n)
        return FisherResult(
            times=t,
            absolute=absolute,
            absolute_stderr=wide / math.sqrt(self.n),
            relative=relative,
            stderr=stderr,
            mean=float((self.weights * relative).sum()),
            mean_stderr=float((self.weights * stderr).square().sum().sqrt()),
        )
