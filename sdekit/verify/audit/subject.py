r"""The model that is audited: the network, held-out data, and what it says of them at each time.

At every time t of a grid the held-out samples are noised, x_t = alpha x_0 + sigma eps, and the
network is asked once for its prediction eps_hat(x_t, t). All measures are made of these draws.
Each sample is noised with eps and -eps, more often where there are few samples, and one sample's
values are averaged before anything is said about their spread: the samples are what is
independent, and what is odd in the noise cancels, which is most of it at low noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdekit._check import floating, integer, samples, shown
from sdekit._times import as_time
from sdekit.errors import ConfigError, DataError, ModelError, NonFiniteError, ShapeError, TimeError
from sdekit.model import ExactScore, Prediction, Predictor, ScoreModel
from sdekit.sampling.grid import resolve_grid
from sdekit.sampling.setup import evaluating
from sdekit.sde import LinearSDE
from sdekit.verify.audit.tolerances import tolerances as allowed
from sdekit.verify.claims import Skip

__all__ = ["DRAWS", "TIMES", "Audited", "Seen"]

DRAWS = 2**14  # noisy samples at each time
TIMES = 12
FEWEST = 100  # samples, below which an interval says nothing; each is noised twice
_NUMBERS = 2**20  # held at one time: fewer samples of large ones
_AT_ONCE = 2**18  # numbers in one call of the network


class Seen(NamedTuple):
    """What is known at one time.

    Attributes:
        t: the time.
        alpha: of it.
        sigma: of it.
        x: the noisy samples [(rows, d)], all noises of a sample beside each other.
        noise: behind them [(rows, d)].
        eps: predicted [(rows, d)].
    """

    t: float
    alpha: float
    sigma: float
    x: Tensor
    noise: Tensor
    eps: Tensor


class Audited:
    """A model and held-out data, as the checks of a model see them.

    Args:
        model: a predictor: `ScoreModel`, `ExactScore`, or anything with `sde` that is called as
            they are.
        data: clean samples that it was not trained on [(n, *dims)]; None: draws of the target of
            an `ExactScore`.
        times: how many, equally spaced in the log-SNR, or the times themselves [(k,)].
        draws: noisy samples at each time, at most.
        seed: of the noise.
        tolerances: other ones than `TOLERANCES`, by name.

    Raises:
        ConfigError: no data for a model that has no target; fewer than two times; an unknown name
            among the tolerances, or one that is not positive.
        DataError: fewer than 100 samples.
        ShapeError: data that is not (n, *dims).
        NonFiniteError: data that is not finite; the rows are named.
        TimeError: a time outside (0, t_max].
        DtypeError: data that is no floating tensor.

    Example:
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> audited = Audited(ExactScore(Gaussian([0.0, 1.0], 0.5), VPSDE()), draws=1000)
        >>> audited.at(0).x.shape
        torch.Size([1000, 2])
    """

    kinds = frozenset({"model"})

    def __init__(
        self,
        model: Predictor,
        data: Tensor | None = None,
        *,
        times: int | Tensor = TIMES,
        draws: int = DRAWS,
        seed: int = 0,
        tolerances: Mapping[str, float] | None = None,
    ) -> None:
        self.model = model
        self.sde: LinearSDE = model.sde
        self.seed = integer("seed", seed, ge=0, error=ConfigError)
        draws = integer("max_examples", draws, ge=2 * FEWEST, error=ConfigError)
        self.data = _clean(model, data, draws, self.seed)
        self.dims = tuple(self.data.shape[1:])
        self.d = math.prod(self.dims)
        rows = max(2 * FEWEST, min(draws, _NUMBERS // self.d))
        self.data = self.data.flatten(1)[: rows // 2]
        self.each = 2 * max(1, rows // (2 * len(self.data)))  # noises of a sample
        self.tolerances = allowed(tolerances)
        self.times = _times(self.sde, times)
        self._seen: dict[int, Seen] = {}
        self.cache: dict[str, Any] = {}  # of measures, by their names

    def __repr__(self) -> str:
        """The model, and the size of the data."""
        return f"audited {_name(self.model)} on {len(self.data)} samples of shape {self.dims}"

    @property
    def n(self) -> int:
        """The number of independent samples."""
        return len(self.data)

    def generator(self, *key: int) -> torch.Generator:
        """A stream of its own for each key."""
        mixed = self.seed
        for part in key:
            mixed = (mixed * 6364136223846793005 + part + 1442695040888963407) % 2**63
        return torch.Generator().manual_seed(mixed)

    def normal(self, *key: int) -> Tensor:
        """Standard normal draws [(rows, d)], of every sample one half minus the other."""
        half = self.plain(self.n * self.each // 2, *key).reshape(self.n, -1, self.d)
        return torch.cat([half, -half], 1).reshape(-1, self.d)

    def plain(self, rows: int, *key: int) -> Tensor:
        """Independent standard normal draws [(rows, d)]."""
        draw = torch.randn(rows, self.d, generator=self.generator(*key), dtype=torch.float64)
        return draw.to(self.data.device)

    def level(self, t: float) -> tuple[float, float]:
        """alpha and sigma."""
        return float(self.sde.alpha(t)), float(self.sde.sigma(t))

    def at(self, k: int) -> Seen:
        """The draws and the prediction at time k, made when they are first asked for."""
        if k not in self._seen:
            t = float(self.times[k])
            alpha, sigma = self.level(t)
            noise = self.normal(k)
            x = alpha * self.data.repeat_interleave(self.each, 0) + sigma * noise
            self._seen[k] = Seen(t, alpha, sigma, x, noise, self.eps(x, t))
        return self._seen[k]

    def all(self) -> Iterator[Seen]:
        """Every time, from the data to the noise."""
        return (self.at(k) for k in range(len(self.times)))

    def eps(self, x: Tensor, t: float, model: Predictor | None = None) -> Tensor:
        """The predicted noise [(rows, d)], float64, without gradient."""
        return self.predicted(x, t, model).eps.reshape(len(x), self.d).double()

    def predicted(self, x: Tensor, t: float, model: Predictor | None = None) -> Prediction:
        """The prediction at x [(rows, d)], seen as (rows, *dims); large batches in parts."""
        model = self.model if model is None else model
        rows = max(1, _AT_ONCE // self.d)
        with torch.no_grad(), evaluating(model):
            parts = [self._called(model, part, t) for part in x.split(rows)]
        origin = parts[0]._origin
        raw = torch.cat([part.raw for part in parts]).double()
        if not bool(torch.isfinite(raw).all()):
            raise NonFiniteError(f"the model's output at t = {t:.6g} holds NaN or infinity")
        return Prediction(x.reshape(len(x), *self.dims), raw, t, origin)

    def differentiable(self, x: Tensor, t: float) -> Tensor:
        """The predicted noise [(rows, d)] with its graph, at x [(rows, d)] that has a gradient.

        Raises:
            Skip: the network cuts the gradient: its output depends on x, and has no graph.
        """
        seen = self._called(self.model, x, t)
        raw = seen.raw.detach()
        if not seen.raw.requires_grad and bool((raw != raw[:1]).any()):
            raise Skip("the model's output has no gradient by x: its Jacobian is not known")
        return seen.eps.reshape(len(x), self.d).double()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The network in evaluation mode, with gradients."""
        with torch.enable_grad(), evaluating(self.model):
            yield

    def _called(self, model: Predictor, x: Tensor, t: float) -> Prediction:
        seen = model(x.reshape(len(x), *self.dims), t)
        if not isinstance(seen, Prediction):
            raise ModelError(f"the model must return a Prediction, got {shown(seen)}")
        return seen


