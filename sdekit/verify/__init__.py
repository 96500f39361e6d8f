"""The public kit that checks the mathematics of any SDE, sampler, model or loss.

    from sdekit.verify import check_sde
    print(check_sde(my_sde))

One list of checks (`CHECKS`) feeds the functions `check_*`, which never stop early and return a
`Report`; `parametrize_with_checks`, which makes one test of pytest of each; and the command
`sdekit verify`. Every check states a claim with its equation and its source; it is told a failure
by the smallest counterexample that Hypothesis finds. `mutants` holds wrong implementations that
the checks must catch, `strategies` what is needed to write more checks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    **dict.fromkeys(["Check", "Finding"], "sdekit.verify.claims"),
    **dict.fromkeys(["Report", "Result"], "sdekit.verify.report"),
    **dict.fromkeys(
        [
            "CHECKS",
            "check",
            "check_likelihood",
            "check_objective",
            "check_sampler",
            "check_sde",
            "checks_for",
        ],
        "sdekit.verify.front",
    ),
    **dict.fromkeys(["Audit", "Audited", "check_model"], "sdekit.verify.audit"),
    "parametrize_with_checks": "sdekit.verify.pytest_front",
    "Matrix": "sdekit.verify.matrix",
    "kill_matrix": "sdekit.verify.matrix",
}
_ROOMS = ("mutants", "odd", "strategies")

__all__ = [*sorted(_HOME), *_ROOMS]  # literal names, sorted once

if TYPE_CHECKING:
    from sdekit.verify.audit import Audit, Audited, check_model
    from sdekit.verify.claims import Check, Finding
    from sdekit.verify.front import (
        CHECKS,
        check,
        check_likelihood,
        check_objective,
        check_sampler,
        check_sde,
        checks_for,
    )
    from sdekit.verify.matrix import Matrix, kill_matrix
    from sdekit.verify.pytest_front import parametrize_with_checks
    from sdekit.verify.report import Report, Result


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, resolved or not."""
    return sorted(__all__)
