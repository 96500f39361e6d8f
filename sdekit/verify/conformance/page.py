"""Rows and shown lines as text for a terminal and as Markdown for docs/conformance.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sdekit.exact.order import Slope
from sdekit.verify.conformance.rows import ROWS, version
from sdekit.verify.conformance.shown import SHOWN
from sdekit.verify.conformance.table import COUNTS, Measured

__all__ = ["COMMAND", "lines_of", "names_of", "regions", "shown_lines", "table_of"]

COMMAND = "python -m sdekit.verify.conformance"


def _order(slope: Slope | None) -> str:
    if slope is None:
        return "none seen"
    return f"{slope.value:.2f} ({slope.interval[0]:.2f} to {slope.interval[1]:.2f})"


def lines_of(name: str, found: Measured) -> Iterator[str]:
    """What the command prints of a row."""
    yield f"{name}: {found.row} of {found.row.library} {found.version}"
    yield f"  exact W2  {' '.join(f'{e:.2e}' for e in found.errors)} at n = {COUNTS}"
    even = "" if found.even is None else f"; where n divides 1000: {_order(found.even)}"
    yield f"  order     {_order(found.slope)}, named after {found.row.order}{even}"
    if found.report is None:
        return
    yield f"  checks    {_counts(found)}"
    for result in found.report:
        if result.status == "failed":
            yield f"  FAILED    {result.name}: {result.says}; {result.example}".rstrip("; ")
        elif result.status == "skipped":
            yield f"  not asked {result.name}: {result.reason}"


def _counts(found: Measured) -> str:
    assert found.report is not None
    states = [result.status for result in found.report]
    return (
        f"{states.count('passed')} passed, {states.count('failed')} failed, "
        f"{states.count('skipped')} not asked"
    )


def shown_lines(name: str) -> Iterator[str]:
    """What the command prints of a thing to show."""
    one = SHOWN[name]
    yield f"{name}: {one.library} {version(one.library)}"
    yield from (f"  {line}" for line in one.lines())


def table_of(found: dict[str, Measured]) -> str:
    """A Markdown table of rows."""
    head = ["name", "sampler", *(f"n = {n}" for n in COUNTS), "named after", "order (95 %)",
            "order, n divides 1000", "checks that fail"]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for name, one in found.items():
        failed = [r.name for r in one.report or () if r.status == "failed"]
        lines.append([
            f"`{name}`", f"`{one.row}`", *(f"{e:.2e}" for e in one.errors), str(one.row.order),
            _order(one.slope), "" if one.row.library == "azula" else _order(one.even),
            ", ".join(f"`{check}`" for check in failed) or ("" if one.report is None else "none"),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _failures(found: dict[str, Measured]) -> str:
    """What the failing checks saw."""
    lines = [
        f"- `{name}`, `{result.name}`: {result.says}"
        + f" ({result.example})" * bool(result.example)
        for name, one in found.items()
        for result in one.report or ()
        if result.status == "failed"
    ]
    return "\n".join(lines)


def _blocks(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield f"### {name}\n\n{SHOWN[name].says}:\n\n```sh\n{COMMAND} {name}\n```\n"
        yield "```\n" + "\n".join(shown_lines(name)) + "\n```\n"


def regions(library: str, found: dict[str, Measured]) -> dict[str, str]:
    """The regions of the page that belong to a library, from its measured rows."""
    own = {name: found[name] for name in names_of(library)}
    asked = [one for one in own.values() if one.report is not None]
    total = sum(result.status != "skipped" for one in asked for result in one.report or ())
    good = sum(result.status == "passed" for one in asked for result in one.report or ())
    table = (
        f"{library} {version(library)}: {good} of {total} checks asked of {len(asked)} samplers "
        f"pass.\n\n{table_of(own)}\n\n{_failures(own)}"
    )
    names = [name for name, one in SHOWN.items() if one.library == library]
    return {library: table, f"{library}-shown": "\n".join(_blocks(names))}


def names_of(library: str) -> Sequence[str]:
    """The rows that a library's table holds: its own, and sdekit's beside diffusers'."""
    beside = {"diffusers": ("diffusers", "sdekit")}.get(library, (library,))
    return [name for name, row in ROWS.items() if row.library in beside]
