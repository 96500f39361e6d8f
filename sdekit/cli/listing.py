"""`sdekit list`: everything that has a name, with its fields and their defaults."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sdekit.cli.terminal import Terminal

if TYPE_CHECKING:
    from sdekit._catalogue import Entry
    from sdekit.sampling import Sampler

__all__ = ["OPTIONS", "ORDERS", "claims", "measured", "run"]

# what docs/orders_table.py measured; a path, for importing sdekit.exact would take its time
ORDERS = Path(__file__).resolve().parent.parent / "exact" / "orders.json"


@dataclass(frozen=True, kw_only=True)
class List:
    """List what has a name: SDEs, targets, samplers, grids, weightings, metrics and more.

    A name is used as NAME or "NAME(field=value, ...)", on the command line and in Python alike. Of
    a sampler it says the order that it declares and the smallest that was measured on vp, sub_vp
    and ve, its network calls a step, whether it draws noise, and the SDEs that it serves.

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
    if seen := _seen(thing):
        order, found, calls, noise, sdes = seen
        known = f" declared, {found} measured" if found != "-" else ""
        kind = "stochastic" if noise == "yes" else "deterministic"
        plural = "" if calls == "1" else "s"
        facts.append(f"Order {order}{known}; {calls} call{plural} a step; {kind}; SDEs: {sdes}.")
    if entry.paper:
        facts.append(f"[{entry.paper}]")
    terminal.wrap(" ".join(fact for fact in facts if fact), indent="      ")


_SEEN = {"order": 5, "measured": 8, "calls": 5, "noise": 5, "SDEs": 6}  # and their widths


def _table(kind: str, entries: list[Entry], terminal: Terminal) -> None:
    """The entries of a kind as a table, for a wide terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{kind}: {len(entries)}", title_justify="left", expand=True)
    seen = _SEEN if kind == "sampler" else {}
    table.add_column("name", overflow="fold", ratio=4)
    table.add_column("what", overflow="fold", ratio=4)
    for heading, width in seen.items():
        table.add_column(heading, overflow="fold", min_width=width)
    table.add_column("paper", overflow="fold", ratio=2, min_width=16)
    for entry in entries:
        thing = _default(entry)
        cells = [_spelling(entry, thing), entry.doc]
        cells += (_seen(thing) or ["-"] * len(seen)) if seen else []
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


def _seen(thing: Any) -> list[str]:
    """What is to be said of a sampler, by the headings of `_SEEN`; nothing of other kinds."""
    if not hasattr(thing, "nfe_per_step"):
        return []
    from sdekit._catalogue import catalogue
    from sdekit.sampling.setup import serves

    order, calls = claims(thing)
    made = {name: _default(entry) for name, entry in catalogue("sde").items()}
    served = [name for name, sde in made.items() if sde is not None and serves(thing, sde)]
    sdes = "all" if len(served) == len(made) else ", ".join(served) or "none"
    return [order, measured(thing), calls, "yes" if "noise" in thing.needs else "no", sdes]


@cache
def _orders() -> dict[str, Any]:
    """The measured orders by the sampler's spelling and the SDE; empty without the file."""
    if not ORDERS.is_file():
        return {}
    found: dict[str, Any] = json.loads(ORDERS.read_text(encoding="utf-8"))["orders"]
    return found


def measured(sampler: Sampler) -> str:
    """The smallest of a sampler's measured weak orders, or "-" where it has none to measure."""
    orders = [found.get("weak") for found in _orders().get(repr(sampler), {}).values()]
    if sampler.weak_order is None or not orders or None in orders:
        return "-"
    return f"{min(orders):.2f}"


def claims(sampler: Sampler) -> tuple[str, str]:
    """The order and the calls a step that a sampler declares; the docs' tables say the same."""
    if "adaptive" in sampler.needs:
        return "adaptive", "adaptive"
    return "none" if sampler.weak_order is None else str(sampler.weak_order), str(
        sampler.nfe_per_step
    )
