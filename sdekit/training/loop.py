r"""The loop behind `Trainer.fit`: one step, its guards, and what a resumed run needs.

A block of steps is prepared at once: its rows, times, noise and schedules. After that a step is
the network's call, its gradient, the optimizer and the average.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from sdekit._catalogue import make_one
from sdekit.errors import CheckpointError, ConfigError, ModelError, NonFiniteError, SdekitError
from sdekit.model import Moments, ScoreModel
from sdekit.objectives.base import Objective, clean_samples
from sdekit.training import files
from sdekit.training.average import Average
from sdekit.training.checkpoint import Checkpoint, save_checkpoint
from sdekit.training.data import Source, keyed
from sdekit.training.log import Log
from sdekit.training.spelled import all_finite
from sdekit.training.stop import Stop

if TYPE_CHECKING:
    from sdekit.training.trainer import Trainer

__all__ = ["SCHEDULES", "Run", "Saving", "TrainResult"]

SCHEDULES: Mapping[str, Callable[[float], float]] = {  # of the fraction of the run behind
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "constant": lambda done: 1.0,
}


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a run came to.

    Args:
        model: the model to use: with averaged weights where an average was kept; in eval mode.
        losses: the mean loss of each step [(steps - first_step,)], NaN where it was skipped.
        steps: the number of the last step: all steps of the run, earlier ones included.
        first_step: where this run began: 0, or the step of the checkpoint that it resumed from.
        skipped: steps left out because their loss or gradient was not finite.
        seconds: what the loop took.
        checkpoint: the last checkpoint written, if any.
    """

    model: ScoreModel
    losses: Tensor = field(repr=False)
    steps: int
    first_step: int
    skipped: int
    seconds: float
    checkpoint: Path | None


