r"""Bits per dimension of scikit-learn's digits: an MLP by the ODE and by bounds, beside Gaussians.

    python benchmarks/digits.py [--quick] [--json FILE] [--beta-start B]

The data are the 1797 images of 64 pixels with 17 levels. A fifth is the test split (the target
`digits`, seed 0), 15 % of the rest a validation split. A level k is the cell
[-1 + 2 k / 17, -1 + 2 (k + 1) / 17): uniform dequantisation fills it, a chain with the discretised
decoder sees its middle. Everything is in bits per dimension of the levels: numbers on the test
split are means over its images with 95 % intervals, and differences to the Gaussian are those of
the same images. Every row is an upper bound on -log2 P(k) / 64, in expectation.

    Gaussian    mean and covariance of the dequantised training images, shrunk towards the diagonal
    mixture     of Gaussians, by scikit-learn
    MLP, VP     by DSM with the likelihood's weighting and importance-sampled times, fresh noise of
                dequantisation in every batch
    MLP, chain  a DDPM of 1000 steps, on the middles of the cells

Shrinkage, components and the step at which the training of a network is stopped are chosen on the
validation split. A network is an `MLP` inside the frame of the training data's Gaussian, eq. (1)
of `Framed`: with its last layer at 0, where training starts, it is that Gaussian's exact score.
The second table is for exact scores: there the bound minus -log p has to be >= 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from _digits import (
    BATCH,
    BETA_START,
    BITS,
    CELL,
    DECAY,
    DEPTH,
    DIM,
    HOW,
    LR,
    MIDDLES,
    QUICK,
    SHAPE,
    WIDTH,
    Data,
    Sizes,
    gaussian,
    many,
    mixture,
    placed,
    seeded,
    trained,
)
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit
from torch import Tensor

from sdekit import (
    DDPM,
    DSM,
    VPSDE,
    ExactScore,
    Gaussian,
    GaussianMixture,
    ScoreModel,
    elbo,
    log_prob,
    sample,
)
from sdekit.likelihood import ELBO, VariationalDequantizer
from sdekit.model import Predictor
from sdekit.sde import LinearSDE


class Rows:
    """Bits per dimension of the test images, by law and method."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.first: Tensor | None = None

    def add(
        self, law: str, by: str, noise: str, found: Tensor | ELBO, minus: Tensor | float = 0.0,
        **more: Any,
    ) -> None:  # fmt: skip
        """A row from upper bounds on -log P(k), or estimates of them, less what is taken off.

        The error of a bound is its own too: that of its times and its noise.
        """
        if isinstance(found, ELBO):
            shifted = dataclasses.replace(found, decoder=found.decoder - minus)
            bits, error = shifted.total / BITS, shifted.mean_stderr / BITS
        else:
            bits = (found - minus) / BITS
            error = float(bits.std()) / len(bits) ** 0.5
        self.first = bits if self.first is None else self.first
        gain = bits - self.first
        student = float(stdtrit(len(bits) - 1, 0.975))
        self.rows.append({
            "law": law, "by": by, "noise": noise, "bits": float(bits.mean()),
            "half": student * error, "less": float(gain.mean()),
            "less_half": student * float(gain.std()) / len(gain) ** 0.5, **more,
        })  # fmt: skip


def chain_row(name: str, model: Predictor, data: Data, sizes: Sizes, rows: Rows) -> None:
    """The bound of a chain, of the variance that is better on the validation split."""
    held, levels = (placed(k, False, seeded(0))[0] for k in (data.validation, data.test))
    means = {
        v: elbo(model, held, variance=v, times=sizes.nodes or 250, seed=5, **MIDDLES).mean
        for v in ("posterior", "beta")
    }
    best = min(means, key=lambda v: means[v])
    bound = elbo(model, levels, variance=best, seed=8, times=sizes.nodes, **MIDDLES)
    rows.add(name, f"ELBO, chain ({best})", "none", bound)


def decoder_gap(covs: Tensor, sde: LinearSDE) -> float | None:
    """What the decoder costs a single Gaussian, in nats: the KL divergence of its last step.

    Given x at t_min the data's variance along an axis of variance l is r s, with s = sigma^2 /
    alpha^2 and r = 1 / (1 + s / l), where the decoder says s: 1/2 sum (r - 1 - log r).
    """
    if len(covs) > 1:
        return None
    t = torch.tensor(sde.t_min, dtype=torch.float64)
    r = 1 / (1 + (-sde.log_snr(t)).exp() / torch.linalg.eigvalsh(covs[0]))
    return 0.5 * float((r - 1 - r.log()).sum())


def gaps(
    name: str, law: Gaussian | GaussianMixture, x: Tensor, sizes: Sizes
) -> list[dict[str, Any]]:
    """The second table: the bound of the exact score over -log p, at two ends of the process."""
    nats, found = -law.log_prob(x), []
    for t_min in (1e-3, 1e-2):
        model = ExactScore(law, VPSDE(t_min=t_min))
        bound = elbo(model, x, times=4 * sizes.times, draws=2, seed=9)
        gap = dataclasses.replace(bound, decoder=bound.decoder - nats)  # its error: of the pairs
        covs = torch.as_tensor(law.cov)[None] if name == "Gaussian" else law.covs
        found.append({
            "law": name, "t_min": t_min, "n": len(x), "gap": gap.mean,
            "stderr": gap.mean_stderr, "expected": decoder_gap(covs, model.sde),
        })  # fmt: skip
    return found


