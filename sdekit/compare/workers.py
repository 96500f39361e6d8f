"""Where cells run: here, in processes of this machine, or on anybody's executor.

A cell's own failure is a result. What is handled here is the loss of the worker: the cells that
were with it are run once more, each alone, so that the one which kills its worker is found and the
others are not blamed; a cell whose worker dies twice has FAILED.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from multiprocessing import active_children, get_context
from typing import Any

from sdekit.compare.cell import Cell
from sdekit.compare.measure import failed

__all__ = ["spread"]

Done = tuple[Cell, dict[str, Any]]
Work = Callable[[Cell], dict[str, Any]]

_LOOK = 1.0  # seconds between two looks at whether the parent lives


def spread(
    cells: Sequence[Cell], work: Work, workers: int, executor: Executor | None = None
) -> Iterator[Done]:
    """On the executor, where there is one; else in so many processes, or, for 0, in this one."""
    if executor is not None:
        return on_executor(cells, work, executor)
    if workers == 0 or len(cells) < 2:
        return here(cells, work)
    return on_processes(cells, work, min(workers, len(cells)))


def here(cells: Iterable[Cell], work: Work) -> Iterator[Done]:
    """One after the other, in this process."""
    for cell in cells:
        yield cell, work(cell)


def on_processes(cells: Iterable[Cell], work: Work, workers: int) -> Iterator[Done]:
    """In so many processes of this machine; each cell is with a worker or waits here."""
    waiting, suspects = deque(cells), deque[Cell]()
    while waiting or suspects:
        alone = bool(suspects)
        queue = deque([suspects.popleft()]) if alone else waiting
        running: dict[Future[dict[str, Any]], Cell] = {}
        with _pool(1 if alone else workers) as pool:
            try:
                while queue or running:
                    while queue and len(running) < workers:
                        cell = queue.popleft()
                        running[pool.submit(work, cell)] = cell
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield running.pop(future), result
            except BrokenExecutor:
                if alone:
                    yield from ((cell, _died(cell)) for cell in running.values())
                else:
                    suspects.extend(running.values())


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end with it, in the middle of a cell if need be."""
    before = set(active_children())
    # not fork: torch's threads do not survive it
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_settle, initargs=(os.getpid(),)
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(active_children()) - before:
            process.terminate()


def _settle(parent: int) -> None:
    """Set up a worker: it leaves Ctrl-C to its parent, and ends when that has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def look() -> None:
        while os.getppid() == parent:  # a killed parent cannot say goodbye
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def on_executor(cells: Iterable[Cell], work: Work, executor: Executor) -> Iterator[Done]:
    """On an executor of the caller's, which is left open; a lost cell is submitted once more."""
    running = {executor.submit(work, cell): (cell, 1) for cell in cells}
    try:
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell, tries = running.pop(future)
                error = future.exception()
                if error is None:
                    yield cell, future.result()
                elif isinstance(error, BrokenExecutor):
                    raise error  # nothing can be submitted any more
                elif tries == 1:
                    running[executor.submit(work, cell)] = (cell, 2)
                else:
                    yield cell, _died(cell, f"{type(error).__name__}: {error}")
    finally:
        for future in running:
            future.cancel()


def _died(cell: Cell, how: str = "") -> dict[str, Any]:
    why = "its worker died twice, the second time with this cell alone"
    return failed(cell, f"its worker was lost twice ({how})" if how else why)
