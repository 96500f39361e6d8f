"""Deliberately wrong implementations, each naming the checks that must catch it.

A mutant is a right object with at most three lines of its code changed. It raises nothing and
returns finite numbers, as the faults of released libraries do. The kit is measured by them: every
mutant must be caught, and every check must catch one (`sdekit verify --mutants`).
"""

from __future__ import annotations

from sdekit.verify.mutants import (
    adaptive,
    audit,
    balance,
    bound,
    chain,
    kernels,
    likelihood,
    model,
    multistep,
    objective,
    plumbing,
    reverse,
    sampler,
    scheduler,
    sde,
    solvers,
    training,
    weighting,
)
from sdekit.verify.mutants._make import Mutant, altered

__all__ = ["MUTANTS", "Mutant", "altered"]

MUTANTS: tuple[Mutant, ...] = (
    *sde.ROWS,
    *kernels.ROWS,
    *reverse.ROWS,
    *chain.ROWS,
    *model.ROWS,
    *sampler.ROWS,
    *solvers.ROWS,
    *multistep.ROWS,
    *balance.ROWS,
    *adaptive.ROWS,
    *scheduler.ROWS,
    *plumbing.ROWS,
    *objective.ROWS,
    *bound.ROWS,
    *likelihood.ROWS,
    *weighting.ROWS,
    *training.ROWS,
    *audit.ROWS,
)
