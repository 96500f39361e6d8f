r"""Bits per dimension of scikit-learn's digits: an MLP by the ODE and by bounds, beside Gaussians.

    python benchmarks/digits.py [--quick] [--json FILE] [--beta-start B]

The data are the 1797 images of 64 pixels with 17 levels. A fifth is the test split (the target
`digits`, seed 0), 15 % of the rest a validation split. A level k is the cell
[-1 + 2 k / 17, -1 + 2 (k + 1) / 17): uniform dequantisation fills it, a chain with the discretised
decoder sees its middle. Everything is in bits per dimension of the levels: numbers on the test
split are means over its images with 95 % intervals, and differences to the Gaussian are those of
the same images. Every row but none is an upper bound on -log2 P(k) / 64, in expectation.

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
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit
from sklearn.mixture import GaussianMixture as Fitted
from torch import Tensor, nn

from sdekit import (
    DDPM,
    DSM,
    VPSDE,
    ExactScore,
    Gaussian,
    GaussianMixture,
    ScoreModel,
    Trainer,
    elbo,
    log_prob,
    sample,
)
from sdekit.likelihood import ELBO, Quantization, VariationalDequantizer, dequantize
from sdekit.model import MLP
from sdekit.targets import Digits
from sdekit.targets._split import split_rows
from sdekit.targets.base import ClosedForm

HOW = Quantization(levels=17)
DIM = 64
SHAPE = (DIM,)
BITS = DIM * math.log(2)
MIDDLES: dict[str, Any] = dict(  # of the cells, for bounds of a chain
    decoder="discretized", levels=17, data_range=(-1 + HOW.width / 2, 1 - HOW.width / 2),
    variance="beta",
)  # fmt: skip
SHRINKAGE = (0.0, 0.01, 0.02, 0.05, 0.1)
COMPONENTS, FLOORS = (2, 5, 10, 15, 20), (3e-4, 1e-3, 3e-3)
WIDTH, DEPTH, BATCH, LR, DECAY = 512, 3, 256, 1e-3, 0.1
BETA_START = 3e-3  # sigma at the chain's first state: 0.055, half a cell's half-width
EVERY = 250  # steps between looks at the validation split


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    steps: int = 4000
    copies: int = 20  # of the training images, dequantised anew, for the two fits by moments
    test: int = 359
    times: int = 256
    draws: int = 2
    nodes: int | None = None  # of the chain: all
    noise_steps: int = 1500
    shown: int = 10


QUICK = Sizes(
    steps=30, copies=2, test=8, times=16, draws=1, nodes=50, noise_steps=4, shown=4
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Whole numbers of the three splits [(n, 64)]."""

    fit: Tensor
    validation: Tensor
    test: Tensor

    @classmethod
    def load(cls, most: int) -> Data:
        """The splits; at most so many test images."""
        train, test = (
            ((Digits(split=split).data + 1) * 8).round().to(torch.int64)
            for split in ("train", "test")
        )
        kept, held = split_rows(len(train), 0.15, 1)
        return cls(train[kept], train[held], test[:most])


class Framed(nn.Module):
    """An MLP in the frame of a Gaussian N(m, Q diag(l) Q'), predicting v of a process of VP kind.

    With z = Q' (x - alpha m), of variances d = alpha^2 l + sigma^2, the Gaussian's own v is
    alpha sigma (1 - l) / d z, and its spread sqrt(l / d):

        v = Q [alpha sigma (1 - l) / d z + sqrt(l / d) MLP(z / sqrt(d), -log_snr / 8)]
            - sigma m.                                                                          (1)

    That is EDM's preconditioning (arXiv:2206.00364, table 1) for each principal axis.
    """

    def __init__(self, mean: Tensor, cov: Tensor, *, seed: int) -> None:
        super().__init__()
        variances, axes = torch.linalg.eigh(cov)
        for name, value in (("mean", mean), ("variances", variances), ("axes", axes)):
            self.register_buffer(name, value.float())
        self.mlp = MLP(DIM, width=WIDTH, depth=DEPTH, bandwidth=0.5, seed=seed)
        for parameter in self.mlp.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """V [(batch, 64)] at x [(batch, 64)] and log-SNR [(batch,)]."""
        alpha2, sigma2 = (torch.sigmoid(sign * log_snr)[:, None] for sign in (1, -1))
        alpha, sigma = alpha2.sqrt(), sigma2.sqrt()
        z = (x - alpha * self.mean) @ self.axes
        total = alpha2 * self.variances + sigma2
        more = (self.variances / total).sqrt() * self.mlp(z / total.sqrt(), -log_snr / 8)
        own = alpha * sigma * (1 - self.variances) / total * z
        return (own + more) @ self.axes.T - sigma * self.mean


