r"""Checkpoints: a model and the state of its training, in one file; reading executes nothing.

The file holds tensors and *spellings*: every part that sdekit has to make again when it loads is
written as its name in the catalogue with literal fields, and made by that name, or refused. What
has no spelling (a network of your own, an SDE from two lambdas) is handed to `load_checkpoint`.

A run folder holds files `step-NUMBER.safetensors`; the newest is the one of the highest step.
"""

from __future__ import annotations

import copy
import os
import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdekit import __version__
from sdekit._check import integer, shown
from sdekit.errors import CheckpointError, DtypeError, SdekitError
from sdekit.model import Moments, ScoreModel
from sdekit.training import files
from sdekit.training.format import decode, encode
from sdekit.training.spelled import all_finite, check_fit, spelled, structure

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What `load_checkpoint` found.

    Args:
        path: the file.
        step: the number of training steps behind it.
        config: how the parts are spelled: sde, parametrization, time_input, uncertainty, network,
            objective, data, the rows held out of it (fraction, seed, how many; None: none), and
            what the trainer was told.
        weights: the model's state dict as trained.
        ema_weights: its moving average, where one was kept.
        state: what a resumed run needs: optimizer, generators, trainer.
        moments: the mean and covariance of the data, which the models have too; None where none
            were stored.
    """

    path: Path
    step: int
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    ema_weights: Mapping[str, Tensor] | None
    state: Mapping[str, Any]
    moments: Moments | None
    _structure: ScoreModel = field(repr=False)

    @property
    def model(self) -> ScoreModel:
        """A new model in eval mode: with averaged weights, or raw ones where none were kept."""
        return self._with(self.weights if self.ema_weights is None else self.ema_weights)

    def raw_model(self) -> ScoreModel:
        """A new model in eval mode with the weights as trained, not averaged."""
        return self._with(self.weights)

    def _with(self, weights: Mapping[str, Tensor]) -> ScoreModel:
        model = copy.deepcopy(self._structure)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name in weights:
                tensor.data = tensor.data.to(weights[name].dtype)
        model.load_state_dict(dict(weights))
        return model.eval()


def save_checkpoint(
    path: str | os.PathLike[str],
    model: ScoreModel,
    *,
    step: int = 0,
    ema: ScoreModel | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    objective: object = None,
    data: object = None,
    holdout: Mapping[str, Any] | None = None,
    generators: Mapping[str, torch.Generator | Tensor] | None = None,
    trainer: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    allow_nonfinite: bool = False,
) -> Path:
    """Write a checkpoint, all or nothing.

    Args:
        path: the file, or an existing run folder, where the file gets the name of its step.
        model: the model; its moments are stored with it.
        step: the number of training steps behind it.
        ema: the same model with averaged weights.
        optimizer: its state is stored for a resumed run.
        objective: what the model was trained by; its repr is stored.
        data: a description of the data (JSON), or an object of which the repr is stored.
        holdout: the fraction, seed and number of the rows that were held out, JSON.
        generators: random states by name, for a resumed run.
        trainer: how the trainer was set up, JSON, for the comparison when a run is resumed.
        state: counters of the trainer, JSON.
        allow_nonfinite: write weights that are NaN or infinite all the same.

    Returns:
        The path of the file.

    Raises:
        CheckpointError: the target is no plain file ("unsafe"), the weights are not finite
            ("corrupt"), or the system refuses, with its error as the cause. An older file at
            `path` is then as it was.
        DtypeError: model is no ScoreModel.

    Example:
        >>> import tempfile
        >>> from sdekit import ScoreModel, VPSDE
        >>> from sdekit.model import MLP
        >>> model = ScoreModel(MLP(2, width=8), VPSDE(beta_max=10.0), parametrization="v")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_checkpoint(folder, model, step=12)
        ...     found = load_checkpoint(folder)
        >>> path.name, found.step, found.model.sde
        ('step-00000012.safetensors', 12, vp(beta_min=0.1, beta_max=10.0))
    """
    if not isinstance(model, ScoreModel):
        raise DtypeError(f"model must be a ScoreModel, got {shown(model)}")
    step = integer("step", step, ge=0)
    target = Path(path)
    if os.path.isdir(target) and not target.is_symlink():  # Path.is_dir may raise
        target = target / files.name_of_step(step)
    files.regular(target, missing=True)  # before any work
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    if ema is not None:
        tensors |= {f"ema/{name}": value for name, value in ema.state_dict().items()}
    bad = [name for name, value in tensors.items() if not all_finite(value)]
    if bad and not allow_nonfinite:
        raise CheckpointError(
            f"refused to write {target}: NaN or infinity in {', '.join(bad)}; "
            "allow_nonfinite=True writes it all the same"
        )
    config = spelled(model, tensors)
    config["objective"] = None if objective is None else repr(objective)
    config["data"] = data if isinstance(data, str | Mapping | None) else repr(data)
    config["holdout"] = None if holdout is None else dict(holdout)
    config["trainer"] = dict(trainer or {})
    moments = None
    if model.moments is not None:
        parts, moments = model.moments.state()
        tensors |= {f"moments/{name}": value for name, value in parts.items()}
    groups, plain = _take_optimizer(optimizer, tensors)
    for name, generator in (generators or {}).items():
        given = generator.get_state() if isinstance(generator, torch.Generator) else generator
        tensors[f"generator/{name}"] = given
    meta = {
        "step": step,
        "has_ema": ema is not None,
        "config": config,
        "moments": moments,
        "optimizer": {"groups": groups, "plain": plain} if optimizer is not None else None,
        "state": dict(state or {}),
        "made_by": {
            "sdekit": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }
    files.write(target, encode(tensors, meta))
    return target


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    network: Callable[..., Tensor] | None = None,
    model: ScoreModel | None = None,
) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Args:
        path: a file, or a run folder: its newest complete checkpoint, by step number. A damaged
            one there is passed over with a warning.
        network: a network of the same structure, where the stored one is not in the catalogue.
        model: a model of the same structure, where the SDE or the time input is not either.
            It is copied, and left as it is.

    Raises:
        CheckpointError: of kind "corrupt" (damaged or cut short), "unsafe" (a pickle, an archive,
            a link, no plain file), "version" (written by a newer sdekit) or "incompatible" (not
            there, an unknown name, or weights that do not fit; all of them are listed).

    Example:
        >>> load_checkpoint("no-such-folder/step-00000001.safetensors")
        Traceback (most recent call last):
        sdekit.errors.CheckpointError: no such file: no-such-folder/step-00000001.safetensors
    """
    path = Path(path)
    if not os.path.isdir(path) or path.is_symlink():  # Path.is_dir may raise
        return _load(path, network, model)
    found = files.checkpoints(path)
    if not found:
        raise CheckpointError(f"no checkpoint in {path}", kind="incompatible")
    damaged: CheckpointError | None = None
    for _, candidate in found:
        try:
            result = _load(candidate, network, model)
        except CheckpointError as error:
            if error.kind != "corrupt":
                raise
            damaged = damaged or error
        else:
            if damaged is not None:
                warnings.warn(f"{damaged}; using {candidate.name}", RuntimeWarning, stacklevel=2)
            return result
    assert damaged is not None
    raise damaged


