r"""Quality against network calls, without Monte Carlo: sdekit's samplers, diffusers', azula's.

    python benchmarks/sampler_quality.py [--quick] [--json FILE] [--only TEXT]

Every method starts from N(0, I), has the same exact model, and is judged against the data law: the
error is W2, closed form on Gaussian data, by quadrature on mixtures in one dimension, where the
weights of the modes are compared too. Nothing is sampled. The process is VP with beta from 0.1 to
20, and for schedulers of diffusers its chain of 1000 steps, betas from 1e-4 to 0.02 (the same
numbers). A budget is of network calls, not of steps: a method takes the most steps whose calls,
counted, stay within it.

- *sdekit*: every example of every sampler of the catalogue that steps along a grid, on the chain,
  which ends at the data, and on VP down to t = 1e-3, with the last call for the step to x_0.
- *diffusers*: the schedulers of `sdekit.verify.conformance`, each with its own spacings, driven as
  its pipelines do it. They cast to float32 inside: their errors are good to about 1e-4 of the
  data's size.
- *azula*: its samplers on the same VP, at equal steps from 1 to 0, which is its default, and to
  1e-3.

The data are Gaussians with the two spectra of the reference data gaussian_w2 (SDEKIT_REFERENCE;
left out where that is absent), `power` (64 variances 4 / k^2) and `wide` (16 variances from 1e-3
to 10, geometric), and the mixtures `tutorial` (0.2 and 0.8 at 3 and -3, deviation 1), `narrow`
(0.3 and 0.7 at -1 and 1, deviation 0.15) and `rare` (0.05, 0.55 and 0.4 at 2.5, 0 and -1.5,
deviations 0.1, 0.3 and 0.2). A stochastic method of another library has no law on mixtures that
could be computed from outside, and a row says so.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from sdekit import VPSDE, ExactScore, Gaussian, GaussianMixture, LinearSDE, catalogue, make
from sdekit.errors import ConfigError, NonFiniteError, SdekitError
from sdekit.exact import Law1D, mapped_law, output_law, output_law_1d, probe_callable
from sdekit.sampling import Corrector, CountedModel
from sdekit.sampling.grid import resolve_grid
from sdekit.targets import ExactTarget
from sdekit.verify.conformance.rows import ROWS, version

BUDGETS = (5, 10, 20, 50, 100)
SINGLE = 1e-3  # of the output's size: how far a scheduler that casts to float32 may be from affine
VP = VPSDE()
CHAIN = VP.discretize(1000)
# where sdekit steps: process, grid, and whether the last call is the step to x_0
PLACES: dict[str, tuple[LinearSDE, str, bool]] = {
    "trailing": (CHAIN, "ddpm_trailing", False),
    "quadratic": (CHAIN, "quadratic", False),
    "karras": (CHAIN, "karras", False),
    "vp uniform": (VP, "uniform", True),
    "vp quadratic": (VP, "quadratic", True),
    "vp log_snr": (VP, "log_snr", True),
}
KERNELS = ("trailing", "vp quadratic")  # where stochastic laws of mixtures are made
FEWEST = 4  # steps that no scheduler refuses for being few
ENDS = {"linspace to 0": 0.0, "linspace to 1e-3": 1e-3}  # of azula's times


def reference() -> Path:
    """The folder of the reference data."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "reference"
    return Path(os.environ.get("SDEKIT_REFERENCE") or beside)


@cache
def spectra() -> dict[str, Tensor]:
    """The variances of the Gaussians."""
    found = {}
    path = reference() / "gaussian_w2.npz"
    if path.is_file():
        with np.load(path) as arrays:
            for name in ("toy", "cifar10"):
                found[name] = torch.from_numpy(arrays[f"{name}/lam"]).double().clamp_min(0)
    found["power"] = 4 / torch.arange(1, 65, dtype=torch.float64).square()
    found["wide"] = torch.logspace(-3, 1, 16, dtype=torch.float64)
    return found


MIXTURES = {
    "tutorial": GaussianMixture([0.2, 0.8], [[3.0], [-3.0]], 1.0),
    "narrow": GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], 0.15**2),
    "rare": GaussianMixture([0.05, 0.55, 0.4], [[2.5], [0.0], [-1.5]], [0.01, 0.09, 0.04]),
}


