"""Put measured times into docs/exact.md: python docs/exact_table.py FILE.

FILE is what `python benchmarks/exact_law.py --json FILE` wrote.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tables import fill, table

PAGE = Path(__file__).resolve().parent / "exact.md"


def line(row: dict[str, Any]) -> list[str]:
    """One row of the table."""
    d, drawn = row["variances"], row["samples"]
    return [
        row["what"],
        str(row["steps"]),
        "-" if d is None else str(d),
        f"{row['seconds']:.2f}",
        f"{row['reach']:g}",
        "-" if drawn is None else f"{drawn:.0f}",
    ]


def main() -> int:
    """Fill the region of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the benchmark's --json file")
    rows = json.loads(parser.parse_args().file.read_text(encoding="utf-8"))
    header = ["what", "steps", "variances", "seconds", "to reach", "200,000 samples, seconds"]
    body = table(header, [line(row) for row in rows])
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), "exact", body), encoding="utf-8")
    print(f"{PAGE}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
