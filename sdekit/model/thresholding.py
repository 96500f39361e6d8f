r"""Thresholding: what a model predicts of the data is kept where the data are.

Data lie in [-c, c] (pixels), and a prediction x_0(x_t, t) leaves this range, under strong guidance
say, or far from what the network was trained on. Before a sampler uses it, it is put back, each
sample by itself:

    static     x_0 <- clamp(x_0, -c, c)                                                         (1)
    dynamic    s = max(c, the q-quantile of |x_0| over the sample's numbers),
               x_0 <- c clamp(x_0, -s, s) / s                                                   (2)

The sampler then sees a model that predicts this x_0, and the noise that belongs to it,
eps = (x_t - alpha x_0) / sigma: every sampler works with it, but the model is no longer affine in
x on Gaussian data, so that it has no exact law by `sdekit.exact.output_law`.

References: (1) arXiv:2006.11239, the clipping of its sampling code; (2) Saharia et al.,
arXiv:2205.11487, section 2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdekit._check import choice, number, shown
from sdekit._times import Time
from sdekit.errors import ModelError
from sdekit.model.parametrization import X0
from sdekit.model.prediction import (
    PerTime,
    Prediction,
    Predictor,
    RawCall,
    bind,
    parametrization_of,
)
from sdekit.sde.base import LinearSDE

__all__ = ["HOW", "Thresholded"]


def _static(x0: Tensor, limit: float, quantile: float) -> Tensor:
    """Eq. (1)."""
    return x0.clamp(-limit, limit)


def _dynamic(x0: Tensor, limit: float, quantile: float) -> Tensor:
    """Eq. (2)."""
    if not x0.numel():
        return x0
    rows = x0.reshape(len(x0), -1)
    # by a sort: torch.quantile takes at most 2^24 numbers, and neither float16 nor bfloat16
    ranked = rows.abs().sort(dim=1).values
    place = quantile * (rows.shape[1] - 1)
    low = int(place)
    high = min(low + 1, rows.shape[1] - 1)
    edge = torch.lerp(ranked[:, low], ranked[:, high], place - low)
    edge = edge.clamp_min(limit)[:, None]
    scaled = rows.clamp(-edge, edge) * (limit / edge)
    return scaled.clamp(-limit, limit).reshape(x0.shape)  # a product may round upwards


HOW: Mapping[str, Callable[[Tensor, float, float], Tensor]] = {
    "static": _static, "dynamic": _dynamic,
}  # fmt: skip


class Thresholded(nn.Module):
    """A model whose prediction of the clean sample is kept in [-limit, limit].

    Args:
        model: a `ScoreModel`, an `ExactScore`, or any predictor.
        how: "static", eq. (1), or "dynamic", eq. (2).
        limit: c, the largest absolute value of the data, > 0.
        quantile: q in (0, 1], of eq. (2); it interpolates linearly between the numbers of a
            sample.

    Raises:
        ConfigError: an unknown name, limit <= 0, quantile outside (0, 1].
        DtypeError: a field of the wrong type.
        ModelError: model is no predictor.

    Reference: arXiv:2205.11487, section 2.3.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 4.0), VPSDE())
        >>> kept = Thresholded(model, limit=0.5)
        >>> result = sample(kept, (50, 2), sampler="ddim", steps=20, seed=0, denoise=True)
        >>> float(result.x.abs().max())
        0.5
    """

    parametrization = X0()

    def __init__(
        self,
        model: Predictor,
        how: str = "static",
        *,
        limit: float = 1.0,
        quantile: float = 0.995,
    ) -> None:
        super().__init__()
        sde = getattr(model, "sde", None)
        if not callable(model) or not isinstance(sde, LinearSDE):
            raise ModelError(
                f"model must be a ScoreModel, an ExactScore or a predictor, got {shown(model)}"
            )
        self.model = model
        self.sde: LinearSDE = sde
        self.how = choice("how", how, HOW)
        self.limit = number("limit", limit, gt=0)
        self.quantile = number("quantile", quantile, gt=0, le=1)

    def extra_repr(self) -> str:
        """The fields."""
        return f"how={self.how!r}, limit={self.limit:g}, quantile={self.quantile:g}"

    def __getattr__(self, name: str) -> Any:
        """`moments` are those of the model, for `prior="matched"`."""
        if name == "moments":
            return getattr(self.model, name)
        return super().__getattr__(name)

    def kept(self, x0: Tensor) -> Tensor:
        """A prediction [(batch, *dims)] put back into the range."""
        return HOW[self.how](x0, self.limit, self.quantile)

    def forward(self, x: Tensor, t: Time, **cond: Any) -> Prediction:
        """The prediction at x [(batch, *dims)] and t, put back into the range."""
        seen = self.model(x, t, **cond)
        origin = (self.sde, self.parametrization)
        return Prediction(x, self.kept(seen.x0), t, origin, seen.fraction)

    def bind(self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> RawCall:
        """x_0 as a function of (x, float), with the model's own preparations made once."""
        call = bind(self.model, x, times, cond)
        inner = parametrization_of(self.model)

        def made(t: Tensor) -> Sequence[tuple[float, float]]:
            sde = self.sde.reaching(float(t.max()))  # a run may churn above t_max
            on_x, on_raw = inner.weights(sde, t, x0=1.0)
            return list(zip(on_x.tolist(), on_raw.tolist(), strict=True))

        weights = PerTime(made, times)

        def clean(x: Tensor, t: float) -> Tensor:
            on_x, on_raw = weights[t]
            raw = call(x, t)
            if raw.shape != x.shape or raw.dtype != x.dtype:
                return raw  # refused, or cast, by who counts the calls
            return self.kept(torch.mul(x, on_x).add_(raw, alpha=on_raw))

        return clean
