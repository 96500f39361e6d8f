"""Put measured overheads into docs/performance.md: python docs/performance_table.py FILE [PAGE].

FILE is what `python benchmarks/sampler_overhead.py --json FILE` wrote.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import fill, table

PAGE = Path(__file__).resolve().parent / "performance.md"


def overhead_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of the benchmark as a Markdown table, one line a sampler and batch size."""
    header = ["sampler", "batch", "calls", "by hand, us a call", "sdekit, us a call",
              "ratio (quartiles)", "to reach", "planning 50 steps, ms"]  # fmt: skip
    lines = [
        [
            f"`{row['sampler']}`",
            f"{row['batch']}x2",
            str(row["calls"]),
            f"{row['bare_us']:.1f}",
            f"{row['ours_us']:.1f}",
            f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})",
            f"{row['reach']:.1f}",
            f"{row['planning_ms']:.2f}",
        ]
        for row in rows
    ]
    reached = sum(row["ratio"] <= row["reach"] for row in rows)
    planned = sum(row["planning_ms"] < 1 for row in rows)
    verdict = (
        f"{reached} of {len(rows)} rows are at or below the ratio to reach; {planned} are planned "
        "in less than a millisecond."
    )
    return f"{table(header, lines)}\n\n{verdict}"


def main() -> int:
    """Fill the region of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the benchmark's --json file")
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    args = parser.parse_args()
    rows = json.loads(args.file.read_text(encoding="utf-8"))
    text = fill(args.page.read_text(encoding="utf-8"), "overhead", overhead_table(rows))
    args.page.write_text(text, encoding="utf-8")
    print(f"{args.page}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
