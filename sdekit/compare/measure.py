"""Running one cell: samples, metrics, costs, the exact law where there is one, a picture.

A cell's result depends on its spec alone: every seed of it starts from the noise of that seed, and
is compared with the true samples of that seed, whatever else is in the comparison, wherever and in
whatever order cells run. Torch computes in one thread, so that sums are added up in one order.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import make
from sdekit.compare import pictures
from sdekit.compare.cell import Cell, imported, steps_within
from sdekit.compare.meter import PeakMemory, metered
from sdekit.compare.pool import pooled
from sdekit.compare.subjects import Subject, subject_of
from sdekit.errors import ConfigError, DataError, SdekitError
from sdekit.exact import ErrorBudget, attribute_error
from sdekit.metrics import Estimate, Metric
from sdekit.sampling import Sampler, sample
from sdekit.sampling.setup import serves

__all__ = ["FORMAT", "failed", "measure"]

FORMAT = 2  # of the files of a comparison
_AT_ONCE = 2**24  # numbers of a batch
_LAPS = 8  # steps after which memory does not change any more
_SMALL = 2  # samples
_LONGEST = 500  # characters of a reason


class _NotHere(Exception):
    """The cell makes no sense: this sampler does not serve this process, or not in this budget."""


def measure(cell: Cell) -> dict[str, Any]:
    """The content of a cell's file, in plain Python.

    Never raises for what goes wrong inside the cell: the result then has the status "FAILED", or
    "n/a" where the combination has no meaning, and its reason.
    """
    with _one_thread():
        result = _Result(cell)
        try:
            run = _prepared(cell)
            result.about(run)
            result.measured(run)
        except _NotHere as why:
            result.stop("n/a", str(why))
        except Exception as error:  # anything that a model or sampler of a user's own may raise
            known = isinstance(error, SdekitError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            result.stop("FAILED", text)
        return result.content()


def failed(cell: Cell, reason: str) -> dict[str, Any]:
    """The content of the file of a cell that never returned."""
    result = _Result(cell)
    result.stop("FAILED", reason)
    return result.content()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A cell with its objects made."""

    cell: Cell
    subject: Subject
    sampler: Sampler
    steps: int | None

    def sample(self, model: Any, n: int, seed: int, **options: Any) -> Any:
        """A run of n samples."""
        cell, subject = self.cell, self.subject
        return sample(
            model, (n, *subject.shape), sampler=self.sampler, grid=make("grid", cell.grid),
            seed=seed, prior=cell.prior, denoise=cell.denoise, dtype=subject.dtype,
            device=cell.device, chunk=max(1, _AT_ONCE // max(1, math.prod(subject.shape))),
            **{"steps": self.steps, **options},
        )  # fmt: skip


def _prepared(cell: Cell) -> _Prepared:
    for name in cell.modules:
        imported("modules", name)
    subject = subject_of(cell.source, cell.device)
    sampler: Sampler = make("sampler", cell.sampler)
    sde = subject.model.sde
    if not serves(sampler, sde):
        raise _NotHere(f"{sampler!r} needs {', '.join(sorted(sampler.needs))}, not {sde!r}")
    steps = cell.steps
    if steps is not None and "ddpm" in sde.kinds and steps > sde.default_steps:
        raise _NotHere(f"{steps} steps on a chain of {sde.default_steps}")
    if cell.calls is not None:
        try:
            steps = steps_within(cell.calls, sampler, sde, cell.grid, last=int(cell.denoise))
        except ConfigError as error:
            raise _NotHere(str(error)) from error
    if steps is None:  # the sampler's own steps, between the ends of the grid
        steps = 1
    return _Prepared(cell, subject, sampler, steps)


class _Result:
    """What is known so far."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.status, self.reason = "ok", ""
        where = cell.source
        self.spec: dict[str, Any] = {
            "data": where.target or where.data or "", "score": "exact" if where.exact else
            "network", "model": where.path or f"exact score of {where.target}",
            "sde": where.sde or "", "sampler": cell.sampler, "grid": cell.grid,
            "steps": cell.steps,
        }  # fmt: skip
        self.cost: dict[str, Any] = {"calls": None, "vjps": None, "rejected": None, "memory": None}
        self.runs: list[dict[str, Any]] = []  # calls, vjps and rejected, by seed
        self.found: dict[str, Estimate | str] = {}
        self.parts: dict[str, list[Estimate]] = {}
        self.floors: dict[str, list[float | None]] = {}
        self.budget: ErrorBudget | None = None
        self.picture: dict[str, Any] | None = None
        self.times: dict[str, Any] = {"seconds": [], "network": [], "metrics": 0.0}

    def about(self, run: _Prepared) -> None:
        """What the objects say of themselves."""
        subject = run.subject
        self.spec.update(
            data=subject.data, score=subject.score, model=subject.about,
            sde=repr(subject.model.sde), steps=run.steps,
        )  # fmt: skip

    def stop(self, status: str, reason: str) -> None:
        """Nothing of the cell counts, and why."""
        self.status, self.reason = status, _cut(reason)
        self.found, self.parts, self.budget, self.picture = {}, {}, None, None

    def measured(self, run: _Prepared) -> None:
        """Everything that the cell asks."""
        metrics = {text: make("metric", text) for text in self.cell.metrics}
        sampled = {t: m for t, m in metrics.items() if "law" not in m.needs}
        seeds = self.cell.seeds if sampled else self.cell.seeds[:1]
        for seed in seeds:
            x = self._timed(run, seed)
            began = time.perf_counter()
            y, _ = _truth(run.subject, self.cell.n, seed)
            for text, metric in sampled.items():
                self._try(text, lambda m=metric, x=x, y=y, s=seed: self._valued(run, m, x, y, s))
            self.times["metrics"] += time.perf_counter() - began
        self._exact(run, {t: m for t, m in metrics.items() if "law" in m.needs})
        self.cost["memory"] = _memory(run)
        self.picture = _picture(run)

    def _timed(self, run: _Prepared, seed: int) -> Tensor:
        model = metered(run.subject.model)
        result = run.sample(model, self.cell.n, seed)
        self.times["seconds"].append(result.seconds)
        self.times["network"].append(model.seconds)
        self.runs.append({"calls": result.nfe, "vjps": model.vjps, "rejected": result.rejected})
        x: Tensor = result.x.detach().cpu().double()
        return x

    def _count(self) -> None:
        """Costs are means over the seeds, as values are: who chooses its own steps has others."""
        for name in self.runs[0] if self.runs else ():
            known = [one[name] for one in self.runs]
            # a solver that does not tell its rejections tells none of them
            self.cost[name] = None if None in known else statistics.fmean(map(float, known))
        self.times["calls"] = self.cost["calls"]

    def _valued(
        self, run: _Prepared, metric: Any, x: Tensor, y: Tensor, seed: int
    ) -> tuple[Estimate, float | None]:
        """A metric of samples, and its floor."""
        found = metric.measure(x, y, target=run.subject.law, seed=0)
        return found, _floor(run.subject, metric, self.cell.n, seed)

    def _try(self, text: str, value: Any) -> None:
        """A metric's value for one seed, or the reason why it has none."""
        if isinstance(self.found.get(text), str):
            return
        try:
            estimate, floor = value()
        except (DataError, ConfigError) as error:  # it does not apply
            self.found[text] = str(error)
            return
        if not math.isfinite(estimate):
            self.found[text] = f"the value is {float(estimate)}"
            return
        self.parts.setdefault(text, []).append(estimate)
        self.floors.setdefault(text, []).append(floor)

    def _exact(self, run: _Prepared, metrics: dict[str, Metric]) -> None:
        """The metrics that are read from the exact law of the output."""
        if not metrics:
            return
        law = run.subject.law
        try:
            if law is None:
                raise DataError("the data have no closed form")
            self.budget = attribute_error(
                run.sampler, run.subject.model, law, steps=run.steps,
                grid=make("grid", self.cell.grid), prior=self.cell.prior,
                denoise=self.cell.denoise, method="exact",
            )  # fmt: skip
        except SdekitError as error:
            for text in metrics:
                self.found[text] = str(error)
            return
        budget = self.budget
        for text, metric in metrics.items():
            self._try(text, lambda m=metric: (m.of(budget), 0.0))

    def content(self) -> dict[str, Any]:
        """The cell's file."""
        self._count()
        for text, parts in self.parts.items():
            if not isinstance(self.found.get(text), str):
                self.found[text] = pooled(parts, self.floors[text], make("metric", text).better)
        return {
            "format": FORMAT, "cell": self.cell.id, "spec": self.spec, "status": self.status,
            "reason": self.reason, "rows": [self._row(text) for text in self.cell.metrics],
            "budget": None if self.budget is None else _plain(self.budget.to_json()),
            "picture": self.picture, "times": self.times,
        }  # fmt: skip

    def _row(self, text: str) -> dict[str, Any]:
        metric, found = make("metric", text), self.found.get(text)
        parts = [] if found is None or isinstance(found, str) else self.parts[text]
        status, reason = self.status, self.reason
        if isinstance(found, str):
            status, reason = "n/a", found
        exact = "law" in metric.needs
        row: dict[str, Any] = {
            "cell": self.cell.id, **self.spec, **self.cost, "metric": text,
            "title": metric.title, "unit": metric.unit, "better": metric.better,
            "exact": exact, "status": status, "reason": _cut(reason),
        }  # fmt: skip
        known = dict.fromkeys(("value", "stderr", "low", "high", "floor", "floor_stderr",
                               "p_value"))  # fmt: skip
        if isinstance(found, Estimate):
            low, high = found.interval()
            known = _plain({
                "value": float(found), "stderr": found.stderr, "low": low, "high": high,
                "floor": found.floor, "floor_stderr": found.floor_stderr,
                "p_value": found.p_value,
            })  # fmt: skip
        sampled = [] if exact else parts
        return {
            **row, **known, "n": self.cell.n, "seeds": list(self.cell.seeds),
            "values": [float(v) for v in sampled],
            "floors": _plain(self.floors[text]) if sampled else [],
            "detail": _plain(dict(found.detail)) if isinstance(found, Estimate) else {},
        }  # fmt: skip


@lru_cache(maxsize=4)
def _truth(subject: Subject, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
    return subject.truth(n, seed)


@lru_cache(maxsize=1024)
def _floor(subject: Subject, metric: Any, n: int, seed: int) -> float | None:
    """What a metric gives for two true sets; the same for all cells of the same data."""
    y, again = _truth(subject, n, seed)
    return None if again is None else float(metric.measure(again, y, target=subject.law, seed=0))


def _memory(run: _Prepared) -> int:
    """The most bytes that tensors hold during a run.

    A small run is counted before, and forgotten: torch imports what an operator needs at its first
    use, and the frames of that wait for the garbage collector with their tensors; plans are made
    and kept. Bytes would depend on what ran before, and on when the collector runs.
    """
    steps = None if run.steps is None else min(run.steps, _LAPS)
    for n in (min(_SMALL, run.cell.n), run.cell.n):
        with PeakMemory() as seen:
            run.sample(run.subject.model, n, run.cell.seeds[0], steps=steps)
    return seen.peak


def _picture(run: _Prepared) -> dict[str, Any] | None:
    """The first samples of the first seed on their way."""
    shape = run.subject.shape
    if not pictures.pictured(shape):
        return None
    n, times = pictures.wanted(shape)
    result = run.sample(run.subject.model, min(n, run.cell.n), run.cell.seeds[0], keep=times)
    return pictures.frames(result.trajectory, result.trajectory_t.tolist())


def _cut(text: str) -> str:
    """The text on one line, not longer than a reason may be."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def _plain(value: Any) -> Any:
    """The same with None for what is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
