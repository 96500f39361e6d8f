"""Peak memory of a run of many points and steps, and whether it grows with the steps.

    python benchmarks/sampler_memory.py [--quick] [--json FILE]

Each case runs in processes of its own, of which the median and the range are shown: the resident
size is read before the run, once a short run has warmed everything up, and its peak (VmHWM, reset
just before) after it. The network returns a stored tensor, so what is counted is the loop:
samples, noise, and the states it holds on to. The bare loop is the same arithmetic by hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track
from rich.table import Table

REACH = 6.0  # MB above the start
PROCESSES = 11  # how the allocator reuses freed blocks differs from process to process


def resident(field: str) -> float:
    """A field of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def run(case: str, points: int, steps: int) -> None:
    """One case, in this process: prints the growth of the peak in MB."""
    import torch

    from sdekit import VPSDE, ScoreModel, sample

    torch.set_num_threads(1)

    class Free(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = torch.zeros(points, 2)

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return self.out[: len(x)]

    model = ScoreModel(Free(), VPSDE())

    def go(n: int, steps: int) -> object:
        if case == "bare":
            x, g = torch.randn(n, 2), torch.Generator()
            for _ in range(steps):
                raw = model.network(x, x)
                x = (
                    torch.mul(x, 1.0)
                    .add_(raw, alpha=0.1)
                    .add_(torch.randn(n, 2, generator=g), alpha=0.1)
                )
            return x
        keep = "all" if case == "trajectory" else None
        return sample(model, (n, 2), sampler="ancestral", steps=steps, seed=0, keep=keep).x

    go(1000, steps)  # plans, imports, caches
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = resident("VmRSS")
    kept = go(points, steps)
    assert len(kept) == points
    print(resident("VmHWM") - before)


def main() -> None:
    """Measure the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer points, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        return run(args.case[0], int(args.case[1]), int(args.case[2]))
    points = 20_000 if args.quick else 100_000
    cases = [("bare", 1000), ("sdekit", 100), ("sdekit", 1000), ("trajectory", 1000)]
    if args.quick:
        cases = [("bare", 50), ("sdekit", 50)]
    table = Table("loop", "points", "steps", "peak above start, MB", "to reach")
    rows = []
    for case, steps in track(cases, "measuring", transient=True):
        words = [sys.executable, __file__, "--case", case, str(points), str(steps)]
        found = []
        for _ in range(1 if case == "trajectory" or args.quick else PROCESSES):
            child = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE)
            found.append(float(child.stdout))
        megabytes, low, high = median(found), min(found), max(found)
        reach = {"sdekit": REACH, "trajectory": 800.0}.get(case)
        rows.append({"loop": case, "points": points, "steps": steps, "mb": found, "reach": reach})
        figure = f"{megabytes:.1f}" + (f" ({low:.1f} to {high:.1f})" if len(found) > 1 else "")
        table.add_row(case, str(points), str(steps), figure, str(reach or ""))
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
