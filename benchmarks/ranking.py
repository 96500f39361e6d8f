r"""A ranking that 20,000 samples get wrong, and the exact law right.

    python benchmarks/ranking.py [--quick] [--json FILE]

Samplers at 64 network calls on the tutorial's mixture in one dimension, 0.2 N(3, 1) + 0.8 N(-3,
1), under VP with its exact score. The quantity is the same on both sides, W2 between the law of
the output and the data: exactly, by quadrature (`sdekit.exact`), and between 20,000 samples and
20,000 draws of the data, in one dimension the root mean square difference of the sorted samples.
Every sampler starts from the same noise and meets the same draws, as `sdekit compare` does it.

A third computation, which shares nothing with the quadrature, says who is right: deterministic
samplers are monotone maps here, so their output's quantiles are the images of the prior's, and W2
is a mean over 400,000 levels of the difference to the data's quantiles, by SciPy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import optimize, stats

from sdekit import VPSDE, ExactScore, GaussianMixture, make, sample
from sdekit.exact import Law1D, output_law_1d
from sdekit.metrics import wasserstein

N = 20_000
LEVELS = 400_000
METHODS = [  # sampler, steps, grid: 64 calls each
    ("euler_maruyama", 64, "uniform"), ("ddim", 64, "uniform"), ("deis", 64, "log_snr"),
    ("dpm_solver", 64, "log_snr"), ("dpmpp_2m", 64, "log_snr"), ("unipc", 64, "log_snr"),
    ("ipndm", 64, "log_snr"), ("heun", 32, "uniform"), ("heun", 32, "quadratic"),
    ("ancestral", 64, "uniform"),
]  # fmt: skip
LAW = GaussianMixture([0.2, 0.8], [[3.0], [-3.0]], 1.0)


def by_levels(model: ExactScore, sampler: str, steps: int, grid: str, levels: int) -> float:
    """W2 of a deterministic sampler's output, from the images of the prior's quantiles."""
    u = (np.arange(levels) + 0.5) / levels
    start = torch.from_numpy(stats.norm.ppf(u))[:, None]
    x = sample(model, (levels, 1), sampler=sampler, steps=steps, grid=grid, x_init=start).x[:, 0]

    def cdf(at: Any) -> Any:
        return 0.2 * stats.norm.cdf(at, 3) + 0.8 * stats.norm.cdf(at, -3)

    found = optimize.elementwise.find_root(
        lambda at, level: cdf(at) - level, (np.full(levels, -20.0), np.full(levels, 20.0)),
        args=(u,),
    )  # fmt: skip
    return float(np.sqrt(np.mean((np.sort(x.numpy()) - found.x) ** 2)))


def exact(model: ExactScore, sampler: str, steps: int, grid: str) -> Law1D:
    """The law of a sampler's output, by quadrature."""
    return output_law_1d(sampler, model, steps=steps, grid=grid)


def drawn(model: ExactScore, sampler: str, steps: int, grid: str, seed: int) -> float:
    """W2 between N samples and N draws of the data, of one seed."""
    x = sample(
        model, (N, 1), sampler=sampler, steps=steps, grid=grid, seed=seed, dtype=torch.float64
    ).x
    source = torch.Generator().manual_seed(10_000 + seed)
    return float(wasserstein(x, LAW.sample(N, generator=source, dtype=torch.float64), points=None))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 seeds, 4 samplers, fewer levels")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    seeds = range(2 if options.quick else 20)
    methods = METHODS[1:5] if options.quick else METHODS
    model, data = ExactScore(LAW, VPSDE()), Law1D.of(LAW)
    rows = []
    for name, steps, grid in track(methods, description="samplers"):
        law = exact(model, name, steps, grid)
        quiet = "noise" not in make("sampler", name).needs
        levels = 20_000 if options.quick else LEVELS
        rows.append({
            "method": f"{name}, {grid}", "exact": law.wasserstein(data), "error": law.error,
            "levels": by_levels(model, name, steps, grid, levels) if quiet else None,
            "sampled": [drawn(model, name, steps, grid, seed) for seed in seeds],
        })  # fmt: skip
    rows.sort(key=lambda row: row["exact"])
    table = Table("sampler, grid", "exact", "by levels", "20,000 samples", "first in")
    sampled = np.array([row["sampled"] for row in rows])
    best = sampled.argmin(axis=0)
    for k, row in enumerate(rows):
        other = "-" if row["levels"] is None else f"{row['levels']:.4f}"
        mean, spread = sampled[k].mean(), sampled[k].std(ddof=1)
        table.add_row(row["method"], f"{row['exact']:.4f}", other, f"{mean:.3f} ± {spread:.3f}",
                      f"{(best == k).sum()} of {len(seeds)}")  # fmt: skip
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"n": N, "seeds": len(seeds), "rows": rows}))


if __name__ == "__main__":
    main()
