"""Where a command talks: results on stdout, progress on stderr.

On a terminal progress is a bar; elsewhere it is a line every ten seconds, so that a log shows that
the run is alive. A reader that goes away (`| head`) silences the output and does not end the run.
"""

from __future__ import annotations

import datetime
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from sdekit.cli.failure import abandon, one_line

__all__ = ["Advance", "Terminal"]

_EVERY = 10.0  # seconds between two lines of progress in a log


class Advance(Protocol):
    """Tells a progress bar how far the work is."""

    def __call__(self, done: int, note: str = "") -> None:
        """`done` units of the total, and a word about them."""


class _Console(Console):
    """A console that falls silent when its reader goes away, and lets the run go on."""

    def on_broken_pipe(self) -> None:
        """Write nothing from here on."""
        self.quiet = True
        abandon(self.file)  # type: ignore[arg-type]  # rich's IO[str]


class Terminal:
    """The two streams of a command."""

    def __init__(self) -> None:
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)

    @property
    def tables(self) -> bool:
        """Whether tables can be shown: a terminal wide enough for their columns."""
        return self.out.is_terminal and not self.out.is_dumb_terminal and self.width >= 100

    @property
    def width(self) -> int:
        """The columns to fill: those of the terminal; 79 elsewhere."""
        if not self.out.is_terminal:
            return 79
        return max(40, shutil.get_terminal_size((80, 24)).columns)

    def printable(self, text: str) -> str:
        """The text without characters that a terminal would obey."""
        return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)

    def say(self, text: str = "", *, style: str = "") -> None:
        """One line of results; styles show on a terminal only."""
        self.out.print(Text(self.printable(text), style=style), soft_wrap=True)

    def wrap(self, text: str, *, indent: str = "", style: str = "") -> None:
        """A paragraph of results, wrapped to the width."""
        lines = textwrap.wrap(
            text, self.width, initial_indent=indent, subsequent_indent=indent,
            break_on_hyphens=False,
        )  # fmt: skip
        for line in lines:
            self.say(line, style=style)

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Advance]:
        """Progress of a long part.

        Args:
            label: what is being done.
            total: the units of work; None where nobody knows.
        """
        if not self.err.is_terminal or self.err.is_dumb_terminal:
            yield _Lines(self.err, label, total).advance
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task(one_line(label), total=total, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=note)


class _Lines:
    """Progress in a log: nothing for ten seconds, then a line every ten."""

    def __init__(self, console: Console, label: str, total: int | None) -> None:
        self.console, self.label = console, one_line(label)
        self.of = f" of {total}" if total is not None else ""
        self.total = total
        self.last = time.monotonic()
        self.start: int | None = None  # what was done before: a resumed run has some
        self.first: tuple[int, float] | None = None  # what was done when, after the start-up

    def advance(self, done: int, note: str = "") -> None:
        """Write a line if one is due."""
        now = time.monotonic()
        if self.start is None:
            self.start = done
        elif self.first is None and done > self.start:
            self.first = done, now
        if now - self.last >= _EVERY:
            self.last = now
            tail = f", {note}" if note else ""
            line = f"{self.label}: {done}{self.of}{self._left(done, now)}{tail}"
            self.console.print(Text(line), soft_wrap=True)

    def _left(self, done: int, now: float) -> str:
        """The time that the rest takes at the pace since the first unit, which had to start up."""
        if self.total is None or self.first is None or not self.first[0] < done < self.total:
            return ""
        before, began = self.first
        seconds = (now - began) * (self.total - done) / (done - before)
        return f", about {datetime.timedelta(seconds=round(seconds))} left"


def _console(stream: TextIO) -> Console:
    return _Console(file=stream, highlight=False, markup=False, emoji=False)
