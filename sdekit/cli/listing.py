"""`sdekit list`: everything that has a name, with its fields and their defaults."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sdekit.cli.terminal import Terminal

if TYPE_CHECKING:
    from sdekit._catalogue import Entry
    from sdekit.sampling import Sampler

__all__ = ["OPTIONS", "claims", "run"]


@dataclass(frozen=True, kw_only=True)
class List:
    """List what has a name: SDEs, targets, samplers, grids, weightings, metrics and more.

    A name is used as NAME or "NAME(field=value, ...)", on the command line and in Python alike.

    Examples:
      sdekit list
      sdekit list samplers
    """

    kind: Annotated[str, tyro.conf.Positional] = "all"
    """sde, target, sampler, grid, weighting, metric, network, parametrization, objective"""
    debug: bool = False
    """after a failure, show where in the code it happened"""


OPTIONS = List


def run(options: List, terminal: Terminal) -> int:
    """Print the entries of one kind, or of all; returns the exit code."""
    from sdekit._catalogue import KINDS, catalogue

    entries = (
        {kind: catalogue(kind) for kind in KINDS}
        if options.kind == "all"
        else {options.kind: catalogue(options.kind)}
    )
    for number, (kind, named) in enumerate(entries.items()):
        if number:
            terminal.say()
        kind = kind if kind in KINDS else kind.removesuffix("s")
        if terminal.tables:
            _table(kind, list(named.values()), terminal)
            continue
        terminal.say(f"{kind}: {len(named)}")
        for entry in named.values():
            _show(entry, terminal)
    return 0


def _show(entry: Entry, terminal: Terminal) -> None:
    """One entry as text: its spelling with all defaults, what it is and claims, its source."""
    thing = _default(entry)
    terminal.wrap(_spelling(entry, thing), indent="  ")
    facts = [entry.doc.rstrip(".") + "." if entry.doc else ""]
    if claims := _claims(thing):
        order, calls, needs = claims
        plural = "" if calls == "1" else "s"
        facts.append(f"Order {order}; {calls} call{plural} a step; needs {needs}.")
    if entry.paper:
        facts.append(f"[{entry.paper}]")
    terminal.wrap(" ".join(fact for fact in facts if fact), indent="      ")


def _table(kind: str, entries: list[Entry], terminal: Terminal) -> None:
    """The entries of a kind as a table, for a wide terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{kind}: {len(entries)}", title_justify="left", expand=True)
    claimed = ["order", "calls", "needs"] if kind == "sampler" else []
    widths = {"name": 4, "what": 4, "paper": 2}
    for heading in ["name", "what", *claimed, "paper"]:
        table.add_column(heading, overflow="fold", ratio=widths.get(heading), min_width=5)
    for entry in entries:
        thing = _default(entry)
        cells = [_spelling(entry, thing), entry.doc, *(_claims(thing) if claimed else [])]
        table.add_row(*(Text(terminal.printable(cell)) for cell in [*cells, entry.paper]))
    terminal.out.print(table)


def _default(entry: Entry) -> Any:
    """The object with all defaults, or the first example where it has none."""
    try:
        return entry.make()
    except Exception:  # whatever a class of somebody else's raises: it is shown all the same
        try:
            return entry.examples()[0]
        except Exception:
            return None


def _spelling(entry: Entry, thing: Any) -> str:
    text = repr(thing)
    if text.startswith(f"{entry.name}("):
        return text
    try:
        parameters = inspect.signature(entry.cls).parameters.values()
    except (TypeError, ValueError):
        return entry.name
    fields = [
        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    return f"{entry.name}({', '.join(fields)})" if fields else entry.name


def _claims(thing: Any) -> list[str]:
    """What a sampler declares: its order, calls a step, needs; nothing for other kinds."""
    if not hasattr(thing, "needs"):
        return []
    return [*claims(thing), ", ".join(sorted(thing.needs - {"adaptive"})) or "nothing"]


def claims(sampler: Sampler) -> tuple[str, str]:
    """The order and the calls a step that a sampler declares; the docs' tables say the same."""
    if "adaptive" in sampler.needs:
        return "adaptive", "adaptive"
    return "none" if sampler.order is None else str(sampler.order), str(sampler.nfe_per_step)
