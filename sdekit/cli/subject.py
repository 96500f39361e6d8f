"""What `sdekit likelihood` is asked about: a model, some data, and the levels these were made of.

Levels are cells, `Quantization`: a whole number k stands for [low + k w, low + (k + 1) w) with
w = (high - low) / levels, and its own value is the middle of the cell. A target that declares its
levels (digits) has them equally spaced from its first to its last one: its cells reach half a step
beyond both.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdekit.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdekit.likelihood import Quantization
    from sdekit.model import Predictor
    from sdekit.training import Checkpoint

__all__ = ["SPLITS", "Data", "Subject", "subject_of"]

SPLITS = ("test", "train")
_WHOLE = (
    "whole numbers have no density: say how many values they take with --levels, and with --low "
    "and --high where the model has their cells"
)


@dataclass(frozen=True, eq=False)
class Data:
    """The samples, before any noise is added.

    Attributes:
        x: as floating numbers [(n, *dims)].
        cells: as whole numbers 0 .. levels - 1, where levels are declared.
        levels: how these became x.
        whole: whether x came as whole numbers.
        about: where the samples come from, JSON.
        generator: draws the noise of dequantisation.
    """

    x: Tensor
    cells: Tensor | None
    levels: Quantization | None
    whole: bool
    about: dict[str, Any]
    generator: torch.Generator = field(repr=False)

    @property
    def middles(self) -> Tensor:
        """The samples in the middles of their cells [(n, *dims)]."""
        assert self.cells is not None
        assert self.levels is not None  # who asks has looked
        x = self.levels.low + self.levels.width * (self.cells.double() + 0.5)
        return x.to(self.x)

    def dequantized(self) -> Tensor:
        """One draw of x + noise inside the cells [(n, *dims)]."""
        from sdekit.likelihood import dequantize

        assert self.cells is not None
        assert self.levels is not None  # who asks has looked
        how = self.levels
        x = dequantize(
            self.cells, levels=how.levels, low=how.low, high=how.high, generator=self.generator,
            dtype=self.x.dtype,
        )  # fmt: skip
        return x.to(self.x.device)


@dataclass(frozen=True, eq=False)
class Subject:
    """The model, the data, and the density that the data are known to have, if any.

    Attributes:
        model: what is asked.
        what: it and its process, in words.
        data: the samples.
        law: the law whose density the samples can be held against; None where none is known.
    """

    model: Predictor
    what: str
    data: Data
    law: Any


def subject_of(options: Any, device: torch.device) -> Subject:
    """What the options name.

    Args:
        options: with checkpoint, target, sde, data, split, n, levels, low, high and seed.
        device: where it goes.

    Raises:
        ConfigError: nothing is named, two things that contradict each other are, or the run held
            nothing out; an unknown name (the nearest is named).
        DataError: data that cannot be read, that are not those of the run, or of another shape.
    """
    import torch

    from sdekit._catalogue import make_one
    from sdekit._check import shown
    from sdekit.cli.checkpoints import loaded
    from sdekit.model import ExactScore
    from sdekit.sde import LinearSDE
    from sdekit.targets import ExactTarget, Target
    from sdekit.training.origin import shape_of, trained_on

    target: Any = None
    if options.target is not None:
        target = make_one("target", options.target, Target)
    generator = torch.Generator().manual_seed(options.seed)
    model: Any
    law: Any
    if options.checkpoint is None:
        if target is None:
            raise ConfigError("name what to evaluate: a CHECKPOINT, or --target NAME")
        if options.split is not None:
            raise ConfigError("--split is of a CHECKPOINT's data; an exact score has no training")
        if not isinstance(target, ExactTarget):
            raise ConfigError(
                f"--target {shown(target)} has no score in closed form; name a gaussian, "
                "gaussian_mixture, tutorial or empirical one, or a CHECKPOINT"
            )
        sde = make_one("sde", options.sde or "vp", LinearSDE)
        model, dtype = ExactScore(target, sde), torch.float64
        what = f"the exact score of {shown(target)} under {shown(sde)}"
        shape, law, found = tuple(target.shape), target, None
    else:
        if options.sde is not None:
            raise ConfigError("--sde contradicts the checkpoint, which has its own; leave it out")
        found = loaded(options.checkpoint)
        model, shape = found.model.to(device), shape_of(found)
        dtype = next((p.dtype for p in model.parameters()), torch.get_default_dtype())
        what = f"{found.path}, step {found.step}, under {shown(model.sde)}"
        law = target = trained_on(found) if target is None else target
    raw, about = _samples(options, found, target, generator)
    drawn = about["source"] == "draws"
    law = law if hasattr(law, "log_prob") and (drawn or found is None) else None
    if tuple(raw.shape[1:]) != shape:
        if raw[0].numel() != math.prod(shape):
            raise DataError(
                f"{about.get('file') or about['target']} has samples of shape "
                f"{tuple(raw.shape[1:])}, and {what} takes {shape}"
            )
        about["shape"] = list(raw.shape[1:])  # row by row into another one of the same size
        raw = raw.reshape(len(raw), *shape)
    x, cells, levels = _levelled(options, raw, target, from_file="file" in about)
    x = x.to(device, dtype)
    cells = None if cells is None else cells.cpu()
    data = Data(x, cells, levels, not raw.is_floating_point(), about, generator)
    return Subject(model, what, data, law)


# the samples ------------------------------------------------------------------------------------


def _samples(
    options: Any, found: Checkpoint | None, target: Any, generator: torch.Generator
) -> tuple[Tensor, dict[str, Any]]:
    """The samples [(n, *dims)], and where they come from."""
    import torch

    from sdekit.training.points import read_points

    whole = options.levels is not None
    if options.split is None and options.data is not None:
        x = read_points(options.data, whole=whole, hint=_WHOLE)
        return x, {"source": "file", "file": str(options.data), "rows": len(x)}
    stored = _stored(found)
    if found is not None and "target" in stored and options.data is not None:
        raise ConfigError(f"{found.path} was trained on the target {stored['target']}: --split "
                          "takes no --data")  # fmt: skip
    own = found is None or "target" in stored or options.target is not None
    has_test = hasattr(target, "test") and getattr(target, "split", "") == "train"
    if own and options.split is None and (options.target is not None or not has_test):
        x = target.sample(options.n, generator=generator, dtype=torch.float64)
        return x, {"source": "draws", "target": repr(target), "rows": len(x)}
    assert found is not None  # an exact target has no split
    if options.target is not None:
        raise ConfigError("--target contradicts --split, which is of the checkpoint's own data")
    return _of_run(options, found, target, options.split or "test")


def _stored(found: Checkpoint | None) -> dict[str, Any]:
    """What a checkpoint says about its data; empty where it says nothing."""
    stored = None if found is None else found.config.get("data")
    return stored if isinstance(stored, dict) else {}


def _of_run(
    options: Any, found: Checkpoint, target: Any, split: str
) -> tuple[Tensor, dict[str, Any]]:
    """One side of the data of a checkpoint's run."""
    from sdekit.targets._split import split_rows
    from sdekit.training import held_out

    stored, held = _stored(found), found.config.get("holdout")
    if "target" in stored:
        known = split == "train" and hasattr(target, "test")
        x = target.data if known else held_out(found)  # which refuses what has no test split
        return x, {"source": "split", "split": split, "target": stored["target"], "rows": len(x)}
    if held is None:
        raise ConfigError(
            f"{found.path} held nothing out, so that it has no test split: train with sdekit "
            "train --data FILE --holdout FRACTION, or name other data with --data FILE"
        )
    path, points = _own_file(options, found)
    try:
        x = held_out(found, points)
    except DataError as error:
        raise DataError(f"--data {path}: {error}") from None
    if split == "train":
        x = points[split_rows(len(points), held["fraction"], held["seed"])[0]]
    return x, {
        "source": "split", "split": split, "file": str(path), "rows": len(x), "of": len(points),
        "sha256": stored["sha256"], "fraction": held["fraction"], "seed": held["seed"],
    }  # fmt: skip