def exact_rows(
    name: str,
    law: Gaussian | GaussianMixture,
    x: Tensor,
    data: Data,
    chain: DDPM,
    sizes: Sizes,
    rows: Rows,
) -> None:
    """-log p and the bounds of an exact score."""
    nats = -law.log_prob(x)
    rows.add(name, "log p", "uniform", nats, CELL)
    model = ExactScore(law, VPSDE())
    flow = -log_prob(model, x, rtol=1e-3, atol=1e-3).nats
    rows.add(name, "ODE", "uniform", flow, CELL, off=float((flow - nats).abs().max()))
    bound = elbo(model, x, times=sizes.times, draws=sizes.draws, seed=7)
    rows.add(name, "ELBO, VP", "uniform", bound, CELL)
    chain_row(name, ExactScore(law, chain), data, sizes, rows)


def network_rows(
    model: ScoreModel, values: Tensor, noise: VariationalDequantizer | None, sizes: Sizes,
    rows: Rows,
) -> None:  # fmt: skip
    """By the ODE and by the bound, of a network on VP."""
    x, log_q = placed(values, noise, seeded(11))
    how = "uniform" if noise is None else "fitted"
    found = log_prob(model, x, rtol=1e-3, atol=1e-3)
    few = log_prob(model, x[:16], rtol=1e-3, atol=1e-3).budget
    rows.add("MLP, VP", "ODE", how, -found.nats, CELL - log_q, nfe=found.nfe,
             solver=float(few.solver.max()) / BITS)  # fmt: skip
    bound = elbo(model, x, times=sizes.times, draws=sizes.draws, seed=7)
    rows.add("MLP, VP", "ELBO, VP", how, bound, CELL - log_q)


def fitted_noise(model: ScoreModel, data: Data, sizes: Sizes) -> VariationalDequantizer:
    """Noise fitted to the model's own bound, one time and one draw a sample."""
    objective = DSM(weighting="likelihood", time="importance", reduction="sum")
    source = seeded(21)
    noise = VariationalDequantizer(HOW, SHAPE, width=256, seed=0)

    def log_density(x: Tensor) -> Tensor:
        # but for the prior and the decoder, which hardly depend on where in its cell x is
        return -0.5 * objective.losses(model, *objective.prepare(model, x, source))

    noise.fit(log_density, data.fit, steps=sizes.noise_steps, lr=2e-3, batch_size=BATCH,
              generator=seeded(22))  # fmt: skip
    return noise


def images(model: Any, n: int, **how: Any) -> list[list[int]]:
    """Samples as levels."""
    found = sample(model, (n, DIM), seed=31, **how)
    levels: list[list[int]] = HOW.cells(found.x.double()).tolist()
    return levels


def measured(sizes: Sizes, beta_start: float) -> dict[str, Any]:
    """Both tables, the settings, and samples."""
    data, rows, begun = Data.load(sizes.test), Rows(), time.perf_counter()
    chain = DDPM.linear(1000, beta_start=beta_start, beta_end=0.02)
    chosen: dict[str, Any] = {}
    shown: dict[str, Any] = {"data": data.test[: sizes.shown].tolist()}
    x = many(data.test, 1, 11)  # the noise of every row with uniform dequantisation
    checks: list[dict[str, Any]] = []
    for name, make in (("Gaussian", gaussian), ("mixture", mixture)):
        law, chosen[name] = make(data, sizes)
        exact_rows(name, law, x, data, chain, sizes, rows)
        checks += gaps(name, law, x, sizes)
        shown[name] = HOW.cells(law.sample(sizes.shown, generator=seeded(31))).tolist()
    network, chosen["MLP, VP"] = trained(VPSDE(), data, sizes, None, 0)
    network_rows(network, data.test, None, sizes, rows)
    noise = fitted_noise(network, data, sizes)
    network_rows(network, data.test, noise, sizes, rows)
    shown["MLP, VP"] = images(network, sizes.shown, sampler="heun", steps=32, grid="log_snr")
    network, chosen["MLP, chain"] = trained(chain, data, sizes, False, 0)
    chain_row("MLP, chain", network, data, sizes, rows)
    shown["MLP, chain"] = images(network, sizes.shown, sampler="ancestral")
    settings = {
        **dataclasses.asdict(sizes), "beta_start": beta_start, "width": WIDTH, "depth": DEPTH,
        "batch_size": BATCH, "lr": LR, "weight_decay": DECAY, "fit": len(data.fit),
        "validation": len(data.validation),
    }  # fmt: skip
    return {
        "settings": settings, "chosen": chosen, "rows": rows.rows, "exact": checks,
        "shown": shown, "seconds": time.perf_counter() - begun,
    }  # fmt: skip


def tables(found: dict[str, Any]) -> list[Table]:
    """As they are printed."""
    first = Table("law", "by", "dequantisation", "bits/dim", "less the Gaussian's",
                  title=f"digits, {found['settings']['test']} test images")  # fmt: skip
    for r in found["rows"]:
        first.add_row(r["law"], r["by"], r["noise"], f"{r['bits']:.3f} +- {r['half']:.3f}",
                      f"{r['less']:+.3f} +- {r['less_half']:.3f}")  # fmt: skip
    second = Table(
        "exact score of", "t_min", "ELBO + log p, nats", "standard error", "expected", title="VP"
    )
    for r in found["exact"]:
        second.add_row(r["law"], f"{r['t_min']:g}", f"{r['gap']:.3f}", f"{r['stderr']:.3f}",
                       "" if r["expected"] is None else f"{r['expected']:.3f}")  # fmt: skip
    return [first, second]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it runs")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    parser.add_argument("--beta-start", type=float, default=BETA_START, help="of the chain")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(QUICK if options.quick else Sizes(), options.beta_start)
    console = Console()
    for each in tables(found):
        console.print(each)
    for name, how in found["chosen"].items():
        console.print(name, how)
    console.print(f"{found['seconds']:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
