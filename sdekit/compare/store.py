"""The folder of a comparison: nothing finished is ever lost, nothing of another run is mixed in.

    experiment.toml     the experiment, every default filled in
    run.json            what the numbers depend on besides: versions, digests of the checkpoints
    cells/ID.json       a finished cell; written as a whole, never changed afterwards
    truth.json          some true samples of each data set, for pictures
    environment.json    the machine, and when
    report.html, report.md, rows.csv, rows.jsonl, times.csv      made from the files above

A cell's file appears under its name when it is complete, and by then it is on the disk. Whoever
runs the experiment again in this folder runs what is not there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import torch

from sdekit import __version__, _files
from sdekit._check import shown
from sdekit.compare import pictures
from sdekit.compare.cell import Cell
from sdekit.compare.experiment import Experiment, read_file
from sdekit.compare.measure import FORMAT
from sdekit.compare.subjects import subject_of
from sdekit.compare.wellformed import is_cell, is_still
from sdekit.errors import ConfigError, DataError, SdekitError
from sdekit.training.files import locked

__all__ = ["Folder", "Stored", "load"]

EXPERIMENT, RUN, TRUTH, ENVIRONMENT = (
    "experiment.toml", "run.json", "truth.json", "environment.json",
)  # fmt: skip
CELLS = "cells"
REPORTS = ("report.html", "report.md", "rows.csv", "rows.jsonl", "times.csv")
_OWN = {EXPERIMENT, RUN, TRUTH, ENVIRONMENT, CELLS, *REPORTS, ".sdekit-lock"}
BESIDE = (".sdekit-lock", ".submitit")  # what locks and workers leave
_POINTS = 400  # true samples in pictures


@dataclass(frozen=True)
class Stored:
    """What a folder holds.

    Attributes:
        path: the folder.
        experiment: what was asked.
        cells: the finished cells, in the experiment's order.
        missing: how many are not there.
        truth: by the data's name, some true samples, as `pictures.still` has them.
        environment: the machine, and when.
    """

    path: Path
    experiment: Experiment
    cells: list[dict[str, Any]]
    missing: int
    truth: dict[str, Any]
    environment: dict[str, Any]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each cell and metric."""
        return [row for cell in self.cells for row in cell["rows"]]


