"""Put measured figures into docs/likelihood.md: python docs/likelihood_table.py FILE.

FILE is what `python benchmarks/likelihood.py --json FILE` wrote.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tables import fill, table

PAGE = Path(__file__).resolve().parent / "likelihood.md"


def speed(row: dict[str, Any]) -> list[str]:
    """One comparison at equal error."""
    return [
        row["model"], str(row["dim"]), row["other"], f"{row['tol']:g}", f"{row['error']:.1e}",
        f"{1e3 * row['seconds']:.0f}", row["divergence"], f"{row['own_error']:.1e}",
        f"{1e3 * row['own_seconds']:.0f}",
        f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
    ]  # fmt: skip


def budget(row: dict[str, Any]) -> list[str]:
    """One process and tolerance."""
    cells = [row["process"], f"{row['tol']:g}"]
    for what in ("plain", "corrected"):
        cells += [
            f"{row[f'{what} error']:.1e}",
            f"{100 * row[f'{what} covered']:.1f} %",
            f"{row[f'{what} ratio']:.2f}",
        ]
    return cells


def main() -> int:
    """Fill the regions of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the benchmark's --json file")
    found = json.loads(parser.parse_args().file.read_text(encoding="utf-8"))
    regions = {
        "cases": f"Of {found['cases']} cases a row, on a Gaussian and three mixtures:",
        "budgets": table(
            ["process", "tolerance", "data: median error", "covered", "budget / error",
             "corrected: median error", "covered", "budget / error"],
            map(budget, found["budgets"]),
        ),
        "speed": table(
            ["model", "d", "against", "at", "its error, nats", "ms", "ours, divergence",
             "error, nats", "ms", "ratio (quartiles)"],
            map(speed, found["rows"]),
        ),
        "traces": table(
            ["d", "batch", "loop", "vmap", "forward", "sdekit"],
            [
                [str(row["dim"]), str(row["batch"]),
                 *(f"{row[way]:.2f}" for way in ("loop", "vmap", "forward", "sdekit"))]
                for row in found["traces"]
            ],
        ),
    }  # fmt: skip
    text = PAGE.read_text(encoding="utf-8")
    for name, body in regions.items():
        text = fill(text, name, body)
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE}: {len(found['rows'])} and {len(found['budgets'])} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
