r"""Why samples are wrong, and what would mend it: the error budget, and mends that were run.

`attribute_error` says which of the four causes weighs most. For that cause, and for a second one
that weighs nearly as much, every mend of one table is tried: the whole run is repeated with one
thing changed, on the same kind of law as the budget (exact where that is), and its distance W2 to
the data says what the mend is worth. Nothing is predicted: a mend that makes it worse is seen to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sdekit._catalogue import make_one
from sdekit.errors import SdekitError
from sdekit.exact.attribution import CAUSES, ErrorBudget, attribute_error
from sdekit.exact.mends import MENDS, Case, Changes, Mend
from sdekit.exact.wording import retraining, sentence, visible
from sdekit.model import ExactScore, Predictor
from sdekit.sampling.base import Sampler
from sdekit.sampling.grid import Grid, resolve_grid
from sdekit.targets import Target

__all__ = ["Diagnosis", "Mend", "diagnose"]

_CLOSE = 0.7  # of the largest cause: a second one of this size counts as well
_ROWS = 400  # model calls on a law that all mends together may take
_LEFT_OUT = "left out to save time; it can be tried by itself"


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The error budget, the causes that matter, and what was tried.

    Attributes:
        budget: the attribution.
        causes: the dominant cause, and one nearly as large where there is one.
        mends: what was tried, the least W2 first; nothing where samples show no error.
        not_tried: mends that were not run, with the reason.
        sentence: all of it in a sentence.
    """

    budget: ErrorBudget
    causes: tuple[str, ...]
    mends: tuple[Mend, ...]
    not_tried: Mapping[str, str]
    sentence: str

    @property
    def cause(self) -> str:
        """The dominant cause."""
        return self.causes[0]

    def to_json(self) -> dict[str, Any]:
        """Every number, in plain Python; an infinite one, which JSON has not, as text."""
        mends = [
            {**mend._asdict(), "weights": None if mend.weights is None else mend.weights.tolist()}
            for mend in self.mends
        ]
        found = {
            **self.budget.to_json(),
            "causes": list(self.causes),
            "mends": mends,
            "not_tried": dict(self.not_tried),
            "sentence": self.sentence,
        }
        return _finite(found)

    def __str__(self) -> str:
        """The table of causes, that of mends, and the sentence."""
        mode = self.budget.mode
        rows = [
            [
                retraining(mend),
                f"{mend.w2:.4f}" + (f" +- {mend.stderr:.2g}" if mend.stderr else ""),
                "" if mend.weights is None or mode is None else f"{float(mend.weights[mode]):.4f}",
            ]
            for mend in self.mends
        ]
        w2 = "W2" if self.budget.exact else "sliced W2"
        heads = ["with", w2, "" if mode is None else "weight"]
        widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(3)]
        lines = [
            f"{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}".rstrip()
            for row in [heads, *rows]
        ]
        parts = [str(self.budget), *(["\n".join(lines)] if rows else []), self.sentence]
        return "\n\n".join(parts)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def diagnose(
    sampler: str | Sampler,
    model: Predictor,
    target: Target | None = None,
    *,
    steps: int | None = None,
    grid: str | Grid | Tensor = "uniform",
    prior: str | Target = "standard",
    denoise: bool = False,
    method: str = "auto",
    n: int = 20_000,
    seed: int = 0,
    callback: Callable[[int, int, str], object] | None = None,
) -> Diagnosis:
    """Attribute the error of a sampler's output, and measure what would mend its main cause.

    Args:
        sampler: a sampler, or the spelling of one.
        model: what is sampled from: an `ExactScore`, or a network.
        target: the law of the data, in closed form; by default the model's own target.
        steps: as for `sample`.
        grid: as for `sample`.
        prior: as for `sample`.
        denoise: as for `sample`.
        method: as for `attribute_error`.
        n: how many samples, where they are drawn.
        seed: of the samples.
        callback: called with (done, of, what) before every mend.

    Raises:
        DtypeError, NotAffine, ConfigError, ShapeError, TimeError: as for `attribute_error`.

    Example:
        >>> from sdekit import DDPM, ExactScore, Gaussian
        >>> found = diagnose("ddim", ExactScore(Gaussian([1.0, -1.0], 0.5), DDPM.linear(100)))
        >>> found.cause, found.mends[0].action  # on Gaussian data the matched prior is exact
        ('initialisation', "prior='matched'")
    """
    budget = attribute_error(
        sampler, model, target, steps=steps, grid=grid, prior=prior, denoise=denoise,
        method=method, n=n, seed=seed,
    )  # fmt: skip
    law: Any = getattr(model, "target", None) if target is None else target
    exact = ExactScore(law, model.sde)
    times = resolve_grid(grid, model.sde, steps)
    case = Case(
        make_one("sampler", sampler, Sampler), model, exact, times, len(times) - 1, grid, prior,
        denoise, budget.method, n, seed,
    )  # fmt: skip
    causes = _causes(budget)
    mends, not_tried = _tried(case, causes, callback) if visible(budget) else ([], {})
    found = Diagnosis(budget, causes, tuple(mends), not_tried, "")
    return replace(found, sentence=sentence(case, found))


def _causes(budget: ErrorBudget) -> tuple[str, ...]:
    """The largest cause, and the second where it is nearly as large, and not noise."""

    def size(name: str) -> float:  # what two sets of true samples would show as well is nothing
        return max(getattr(budget, name).w2 - budget.floor, 0.0)

    first, second, *_ = sorted(CAUSES, key=lambda name: -getattr(budget, name).w2)
    errors = [getattr(budget, name).stderr for name in (first, second)]
    near = size(second) + 2 * math.hypot(*errors) >= _CLOSE * size(first)
    return (first, second) if near and size(second) > 2 * errors[1] else (first,)


def _tried(
    case: Case, causes: tuple[str, ...], callback: Callable[[int, int, str], object] | None
) -> tuple[list[Mend], dict[str, str]]:
    """The mends of some causes, best first, and why others were not run."""
    proposals = [
        (action, cause, changes)
        for cause, propose in MENDS
        if cause in causes
        for action, changes in propose(case)
    ]
    found: list[tuple[Mend, Changes]] = []
    left = max(_ROWS, 2 * case.cost)
    not_tried: dict[str, str] = {}

    def attempt(action: str, cause: str, changes: Changes) -> None:
        nonlocal left
        cost = case.varied(changes).cost
        if cost > left:
            not_tried[action] = _LEFT_OUT
            return
        left -= cost
        try:
            found.append((case.mended(action, cause, changes), changes))
        except SdekitError as error:
            not_tried[action] = str(error)

    seen = [action for action, _, _ in proposals]
    proposals = [p for k, p in enumerate(proposals) if seen.index(p[0]) == k]  # for two causes
    for done, (action, cause, changes) in enumerate(proposals):
        if callback is not None:
            callback(done, len(proposals), action)
        attempt(action, cause, changes)
    # two causes may hide each other: both are mended at once, in the way that is tried first
    firsts = [f for cause in causes for f in [f for f in found if f[0].cause == cause][:1]]
    if len(firsts) == 2:
        (one, changes), (other, more) = firsts
        attempt(f"{one.action} and {other.action}", "+".join(causes), {**more, **changes})
    return sorted((mend for mend, _ in found), key=lambda mend: mend.w2), not_tried
