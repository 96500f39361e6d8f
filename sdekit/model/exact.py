"""The model without a network: the exact score of a known law at every noise level.

If x_0 ~ p and x_t = alpha x_0 + sigma eps, the law of x_t is `target.perturbed(alpha, var)`, and
for Gaussians, mixtures and finite samples its score is a closed form. Every sampler, likelihood
and check of sdekit can be run on it, so that what remains is the method's own error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdekit._check import samples, shown
from sdekit._times import Time, as_time, expand_like
from sdekit.errors import DtypeError, ShapeError
from sdekit.model.moments import Moments
from sdekit.model.parametrization import Score
from sdekit.model.prediction import WINDOW, PerTime, Prediction, RawCall
from sdekit.sde.base import LinearSDE
from sdekit.targets import ExactTarget

__all__ = ["ExactScore"]

_SEEN = 1024  # times whose alpha and variance are kept


def _levels(sde: LinearSDE, t: Tensor) -> list[tuple[float, float]]:
    """alpha and the variance at these times [(K,)]."""
    sde = sde.reaching(float(t.max())) if len(t) else sde  # a run may churn above t_max
    return list(zip(sde.alpha(t).tolist(), sde.var(t).tolist(), strict=True))


class ExactScore:
    """grad log p_t of a target under an SDE, as a predictor.

    Args:
        target: a law with a closed form at every noise level.
        sde: the process.

    Raises:
        DtypeError: target is no ExactTarget, or sde no LinearSDE.

    Reference: Tweedie's formula, alpha E[x_0 | x_t] = x_t + sigma^2 score.

    Example:
        >>> import torch
        >>> from sdekit import DDPM, ExactScore, GaussianMixture
        >>> data = GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)
        >>> model = ExactScore(data, DDPM.linear(100))
        >>> model(torch.tensor([[0.5, -1.0]]), 1.0).x0.shape
        torch.Size([1, 2])
    """

    parametrization = Score()

    def __init__(self, target: ExactTarget, sde: LinearSDE) -> None:
        if not isinstance(target, ExactTarget):
            raise DtypeError(f"target must be an ExactTarget, got {shown(target)}")
        if not isinstance(sde, LinearSDE):
            raise DtypeError(f"sde must be a LinearSDE, got {shown(sde)}")
        self.target = target
        self.sde = sde
        self._seen: dict[float, tuple[float, float]] = {}  # alpha and variance, by the time

    def __repr__(self) -> str:
        """The two parts."""
        return f"ExactScore({self.target!r}, {self.sde!r})"

    @cached_property
    def moments(self) -> Moments:
        """The target's mean and covariance, found when they are first asked for."""
        return Moments.of(self.target)

    def at(self, t: float) -> ExactTarget:
        """The law of x_t."""
        return self.target.perturbed(float(self.sde.alpha(t)), float(self.sde.var(t)))

    def __call__(self, x: Tensor, t: Time, **cond: Any) -> Prediction:
        """The exact prediction at x [(batch, *dims)] and t [float, or one a sample]."""
        if cond:
            raise ShapeError(f"an exact score takes no condition, got {', '.join(map(str, cond))}")
        samples("x", x, self.target.shape)
        times, _ = as_time(t, self.sde.t_max)
        if times.numel() == 1:
            raw = self.at(float(times))._score(x)
        else:
            each = expand_like(times, x.to(torch.float64)).reshape(-1)
            raw = torch.empty_like(x)
            distinct, which = each.unique(return_inverse=True)
            for k, level in enumerate(_levels(self.sde, distinct)):
                rows = (which == k).nonzero().flatten()  # found once for reading and writing
                raw[rows] = self.target.perturbed(*level)._score(x[rows])
        return Prediction(x, raw, t, (self.sde, self.parametrization))

    def bind(self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> RawCall:
        """The score as a function of (x, float), the perturbed laws made once a time."""
        laws = self._laws(x, times, cond)
        return lambda x, t: laws[t]._score(x)

    def bind_trace(
        self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]
    ) -> Callable[[Tensor, float], tuple[Tensor, Tensor]]:
        """The score and its divergence, the Laplacian of log p_t, as `bind` gives the score."""
        laws = self._laws(x, times, cond)
        return lambda x, t: laws[t]._curved(x)

    def _laws(self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> PerTime:
        if cond:
            raise ShapeError(f"an exact score takes no condition, got {', '.join(map(str, cond))}")
        if tuple(x.shape[1:]) != tuple(self.target.shape):
            raise ShapeError(
                f"samples of {self.target!r} have shape {tuple(self.target.shape)}, "
                f"got {tuple(x.shape[1:])}"
            )

        def made(t: Tensor) -> list[tuple[float, float]]:
            if len(t) > 1:
                return _levels(self.sde, t)
            if float(t) not in self._seen:  # whoever looks at one row comes back to it often
                if len(self._seen) >= _SEEN:
                    self._seen.clear()
                self._seen[float(t)] = _levels(self.sde, t)[0]
            return [self._seen[float(t)]]

        return PerTime(made, times, lambda of: self.target.perturbed(*of), window=WINDOW)
