"""A model as spellings, and the model that spellings describe.

Every part is written as its name in the catalogue with literal fields. A chain given by its betas
has no such name: its table is stored as it is. What has no spelling at all is marked as such.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdekit._catalogue import catalogue, make_one
from sdekit.errors import CheckpointError, SdekitError
from sdekit.model import TIME_INPUTS, Parametrization, ScoreModel
from sdekit.model.uncertainty import Uncertainty
from sdekit.sde import DDPM, LinearSDE

__all__ = ["all_finite", "check_fit", "spelled", "structure"]

_UNSPELLED = "has no spelling"


def spelled(model: ScoreModel, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The parts of a model as spellings; a table of betas goes to the tensors."""
    network, sde = model.network, model.sde
    spelled = repr(sde)
    if not _spells(sde):
        betas = getattr(sde, "betas", None)
        if isinstance(betas, Tensor):
            tensors["sde/betas"] = betas
            tensors["sde/ends"] = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
        else:
            spelled = f"{type(sde).__name__} {_UNSPELLED}"
    name, entries = getattr(network, "catalogue_name", None), catalogue("network")
    here: dict[str, Any] = {
        "name": None,
        "class": f"{type(network).__module__}.{type(network).__qualname__}",
    }
    if isinstance(name, str) and name in entries and type(network) is entries[name].cls:
        here = {"name": name, "config": dict(getattr(network, "config", {}))}
    return {
        "sde": spelled,
        "parametrization": repr(model.parametrization),
        "time_input": model.time_input if isinstance(model.time_input, str) else _UNSPELLED,
        "uncertainty": _believed(model.uncertainty),
        "network": here,
        **({} if model.variance is None else {"variance": model.variance}),
    }


def _believed(module: nn.Module | None) -> Any:
    """The fields of sdekit's own module, that another has no spelling, or None for none."""
    if module is None:
        return None
    return dict(module.config) if type(module) is Uncertainty else _UNSPELLED


def _spells(sde: LinearSDE) -> bool:
    """Whether the repr makes the process again."""
    try:
        return bool(make_one("sde", repr(sde), LinearSDE) == sde)
    except SdekitError:
        return False


def _stored_sde(config: Mapping[str, Any], table: Mapping[str, Tensor]) -> LinearSDE:
    if table:
        t_min, t_max = table["ends"].tolist()
        return DDPM(table["betas"], t_min=t_min, t_max=t_max)
    return make_one("sde", config["sde"], LinearSDE)


def structure(
    path: Path,
    config: Mapping[str, Any],
    table: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    network: Callable[..., Tensor] | None,
    model: ScoreModel | None,
) -> ScoreModel:
    """The model that the config describes, or the given one, compared with the config."""
    if model is not None:
        mine = spelled(model, {})
        wrong = [
            f"{name}: {config.get(name)} stored, {mine.get(name)} given"
            for name in ("sde", "parametrization", "time_input", "variance", "uncertainty")
            if config.get(name) != mine.get(name)
        ]
        if not wrong and table and _stored_sde(config, table) != model.sde:
            wrong = ["sde: another table of betas"]
        if wrong:
            raise CheckpointError(f"{path}: {'; '.join(wrong)}", kind="incompatible")
        return copy.deepcopy(model)
    own = {name: value for name, value in weights.items() if name.startswith("network.")}
    if network is None and (wanted := _declared(config, len(own))) is not None:
        check_fit(path, "weights", own, wanted)  # before anything of that size is made
    try:
        sde = _stored_sde(config, table)
        parametrization = make_one("parametrization", config["parametrization"], Parametrization)
        if config["time_input"] not in TIME_INPUTS:
            raise CheckpointError(f"time_input={config['time_input']!r}", kind="incompatible")
        believed = config.get("uncertainty")  # files of before have none
        if isinstance(believed, str):
            raise CheckpointError(f"its uncertainty {believed}", kind="incompatible")
        stored = config["network"]
        if network is None and stored["name"] is None:
            raise CheckpointError(
                f"its network {stored['class']} is not in the catalogue; pass network=",
                kind="incompatible",
            )
        if network is None:
            network = catalogue("network")[stored["name"]].make(**stored["config"])
        return ScoreModel(
            copy.deepcopy(network),
            sde,
            parametrization=parametrization,
            time_input=config["time_input"],
            variance=config.get("variance"),
            uncertainty=False if believed is None else Uncertainty(**believed),
        )
    except Exception as error:  # an unknown name, a bad field, an SDE without spelling
        raise CheckpointError(
            f"{path} cannot be made again: {error} (a model with parts of your own: pass model=)",
            kind="incompatible",
        ) from error


def _declared(config: Mapping[str, Any], stored: int) -> dict[str, tuple[int, ...]] | None:
    """The shapes that a network of the catalogue declares for its config, if it does."""
    try:
        network = config["network"]
        shapes = catalogue("network")[network["name"]].cls.shapes  # type: ignore[attr-defined]
        return {f"network.{k}": v for k, v in shapes(stored, **network["config"]).items()}
    except Exception:  # it declares none, or `structure` will say what is wrong with it
        return None


def check_fit(
    path: Path, what: str, given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Every key there, none besides, every shape right; else all that is wrong in one error."""
    wrong = [f"missing {key}" for key in wanted if key not in given]
    wrong += [f"unexpected {key}" for key in given if key not in wanted]
    wrong += [
        f"{key} has shape {tuple(given[key].shape)}, the network has {wanted[key]}"
        for key in wanted
        if key in given and tuple(given[key].shape) != wanted[key]
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: the {what} do not fit the network: {'; '.join(wrong)}", kind="incompatible"
        )


def all_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
