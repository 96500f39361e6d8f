"""All comparisons with other projects' samplers: one outcome for every case of five files.

The tests hold them to a tolerance; docs/reference_table.py writes them into a page.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import reference_azula
import reference_diffusers
import reference_edm
import reference_kdiffusion
import reference_official
from reference_support import Outcome

__all__ = ["MODULES", "Counts", "counts", "outcome", "outcomes"]

MODULES = {
    module.FILE: module
    for module in (
        reference_diffusers, reference_kdiffusion, reference_edm, reference_official,
        reference_azula,
    )
}  # fmt: skip


class Counts(NamedTuple):
    """How the cases of a file fell out."""

    reproduced: int  # by sdekit's samplers as they are
    adapted: int  # after a formula of the source was put in place of sdekit's
    missing: int
    outside: int  # nothing that a sampler, a grid or a table could reproduce


@cache
def outcome(file: str, name: str, reference) -> Outcome:
    """The outcome of one case."""
    return MODULES[file].outcome(reference.load(file).case(name), reference)


def outcomes(file: str, reference) -> dict[str, Outcome]:
    """Those of a file, by the names of its cases."""
    return {
        case["case"]: outcome(file, case["case"], reference) for case in reference.load(file).cases
    }


def counts(found: dict[str, Outcome]) -> Counts:
    """Every case is in one of the four."""
    all_ = list(found.values())
    outside = sum(o.outside for o in all_)
    missing = sum(o.error is None for o in all_) - outside
    adapted = sum(o.adapted for o in all_)
    return Counts(len(all_) - outside - missing - adapted, adapted, missing, outside)
