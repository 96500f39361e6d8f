"""The report of a comparison: a page, its Markdown, and the tables, made from a stored experiment.

| file | holds | same inputs, same bytes |
| --- | --- | --- |
| `report.html` | everything, in one page that loads nothing | but for the block `varies` |
| `report.md` | findings and tables | but for that block |
| `rows.csv`, `rows.jsonl` | every row with every digit | yes |
| `times.csv` | seconds of every run | no |

The block stands between the comments `<!-- varies -->` and `<!-- /varies -->`.
"""

from __future__ import annotations

from pathlib import Path

from sdekit._files import write
from sdekit.compare.drawing import demand
from sdekit.compare.findings import Findings, find
from sdekit.compare.flat import rows_csv, rows_jsonl, times_csv
from sdekit.compare.naming import shown
from sdekit.compare.page import page
from sdekit.compare.store import Stored, load
from sdekit.compare.text import text

__all__ = ["published", "render", "report"]


def render(stored: Stored) -> dict[str, bytes]:
    """The files of a report, by name.

    Args:
        stored: an experiment and its cells, as `sdekit.compare.store.load` reads them.

    Raises:
        ModuleNotFoundError: altair or vl-convert is missing, which `sdekit[report]` brings.
    """
    return _files(stored)[0]


def published(stored: Stored, folder: Path) -> tuple[Path, Findings]:
    """Write the report of what was loaded into a folder; the page, and what it says."""
    files, found = _files(stored)
    for name, data in files.items():
        write(folder / name, data)
    return folder / "report.html", found


def _files(stored: Stored) -> tuple[dict[str, bytes], Findings]:
    demand()
    read = shown(stored)
    found = find(read)
    files = {
        "report.html": page(read, found).encode("utf-8"),
        "report.md": text(read, found).encode("utf-8"),
        "rows.csv": rows_csv(stored.rows),
        "rows.jsonl": rows_jsonl(stored.rows),
        "times.csv": times_csv(stored),
    }
    return files, found


def report(out: str | Path) -> Path:
    """Write the report of an experiment into its folder, each file old or new and never half.

    Args:
        out: the folder of a run, finished or not.

    Returns:
        The path of `report.html`.

    Raises:
        ModuleNotFoundError: altair or vl-convert is missing, which `sdekit[report]` brings.
        ConfigError: the folder holds no comparison.
        DataError: none of its cells is finished yet.
        CheckpointError: the folder cannot be written to.
    """
    demand()
    return published(load(Path(out)), Path(out))[0]
