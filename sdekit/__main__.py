"""`python -m sdekit` is the command `sdekit`."""

from __future__ import annotations

import sys

from sdekit.cli import main

sys.exit(main())
