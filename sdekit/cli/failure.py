"""What a failure looks like: one line on stderr and an exit code; a traceback only on demand."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import TextIO

from sdekit.errors import (
    CheckpointError,
    ModelError,
    NonFiniteError,
    NotAffine,
    RunLockedError,
    SdekitError,
    SolverError,
)

__all__ = ["abandon", "guarded", "one_line"]

_LONGEST = 1000  # characters of a message

# what a run comes to, as opposed to what it was asked
_FAILED = (ModelError, NonFiniteError, NotAffine, RunLockedError, SolverError)


def one_line(text: object) -> str:
    """The text on one line, without characters that a terminal would obey."""
    line = " ".join(str(text).split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else "?" for c in line)


def code_of(error: BaseException) -> int:
    """The exit code of an error: 2 where the user can mend it by asking differently, else 1."""
    if isinstance(error, CheckpointError):
        refused = isinstance(error.__cause__, OSError)  # by the system
        return 2 if error.kind == "incompatible" and not refused else 1
    return 2 if isinstance(error, SdekitError) and not isinstance(error, _FAILED) else 1


def guarded(command: Callable[[list[str]], int], words: list[str], *, debug: bool) -> int:
    """The exit code of `command(words)`, whatever happens in it."""
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        code = _run(command, words, debug)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            abandon(sys.stdout)
        except (OSError, ValueError) as error:  # a full disk, or a stream that was closed
            abandon(sys.stdout)
            _say(str(error), debug)
            code = code or 1
    return code


def _run(command: Callable[[list[str]], int], words: list[str], debug: bool) -> int:
    try:
        return command(words)
    except SystemExit as stop:  # tyro after --help, a second signal in training
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:  # whoever read our output has seen enough
        abandon(sys.stdout)
        return 0
    except KeyboardInterrupt as stop:
        _say(f"interrupted: {stop}" if str(stop) else "interrupted", debug)
        return 130
    except Exception as error:
        known = isinstance(error, SdekitError | OSError | ImportError | MemoryError)
        text = str(error) or type(error).__name__
        if not known:
            text = f"internal error, {type(error).__name__}: {text} (--debug shows where)"
        _say(text, debug)
        return code_of(error)


def _say(text: str, debug: bool) -> None:
    with contextlib.suppress(OSError, ValueError):
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"sdekit: {one_line(text)}\n")
        sys.stderr.flush()


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line on stderr."""
    del category, filename, lineno, file, line
    _say(f"warning: {message}", debug=False)


def abandon(stream: TextIO) -> None:
    """Send what is still written to a stream nowhere: its reader has gone."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