@dataclass(frozen=True)
class Row:
    """One method on one law within one budget.

    Attributes:
        side: sdekit, diffusers or azula.
        method: the spelling, or the name of the conformance row without its spacing.
        place: the process and grid, or the spacing.
        budget: of network calls.
        calls: that it takes.
        law: the data.
        w2: the exact distance to it, or None.
        modes: the largest error of a mode's weight, or None on a Gaussian.
        note: why there is no number.
    """

    side: str
    method: str
    place: str
    budget: int
    calls: int
    law: str
    w2: float | None
    modes: float | None = None
    note: str = ""


class Quick:
    """The exact model as other libraries see it: what depends on the time alone is made once."""

    def __init__(self, target: ExactTarget, sde: LinearSDE) -> None:
        self.target, self.process, self.calls = target, sde, 0
        self.sde = self
        self._at: dict[float, tuple[Tensor, Tensor, Any]] = {}

    def _made(self, t: Any) -> tuple[Tensor, Tensor, Any]:
        key = float(t)
        if key not in self._at:
            alpha, sigma = self.process.alpha(key), self.process.sigma(key)
            law = self.target.perturbed(float(alpha), float(sigma) ** 2) if sigma > 0 else None
            self._at[key] = alpha, sigma, law
        return self._at[key]

    def alpha(self, t: Tensor) -> Tensor:
        """Of the process."""
        return self.process.alpha(t) if t.numel() > 1 else self._made(t)[0].reshape(t.shape)

    def sigma(self, t: Tensor) -> Tensor:
        """Of the process."""
        return self.process.sigma(t) if t.numel() > 1 else self._made(t)[1].reshape(t.shape)

    def __call__(self, x: Tensor, t: Any) -> Any:
        """An object with .eps and .x0."""
        alpha, sigma, law = self._made(t)
        self.calls += 1
        if law is None:
            raise ConfigError(f"the model is asked at t = {float(t):g}, where sigma = 0")
        score = law._score(x.double())
        a, s = float(alpha), float(sigma)
        return type("Seen", (), {"eps": -s * score, "x0": (x + s * s * score) / a})()


def _short(error: Exception) -> str:
    """The first sentence of an error, without the object that it is about."""
    text = str(error).partition("\n")[0].partition(": superposition")[0]
    return text if len(text) <= 160 else f"{text[:157]}..."


