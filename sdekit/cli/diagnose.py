"""`sdekit diagnose`: why samples are wrong, and what would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sdekit.cli.folders import as_json, claim_folder, write
from sdekit.cli.options import Common, Int, MaybeInt
from sdekit.cli.terminal import Terminal
from sdekit.errors import ConfigError

if TYPE_CHECKING:
    from sdekit.exact.diagnosis import Diagnosis
    from sdekit.model import Predictor

__all__ = ["OPTIONS", "run"]

_JSON, _PICTURE = "diagnosis.json", "waterfall.png"
_COMMAND = "sdekit diagnose"


@dataclass(frozen=True, kw_only=True)
class Diagnose(Common):
    """Say where the error of a sampler comes from, and what would mend it.

    The model is a checkpoint, on the target it was trained on, or the exact score of a target.
    Errors are exact on Gaussian data, on mixtures along a line and in one dimension; elsewhere
    they come from samples, with standard errors. Writes diagnosis.json and waterfall.png.

    Examples:
      sdekit diagnose --target tutorial --sde "ddpm(n=100)" --sampler ancestral
      sdekit diagnose runs/vp --sampler heun --steps 20 --out heun
    """

    checkpoint: Annotated[Path | None, tyro.conf.Positional] = None
    """a run folder (its newest checkpoint) or a file; or name --target and --sde"""
    out: Path = Path("diagnosis")
    """the folder"""
    target: str | None = None
    """the law of the data: a name of `sdekit list targets`; by default the checkpoint's"""
    sde: str | None = None
    """the process, where there is no checkpoint; vp by default"""
    sampler: str = "ancestral"
    """how: a name of `sdekit list samplers`"""
    steps: MaybeInt = None
    """steps of the grid; by default 50, or all of a chain"""
    grid: str = "uniform"
    """where the steps are: a name of `sdekit list grids`, or optimal: placed for this sampler;
    optimal(risk=0.01) lets one law in a hundred fare worse"""
    prior: str = "standard"
    """what a run starts from: standard or matched"""
    denoise: bool = False
    """take one noiseless step more at the end"""
    n: Int = 20_000
    """how many samples, where no exact law is known"""


OPTIONS = Diagnose


def run(options: Diagnose, terminal: Terminal) -> int:
    """Diagnose; returns the exit code."""
    from sdekit._check import shown
    from sdekit.cli.grids import asked, grid_of
    from sdekit.exact.diagnosis import diagnose

    sampler, rule, device = asked(options, least=100)
    model, target, what = _model(options)
    if hasattr(model, "to"):
        model = model.to(device)
    claim_folder(options.out, allowed=options.overwrite, how="--overwrite")
    steps = options.steps or model.sde.default_steps
    grid = grid_of(rule, sampler, model, steps, terminal)
    terminal.wrap(f"{shown(sampler)} on {what}")
    terminal.say()
    with terminal.progress("diagnosing", None) as advance:
        found = diagnose(
            sampler, model, target, steps=steps, grid=grid, prior=options.prior,
            denoise=options.denoise, n=options.n, seed=options.seed,
            callback=lambda done, of, note: advance(done, f"mend {done + 1} of {of}: {note}"),
        )  # fmt: skip
    for line in str(found).splitlines()[:-1]:
        terminal.say(line.rstrip())
    terminal.wrap(found.sentence)
    for action, why in found.not_tried.items():
        terminal.wrap(f"not tried: {action}: {why}", indent="  ")
    terminal.say()
    _write(options, found, what)
    terminal.say(f"wrote {options.out / _JSON} and {options.out / _PICTURE}")
    return 0


def _model(options: Diagnose) -> tuple[Predictor, Any, str]:
    """The model, the law of its data, and what both are."""
    from sdekit._catalogue import make_one
    from sdekit._check import shown
    from sdekit.cli.checkpoints import loaded
    from sdekit.model import ExactScore
    from sdekit.sde import LinearSDE
    from sdekit.targets import ExactTarget, Target
    from sdekit.training.origin import trained_on

    target = None if options.target is None else make_one("target", options.target, Target)
    found = None
    if options.checkpoint is not None:
        if options.sde is not None:
            raise ConfigError("--sde contradicts the checkpoint, which has its own; leave it out")
        found = loaded(options.checkpoint)
        target = trained_on(found) if target is None else target
    if target is None:
        raise ConfigError(
            "name what to diagnose: a CHECKPOINT, or --target NAME"
            if found is None
            else f"{found.path} was not trained on a named target: say it with --target NAME"
        )
    if not isinstance(target, ExactTarget):
        raise ConfigError(
            f"--target {shown(target)} has no score in closed form, and samples of it no truth "
            "to be held against; name a gaussian, gaussian_mixture, tutorial or empirical one"
        )
    if found is None:
        sde = make_one("sde", options.sde or "vp", LinearSDE)
        what = f"the exact score of {shown(target)} under {shown(sde)}"
        return ExactScore(target, sde), target, what
    return found.model, target, f"{found.path}, step {found.step}, under {shown(found.model.sde)}"


def _write(options: Diagnose, found: Diagnosis, what: str) -> None:
    """The picture, then the numbers: they mark the folder as complete."""
    from sdekit import __version__, plots
    from sdekit.cli.waterfall import waterfall

    settings = {
        name: getattr(options, name)
        for name in ("target", "sde", "sampler", "steps", "grid", "prior", "denoise", "n", "seed")
    }
    write(options.out / _PICTURE, plots.png(waterfall(found.budget)))
    content = {
        "command": _COMMAND, "sdekit": __version__, "what": what, "settings": settings,
        **found.to_json(),
    }  # fmt: skip
    write(options.out / _JSON, as_json(content))
