"""Sentences and tables of the report, once for HTML and Markdown.

A sentence is a list of pieces: a str is text of ours, `Name` is text of others (code in both
forms). A `Table` has headings and cells that are sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdekit.compare.analysis import Fit, Rival, Winner
from sdekit.compare.escaping import code, html, markdown, tag, visible
from sdekit.compare.paired import Row

__all__ = [
    "Name",
    "Sentence",
    "Table",
    "Words",
    "figures",
    "order_table",
    "to_text",
    "winner_table",
]


@dataclass(frozen=True)
class Name:
    """Text that somebody else wrote, set as code."""

    text: str

    def html(self) -> str:
        """As HTML."""
        return tag("code", visible(self.text))

    def markdown(self) -> str:
        """As Markdown."""
        return code(self.text)


@dataclass(frozen=True)
class Words(Name):
    """Text that somebody else wrote, set as text."""

    def html(self) -> str:
        """As HTML."""
        return html(self.text)

    def markdown(self) -> str:
        """As Markdown."""
        return markdown(self.text)


Sentence = Sequence[str | Name]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Headings, rows of sentences, and what each row is about.

    Attributes:
        caption: what it shows.
        heads: one heading a column; those that end in `#` hold numbers.
        rows: the cells.
        about: for each row (data, model, metric), for the page to show those of one question.
    """

    caption: Sentence
    heads: tuple[str, ...]
    rows: list[tuple[Sentence, ...]] = field(default_factory=list)
    about: list[tuple[str, str, str]] = field(default_factory=list)

    def html(self, name: str, kind: str, places: dict[str, int]) -> str:
        """The table in a box of its own; rows name their question by numbers of `places`."""
        kinds = [' class="n"' if head.endswith("#") else "" for head in self.heads]
        head = "".join(
            f'<th scope="col"{k}>{html(h.rstrip("#"))}</th>'
            for h, k in zip(self.heads, kinds, strict=True)
        )
        lines = []
        for cells, about in zip(self.rows, self.about, strict=True):
            at = " ".join(str(places[visible(part)]) for part in about)
            line = "".join(f"<td{k}>{to_html(c)}</td>" for c, k in zip(cells, kinds, strict=True))
            lines.append(f'<tr data-about="{at}">{line}</tr>')
        return (
            f'<div class="wide long" tabindex="0" role="region" aria-label="{html(name)}">'
            f'<table class="chosen all {html(kind)}">'
            f"<caption><span>{to_html(self.caption)}</span></caption>"
            f"<thead><tr>{head}</tr></thead><tbody>\n"
            + "\n".join(lines)
            + "\n</tbody></table></div>"
        )

    def markdown(self) -> str:
        """The table as GitHub's Markdown has it."""
        head = " | ".join(markdown(h.rstrip("#")) for h in self.heads)
        rule = " | ".join("---:" if h.endswith("#") else "---" for h in self.heads)
        lines = (" | ".join(to_markdown(cell) for cell in cells) for cells in self.rows)
        return "\n".join(f"| {line} |" for line in (head, rule, *lines))


def to_html(sentence: Sentence) -> str:
    """A sentence as HTML."""
    return "".join(p.html() if isinstance(p, Name) else html(p) for p in sentence)


def to_markdown(sentence: Sentence) -> str:
    """A sentence as Markdown."""
    return "".join(p.markdown() if isinstance(p, Name) else p for p in sentence)


def to_text(sentence: Sentence) -> str:
    """A sentence as plain text, for a terminal."""
    return "".join(p.text if isinstance(p, Name) else p for p in sentence)


def figures(value: float | None) -> str:
    """A number with four digits, or "n/a"."""
    if value is None:
        return "n/a"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def ends(row: Row) -> str:
    """The 95 % interval of a value."""
    if row["exact"]:
        return "exact"
    if row["low"] is None and row["high"] is None:
        return "not known"
    if row["high"] is None:  # two seeds that differ by orders of magnitude
        return f"at least {figures(row['low'])}"
    return f"{figures(row['low'])} to {figures(row['high'])}"


def valued(row: Row) -> str:
    """The value with its interval in brackets."""
    return f"{figures(row['value'])} [{ends(row)}]"


