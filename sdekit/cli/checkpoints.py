"""What commands need of a checkpoint: the file that a path names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdekit.errors import ConfigError

if TYPE_CHECKING:
    from sdekit.training import Checkpoint

__all__ = ["loaded"]


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
