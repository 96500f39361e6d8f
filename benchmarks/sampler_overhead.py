"""What a sampler adds to each network call, against a hand-written loop of the same arithmetic.

    python benchmarks/sampler_overhead.py [--quick] [--json FILE]

The model is free: it returns a stored tensor. For each sampler the same plan of coefficients is
run twice in one process, by `sdekit.sample` and by a bare loop written out below for that family,
in interleaved repetitions; a figure is the median time over the number of calls, and the ratio is
the median of the ratios of neighbouring repetitions, with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sdekit import VPSDE, ScoreModel, sample
from sdekit._catalogue import catalogue
from sdekit.sampling import OneKick, Sampler, plan_for
from sdekit.sampling.grid import resolve_grid
from sdekit.sampling.probability_flow import TABLEAUS

REACH = {1: 1.5, 4096: 1.4}  # the ratios to reach, by batch size
Loop = Callable[[Tensor, torch.Generator], Tensor]


class Free(torch.nn.Module):
    """A network without a cost."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.out = torch.linspace(-1, 1, 2 * batch).reshape(batch, 2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The stored tensor."""
        return self.out


class Call:
    """A prediction without any of the package around it."""

    def __init__(self, net: Free, told: Tensor, x: Tensor, t: float) -> None:
        self.x, self.raw = x, net(x, told)

    def mix(self, weights: tuple[float, float]) -> Tensor:
        """The two weights' combination."""
        return torch.mul(self.x, weights[0]).add_(self.raw, alpha=weights[1])


def bare_loop(sampler: Sampler, rows: list, net: Free, told: Tensor) -> Loop:
    """The loop one would write by hand for this sampler, from the same rows of floats."""
    mul, randn = torch.mul, torch.randn

    def one_step(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            (a, b), std = c.mean, c.std
            x = mul(x, a).add_(net(x, told), alpha=b)
            if std:
                x.add_(randn(x.shape, generator=g), alpha=std)
        return x

    def heun(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            if c.fresh:
                x = mul(x, c.lift).add_(randn(x.shape, generator=g), alpha=c.fresh)
            raw = net(x, told)
            y = mul(x, c.euler[0]).add_(raw, alpha=c.euler[1])
            x = mul(x, c.half[0]).add_(raw, alpha=c.half[1]).add_(net(y, told), alpha=c.rest[1])
        return x

    def corrections(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            for _ in range(sampler.repeats):
                a, b = c.move
                x = (
                    mul(x, a)
                    .add_(net(x, told), alpha=b)
                    .add_(randn(x.shape, generator=g), alpha=c.std)
                )
        return x

    def norm_corrections(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            for _ in range(sampler.repeats):
                a, b = c.score
                score, z = mul(x, a).add_(net(x, told), alpha=b), randn(x.shape, generator=g)
                zn, sn = z.norm(dim=1).mean(), score.norm(dim=1).mean()
                size = 2 * c.k2 * (sampler.snr * zn / sn).square()
                x = x + size * score + (2 * size).sqrt() * z
        return x

    def pair(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            p, q = c.predict, c.correct
            for (a, b), std in ([q.move, q.std], [p.mean, p.std])[
                :: 1 if sampler.first == "corrector" else -1
            ]:
                x = mul(x, a).add_(net(x, told), alpha=b)
                if std:
                    x.add_(randn(x.shape, generator=g), alpha=std)
        return x

    def runge_kutta(x: Tensor, g: torch.Generator) -> Tensor:
        stages = len(TABLEAUS[sampler.solver][1])
        names = [(f"k{i}", f"a{i}") for i in range(stages)]
        for c in rows:
            slopes: list[Tensor] = []
            for k, a in names:
                y = x
                for slope, weight in zip(slopes, getattr(c, a), strict=False):
                    if weight:
                        y = torch.add(y, slope, alpha=weight)
                on_x, on_raw = getattr(c, k)
                slopes.append(mul(y, on_x).add_(net(y, told), alpha=on_raw))
            for slope, weight in zip(slopes, c.b, strict=True):
                if weight:
                    x = torch.add(x, slope, alpha=weight)
        return x

    def own_steps(x: Tensor, g: torch.Generator) -> Tensor:
        state, noise = None, lambda y: randn(y.shape, generator=g)
        model = partial(Call, net, told)
        for c in rows:
            x, state = sampler.step(x, c, model, state, noise)
        return x

    families = {"heun": heun, "predictor_corrector": pair, "probability_flow": runge_kutta}
    name = sampler.catalogue_name
    if hasattr(rows[0], "move"):
        return (
            norm_corrections if getattr(sampler, "rule", "sigma") == "batch_norm" else corrections
        )
    # a sampler that is not written out here is measured against its own steps
    return one_step if isinstance(sampler, OneKick) else families.get(name, own_steps)


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
    }  # fmt: skip


def main() -> None:
    """Measure every fixed-grid sampler of the catalogue and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few repetitions, to see that it runs"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(
        "sampler", "batch", "bare us/call", "sdekit us/call", "ratio (quartiles)", "to reach"
    )
    rows = []
    for batch in REACH:
        for entry in catalogue("sampler").values():
            for sampler in entry.examples()[: 1 if args.quick else None]:
                if "adaptive" in sampler.needs:
                    continue
                steps = 20 if args.quick else args.steps
                row = measure(sampler, batch, steps, 5 if args.quick else 60)
                rows.append(row)
                table.add_row(
                    row["sampler"], str(batch), f"{row['bare_us']:.1f}", f"{row['ours_us']:.1f}",
                    f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})",
                    f"{row['reach']:.1f}",
                )  # fmt: skip
    Console(width=150).print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
