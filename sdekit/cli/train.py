"""`sdekit train`: a network, an SDE and data become a run folder with checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdekit.cli.folders import as_json, claim_folder, write
from sdekit.cli.options import Common, Float, Int, MaybeFloat, MaybeInt
from sdekit.cli.terminal import Terminal
from sdekit.errors import CheckpointError, ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from sdekit.model import ScoreModel
    from sdekit.targets import Target

__all__ = ["OPTIONS", "run"]

_CONFIG, _LOCK = "config.json", ".sdekit-lock"
_MEASURED = 10_000  # samples of a target from which the size of its data is measured


@dataclass(frozen=True, kw_only=True)
class Train(Common):
    """Train a score model on a named target or on a file of points.

    Anything with a name is written NAME or "NAME(field=value, ...)"; `sdekit list` shows them all.
    The run folder gets config.json, log.jsonl and checkpoints step-NUMBER.safetensors.

    Examples:
      sdekit train --target tutorial --sde vp --out runs/vp
      sdekit train --data points.csv --sde "ddpm(n=100)" --steps 5000 --out runs/chain
      sdekit train --data points.csv --holdout 0.2 --out runs/points
      sdekit train --target tutorial --sde vp --out runs/vp --resume
    """

    out: Path
    """the run folder"""
    target: str | None = None
    """the law to learn: a name of `sdekit list targets`"""
    data: Path | None = None
    """or a file of points to learn: .npy or .csv, one sample a row"""
    holdout: Float = 0.0
    """the fraction of the samples of --data that is never trained on, in [0, 1)"""
    holdout_seed: Int = 0
    """which samples these are; kept in the checkpoint"""
    sde: str = "vp"
    """the forward process: vp, sub_vp, ve, cosine, edm, flow, ddpm, ..."""
    steps: Int = 4000
    """training steps in all, those behind a checkpoint included"""
    checkpoint_every: MaybeInt = None
    """steps between checkpoints; without it, one at the end"""
    resume: bool = False
    """go on from the newest checkpoint of --out; from 0 where there is none"""
    override: tuple[str, ...] = ()
    """with --resume: settings that may differ from the checkpoint's, such as lr"""
    batch: Int | None = None
    """samples a step; 512, or all that --data holds where these are fewer"""
    lr: Float = 4e-3
    """learning rate"""
    schedule: str = "cosine"
    """of the learning rate: cosine (to 0 at the last step) or constant"""
    optimizer: str = "adamw"
    """adamw, adam or sgd"""
    ema: Float = 0.999
    """decay of the average of the weights, which is what samples; 0 keeps the latest"""
    clip: MaybeFloat = 1.0
    """largest norm of the gradient"""
    network: str = "mlp"
    """the network: `sdekit list networks`"""
    parametrization: str = "auto"
    """what it predicts: eps, x0, v, score, flow, edm; auto: edm, whose input and output have unit
    size, with sigma_data measured from the data"""
    time_input: str = "c_noise"
    """what time it is told: t, index, sigma, c_noise or log_snr"""
    objective: str = "dsm"
    """the loss"""
    weighting: str | None = None
    """of the loss over time: simple, sigma2, likelihood"""


OPTIONS = Train


def run(options: Train, terminal: Terminal) -> int:
    """Train; returns the exit code."""
    from sdekit._catalogue import make_one
    from sdekit._check import integer, number
    from sdekit.cli.device import device_of
    from sdekit.objectives import Objective
    from sdekit.training import Trainer

    if (options.target is None) == (options.data is None):
        raise ConfigError("name the data: one of --target NAME and --data FILE")
    if options.resume and options.overwrite:
        raise ConfigError("--resume and --overwrite contradict each other; use one of them")
    integer("--steps", options.steps, ge=0)
    number("--holdout", options.holdout, ge=0, lt=1)
    if options.checkpoint_every is not None:
        integer("--checkpoint-every", options.checkpoint_every, ge=1)
    device = device_of(options.device)
    _same_split(options)
    data, shape, size = _data(options)
    model = _model(options, shape, size).to(device)
    objective = make_one("objective", options.objective, Objective)
    if options.weighting is not None:
        objective = replace(objective, weighting=options.weighting)
    trainer = Trainer(
        model,
        objective,
        optimizer=options.optimizer,
        lr=options.lr,
        schedule=options.schedule,
        ema=options.ema,
        clip=options.clip,
        batch_size=options.batch,
        seed=options.seed,
    )
    _prepare(options, terminal, model, objective)
    what = options.target or str(options.data)
    terminal.say(f"training {options.network} on {what} under {model.sde!r}")
    if options.holdout:
        terminal.say(
            f"{options.holdout:g} of the samples, chosen by --holdout-seed "
            f"{options.holdout_seed}, are held out"
        )
    with terminal.progress("training", options.steps) as advance:
        result = trainer.fit(
            data,
            steps=options.steps,
            holdout=options.holdout,
            holdout_seed=options.holdout_seed,
            checkpoint_dir=options.out,
            checkpoint_every=options.checkpoint_every,
            resume=options.resume,
            override=options.override,
            callback=lambda done, loss: (
                advance(done, f"loss {loss:.4g}") if done % 20 == 0 else None
            ),
        )
    done = result.steps - result.first_step
    if done == 0:
        terminal.say(f"nothing to do: {options.out} is at step {result.steps} already")
        return 0
    tail = result.losses[-min(100, done) :].nanmean()
    skipped = f", {result.skipped} steps skipped" if result.skipped else ""
    terminal.say(
        f"trained {done} steps in {result.seconds:.1f} s, the loss of the last "
        f"{min(100, done)}: {tail:.4g}{skipped}"
    )
    terminal.say(f"wrote {result.checkpoint}")
    terminal.say(f"next: sdekit sample {options.out} --out samples.npz")
    return 0


