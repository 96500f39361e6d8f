r"""What can be done about each cause of an error: one table of changes, each of which can be run.

Of a *case*, one way of sampling, every mend yields changes: another prior, grid or number of
steps, another process. A process cannot be changed under a trained network: such a change is
measured with the exact score, that is, with a perfect network.

References: Lin et al., arXiv:2305.08891, algorithm 1 (zero terminal SNR); Ho et al.,
arXiv:2006.11239, section 4 (the chain whose end counts as forgotten).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.errors import SdekitError
from sdekit.exact.laws import laws_for
from sdekit.model import ExactScore, Predictor
from sdekit.sampling.base import Sampler
from sdekit.sampling.grid import Grid, resolve_grid
from sdekit.sde.base import LinearSDE
from sdekit.targets import Target

__all__ = ["MENDS", "Case", "Changes", "Mend"]

_TRUE = "true x_T"
_FORGOTTEN = 10.1  # -log alpha_bar_T of Ho et al.'s chain of 1000 steps
_LEAST_SNR = 1e-8  # alpha_bar_T that stands for 0, which no chain of betas < 1 reaches

Changes = dict[str, Any]


class Mend(NamedTuple):
    """A change that was tried, and what it leaves.

    Attributes:
        action: the change, as an argument where it is one.
        cause: what it is meant to mend; two joined by "+".
        w2: the W2 to the data with it (sliced where the budget is).
        stderr: its standard error; 0 where it is exact.
        weights: the weights of the modes with it [(k,)], or None.
        retrain: whether it needs another network; `w2` is then that of the exact score.
    """

    action: str
    cause: str
    w2: float
    stderr: float
    weights: Tensor | None
    retrain: bool


@dataclass(frozen=True, eq=False)
class Case:
    """A way of sampling."""

    sampler: Sampler
    model: Predictor
    exact: ExactScore
    times: Tensor
    steps: int
    grid: str | Grid | Tensor
    prior: str | Target
    denoise: bool
    method: str
    n: int
    seed: int

    @property
    def sde(self) -> LinearSDE:
        """The process."""
        return self.exact.sde

    @property
    def learned(self) -> bool:
        """Whether the model is a network."""
        return not isinstance(self.model, ExactScore)

    @property
    def cost(self) -> float:
        """Model calls on a law, in units of one that pushes a density through noise."""
        line = 1.0 if "noise" in self.sampler.needs else 0.5
        one = {"gaussian": 0.1, "line": line, "samples": self.n / 20_000}[self.method]
        return self.steps * max(self.sampler.nfe_per_step, 1) * one

    def varied(self, changes: Changes) -> Case:
        """The case with changes; another process has the exact score."""
        changes = dict(changes)
        sde = changes.pop("sde", None)
        if sde is not None:
            exact = ExactScore(self.exact.target, sde)
            changes |= {"model": exact, "exact": exact}
        return replace(self, **changes)

    def mended(self, action: str, cause: str, changes: Changes) -> Mend:
        """What a change leaves.

        Raises:
            SdekitError: the case cannot be run with it.
        """
        case = self.varied(changes)
        steps = None if isinstance(case.grid, Tensor) else case.steps
        settings = {"steps": steps, "grid": case.grid, "denoise": case.denoise}
        ways = laws_for("auto", case.sampler, case.exact, settings, case.n, case.seed)
        laws = next(found for found in ways if found.name == case.method)
        prior = laws.true_start() if case.prior == _TRUE else case.prior
        law = laws.output(case.model, prior)
        w2, stderr = laws.distance(law, laws.data())
        return Mend(
            action, cause, w2, stderr, laws.weights(law), self.learned and not case.learned
        )


# the mends: each yields changes and their names -------------------------------------------------

Proposals = Iterator[tuple[str, Changes]]


def _spelled(sde: LinearSDE) -> tuple[str, dict[str, Any]] | None:
    """The name and the fields that a process is spelled with; None where it is not."""
    name = getattr(sde, "catalogue_name", "")
    if not name or not repr(sde).startswith(f"{name}("):
        return None
    call = ast.parse(repr(sde), mode="eval").body
    assert isinstance(call, ast.Call)
    given = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    quiet = {f.name: getattr(sde, f.name) for f in fields(sde) if f.name in ("t_min", "t_max")}
    return name, {**quiet, **given}


def _field(
    name: str, new: Callable[[Case, float], float | None], note: str = ""
) -> Callable[[Case], Proposals]:
    """Another value of one field of the process, where it has that field."""

    def propose(case: Case) -> Proposals:
        known = _spelled(case.sde)
        if known is None or name not in known[1]:
            return
        old = known[1][name]
        value = new(case, old)
        if value is None:
            return
        value = type(old)(float(f"{value:.3g}"))
        sde = catalogue("sde")[known[0]].make(**{**known[1], name: value})
        yield f"{name}={value:g}{note.format(steps=case.steps)}", {"sde": sde}

    return propose


def _decay(case: Case) -> float:
    """By how much log alpha_bar_T must grow."""
    minus_log = -2 * float(case.sde.log_alpha(case.sde.t_max))
    return max(2.0, float(f"{_FORGOTTEN / minus_log:.2g}")) if minus_log > 0 else 2.0


def _matched(case: Case) -> Proposals:
    if case.prior != "matched":
        yield "prior='matched'", {"prior": "matched"}


def _true_start(case: Case) -> Proposals:
    yield "the true x_T (noised data) as start", {"prior": _TRUE}


def _zero_terminal(case: Case) -> Proposals:
    """The table shifted and scaled in sqrt(alpha_bar) to end at 0, arXiv:2305.08891, alg. 1."""
    bars = getattr(case.sde, "alphas_bar", None)
    if bars is None or len(bars) < 2 or float(bars[-1]) <= _LEAST_SNR:
        return
    root = bars.sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    root[-1] = math.sqrt(_LEAST_SNR)
    kept = torch.cat([torch.ones(1, dtype=torch.float64), root.square()])
    betas = 1 - kept[1:] / kept[:-1]
    if bool((betas > 0).all()):
        make: Any = type(case.sde)
        yield "zero terminal SNR", {"sde": make(betas)}


def _finer_chain(case: Case) -> Proposals:
    """Twice the steps with half the betas: the same ends."""
    known = _spelled(case.sde)
    if known is None or case.steps < case.sde.default_steps or "n" not in known[1]:
        return
    name, old = known
    halved = {key: value / 2 for key, value in old.items() if key.startswith("beta_")}
    if halved:
        sde = catalogue("sde")[name].make(**{**old, **halved, "n": 2 * old["n"]})
        yield f"a chain of {2 * old['n']} steps with half the betas", {
            "sde": sde, "steps": sde.default_steps,
        }  # fmt: skip


def _twice(case: Case) -> Proposals:
    most = case.sde.default_steps if "ddpm" in case.sde.kinds else 2 * case.steps
    steps = min(2 * case.steps, most)
    if steps == case.steps or "adaptive" in case.sampler.needs:
        return
    changes: Changes = {"steps": steps}
    if isinstance(case.grid, Tensor):
        middle = (case.times[1:] + case.times[:-1]) / 2
        both = torch.cat([case.times, middle]).sort(descending=True).values
        changes["grid"] = case.sde.align(both, keep=True)
    yield f"{steps} steps", changes


def _tolerances(case: Case) -> Proposals:
    """A hundredth of the tolerances of an adaptive sampler."""
    sampler: Any = case.sampler
    if "adaptive" in sampler.needs and hasattr(sampler, "rtol"):
        finer = replace(sampler, rtol=sampler.rtol / 100, atol=sampler.atol / 100)
        yield f"rtol={finer.rtol:g}, atol={finer.atol:g}", {"sampler": finer}


def _grids(case: Case) -> Proposals:
    """The named grids that place the same number of steps otherwise."""
    seen = [case.times]
    for name in () if "adaptive" in case.sampler.needs else catalogue("grid"):
        try:
            times = resolve_grid(name, case.sde, case.steps)
        except SdekitError:  # a spacing of chains, or too few steps for this grid
            continue
        if not any(len(times) == len(t) and bool(torch.allclose(times, t)) for t in seen):
            seen.append(times)
            yield f"grid={name!r}", {"grid": name}


def _late_grids(case: Case) -> Proposals:
    """Grids that start at t_max, where this one does not."""
    if float(case.times[0]) < case.sde.t_max:
        for action, changes in _grids(case):
            start = resolve_grid(changes["grid"], case.sde, case.steps)[0]
            if float(start) == case.sde.t_max:
                yield action, changes


def _denoised(case: Case) -> Proposals:
    if not case.denoise and float(case.sde.var(float(case.times[-1]))) > 0:
        yield "denoise=True", {"denoise": True}


def _perfect(case: Case) -> Proposals:
    yield "a perfect network", {"model": case.exact}


# what can be done about each cause; the first ones are tried first where time is short
MENDS: tuple[tuple[str, Callable[[Case], Proposals]], ...] = (
    ("initialisation", _matched),
    ("initialisation", _true_start),
    ("initialisation", _late_grids),
    ("initialisation", _field("beta_end", lambda c, v: min(v * _decay(c), 0.9))),
    ("initialisation", _field("beta_max", lambda c, v: v * _decay(c))),
    ("initialisation", _field("sigma_max", lambda c, v: 4 * v)),
    ("initialisation", _field("t_max", lambda c, v: 1 - (1 - v) / 10 if 0.9 < v < 1 else None)),
    ("initialisation", _zero_terminal),
    ("initialisation", _field("n", lambda c, v: v * _decay(c), " in the same {steps} steps")),
    ("discretisation", _twice),
    ("discretisation", _tolerances),
    ("discretisation", _grids),
    ("discretisation", _finer_chain),
    ("truncation", _denoised),
    ("truncation", _field("t_min", lambda c, v: v / 10 if v > 0 else None)),
    ("truncation", _field("sigma_min", lambda c, v: v / 10)),
    ("score", _perfect),
)
