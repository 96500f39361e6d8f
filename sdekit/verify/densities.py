"""Log-likelihoods of anybody's, seen as what the checks ask for.

A likelihood is a function f(model, x) -> nats [(batch,)], the log-density at x, taken at t_min,
that the model's probability flow gives; or one that returns an object with `nats`. `model(x, t)`
has .score, .eps and .x0, `model.sde` is the process. The checks choose processes whose prior is
the law of the latents to well below what they allow, so that no correction of its gap is needed.

`Likelihood` wraps such a function, by default `sdekit.log_prob`; the mutants are copies of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdekit.errors import DtypeError, ShapeError
from sdekit.likelihood import log_prob

__all__ = ["Likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """A log-likelihood as the checks call it.

    Args:
        how: f(model, x) -> nats, or an object with them.
        name: how reports call it.
    """

    how: Callable[..., Any] = log_prob
    name: str = "log_prob"

    def __repr__(self) -> str:
        """The name."""
        return self.name

    @classmethod
    def of(cls, thing: Callable[..., Any]) -> Likelihood:
        """A function, under its own name."""
        return thing if isinstance(thing, cls) else cls(thing, getattr(thing, "__name__", "f"))

    def __call__(self, model: Any, x: Tensor) -> Tensor:
        """The log-likelihoods [(batch,)], float64.

        Raises:
            DtypeError: what the function returns is no tensor and has no `nats`.
            ShapeError: it is not (batch,).
        """
        found = self.how(model, x)
        nats = getattr(found, "nats", found)
        if not isinstance(nats, Tensor):
            raise DtypeError(f"{self.name} must return a tensor, got {type(nats).__name__}")
        if nats.shape != (len(x),):
            raise ShapeError(f"{self.name} must return ({len(x)},), got {tuple(nats.shape)}")
        return nats.detach().double()
