"""`sdekit likelihood`: how likely data are under a model, and what that may be off by."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sdekit.cli.folders import as_json, claim_folder, write
from sdekit.cli.options import Common, Float, Int, MaybeFloat, MaybeInt
from sdekit.cli.terminal import Terminal
from sdekit.errors import ConfigError

if TYPE_CHECKING:
    from sdekit.cli.findings import Findings
    from sdekit.cli.subject import Data, Subject

__all__ = ["OPTIONS", "run"]

_JSON, _CSV, _PICTURE = "likelihood.json", "likelihood.csv", "likelihood.png"
_COMMAND = "sdekit likelihood"
_METHODS, _DEQUANTIZE = ("ode", "elbo", "both"), ("none", "uniform")
_PROBES = 8  # where nobody says how many: their spread gives a standard error


@dataclass(frozen=True, kw_only=True)
class Likelihood(Common):
    """Log-likelihoods of data under a model, in nats and bits, with intervals.

    The model is a checkpoint, or the exact score of a target. The data are --data FILE; or a
    checkpoint's own test split (`sdekit train --holdout`); or fresh draws of the target. Writes
    likelihood.json, likelihood.csv (a row a sample) and likelihood.png.

    Examples:
      sdekit likelihood --target tutorial --sde vp --budget
      sdekit likelihood runs/points --data points.csv --split test --out test
      sdekit likelihood runs/vp --method both --divergence rademacher --probes 16 --out both
      sdekit likelihood runs/images --data images.npy --levels 256 --dequantizations 4
    """

    checkpoint: Annotated[Path | None, tyro.conf.Positional] = None
    """a run folder (its newest checkpoint) or a file; or name --target and --sde"""
    out: Path = Path("likelihood")
    """the folder"""
    target: str | None = None
    """the law of the data: a name of `sdekit list targets`; by default the checkpoint's"""
    sde: str | None = None
    """the process, where there is no checkpoint; vp by default"""
    data: Path | None = None
    """a file of samples: .npy or .csv, one a row; with --split, that of the checkpoint's run"""
    split: str | None = None
    """test or train: which rows of the data of the checkpoint's run; by default test"""
    n: Int = 1000
    """how many fresh draws, where there are no data"""
    method: str = "ode"
    """ode (the probability flow), elbo (the variational bound) or both"""
    divergence: str = "exact"
    """of the flow: exact, or estimated by probes: rademacher or gaussian"""
    probes: MaybeInt = None
    """how many probes; 8 by default"""
    solver: str = "dopri5"
    """of the flow: dopri5, torchdiffeq:NAME or scipy:NAME"""
    rtol: Float = 1e-5
    """relative tolerance of the flow"""
    atol: Float = 1e-5
    """absolute tolerance of the flow"""
    max_nfe: MaybeInt = None
    """model calls after which a solve fails"""
    draws: Int = 1
    """of the noise, at each time of the bound"""
    times: MaybeInt = None
    """of the bound, drawn; by default every step of a chain, 128 of another process"""
    decoder: str | None = None
    """of the bound: gaussian, or discretized (the default where levels are declared)"""
    levels: MaybeInt = None
    """how many values a number of the data takes: 256 of images; bits are those of the levels"""
    low: MaybeFloat = None
    """where the model has the lower end of the lowest level's cell; -1 by default"""
    high: MaybeFloat = None
    """and the upper end of the highest one's; 1 by default"""
    dequantize: str | None = None
    """none, or uniform: noise inside the cells, the default where levels are declared"""
    dequantizations: Int = 1
    """how many such draws are averaged: each gives a bound, their mean a less noisy one"""
    budget: bool = False
    """say what the flow's numbers may be off by, line by line; takes one more solve"""
    chunk: MaybeInt = None
    """samples solved together: bounds the memory; by default 65536 numbers"""


OPTIONS = Likelihood


def run(options: Likelihood, terminal: Terminal) -> int:
    """Evaluate; returns the exit code."""
    from sdekit.cli.device import device_of

    _check(options)
    device = device_of(options.device)
    from sdekit.cli.subject import subject_of

    subject = subject_of(options, device)
    asked = _resolved(options, subject.data)
    claim_folder(options.out, allowed=options.overwrite, how="--overwrite")
    from sdekit.cli.findings import Findings
    from sdekit.cli.measured import bounded, flowed

    _announce(asked, subject, terminal)
    start = time.perf_counter()
    flow = None if asked.method == "elbo" else flowed(subject, asked, terminal)
    bound = None if asked.method == "ode" else bounded(subject, asked, terminal)
    seconds = time.perf_counter() - start
    found = Findings(subject, asked, flow, bound)
    found.say(terminal)
    calls = [f"{flow.nfe} by the flow"] if flow else []
    calls += [f"{bound.nfe} by the bound"] if bound else []
    terminal.say(f"model calls a sample: {', '.join(calls)}; {seconds:.1f} s")
    _write(options, asked, found, seconds)
    terminal.say(f"wrote {_JSON}, {_CSV} and {_PICTURE} in {options.out}")
    return 0


