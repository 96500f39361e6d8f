"""Measure the order of every fixed-grid sampler: python docs/orders_table.py [--missing].

Every example of every sampler of the catalogue that steps along a grid, on VP, sub-VP and VE where
it serves them, by `sdekit.exact.order.convergence_order`: a few seconds each. The measurements go
into sdekit/exact/orders.json, which `sdekit list sampler` reads, and from there into the table of
docs/orders.md. Entries of plug-ins are left out. With --missing only those are measured of which
the file has nothing; those of samplers that are gone are dropped in any case.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tables import fill, own, table

from sdekit import __version__
from sdekit.cli.listing import ORDERS
from sdekit.errors import ConfigError, NotAffine
from sdekit.exact.order import convergence_order
from sdekit.sampling.setup import serves
from sdekit.sde import VESDE, VPSDE, LinearSDE, SubVPSDE

PAGE = Path(__file__).resolve().parent / "orders.md"
SDES: dict[str, LinearSDE] = {"vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE()}

Found = dict[str, dict[str, Any]]  # SDE -> what was measured on it


def measurable() -> Iterator[Any]:
    """The examples whose steps are those of the grid, and do not depend on the sample."""
    for entry in own("sampler").values():
        for sampler in entry.examples():
            chooses = {"adaptive", "rejects"} & sampler.needs
            if not chooses and "norm" not in getattr(sampler, "rule", ""):
                yield sampler


def measured(sampler: Any) -> Found:
    """The orders of one sampler on each SDE, or why there is none."""
    found: Found = {}
    for name, sde in SDES.items():
        if not serves(sampler, sde):
            continue
        try:
            order = convergence_order(sampler, sde)
        except (ConfigError, NotAffine) as error:
            found[name] = {"reason": str(error)}
            continue
        found[name] = {
            "weak": round(order.weak, 4),
            "interval": [round(v, 4) for v in order.interval],
            "window": list(order.window),
            "strong": None if order.strong is None else round(order.strong, 4),
        }
        print(f"{sampler!r} on {name}: {order}", flush=True)
    return found


def as_text(orders: dict[str, Found]) -> str:
    """The file: JSON with a line for each sampler and SDE, so that changes can be read."""
    parts = []
    for spelling, found in orders.items():
        lines = [f"   {json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()]
        parts.append(f"  {json.dumps(spelling)}: {{\n" + ",\n".join(lines) + "\n  }")
    body = ",\n".join(parts)
    return f'{{\n "version": {json.dumps(__version__)},\n "orders": {{\n{body}\n }}\n}}\n'


def row(sampler: Any, name: str, found: dict[str, Any]) -> list[str]:
    """A line of the table."""
    declared = "none" if sampler.weak_order is None else str(sampler.weak_order)
    first = [f"`{sampler!r}`", f"`{name}`", declared]
    if "reason" in found:
        return [*first, found["reason"], "", ""]
    (low, high), (begin, end), strong = found["interval"], found["window"], found["strong"]
    return [
        *first,
        f"{found['weak']:.2f} ({low:.2f} to {high:.2f})",
        "" if strong is None else f"{strong:.2f}",
        f"{begin} to {end}",
    ]


def orders_table(orders: dict[str, Found]) -> str:
    """All of them, and how many reach what is declared."""
    lines, claimed, reached = [], 0, 0
    for sampler in measurable():
        for name, found in orders[repr(sampler)].items():
            lines.append(row(sampler, name, found))
            claimed += sampler.weak_order is not None
            high = found.get("interval", [0.0, 0.0])[1]
            reached += sampler.weak_order is not None and high >= sampler.weak_order
    header = ["sampler", "SDE", "declared", "weak (95 %)", "strong", "window, steps"]
    verdict = (
        f"In {reached} of {claimed} rows with a declared order the interval reaches it. The "
        f"{len(lines) - claimed} others declare none, for a bias remains at any number of steps."
    )
    return f"{table(header, lines)}\n\n{verdict}"


def main() -> int:
    """Write the file and fill the region of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    parser.add_argument("--missing", action="store_true", help="measure what the file lacks")
    options = parser.parse_args()
    known: dict[str, Found] = {}
    if options.missing and ORDERS.exists():
        known = json.loads(ORDERS.read_text(encoding="utf-8"))["orders"]
    orders = {repr(s): known.get(repr(s)) or measured(s) for s in measurable()}
    ORDERS.write_text(as_text(orders), encoding="utf-8")
    text = fill(options.page.read_text(encoding="utf-8"), "orders", orders_table(orders))
    options.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
