r"""The tutorial's mixture learnt by every objective, and what importance sampling saves.

    python benchmarks/objectives.py [--quick] [--json FILE] [--only TEXT]

First table: one network (MLP 2-128-128-128-2, EDM's parametrisation with sigma_data = 3, told
log(sigma/alpha)/4) on VP, trained from the same weights on fresh samples by each objective of the
catalogue: DSM with each weighting and with each law of the time, and the others with all their
examples. AdamW, batches of 512, the trainer's other defaults. The column is the relative Fisher
divergence, E|s - s*|^2 / E|s*|^2, at 20 times on (t_min, t_max] and averaged over them, with the
standard error of its draws (not of the training); "worst" is the largest of the 20, which is the
one next to the data. The bound of a chain is trained on DDPM.linear(1000), at 20 of its nodes.

Second table: the variance of the likelihood-weighted loss, and of its gradient, with uniform over
importance-sampled times, for the network that the plain DSM loss gave. Mean and range over
repetitions with fresh draws.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sdekit import (
    DDPM,
    DSM,
    VLB,
    VPSDE,
    GaussianMixture,
    ScoreModel,
    SubVPSDE,
    Trainer,
    catalogue,
)
from sdekit.errors import SdekitError
from sdekit.model import MLP
from sdekit.objectives import FisherDivergence, Objective
from sdekit.sde import LinearSDE

DATA = GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)
REACH = 0.05
STEPS, LR, BATCH = 2000, 2e-3, 512


def model_of(sde: LinearSDE, objective: Objective) -> ScoreModel:
    """The untrained network, always the same, but for twice the outputs to learn variances."""
    learned = getattr(objective, "variance", None) == "learned"
    return ScoreModel(
        MLP(2, width=128, seed=0, outputs=4 if learned else None),
        sde,
        parametrization="edm(sigma_data=3.0)",
        time_input="c_noise",
        uncertainty=True,
        variance="learned_range" if learned else None,
    )


def objectives() -> list[Objective]:
    """DSM by each weighting and by each law, and every other objective of the catalogue."""
    found = [DSM(weighting=entry.make()) for entry in catalogue("weighting").values()]
    for law in catalogue("time").values():
        weighting = "likelihood" if "corrected" in law.cls.kinds else "simple"
        found.append(DSM(weighting=weighting, time=law.make()))
    for name, entry in catalogue("objective").items():
        found += entry.examples() if name != "dsm" else []
    found += [VLB(variance="learned", hybrid=True)]
    return list(dict.fromkeys(found))  # uniform times are in both


def suited(objective: Objective) -> LinearSDE:
    """The process it is trained on: VP, or a chain, whose bound it is."""
    return DDPM.linear(1000) if hasattr(objective, "hybrid") else VPSDE()


def learnt(objective: Objective, steps: int, evaluation: FisherDivergence) -> dict[str, Any]:
    """One row of the first table, with its model."""
    row: dict[str, Any] = {"objective": repr(objective)}
    try:
        model = model_of(suited(objective), objective)
        start = time.perf_counter()
        model = Trainer(model, objective, lr=LR, batch_size=BATCH).fit(DATA, steps=steps).model
        row["seconds"] = time.perf_counter() - start
        found = evaluation(model)
    except SdekitError as error:  # said in the table, not hidden
        return {**row, "reason": str(error)}
    return {
        **row, "mean": found.mean, "stderr": found.mean_stderr,
        "worst": float(found.relative.max()), "model": model,
    }  # fmt: skip


def gradient_variance(model: ScoreModel, objective: DSM, batches: int, seed: int) -> float:
    """The trace of the covariance of a batch's gradient."""
    generator = torch.Generator().manual_seed(seed)
    parameters = list(model.network.parameters())
    rows = []
    for _ in range(batches):
        x0 = DATA.sample(BATCH, generator=generator)
        loss = objective(model, x0, generator=generator).mean()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return float(torch.stack(rows).double().var(dim=0).sum())


def reduction(model: ScoreModel, repeats: int, batches: int) -> dict[str, list[float]]:
    """Var with uniform over var with importance-sampled times, of the loss and its gradient."""
    uniform, importance = (DSM(weighting="likelihood", time=t) for t in ("uniform", "importance"))
    found: dict[str, list[float]] = {"loss": [], "gradient": []}
    for seed in range(repeats):
        spread = []
        for objective in (uniform, importance):
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                x0 = DATA.sample(BATCH * batches, generator=generator)
                spread.append(float(objective(model, x0, generator=generator).double().var()))
        found["loss"].append(spread[0] / spread[1])
        found["gradient"].append(
            gradient_variance(model, uniform, batches, seed)
            / gradient_variance(model, importance, batches, seed)
        )
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it runs")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    parser.add_argument("--only", default="", help="objectives whose spelling holds this text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    steps = 30 if options.quick else STEPS
    evaluation = FisherDivergence(DATA, times=4 if options.quick else 20, n=4096)
    table = Table("objective", "relative Fisher divergence", "worst", "seconds", title="learnt by")
    rows = []
    for objective in objectives():
        if options.only not in repr(objective):
            continue
        row = learnt(objective, steps, evaluation)
        rows.append(row)
        if "reason" in row:
            table.add_row(row["objective"], f"not trained: {row['reason']}", "", "")
            continue
        mark = "" if options.quick or row["mean"] <= REACH else " (above 5 %)"
        table.add_row(
            row["objective"],
            f"{100 * row['mean']:.2f} % +- {100 * row['stderr']:.2f}{mark}",
            f"{100 * row['worst']:.1f} %",
            f"{row['seconds']:.0f}",
        )
        if not options.quick:
            console.print(row["objective"], f"{100 * row['mean']:.2f} %")
    console.print(table)
    saved = Table("process", "of", "uniform over importance", "range", title="variance saved")
    ratios = {}
    for sde in (VPSDE(), SubVPSDE()):
        model = model_of(sde, DSM())
        model = Trainer(model, DSM(), lr=LR, batch_size=BATCH).fit(DATA, steps=steps).model
        measured = reduction(model, *((2, 10) if options.quick else (5, 200)))
        ratios[repr(sde)] = measured
        for of, values in measured.items():
            mean = sum(values) / len(values)
            saved.add_row(repr(sde), of, f"{mean:.2f}", f"{min(values):.2f} to {max(values):.2f}")
    console.print(saved)
    if options.json is not None:
        plain = [{key: value for key, value in row.items() if key != "model"} for row in rows]
        options.json.write_text(json.dumps({"learnt": plain, "saved": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
