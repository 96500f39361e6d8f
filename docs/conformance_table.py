"""Measure other libraries into docs/conformance.md: python docs/conformance_table.py.

Every row of `sdekit.verify.conformance`, about ten minutes for diffusers and two for azula. The
part of a library that is not installed, or that is not named, stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tables import fill

from sdekit.verify.conformance.page import lines_of, names_of, regions
from sdekit.verify.conformance.rows import ROWS, version
from sdekit.verify.conformance.table import measure

PAGE = Path(__file__).resolve().parent / "conformance.md"
LIBRARIES = ("diffusers", "azula")


def main() -> int:
    """Fill the regions of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="*", default=LIBRARIES, metavar="LIBRARY")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    for library in arguments.libraries:
        try:
            version(library)
        except ImportError:
            print(f"{library} is not installed: its part of the page stays as it is")
            continue
        found = {}
        for name in names_of(library):
            found[name] = measure(ROWS[name])
            print("\n".join(lines_of(name, found[name])), flush=True)
        made = regions(library, found)
        text = arguments.page.read_text(encoding="utf-8")
        for region, body in made.items():
            text = fill(text, region, body)
        arguments.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