def _load(
    path: Path, network: Callable[..., Tensor] | None, model: ScoreModel | None
) -> Checkpoint:
    tensors, meta = decode(files.read(path), str(path))
    parts: dict[str, dict[str, Tensor]] = {
        "model": {},
        "ema": {},
        "generator": {},
        "moments": {},
        "optimizer": {},
        "sde": {},
    }
    try:
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        config, step = dict(meta["config"]), int(meta["step"])
        state = {**meta["state"], "generators": parts["generator"]}
        state["optimizer"] = _give_optimizer(meta["optimizer"], parts["optimizer"])
        has_ema = bool(meta["has_ema"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} lacks what a checkpoint holds: {error!r}") from error
    moments = _moments(path, parts["moments"], meta.get("moments"))
    skeleton = structure(path, config, parts["sde"], parts["model"], network, model)
    if moments is not None:
        skeleton.moments = moments
    ema = parts["ema"] if has_ema else None
    for name, weights in (("weights", parts["model"]), ("averaged weights", ema)):
        if weights is not None:
            shapes = {key: tuple(held.shape) for key, held in skeleton.state_dict().items()}
            check_fit(path, name, weights, shapes)
            bad = [key for key, value in weights.items() if not all_finite(value)]
            if bad:
                warnings.warn(
                    f"{path}: NaN or infinity in the {name} {', '.join(bad)}",
                    RuntimeWarning,
                    stacklevel=3,
                )
    return Checkpoint(path, step, config, parts["model"], ema, state, moments, skeleton)


def _moments(path: Path, tensors: Mapping[str, Tensor], meta: Any) -> Moments | None:
    """The stored moments, every part compared with the others; None in files without any."""
    if meta is None and not tensors:
        return None
    try:
        return Moments.from_state(tensors, meta)
    except SdekitError as error:
        raise CheckpointError(f"{path}: the moments of the data are damaged: {error}") from error


# the optimizer --------------------------------------------------------------------------------


def _take_optimizer(
    optimizer: torch.optim.Optimizer | None, tensors: dict[str, Tensor]
) -> tuple[list[Any], dict[str, Any]]:
    """The groups and the state that is no tensor, as JSON; the rest goes to the tensors."""
    if optimizer is None:
        return [], {}
    held, plain = optimizer.state_dict(), {}
    for index, values in held["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            elif value is not None:
                plain[f"{index}/{name}"] = value
    return held["param_groups"], plain


def _give_optimizer(
    stored: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]
) -> dict[str, Any] | None:
    """The state dict that `_take_optimizer` took apart."""
    if stored is None:
        return None
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *stored["plain"].items()]:
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    # JSON has no tuples, and torch's betas are one
    groups = [
        {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
        for group in stored["groups"]
    ]
    return {"state": dict(sorted(state.items())), "param_groups": groups}
