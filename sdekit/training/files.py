"""A run folder: the newest checkpoint, and the lock; its files are written by `sdekit._files`.

A run folder is locked by `flock`, which the kernel releases however its holder ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from sdekit._files import clean, read, regular, write
from sdekit.errors import CheckpointError, RunLockedError

__all__ = ["checkpoints", "clean", "locked", "name_of_step", "read", "regular", "write"]

_STEP = re.compile(r"step-(\d{1,18})\.safetensors")
_LOCK = ".sdekit-lock"
_PROBE = ".sdekit-probe"


def name_of_step(step: int) -> str:
    """The name of the checkpoint of a step in a run folder."""
    return f"step-{step:08d}.safetensors"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the checkpoints in a run folder, the newest step first."""
    found = [(_STEP.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(((int(m[1]), path) for m, path in found if m), reverse=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder, made if need be, for this process alone; writing there is tried at once.

    Raises:
        RunLockedError: another live process holds it; its number and host are named.
        CheckpointError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(folder / _LOCK, flags, 0o666)
    except OSError as error:
        raise CheckpointError(f"cannot write to {folder}: {error}", kind="incompatible") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            os.write(handle, f"pid {os.getpid()} on host {socket.gethostname()}".encode())
            clean(folder, everything=True)
            write(folder / _PROBE, b"probe")
            (folder / _PROBE).unlink()
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                held = os.read(handle, 1000).decode(errors="replace").strip() or "unknown"
                raise RunLockedError(f"{folder} is in use by another run: {held}") from None
            raise CheckpointError(f"cannot lock {folder}: {error}") from error
        yield
    finally:
        os.close(handle)  # which releases the lock; the file stays: removing it would be a race
