"""A folder that holds a pipeline of diffusers, as a `ScoreModel`.

The folder is what `DDPMPipeline(...).save_pretrained(folder)` writes: a U-Net, and the settings of
a scheduler, of which only the chain of betas and what the network predicts are used. The betas are
made anew in float64; samplers, grids and step counts are sdekit's. Nothing in the folder is
executed, and nothing is downloaded: weights are read from safetensors files only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdekit._check import shown
from sdekit._extras import needed
from sdekit.errors import CheckpointError
from sdekit.model.score_model import ScoreModel
from sdekit.sde import DDPM

__all__ = ["from_pipeline", "is_pipeline"]

_INDEX = "model_index.json"
_PREDICTS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_SCHEDULES = {
    "linear": "linear", "scaled_linear": "scaled_linear", "sigmoid": "sigmoid",
    "squaredcos_cap_v2": "cosine",
}  # fmt: skip
_ENDS = ("linear", "scaled_linear", "sigmoid")  # whose betas run from beta_start to beta_end


def is_pipeline(folder: Path) -> bool:
    """Whether a folder holds a pipeline of diffusers."""
    return (folder / _INDEX).is_file()


class _Unet(nn.Module):
    """A U-Net of diffusers, called as network(x, time)."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, time: Tensor, **cond: Any) -> Tensor:
        out: Tensor = self.unet(x, time, **cond).sample
        return out


def from_pipeline(folder: Path) -> tuple[ScoreModel, tuple[int, ...]]:
    """The model of a pipeline, in eval mode, and the shape of a sample (channels, height, width).

    Raises:
        CheckpointError: "incompatible": the folder is no pipeline with an unconditional
            `UNet2DModel`, or its chain is one that sdekit does not make; the key is named.
            "corrupt": a file of it cannot be read.
        ModuleNotFoundError: diffusers is missing: pip install 'sdekit[interop]'.
    """
    unets = needed("diffusers", extra="interop", by="a pipeline").UNet2DModel
    index = _json(folder / _INDEX)
    kind = (index.get("unet") or [None, None])[-1]
    if kind != "UNet2DModel":
        raise CheckpointError(
            f"{folder}: only pipelines with an unconditional UNet2DModel can be compared, got "
            f"{shown(kind)}", kind="incompatible",
        )  # fmt: skip
    settings = _json(folder / "scheduler" / "scheduler_config.json")
    predicts = settings.get("prediction_type", "epsilon")
    if predicts not in _PREDICTS:
        raise CheckpointError(
            f"{folder}: prediction_type={shown(predicts)} is not one of {', '.join(_PREDICTS)}",
            kind="incompatible",
        )
    try:
        unet = unets.from_pretrained(folder / "unet", local_files_only=True, use_safetensors=True)
    except Exception as error:  # whatever a damaged file makes diffusers raise
        text = str(error).partition("\n")[0]
        raise CheckpointError(f"{folder}: its U-Net cannot be read: {text}") from error
    size = unet.config.sample_size
    if size is None:
        raise CheckpointError(f"{folder}: its U-Net does not say sample_size", kind="incompatible")
    height, width = (size, size) if isinstance(size, int) else size
    model = ScoreModel(
        _Unet(unet), _chain(folder, settings), parametrization=_PREDICTS[predicts],
        time_input="index",
    )  # fmt: skip
    return model.eval(), (unet.config.in_channels, height, width)


def _chain(folder: Path, settings: dict[str, Any]) -> DDPM:
    """The chain of betas that a scheduler's settings describe."""
    if settings.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            f"{folder}: rescale_betas_zero_snr makes alpha_T = 0, where eps says nothing about "
            "x_0; sdekit has no such chain", kind="incompatible",
        )  # fmt: skip
    if settings.get("trained_betas") is not None:
        return DDPM(torch.tensor(settings["trained_betas"], dtype=torch.float64))
    schedule = settings.get("beta_schedule", "linear")
    if schedule not in _SCHEDULES:
        raise CheckpointError(
            f"{folder}: beta_schedule={shown(schedule)} is not one of {', '.join(_SCHEDULES)}",
            kind="incompatible",
        )
    ends = {name: settings[name] for name in ("beta_start", "beta_end") if name in settings}
    return DDPM.from_fields(
        n=settings.get("num_train_timesteps", 1000), schedule=_SCHEDULES[schedule],
        **(ends if schedule in _ENDS else {}),
    )  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}", kind="incompatible") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no settings")
    return found
