"""Other projects' numbers into docs/reference-values.md: python docs/reference_table.py.

Every case of five files of reference values, by the modules of the tests: some seconds. The
values are looked for where the tests look, in SDEKIT_REFERENCE or beside the checkout; without
them nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tables import ROOT, fill, table

PAGE = Path(__file__).resolve().parent / "reference-values.md"
TITLES = {
    "diffusers_schedulers": "diffusers",
    "kdiffusion_samplers": "k-diffusion",
    "edm_samplers": "EDM",
    "dpm_solver_official": "DPM-Solver and UniPC, official",
    "azula_samplers": "azula and smalldiffusion",
}


def _error(value: float | None) -> str:
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.0e}"


def cases(found) -> str:
    """A line for every case."""
    lines = []
    for name, one in found.items():
        state = _error(one.error)
        if one.error is None:
            state = "outside" if one.outside else "not reproduced"
        ours = f"`{one.ours}`" if one.ours.endswith(")") else one.ours
        lines.append([f"`{name}`", ours, state, _error(one.levels), one.note])
    return table(["case", "sdekit", "states", "levels", "what differs"], lines)


def summary(all_found, counts) -> str:
    """A line for every file, and the sums."""
    lines, total = [], [0] * 5
    for file, found in all_found.items():
        numbers = [len(found), *counts(found)]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        worst = max(one.error for one in found.values() if one.error is not None)
        lines.append([TITLES[file], f"`{file}`", *map(str, numbers), f"{worst:.0e}"])
    lines.append(["together", "", *map(str, total), ""])
    header = [
        "source", "file", "cases", "as it is", "formula put in", "not reproduced", "outside",
        "largest error",
    ]  # fmt: skip
    rate = total[3] / (total[0] - total[4])
    return f"{table(header, lines)}\n\nNot reproduced are {rate:.1%} of those inside."


def main() -> int:
    """Fill the regions of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    page = parser.parse_args().page
    sys.path.append(str(ROOT / "tests"))
    import torch
    from reference_samplers import MODULES, counts, outcomes
    from support import Reference, reference_absent, reference_folder

    if reference_absent():
        print(f"{reference_absent()}: the page stays as it is")
        return 1
    torch.set_num_threads(1)
    reference = Reference(reference_folder())
    found = {file: outcomes(file, reference) for file in MODULES}
    text = fill(page.read_text(encoding="utf-8"), "summary", summary(found, counts))
    for file, one in found.items():
        text = fill(text, file, cases(one))
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
