"""Where a command's files go: nothing of anybody else's is overwritten, no file is ever half."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdekit.errors import ConfigError

__all__ = ["as_json", "claim_file", "claim_folder", "write"]


def claim_folder(out: Path, *, allowed: bool, how: str, ignore: Iterable[str] = ()) -> list[Path]:
    """Make a folder, or take one that exists.

    Args:
        out: the folder.
        allowed: whether it may hold something already.
        how: what would allow it, for the message: "--overwrite".
        ignore: names in it that count as nothing.

    Returns:
        What it holds.

    Raises:
        ConfigError: it is a file, cannot be made, or holds something and that is not allowed.
    """
    try:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is a file, a folder is needed")
        out.mkdir(parents=True, exist_ok=True)
        held = sorted(path for path in out.iterdir() if path.name not in set(ignore))
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be used: {error.strerror or error}") from None
    if held and not allowed:
        some = ", ".join(path.name for path in held[:3]) + (", ..." if len(held) > 3 else "")
        raise ConfigError(f"--out {out} is not empty ({some}); use {how}, or another folder")
    return held


def claim_file(out: Path, suffix: str, *, overwrite: bool) -> Path:
    """The path of a file that may be written, its folder made.

    Args:
        out: the path given; without the suffix it gets it.
        suffix: such as ".npz".
        overwrite: whether an existing file may be replaced.

    Raises:
        ConfigError: it is a folder, exists already, or its folder cannot be made.
    """
    try:
        if out.is_dir():
            raise ConfigError(
                f"--out {out} is a folder; name a file: {out / ('samples' + suffix)}"
            )
        out = out if out.suffix == suffix else out.with_name(out.name + suffix)
        if out.exists() and not overwrite:
            raise ConfigError(f"--out {out} exists; use --overwrite, or another name")
        out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        what = getattr(error, "strerror", None) or error
        raise ConfigError(f"--out {out} cannot be used: {what}") from None
    return out


def write(path: Path, data: bytes) -> None:
    """Replace a file, all or nothing."""
    from sdekit import _files

    _files.write(path, data)


def as_json(content: Any) -> bytes:
    """JSON of finite numbers, readable and always in the same order."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
