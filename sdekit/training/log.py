"""The log of a run: one JSON object a line, in `log.jsonl` of the run folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sdekit.errors import CheckpointError
from sdekit.training import files

__all__ = ["Log"]


class Log:
    """Appends records; every record holds its step.

    Args:
        path: the file; None: nothing is written.
        step: the step that the run begins at: records of later steps, left by a run that went
            further than its last checkpoint, are dropped.

    Raises:
        CheckpointError: the file cannot be written, or is no plain file.
    """

    def __init__(self, path: Path | None, step: int) -> None:
        self._file: IO[str] | None = None
        if path is None:
            return
        files.regular(path, missing=True)
        kept = b""
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            kept = b"".join(line for line in lines if _step_of(line) <= step)
        files.write(path, kept)
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error}", kind="incompatible") from error

    def write(self, **record: Any) -> None:
        """Append one record; a number that is not finite becomes null.

        Raises:
            CheckpointError: the system refuses (a full disk).
        """
        if self._file is not None:
            clean = {
                k: None if isinstance(v, float) and not math.isfinite(v) else v
                for k, v in record.items()
            }
            try:
                self._file.write(json.dumps(clean, allow_nan=False) + "\n")
                self._file.flush()
            except OSError as error:
                raise CheckpointError(f"cannot write the log: {error}") from error

    def __enter__(self) -> Log:
        """The log itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _step_of(line: bytes) -> float:
    """The step of a line; infinite where the line is damaged (a run that was killed)."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
