r"""What a bound needs of one call of the model: the error of its noise, without loss of digits.

At x_t = alpha x_0 + sigma eps a model that predicts raw = a x_0 + b eps has

    eps_hat - eps = c (raw - (a x_0 + b eps)),   x_0(x_t) - x_0 = -(sigma / alpha) (eps_hat - eps),

c = alpha / (alpha b - sigma a). The right-hand sides are no differences of nearly equal numbers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdekit._check import shown
from sdekit._times import Time, expand_like
from sdekit.errors import ConfigError, ModelError
from sdekit.model import Parametrization, Prediction, Predictor
from sdekit.model.parametrization import Eps
from sdekit.sde.base import LinearSDE

__all__ = ["aim", "called", "fraction_of", "linear"]


def linear(model: Predictor) -> LinearSDE:
    """The model's process, which must have Gaussian kernels.

    Raises:
        ConfigError: it has none.
    """
    sde = getattr(model, "sde", None)
    if "linear" not in getattr(sde, "kinds", ()):
        raise ConfigError(f"a variational bound needs a model of a linear SDE, got {sde!r}")
    assert sde is not None  # None has no kinds
    return sde


def aim(
    model: Predictor, sde: LinearSDE, t: Tensor, x0: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, what raw should be there, and the factor c of the error [shape of t].

    Args:
        model: the model; it is not called.
        sde: its process.
        t: float64 times [() or (batch,)].
        x0: clean samples [(batch, *dims)].
        noise: their noise [(batch, *dims)].
    """
    # a model that does not say what its raw output is is taken by its noise
    kind: Parametrization = getattr(model, "parametrization", Eps())
    a, b = kind.row(sde, t)
    _, c = kind.weights(sde, t, eps=1.0)
    alpha, sigma, a, b = (
        expand_like(column.to(x0.device), x0) for column in (sde.alpha(t), sde.sigma(t), a, b)
    )
    return alpha * x0 + sigma * noise, a * x0 + b * noise, c


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
    if variance != "learned":
        return None
    if fraction is None:
        raise ConfigError(
            "variance='learned' needs a model that returns a fraction: "
            "ScoreModel(..., variance='learned_range')"
        )
    return fraction