def bound(p: float | None) -> str:
    """What an adjusted p-value is at most."""
    if p is None:
        return "p not known"
    return "adjusted p < 0.0001" if p < 1e-4 else f"adjusted p \N{LESS-THAN OR EQUAL TO} {p:.2g}"


def who(row: Row, *, grid: bool = True) -> list[str | Name]:
    """The sampler and its grid."""
    found: list[str | Name] = [Name(row["sampler"])]
    return [*found, " on ", Name(row["grid"])] if grid else found


def listed(rivals: Sequence[Rival], most: int = 4, *, grid: bool = True) -> list[str | Name]:
    """The first few of the rivals by name."""
    found: list[str | Name] = []
    for k, rival in enumerate(rivals[:most]):
        found += [", "] if k else []
        found += who(rival.row, grid=grid)
    return [*found, f" and {len(rivals) - most} more"] if len(rivals) > most else found


def sure(won: Winner, *, grid: bool = True, most: int = 4) -> Sentence:
    """How sure it is that the winner wins."""
    rivals, equals = won.rivals, won.equals
    if not rivals:
        return ["no rival within the budget"]
    if won.row["exact"] and equals:  # the value says that it is exact
        return ["the same value as ", *listed(equals, most, grid=grid)]
    if won.row["exact"]:
        next_best = rivals[0].row
        return ["next is ", *who(next_best, grid=grid), f", {figures(next_best['value'])}"]
    if not equals:
        return [f"better than every rival ({bound(won.p)})"]
    if all(rival.p is None for rival in equals):
        return ["how sure is not known: fewer than two seeds, and no standard error"]
    beaten = len(rivals) - len(equals)
    rest = (
        f"; better than the other {beaten} ({bound(won.p)})" if beaten
        else f" (smallest adjusted p = {won.smallest_p:.2g})"
    )  # fmt: skip
    return ["not distinguishable from ", *listed(equals, most, grid=grid), rest]


def winner_table(found: Sequence[Winner]) -> Table:
    """Who wins within each budget."""
    grid = len({won.row["grid"] for won in found}) > 1
    table = Table(
        caption=[
            "The best entrant within each budget. An entrant stands for its row with the most "
            "calls within the budget, not for its luckiest. p: paired over seeds (common random "
            "numbers), Holm's correction over all differences of the question, 5 % in all."
        ],
        heads=("SDE", "metric", "calls up to#", "best", "its calls#", "value#", "95 % interval",
               "how sure", "seeds#", "n#"),
    )  # fmt: skip
    for won in found:
        row = won.row
        table.rows.append(
            (
                [Name(row["sde"])], [Words(row["title"])], [str(won.budget)], who(row, grid=grid),
                [figures(row["calls"])],
                [figures(row["value"])], [ends(row)], sure(won, grid=grid),
                ["-" if row["exact"] else str(len(row["seeds"]))],
                ["-" if row["exact"] else str(row["n"])],
            )
        )  # fmt: skip
        table.about.append((row["data"], row["model"], row["metric"]))
    return table


def order_table(found: Iterable[Fit], titles: dict[str, str]) -> Table:
    """How the errors fall."""
    table = Table(
        caption=[
            "Error = C calls^-p over the asymptotic calls whose values lie clearly above the "
            "floor (value - 2 standard errors > floor); 95 % intervals of the regression and its "
            "remaining drift."
        ],
        heads=("SDE", "metric", "sampler", "grid", "order p#", "95 % interval", "calls",
               "values used#", "why none"),
    )  # fmt: skip
    for fit in found:
        order, interval, window = "n/a", "", ""
        if fit.slope is not None:
            order = f"{fit.slope.value:.2f}"
            interval = "{:.2f} to {:.2f}".format(*fit.slope.interval)
            window = "{} to {}".format(*fit.slope.window)
        table.rows.append(
            (
                [Name(fit.sde)], [Words(titles[fit.metric])],
                [Name(fit.sampler)], [Name(fit.grid)],
                [order], [interval], [window], [str(fit.points)],
                [Words(fit.reason)] if fit.reason else [],
            )
        )  # fmt: skip
        table.about.append((fit.data, fit.model, fit.metric))
    return table


def plain_pieces(items: Iterable[Any]) -> Sentence:
    """Names joined by commas."""
    found: list[str | Name] = []
    for k, item in enumerate(items):
        found += [", ", Name(str(item))] if k else [Name(str(item))]
    return found
