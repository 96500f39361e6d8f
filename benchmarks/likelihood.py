"""What a log-likelihood costs at equal error: sdekit beside the two usual ways of computing it.

    python benchmarks/likelihood.py [--quick] [--json FILE]

300 points of a mixture in 2 and in 64 dimensions under VPSDE(), tolerances 1e-3 and 1e-5. The
others are written here as people write them, for the same model, in the same run:

    scipy        solve_ivp (RK45) over the flattened state in t, one Rademacher probe
    torchdiffeq  dopri5 in t, exact divergence by a loop of gradients

The error is the root of the mean square over the points of (log p - exact), the prior's gap
corrected in all three, that of the probe among it. Ours is run at tolerances 10, 3.2, 1, .., 1e-8
with the exact divergence, and against one probe also with one probe, and the first of each whose
error is no larger than theirs is timed: the faster one's time over theirs is the ratio, to be
<= 0.5. Two kinds of model: the exact score, whose Laplacian sdekit knows; and the same function
as a network in 2 dimensions, of which it knows nothing. Times are medians of five runs (three in
64 dimensions), on one thread; their spread is given by the quartiles of the ratio.

A second table says how exact traces are computed: a loop of gradients, products with the
transposed Jacobian by vmap, and forward mode, on an MLP of three layers of 128. A third asks how
often the 99 % budgets hold, and how much wider they are than the errors, by their medians.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torchdiffeq import odeint

from sdekit import VPSDE, ExactScore, Gaussian, GaussianMixture, ScoreModel, log_prob
from sdekit.likelihood.divergence import Divergence
from sdekit.model import MLP
from sdekit.sde import DDPM, EDM, VESDE, CosineSDE, FlowSDE, SubVPSDE

REACH = 0.5
PROCESSES = {
    "vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE(), "cosine": CosineSDE(), "flow": FlowSDE(),
    "edm": EDM(), "ddpm(n=1000)": DDPM.linear(1000),
}  # fmt: skip
SDE = VPSDE()
LADDER = [10.0 ** (-k / 2) for k in range(-2, 17)]
OTHERS = ("scipy", "torchdiffeq")


def law(dim: int) -> GaussianMixture:
    """The tutorial's mixture, or five components of unlike widths around the origin."""
    if dim == 2:
        return GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, dim, generator=generator, dtype=torch.float64)
    return GaussianMixture([0.3, 0.25, 0.2, 0.15, 0.1], means, [0.3, 0.4, 0.5, 0.6, 0.7])


class AsNetwork(nn.Module):
    """The noise of an exact score, as a network that is told t."""

    def __init__(self, model: ExactScore) -> None:
        super().__init__()
        self.model = model
        self.kept = nn.Parameter(torch.zeros((), dtype=torch.float64))  # its dtype

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Eps at one time for the whole batch."""
        at = float(t[0])
        return -float(SDE.sigma(at)) * self.model.at(at)._score(x)


def score_of(model: ExactScore | ScoreModel) -> Callable[[Tensor, float], Tensor]:
    """The score at one time, as the others call it."""
    if isinstance(model, ExactScore):
        return lambda x, t: model.at(t)._score(x)
    return lambda x, t: -model.network(x, torch.full((len(x),), t, dtype=x.dtype)) / _sigma(t)


# what the others write by hand: VP with beta from 0.1 to 20
def _beta(t: float) -> float:
    return 0.1 + 19.9 * t


def _sigma(t: float) -> float:
    return math.sqrt(-math.expm1(-(0.1 * t + 9.95 * t * t)))


def by_scipy(model: ExactScore | ScoreModel, x: Tensor, tol: float) -> Tensor:
    """log p [(batch,)], but for the prior's gap."""
    score, probe = score_of(model), torch.randint(0, 2, x.shape).to(x) * 2 - 1

    def slope(t: float, state: np.ndarray) -> np.ndarray:
        with torch.enable_grad():
            at = torch.from_numpy(state[: x.numel()]).reshape(x.shape).requires_grad_()
            drift = -0.5 * _beta(t) * (at + score(at, t))
            (pulled,) = torch.autograd.grad((drift * probe).sum(), at)
        flat = (drift.detach().reshape(-1), (pulled * probe).sum(1))
        return torch.cat(flat).numpy()

    start = np.concatenate([x.reshape(-1).numpy(), np.zeros(len(x))])
    found = solve_ivp(slope, (SDE.t_min, 1.0), start, rtol=tol, atol=tol, method="RK45").y[:, -1]
    latent = torch.from_numpy(found[: x.numel()]).reshape(x.shape)
    return SDE.prior_log_prob(latent) + torch.from_numpy(found[x.numel() :]) + _gap(model, latent)


