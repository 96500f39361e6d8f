"""Running an experiment: what is not in its folder yet, wherever there are workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from sdekit._check import integer, shown
from sdekit.compare.experiment import Experiment
from sdekit.compare.measure import measure
from sdekit.compare.store import Folder, load
from sdekit.compare.workers import spread
from sdekit.errors import DtypeError

__all__ = ["run"]


def run(
    experiment: Experiment,
    *,
    out: str | os.PathLike[str],
    executor: Executor | None = None,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Run the cells of an experiment that a folder does not hold yet.

    A cell that fails does not end the run: it is in the rows, with its reason. Whatever ends the
    run, finished cells stay, and the same call goes on where it ended.

    Args:
        experiment: what to run.
        out: the folder, new or with a part of the same experiment.
        executor: where to run: anything with the interface of `concurrent.futures.Executor`, such
            as a Dask client's `get_executor()`. Workers must be able to import sdekit, and what
            registers classes of your own.
        workers: processes of this machine where there is no executor; 0: in this process. By
            default one a core that this process may use.
        progress: called with (cells done, cells in all, the last one's label).

    Returns:
        A row for each cell and metric, in the order of the experiment.

    Raises:
        RunLockedError: another live process runs in the folder.
        ConfigError: the folder holds another experiment, or files of something else.
        CheckpointError: the folder cannot be written to: a full disk, no permission.

    Example:
        >>> import tempfile
        >>> e = Experiment(target="tutorial", steps=4, n=100, seeds=2)
        >>> with tempfile.TemporaryDirectory() as out:
        ...     rows = run(e, out=out, workers=0)
        >>> rows[0]["metric"], rows[0]["status"], rows[0]["calls"]
        ('sliced_wasserstein(directions=128)', 'ok', 4.0)
    """
    if not isinstance(experiment, Experiment):
        raise DtypeError(f"experiment must be an Experiment, got {shown(experiment)}")
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    integer("workers", workers, ge=0)
    folder = Folder(out)
    with folder.opened(experiment):
        if folder.truth() is None:
            folder.write_truth(experiment)
        todo = [cell for cell in experiment.cells if folder.finished(cell) is None]
        done, total = len(experiment.cells) - len(todo), len(experiment.cells)
        if progress is not None:
            progress(done, total, "")
        for cell, content in spread(todo, measure, workers, executor):
            folder.keep(cell, content)
            done += 1
            if progress is not None:
                progress(done, total, cell.label)
    return load(out).rows
