"""Table 5 of Pierret and Galerne, recomputed: the exact W2 of six schemes on CIFAR-10's spectrum.

    python benchmarks/table5.py [--quick] [--json FILE]

Diffusion models for Gaussian distributions, ICML 2025, arXiv:2405.14250. The data are a Gaussian
with the 3072 eigenvalues of CIFAR-10's covariance, the process is VPSDE(0.1, 20) (the paper's b is
half of beta), a run has N - 1 equal steps from 1 to eps, and starts from the true p_T or from
N(0, I). The error is against the data, so that it holds the truncation at eps as well.

The eigenvalues and the authors' results in full precision are reference data and no part of this
repository: SDEKIT_REFERENCE names their folder, ../shared/reference by default. Where they are
absent, this says so and ends.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sdekit import VPSDE, ExactScore, Gaussian
from sdekit.errors import ConfigError, NonFiniteError
from sdekit.exact import affine_map, bures_wasserstein
from sdekit.sampling import EulerMaruyama, ExponentialEuler, Mix, OneKick, ProbabilityFlow, Sampler

STARTS = ("p_T", "N0")
# what the paper's column "NFE" n means: n // per points (Heun's real evaluations are twice that)
PER_POINT = {"EM": 1, "EI": 1, "DDPM": 1, "Euler": 1, "Heun": 1, "RK4": 4}


@dataclass(frozen=True, kw_only=True)
class VPToData(VPSDE):
    """VP down to t = 0, where the paper's schemes add noise in the last step as in any other.

    A variance there that is positive, if only just, allows both; 1 / var is infinite all the same,
    so that a score at t = 0 of data without variance is what it is in the paper: infinite.
    """

    def var(self, t):
        """Eq. (2) of `sdekit.sde.vp`, and the smallest of numbers."""
        return super().var(t) + 1e-310


@dataclass(frozen=True, kw_only=True)
class KernelStep(OneKick):
    """The paper's "DDPM": x <- (x + p score) / sqrt(1 - p) + sqrt(p) z with p = beta(t) h."""

    needs = frozenset({"linear", "noise"})

    def coefficients(self, sde, grid):
        """The step above; not finite where p > 1."""
        t, s = self.times(sde, grid)
        p = (t - s) * sde.g2(t)
        scale = (1 - p).rsqrt()
        return {"mean": Mix(t, x=scale, score=p * scale), "std": p.sqrt()}


SCHEMES: dict[str, Sampler] = {
    "EM": EulerMaruyama(),
    "EI": ExponentialEuler(),
    "DDPM": KernelStep(),
    "Euler": ProbabilityFlow(solver="euler"),
    "Heun": ProbabilityFlow(solver="heun"),
    "RK4": ProbabilityFlow(solver="rk4"),
}


def errors(scheme: str, spectrum: torch.Tensor, eps: float, points: int) -> tuple[float, ...]:
    """W2 to the data [one for each of STARTS]; inf or NaN where there is none, as in the paper."""
    data = Gaussian.from_spectrum(torch.zeros_like(spectrum), spectrum)
    model = ExactScore(data, VPToData(t_min=eps))
    grid = 1 - (1 - eps) * torch.arange(points, dtype=torch.float64) / (points - 1)
    grid[-1] = eps
    try:
        with np.errstate(over="ignore"):  # 1 / var at t = 0
            found = affine_map(SCHEMES[scheme], model, grid=grid)
    except NonFiniteError:  # a score at t = 0 of data without variance
        return math.inf, math.inf
    except ConfigError:  # p > 1: the root of a negative number
        return math.nan, math.nan
    starts = (model.at(1.0), Gaussian(data.mean, 1.0))
    return tuple(bures_wasserstein(found.law(start), data) for start in starts)


