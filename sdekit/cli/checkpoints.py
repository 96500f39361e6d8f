"""What commands need of a checkpoint: the file, the shape of a sample, the law it is made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdekit.errors import ConfigError

if TYPE_CHECKING:
    from sdekit.training import Checkpoint

__all__ = ["loaded", "shape_of", "trained_on"]


def loaded(path: Path) -> Checkpoint:
    """The checkpoint of a file or a run folder.

    Raises:
        ConfigError: there is nothing at the path.
        CheckpointError: as for `load_checkpoint`.
    """
    from sdekit.training import load_checkpoint

    if not path.exists():
        raise ConfigError(f"no such file or folder: {path}")
    return load_checkpoint(path)


def shape_of(found: Checkpoint) -> tuple[int, ...]:
    """The shape of a sample, from what the checkpoint says about its data."""
    from sdekit._catalogue import make

    data = found.config.get("data") or {}
    if isinstance(data, dict) and "tensor" in data:
        return tuple(data["tensor"][1:])
    if isinstance(data, dict) and "target" in data:
        return tuple(make("target", data["target"]).shape)
    dim = found.config["network"].get("config", {}).get("dim")
    if dim is None:
        raise ConfigError(f"{found.path} does not say what shape its samples have")
    return (dim,)


def trained_on(found: Checkpoint) -> Any:
    """The target that the checkpoint was trained on; None where it was a file."""
    from sdekit._catalogue import make

    data = found.config.get("data")
    return make("target", data["target"]) if isinstance(data, dict) and "target" in data else None
