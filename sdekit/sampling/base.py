r"""What a sampler is, and the one loop that all of them run in.

A sampler walks a grid from t_max to t_min. Its two methods are kept apart on purpose:

- `coefficients(sde, grid)` is all that needs no network: float64 columns for the whole grid;
- `step(x, c, model, state, noise)` is arithmetic on tensors, with one row `c` of floats.

So schedules cost nothing in the loop, coefficients can be printed and checked, and a step is
affine in x and in every draw of noise, which is what makes the exact law of a sampler computable.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdekit._check import Checked
from sdekit.errors import DeviceError, ModelError, SdekitError, ShapeError, SolverError
from sdekit.model.prediction import Prediction, Predictor, RawCall, bind, parametrization_of
from sdekit.sampling.noise import Noise
from sdekit.sampling.plan import Plan, plan_for
from sdekit.sde.base import LinearSDE

__all__ = [
    "LARGE",
    "Corrector",
    "CountedModel",
    "Frame",
    "OneKick",
    "Sampler",
    "count_rejected",
    "kick",
    "landing_noise",
]


LARGE = 2**16  # values of a state from which on it is worth a pass to hold one tensor less
_UNSEEN = object()  # no output has passed the full check yet


class Frame:
    """The state of a run after `step` rows.

    Attributes:
        x: the samples [(batch, *dims)]; never changed afterwards.
        t: their time.
        step: the number of rows done.
        nfe: the network calls made so far.
        state: what the sampler carries to the next row.
    """

    __slots__ = ("nfe", "state", "step", "t", "x")

    def __init__(self, x: Tensor, t: float, step: int, nfe: int, state: Any) -> None:
        self.x = x
        self.t = t
        self.step = step
        self.nfe = nfe
        self.state = state


class CountedModel:
    """A model as `step` sees it: called at a float time, counted, its output's shape compared.

    At the first call, and where a shape differs, the output is checked in full.

    Args:
        model: the predictor.
        cond: conditions passed to every call.
        max_nfe: the number of calls after which a run fails; None: no limit.

    Attributes:
        nfe: the calls so far.
        rejected: the proposals that samplers say they have rejected, summed over the samples; a
            tensor, so that counting waits for no device. NaN: a solver that does not tell.
    """

    __slots__ = (
        "_call", "_origin", "_shape", "_tracked", "cond", "limit", "model", "nfe",
        "parametrization", "rejected", "sde",
    )  # fmt: skip

    def __init__(
        self,
        model: Predictor,
        *,
        cond: Mapping[str, Any] | None = None,
        max_nfe: int | None = None,
    ) -> None:
        self.model = model
        self.sde: LinearSDE = model.sde
        self.cond = dict(cond or {})
        self.nfe = 0
        self.rejected: Any = 0
        self.limit = math.inf if max_nfe is None else max_nfe
        self.parametrization = parametrization_of(model)
        self._origin = (self.sde, self.parametrization)
        self._call: RawCall | None = None
        self._shape: object = _UNSEEN
        self._tracked = True

    def prepare(self, x: Tensor, plan: Plan) -> None:
        """Make the time inputs of a plan's calls once, for batches like x."""
        self._call = bind(self.model, x, plan.calls, self.cond)
        self._shape = _UNSEEN
        # inference tensors have no version by which a change in place would show
        self._tracked = not (x.is_inference() or torch.is_inference_mode_enabled())

    def __call__(self, x: Tensor, t: float) -> Prediction:
        """The prediction at x [(batch, *dims)] and one time."""
        raw = self.ask(self._call, x, t)  # type: ignore[arg-type]  # prepared by the loop
        return Prediction(x, raw, t, self._origin)

    def each(self, x: Tensor, t: Tensor) -> Prediction:
        """The prediction at x [(batch, *dims)] and one time a sample [(batch,)].

        Counted and checked as any call; the batch may be a part of the run's, if no conditions
        belong to its samples.
        """
        seen: list[Prediction] = []

        def call(x: Tensor, t: Tensor) -> Tensor:
            seen[:] = [self.model(x, t, **self.cond)]
            return seen[0].raw

        self._shape = _UNSEEN  # the batch may have any size
        self.ask(call, x, t)
        self._shape = _UNSEEN  # and the next call may be at one time again
        return seen[0]

    def ask(self, call: Callable[[Tensor, Any], Tensor], x: Tensor, t: Any) -> Tensor:
        """The raw output of one call, counted and checked; t is a float or one a sample."""
        if self.nfe >= self.limit:
            raise SolverError(f"max_nfe={self.limit} calls are used up at t = {_shown(t)}")
        self.nfe += 1
        version = x._version if self._tracked else 0
        try:
            raw = call(x, t)
        except SdekitError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model raised {type(error).__name__} in call {self.nfe}, at t = "
                f"{_shown(t)}: {error}"
            ) from error
        changed = self._tracked and x._version != version
        if changed or getattr(raw, "shape", None) != self._shape:
            self._inspect(x, raw, changed, t)
        return raw

    def _inspect(self, x: Tensor, raw: object, changed: bool, t: Any) -> None:
        """The full check of a call: at the first one, and where something looks wrong."""
        where = f"in call {self.nfe}, at t = {_shown(t)}"
        if not isinstance(raw, Tensor):
            raise ModelError(f"the model must return a tensor, got {type(raw).__name__} {where}")
        if raw.shape != x.shape:
            raise ShapeError(
                f"the model must return shape {tuple(x.shape)}, got {tuple(raw.shape)} {where}"
            )
        if not raw.dtype.is_floating_point:
            raise ModelError(
                f"the model must return a real floating tensor, got {raw.dtype} {where}"
            )
        if raw.device != x.device:
            raise DeviceError(
                f"the model returned a tensor on {raw.device} for samples on {x.device} {where}"
            )
        if changed:
            raise ModelError(
                f"the model changed its input in place {where}; it must work on a copy"
            )
        self._shape = raw.shape


