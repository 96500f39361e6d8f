"""Ending a run on request: the step is finished and saved, then the process ends as asked.

SIGINT becomes KeyboardInterrupt (exit code 130), SIGTERM becomes SystemExit(143). A second signal
ends the run at once. Signals are handled in the main thread only; elsewhere they are left alone.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Stop"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """A context in which the first SIGINT or SIGTERM is noted and the second one raises."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        """Install the handlers, in the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not None:  # None: not Python's, cannot be put back
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise self.exception("a second signal")
        self.received = number

    def exception(self, message: str) -> BaseException:
        """What ends the run."""
        if self.received == signal.SIGTERM:
            return SystemExit(128 + signal.SIGTERM)
        return KeyboardInterrupt(message)