def adapted(model: Any, sde: LinearSDE | None, parametrization: Any) -> Predictor:
    """The model as a predictor.

    Raises:
        ConfigError: a plain network without sde or parametrization, or a model that has its own.
    """
    if "linear" in getattr(getattr(model, "sde", None), "kinds", ()):
        for name, value in (("sde", sde), ("parametrization", parametrization)):
            if value is not None:
                raise ConfigError(
                    f"{name} belongs to a plain network; {_name(model)} has its own, got "
                    f"{shown(value)}"
                )
        return model
    if sde is None or parametrization is None:
        raise ConfigError(
            "a plain network needs sde=... and parametrization=..., what its output is declared "
            f"to be; got sde={shown(sde)}, parametrization={shown(parametrization)}"
        )
    return ScoreModel(model, sde, parametrization=parametrization)


def _name(model: Any) -> str:
    network = getattr(model, "network", None)
    inner = getattr(network, "__name__", type(network).__name__)
    return type(model).__name__ + ("" if network is None else f"({inner})")


def _clean(model: Any, data: Any, draws: int, seed: int) -> Tensor:
    """The data in float64 on the model's device, in an order of their own."""
    generator = torch.Generator().manual_seed(seed)
    if data is None:
        if not isinstance(model, ExactScore):
            raise ConfigError(
                "data must be held-out clean samples (n, *dims): only an ExactScore has a target "
                f"to draw them from, got None for {_name(model)}"
            )
        return model.target.sample(draws, generator=generator, dtype=torch.float64)
    if floating("data", data).ndim < 2:
        raise ShapeError(f"data must have shape (n, *dims), got {tuple(data.shape)}")
    if data.numel() == 0 or len(data) < FEWEST:
        raise DataError(
            f"data must hold at least {FEWEST} samples for an interval to say anything, got shape "
            f"{tuple(data.shape)}"
        )
    data = samples("data", data, tuple(model.target.shape) if hasattr(model, "target") else None)
    device = data.device
    if isinstance(model, nn.Module):
        device = next((p.device for p in model.parameters()), device)
    order = torch.randperm(len(data), generator=generator)
    return data.detach().to(device, torch.float64)[order.to(device)]


def _times(sde: LinearSDE, times: Any) -> Tensor:
    """Increasing times at which sigma > 0 [(k,)]."""
    if not isinstance(times, Tensor):
        count = integer("times", times, ge=2, error=ConfigError)
        if "ddpm" in sde.kinds:
            count = min(count, sde.default_steps)
        grid = resolve_grid("log_snr", sde, count if "ddpm" in sde.kinds else count - 1)
        return grid[sde.var(grid) > 0].flip(0)
    wide, _ = as_time(times, sde.t_max, "times")
    if wide.ndim != 1 or len(wide) < 2:
        raise ShapeError(f"times must be (k,) with k >= 2, got shape {tuple(wide.shape)}")
    wide = wide.detach().cpu().unique()
    if not bool((sde.var(wide) > 0).all()):
        raise TimeError(f"times must have sigma(t) > 0, got {float(wide[0])!r}")
    return wide
