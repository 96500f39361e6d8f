"""Claim: everything in the catalogue, and every odd but valid object, passes the public kit.

Each check of each example is a test of its own: the suite's own mathematics of SDEs, chains,
parametrisations, predictors, targets, samplers, grids, noise, losses and averages is the kit's.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from sdekit._catalogue import catalogue
from sdekit.sampling import AdaptiveSDE
from sdekit.verify import CHECKS, check, checks_for, odd, parametrize_with_checks, strategies
from sdekit.verify.claims import Skip
from sdekit.verify.front import everything, subject_of

FEW = 2  # cases a check; `sdekit verify` asks 24
LONG = {"declared_order", "any_number_of_steps"}  # hundreds of runs; 1000 steps
FIRST = [entry.examples()[0] for entry in catalogue("sampler").values()]
# the fast suite asks two of each sampler, but for a default of hundreds of calls a run
LATER = [
    AdaptiveSDE(),
    *(one for entry in catalogue("sampler").values() for one in entry.examples()[2:]),
]


def marks(thing, one):
    """What takes long is slow; limits are asked of the first example of a sampler.

    Orders are on file, which the fast suite reads, and test_sampling_runs takes 1000 steps.
    """
    long = one.name in LONG or (one.name == "limit_law" and thing not in FIRST)
    long = long or (one.name == "point_data" and "adaptive" in getattr(thing, "needs", ()))
    return pytest.mark.slow if long or thing in LATER else ()


def odd_marks(thing, one):
    """Quantiles along the flow are asked of the odd processes by the slow suite."""
    return pytest.mark.slow if one.name in {*LONG, "limit_law", "flow_keeps_quantiles"} else ()


@parametrize_with_checks(everything(), max_examples=FEW, marks=marks)
def test_the_catalogue(check):
    check()


@parametrize_with_checks({**odd.SDES, **odd.SAMPLERS}, max_examples=FEW, marks=odd_marks)
def test_odd_but_valid(check):
    check()


@settings(max_examples=25)
@given(data=st.data())
def test_drawn_processes(data):
    """Every exact check of SDEs, on processes of any family with any parameters."""
    sde = data.draw(strategies.sdes(), label="sde")
    for one in checks_for(sde):
        if one.lacks(sde) or one.statistical or one.cost != "instant":
            continue
        case = () if one.cases is None else (data.draw(one.cases(sde), label=one.name),)
        try:
            found = one.measure(sde, *case)
        except Skip:
            continue
        assert found.ok, f"{one.name} of {sde!r}: {found.says}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("thing", [*everything(), *odd.SDES.values(), *odd.SAMPLERS.values()])
def test_no_false_alarm_under_other_seeds(thing, seed):
    report = check(thing, seed=seed)
    assert report.ok, str(report)


def test_every_example_that_can_be_checked_is():
    """Kinds without checks are named here, with the reason in the issue that adds them."""
    kinds = {subject.kind for subject in everything()}
    for kind in ("sde", "parametrization", "sampler", "grid", "objective", "weighting", "time"):
        assert kind in kinds
        asked = sum(subject.kind == kind for subject in everything())
        assert asked == sum(len(entry.examples()) for entry in catalogue(kind).values())
    assert len(CHECKS) >= 40


def test_at_least_twenty_odd_objects():
    assert len(odd.SDES) + len(odd.SAMPLERS) >= 20
    assert {subject_of(thing).kind for thing in odd.SDES.values()} == {"sde"}
    assert {subject_of(thing).kind for thing in odd.SAMPLERS.values()} == {"sampler"}
