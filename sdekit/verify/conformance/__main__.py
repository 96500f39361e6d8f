"""`python -m sdekit.verify.conformance [NAME ...]`: measure rows, show what was found.

Without names it lists them. `all` measures every row whose library is installed.
"""

from __future__ import annotations

import argparse
import sys

from sdekit._check import choice
from sdekit.errors import ConfigError
from sdekit.verify.conformance.page import lines_of, shown_lines
from sdekit.verify.conformance.rows import ROWS
from sdekit.verify.conformance.shown import SHOWN
from sdekit.verify.conformance.table import measure


def main(argv: list[str] | None = None) -> int:
    """Print what is asked for; 2 for a name that is not known, 1 for a library that is absent."""
    parser = argparse.ArgumentParser(prog="python -m sdekit.verify.conformance")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a row or of a thing to show")
    names = parser.parse_args(argv).names
    if not names:
        for name, row in ROWS.items():
            _say(f"{name:24} {row.library}: {row}")
        for name, one in SHOWN.items():
            _say(f"{name:24} {one.library}: {one.says}")
        return 0
    absent = 0
    for name in [*ROWS, *SHOWN] if names == ["all"] else names:
        try:
            choice("NAME", name, [*ROWS, *SHOWN])
            lines = shown_lines(name) if name in SHOWN else lines_of(name, measure(ROWS[name]))
            for line in lines:
                _say(line)
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        except ImportError as error:
            absent = 1
            _say(f"{name}: not measured here: {error}")
    return absent


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