def _same_split(options: Train) -> None:
    """Refuse to go on with another split, before the size of other rows is what differs.

    Raises:
        CheckpointError: the newest checkpoint of the run holds out other rows.
    """
    from sdekit.training import files, load_checkpoint

    again = options.resume and "holdout" not in options.override
    if options.data is None or not again or not files.checkpoints(options.out):
        return
    stored = load_checkpoint(options.out).config.get("holdout") or {"fraction": 0.0, "seed": 0}
    given = (options.holdout, options.holdout_seed if options.holdout else 0)
    if given != (stored["fraction"], stored["seed"]):
        raise CheckpointError(
            f"{options.out} holds out the fraction {stored['fraction']:g} by the seed "
            f"{stored['seed']}; --holdout {options.holdout:g} --holdout-seed "
            f"{options.holdout_seed} needs --override holdout",
            kind="incompatible",
        )


def _data(options: Train) -> tuple[Target | Tensor, tuple[int, ...], float]:
    """The data, the shape of a sample, and the root mean square of its numbers."""
    import torch

    from sdekit._catalogue import make_one
    from sdekit.targets import Target
    from sdekit.targets._split import split_rows

    if options.data is not None:
        from sdekit.training.points import read_points

        points = read_points(options.data)
        kept, held = split_rows(
            len(points), options.holdout, options.holdout_seed, name="--holdout"
        )
        if options.batch is not None and options.batch > len(kept):
            rest = f" that --holdout {options.holdout:g} leaves" if len(held) else ""
            raise DataError(
                f"--batch {options.batch} is more than the {len(kept)} samples of "
                f"{options.data}{rest}"
            )
        return points, tuple(points.shape[1:]), _size(points[kept])
    if options.holdout:
        raise ConfigError(
            f"--holdout {options.holdout:g} needs --data FILE; a target draws fresh samples, or "
            "has a split of its own: digits(split='train')"
        )
    target = make_one("target", options.target, Target)
    generator = torch.Generator().manual_seed(0)  # the same for every seed: it is a setting
    return target, tuple(target.shape), _size(target.sample(_MEASURED, generator=generator))


def _size(x: Tensor) -> float:
    """The root mean square, to three digits; 1 where everything is 0."""
    return float(f"{float(x.double().square().mean().sqrt()):.3g}") or 1.0


def _model(options: Train, shape: tuple[int, ...], size: float) -> ScoreModel:
    from torch import nn

    from sdekit._catalogue import catalogue, make_one
    from sdekit.model import ScoreModel
    from sdekit.sde import LinearSDE

    network: Any = make_one("network", options.network, nn.Module)
    fields = dict(getattr(network, "config", {}))
    if "dim" in fields:
        if len(shape) != 1:
            raise ConfigError(
                f"--network {options.network} takes vectors; these samples have shape {shape}"
            )
        fields["dim"] = shape[0]
        if "seed" not in options.network:
            fields["seed"] = options.seed
        network = catalogue("network")[network.catalogue_name].make(**fields)
    automatic = options.parametrization == "auto"
    return ScoreModel(
        network,
        make_one("sde", options.sde, LinearSDE),
        parametrization=f"edm(sigma_data={size})" if automatic else options.parametrization,
        time_input=options.time_input,
    )


def _prepare(options: Train, terminal: Terminal, model: ScoreModel, objective: object) -> None:
    """Claim the run folder and write down what the run is."""
    from sdekit.training import files

    held = claim_folder(
        options.out,
        allowed=options.resume or options.overwrite,
        how="--resume or --overwrite",
        ignore=[_LOCK],
    )
    with files.locked(options.out):  # not while another run is writing there
        if options.overwrite and held:
            for _, path in files.checkpoints(options.out):
                path.unlink()
            for name in (_CONFIG, "log.jsonl"):
                (options.out / name).unlink(missing_ok=True)
        found = files.checkpoints(options.out)
        if not found:  # with some, what the run is was written when it began
            write(options.out / _CONFIG, as_json(_config(options, model, objective)))
    if options.resume:
        at = f"going on from {found[0][1].name}" if found else "no checkpoint yet: starting at 0"
        terminal.say(f"{options.out}: {at}")


def _config(options: Train, model: ScoreModel, objective: object) -> dict[str, Any]:
    """What the run is: the options given, and the parts made of them, spelled out."""
    from sdekit import __version__

    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
        if name not in ("debug", "override", "overwrite", "resume")
    }
    made = {
        "sde": repr(model.sde),
        "parametrization": repr(model.parametrization),
        "time_input": model.time_input,
        "objective": repr(objective),
    }
    return {"command": "train", "sdekit": __version__, "options": given, "made": made}