class Run:
    """One run of a trainer: the model, the optimizer, the average, and how far it is.

    Args:
        trainer: the settings and the model.
        batches: the data.
        steps: the number of steps in all.
    """

    def __init__(self, trainer: Trainer, batches: Source, steps: int) -> None:
        self.trainer, self.batches, self.steps = trainer, batches, steps
        self.model, self.objective = trainer.model, trainer.objective
        self.parameters = trainer.trainable()
        self.optimizer = trainer.make_optimizer()
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = None if trainer.ema is None else Average(self.model, trainer.ema)
        self.step = self.first = self.skipped = 0
        self._device = self.parameters[0].device
        self._dtype = self.parameters[0].dtype
        self._rng: Tensor | None = None  # the network's own randomness, inside a resumed block
        self._measures = False  # whether the model's moments come from this run's data

    # the loop ---------------------------------------------------------------------------------

    def go(
        self,
        stop: Stop,
        save: Saving,
        log: Log,
        log_every: int,
        show: Callable[[int, float], None],
        callback: Callable[[int, float], None] | None,
    ) -> TrainResult:
        """All steps that are left; saves, logs, and ends early on a signal."""
        losses = torch.full((max(0, self.steps - self.first),), math.nan, dtype=torch.float64)
        began, recent, loss, norm = time.monotonic(), [], math.nan, math.nan
        with self._own_randomness():
            for terms in self._terms():
                loss, norm = self._step(terms, save)
                losses[self.step - self.first] = loss
                if not math.isnan(loss):
                    recent.append(loss)
                self.step += 1
                if self.step % 20 == 0 or self.step == self.steps:
                    show(self.step, loss)
                if self.step % log_every == 0 or self.step == self.steps:
                    log.write(
                        step=self.step,
                        loss=math.fsum(recent) / len(recent) if recent else None,
                        lr=self.optimizer.param_groups[0]["lr"],
                        grad_norm=norm,
                        skipped=self.skipped,
                        seconds=round(time.monotonic() - began, 3),
                    )
                    recent.clear()
                if callback is not None:
                    callback(self.step, loss)
                if stop.received is not None:
                    save.now(last=True)
                    raise stop.exception(f"stopped after step {self.step}; saved: {save.path}")
                save.maybe()
            if self.step > self.first:
                save.now(last=True)  # inside: it stores the network's own randomness
        if stop.received is not None:
            raise stop.exception(f"stopped after step {self.step}; saved: {save.path}")
        self.measure()
        return TrainResult(
            model=self.average.model if self.average else self.model,
            losses=losses,
            steps=self.step,
            first_step=self.first,
            skipped=self.skipped,
            seconds=time.monotonic() - began,
            checkpoint=save.path,
        )

    def _terms(self) -> Iterator[list[Tensor]]:
        """The terms of each step's loss, prepared a block at a time."""
        block = self.batches.block
        while self.step < self.steps:
            index = self.step // block
            x0 = clean_samples(self.batches.rows(index).to(self._device, self._dtype))
            generator = keyed(self.trainer.seed, "noise", index, self._device)
            with torch.no_grad():
                size = self.batches.batch_size
                terms = self.objective.prepare_batches(self.model, x0, generator, size)
            self._begin_block(index)
            for k in range(self.step - index * block, min(block, self.steps - index * block)):
                yield [term[k * size : (k + 1) * size] for term in terms]

    def _step(self, terms: list[Tensor], save: Saving) -> tuple[float, float]:
        """One step: the mean loss (NaN where it was skipped) and the gradient's norm."""
        rate = SCHEDULES[self.trainer.schedule](self.step / self.steps)
        warmup = min(self.trainer.warmup, self.steps // 10)
        rate *= min(1.0, (self.step + 1) / max(1, warmup))
        for group, base in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = base * rate  # eq. (1) of trainer.py
        loss = self._loss(terms)
        if not loss.requires_grad:
            raise ConfigError("the loss does not depend on any trainable parameter of the model")
        loss.backward()
        grads = [p.grad for p in self.parameters if p.grad is not None]
        total = get_total_norm(grads, foreach=True)
        value, norm = loss.item(), total.item()
        # before anything takes it in: not the weights, not the optimizer, not the average
        if not (math.isfinite(value) and math.isfinite(norm)):
            self.optimizer.zero_grad()
            self._not_finite(value, norm, save)
            return math.nan, norm
        if self.trainer.clip is not None and norm > self.trainer.clip:
            clip_grads_with_norm_(self.parameters, self.trainer.clip, total, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        return value, norm

    def _loss(self, terms: list[Tensor]) -> Tensor:
        """The mean loss of a batch; a failure of the network's own says in which step."""
        try:
            return self.objective.losses(self.model, *terms).mean()
        except SdekitError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model raised {type(error).__name__} in step {self.step}, on samples of "
                f"shape {tuple(terms[0].shape)}: {error}"
            ) from error

    def _not_finite(self, value: float, norm: float, save: Saving) -> None:
        """Raise, or count a skipped step."""
        self.skipped += 1
        poisoned = [name for name, t in self.model.state_dict().items() if not all_finite(t)]
        allowed = self.trainer.max_skipped if self.trainer.on_nonfinite == "skip" else 0
        if self.skipped > allowed or poisoned:
            held = f"; not finite in the model: {', '.join(poisoned)}" if poisoned else ""
            kept = f"the last checkpoint is {save.path}" if save.path else "no checkpoint yet"
            count = f" ({self.skipped} such steps)" if allowed else ""
            raise NonFiniteError(
                f"at step {self.step} the loss is {value} and the gradient's norm {norm}{count}"
                f"{held}; {kept}"
            )

    # randomness of the network itself (dropout) -----------------------------------------------

    @contextlib.contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Whatever the network draws from torch's global state leaves no trace there."""
        with torch.random.fork_rng(devices=self._cuda()):
            yield

    def _cuda(self) -> list[torch.device]:
        return [self._device] if self._device.type == "cuda" else []

    def _begin_block(self, index: int) -> None:
        """Key the network's randomness by the block too; inside a resumed one it goes on."""
        if self._rng is not None:
            self._set_rng(self._rng)
            self._rng = None
            return
        seed = keyed(self.trainer.seed, "network", index).initial_seed()
        torch.default_generator.manual_seed(seed)
        if self._cuda():
            torch.cuda.manual_seed(seed)

    def _get_rng(self) -> Tensor:
        return torch.cuda.get_rng_state(self._device) if self._cuda() else torch.get_rng_state()

    def _set_rng(self, state: Tensor) -> None:
        if self._cuda():
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)

    # the moments of the data ------------------------------------------------------------------

    def measure(self) -> None:
        """Give the model and its average the data's mean and covariance, but none where it has.

        Those of a stream are known, and better known, as its batches come.
        """
        self._measures = self._measures or self.model.moments is None
        if self._measures:
            self._set_moments(self.batches.moments())

    def _set_moments(self, moments: Moments | None) -> None:
        self.model.moments = moments
        if self.average is not None:
            self.average.model.moments = moments

    # saving and resuming ----------------------------------------------------------------------

    def save(self, folder: Path) -> Path:
        """Write the checkpoint of this step."""
        self.measure()
        return save_checkpoint(
            folder / files.name_of_step(self.step),
            self.model,
            step=self.step,
            ema=self.average.model if self.average else None,
            optimizer=self.optimizer,
            objective=self.objective,
            data=self.batches.description,
            holdout=self.batches.holdout,
            generators={"network": self._get_rng()},
            trainer=self.trainer.settings(),
            state={"skipped": self.skipped, "averaged": self.average.count if self.average else 0},
        )

    def restore(self, found: Checkpoint, override: Collection[str], inexact: bool) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: another configuration; every difference is listed.
        """
        theirs = {**found.config["trainer"], **_parts(found.config)}
        mine = {
            **self.trainer.settings(),
            "objective": repr(self.objective),
            "data": self.batches.description,
            "holdout": self.batches.holdout,
        }
        wrong = [
            f"{key}: {theirs.get(key)!r} stored, {mine[key]!r} now"
            for key in mine
            if key not in override and theirs.get(key) != mine[key]
        ]
        if wrong:
            raise CheckpointError(
                f"{found.path} belongs to another run ({'; '.join(wrong)}); name what may "
                "differ in override",
                kind="incompatible",
            )
        if not self.batches.exact and not inexact:
            raise CheckpointError(
                f"{found.path}: a run on an iterable of batches is not resumable exactly, for its "
                "place in the data is not known; inexact_resume=True begins it anew",
                kind="incompatible",
            )
        if found.state["optimizer"] is None:
            raise CheckpointError(f"{found.path} holds no training state", kind="incompatible")
        self.model.load_state_dict(dict(found.weights))
        self.optimizer.load_state_dict(found.state["optimizer"])
        if self.average is not None:
            weights = found.weights if found.ema_weights is None else found.ema_weights
            self.average.restore(weights, found.state["averaged"])
        if found.moments is not None:
            self._set_moments(found.moments)
        self.step = self.first = found.step
        self.skipped = found.state["skipped"]
        if self.step % self.batches.block:
            self._rng = found.state["generators"]["network"]


class Saving:
    """When checkpoints are written, and which stay.

    Args:
        run: the run.
        folder: the run folder; None: nothing is ever written.
        every: steps between checkpoints; None: only at the end.
        keep: how many stay; None: all.
        on_error: "raise", or "continue" with a warning, where one on the way cannot be written.
    """

    def __init__(
        self, run: Run, folder: Path | None, every: int | None, keep: int | None, on_error: str
    ) -> None:
        self.run, self.folder, self.every = run, folder, every
        self.keep, self.on_error = keep, on_error
        found = files.checkpoints(folder) if folder is not None else []
        self.path: Path | None = found[0][1] if found else None
        self._step = run.first if found else -1

    def maybe(self) -> None:
        """Write a checkpoint where one is due."""
        if self.every is not None and self.run.step % self.every == 0:
            self.now(last=False)

    def now(self, *, last: bool) -> None:
        """Write a checkpoint of this step, unless there is one."""
        if self.folder is None or self._step == self.run.step:
            return
        try:
            self.path = self.run.save(self.folder)
        except CheckpointError as error:
            if last or self.on_error == "raise":
                raise
            message = f"training goes on without this checkpoint: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return
        self._step = self.run.step
        if self.keep is not None:
            for _, path in files.checkpoints(self.folder)[self.keep :]:
                path.unlink(missing_ok=True)


def _parts(config: Mapping[str, Any]) -> dict[str, Any]:
    objective = config.get("objective")
    with contextlib.suppress(SdekitError):  # as it is spelled today, where it was spelled before
        objective = repr(make_one("objective", objective, Objective))
    return {"objective": objective, "data": config.get("data"), "holdout": config.get("holdout")}
