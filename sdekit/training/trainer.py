r"""Training a score model: one loop, which can be stopped anywhere and goes on bitwise the same.

Step k takes batch k, the gradient of the mean loss, clipped to a norm, one step of the optimizer
with the rate

    lr_k = lr min(1, (k + 1) / warmup) (1 + cos(pi k / steps)) / 2                              (1)

(the last factor is 1 with `schedule="constant"`), and one update of the moving average. All
randomness is keyed by the seed and the number of the step's block (`data.py`). Batches, times,
noise and schedules are prepared for a block of steps at once.

References: Ho et al., arXiv:2006.11239, algorithm 1; Loshchilov and Hutter, arXiv:1711.05101
(AdamW) and arXiv:1608.03983 (cosine decay).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from sdekit._catalogue import make_one
from sdekit._check import choice, integer, number, shown
from sdekit.errors import ConfigError, DtypeError
from sdekit.model import ScoreModel
from sdekit.objectives import Objective
from sdekit.training import files
from sdekit.training.checkpoint import load_checkpoint
from sdekit.training.data import source
from sdekit.training.log import Log
from sdekit.training.loop import SCHEDULES, Run, Saving, TrainResult
from sdekit.training.stop import Stop

__all__ = ["TrainResult", "Trainer"]

OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


class Trainer:
    """Trains a model by an objective.

    Args:
        model: the model; it is trained in place.
        objective: an `Objective` or its spelling, such as "dsm(weighting='likelihood')".
        optimizer: adamw, adam, sgd, or a callable `optimizer(parameters, lr=...)`.
        lr: the learning rate, > 0.
        schedule: cosine (to 0 at the last step) or constant, eq. (1).
        warmup: steps of linear rise at the beginning, at most a tenth of the run.
        ema: the decay of the moving average of the weights, in [0, 1); None: no average.
        clip: the largest norm of the gradient, > 0; None: not clipped.
        batch_size: samples a step; by default 512, or all of a tensor that holds fewer. An
            iterable of batches has its own.
        seed: of the order of the data, the times, the noise, and a network's own randomness.
        on_nonfinite: what a loss or gradient that is not finite leads to: "raise", or "skip": the
            step is left out and counted.
        max_skipped: how many steps may be skipped before that is an error.

    Raises:
        ConfigError: a value outside its range, an unknown name, or a model with nothing to train.
        DtypeError: model is no ScoreModel, or objective no objective.

    Example:
        >>> from sdekit import GaussianMixture, ScoreModel, VPSDE
        >>> from sdekit.model import MLP
        >>> data = GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)
        >>> trainer = Trainer(ScoreModel(MLP(2, width=16), VPSDE()), "dsm", batch_size=64)
        >>> result = trainer.fit(data, steps=10)
        >>> result.losses.shape, result.model is trainer.ema_model
        (torch.Size([10]), True)
    """

    def __init__(
        self,
        model: ScoreModel,
        objective: str | Objective = "dsm",
        *,
        optimizer: str | Callable[..., Optimizer] = "adamw",
        lr: float = 1e-3,
        schedule: str = "cosine",
        warmup: int = 100,
        ema: float | None = 0.999,
        clip: float | None = 1.0,
        batch_size: int | None = None,
        seed: int = 0,
        on_nonfinite: str = "raise",
        max_skipped: int = 10,
    ) -> None:
        if not isinstance(model, ScoreModel):
            raise DtypeError(f"model must be a ScoreModel, got {shown(model)}")
        self.model = model
        self.objective: Objective = make_one("objective", objective, Objective)
        if not callable(optimizer):
            choice("optimizer", optimizer, OPTIMIZERS)
        self.optimizer = optimizer
        self.lr = number("lr", lr, gt=0)
        self.schedule = choice("schedule", schedule, SCHEDULES)
        self.warmup = integer("warmup", warmup, ge=0)
        self.ema = None if ema is None else number("ema", ema, ge=0, lt=1)
        self.clip = None if clip is None else number("clip", clip, gt=0)
        self.batch_size = None if batch_size is None else integer("batch_size", batch_size, ge=1)
        self.seed = integer("seed", seed)
        self.on_nonfinite = choice("on_nonfinite", on_nonfinite, ("raise", "skip"))
        self.max_skipped = integer("max_skipped", max_skipped, ge=0)
        self.ema_model: ScoreModel | None = None
        self.trainable()

    def fit(
        self,
        data: object,
        *,
        steps: int,
        holdout: float = 0.0,
        holdout_seed: int = 0,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | None = None,
        keep: int | None = 3,
        resume: bool = False,
        inexact_resume: bool = False,
        override: Collection[str] = (),
        on_save_error: str = "raise",
        log_every: int = 100,
        progress: bool = False,
        callback: Callable[[int, float], None] | None = None,
    ) -> TrainResult:
        """Train up to a number of steps.

        A model without `moments` gets those of the data: all of a tensor, a target's own, or the
        first batches of an iterable (2^14 samples), which are known when a checkpoint is written
        and at the end. They are stored in checkpoints, and a resumed run keeps the stored ones.
        For new data set `model.moments = None`.

        Args:
            data: a tensor of samples (n, *dims), a target (fresh samples at every step), or an
                iterable of batches.
            steps: the number of steps in all, those behind a checkpoint included.
            holdout: the fraction of the rows of a tensor that is never trained on, in [0, 1);
                `held_out` gives them back, by what the checkpoint says.
            holdout_seed: which rows these are; another seed than the trainer's.
            checkpoint_dir: the run folder, for checkpoints and `log.jsonl`; it is locked.
            checkpoint_every: steps between checkpoints; by default only at the end.
            keep: how many checkpoints stay; None: all.
            resume: go on from the newest checkpoint of the folder, bitwise as if never stopped on
                the same machine with the same `steps`; from 0 where there is none.
            inexact_resume: resume with an iterable of batches too, which begins anew.
            override: settings that may differ from those of the checkpoint.
            on_save_error: what a checkpoint that cannot be written on the way leads to: "raise",
                or "continue" with a warning. The last one always raises.
            log_every: steps between records of the log.
            progress: show a progress bar.
            callback: called as callback(steps done, loss) after every step.

        Raises:
            DataError: data that cannot be used; the batch or the rows are named.
            NonFiniteError: a loss or gradient is not finite; the step is named.
            ConfigError: a setting outside its range, or a folder that holds a run already.
            CheckpointError: a checkpoint cannot be written, or belongs to another configuration.
            RunLockedError: another process trains in this folder.
            KeyboardInterrupt: SIGINT, after the step was finished and saved.
            SystemExit: SIGTERM, likewise, with code 143.
        """
        steps = integer("steps", steps, ge=0, error=ConfigError)
        every = (
            None
            if checkpoint_every is None
            else integer("checkpoint_every", checkpoint_every, ge=1)
        )
        keep = None if keep is None else integer("keep", keep, ge=1)
        log_every = integer("log_every", log_every, ge=1)
        choice("on_save_error", on_save_error, ("raise", "continue"))
        if checkpoint_dir is None and (every is not None or resume):
            raise ConfigError("checkpoint_every and resume need a checkpoint_dir")
        holdout = number("holdout", holdout, ge=0, lt=1)
        batches = source(
            data,
            batch_size=self.batch_size,
            seed=self.seed,
            holdout=holdout,
            holdout_seed=integer("holdout_seed", holdout_seed),
        )
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)
        with contextlib.ExitStack() as stack:
            if folder is not None:
                stack.enter_context(files.locked(folder))
            run = Run(self, batches, steps)
            if folder is not None and files.checkpoints(folder):
                if not resume:
                    raise ConfigError(
                        f"{folder} holds a run up to step {files.checkpoints(folder)[0][0]}; "
                        "resume=True continues it, or take another folder"
                    )
                run.restore(load_checkpoint(folder, model=self.model), override, inexact_resume)
            run.measure()
            self.ema_model = run.average.model if run.average else None
            save = Saving(run, folder, every, keep, on_save_error)
            log = stack.enter_context(Log(folder and folder / "log.jsonl", run.step))
            show = stack.enter_context(_bar(progress, run.step, steps))
            stack.enter_context(_training(self.model))
            stack.enter_context(torch.enable_grad())  # also where the caller has them off
            stop = stack.enter_context(Stop())
            return run.go(stop, save, log, log_every, show, callback)

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the checkpoint, as JSON."""
        name = self.optimizer if isinstance(self.optimizer, str) else _qualified(self.optimizer)
        return {
            "optimizer": name,
            **{
                key: getattr(self, key)
                for key in ("lr", "schedule", "warmup", "ema", "clip", "batch_size", "seed")
            },
        }

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not parameters:
            raise ConfigError(
                "model has no trainable parameters: all are frozen, or there are none"
            )
        return parameters

    def make_optimizer(self) -> Optimizer:
        """A new optimizer of them."""
        parameters = self.trainable()
        if not isinstance(self.optimizer, str):
            made = self.optimizer(parameters, lr=self.lr)
            if not isinstance(made, Optimizer):
                raise DtypeError(f"optimizer must make a torch Optimizer, got {shown(made)}")
            return made
        # one kernel for all parameters where there is one: a third of the time of a loop over them
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
        options: dict[str, Any] = {"lr": self.lr, "fused" if fused else "foreach": True}
        return OPTIMIZERS[self.optimizer](parameters, **options)


def _qualified(thing: object) -> str:
    named = getattr(thing, "func", thing)  # functools.partial
    named = named if hasattr(named, "__qualname__") else type(named)
    return f"{named.__module__}.{named.__qualname__}"


@contextlib.contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Train mode inside, every module's own mode restored after."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _bar(wanted: bool, first: int, steps: int) -> Iterator[Callable[[int, float], None]]:
    """A function (step, loss) that moves a progress bar, or does nothing."""
    if not wanted:
        yield lambda step, loss: None
        return
    from rich import console, progress  # only where it is shown

    columns = (
        *progress.Progress.get_default_columns(),
        progress.TextColumn("loss {task.fields[loss]}"),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as bar:
        task = bar.add_task("training", total=steps, completed=first, loss="")
        yield lambda step, loss: bar.update(task, completed=step, loss=f"{loss:.4g}")
