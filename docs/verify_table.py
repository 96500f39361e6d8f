"""Write the checks and the kill matrix into docs/verify.md: python docs/verify_table.py.

The matrix is measured, by the checks that each mutant names: one or two minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tables import fill, table

from sdekit.verify import kill_matrix
from sdekit.verify.claims import CHECKS

PAGE = Path(__file__).resolve().parent / "verify.md"


def checks_table() -> str:
    """A table a kind: name, claim, source, cost."""
    parts = []
    for kind in dict.fromkeys(check.kind for check in CHECKS.values()):
        mine = [check for check in CHECKS.values() if check.kind == kind]
        rows = [[f"`{c.name}`", _plain(c.claim), _plain(c.source), c.cost] for c in mine]
        parts.append(f"### {kind}\n\n{table(['check', 'claim', 'source', 'cost'], rows)}")
    return "\n\n".join([f"{len(CHECKS)} checks.", *parts])


def mutants_table() -> str:
    """A line a mutant: its fault, and the checks that kill it."""
    matrix = kill_matrix()
    rows = [
        [
            f"`{row.mutant.name}`",
            _plain(row.mutant.fault) + (f" [{row.mutant.peer}]" if row.mutant.peer else ""),
            ", ".join(f"`{name}`" for name in row.killed_by) or "**survives**",
        ]
        for row in matrix.rows
    ]
    dead = sum(bool(row.killed_by) for row in matrix.rows)
    verdict = (
        f"{dead} of {len(matrix.rows)} mutants are killed; "
        f"{len(CHECKS) - len(matrix.idle)} of {len(CHECKS)} checks kill one."
    )
    print(matrix.summary)
    return f"{verdict}\n\n{table(['mutant', 'fault', 'killed by'], rows)}"


def _plain(text: str) -> str:
    """Text for a cell: stars and underscores of formulas are no marks."""
    return text.replace("*", "\\*").replace("_", "\\_")


def main() -> int:
    """Fill both regions of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    page = parser.parse_args().page
    text = fill(page.read_text(encoding="utf-8"), "checks", checks_table())
    page.write_text(fill(text, "mutants", mutants_table()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
