"""How long exact laws take: every fixed-grid sampler on a spectrum, and mixtures along a line.

    python benchmarks/exact_law.py [--quick] [--json FILE]

The law of 1000 steps on Gaussians of 64 and of 3072 variances, to take under 2 s and 20 s, and the
error budget of the tutorial's mixture. Each figure is the median of three runs in one process, on
all cores that torch takes, after one that warms up; memory is the growth of the peak. The law of
200,000 samples would have a standard error of its own: the last column is the time they take.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sdekit import VPSDE, ExactScore, Gaussian, catalogue, make, sample
from sdekit.errors import NotAffine
from sdekit.exact import attribute_error, output_law
from sdekit.sampling import Sampler

REACH = {64: 2.0, 3072: 20.0}  # seconds


def samplers() -> dict[str, Sampler]:
    """The default of every sampler of the catalogue that steps along a grid."""
    made = {name: entry.make() for name, entry in catalogue("sampler").items()}
    return {name: s for name, s in made.items() if "adaptive" not in s.needs}


def timed(go: Callable[[], object], repeats: int) -> float:
    """The median of some runs, after one that warms up."""
    go()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        go()
        taken.append(time.perf_counter() - started)
    return median(taken)


def spectra(quick: bool) -> list[dict[str, object]]:
    """One row a sampler and dimension."""
    steps, sizes = (100, [64]) if quick else (1000, [64, 3072])
    rows: list[dict[str, object]] = []
    work = [(d, name, s) for d in sizes for name, s in samplers().items()]
    for d, name, sampler in track(work, description="laws", console=Console(stderr=True)):
        law = Gaussian.from_spectrum(torch.zeros(d), torch.logspace(-3, 1, d, dtype=torch.float64))
        model = ExactScore(law, VPSDE())
        try:
            seconds = timed(partial(output_law, sampler, model, steps=steps), 1 if quick else 3)
        except NotAffine:  # by a rule that depends on the sample
            continue
        n = 500  # and the time in proportion
        started = time.perf_counter()
        if d == 64 and not quick:
            sample(model, (n, d), sampler=sampler, steps=steps, seed=0)
        drawn = (time.perf_counter() - started) * 200_000 / n if d == 64 and not quick else None
        rows.append(
            {"what": name, "steps": steps, "variances": d, "seconds": seconds,
             "reach": REACH[d], "samples": drawn}
        )  # fmt: skip
    return rows


def budgets(quick: bool) -> list[dict[str, object]]:
    """The error budget of the tutorial, of a chain and of a flow."""
    target = make("target", "tutorial")
    cases = [("ancestral", "ddpm(n=100)", None), ("heun", "vp()", 50)]
    rows: list[dict[str, object]] = []
    for sampler, spelled, steps in cases:
        model = ExactScore(target, make("sde", spelled))
        go = partial(attribute_error, sampler, model, steps=steps)
        rows.append(
            {"what": f"error budget, {sampler}, {spelled}", "variances": None,
             "steps": steps or model.sde.default_steps,
             "seconds": timed(go, 1 if quick else 3), "reach": 10.0, "samples": None}
        )  # fmt: skip
    return rows


def main() -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps, variances and repeats")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    args = parser.parse_args()
    rows = spectra(args.quick) + budgets(args.quick)
    table = Table(title=f"exact laws, {torch.get_num_threads()} threads")
    for heading in ("what", "steps", "variances", "seconds", "to reach", "200,000 samples take"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for row in rows:
        drawn, d = row["samples"], row["variances"]
        table.add_row(
            str(row["what"]), str(row["steps"]), "-" if d is None else str(d),
            f"{row['seconds']:.2f}", f"{row['reach']:g}",
            "-" if drawn is None else f"{drawn:.0f} s",
        )  # fmt: skip
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