def _own_file(options: Any, found: Checkpoint) -> tuple[Path, Tensor]:
    """The file that a run was given, as --data names it or as the run's folder does."""
    from sdekit.training.points import read_points

    path: Path | None = options.data
    if path is None:
        try:
            settings = json.loads((found.path.parent / "config.json").read_text("utf-8"))
            path = Path(settings["options"]["data"])
        except (OSError, ValueError, KeyError, TypeError):
            path = None
        if path is None or not path.is_file():
            where = "" if path is None else f"; {path} is not there"
            raise ConfigError(
                f"--split of {found.path} needs the data of its run: --data FILE{where}"
            )
    return path, read_points(path)


# the levels -------------------------------------------------------------------------------------


def _levelled(
    options: Any, raw: Tensor, target: Any, *, from_file: bool
) -> tuple[Tensor, Tensor | None, Quantization | None]:
    """The samples as x and as whole numbers, and the levels; of a target its own levels."""
    from sdekit.likelihood import Quantization

    if options.levels is None and (options.low is not None or options.high is not None):
        raise ConfigError("--low and --high are those of --levels, which is missing")
    declared = getattr(target, "levels", None) is not None and not from_file
    if options.levels is not None and declared:
        raise ConfigError(f"--levels contradicts {target!r}, which declares its own; leave it out")
    if options.levels is not None:
        low, high = (-1.0 if options.low is None else options.low,
                     1.0 if options.high is None else options.high)  # fmt: skip
        how = Quantization(levels=options.levels, low=low, high=high)
    elif declared:
        half = (target.high - target.low) / (2 * (target.levels - 1))
        how = Quantization(levels=target.levels, low=target.low - half, high=target.high + half)
    else:
        return raw, None, None
    if raw.is_floating_point():
        outside = ~((raw >= how.low) & (raw <= how.high))
        if bool(outside.any()):
            raise DataError(
                f"--levels {how.levels} from --low {how.low:g} to --high {how.high:g} do not "
                f"hold {raw[outside][0].item():.9g}, a value of the data"
            )
        return raw, how.cells(raw), how
    how.checked(raw)
    return raw, raw, how