class Folder:
    """The files of one comparison.

    Args:
        path: the folder; made when it is opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def held(self) -> list[str]:
        """The names in it, but for those that locks and workers leave."""
        if not self.path.is_dir():
            return []
        names = sorted(p.name for p in self.path.iterdir())
        return [name for name in names if name not in BESIDE]

    @contextlib.contextmanager
    def opened(self, experiment: Experiment) -> Iterator[None]:
        """Hold the folder for this experiment; it may hold a part of the same one.

        Raises:
            RunLockedError: another live process runs here.
            ConfigError: the folder holds another experiment, or files of something else; or the
                versions or checkpoints are not those that its cells were made with.
            CheckpointError: it cannot be written to.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"out={self.path} is a file, a folder is needed")
        self._refuse_foreign()
        with locked(self.path):
            self._agree(experiment)
            (self.path / CELLS).mkdir(exist_ok=True)
            _files.clean(self.path / CELLS, everything=True)
            yield

    def _agree(self, experiment: Experiment) -> None:
        """Write what the run depends on, or compare it with what is there."""
        inputs = {
            "format": FORMAT, "sdekit": __version__, "torch": str(torch.__version__),
            "numpy": numpy.__version__,
            "files": {str(s.path): s.digest() for s in experiment.checkpoints},
        }  # fmt: skip
        if (self.path / EXPERIMENT).exists():
            there = read_file(self.path / EXPERIMENT)
            differ = [
                f"{f.name}: {getattr(there, f.name)!r} there, {getattr(experiment, f.name)!r} now"
                for f in fields(experiment)
                if f.compare and getattr(there, f.name) != getattr(experiment, f.name)
            ]
            if differ:
                raise ConfigError(
                    f"{self.path} holds another experiment; runs are not mixed. "
                    f"{'; '.join(differ)}"
                )
            made = self.read(RUN)
            if made is None:
                raise ConfigError(
                    f"{self.path / RUN} is damaged or gone: what the cells here were made with is "
                    "not known; start anew in another folder, or with --overwrite"
                )
            differ = [
                f"{key}: {made.get(key)} there, {value} now"
                for key, value in inputs.items()
                if made.get(key) != value
            ]
            if differ:
                raise ConfigError(
                    f"{self.path} was made with other inputs; runs are not mixed. "
                    f"{'; '.join(differ)}"
                )
        self.write(RUN, inputs)
        self.write(ENVIRONMENT, environment())
        # last: a folder with an experiment has everything else
        _files.write(self.path / EXPERIMENT, experiment.to_toml().encode())

    def clear(self) -> None:
        """Remove what a comparison has written here, and nothing else.

        Raises:
            RunLockedError: a live process runs here.
            ConfigError: the folder holds files of something else.
            CheckpointError: it cannot be written to.
        """
        self._refuse_foreign()
        with locked(self.path):
            for name in sorted(_OWN - {".sdekit-lock"}):
                path = self.path / name
                if path.is_symlink() or path.is_file():
                    path.unlink()
                elif path.is_dir():
                    shutil.rmtree(path)

    def _refuse_foreign(self) -> None:
        foreign = [name for name in self.held() if name not in _OWN]
        if foreign and not (self.path / EXPERIMENT).exists():
            some = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise ConfigError(f"out={self.path} holds something else ({some}); name a new folder")

    # cells --------------------------------------------------------------------------------------

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """The content of a cell's file; None where it is not there, damaged, or not the cell's."""
        found = self.read(f"{CELLS}/{cell.id}.json") or {}
        own = (found.get("format"), found.get("cell")) == (FORMAT, cell.id)
        return found if own and is_cell(found, cell.metrics) else None

    def keep(self, cell: Cell, content: Mapping[str, Any]) -> None:
        """Write a finished cell, all or nothing, onto the disk."""
        self.write(f"{CELLS}/{cell.id}.json", content)

    def truth(self) -> dict[str, Any] | None:
        """The true samples of pictures; None where they are not there, or damaged."""
        found = self.read(TRUTH)
        return found if found is not None and all(map(is_still, found.values())) else None

    def write_truth(self, experiment: Experiment) -> None:
        """Some true samples of each data set, for its pictures."""
        found: dict[str, Any] = {}
        for source in dict.fromkeys(cell.source for cell in experiment.cells):
            try:
                subject = subject_of(source, "cpu")
                points, _ = subject.truth(min(_POINTS, experiment.n), 0)
            except (SdekitError, OSError, ImportError):
                continue  # its cells will say why
            if subject.data not in found and pictures.pictured(subject.shape):
                found[subject.data] = pictures.still(points)
        self.write(TRUTH, found)

    # files --------------------------------------------------------------------------------------

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file; None where it is not there or cannot be read."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a JSON file, all or nothing."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        _files.write(self.path / name, text.encode())


def environment() -> dict[str, str]:
    """The machine and the versions, and when: what may differ between two runs of one thing."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "sdekit": __version__, "torch": str(torch.__version__), "numpy": numpy.__version__,
        "python": platform.python_version(), "platform": platform.platform(), "cpu": cpu,
        "cores": str(os.cpu_count()), "gpu": gpu,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }  # fmt: skip


def load(out: str | os.PathLike[str]) -> Stored:
    """What a folder holds.

    Raises:
        ConfigError: it holds no comparison, or one that another version of sdekit wrote.
        DataError: nothing in it is finished.
    """
    folder = Folder(out)
    if not (folder.path / EXPERIMENT).is_file():
        raise ConfigError(f"{folder.path} holds no comparison (no {EXPERIMENT})")
    written = (folder.read(RUN) or {}).get("format", FORMAT)
    if written != FORMAT:
        raise ConfigError(
            f"{folder.path} was written in format {shown(written)} by another version of sdekit; "
            f"this one reads format {FORMAT}"
        )
    experiment = read_file(folder.path / EXPERIMENT)
    found = [folder.finished(cell) for cell in experiment.cells]
    cells = [cell for cell in found if cell is not None]
    if not cells:
        raise DataError(f"{folder.path} has no finished cell yet")
    return Stored(
        folder.path, experiment, cells, len(found) - len(cells),
        folder.truth() or {}, folder.read(ENVIRONMENT) or {},
    )  # fmt: skip