def by_torchdiffeq(model: ExactScore | ScoreModel, x: Tensor, tol: float) -> Tensor:
    """log p [(batch,)], but for the prior's gap."""
    score = score_of(model)

    def slope(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # its first guess of a step may be longer than the way
        at, time = state[0].detach().requires_grad_(), min(max(float(t), 0.0), 1.0)
        with torch.enable_grad():
            drift = -0.5 * _beta(time) * (at + score(at, time))
            total = torch.zeros_like(state[1])
            for i in range(x.shape[1]):
                (pulled,) = torch.autograd.grad(drift[:, i].sum(), at, retain_graph=True)
                total = total + pulled[:, i]
        return drift.detach(), total

    ends = torch.tensor([SDE.t_min, 1.0], dtype=torch.float64)
    states, gains = odeint(slope, (x, x.new_zeros(len(x))), ends, rtol=tol, atol=tol)
    return SDE.prior_log_prob(states[-1]) + gains[-1] + _gap(model, states[-1])


def _gap(model: ExactScore | ScoreModel, latent: Tensor) -> Tensor:
    exact = model if isinstance(model, ExactScore) else model.network.model
    return exact.at(1.0).log_prob(latent) - SDE.prior_log_prob(latent)


def by_sdekit(
    model: ExactScore | ScoreModel, x: Tensor, tol: float, divergence: str = "exact"
) -> Tensor:
    """log p [(batch,)], likewise."""
    found = log_prob(model, x, rtol=tol, atol=tol, divergence=divergence, seed=0)
    return found.nats + _gap(model, found.latent)


WAYS = {"scipy": by_scipy, "torchdiffeq": by_torchdiffeq}


def timed(go: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of some runs, after one that warms up."""
    go()
    return [once(go) for _ in range(repeats)]


def once(go: Callable[[], object]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    go()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Row:
    """One comparison at equal error.

    Attributes:
        model: exact or network.
        dim: of the samples.
        other: scipy or torchdiffeq.
        tol: its tolerance.
        error: its error, nats.
        seconds: its time.
        divergence: how sdekit takes it.
        own_tol: its tolerance whose error is no larger.
        own_error: that error.
        own_seconds: its time.
        ratio: own over other, the median of the runs.
        low: its first quartile.
        high: its third.
    """

    model: str
    dim: int
    other: str
    tol: float
    error: float
    seconds: float
    divergence: str
    own_tol: float
    own_error: float
    own_seconds: float
    ratio: float
    low: float
    high: float


def compared(kind: str, dim: int, points: int, repeats: int, tols: list[float]) -> list[Row]:
    """The rows of one model."""
    data = law(dim)
    exact = ExactScore(data, SDE)
    model: ExactScore | ScoreModel = exact
    if kind == "network":
        model = ScoreModel(AsNetwork(exact), SDE)
        model.moments = exact.moments  # as a trained model has them
    x = data.sample(points, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    true = exact.at(SDE.t_min).log_prob(x)

    def error(found: Tensor) -> float:
        return float((found - true).square().mean().sqrt())

    @cache
    def own(by: str, tol: float) -> float:
        return error(by_sdekit(model, x, tol, by))

    rows = []
    for other in OTHERS:
        for tol in tols:
            theirs = error(WAYS[other](model, x, tol))
            first = [
                next(((by, rung) for rung in LADDER if own(by, rung) <= theirs), None)
                for by in (("exact", "rademacher") if other == "scipy" else ("exact",))
            ]
            allowed = [way for way in first if way] or [("exact", LADDER[-1])]
            takes = {way: once(partial(by_sdekit, model, x, way[1], way[0])) for way in allowed}
            best = min(allowed, key=takes.__getitem__)
            # side by side, so that a machine that slows down slows both
            pairs = [
                (once(partial(by_sdekit, model, x, best[1], best[0])),
                 once(partial(WAYS[other], model, x, tol)))
                for _ in range(repeats)
            ]  # fmt: skip
            ratios = sorted(a / b for a, b in pairs)
            quartile = len(ratios) // 4
            rows.append(
                Row(
                    kind, dim, other, tol, theirs, statistics.median(b for _, b in pairs), *best,
                    own(*best), statistics.median(a for a, _ in pairs), statistics.median(ratios),
                    ratios[quartile], ratios[-1 - quartile],
                )
            )  # fmt: skip
    return rows


def coverage(tols: list[float], cases: int) -> list[dict[str, object]]:
    """How often budgets hold, and how wide they are, on `cases` points of four laws each."""
    laws = (
        law(2),
        GaussianMixture([0.3, 0.7], [[2.0, 0.0], [-2.0, 0.0]], [0.25, 1.0]),
        GaussianMixture([0.2, 0.3, 0.5], [[-4.0], [0.0], [3.0]], 0.25),
        Gaussian([1.0, -1.0], [[2.0, 1.2], [1.2, 1.0]]),
    )
    generator = torch.Generator().manual_seed(2)
    rows: list[dict[str, object]] = []
    for name, sde in PROCESSES.items():
        for tol in tols:
            plain, corrected = [], []
            for data in laws:
                model = ExactScore(data, sde)
                x = data.sample(cases // len(laws), generator=generator, dtype=torch.float64)
                found = log_prob(model, x, rtol=tol, atol=tol)
                plain.append(((found.nats - data.log_prob(x)).abs(), found.budget.total))
                exact = model.at(found.t_min).log_prob(x)
                corrected.append(((found.corrected() - exact).abs(), found.budget.corrected))
            row: dict[str, object] = {"process": name, "tol": tol}
            for what, pairs in (("plain", plain), ("corrected", corrected)):
                off, budget = (torch.cat(part) for part in zip(*pairs, strict=True))
                row[f"{what} error"] = float(off.median())
                row[f"{what} covered"] = float((budget >= off).double().mean())
                row[f"{what} ratio"] = float(budget.median() / off.median())
            rows.append(row)
    return rows


def ways_of(dim: int, batch: int) -> dict[str, Callable[[], Tensor]]:
    """Exact traces [(batch,)] of an MLP: by three ways, and as sdekit takes them."""
    network = MLP(dim, seed=0).requires_grad_(False)
    x = torch.randn(batch, dim, generator=torch.Generator().manual_seed(0))
    times, eye, by = torch.full((batch,), 0.3), torch.eye(dim), Divergence(None)

    def call(x: Tensor, t: float = 0.3) -> Tensor:
        return network(x, times)

    def loop() -> Tensor:
        at = x.clone().requires_grad_()
        out, total = call(at), torch.zeros(batch)
        for i in range(dim):
            total += torch.autograd.grad(out[:, i].sum(), at, retain_graph=True)[0][:, i]
        return total

    def reverse() -> Tensor:
        _, pull = torch.func.vjp(call, x)
        rows = torch.func.vmap(lambda e: pull(e.expand(batch, dim))[0])(eye)
        return torch.einsum("dbd->b", rows)

    def forward() -> Tensor:
        def one(e: Tensor) -> Tensor:
            return torch.func.jvp(call, (x,), (e.expand(batch, dim),))[1]

        return torch.einsum("dbd->b", torch.func.vmap(one)(eye))

    def ours() -> Tensor:
        return by(call, x, 0.3).divergence[:, 0].float()

    return {"loop": loop, "vmap": reverse, "forward": forward, "sdekit": ours}


def traces(repeats: int, sizes: list[tuple[int, int]]) -> list[dict[str, float]]:
    """Milliseconds of one exact trace at each size [(dim, batch)], by each way."""
    rows: list[dict[str, float]] = []
    for dim, batch in sizes:
        ways = ways_of(dim, batch)
        first = ways["loop"]()
        assert all(torch.allclose(way(), first, atol=1e-3) for way in ways.values())
        taken = {name: 1e3 * statistics.median(timed(way, repeats)) for name, way in ways.items()}
        rows.append({"dim": dim, "batch": batch, **taken})
    return rows


def main() -> None:
    """Print the tables; with --json keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few points, one repeat")
    parser.add_argument("--json", type=Path, help="where to keep the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)  # of SciPy's probes, as people draw them
    points, repeats = (20, 1) if options.quick else (300, 5)
    tols = [1e-3] if options.quick else [1e-3, 1e-5]
    console = Console(width=130)
    rows: list[Row] = []
    table = Table(title=f"log-likelihood of {points} points at equal error, one thread")
    heads = ("model", "d", "against", "at", "error", "seconds", "by", "at", "error", "seconds",
             "ratio", "quartiles")  # fmt: skip
    for name in heads:
        table.add_column(name, justify="left" if name in ("model", "against", "by") else "right")
    for kind in ("exact", "network"):
        dims = (2, 8) if options.quick else (2, 64) if kind == "exact" else (2,)
        for dim in dims:
            for row in compared(kind, dim, points, repeats if dim < 64 else min(repeats, 3), tols):
                print(f"{row.model} {row.dim} {row.other} {row.tol:g}: {row.ratio:.2f}",
                      file=sys.stderr)  # fmt: skip
                rows.append(row)
                table.add_row(
                    row.model, str(row.dim), row.other, f"{row.tol:g}", f"{row.error:.1e}",
                    f"{row.seconds:.3f}", row.divergence, f"{row.own_tol:.2g}",
                    f"{row.own_error:.1e}", f"{row.own_seconds:.3f}", f"{row.ratio:.2f}",
                    f"{row.low:.2f} {row.high:.2f}",
                )  # fmt: skip
    console.print(table)
    within = sum(row.ratio <= REACH for row in rows)
    console.print(f"{within} of {len(rows)} rows take at most {REACH} of the other's time")
    sizes = [(2, 20), (8, 20)] if options.quick else [
        (2, 300), (2, 4096), (8, 300), (64, 16), (64, 300), (784, 4)]  # fmt: skip
    found = traces(1 if options.quick else 7, sizes)
    second = Table(title="one exact trace of an MLP, milliseconds")
    for name in found[0]:
        second.add_column(name, justify="right")
    for each in found:
        second.add_row(*(f"{value:g}" if name in ("dim", "batch") else f"{value:.2f}"
                         for name, value in each.items()))  # fmt: skip
    console.print(second)
    cases = 20 if options.quick else 200
    held = coverage([1e-3] if options.quick else [1e-3, 1e-5, 1e-7], cases)
    third = Table(title=f"budgets, {cases} cases a row: plain: the data; corrected: at t_min")
    for name in held[0]:
        third.add_column(name, justify="right")
    for each in held:
        third.add_row(*(value if isinstance(value, str) else f"{value:.3g}"
                        for value in each.values()))  # fmt: skip
    console.print(third)
    if options.json:
        kept = {"points": points, "rows": [asdict(row) for row in rows], "traces": found,
                "cases": cases, "budgets": held}  # fmt: skip
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
