"""The look that every page of sdekit shares: one file, no request, any screen, light or dark."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["STYLE", "document", "tag"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --quiet: #5f6368; --line: #d9dce0;
  --page: #fff; --mark: #f3f6fa; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --quiet: #a4a8ae; --line: #3a3d42;
  --page: #16181b; --mark: #202429; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: 1.5rem .9rem 3rem; color: var(--ink);
  background: var(--page); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p { margin: .5rem 0; }
.why { background: var(--mark); border-left: .25rem solid var(--accent); padding: .8rem 1rem;
  margin: 1.2rem 0; font-size: 1.08rem; }
figure { margin: .8rem 0 0; }
figcaption, .quiet { color: var(--quiet); font-size: .9rem; }
.wide { overflow-x: auto; margin-top: .8rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .92rem; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th.n, td.n { text-align: right; white-space: nowrap; padding-right: .2rem; }
code { font-size: .92em; overflow-wrap: anywhere; }
"""


def tag(name: str, text: object, *, kind: str = "") -> str:
    """An element that holds a text, escaped.

    Args:
        name: of the element.
        text: what it holds; never markup.
        kind: its class.

    Example:
        >>> tag("td", "a < b", kind="n")
        '<td class="n">a &lt; b</td>'
    """
    given = f' class="{escape(kind)}"' if kind else ""
    return f"<{name}{given}>{escape(str(text))}</{name}>"


def document(title: str, *, style: str, body: Iterable[str], head: Iterable[str] = ()) -> str:
    """The whole page as one text.

    Args:
        title: of the window, escaped here.
        style: CSS that follows the shared one.
        body: markup, line by line.
        head: more of the head, such as a policy of what may be loaded.
    """
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            *head,
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            tag("title", title),
            f"<style>{STYLE}{style}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )
