"""The rows that a run never saw, found again from its checkpoint and its data.

A checkpoint says which fraction was held out and by which seed, and it has the digest of the data:
the same rows come out of the same data, and other data are refused.
"""

from __future__ import annotations

from torch import Tensor

from sdekit._catalogue import make
from sdekit._check import floating, shown
from sdekit.errors import ConfigError, DataError
from sdekit.targets._split import split_rows
from sdekit.training.checkpoint import Checkpoint
from sdekit.training.data import described

__all__ = ["held_out"]


def held_out(found: Checkpoint, data: Tensor | None = None) -> Tensor:
    """The test split of a checkpoint [(m, *dims)].

    Args:
        found: the checkpoint of a run with `holdout`, or on a target with a test split of its own,
            such as digits.
        data: the whole tensor that the run was given; not needed with a target.

    Raises:
        ConfigError: the run held nothing out, or data is missing.
        DataError: data is not what the run was given; both descriptions are shown.
        DtypeError: data is no floating tensor.

    Example:
        >>> import tempfile, torch
        >>> from sdekit import ScoreModel, Trainer, VPSDE, load_checkpoint
        >>> from sdekit.model import MLP
        >>> data = torch.randn(50, 2)
        >>> trainer = Trainer(ScoreModel(MLP(2, width=8), VPSDE()))
        >>> with tempfile.TemporaryDirectory() as run:
        ...     trainer.fit(data, steps=1, holdout=0.1, checkpoint_dir=run).steps
        ...     held_out(load_checkpoint(run), data).shape
        1
        torch.Size([5, 2])
    """
    stored, split = found.config.get("data"), found.config.get("holdout")
    if isinstance(stored, dict) and "target" in stored:
        target = make("target", stored["target"])
        if not hasattr(target, "test"):
            raise ConfigError(
                f"{found.path} was trained on fresh samples of {target!r}, which has no test split"
            )
        images: Tensor = target.test().data
        return images
    if split is None:
        raise ConfigError(f"{found.path} comes of a run that held nothing out (train --holdout)")
    if data is None:
        raise ConfigError(f"{found.path} was trained on a tensor: its test split needs data")
    given = described(floating("data", data))
    if given != stored:
        raise DataError(
            f"data is not that of {found.path}: {given} now, {shown(stored, 300)} then"
        )
    held = split_rows(len(data), split["fraction"], split["seed"])[1]
    if len(held) != split["rows"]:
        raise DataError(f"{found.path} held out {split['rows']} rows, and {len(held)} were found")
    return data[held.to(data.device)]
