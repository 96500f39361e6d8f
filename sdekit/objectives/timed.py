"""What losses over times and noise have in common: a weighting, a law of the time, a reduction.

A subclass says what its terms are at x_t = alpha x_0 + sigma eps; times and noise are drawn here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit._catalogue import make_one
from sdekit._check import choice, like, readable
from sdekit._times import Time, as_time, expand_like
from sdekit.errors import TimeError
from sdekit.likelihood.seen import linear_sde
from sdekit.model import Predictor
from sdekit.objectives.base import Objective, clean_samples
from sdekit.objectives.times import TimeLaw, draw_times
from sdekit.objectives.weightings import Weighting
from sdekit.sde import LinearSDE

__all__ = ["Timed", "reduced"]


@dataclass(frozen=True, kw_only=True)
class Timed(Objective):
    """A loss at random times with random noise; a subclass has `_terms` and `losses`.

    Args:
        weighting: a name of the catalogue, or a `Weighting`.
        time: the law of the time: a name of the catalogue, or a `TimeLaw`.
        reduction: over the elements of a sample: "mean" or "sum".
    """

    weighting: str | Weighting = "simple"
    time: str | TimeLaw = "uniform"
    reduction: str = "mean"
    kinds: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        """Check the fields."""
        weighting = make_one("weighting", self.weighting, Weighting)
        self._set(weighting=weighting, time=make_one("time", self.time, TimeLaw))
        choice("reduction", self.reduction, ("mean", "sum"))

    def prepare(
        self, model: Predictor, x0: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Times, then noise, both drawn in float64, and the terms of the loss."""
        return self._prepared(model, x0, generator, x0.shape[0])

    def prepare_batches(
        self, model: Predictor, x0: Tensor, generator: torch.Generator, batch_size: int
    ) -> tuple[Tensor, ...]:
        """As `prepare`; times that depend on each other are drawn batch by batch."""
        joint = "joint" in self._time.kinds
        return self._prepared(model, x0, generator, batch_size if joint else x0.shape[0])

    def _prepared(
        self, model: Predictor, x0: Tensor, generator: torch.Generator, batch_size: int
    ) -> tuple[Tensor, ...]:
        sde, n = linear_sde(model), x0.shape[0]
        drawn = [
            draw_times(self._time, sde, min(batch_size, n - k), generator, self._weighting)
            for k in range(0, n, batch_size)
        ]
        t = drawn[0] if len(drawn) == 1 else torch.cat(drawn)
        noise = torch.randn(
            x0.shape, generator=generator, dtype=torch.float64, device=generator.device
        )
        ratio = self._time.ratio(sde, t, self._weighting)
        return self._terms(model, x0, t, noise.to(x0.dtype), ratio)

    def loss_at(self, model: Predictor, x0: Tensor, t: Time, noise: Tensor, **cond: Any) -> Tensor:
        """The loss of each sample [(batch,)] at given times with given noise.

        Args:
            model: the model that is trained.
            x0: clean samples [(batch, *dims)].
            t: their times [float, (), (batch,) or (batch, 1, ..., 1)].
            noise: standard normal draws [(batch, *dims)].
            cond: what the model is called with besides.

        Raises:
            DataError: an empty batch.
            NonFiniteError: x0 holds NaN or infinity.
            ShapeError: noise and x0 differ in shape, or t does not fit the batch.
            TimeError: a time outside [0, t_max], or one where the loss is not finite (var = 0).

        Example:
            >>> import torch
            >>> from sdekit import DSM, ExactScore, Gaussian, VPSDE
            >>> model = ExactScore(Gaussian([0.0], 1.0), VPSDE())  # N(0, 1) at every t
            >>> t, noise = 0.5, torch.ones(1, 1)
            >>> loss = DSM().loss_at(model, torch.zeros(1, 1), t, noise)  # (sigma^2 - 1)^2
            >>> round(float(loss), 5) == round(float(VPSDE().alpha(t) ** 4), 5)
            True
        """
        x0 = clean_samples(x0)
        like("noise", noise, "x0", x0)
        wide, _ = as_time(t, linear_sde(model).t_max)
        each = expand_like(wide.to(x0.device), x0.new_empty(x0.shape, dtype=torch.float64))
        each = each.detach().reshape(-1).expand(x0.shape[0])
        with torch.no_grad():
            terms = self._terms(model, x0, each, noise.to(x0.dtype))
        return self.losses(model, *terms, **cond)

    @abstractmethod
    def _terms(
        self,
        model: Predictor,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        ratio: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The terms at times t [(batch,)], the loss multiplied by `ratio` [(batch,)]."""

    def _refuse_singular(
        self, sde: LinearSDE, t: Tensor, columns: Sequence[Tensor], of: str
    ) -> None:
        """Raise a TimeError that names the first time at which a column is not finite."""
        whole = torch.stack(list(columns))
        if readable(whole) and not bool(whole.isfinite().all()):
            bad = t[~whole.isfinite().all(dim=0)][0].item()
            raise TimeError(
                f"at t = {bad!r} {self!r} of {of} on {sde!r} is not finite; take "
                f"times >= {sde.t_min:g}"
            )

    @property
    def _weighting(self) -> Weighting:
        assert isinstance(self.weighting, Weighting)  # made so in __post_init__
        return self.weighting

    @property
    def _time(self) -> TimeLaw:
        assert isinstance(self.time, TimeLaw)  # made so in __post_init__
        return self.time


def reduced(values: Tensor, reduction: str) -> Tensor:
    """The mean or the sum over the elements of each sample [(batch,)]."""
    dims = tuple(range(1, values.ndim))
    if not dims:
        return values
    return values.mean(dim=dims) if reduction == "mean" else values.sum(dim=dims)
