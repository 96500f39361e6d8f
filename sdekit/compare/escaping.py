r"""Text of others in files of ours: names are data, wherever they stand.

| place | what would be obeyed | what is written |
| --- | --- | --- |
| terminal | control characters, text turned around | `visible`: `\x1b`, `\u202e` |
| HTML | markup, quotes | entities |
| JSON in a script | `</script>`, U+2028 | `\u003c`, `\u2028`; never NaN |
| Markdown | emphasis, images, links, tables, HTML | a code span, or entities |
| CSV | a leading = + - @ of a text | an apostrophe before it |
"""

from __future__ import annotations

import json
import math
import re
from html import escape
from typing import Any

from sdekit._page import tag

__all__ = ["cell", "code", "html", "json_in_script", "markdown", "plain_json", "tag", "visible"]

_FORMULA = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
            "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
_PLAIN = re.compile(r"[\w .,=()'\"+\-/:;%*]*")  # inert inside a code span, as it stands
_KEPT = re.compile(r"[^\W_]|[ .,=%:']")
_OWN = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def visible(text: object, *, keep: str = "") -> str:
    r"""The text with characters that a terminal or a reader would obey written out.

    Args:
        text: anything; its str.
        keep: such characters that may stay.

    Example:
        >>> visible("a\x1b]0;b\nc")
        'a\\x1b]0;b\\nc'
    """
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] or "?" for c in str(text))


def html(text: object) -> str:
    """Text for an element or a quoted attribute."""
    return escape(visible(text), quote=True)


def finite(value: Any) -> Any:
    """The value with None for every number that JSON does not have.

    Example:
        >>> finite({"a": [1.0, float("nan")]})
        {'a': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def plain_json(value: Any, *, compact: bool = False) -> str:
    """JSON in ASCII without NaN or infinity, keys in the order given."""
    apart = (",", ":") if compact else None
    return json.dumps(finite(value), allow_nan=False, separators=apart)


def json_in_script(value: Any) -> str:
    r"""JSON that may stand inside `<script type="application/json">`.

    Example:
        >>> json_in_script("</script>")
        '"\\u003c/script\\u003e"'
    """
    text = plain_json(value, compact=True)
    for character, own in _OWN.items():
        text = text.replace(character, own)
    return text


def markdown(text: object) -> str:
    """Text for Markdown, also inside a table.

    Example:
        >>> markdown("a|b")
        'a&#124;b'
    """
    return "".join(c if _KEPT.fullmatch(c) else f"&#{ord(c)};" for c in visible(text))


def code(text: object) -> str:
    """A name for Markdown: a code span where nothing in it could end or leave one.

    Example:
        >>> code("ddim(eta=0.0)"), code("`<b>")
        ('`ddim(eta=0.0)`', '&#96;&#60;b&#62;')
    """
    shown = visible(text)
    return f"`{shown}`" if shown.strip() and _PLAIN.fullmatch(shown) else markdown(shown)


def cell(value: Any) -> str:
    """A field of CSV: numbers by repr, lists as JSON, text that no spreadsheet computes.

    Example:
        >>> cell(-0.5), cell("-0.5"), cell(None), cell([1, 2.0])
        ('-0.5', "'-0.5", '', '[1, 2.0]')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        shown = visible(value)
        return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown
    return plain_json(value)
