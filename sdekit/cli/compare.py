"""`sdekit compare`: samplers, budgets and processes side by side, and one page about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sdekit.cli.folders import claim_folder
from sdekit.cli.options import Common, MaybeInt
from sdekit.cli.terminal import Terminal
from sdekit.errors import ConfigError

if TYPE_CHECKING:
    from sdekit.compare.experiment import Experiment
    from sdekit.compare.store import Folder

__all__ = ["OPTIONS", "run"]


@dataclass(frozen=True, kw_only=True)
class Compare(Common):
    """Compare samplers: which one, at how many network calls, on which SDE, for which model.

    Without a file: ten samplers on the tutorial's mixture, in three minutes on two cores. Writes
    report.html (one page that opens anywhere), report.md, rows.csv and rows.jsonl, and
    experiment.toml, from which another comparison is made by changing a line. A run that was
    interrupted goes on with --resume: finished cells are never run again.

    Examples:
      sdekit compare --quick
      sdekit compare experiment.toml --out compared
      sdekit compare experiment.toml --out compared --resume
      sdekit compare experiment.toml --dask tcp://10.0.0.1:8786 --out compared
      sdekit compare --replay compared --cell 3f2a
    """

    experiment: Annotated[Path | None, tyro.conf.Positional] = None
    """a TOML file; the one of any comparison's folder is an example"""
    out: Path = Path("compare")
    """the folder"""
    quick: bool = False
    """five samplers and three budgets: half a minute"""
    resume: bool = False
    """go on with the run in --out"""
    workers: MaybeInt = None
    """processes; by default one a core, 0 for none besides this one"""
    dask: str | None = None
    """the address of a Dask scheduler, whose workers run the cells"""
    slurm: str | None = None
    """KEY=VALUE,...: submit the cells to SLURM by submitit, with its settings"""
    replay: Path | None = None
    """run the cells of this folder again and say whether they agree"""
    cell: str | None = None
    """with --replay: only this cell, by the first letters of its name"""


OPTIONS = Compare


def run(options: Compare, terminal: Terminal) -> int:
    """Compare; returns the exit code."""
    _check(options)
    if options.replay is not None:
        return _replay(options, options.replay, terminal)
    from sdekit.compare import run as run_cells
    from sdekit.compare.drawing import demand
    from sdekit.compare.findings import count
    from sdekit.compare.reporting import published
    from sdekit.compare.store import Folder, load
    from sdekit.compare.tables import to_text

    demand()  # a page is promised: what draws it must be there before anything runs
    experiment = _asked(options)
    folder = Folder(options.out)
    _claim(options, folder)
    terminal.wrap(
        f"{experiment.name}: {count(len(experiment.cells), 'cell')}, "
        f"{count(len(experiment.seeds), 'seed')} of {experiment.n} samples each"
    )
    with (
        _executor(options, folder) as executor,
        terminal.progress("cells", len(experiment.cells)) as advance,
    ):
        run_cells(
            experiment, out=options.out, executor=executor, workers=options.workers,
            progress=lambda done, total, label: advance(done, label),
        )  # fmt: skip
    page, found = published(load(options.out), options.out)
    for sentence in (found.summary, *found.wins, *found.failures):
        terminal.wrap(to_text(sentence))
        terminal.say()
    if found.absent:
        terminal.say("some metrics do not apply everywhere: the page says where, and why")
    terminal.say(f"wrote {page}, report.md, rows.csv and rows.jsonl beside it")
    return 1 if found.failures else 0


def _check(options: Compare) -> None:
    """Refuse options that contradict each other."""
    from sdekit._check import integer

    if options.workers is not None:
        integer("--workers", options.workers, ge=0)
    if options.experiment is not None and options.quick:
        raise ConfigError("--quick is a comparison of its own; leave out EXPERIMENT.toml")
    if options.dask is not None and options.slurm is not None:
        raise ConfigError("--dask and --slurm are two places to run; give one")
    if options.cell is not None and options.replay is None:
        raise ConfigError("--cell is of --replay DIR")
    if options.resume and options.overwrite:
        raise ConfigError("--resume keeps what --overwrite removes; give one")
    others = [options.experiment, options.dask, options.slurm]
    if options.replay is not None and (any(others) or options.quick or options.resume):
        raise ConfigError("--replay DIR takes only --cell and --workers")


def _asked(options: Compare) -> Experiment:
    """The experiment that the options name."""
    from sdekit.cli.device import device_of
    from sdekit.compare import defaults
    from sdekit.compare.experiment import read_file

    if options.experiment is not None:
        found = read_file(options.experiment)
    else:
        found = defaults.quick() if options.quick else defaults.default()
    if options.device != "cpu":
        found = replace(found, device=options.device)
    device_of(found.device)
    return found.moved(options.seed)


def _claim(options: Compare, folder: Folder) -> None:
    """The folder is new or empty, or the options say what becomes of what it holds."""
    from sdekit.compare.store import BESIDE

    held = claim_folder(
        options.out, allowed=options.resume or options.overwrite, ignore=BESIDE,
        how="--resume to go on, --overwrite to start anew",
    )  # fmt: skip
    if held and options.overwrite:
        folder.clear()


@contextlib.contextmanager
def _executor(options: Compare, folder: Folder) -> Iterator[Executor | None]:
    from sdekit.compare import clusters

    if options.dask is not None:
        with clusters.dask(options.dask) as executor:
            yield executor
    elif options.slurm is not None:
        yield clusters.SlurmExecutor(folder.path / ".submitit", **clusters.settings(options.slurm))
    else:
        yield None


def _replay(options: Compare, path: Path, terminal: Terminal) -> int:
    """Run cells again; 1 where a row differs."""
    from collections import Counter

    from sdekit.compare.replay import VERDICTS, chosen, replay
    from sdekit.compare.store import load

    stored = load(path)
    cells = chosen(stored, options.cell)
    workers = options.workers if options.workers is not None else 2
    counts: Counter[str] = Counter()
    with terminal.progress("cells", len(cells)) as advance:
        for found in replay(
            stored, cells, workers=workers,
            progress=lambda done, total, label: advance(done, label),
        ):  # fmt: skip
            counts[found.verdict] += 1
            row = found.row
            if found.verdict != "same" or options.cell is not None:
                terminal.wrap(
                    f"{found.verdict}: {row['cell']} {row['sampler']} on {row['sde']}, "
                    f"{row['metric']}" + (f"; {found.what}" if found.what else "")
                )
    total = sum(counts.values())
    terminal.say(f"{total} rows: " + ", ".join(f"{counts[v]} {v}" for v in VERDICTS))
    return 1 if counts["DIFFERS"] else 0
