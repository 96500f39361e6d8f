"""What a checkpoint says about the data of its run: a sample's shape, and the law, if any."""

from __future__ import annotations

from typing import Any

from sdekit._catalogue import make
from sdekit.errors import ConfigError
from sdekit.training.checkpoint import Checkpoint

__all__ = ["shape_of", "trained_on"]


def shape_of(found: Checkpoint) -> tuple[int, ...]:
    """The shape of a sample, from what the checkpoint says about its data."""
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
    data = found.config.get("data")
    return make("target", data["target"]) if isinstance(data, dict) and "target" in data else None
