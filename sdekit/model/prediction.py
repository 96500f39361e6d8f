"""One network call at (x, t), seen as clean sample, noise, score, v or flow: lazily, by one table.

`Prediction` holds x, the network's raw output and where they came from. Each view is one
combination of the two tensors; `linear` fuses any combination into one pass, and `mix` is the same
with weights that a sampler's plan has resolved beforehand: a multiplication and an addition,
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sdekit._times import Time, expand_like
from sdekit.errors import ConfigError
from sdekit.model.parametrization import Eps, Parametrization
from sdekit.sde.base import LinearSDE

__all__ = ["WINDOW", "PerTime", "Prediction", "Predictor", "RawCall", "learned"]

# x [(batch, *dims)] and a time that is one float -> the raw output [(batch, *dims)]
RawCall = Callable[[Tensor, float], Tensor]

WINDOW = 64  # times of which something is held at once, where it is not small


class Prediction:
    """Lazy views of one model call.

    Args:
        x: the noisy samples [(batch, *dims)].
        raw: the model's raw output [(batch, *dims)].
        t: the time of the call [float, (), (batch,) or (batch, 1, ..., 1)].
        origin: the process, and what `raw` predicts.
        fraction: where a model also learns the variance of its reverse step, the place of the
            step's log-variance between its two ends, in [-1, 1] [(batch, *dims)]; else None.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> model = ExactScore(Gaussian(torch.zeros(2), 1.0), VPSDE())
        >>> seen = model(torch.ones(3, 2), 0.5)
        >>> bool(torch.allclose(seen.score, -torch.ones(3, 2)))  # the score of N(0, I) is -x
        True
    """

    __slots__ = ("_origin", "fraction", "raw", "t", "x")

    def __init__(
        self,
        x: Tensor,
        raw: Tensor,
        t: Time,
        origin: tuple[LinearSDE, Parametrization],
        fraction: Tensor | None = None,
    ) -> None:
        self.x = x
        self.raw = raw
        self.t = t
        self._origin = origin
        self.fraction = fraction

    def mix(self, weights: Sequence[float]) -> Tensor:
        """weights[0] x + weights[1] raw [(batch, *dims)]: a new tensor, two operations."""
        return torch.mul(self.x, weights[0]).add_(self.raw, alpha=weights[1])

    def add_to(self, y: Tensor, weights: Sequence[float]) -> Tensor:
        """Y + weights[0] x + weights[1] raw, in place on y, which must be the step's own."""
        if weights[0]:
            y.add_(self.x, alpha=weights[0])
        return y.add_(self.raw, alpha=weights[1])

    def linear(self, *, x: Any = 0.0, x0: Any = 0.0, eps: Any = 0.0, score: Any = 0.0) -> Tensor:
        """x x + x0 x_0 + eps eps + score s [(batch, *dims)], one fused combination.

        Args:
            x: coefficient of the noisy sample, a float or a tensor of the shape of t.
            x0: of the predicted clean sample.
            eps: of the predicted noise.
            score: of the predicted score.
        """
        sde, parametrization = self._origin
        times = torch.as_tensor(self.t, dtype=torch.float64)
        on_x, on_raw = parametrization.weights(sde, times, x=x, x0=x0, eps=eps, score=score)
        return expand_like(on_x, self.x) * self.x + expand_like(on_raw, self.x) * self.raw

    @property
    def x0(self) -> Tensor:
        """The predicted clean sample, E[x_0 | x_t] for a perfect model [(batch, *dims)]."""
        return self.linear(x0=1.0)

    @property
    def eps(self) -> Tensor:
        """The predicted noise [(batch, *dims)]."""
        return self.linear(eps=1.0)

    @property
    def score(self) -> Tensor:
        """The predicted score, -eps / sigma [(batch, *dims)]."""
        return self.linear(score=1.0)

    @property
    def v(self) -> Tensor:
        """alpha eps - sigma x_0 [(batch, *dims)]."""
        return self._as("v")

    @property
    def flow(self) -> Tensor:
        """The velocity alpha' x_0 + sigma' eps of the probability flow [(batch, *dims)]."""
        return self._as("flow")

    def _as(self, name: str) -> Tensor:
        from sdekit._catalogue import make

        sde, _ = self._origin
        a, b = make("parametrization", name).row(sde, torch.as_tensor(self.t, dtype=torch.float64))
        return self.linear(x0=a, eps=b)


@runtime_checkable
class Predictor(Protocol):
    """What a sampler needs of a model: its process, and a call that returns a `Prediction`.

    A model may also have `parametrization`, what its raw output is, and `bind(x, times, cond)`,
    which returns a `RawCall` with everything prepared that does not depend on x: sampling is then
    faster.
    """

    sde: LinearSDE

    def __call__(self, x: Tensor, t: Time, **cond: Any) -> Prediction:
        """The prediction at x [(batch, *dims)] and t [a float, or one time a sample]."""
        ...


class PerTime(dict[float, Any]):
    """Values of all times of a plan, computed at once, and of any other time.

    What a call needs, a view of the values or what `finish` makes of one, is made for a window of
    times at once, and only one window is held.

    Args:
        make: from times [(K,)], float64, to K values, a sequence or a tensor [(K, ...)].
        times: the times of a plan.
        finish: from a value to what a call needs.
        window: the number of times in a window; None: all.
    """

    def __init__(
        self,
        make: Callable[[Tensor], Sequence[Any] | Tensor],
        times: Sequence[float],
        finish: Callable[[Any], Any] | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self._make, self._finish = make, finish
        self._times, self._window = times, window or len(times)
        self._row = {t: k for k, t in enumerate(times)}
        self._all = make(torch.tensor(times, dtype=torch.float64)) if times else ()

    def __missing__(self, t: float) -> Any:
        k = self._row.get(t)
        if k is None:
            return self._finished(self._make(torch.tensor([t], dtype=torch.float64)))[0]
        first = k - k % self._window
        rows = slice(first, first + self._window)
        window = dict(zip(self._times[rows], self._finished(self._all[rows]), strict=True))
        self.clear()
        self.update(window)
        return window[t]

    def _finished(self, values: Sequence[Any] | Tensor) -> Sequence[Any]:
        one_by_one = values.unbind() if isinstance(values, Tensor) else values
        return [self._finish(value) for value in one_by_one] if self._finish else one_by_one


def parametrization_of(model: Predictor) -> Parametrization:
    """What the function that `bind` returns predicts: the model's own kind, or else the noise."""
    return model.parametrization if hasattr(model, "bind") else Eps()  # type: ignore[attr-defined]


def learned(fraction: Tensor | None) -> Tensor:
    """The fraction of a model that learns its variance.

    Raises:
        ConfigError: it learns none.
    """
    if fraction is None:
        raise ConfigError(
            "variance='learned' needs a model that returns a fraction: "
            "ScoreModel(..., variance='learned_range')"
        )
    return fraction


def bind(model: Predictor, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> RawCall:
    """The model as a function of (x, float) for batches like x, prepared for these times."""
    if hasattr(model, "bind"):
        return model.bind(x, times, cond)
    return lambda x, t: model(x, t, **cond).eps
