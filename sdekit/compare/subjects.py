"""What is sampled from, and what the samples are compared with.

A `Source` is the description: a law and a process, whose exact score is taken, or the path of a
trained model. A `Subject` is the thing itself. Descriptions travel to workers; things are made
where they are needed, and kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import make_one
from sdekit._check import nearest, shown
from sdekit.compare.keys import generator
from sdekit.errors import ConfigError, DataError, DtypeError
from sdekit.model import ExactScore, Predictor
from sdekit.model.pipelines import from_pipeline, is_pipeline
from sdekit.sde import LinearSDE
from sdekit.targets import ExactTarget, Target
from sdekit.training import load_checkpoint
from sdekit.training.origin import shape_of, trained_on
from sdekit.training.points import read_points

__all__ = ["Source", "Subject", "subject_of"]

_KEYS = ("path", "target", "data")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A description of a model: (target, sde) for an exact score, or a path.

    Attributes:
        path: of a trained model; None for an exact score.
        target: the spelling of the law of the data.
        sde: the spelling of the process of an exact score.
        data: a file of samples that are compared with, in place of a law.
    """

    path: str | None = None
    target: str | None = None
    sde: str | None = None
    data: str | None = None

    @classmethod
    def parse(cls, where: str, given: Any) -> Source:
        """The source that an entry of `checkpoints` describes.

        Raises:
            ConfigError: an unknown key, no path, or both a target and data.
            DtypeError: neither a path nor a table.
        """
        if isinstance(given, cls):
            given = given.as_table()
        if isinstance(given, str | Path):
            given = {"path": str(given)}
        if not isinstance(given, Mapping):
            raise DtypeError(f"{where} must be a path or a table, got {shown(given)}")
        for key, value in given.items():
            if key not in _KEYS:
                raise ConfigError(f"{where} has no key {key!r}; {nearest(key, _KEYS)}")
            if not isinstance(value, str | Path):
                raise DtypeError(f"{where}.{key} must be a string, got {shown(value)}")
        values = {key: str(value) for key, value in given.items()}
        if not values.get("path"):
            raise ConfigError(f"{where} needs a path, got {shown(given)}")
        if "target" in values and "data" in values:
            raise ConfigError(f"{where} has a target and data; the samples are compared with one")
        if "target" in values:
            law = make_one("target", values["target"], Target, name=f"{where}.target")
            values["target"] = repr(law)
        return cls(**values)

    def as_table(self) -> dict[str, str] | str:
        """The entry of `checkpoints` that describes it."""
        table = {key: getattr(self, key) for key in _KEYS if getattr(self, key) is not None}
        return str(self.path) if len(table) == 1 else table

    @property
    def exact(self) -> bool:
        """Whether it is an exact score."""
        return self.path is None

    def digest(self) -> str:
        """SHA-256 of all files that it names; empty where it names none."""
        parts = [Path(p) for p in (self.path, self.data) if p is not None]
        if not parts:
            return ""
        found = hashlib.sha256()
        for part in parts:
            files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            if part.is_dir() and not is_pipeline(part):  # a run folder: its newest checkpoint
                files = [load_checkpoint(part).path]
            for file in files:
                try:
                    found.update(file.name.encode() + b"\0" + file.read_bytes())
                except OSError as error:
                    raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that can be sampled, and the true law or samples.

    Attributes:
        model: the predictor.
        shape: of a sample.
        dtype: of the samples.
        target: the law of the data, or None where there are only samples of it.
        points: the true samples [(m, *shape)], where there is no law.
        data: what the true side is called.
        about: what the model is called.
    """

    model: Predictor
    shape: tuple[int, ...]
    dtype: torch.dtype
    target: Target | None
    points: Tensor | None
    data: str
    about: str

    @property
    def score(self) -> str:
        """`exact` or `network`."""
        return "exact" if isinstance(self.model, ExactScore) else "network"

    @property
    def law(self) -> ExactTarget | None:
        """The law of the data where it is in closed form."""
        return self.target if isinstance(self.target, ExactTarget) else None

    def truth(self, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """Two sets of true samples [(n, *shape)], float64; the second is None for want of data.

        Raises:
            DataError: there are fewer than n.
        """
        source = generator("truth", seed)
        if self.target is not None:
            both = self.target.sample(2 * n, generator=source, dtype=torch.float64)
            return both[:n], both[n:]
        assert self.points is not None  # one of the two is there
        m = len(self.points)
        if m < n:
            raise DataError(f"{self.data} has {m} samples, and runs of n={n} are compared with it")
        rows = torch.randperm(m, generator=source)
        first, second = self.points[rows[:n]], self.points[rows[n : 2 * n]]
        return first, second if len(second) == n else None


@lru_cache(maxsize=8)
def subject_of(source: Source, device: str) -> Subject:
    """The thing that a source describes.

    Raises:
        ConfigError: nothing at the path, or nothing to compare its samples with.
        CheckpointError: the file or folder is no model; as for `load_checkpoint`.
        DataError: the samples cannot be read, or have another shape.
    """
    if source.path is None:
        law = make_one("target", source.target, ExactTarget, name="target")
        sde = make_one("sde", source.sde, LinearSDE, name="sdes")
        about = f"exact score of {law!r}"
        return Subject(
            ExactScore(law, sde), tuple(law.shape), torch.float64, law, None, repr(law), about
        )
    path = Path(source.path)
    if not path.exists():
        raise ConfigError(f"no such file or folder: {path}")
    model: Any
    if is_pipeline(path):
        model, shape = from_pipeline(path)
        own, about = None, f"{path}, a pipeline"
    else:
        found = load_checkpoint(path)
        model, shape, own = found.model, shape_of(found), trained_on(found)
        about = f"{path}, step {found.step}"
    model = model.to(device).eval()
    dtype = next((p.dtype for p in model.parameters()), torch.get_default_dtype())
    target, points, data = own, None, repr(own)
    if source.target is not None:
        target = make_one("target", source.target, Target)
        data = repr(target)
    elif source.data is not None:
        points = read_points(Path(source.data), name="data").double()
        target, data = None, source.data
    elif own is None:
        raise ConfigError(
            f"{path} does not say what law its samples should have: write it as a table, "
            f"{{path = {str(path)!r}, target = NAME}} or {{path = ..., data = FILE}}"
        )
    known: Any = target if points is None else points[0]
    has = tuple(known.shape)
    if has != shape:
        raise DataError(f"{data} has samples of shape {has}, and {about} makes {shape}")
    return Subject(model, shape, dtype, target, points, data, about)
