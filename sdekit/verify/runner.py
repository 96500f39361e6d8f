"""One check on one subject: its cases drawn and shrunk by Hypothesis, its verdict a `Result`.

Hypothesis gets the seed, keeps no database, and reads no profile: the same seed asks the same
cases wherever it runs. An exception of the subject's is a failure of the check that met it.
"""

from __future__ import annotations

import inspect
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, settings

from sdekit.verify.claims import Check, Finding, Skip
from sdekit.verify.report import Result
from sdekit.verify.statistics import retested
from sdekit.verify.wording import rounded

__all__ = ["EXAMPLES", "Asked", "run"]

EXAMPLES = 24  # cases a check, unless said otherwise
_DEAR = 0.3  # of them, where a run costs a hundred calls


@dataclass(frozen=True)
class Asked:
    """How checks are run.

    Attributes:
        examples: cases a check.
        seed: of the cases and draws.
        shrink: whether a counterexample is made as small as it gets.
    """

    examples: int = EXAMPLES
    seed: int = 0
    shrink: bool = True


class _Refuted(Exception):  # it never leaves this module
    """A case that the claim does not survive."""


def run(check: Check, subject: Any, label: str, asked: Asked, reproduce: str) -> Result:
    """The result of one check.

    Args:
        check: the check.
        subject: an object of its kind, adapted.
        label: how the subject is called.
        asked: how.
        reproduce: a line that asks this check alone.
    """
    about: dict[str, Any] = {
        "name": check.name, "subject": label, "claim": check.claim, "source": check.source,
        "seed": asked.seed,
    }  # fmt: skip
    start = time.perf_counter()
    reason = check.lacks(subject)
    if reason:
        return Result(status="skipped", reason=reason, **about)
    try:
        with warnings.catch_warnings():
            # a stranger may take float(t) of a time that carries a gradient
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
            found, example, count = _found(check, subject, asked)
    except Skip as why:
        return Result(
            status="skipped", reason=str(why), seconds=time.perf_counter() - start, **about
        )
    return Result(
        status="passed" if found.ok else "failed",
        measured=found.measured,
        threshold=found.threshold,
        says=found.says,
        example="" if found.ok else example,
        reproduce="" if found.ok else reproduce,
        examples=count,
        seconds=time.perf_counter() - start,
        **about,
    )


def _found(check: Check, subject: Any, asked: Asked) -> tuple[Finding, str, int]:
    """The worst finding (the smallest refuting one), its case in words, the number of cases."""
    if check.statistical:

        def p_value(n: int, seed: int) -> float:
            generator = torch.Generator().manual_seed(seed % 2**63)
            return float(check.measure(subject, n, generator))

        return _guarded(lambda: retested(p_value, seed=asked.seed)), "", 1
    if check.cases is None:
        return _guarded(lambda: check.measure(subject)), "", 1
    return _over_cases(check, subject, asked)


def _guarded(measure: Callable[[], Finding]) -> Finding:
    """The finding, or the one that says what was raised."""
    try:
        return measure()
    except Skip:
        raise
    except Exception as error:
        return Finding(math.inf, 0.0, f"it raised {type(error).__name__}: {error}")


def _over_cases(check: Check, subject: Any, asked: Asked) -> tuple[Finding, str, int]:
    assert check.cases is not None
    worst: Finding | None = None
    refuted: tuple[Finding, str] | None = None
    skipped: Skip | None = None
    count = 0

    name = list(inspect.signature(check.measure).parameters)[1]

    def one(case: Any) -> None:
        nonlocal worst, refuted, skipped, count
        count += 1
        try:
            found = _guarded(lambda: check.measure(subject, case))
        except Skip as why:  # of this case; other cases may be asked
            skipped = why
            return
        if not found.ok:
            refuted = found, _in_words(case if isinstance(case, dict) else {name: case})
            raise _Refuted
        if worst is None or _badness(found) > _badness(worst):
            worst = found

    dear = _DEAR if "adaptive" in getattr(subject, "needs", ()) else 1.0
    phases = (Phase.explicit, Phase.generate, *((Phase.shrink,) if asked.shrink else ()))
    test = settings(
        max_examples=max(1, math.ceil(asked.examples * check.share * dear)),
        database=None, deadline=None, phases=phases, derandomize=False, print_blob=False,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )(hypothesis.seed(asked.seed)(hypothesis.given(check.cases(subject))(one)))  # fmt: skip
    try:
        test()
    except _Refuted:
        assert refuted is not None
        return *refuted, count
    if worst is None:
        raise skipped or Skip("no case could be asked")
    return worst, "", count


def _badness(found: Finding) -> float:
    """How near a finding is to refuting its claim."""
    if found.at_least:
        return found.threshold - found.measured
    return found.measured / found.threshold if found.threshold else found.measured


def _in_words(case: Any) -> str:
    """A case as `t = [0.37], eta = 0.5`."""
    if isinstance(case, dict):
        return ", ".join(f"{name} = {_in_words(value)}" for name, value in case.items())
    if isinstance(case, list | tuple):
        return f"[{', '.join(map(_in_words, case))}]"
    return rounded(case)