@dataclass(frozen=True)
class Batches:
    """Endless batches of rows drawn with replacement, in the middles of cells or with noise."""

    values: Tensor
    seed: int
    noise: VariationalDequantizer | bool | None

    def __iter__(self) -> Iterator[Tensor]:
        source = torch.Generator().manual_seed(self.seed)
        while True:
            rows = self.values[torch.randint(len(self.values), (BATCH,), generator=source)]
            yield placed(rows, self.noise, source)[0]


def placed(
    values: Tensor, noise: VariationalDequantizer | bool | None, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """float32 samples of the values, and log q: False is no noise, None uniform noise."""
    zero = torch.zeros(len(values), dtype=torch.float64)
    if noise is False:
        return HOW.placed(values, torch.full(values.shape, 0.5)), zero
    if noise is None:
        return dequantize(values, levels=17, generator=source, dtype=torch.float32), zero
    with torch.no_grad():
        return noise(values, generator=source)


def seeded(seed: int) -> torch.Generator:
    """A generator with this seed."""
    return torch.Generator().manual_seed(seed)


def moments(x: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Mean, and covariance shrunk towards its diagonal, float64."""
    x = x.double()
    cov = torch.cov(x.T)
    return x.mean(0), (1 - shrinkage) * cov + shrinkage * torch.diag(cov.diagonal())


def many(values: Tensor, copies: int, seed: int) -> Tensor:
    """Copies of the values, each with its own uniform noise [(copies n, 64)]."""
    x, _ = placed(values.repeat(copies, 1), None, seeded(seed))
    return x.double()


def gaussian(data: Data, sizes: Sizes) -> tuple[Gaussian, dict[str, Any]]:
    """The Gaussian whose shrinkage is best on the validation split."""
    x, held = many(data.fit, sizes.copies, 1), many(data.validation, 1, 2)
    found = {s: Gaussian(*moments(x, s)) for s in SHRINKAGE}
    best = max(found, key=lambda s: float(found[s].log_prob(held).mean()))
    return found[best], {"shrinkage": best}


def mixture(data: Data, sizes: Sizes) -> tuple[GaussianMixture, dict[str, Any]]:
    """The mixture whose components and floor of the variances are best there."""
    x, held = many(data.fit, min(sizes.copies, 5), 1), many(data.validation, 1, 2)
    best, chosen = -math.inf, {}
    for k in COMPONENTS[: 2 if sizes is QUICK else None]:
        for floor in FLOORS:
            fitted = Fitted(k, reg_covar=floor, random_state=0, max_iter=100).fit(x.numpy())
            if (score := float(fitted.score(held.numpy()))) > best:
                best, chosen, kept = score, {"components": k, "floor": floor}, fitted
    means, covs = torch.from_numpy(kept.means_), torch.from_numpy(kept.covariances_)
    weights = torch.from_numpy(kept.weights_)
    return GaussianMixture(weights / weights.sum(), means, covs), chosen


@dataclass
class Stopped:
    """Keeps the averaged weights of the step that is best on the validation split."""

    trainer: Trainer
    x: Tensor
    how: dict[str, Any]
    best: float = math.inf
    step: int = 0
    state: dict[str, Tensor] | None = None

    def __call__(self, step: int, loss: float) -> None:
        """Look, every so many steps."""
        if step % EVERY and self.state is not None:
            return
        model = self.trainer.ema_model
        assert model is not None
        found = elbo(model, self.x, times=64, seed=5, **self.how).mean
        if found < self.best:
            self.best, self.step = found, step
            self.state = {k: v.clone() for k, v in model.state_dict().items()}


def trained(
    sde: Any, data: Data, sizes: Sizes, noise: VariationalDequantizer | bool | None, seed: int
) -> tuple[ScoreModel, dict[str, Any]]:
    """A network trained with this noise, stopped where the validation split's bound is least."""
    x, _ = placed(data.fit.repeat(sizes.copies, 1), noise, seeded(1))
    floor = 0.0 if noise is not False else HOW.width**2 / 12  # a cell's own variance
    mean, cov = moments(x, 0.02)
    network = Framed(mean, cov + floor * torch.eye(DIM), seed=seed)
    model = ScoreModel(network, sde, parametrization="v", time_input="log_snr")
    trainer = Trainer(
        model, DSM(weighting="likelihood", time="importance"), lr=LR, seed=seed,
        optimizer=partial(torch.optim.AdamW, weight_decay=DECAY),
    )  # fmt: skip
    held, _ = placed(data.validation, noise, seeded(2))
    stop = Stopped(trainer, held, MIDDLES if noise is False else {})
    begun = time.perf_counter()
    trainer.fit(Batches(data.fit, seed, noise), steps=sizes.steps, callback=stop)
    best = trainer.ema_model
    assert best is not None
    assert stop.state is not None
    best.load_state_dict(stop.state)
    spent = time.perf_counter() - begun
    return best, {"stopped at": stop.step, "steps": sizes.steps, "seconds": round(spent, 1)}


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


CELL = DIM * math.log(HOW.width)


def exact_rows(
    name: str, law: ClosedForm, x: Tensor, values: Tensor, chain: DDPM, sizes: Sizes, rows: Rows
) -> dict[str, Any]:
    """-log p and the bounds of an exact score; the row of the second table."""
    nats = -law.log_prob(x)
    rows.add(name, "log p", "uniform", nats, CELL)
    model = ExactScore(law, VPSDE())
    flow = -log_prob(model, x, rtol=1e-3, atol=1e-3).nats
    rows.add(name, "ODE", "uniform", flow, CELL, off=float((flow - nats).abs().max()))
    bound = elbo(model, x, times=sizes.times, draws=sizes.draws, seed=7)
    rows.add(name, "ELBO, VP", "uniform", bound, CELL)
    levels, _ = placed(values, False, seeded(0))
    score = ExactScore(law, chain)
    rows.add(name, "ELBO, chain", "none",
             elbo(score, levels.double(), seed=8, times=sizes.nodes, **MIDDLES))  # fmt: skip
    gap = dataclasses.replace(bound, decoder=bound.decoder - nats)  # its error is of the pairs
    return {"law": name, "n": len(x), "gap": gap.mean, "stderr": gap.mean_stderr}


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
    checks = []
    for name, make in (("Gaussian", gaussian), ("mixture", mixture)):
        law, chosen[name] = make(data, sizes)
        checks.append(exact_rows(name, law, x, data.test, chain, sizes, rows))
        shown[name] = HOW.cells(law.sample(sizes.shown, generator=seeded(31))).tolist()
    network, chosen["MLP, VP"] = trained(VPSDE(), data, sizes, None, 0)
    network_rows(network, data.test, None, sizes, rows)
    noise = fitted_noise(network, data, sizes)
    network_rows(network, data.test, noise, sizes, rows)
    shown["MLP, VP"] = images(network, sizes.shown, sampler="heun", steps=32, grid="log_snr")
    network, chosen["MLP, chain"] = trained(chain, data, sizes, False, 0)
    levels, _ = placed(data.test, False, seeded(0))
    bound = elbo(network, levels, seed=8, times=sizes.nodes, **MIDDLES)
    rows.add("MLP, chain", "ELBO, chain", "none", bound)
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
    second = Table("exact score of", "ELBO + log p, nats", "standard error", title="VP")
    for r in found["exact"]:
        second.add_row(r["law"], f"{r['gap']:.3f}", f"{r['stderr']:.3f}")
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
