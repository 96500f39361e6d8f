r"""What a bound needs of one call of the model: the error of its noise, without loss of digits.

At x_t = alpha x_0 + sigma eps a model that predicts raw = a x_0 + b eps has

    eps_hat - eps = c (raw - (a x_0 + b eps)),   x_0(x_t) - x_0 = -(sigma / alpha) (eps_hat - eps),

c = alpha / (alpha b - sigma a). The right-hand sides are no differences of nearly equal numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdekit._check import shown
from sdekit._times import Time, expand_like
from sdekit.errors import ConfigError, ModelError
from sdekit.model import Parametrization, Prediction, Predictor
from sdekit.model.parametrization import Eps
from sdekit.model.prediction import learned
from sdekit.sde.base import LinearSDE

__all__ = ["aim", "called", "columns", "fraction_of", "kind_of", "linear_sde"]


def linear_sde(model: Predictor) -> LinearSDE:
    """The model's process, which must have Gaussian kernels.

    Raises:
        ConfigError: it has none.
    """
    sde = getattr(model, "sde", None)
    if "linear" not in getattr(sde, "kinds", ()):
        raise ConfigError(f"score matching and bounds need a model of a linear SDE, got {sde!r}")
    assert sde is not None  # None has no kinds
    return sde


def kind_of(model: Predictor) -> Parametrization:
    """What the model's raw output predicts; a model that does not say is taken by its noise."""
    return getattr(model, "parametrization", Eps())


def columns(model: Predictor, sde: LinearSDE, t: Tensor) -> Tensor:
    """alpha, sigma, a, b, c, -sigma / alpha, and the weight of x in eps_hat [(n, 7)], float64.

    Args:
        model: the model; it is not called.
        sde: its process.
        t: float64 times [(n,)].
    """
    kind = kind_of(model)
    on_x, c = kind.weights(sde, t, eps=1.0)
    ratio = -(-0.5 * sde.log_snr(t)).exp()
    return torch.stack([sde.alpha(t), sde.sigma(t), *kind.row(sde, t), c, ratio, on_x], dim=-1)


def aim(rows: Tensor, x0: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """x_t, and what raw should be there [(batch, *dims)].

    Args:
        rows: of `columns` [(7,) or (batch, 7)].
        x0: clean samples [(batch, *dims)].
        noise: their noise [(batch, *dims)].
    """
    alpha, sigma, a, b = (expand_like(c, x0) for c in rows.to(x0.device).unbind(-1)[:4])
    return alpha * x0 + sigma * noise, a * x0 + b * noise


def called(
    model: Predictor, x_t: Tensor, t: Time, cond: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """One call: the raw output and the fraction of a learned variance [(batch, *dims)].

    Raises:
        ModelError: the model returns no `Prediction`.
    """
    found = model(x_t, t, **cond)
    if not isinstance(found, Prediction):
        raise ModelError(f"the model must return a Prediction, got {shown(found)}")
    return (found.raw if hasattr(model, "parametrization") else found.eps), found.fraction


def fraction_of(fraction: Tensor | None, variance: str) -> Tensor | None:
    """The fraction where the variance is learned, None where it is fixed.

    Raises:
        ConfigError: a learned variance is asked of a model that does not learn any.
    """
    return learned(fraction) if variance == "learned" else None
