"""Sphinx: python -m sphinx -W -b html docs docs/_build/html. Nothing is fetched from a network."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import sdekit

sys.path.append(str(Path(__file__).resolve().parent))  # for tables.py

project = "sdekit"
author = "the sdekit authors"
copyright = author  # the name that Sphinx reads
version = release = sdekit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"sdekit {release}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a dataclass are documented once
python_display_short_literal_types = True
python_maximum_signature_line_length = 88

# Docstrings are Google's, with formulas and names as plain text: x_t | x_s, (batch, *dims), `eta`.
_CODE = re.compile(r"(``?)([^`]+)\1")
_EMPHASIS = re.compile(r"(?<![\w*])\*(\w[\w ]*\w)\*(?![\w*])")
_SPECIAL = re.compile(r"(?<!\\)([*|]|(?<=\w)_(?!\w))")
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note):$")


def _prose(line: str) -> str:
    """A line with its code as literals, and what reStructuredText would read as markup escaped."""
    parts = []
    last = 0
    line = _EMPHASIS.sub("\0\\1\0", line)
    for code in _CODE.finditer(line):
        parts += [_SPECIAL.sub(r"\\\1", line[last : code.start()]), f"``{code.group(2)}``"]
        last = code.end()
    return "".join([*parts, _SPECIAL.sub(r"\\\1", line[last:])]).replace("\0", "*")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring's formulas into literal blocks and its prose into what reads the same."""
    if what in ("property", "attribute") and lines:
        lines.insert(0, "")  # else napoleon takes what stands before a colon for a type
    out: list[str] = []
    section = doctest = literal = False
    for line in lines:
        blank, depth = not line.strip(), _indent(line)
        if _SECTION.match(line):
            section, literal = True, False
        elif not blank and depth == 0:
            section = False
        doctest = not blank and (doctest or line.lstrip().startswith(">>>"))
        if literal and not blank and depth == 0:
            literal = False
        begins = not section and not blank and depth > 0 and (not out or not out[-1].strip())
        if begins and not literal:
            out += [".. code-block:: text", ""]
            literal = True
        out.append(line if doctest or literal or _SECTION.match(line) else _prose(line))
    lines[:] = out


def fill_reference(app: Any, name: str, source: list[str]) -> None:
    """The page of the reference, from the public names of every room."""
    if name == "reference":
        import tables  # beside this file

        source[0] = tables.fill(source[0], "reference", tables.reference())


def fields_of_dataclass(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """A dataclass is shown with its fields, whatever its base does when it is called."""
    if what != "class" or not dataclasses.is_dataclass(obj):
        return None
    shown = [
        f"{field.name}={field.default!r}"
        for field in dataclasses.fields(obj)
        if field.init and field.default is not dataclasses.MISSING
    ]
    return (f"(*, {', '.join(shown)})", returns) if shown else None


def setup(app: Any) -> None:
    """Before napoleon reads the docstrings."""
    app.connect("source-read", fill_reference)
    app.connect("autodoc-process-docstring", plain_text, priority=100)
    app.connect("autodoc-process-signature", fields_of_dataclass)
