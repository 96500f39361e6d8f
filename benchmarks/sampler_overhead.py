"""What a sampler adds to each network call, against a hand-written loop of the same arithmetic.

    python benchmarks/sampler_overhead.py [--quick] [--json FILE]

The model is free: it returns a stored tensor. For each sampler the same plan of coefficients is
run twice in one process, by `sdekit.sample` and by a bare loop written out for that family in
`_loops.py`, in interleaved repetitions; a figure is the median time over the number of calls, and
the ratio is the median of the ratios of neighbouring repetitions, with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from _loops import bare_loop
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sdekit import VPSDE, ScoreModel, sample
from sdekit._catalogue import catalogue
from sdekit.sampling import Sampler, plan_for
from sdekit.sampling.grid import resolve_grid

REACH = {1: 1.5, 4096: 1.4}  # the ratios to reach, by batch size


class Free(torch.nn.Module):
    """A network without a cost."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.out = torch.linspace(-1, 1, 2 * batch).reshape(batch, 2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The stored tensor."""
        return self.out


def planning(sampler: Sampler, repeats: int) -> float:
    """Milliseconds to plan 50 steps that were never planned before: the median."""
    sde = VPSDE()
    model, grid = ScoreModel(Free(1), sde), resolve_grid("uniform", sde, 50)
    took = []
    for k in range(repeats):
        other = grid.clone()
        other[1] -= 1e-9 * (k + 1)
        start = time.perf_counter()
        plan_for(sampler, sde, model.parametrization, other)
        took.append((time.perf_counter() - start) * 1e3)
    return statistics.median(took)


def measure(sampler: Sampler, batch: int, steps: int, repeats: int) -> dict:
    """Medians and quartiles for one sampler at one batch size."""
    net, sde = Free(batch), VPSDE()
    model = ScoreModel(net, sde)
    grid = resolve_grid("uniform", sde, steps)
    plan = plan_for(sampler, sde, model.parametrization, grid)
    x = torch.zeros(batch, 2)
    loop = bare_loop(sampler, list(plan.rows), net, torch.zeros(batch))
    generator = torch.Generator().manual_seed(0)
    calls = sample(model, (batch, 2), sampler=sampler, steps=steps, seed=0, x_init=x).nfe
    ours, bare = [], []
    with torch.no_grad():
        for _ in range(repeats):
            start = time.perf_counter()
            sample(model, (batch, 2), sampler=sampler, steps=steps, seed=0, x_init=x)
            middle = time.perf_counter()
            loop(x, generator)
            end = time.perf_counter()
            ours.append((middle - start) / calls * 1e6)
            bare.append((end - middle) / calls * 1e6)
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    return {
        "sampler": repr(sampler), "batch": batch, "steps": steps, "calls": calls,
        "ours_us": statistics.median(ours), "bare_us": statistics.median(bare),
        "ratio": ratio, "ratio_low": low, "ratio_high": high, "reach": REACH[batch],
        "planning_ms": planning(sampler, 5 * repeats),
    }  # fmt: skip


def main() -> None:
    """Measure every fixed-grid sampler of the catalogue and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few repetitions, to see that it runs"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(
        "sampler",
        "batch",
        "bare us/call",
        "sdekit us/call",
        "ratio (quartiles)",
        "to reach",
        "plan ms",
    )
    rows = []
    for batch in REACH:
        for entry in catalogue("sampler").values():
            for sampler in entry.examples()[: 1 if args.quick else None]:
                if "adaptive" in sampler.needs:
                    continue
                steps = 20 if args.quick else args.steps
                row = measure(sampler, batch, steps, 5 if args.quick else args.repeats)
                rows.append(row)
                table.add_row(
                    row["sampler"], str(batch), f"{row['bare_us']:.1f}", f"{row['ours_us']:.1f}",
                    f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})",
                    f"{row['reach']:.1f}", f"{row['planning_ms']:.2f}",
                )  # fmt: skip
    Console(width=150).print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
