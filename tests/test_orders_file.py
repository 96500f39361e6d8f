"""Claim: every sampler reaches the order that it declares, on VP, sub-VP and VE, by measurement.

The measurements lie in sdekit/exact/orders.json, written by docs/orders_table.py: each catalogued
example with a declared order is there, and its weak order is at least the declared one less a
tenth. Some are measured again here, all of them in the slow test.
"""

from __future__ import annotations

import json

import pytest
from test_docs import DOCS, script

from sdekit import __version__
from sdekit.cli.listing import ORDERS
from sdekit.exact.order import convergence_order

SHORT = 0.1  # of the declared order: what a finite number of steps may leave
SAME = 0.02  # of a slope: what another machine's rounding may move

TABLE = script("orders_table")
FILE = json.loads(ORDERS.read_text(encoding="utf-8"))
SAMPLERS = {repr(sampler): sampler for sampler in TABLE.measurable()}
DECLARED = {name: s for name, s in SAMPLERS.items() if s.weak_order is not None}


def test_the_file_has_every_sampler_and_no_other():
    assert FILE["version"] == __version__
    assert list(FILE["orders"]) == list(SAMPLERS), "run python docs/orders_table.py --missing"


@pytest.mark.parametrize("name", DECLARED)
def test_the_measured_order_reaches_the_declared_one(name):
    found, sampler = FILE["orders"][name], DECLARED[name]
    served = {k for k, sde in TABLE.SDES.items() if TABLE.serves(sampler, sde)}
    assert set(found) == served
    assert served
    for sde, one in found.items():
        assert one["weak"] >= sampler.weak_order - SHORT, f"{name} on {sde}: {one}"
        low, high = one["interval"]
        assert low <= one["weak"] <= high
        assert 10 <= one["window"][0] < one["window"][1] <= 640


def again(name, sde):
    """A measurement, beside that of the file."""
    found = convergence_order(SAMPLERS[name], TABLE.SDES[sde])
    said = FILE["orders"][name][sde]
    assert abs(found.weak - said["weak"]) < SAME
    assert list(found.window) == said["window"]


@pytest.mark.parametrize(
    ("start", "sde"),
    [
        ("ddim(eta=0", "ve"),
        ("heun(churn=0", "sub_vp"),
        pytest.param("ancestral", "vp", marks=pytest.mark.slow),
    ],
)
def test_some_measured_again(start, sde):
    again(next(name for name in SAMPLERS if name.startswith(start)), sde)


@pytest.mark.slow
@pytest.mark.parametrize("name", DECLARED)
def test_all_measured_again(name):
    for sde in FILE["orders"][name]:
        again(name, sde)


def test_the_page_has_the_table_of_the_file():
    text = (DOCS / "orders.md").read_text(encoding="utf-8")
    assert TABLE.fill(text, "orders", TABLE.orders_table(FILE["orders"])) == text


def test_the_file_is_written_as_it_is_read():
    assert TABLE.as_text(FILE["orders"]) == ORDERS.read_text(encoding="utf-8")
