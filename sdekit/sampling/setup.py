"""What surrounds a run's loop: arguments resolved, the starting point, a network's mode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sdekit._check import choice, finite, floating, integer, shown
from sdekit.errors import ConfigError, DeviceError, DtypeError, ModelError, ShapeError
from sdekit.model import Moments, Predictor
from sdekit.sampling.noise import Noise
from sdekit.sde.base import LinearSDE
from sdekit.targets import Target

__all__ = [
    "checked_shape",
    "conditions",
    "evaluating",
    "placed",
    "progress_bar",
    "quiet",
    "sde_of",
    "serves",
    "sliced",
    "starting_law",
    "starting_point",
]

_BLOCK = 256  # draws of a target as prior, made together


def sde_of(model: Predictor) -> LinearSDE:
    """The process of a model, or the error that says what a model must have."""
    sde = getattr(model, "sde", None)
    if not callable(model) or not isinstance(sde, LinearSDE):
        raise ModelError(
            f"model must be a ScoreModel, an ExactScore or another predictor, got {shown(model)}"
        )
    return sde


def serves(sampler: Any, sde: LinearSDE) -> bool:
    """Whether the process is of the kinds that a sampler needs."""
    return bool(sampler.needs & {"linear", "vp", "ve", "ddpm"} <= sde.kinds)


def checked_shape(shape: object) -> tuple[int, ...]:
    """The shape (n, *dims) as a tuple of ints."""
    if not isinstance(shape, tuple | list | torch.Size) or not shape:
        raise ShapeError(f"shape must be a tuple (n, *dims), got {shown(shape)}")
    return tuple(integer("shape", n, ge=0) for n in shape)


def placed(
    model: Predictor,
    x_init: Tensor | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[torch.dtype, torch.device]:
    """The dtype and device of the samples, by the order that `sample` documents."""
    weights = None
    if isinstance(model, nn.Module):
        weights = next((p for p in model.parameters() if p.dtype.is_floating_point), None)
    like = floating("x_init", x_init) if x_init is not None else weights
    if dtype is None:
        target = getattr(getattr(model, "target", None), "_dtype", None)
        dtype = like.dtype if like is not None else target or torch.get_default_dtype()
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise DtypeError(f"dtype must be a real floating torch.dtype, got {shown(dtype)}")
    if device is None:
        device = like.device if like is not None else "cpu"
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, TypeError, AssertionError) as error:  # no such device, or not in torch
        raise DeviceError(
            f"device must be one that torch has here, got {shown(device)}: {error}"
        ) from None
    return dtype, place


def starting_law(
    model: Predictor, prior: str | Target, t: float, shape: tuple[int, ...]
) -> Moments | Target:
    """The law that a run which begins at t starts from.

    "standard" is the SDE's own N(0, prior_std(t)^2 I); "matched" has the moments of x_t,
    N(alpha_t m, alpha_t^2 C + sigma_t^2 I) with the data's m and C, the model's `moments`; a
    target is itself.

    Args:
        model: the predictor.
        prior: "standard", "matched", or a target.
        t: the first time of the run.
        shape: of a sample, (*dims).

    Raises:
        ConfigError: an unknown name, or "matched" for a model without moments.
        DtypeError: prior is neither a name nor a target, or the model's moments are no `Moments`.
        ShapeError: the target or the moments belong to samples of another shape.

    Example:
        >>> from sdekit import ExactScore, FlowSDE, Gaussian
        >>> model = ExactScore(Gaussian([2.0, 0.0], [[4.0, 0.0], [0.0, 1.0]]), FlowSDE())
        >>> law = starting_law(model, "matched", 0.5, (2,))  # alpha = sigma = 0.5
        >>> law.mean.tolist(), law.cov.diagonal().tolist()
        ([1.0, 0.0], [1.25, 0.5])
    """
    if isinstance(prior, Target):
        if tuple(prior.shape) != shape:
            raise ShapeError(f"prior has shape {tuple(prior.shape)}, the samples {shape}")
        return prior
    if not isinstance(prior, str):
        raise DtypeError(
            "prior must be 'standard', 'matched' or a Target (such as GaussianMixture), "
            f"got {shown(prior)}"
        )
    if choice("prior", prior, ("standard", "matched")) == "standard":
        return Moments.isotropic(shape, model.sde.prior_std(t) ** 2)
    moments = getattr(model, "moments", None)
    if moments is None:
        raise ConfigError(
            "prior='matched' needs the data's mean and covariance, and the model has none: set "
            "model.moments = Moments.of(data) (sdekit.model), as Trainer.fit does, or take "
            "prior='standard'"
        )
    if not isinstance(moments, Moments):
        raise DtypeError(f"prior='matched': model.moments must be Moments, got {shown(moments)}")
    if moments.shape != shape:
        raise ShapeError(
            f"prior='matched': model.moments are of samples {moments.shape}, these are {shape}"
        )
    return moments.perturbed(float(model.sde.alpha(t)), float(model.sde.var(t)))


def starting_point(
    model: Predictor,
    shape: tuple[int, ...],
    x_init: Tensor | None,
    prior: str | Target,
    t: float,
    key: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[[int, int, Noise], Tensor]:
    """Where samples low to high start, as a function of (low, high, noise).

    A function, because a run that may forget its start needs one tensor less.
    """
    if x_init is not None:
        if prior != "standard":
            raise ConfigError("x_init is the starting point, and so is a draw of prior: give one")
        if floating("x_init", x_init).shape != shape:
            raise ShapeError(f"x_init must have shape {shape}, got {tuple(x_init.shape)}")
        if x_init.device != device:
            raise DeviceError(f"x_init is on {x_init.device}, device={device}; move one of them")
        given = finite("x_init", x_init).to(dtype)
        return lambda low, high, noise: given[low:high]
    law = starting_law(model, prior, t, shape[1:])
    if isinstance(law, Target):
        drawn = _drawn(law, shape[0], key).to(device, dtype)
        return lambda low, high, noise: drawn[low:high]

    def begin(low: int, high: int, noise: Noise) -> Tensor:
        like = torch.empty((high - low, *shape[1:]), dtype=dtype, device=device)
        return law.colored(noise(like))

    return begin


def _drawn(prior: Target, n: int, key: int) -> Tensor:
    """n draws [(n, *dims)] in blocks with a seed each: draw i depends on key and i, not on n."""
    blocks = []
    for block in range(max(1, -(-n // _BLOCK))):
        digest = hashlib.blake2b(f"prior {key} {block}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        blocks.append(prior.sample(_BLOCK, generator=generator))
    return torch.cat(blocks)[:n]


def conditions(cond: object) -> Mapping[str, Any]:
    """The conditions of a run as a mapping, empty for None."""
    if not isinstance(cond, Mapping | None):
        raise DtypeError(f"cond must be a mapping from names to values, got {shown(cond)}")
    return cond or {}


def sliced(cond: Mapping[str, Any], low: int, high: int, n: int) -> dict[str, Any]:
    """The conditions of samples low to high: tensors with n rows are cut, all else is shared."""
    return {
        name: value[low:high]
        if isinstance(value, Tensor) and value.ndim and len(value) == n
        else value
        for name, value in cond.items()
    }


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """A network in evaluation mode, and every module back in its own mode afterwards."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules[:1]:
            module.eval()
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def quiet(model: object) -> Iterator[None]:
    """A network in evaluation mode, and nothing recorded; gradients may be asked for inside."""
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def progress_bar(wanted: bool, rows: int) -> Iterator[Callable[[], None] | None]:
    """What advances a progress bar by one row, or None where none is wanted."""
    if not wanted:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sampling", total=rows)
        yield lambda: bar.advance(task)
