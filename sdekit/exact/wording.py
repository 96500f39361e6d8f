"""A diagnosis in a sentence: the cause, what it comes from, what it does, and what helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sdekit._check import shown
from sdekit.exact.attribution import ErrorBudget
from sdekit.exact.mends import Case, Mend
from sdekit.model import Moments

if TYPE_CHECKING:
    from sdekit.exact.diagnosis import Diagnosis

__all__ = ["mode_name", "retraining", "sentence", "visible"]

_HELPS = 0.95  # of the error: a mend that leaves more is none
_SMALL = 0.01  # of the data's spread: an error that need not be mended
_ROUNDING = 1e-9  # of the data's size
_TIE = 1e-3  # weights that agree to the digits that are told
_NAMED = 3  # mends that the sentence names


def _why_start(case: Case) -> str:
    t, sde = float(case.times[0]), case.sde
    if case.prior != "standard":
        return f"prior={shown(case.prior)} is not the law of x_T"
    std = sde.prior_std(t)
    prior = "N(0, I)" if std == 1 else f"N(0, {std:.3g}^2 I)"
    if "ve" in sde.kinds:
        much = f"sigma_T is {std:.3g} and the data's spread {_spread(case):.3g}"
    else:
        end = "_T" if t == sde.t_max else ""
        much = f"alpha_bar{end} is {float(sde.alpha(t)) ** 2:.2g}"
    if t < sde.t_max:
        much = f"the grid starts at t = {t:g} and not at {sde.t_max:g}, where {much}"
    return f"{much}, so that {prior} is not the law of x_T"


def _why_steps(case: Case) -> str:
    if "adaptive" in case.sampler.needs:
        return f"the tolerances of {_name(case)} are too coarse"
    steps = "1 step" if case.steps == 1 else f"{case.steps} steps"
    return f"{steps} of {_name(case)} {'is' if case.steps == 1 else 'are'} too few"


def _why_end(case: Case) -> str:
    t = float(case.times[-1])
    return f"the run ends at t = {t:g}, where sigma is still {float(case.sde.sigma(t)):.2g}"


# cause -> what it comes from
_WHY: Mapping[str, Callable[[Case], str]] = {
    "initialisation": _why_start,
    "truncation": _why_end,
    "discretisation": _why_steps,
    "score": lambda case: "the network is not the score",
}


def _name(case: Case) -> str:
    return str(getattr(case.sampler, "catalogue_name", shown(case.sampler)))


def _spread(case: Case) -> float:
    """The root of the data's total variance."""
    law = Moments.of(case.exact.target).as_gaussian()
    return math.sqrt(float(law.spectrum[0].sum()))


def _size(case: Case) -> float:
    """The root mean square of the data, by which rounding is judged: a point has no spread."""
    mean = Moments.of(case.exact.target).as_gaussian().mean
    return math.hypot(_spread(case), float(mean.norm()))


def mode_name(budget: ErrorBudget) -> str:
    """What the mode is called whose weight is told: the large one, or its number of so many."""
    mode, truth = budget.mode, budget.truth
    if mode is None or truth is None:
        return ""
    spread = budget.total.weights_stderr  # samples tell weights apart only so far
    tie = _TIE if spread is None else _TIE + 4 * float(spread[mode])
    unique = int((truth > truth[mode] - tie).sum()) == 1
    return "the large mode" if unique else f"mode {mode + 1} of {len(truth)}"


def retraining(mend: Mend) -> str:
    """A mend's action, and whether it needs another network; a perfect one is one, and says so."""
    return f"retraining with {mend.action}" if _retrained(mend) else mend.action


def _retrained(mend: Mend) -> bool:
    return mend.retrain and "score" not in mend.cause.split("+")


def _measure(budget: ErrorBudget) -> str:
    return "W2" if budget.exact else "sliced W2"


def visible(budget: ErrorBudget) -> bool:
    """Whether the error is more than what samples of one law differ by."""
    noise = math.sqrt(2) * budget.total.stderr  # the floor is a draw too
    return budget.exact or budget.total.w2 - budget.floor > 2 * noise


def sentence(case: Case, found: Diagnosis) -> str:
    """The whole diagnosis, for people."""
    budget, total = found.budget, found.budget.total
    w2, noise = _measure(budget), "" if budget.exact else f" +- {total.stderr:.2g}"
    if not visible(budget):
        return (
            f"No error is to be seen with {case.n} samples: {w2} {total.w2:.3g}{noise}, where "
            f"two sets of true samples are {budget.floor:.3g} apart."
        )
    spread = _spread(case)
    if total.w2 <= _ROUNDING * _size(case):
        return "There is no error: the output has the law of the data."
    reasons = ", and ".join(_WHY[name](case) for name in found.causes)
    names = " and ".join(found.causes)
    if budget.exact and total.w2 < _SMALL * spread:
        share = f"{100 * total.w2 / spread:.2g} % of the data's spread"
        head = f"The error is small, {share}; most of it is {names}: {reasons}"
    elif len(found.causes) > 1:
        head = f"{names.capitalize()} weigh about the same: {reasons}"
    else:
        head = f"{names.capitalize()} is the cause: {reasons}"
    alone = " and ".join(f"{getattr(budget, name).w2:.3g}" for name in found.causes)
    tv = "" if total.tv is None else f", TV {total.tv:.2g}"
    numbers = f"({w2} {alone} alone, {total.w2:.3g}{noise} in all{tv})"
    return f"{head}{_weight_clause(budget)} {numbers}; {_outlook(found)}."


def _weight_clause(budget: ErrorBudget) -> str:
    """The weight of the largest mode, where it is off by enough to show."""
    mode = budget.mode
    if mode is None or budget.truth is None or budget.weights is None:
        return ""
    got, truth = (f"{float(weights[mode]):.3f}" for weights in (budget.weights, budget.truth))
    return "" if got == truth else f", and {mode_name(budget)} gets {got} instead of {truth}"


def _outlook(found: Diagnosis) -> str:
    """What helps, best first, or that nothing does."""
    total, mends = found.budget.total, found.mends
    if not mends:
        return "nothing was found to try"
    better = [
        mend
        for mend in mends
        if mend.w2 < _HELPS * total.w2
        and total.w2 - mend.w2 > 2 * math.hypot(total.stderr, mend.stderr)
    ]
    if not better:
        cancels = found.budget.interaction.w2 < -_HELPS * total.w2
        why = " (the causes cancel in part, and mending one alone lays the other bare)"
        many = len(mends) > 1
        helps = f"none of {len(mends)} mends helps" if many else "what was tried does not help"
        return f"{helps}{why if cancels else ''}: {_told(found, mends[:1])}"
    return _told(found, better[:_NAMED])


def _told(found: Diagnosis, mends: Sequence[Mend]) -> str:
    """What some mends leave: "a would leave W2 1 (the large mode: 0.7), b 2 (0.6)"."""
    mode = found.budget.mode
    parts = []
    for k, mend in enumerate(mends):
        verb = f"would leave {_measure(found.budget)} " if k == 0 else ""
        weight = ""
        if mode is not None and mend.weights is not None:
            label = f"{mode_name(found.budget)}: " if k == 0 else ""
            weight = f" ({label}{float(mend.weights[mode]):.3f})"
        parts.append(f"{retraining(mend)} {verb}{mend.w2:.3g}{weight}")
    perfect = ", retrained networks taken as perfect" if any(map(_retrained, mends)) else ""
    return ", ".join(parts) + perfect
