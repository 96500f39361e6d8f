r"""Denoising score matching, for whatever the network predicts.

At x_t = alpha x_0 + sigma eps, a network that predicts raw = a x_0 + b eps gives
eps_hat = (alpha raw - a x_t) / det, det = alpha b - sigma a, which is eps where raw is exact. So

    eps_hat - eps = c (raw - (a x_0 + b eps)),   c = alpha / det,                               (1)
    loss = w(t) mean_i (eps_hat - eps)_i^2,                                                     (2)

with w from the weighting. The right-hand side of (1) is what is computed: no difference of nearly
equal numbers, so that a network that predicts x_0 or EDM's output is trained as precisely as one
that predicts eps. The expected loss has its minimum at eps_hat = -sigma grad log p_t (Vincent).

References: Vincent 2011, doi:10.1162/NECO_a_00142; Ho et al., arXiv:2006.11239, eq. 14;
Song et al., arXiv:2011.13456, eq. 7; Karras et al., arXiv:2206.00364, eq. 8 (raw targets).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import make_one, register
from sdekit._check import choice, floating, readable, same_device, shown
from sdekit._times import Time, as_time, expand_like
from sdekit.errors import ConfigError, ModelError, ShapeError, TimeError
from sdekit.model import Parametrization, Prediction, Predictor
from sdekit.model.parametrization import Eps
from sdekit.objectives.base import Objective, clean_samples
from sdekit.objectives.times import TIMES, draw_times
from sdekit.objectives.weightings import Weighting
from sdekit.sde import LinearSDE

__all__ = ["DSM"]


@register("objective", "dsm", paper="arXiv:2011.13456, eq. 7")
@dataclass(frozen=True, kw_only=True)
class DSM(Objective):
    """Denoising score matching: the weighted squared error of the predicted noise, eq. (2).

    Args:
        weighting: simple, sigma2, likelihood, or a `Weighting`.
        time: the law of the time; uniform.
        reduction: over the elements of a sample: "mean", or "sum", which is what bounds on the
            likelihood are made of.

    Raises:
        ConfigError: an unknown name.
        DtypeError: a value that is no name and no weighting.

    Reference: arXiv:2011.13456, eq. 7; arXiv:2006.11239, eq. 14 and algorithm 1.

    Example:
        >>> import torch
        >>> from sdekit import ScoreModel, VPSDE
        >>> from sdekit.model import MLP
        >>> model = ScoreModel(MLP(2), VPSDE(), parametrization="v")
        >>> loss = DSM(weighting="likelihood")
        >>> loss
        dsm(weighting='likelihood()', time='uniform', reduction='mean')
        >>> loss(model, torch.zeros(4, 2), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([4])
    """

    weighting: str | Weighting = "simple"
    time: str = "uniform"
    reduction: str = "mean"

    def __post_init__(self) -> None:
        """Check the fields."""
        weighting = make_one("weighting", self.weighting, Weighting)
        self._set(weighting=weighting, time=choice("time", self.time, TIMES))
        choice("reduction", self.reduction, ("mean", "sum"))

    def prepare(
        self, model: Predictor, x0: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Times, then noise, both drawn in float64, and the terms of eqs. (1) and (2)."""
        t = draw_times(self.time, _linear(model), x0.shape[0], generator)
        noise = torch.randn(
            x0.shape, generator=generator, dtype=torch.float64, device=generator.device
        )
        return self._terms(model, x0, t, noise.to(x0.dtype))

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
            >>> from sdekit import ExactScore, Gaussian, VPSDE
            >>> model = ExactScore(Gaussian([0.0], 1.0), VPSDE())  # N(0, 1) at every t
            >>> t, noise = 0.5, torch.ones(1, 1)
            >>> loss = DSM().loss_at(model, torch.zeros(1, 1), t, noise)  # (sigma^2 - 1)^2
            >>> round(float(loss), 5) == round(float(VPSDE().alpha(t) ** 4), 5)
            True
        """
        x0 = clean_samples(x0)
        if floating("noise", noise).shape != x0.shape:
            raise ShapeError(
                f"noise must have x0's shape {tuple(x0.shape)}, got {tuple(noise.shape)}"
            )
        same_device("noise", noise, "x0", x0)
        wide, _ = as_time(t, _linear(model).t_max)
        each = expand_like(wide.to(x0.device), x0.new_empty(x0.shape, dtype=torch.float64))
        each = each.detach().reshape(-1).expand(x0.shape[0])
        with torch.no_grad():
            terms = self._terms(model, x0, each, noise.to(x0.dtype))
        return self.losses(model, *terms, **cond)

    def _terms(self, model: Predictor, x0: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """x_t, t [(batch,)], a x_0 + b eps and, unless it is 1, c sqrt(w) [(batch,)]; eq. (1)."""
        sde, parametrization = _linear(model), _predicts(model)
        a, b = parametrization.row(sde, t)
        _, c = parametrization.weights(sde, t, eps=1.0)
        factor = c * self._weighting.weight(sde, t).sqrt()
        columns = torch.stack([sde.alpha(t), sde.sigma(t), a, b, factor])
        if readable(columns) and not bool(columns.isfinite().all()):
            bad = t[~columns.isfinite().all(dim=0)][0].item()
            raise TimeError(
                f"at t = {bad!r} {self!r} of {parametrization!r} on {sde!r} is not finite; take "
                f"times >= {sde.t_min:g}"
            )
        alpha, sigma, a, b, _ = (expand_like(column, x0) for column in columns)
        terms = (alpha * x0 + sigma * noise, t, a * x0 + b * noise)
        plain = readable(factor) and bool((factor == 1).all())  # eps with the simple weighting
        return terms if plain else (*terms, factor)

    def losses(self, model: Predictor, *terms: Tensor, **cond: Any) -> Tensor:
        """One call of the model; c^2 w |raw - (a x_0 + b eps)|^2 of each sample [(batch,)]."""
        x_t, t, wanted, *factor = terms
        t.checked_until = _linear(model).t_max  # type: ignore[attr-defined]  # in `_terms`
        seen = model(x_t, t, **cond)
        if not isinstance(seen, Prediction):
            raise ModelError(f"the model must return a Prediction, got {shown(seen)}")
        raw = seen.raw if hasattr(model, "parametrization") else seen.eps
        error = raw - wanted
        if factor:
            error = error * expand_like(factor[0], wanted)
        if error.dtype.itemsize < 4:  # the squares of half types overflow
            error = error.float()
        squares = error.square()
        dims = tuple(range(1, error.ndim))
        if not dims:
            return squares
        return squares.mean(dim=dims) if self.reduction == "mean" else squares.sum(dim=dims)

    @property
    def _weighting(self) -> Weighting:
        assert isinstance(self.weighting, Weighting)  # made so in __post_init__
        return self.weighting

    @classmethod
    def examples(cls) -> list[DSM]:
        """Every weighting of the catalogue, and a sum over the elements."""
        return [cls(), cls(weighting="sigma2"), cls(weighting="likelihood", reduction="sum")]


def _linear(model: Predictor) -> LinearSDE:
    """The model's process, which must have Gaussian kernels."""
    sde = getattr(model, "sde", None)
    if "linear" not in getattr(sde, "kinds", ()):
        raise ConfigError(f"denoising score matching needs a model of a linear SDE, got {sde!r}")
    assert sde is not None  # None has no kinds
    return sde


def _predicts(model: Predictor) -> Parametrization:
    """What the model's raw output predicts; a model that does not say is taken by its noise."""
    return getattr(model, "parametrization", Eps())
