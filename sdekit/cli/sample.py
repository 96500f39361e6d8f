"""`sdekit sample`: samples from a checkpoint, as an `.npz` file and a picture beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sdekit.cli.checkpoints import loaded
from sdekit.cli.folders import claim_file
from sdekit.cli.options import Common, Int, MaybeInt
from sdekit.cli.terminal import Terminal

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["OPTIONS", "run"]

_CHUNK = 2**14  # samples run at a time: bounds the memory, costs nothing
_STEPS = 200  # of the default sampler: enough for it on every SDE of the catalogue
_MODES = 12  # more modes than this are counted, not listed


@dataclass(frozen=True, kw_only=True)
class Sample(Common):
    """Draw samples from a checkpoint, with any sampler and any number of steps.

    Writes FILE.npz (x, the times t, nfe, seconds, and meta, a JSON text) and a picture, FILE.png.
    Where the model was trained on a mixture it prints the weight of every mode with its standard
    error.

    Examples:
      sdekit sample runs/vp --out vp.npz
      sdekit sample runs/vp --sampler heun --grid karras --steps 20 --out vp20.npz
      sdekit sample runs/vp --sampler ddim --grid optimal --steps 10 --out vp10.npz
      sdekit sample runs/vp --sampler "ddim(eta=0.5)" --n 2000 --out ddim.npz
      sdekit sample runs/chain --prior matched --out chain.npz
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """a run folder (its newest checkpoint) or a file"""
    out: Path = Path("samples.npz")
    """the file of the samples"""
    sampler: str = "ancestral"
    """how: a name of `sdekit list samplers`"""
    steps: MaybeInt = None
    """steps of the grid; by default 200, or all of a shorter chain"""
    grid: str = "uniform"
    """where the steps are: a name of `sdekit list grids`, or optimal: placed for this sampler, on
    the scale of the data; optimal(risk=0.01) lets one law in a hundred fare worse"""
    prior: str = "standard"
    """what a run starts from: standard (the SDE's own normal law) or matched (the normal law with
    the mean and covariance that the data have there; they are in the checkpoint)"""
    n: Int = 10_000
    """how many samples"""


OPTIONS = Sample


def run(options: Sample, terminal: Terminal) -> int:
    """Sample; returns the exit code."""
    from sdekit.cli.grids import asked, grid_of
    from sdekit.sampling import sample
    from sdekit.sampling.grid import resolve_grid
    from sdekit.training.origin import shape_of, trained_on

    sampler, rule, device = asked(options, least=1)
    found = loaded(options.checkpoint)
    model = found.model.to(device)
    shape = shape_of(found)
    most = model.sde.default_steps if "ddpm" in model.sde.kinds else _STEPS
    steps = min(_STEPS, most) if options.steps is None else options.steps
    grid = grid_of(rule, sampler, model, steps, terminal)
    rows = len(sampler.times(model.sde, resolve_grid(grid, model.sde, steps))[0])
    out = claim_file(options.out, ".npz", overwrite=options.overwrite)
    chunks = -(-options.n // _CHUNK)
    done = 0
    with terminal.progress("sampling", rows * chunks if rows > 1 else None) as advance:

        def tick(frame: Any) -> None:
            nonlocal done
            done += frame.step > 0
            advance(done, f"t = {frame.t:.3f}")

        result = sample(
            model, (options.n, *shape), sampler=sampler, steps=steps, grid=grid, seed=options.seed,
            prior=options.prior, device=device, chunk=_CHUNK, callback=tick,
        )  # fmt: skip
    x = result.x.cpu()
    target = trained_on(found)
    meta = {
        "checkpoint": str(found.path), "step": found.step, "sde": repr(model.sde),
        "sampler": repr(sampler), "grid": repr(rule), "steps": steps,
        "times": result.grid.tolist(), "n": options.n,
        "prior": options.prior, "seed": options.seed, "nfe": result.nfe,
    }  # fmt: skip
    terminal.say(
        f"{options.n} samples by {sampler!r} on {model.sde!r}: {len(result.grid) - 1} steps, "
        f"{result.nfe} network calls each, {result.seconds:.2f} s"
    )
    modes = _report_modes(terminal, target, x)
    if modes:
        meta["modes"] = modes
    result.save(out, meta=meta, overwrite=True)  # claimed above
    picture = out.with_suffix(".png")
    title = f"{options.sampler}, {len(result.grid) - 1} steps"
    result.plot(picture, density=_density(target), title=title, overwrite=True)
    terminal.say(f"wrote {out} and {picture}")
    return 0


def _report_modes(terminal: Terminal, target: Any, x: Tensor) -> list[dict[str, Any]]:
    """Print and return the weight of every mode, where the target is a mixture of some."""
    weights: Any = getattr(target, "weights", ())
    if not hasattr(target, "component") or len(weights) < 2:
        return []
    nearest = target.component(x)
    modes = []
    for k, truth in enumerate(weights.tolist()):
        share = float((nearest == k).double().mean())
        stderr = (share * (1 - share) / len(x)) ** 0.5
        mean = [round(value, 4) for value in target.means[k].tolist()]
        modes.append({"mean": mean, "weight": share, "stderr": stderr, "data": truth})
    for mode in sorted(modes, key=lambda m: -m["data"])[:_MODES]:
        where = ", ".join(f"{value:g}" for value in mode["mean"][:4])
        where += ", ..." if len(mode["mean"]) > 4 else ""
        terminal.say(
            f"weight of the mode at ({where}): {mode['weight']:.4f} +/- {mode['stderr']:.4f}, "
            f"in the data {mode['data']:g}"
        )
    if len(modes) > _MODES:
        terminal.say(f"and {len(modes) - _MODES} modes more: they are in the file's meta")
    return modes


def _density(target: Any) -> Any:
    """The target's density as a function of arrays; None where it has none."""
    import torch

    if not hasattr(target, "log_prob"):
        return None
    return lambda points: target.log_prob(torch.from_numpy(points)).exp()
