"""`sdekit list`: everything that has a name, with its fields and their defaults."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sdekit.cli.terminal import Terminal

if TYPE_CHECKING:
    from sdekit._catalogue import Entry

__all__ = ["OPTIONS", "run"]


@dataclass(frozen=True, kw_only=True)
class List:
    """List what has a name: SDEs, targets, samplers, grids, weightings, metrics and more.

    A name is used as NAME or "NAME(field=value, ...)", on the command line and in Python alike.

    examples:
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
        terminal.say(f"{kind.removesuffix('s')}: {len(named)}", style="bold")
        for entry in named.values():
            _show(entry, terminal)
    return 0


def _show(entry: Entry, terminal: Terminal) -> None:
    """One entry: its spelling with all defaults, what it is, what it claims, its source."""
    thing = _default(entry)
    terminal.wrap(_spelling(entry, thing), indent="  ", style="bold cyan")
    facts = [entry.doc.rstrip(".") + "." if entry.doc else "", *_claims(thing)]
    if entry.paper:
        facts.append(f"[{entry.paper}]")
    terminal.wrap(" ".join(fact for fact in facts if fact), indent="      ")


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
    """What a sampler declares about itself; nothing for other kinds."""
    if not hasattr(thing, "needs"):
        return []
    order = thing.order if thing.order is not None else "none (it corrects)"
    needs = ", ".join(sorted(thing.needs)) or "nothing"
    return [f"Order {order}; {thing.nfe_per_step} calls a step; needs {needs}."]