def reference() -> Path:
    """The folder of the reference data."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "reference"
    return Path(os.environ.get("SDEKIT_REFERENCE") or beside)


@dataclass(frozen=True)
class Cell:
    """One cell of the table: ours, the authors' in full precision, and what the paper prints."""

    scheme: str
    start: str
    eps: float
    points: int
    ours: float
    theirs: float
    printed: float | None

    @property
    def apart(self) -> float:
        """The relative difference; 0 where both are the same inf or NaN, else infinite."""
        if math.isfinite(self.ours) and math.isfinite(self.theirs):
            return abs(self.ours / self.theirs - 1)
        return 0.0 if str(self.ours) == str(self.theirs) else math.inf

    @property
    def agrees_in_print(self) -> bool:
        """Whether ours rounds to the printed number."""
        return self.printed is None or abs(self.ours - self.printed) <= 0.005 * (1 + 1e-9)


def cells(
    data: str,
    points: Container[int] = range(10_000),
    schemes: Iterable[str] = tuple(SCHEMES),
    levels: Container[float] = (0.0, 1e-5, 1e-4, 1e-3),
) -> Iterator[Cell]:
    """The cells of one spectrum: those of the authors' file, the printed ones marked."""
    folder = reference()
    arrays = np.load(folder / "gaussian_w2.npz")
    table = json.loads((folder / "paper_tables.json").read_text())["pierret_galerne_2025_table5"]
    spectrum = torch.from_numpy(arrays[f"{data}/lam"])
    columns = [(i, n) for i, n in enumerate(arrays[f"{data}/N"].tolist()) if n in points]
    rows = [(k, eps) for k, eps in enumerate(arrays[f"{data}/eps"].tolist()) if eps in levels]
    work = [(s, e, n) for s in schemes for e in rows for n in columns]
    for scheme, (k, eps), (i, count) in track(work, f"{data}: exact laws", transient=True):
        ours = errors(scheme, spectrum, eps, count)
        row = table["rows"][scheme][table["eps"].index(eps)] if data == "cifar10" else None
        column = [c for c, n in enumerate(table["NFE"]) if n // PER_POINT[scheme] == count]
        for j, start in enumerate(STARTS):
            printed = row[2 * column[0] + j] if row and column else None
            theirs = float(arrays[f"{data}/W2_{scheme}"][j, k, i])
            yield Cell(scheme, start, eps, count, ours[j], theirs, printed)


def show(found: list[Cell], console: Console) -> None:
    """Ours beside theirs, in the paper's layout: starts from N(0, I)."""
    points = sorted({cell.points for cell in found})
    table = Table(
        "scheme", "eps", *[f"N = {n}" for n in points], title="W2, ours / theirs, N(0, I)"
    )
    for scheme in SCHEMES:
        for eps in sorted({cell.eps for cell in found}):
            row = {c.points: c for c in found if (c.scheme, c.start, c.eps) == (scheme, "N0", eps)}
            shown = [f"{row[n].ours:.4g} / {row[n].theirs:.4g}" for n in points]
            table.add_row(scheme, f"{eps:g}", *shown)
    console.print(table)


def main() -> None:
    """Recompute the table and compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two columns and two rows of each")
    parser.add_argument("--json", type=Path, help="write the cells to this file")
    args = parser.parse_args()
    console = Console(width=150)
    if not (reference() / "gaussian_w2.npz").is_file():
        print(f"the reference data are absent ({reference()}): nothing to compare with")
        return
    torch.set_num_threads(min(2, torch.get_num_threads()))
    began = time.perf_counter()
    every: list[Cell] = []
    less = {"points": (12, 50), "levels": (0.0, 1e-3)} if args.quick else {}
    for data in ("toy", "cifar10"):
        found = list(cells(data, **less))
        if data == "cifar10":
            show(found, console)
        every += found
        worst = max(found, key=lambda cell: cell.apart)
        finite = sum(math.isfinite(cell.ours) for cell in found)
        print(
            f"{data}: {len(found)} cells ({finite} finite), largest relative difference "
            f"{worst.apart:.1e} ({worst.scheme}, {worst.start}, eps {worst.eps:g}, "
            f"N {worst.points})"
        )
    printed = [cell for cell in every if cell.printed is not None]
    agree = sum(cell.agrees_in_print for cell in printed)
    print(f"{agree} of {len(printed)} cells printed in the paper agree to its two decimals")
    print(f"{time.perf_counter() - began:.0f} s")
    if args.json:
        args.json.write_text(json.dumps([vars(cell) for cell in every], indent=1))


if __name__ == "__main__":
    main()