@dataclass(frozen=True)
class Method:
    """A sampler and where it steps; `of(target)` runs it, `calls` counts.

    Attributes:
        side: sdekit, diffusers or azula.
        name: the spelling, or the name of a conformance row.
        place: a key of PLACES, of ENDS, or a spacing.
    """

    side: str
    name: str
    place: str

    @property
    def label(self) -> str:
        """The name without the spacing."""
        return self.name.removesuffix(f"-{self.place}") if self.side == "diffusers" else self.name

    def _theirs(self) -> tuple[Callable[..., Tensor], LinearSDE]:
        run = ROWS[self.name].function()
        return run, run.processes[0] if self.side == "diffusers" else VP

    def function(self, target: ExactTarget, steps: int) -> tuple[Callable[[Tensor], Tensor], Any]:
        """x_T [(n, d)] -> samples [(n, d)], drawing by torch's functions, and what counts."""
        if self.side == "sdekit":
            return self._ours(target, steps)
        run, process = self._theirs()
        model = Quick(target, process)
        grid = torch.linspace(1.0, ENDS.get(self.place, 0.0), steps + 1, dtype=torch.float64)
        return lambda x: run(model, x, grid, torch.randn_like), lambda: model.calls

    def _ours(self, target: ExactTarget, steps: int) -> tuple[Callable[[Tensor], Tensor], Any]:
        sde, rule, denoise = PLACES[self.place]
        grid = resolve_grid(rule, sde, steps)
        sampler = make("sampler", self.name)
        model = CountedModel(ExactScore(target, sde))

        def run(x: Tensor) -> Tensor:
            with torch.no_grad():
                *_, last = sampler.frames(model, x, grid, torch.randn_like)
                return model(last.x, last.t).x0 if denoise else last.x

        return run, lambda: model.nfe

    def noisy(self) -> bool:
        """Whether it draws noise."""
        if self.side == "sdekit":
            return "noise" in make("sampler", self.name).needs
        return bool(ROWS[self.name].declared.get("noisy"))

    def calls(self, steps: int) -> int:
        """The network calls of so many steps, counted."""
        law = Gaussian(torch.zeros(1, dtype=torch.float64), 1.0)
        run, count = self.function(law, steps)
        with torch.random.fork_rng(devices=[]):
            run(torch.ones(1, 1, dtype=torch.float64))
        return int(count())

    def steps(self, budget: int) -> tuple[int, int, str]:
        """The most steps within a budget, their calls, and why there are none: (0, 0, why)."""
        low, high, why = (0, 0), budget + 1, f"one step takes more than {budget} calls"
        middle = budget  # most often a call a step
        while high - low[0] > 1:
            try:
                calls = self.calls(middle)
            except (SdekitError, ValueError, IndexError, RuntimeError) as error:
                if middle >= FEWEST:  # not for want of steps
                    return 0, 0, _short(error)
                low, why = (middle, 0), _short(error)
            else:
                low, high = ((middle, calls), high) if calls <= budget else (low, middle)
            middle = (low[0] + high) // 2
        return (*low, "") if low[1] else (0, 0, why)

    def rows(self, budgets: Sequence[int], laws: Sequence[str]) -> Iterator[Row]:
        """All laws within all budgets."""
        for budget in budgets:
            steps, calls, why = self.steps(budget)
            if not steps:
                yield Row(self.side, self.label, self.place, budget, 0, "all", None, None, why)
                continue
            about = (self.side, self.label, self.place, budget, calls)
            for judge in (self.on_gaussians, self.on_mixtures):
                try:
                    for law, w2, modes, note in judge(steps, laws):
                        yield Row(*about, law, w2, modes, note)
                except NonFiniteError as error:
                    yield Row(*about, "all", math.inf, None, f"diverges: {_short(error)}")
                except (SdekitError, RuntimeError, ArithmeticError) as error:
                    yield Row(*about, "all", None, None, _short(error))

    def on_gaussians(self, steps: int, laws: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Name, W2, None, "" of each spectrum; one run for all of them."""
        wanted = {name: v for name, v in spectra().items() if name in laws}
        if not wanted:
            return
        every = torch.cat(list(wanted.values()))
        zero = torch.zeros_like(every)
        target = Gaussian.from_spectrum(zero, every)
        if self.side == "sdekit":
            sde, rule, denoise = PLACES[self.place]
            law = output_law(
                self.name, ExactScore(target, sde), steps=steps, grid=rule, denoise=denoise
            )
        else:
            run, _ = self.function(target, steps)
            start = Gaussian.from_spectrum(zero, torch.ones_like(every))
            law = probe_callable(run, start, tolerance=SINGLE)
        variances, vectors = law.spectrum
        if vectors is not None:
            raise SdekitError("its coordinates meet: no law by one run")
        done = 0
        for name, data in wanted.items():
            part = slice(done, done + len(data))
            done += len(data)
            apart = variances[part].clamp_min(0).sqrt() - data.sqrt()
            squared = apart.square().sum() + law.mean[part].square().sum()
            yield name, float(squared.sqrt()), None, ""

    def on_mixtures(self, steps: int, laws: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Name, W2, the largest error of a weight, and a note, of each mixture."""
        for name, data in MIXTURES.items():
            if name not in laws:
                continue
            if not self.noisy():
                run, _ = self.function(data, steps)
                law = mapped_law(run, Gaussian(torch.zeros(1, dtype=torch.float64), 1.0))
            elif self.side != "sdekit":
                yield name, None, None, "stochastic: no law on mixtures from outside"
                continue
            elif self.place not in KERNELS:
                yield name, None, None, "stochastic: its law on mixtures is made on other grids"
                continue
            else:
                sde, rule, denoise = PLACES[self.place]
                law = output_law_1d(
                    self.name, ExactScore(data, sde), steps=steps, grid=rule, denoise=denoise
                )
            off = float((law.weights(data) - data.weights).abs().max())
            yield name, law.wasserstein(truth(name)), off, ""


@cache
def truth(name: str) -> Law1D:
    """A mixture as a table."""
    return Law1D.of(MIXTURES[name])


def methods(quick: bool) -> list[Method]:
    """What is compared, and why what is absent is."""
    found = []
    for entry in catalogue("sampler").values():
        for made in entry.examples()[: 1 if quick else None]:
            own = not isinstance(made, Corrector) and "adaptive" not in made.needs
            if own and "norm" not in getattr(made, "rule", ""):
                found += [Method("sdekit", repr(made), place) for place in PLACES]
    if quick:
        wanted = ("ddim", "heun")
        found = [m for m in found if m.name.startswith(wanted) and m.place == "trailing"]
    for library in ("diffusers", "azula"):
        try:
            version(library)
        except ImportError:
            print(f"{library} is not installed: its rows are left out")
            continue
        for name, row in ROWS.items():
            if row.library == "diffusers" == library:
                place = row.options.get("timestep_spacing", "default")
                found.append(Method(library, name, place))
            elif row.library == library:
                found += [Method(library, name, end) for end in ENDS]
    if quick:
        names = ("ddim-trailing", "dpmpp-2m-trailing", "azula-ddim")
        found = [m for m in found if m.side == "sdekit" or m.name in names]
    return found


def run(method: Method, budgets: Sequence[int], laws: Sequence[str]) -> list[Row]:
    """The rows of a method, in a process of their own."""
    torch.set_num_threads(1)
    logging.getLogger("diffusers").setLevel(logging.ERROR)  # it reports options it changes itself
    try:
        return list(method.rows(budgets, laws))
    except Exception as error:  # another library's code may raise anything, and the others go on
        if method.side == "sdekit":
            raise
        about = (method.side, method.label, method.place, 0, 0, "all", None, None)
        return [Row(*about, _short(error))]


def best(rows: Sequence[Row], law: str, budget: int, ours: bool) -> Row | None:
    """The smallest error of one side."""
    fit = [
        r for r in rows
        if r.law == law and r.budget == budget and (r.side == "sdekit") == ours
        and r.w2 is not None and math.isfinite(r.w2)
    ]  # fmt: skip
    return min(fit, key=lambda r: r.w2 or 0.0, default=None)


def show(rows: Sequence[Row], laws: Sequence[str], budgets: Sequence[int]) -> None:
    """The best of ours and of theirs."""
    table = Table(title="W2 to the data, the best of each side")
    for heading in ("law", "calls", "sdekit", "W2", "theirs", "W2", "theirs / sdekit"):
        table.add_column(heading, overflow="fold")
    for law in laws:
        for budget in budgets:
            a, b = (best(rows, law, budget, side) for side in (True, False))
            cells = []
            for one in (a, b):
                cells += [f"{one.method}, {one.place}", f"{one.w2:.4g}"] if one else ["-", "-"]
            ratio = f"{b.w2 / a.w2:.2f}" if a and b and a.w2 and b.w2 else "-"
            table.add_row(law, str(budget), *cells, ratio)
    Console(width=150).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few methods, 5 and 10 calls")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--only", default="", help="methods whose side and name hold this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    budgets = BUDGETS[:2] if options.quick else BUDGETS
    laws = ["wide", "tutorial"] if options.quick else [*spectra(), *MIXTURES]
    if "toy" not in spectra():
        print(f"no reference data at {reference()}: toy and cifar10 are left out")
    work = [m for m in methods(options.quick) if options.only in f"{m.side} {m.name} {m.place}"]
    rows: list[Row] = []
    console = Console(stderr=True)
    if options.quick or options.jobs == 1:
        for method in track(work, description="methods", console=console):
            rows += run(method, budgets, laws)
    else:
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(run, method, budgets, laws) for method in work]
            for job in track(as_completed(jobs), total=len(jobs), description="methods",
                             console=console):  # fmt: skip
                rows += job.result()
    order = {(m.side, m.label, m.place): k for k, m in enumerate(work)}
    rows.sort(key=lambda r: (order[r.side, r.method, r.place], r.budget))
    show(rows, laws, budgets)
    for note in sorted(
        {f"{r.side} {r.method}: {r.note}" for r in rows if r.note and r.w2 is None}
    ):
        if options.quick:
            print(note)
    print(f"{len(work)} methods, {len(rows)} rows, {time.perf_counter() - started:.0f} s")
    if options.json:
        content = {
            "budgets": budgets, "laws": laws, "rows": [asdict(r) for r in rows],
            "versions": {k: version(k) for k in sorted({r.side for r in rows})},
        }  # fmt: skip
        options.json.write_text(json.dumps(content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