# the question -----------------------------------------------------------------------------------


def _check(options: Likelihood) -> None:
    """Refuse what no data could make right."""
    from sdekit._check import choice, integer, number
    from sdekit.cli.subject import SPLITS
    from sdekit.likelihood.decoder import DECODERS
    from sdekit.likelihood.divergence import DIVERGENCES
    from sdekit.likelihood.solvers import SOLVERS

    choice("--method", options.method, _METHODS)
    choice("--divergence", options.divergence, DIVERGENCES)
    choice("--solver", options.solver, SOLVERS)
    for name, allowed in (
        ("split", SPLITS), ("decoder", DECODERS), ("dequantize", _DEQUANTIZE),
    ):  # fmt: skip
        if getattr(options, name) is not None:
            choice(f"--{name}", getattr(options, name), allowed)
    for name in ("rtol", "atol"):
        number(f"--{name}", getattr(options, name), gt=0)
    for name in ("n", "draws", "dequantizations"):
        integer(f"--{name}", getattr(options, name), ge=1)
    for name in ("probes", "max_nfe", "times", "chunk"):
        if getattr(options, name) is not None:
            integer(f"--{name.replace('_', '-')}", getattr(options, name), ge=1)
    if options.levels is not None:
        integer("--levels", options.levels, ge=2)
    if options.probes is not None and options.divergence == "exact":
        raise ConfigError("--probes are those of --divergence rademacher or gaussian; an exact "
                          "divergence has none")  # fmt: skip
    if options.budget and options.method == "elbo":
        raise ConfigError("--budget is of the flow: --method ode or both")


def _resolved(options: Likelihood, data: Data) -> Likelihood:
    """The options with every default filled in, for these data."""
    levels = data.levels is not None
    decoder = options.decoder or ("discretized" if levels else "gaussian")
    how = options.dequantize or ("uniform" if levels else "none")
    if not levels and decoder == "discretized":
        raise ConfigError("--decoder discretized needs the levels of the data: --levels")
    if not levels and (how == "uniform" or options.dequantizations > 1):
        raise ConfigError("dequantisation needs the levels of the data: --levels")
    probes = options.probes or (1 if options.divergence == "exact" else _PROBES)
    asked = replace(options, decoder=decoder, dequantize=how, probes=probes)
    if data.whole and how == "none" and _density(asked):
        raise ConfigError("whole numbers have no density: --dequantize uniform")
    return asked


def _density(asked: Likelihood) -> bool:
    """Whether a density is asked for, and not only the probability of levels."""
    return asked.method != "elbo" or asked.decoder == "gaussian"


def _announce(options: Likelihood, subject: Subject, terminal: Terminal) -> None:
    """What is evaluated, on which data."""
    data = subject.data
    about, shape = data.about, data.x.shape[1:]
    of = {
        "draws": f"fresh draws of {about.get('target')}",
        "file": f"samples of {about.get('file')}",
        "split": f"samples, the {about.get('split')} split of "
        f"{about.get('file') or about.get('target')}",
    }[about["source"]]
    size = " x ".join(map(str, shape)) if len(shape) > 1 else str(shape[0])
    terminal.wrap(f"log-likelihood of {len(data.x)} {of}, {size} numbers each")
    terminal.wrap(f"by {subject.what}")
    if "shape" in about:
        given = " x ".join(map(str, about["shape"]))
        terminal.wrap(f"samples of {given} numbers are taken row by row")
    if data.levels is not None:
        how, k = data.levels, options.dequantizations
        noise = f", {k} draw{'s' * (k > 1)} of uniform noise inside the cells"
        noisy = options.dequantize == "uniform" and _density(options)
        terminal.wrap(
            f"{how.levels} levels with cells from {how.low:g} to {how.high:g}{noise * noisy}"
        )
    terminal.say()


# the files --------------------------------------------------------------------------------------


def _write(options: Likelihood, asked: Likelihood, found: Findings, seconds: float) -> None:
    """The table, the picture, then the numbers: they mark the folder as complete."""
    from sdekit import __version__, plots

    write(options.out / _CSV, _table(found))
    values, label = found.shown
    data, how = found.subject.data, found.subject.data.levels
    title = f"{len(data.x)} samples"
    write(options.out / _PICTURE, plots.png(plots.histogram(values, axis=label, title=title)))
    left_out = ("out", "overwrite", "debug", "device")
    settings = {f.name: getattr(asked, f.name) for f in fields(asked) if f.name not in left_out}
    content = {
        "command": _COMMAND, "sdekit": __version__, "what": found.subject.what,
        "settings": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in settings.items()
        },
        "data": data.about, "n": len(data.x), "shape": list(data.x.shape[1:]),
        "levels": how and {"levels": how.levels, "low": how.low, "high": how.high},
        **found.to_json(), "seconds": seconds,
    }  # fmt: skip
    write(options.out / _JSON, as_json(content))


def _table(found: Findings) -> bytes:
    """A row a sample."""
    columns = found.columns
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", *columns])
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    writer.writerows([i, *row] for i, row in enumerate(rows))
    return text.getvalue().encode()