def count_rejected(model: Any, which: Tensor) -> None:
    """Add the samples whose proposal was rejected [(batch,) bool] to a model's count.

    A stand-in for the counted model, such as a bare function in a loop by hand, has none.
    """
    if hasattr(model, "rejected"):
        model.rejected = model.rejected + which.sum()


def _shown(t: Any) -> str:
    """A time, or the ends of the times of a batch."""
    low, high = (float(t.min()), float(t.max())) if isinstance(t, Tensor) else (t, t)
    return f"{high:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


class Sampler(Checked, ABC):
    """A method that turns noise into samples along a grid.

    Class attributes (or properties) declare what it claims, and checks measure it:

    Attributes:
        order: of convergence in distribution; None for a corrector. Where it is a field, the order
            that a method's name states.
        weak_order: of convergence in distribution, as claimed: `order`, but for a method that
            converges otherwise than its name states.
        nfe_per_step: model calls a row (the last row may take fewer).
        warmup_nfe: calls that the first rows of a run may make beyond those.
        memory: the earlier rows whose predictions a row uses.
        needs: among linear, vp, ve, ddpm (of the SDE), noise, grad, adaptive (of the run),
            fraction (of the model); rejects says that a step may keep the sample as it is.
        exact_on: data on which the law is right at any number of steps: "point", a single point.
    """

    if TYPE_CHECKING:  # a subclass may make each of them a class attribute or a property

        @property
        def order(self) -> int | None:
            """Of convergence in distribution; None for a corrector."""

        @property
        def nfe_per_step(self) -> int:
            """Model calls a row."""

        @property
        def warmup_nfe(self) -> int:
            """Calls of the first rows beyond those."""

        @property
        def memory(self) -> int:
            """The earlier rows whose predictions a row uses."""

        @property
        def needs(self) -> frozenset[str]:
            """Requirements on the SDE and the run."""

        @property
        def exact_on(self) -> frozenset[str]:
            """Data on which the law is right at any number of steps."""
    else:
        order = 1
        nfe_per_step = 1
        warmup_nfe = 0
        memory = 0
        needs = frozenset({"linear"})
        exact_on: frozenset[str] = frozenset()

    @property
    def weak_order(self) -> int | None:
        """Of convergence in distribution, which checks measure."""
        return self.order

    def times(self, sde: LinearSDE, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Where each row starts and ends [(K,), (K,)]."""
        return grid[:-1], grid[1:]

    @abstractmethod
    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Columns for the rows: tensors or arrays (K,) or (K, m), `Mix`, or dicts; float64."""

    @abstractmethod
    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """One row: from c.t to c.s. Returns a new tensor and the next state.

        Args:
            x: the samples [(batch, *dims)]; not to be changed in place.
            c: one row of the plan, floats by the names of the columns.
            model: called as model(x, t).
            state: None at the first row, then what the last row returned.
            noise: a callable noise(x) -> standard normal like x.
        """

    def frames(
        self,
        model: CountedModel,
        x: Tensor,
        grid: Tensor,
        noise: Noise,
        *,
        after: Frame | None = None,
        only: Container[int] | None = None,
    ) -> Iterator[Frame]:
        """The loop: the state before the first row, then the state after every row.

        A sampler with a loop of its own overrides this and needs neither keyword.

        Args:
            model: the counted model.
            x: the samples at grid[0].
            grid: the times.
            noise: the source of noise. If it has a method `enter(t, s)`, it is told of every row
                that begins.
            after: a frame of an earlier run to go on from, instead of x.
            only: the numbers of the rows that the caller wants to see, the last one among them;
                None: all.
        """
        plan = plan_for(self, model.sde, model.parametrization, grid)
        model.prepare(x, plan)
        first = after or Frame(x, float(plan.grid[0]), 0, model.nfe, None)
        yield first
        x, state, done, step = first.x, first.state, first.step, self.step
        if hasattr(noise, "enter"):
            step = _announced(step, noise.enter)
        del first, after  # the start is as large as a state, and nothing needs it any more
        rows = range(done + 1, len(plan.rows) + 1)
        for seen in rows if only is None else [k for k in rows if k in only]:
            for c in plan.rows[done:seen]:
                x, state = step(x, c, model, state, noise)
            yield Frame(x, c.s, seen, model.nfe, state)
            done = seen

    @classmethod
    def examples(cls) -> list[Any]:
        """Instances that tests and benchmarks run over."""
        return [cls()]


def _announced(step: Callable[..., Any], enter: Callable[[float, float], None]) -> Any:
    """The step of a run whose source of noise is told which row begins."""

    def announced(x: Tensor, c: Any, *others: Any) -> tuple[Tensor, Any]:
        enter(c.t, c.s)
        return step(x, c, *others)

    return announced


class OneKick(Sampler):
    """A sampler whose row is one combination of x and the prediction, and one kick of noise.

    Its `coefficients` are the columns `mean`, a `Mix`, and `std`.
    """

    def step(
        self, x: Tensor, c: Any, model: CountedModel, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """c.mean at (x, c.t), plus c.std times noise."""
        return kick(model(x, c.t).mix(c.mean), c.std, noise), state


class Corrector(Sampler):
    """A sampler that stays at one noise level and moves the sample towards that level's law.

    On its own it visits the levels grid[1:]; a `PredictorCorrector` places it before or after its
    predictor. A level with var = 0 is left as it is.
    """

    order = None
    needs = frozenset({"linear", "noise"})

    def times(self, sde: LinearSDE, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Rows that start and end at the same level."""
        return grid[1:], grid[1:]

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """The corrections at grid[1:], each with the level below it as its neighbour."""
        below = torch.cat([grid[2:], grid[-1:]])
        return self.corrections(sde, grid[1:], below)

    @abstractmethod
    def corrections(self, sde: LinearSDE, level: Tensor, below: Tensor) -> dict[str, Any]:
        """Columns for corrections at the times `level` [(K,)]; `below`: the next lower times."""


def kick(y: Tensor, std: float, noise: Noise) -> Tensor:
    """y + std * noise, in place on y, which must be the step's own; no draw where std = 0."""
    if std == 0.0:
        return y
    if y.numel() >= LARGE and hasattr(noise, "add_to"):  # as large as the noise would be
        return noise.add_to(y, std)
    return y.add_(noise(y), alpha=std)


def landing_noise(sde: LinearSDE, s: Tensor, std: Tensor) -> Tensor:
    """The noise of steps that end at s: none where var(s) = 0, where the sample is the data."""
    return std.masked_fill(sde.var(s) == 0, 0.0)
