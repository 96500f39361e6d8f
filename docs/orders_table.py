"""Measure the order of every fixed-grid sampler into docs/orders.md: python docs/orders_table.py.

Every example of every sampler of the catalogue that steps along a grid, on VP, sub-VP and VE, by
`sdekit.exact.order.convergence_order`: one or two minutes. Entries of plug-ins are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tables import fill, own, table

from sdekit.exact.order import Order, convergence_order
from sdekit.sde import VESDE, VPSDE, LinearSDE, SubVPSDE

PAGE = Path(__file__).resolve().parent / "orders.md"
SDES: dict[str, LinearSDE] = {"vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE()}


def measurable() -> Iterator[Any]:
    """The examples whose steps are those of the grid, and do not depend on the sample."""
    for entry in own("sampler").values():
        for sampler in entry.examples():
            chooses = {"adaptive", "rejects"} & sampler.needs
            if not chooses and "norm" not in getattr(sampler, "rule", ""):
                yield sampler


def row(sampler: Any, name: str, order: Order) -> list[str]:
    """A line of the table."""
    low, high = order.interval
    return [
        f"`{sampler!r}`",
        f"`{name}`",
        "none" if sampler.order is None else str(sampler.order),
        f"{order.weak:.2f} ({low:.2f} to {high:.2f})",
        "" if order.strong is None else f"{order.strong:.2f}",
        f"{order.window[0]} to {order.window[1]}",
    ]


def orders_table() -> str:
    """All of them, and how many reach what is declared."""
    lines, claimed, reached = [], 0, 0
    for sampler in measurable():
        for name, sde in SDES.items():
            order = convergence_order(sampler, sde)
            lines.append(row(sampler, name, order))
            claimed += sampler.order is not None
            reached += sampler.order is not None and order.interval[1] >= sampler.order
            print(*lines[-1], sep="  ", flush=True)
    header = ["sampler", "SDE", "declared", "weak (95 %)", "strong", "window, steps"]
    verdict = (
        f"In {reached} of {claimed} rows with a declared order the interval reaches it. The "
        f"{len(lines) - claimed} others declare none, for a bias remains at any number of steps."
    )
    return f"{table(header, lines)}\n\n{verdict}"


def main() -> int:
    """Fill the region of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    page = parser.parse_args().page
    text = fill(page.read_text(encoding="utf-8"), "orders", orders_table())
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
