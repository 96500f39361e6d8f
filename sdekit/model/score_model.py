"""A network as a model of the score: what it predicts, what time it is told, how x is scaled.

The network is any module `network(x, time, **cond) -> tensor like x` with `time` of shape
(batch,). The one place where a time other than t in [0, 1] appears is the field `time_input`:

    name      the network is told
    t         t
    index     round(t N) - 1, the 0-based index of a DDPM's tables
    sigma     sigma / alpha, the noise level in units of the data
    c_noise   log(sigma / alpha) / 4                                     arXiv:2206.00364, table 1
    log_snr   log(alpha^2 / sigma^2)                                     arXiv:2107.00630

A network may learn the variances of a chain's reverse steps too: it then returns twice the
channels, the prediction and, in [-1, 1], where the step's log-variance lies between that of the
posterior (-1) and log beta (1); arXiv:2102.09672, eq. 15.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdekit._cache import cached
from sdekit._catalogue import make_one
from sdekit._check import choice, finite, floating, shown
from sdekit._times import Time, as_time, expand_like
from sdekit.errors import ConfigError, DtypeError, ModelError, ShapeError
from sdekit.model.moments import Moments
from sdekit.model.parametrization import Parametrization
from sdekit.model.prediction import WINDOW, PerTime, Prediction, RawCall
from sdekit.model.uncertainty import Uncertainty
from sdekit.sde.base import LinearSDE

__all__ = ["TIME_INPUTS", "VARIANCES", "ScoreModel"]

_LARGE = 2**14  # samples of a batch for which memory counts more than a microsecond a call

TimeInput = Callable[[Any, Tensor], Tensor]

TIME_INPUTS: Mapping[str, TimeInput] = {
    "t": lambda sde, t: t,
    "index": lambda sde, t: (sde.index(t) - 1).to(t.dtype),
    "sigma": lambda sde, t: (-0.5 * sde.log_snr(t)).exp(),
    "c_noise": lambda sde, t: -0.125 * sde.log_snr(t),
    "log_snr": lambda sde, t: sde.log_snr(t),
}


VARIANCES = ("learned_range",)  # of reverse steps that a network may learn


def _doubled(shape: torch.Size) -> torch.Size:
    """The shape with twice the entries along dimension 1."""
    if len(shape) < 2:
        raise ShapeError(f"a learned variance needs samples (batch, n, ...), got {tuple(shape)}")
    return torch.Size([shape[0], 2 * shape[1], *shape[2:]])


def _first_half(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The prediction of a network that returns the fraction after it."""

    def half(x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        both, wanted = network(x, told, **cond), _doubled(x.shape)
        if not isinstance(both, Tensor):
            return both  # who counts the calls refuses it
        if both.shape != wanted:
            raise ShapeError(f"the network must return {tuple(wanted)}, got {tuple(both.shape)}")
        return both[:, : x.shape[1]]

    return half


def _function(time_input: str | TimeInput) -> TimeInput:
    return TIME_INPUTS[time_input] if isinstance(time_input, str) else time_input


@cached(8)
def _inputs(
    time_input: str | TimeInput,
    sde: LinearSDE,
    times: tuple[float, ...],
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
) -> PerTime:
    """The network's time inputs, one tensor [(batch,)] for each time of a plan."""

    def made(t: Tensor) -> Tensor:
        longer = sde.reaching(float(t.max()))  # a run may churn above t_max
        column = _function(time_input)(longer, t).to(device, dtype)
        return column[:, None].expand(len(t), batch)

    # a view takes more than a kilobyte: those of 1000 steps more than most states
    return PerTime(made, times, window=WINDOW if batch >= _LARGE else None)


class ScoreModel(nn.Module):
    """A network, the process it belongs to, and what its output means.

    Args:
        network: called as `network(x, time, **cond)` with x [(batch, *dims)], time [(batch,)].
        sde: the process.
        parametrization: what the output predicts: eps, x0, score, v, flow, or edm(sigma_data=...),
            which also scales the input.
        time_input: a name of the table above, or a callable (sde, t) -> tensor of the shape of t.
        moments: the mean and covariance of the data, for `sample(..., prior="matched")`. The
            attribute may be set later, and `Trainer.fit` sets it where it is None.
        variance: None, or "learned_range": the network returns twice the entries along dimension
            1, first the prediction, then the `fraction` of its `Prediction`.
        uncertainty: True for an `Uncertainty`, or a module of one's own (batch,) -> (batch,): u of
            the learned weighting `uncertainty`, a function of log(sigma / alpha) / 4.

    Raises:
        ConfigError: an unknown name, or `index` on a process without indices.
        DtypeError: the network is not callable, sde is no LinearSDE, moments no Moments, or
            uncertainty neither a bool nor a module.

    Reference: arXiv:2011.13456, section 3.3; arXiv:2206.00364, section 5.

    Example:
        >>> import torch
        >>> from sdekit import ScoreModel, VPSDE
        >>> from sdekit.model import MLP
        >>> model = ScoreModel(MLP(2, seed=0), VPSDE(), parametrization="v")
        >>> model(torch.zeros(5, 2), 0.3).score.shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        sde: LinearSDE,
        *,
        parametrization: str | Parametrization = "eps",
        time_input: str | TimeInput = "t",
        moments: Moments | None = None,
        variance: str | None = None,
        uncertainty: bool | nn.Module = False,
    ) -> None:
        super().__init__()
        if not callable(network):
            raise DtypeError(f"network must be callable, got {shown(network)}")
        if not isinstance(sde, LinearSDE):
            raise DtypeError(f"sde must be a LinearSDE, got {shown(sde)}")
        if not callable(time_input):
            choice("time_input", time_input, TIME_INPUTS)
        if time_input == "index" and "ddpm" not in sde.kinds:
            raise ConfigError(f"time_input='index' needs a chain with indices, got sde={sde!r}")
        if not isinstance(moments, Moments | None):
            raise DtypeError(f"moments must be a Moments or None, got {shown(moments)}")
        if not isinstance(uncertainty, bool | nn.Module):
            raise DtypeError(
                f"uncertainty must be True, False or a module, got {shown(uncertainty)}"
            )
        self.network = network
        self.sde = sde
        self.parametrization: Parametrization = make_one(
            "parametrization", parametrization, Parametrization
        )
        self.time_input = time_input
        self.moments = moments
        self.variance = None if variance is None else choice("variance", variance, VARIANCES)
        self.uncertainty: nn.Module | None = (
            (Uncertainty() if uncertainty else None)
            if isinstance(uncertainty, bool)
            else uncertainty
        )

    def forward(self, x: Tensor, t: Time, **cond: Any) -> Prediction:
        """One call of the network at x [(batch, *dims)] and t [float or one a sample]."""
        if floating("x", x).ndim == 0:
            raise ShapeError("x must have shape (batch, *dims), got a 0-d tensor")
        if getattr(t, "checked_until", None) == self.sde.t_max:  # an objective's own, prepared
            times = t
        else:
            finite("x", x)
            times, _ = as_time(t, self.sde.t_max)
            expand_like(times.to(x.device), x)  # refuses a shape that does not fit the batch
        times = (times if times.ndim < 2 else times.flatten()).to(x.device)
        raw = self._network_call(x, self._told(times, x.shape[0]), self._scale(times), cond)
        if not isinstance(raw, Tensor):
            raise ModelError(f"the network must return a tensor, got {type(raw).__name__}")
        wanted = x.shape if self.variance is None else _doubled(x.shape)
        if raw.shape != wanted:
            raise ShapeError(f"the network must return {tuple(wanted)}, got {tuple(raw.shape)}")
        if not raw.dtype.is_floating_point:
            raise ModelError(f"the network must return a real floating tensor, got {raw.dtype}")
        raw, fraction = raw.to(x.dtype), None
        if self.variance is not None:
            raw, fraction = raw.chunk(2, dim=1)
        return Prediction(x, raw, t, (self.sde, self.parametrization), fraction)

    def bind(self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> RawCall:
        """The network as a function of (x, float) with its time inputs and scales made once.

        It returns the prediction alone, also where the network learns variances.
        """
        network, dtype = self.network, self._dtype()
        if self.variance is not None:
            network = _first_half(network)
        told = dtype or torch.get_default_dtype()
        inputs = _inputs(self.time_input, self.sde, tuple(times), x.shape[0], told, x.device)
        if self._scale(torch.tensor(self.sde.t_max, dtype=torch.float64)) is None:
            if dtype is not None and dtype != x.dtype:
                return lambda x, t: network(x.to(dtype), inputs[t], **cond)
            if cond:
                return lambda x, t: network(x, inputs[t], **cond)
            return lambda x, t: network(x, inputs[t])

        def scale(t: Tensor) -> Sequence[float]:
            sde = self.sde.reaching(float(t.max()))  # a run may churn above t_max
            return self.parametrization.input_scale(sde, t).tolist()  # type: ignore[union-attr]

        scales = PerTime(scale, times)
        return lambda x, t: network((x * scales[t]).to(dtype or x.dtype), inputs[t], **cond)

    def _dtype(self) -> torch.dtype | None:
        """The dtype that the network computes in; None where it has no floating parameter."""
        network = self.network
        held = network.parameters() if isinstance(network, nn.Module) else ()
        return next((p.dtype for p in held if p.dtype.is_floating_point), None)

    def _told(self, t: Tensor, batch: int) -> Tensor:
        """The network's time input [(batch,)]."""
        told = _function(self.time_input)(self.sde, t)
        told = told.to(self._dtype() or torch.get_default_dtype())
        return expand_like(told, told.new_empty(batch)).expand(batch)

    def _scale(self, t: Tensor) -> Tensor | None:
        return self.parametrization.input_scale(self.sde, t)

    def _network_call(
        self, x: Tensor, told: Tensor, scale: Tensor | None, cond: Mapping[str, Any]
    ) -> Tensor:
        seen = x if scale is None else x * expand_like(scale, x)
        dtype = self._dtype()
        return self.network(seen if dtype is None else seen.to(dtype), told, **cond)
