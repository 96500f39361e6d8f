"""Files that are old or new and never half: a plain file is read, or replaced as a whole.

A file is written under a temporary name in the same folder, flushed to the disk, and renamed. The
temporary name holds the host and the process, so that what a dead process left behind is known for
what it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import stat
from pathlib import Path

from sdekit.errors import CheckpointError

__all__ = ["clean", "host", "read", "regular", "write"]

_TEMPORARY = re.compile(
    r"\..+\.(?P<host>[\w-]+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.sdekit-tmp", re.DOTALL
)


def host() -> str:
    """The name of this machine, as it stands in names of temporary files."""
    return re.sub(r"[^\w-]", "-", socket.gethostname()) or "host"


def regular(path: Path, *, missing: bool) -> None:
    """Check that a path is a plain file of its own.

    Args:
        path: the path.
        missing: whether it may also not exist.

    Raises:
        CheckpointError: "unsafe": a link (symbolic, or a second name of a file), a folder, a pipe
            or a device; "incompatible": not there, or not accessible.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        if missing:
            return
        raise CheckpointError(f"no such file: {path}", kind="incompatible") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot look at {path}: {error}", kind="incompatible") from error
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        raise CheckpointError(f"{path} is {what}; a plain file is needed", kind="unsafe")
    if found.st_nlink > 1:
        raise CheckpointError(
            f"{path} is one of {found.st_nlink} hard links to a file; copy it first", kind="unsafe"
        )


def read(path: Path) -> bytes:
    """The bytes of a plain file.

    Raises:
        CheckpointError: as `regular`.
    """
    regular(path, missing=False)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):  # exchanged since it was looked at
                raise CheckpointError(f"{path} is not a regular file", kind="unsafe")
            return file.read()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}", kind="incompatible") from error


def write(path: Path, data: bytes) -> None:
    """Replace a file by these bytes, all or nothing, and survive a loss of power.

    Raises:
        CheckpointError: the target is not a plain file ("unsafe"), or the system refuses (a full
            disk, no permission, no such folder), with the system's error as its cause. Then the
            temporary file is removed and the old file is as it was.
    """
    regular(path, missing=True)
    try:
        clean(path.parent)
        tag = f"{host()}.{os.getpid()}.{secrets.token_hex(4)}"
        temporary = path.with_name(f".{path.name}.{tag}.sdekit-tmp")
        # the mode is the user's umask, as for any other file
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(temporary, flags, 0o666)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error}", kind="incompatible") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clean(folder: Path, *, everything: bool = False) -> None:
    """Remove the temporary files of dead processes of this host.

    Args:
        folder: where to look.
        everything: remove the temporary files of all others, for who holds the folder's lock.
    """
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or int(match["pid"]) == os.getpid():
            continue
        if everything or (match["host"] == host() and not _alive(int(match["pid"]))):
            with contextlib.suppress(OSError):
                path.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
