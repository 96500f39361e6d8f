"""From words to a command's dataclass of options, by tyro; wrong words become a ConfigError.

The dataclass's docstring is the text of `--help`, its example included; the docstring below each
field is that of the option.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from sdekit.errors import ConfigError

__all__ = ["Common", "Float", "Int", "MaybeFloat", "MaybeInt", "parse"]

T = TypeVar("T")

_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_CONFIG = (
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.OmitArgPrefixes,
)


def _whole(words: list[str]) -> int:
    """A decimal integer: no 1e3, no 010, no 1_000."""
    if not _WHOLE.fullmatch(words[0]):
        raise ValueError(f"{words[0]!r} is not a whole number")
    return int(words[0])


def _real(words: list[str]) -> float:
    try:
        return float(words[0])
    except ValueError:
        raise ValueError(f"{words[0]!r} is not a number") from None


def _spec(metavar: str, read: Any, kind: Any) -> Any:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


Int = Annotated[int, _spec("INT", _whole, int)]
Float = Annotated[float, _spec("FLOAT", _real, float)]
MaybeInt = Annotated[int | None, _spec("INT", _whole, int | None)]
MaybeFloat = Annotated[float | None, _spec("FLOAT", _real, float | None)]


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command that computes."""

    seed: Int = 0
    """of everything that is random: the same seed, the same result"""
    device: str = "cpu"
    """where to compute: cpu, cuda, cuda:1, ..."""
    overwrite: bool = False
    """replace what --out holds"""
    debug: bool = False
    """after a failure, show where in the code it happened"""


def parse(options: type[T], command: str, words: Sequence[str]) -> T:
    """The options that the words spell.

    Raises:
        ConfigError: an unknown option (the nearest is named), a value that cannot be read, or an
            option that is missing.
        SystemExit: after `--help`.
    """
    words = list(words)
    program = f"sdekit {command}"
    names = [field.name for field in fields(options)]  # type: ignore[arg-type]
    known = [f"--{name.replace('_', '-')}" for name in names]
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and flag not in [*known, "--help", "--"]:
            close = get_close_matches(flag, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ConfigError(f"{program} has no option {flag}; {hint}See {program} --help")
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(
                options,
                prog=program,
                description=inspect.getdoc(options),
                args=words,
                config=_CONFIG,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(f"{_gist(heard.getvalue())}; see {program} --help") from None


def _gist(text: str) -> str:
    """The first section of what tyro says, on one line.

    Sections are parted by rules. The title is in the frame, or, where there is no frame, before
    the first rule.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    framed = text.lstrip().startswith("╭")
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        plain = line.strip("│ \t")
        if re.fullmatch(r"[─\-]{3,}", plain):
            sections.append([])
        elif plain and not plain.startswith(("╭", "╰")):
            sections[-1].append(plain)
    first = sections[0] if framed or len(sections) == 1 else sections[1]
    return " ".join(first).rstrip(".") or "the options cannot be read"
