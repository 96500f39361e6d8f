"""What a sampler costs on an accelerator beside the network: python benchmarks/gpu_overhead.py.

A whole run over its network calls alone, with an MLP 2-128-128-2 and with a wide one, on the
device that there is; skipped, with the reason, where there is none.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sdekit import VPSDE, ScoreModel, sample
from sdekit._catalogue import make
from sdekit.model import MLP
from sdekit.sampling import Sampler

SAMPLERS = ("ddim", "ancestral", "heun", "dpmpp_2m", "sde_dpmpp_2m", "unipc", "deis", "er_sde")


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """The median time of a call, the device waited for."""
    took = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


@torch.no_grad()
def network_alone(model: ScoreModel, x: Tensor, calls: int) -> None:
    """The calls, and nothing between them."""
    call = model.bind(x, [0.5], {})
    for _ in range(calls):
        call(x, 0.5)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: no CUDA device on this machine")
        return
    repeats, steps = (3, 20) if args.quick else (12, 50)
    table = Table("sampler", "batch", "width", "network alone, ms", "run, ms", "ratio")
    for batch, width in ((4096, 128), (65536, 1024)):
        model = ScoreModel(MLP(2, width=width).cuda(), VPSDE())
        x = torch.randn(batch, 2, device="cuda")
        for name in SAMPLERS:
            sampler: Sampler = make("sampler", name)

            whole = partial(
                sample, model, tuple(x.shape), sampler=sampler, steps=steps, seed=0, x_init=x
            )
            alone = partial(network_alone, model, x, whole().nfe)
            ours, theirs = seconds(whole, repeats), seconds(alone, repeats)
            table.add_row(
                name, str(batch), str(width), f"{theirs * 1e3:.2f}", f"{ours * 1e3:.2f}",
                f"{ours / theirs:.2f}",
            )  # fmt: skip
    Console(width=110).print(torch.cuda.get_device_name(), table)


if __name__ == "__main__":
    main()
