"""Claim: distances are symmetric, 0 of a set from itself, blind to shifts, and scale."""

from __future__ import annotations

import pytest
import torch
from metrics_support import DISTANCES, OF_SAMPLES, cheap, normal

from sdekit import make

X, Y = normal(120, 3, 0, mean=0.3, std=1.3), normal(120, 3, 1)
MOVED = torch.tensor([5.0, -7.0, 2.0], dtype=torch.float64)
POWER = {"energy_distance": 0.5, "frechet": 2.0, "mmd": 0.0}
distance = pytest.mark.parametrize("name", DISTANCES)


def value(name, x, y):
    return float(cheap(make("metric", name)).measure(x, y))


@distance
def test_a_set_is_at_0_from_itself_in_any_order(name):
    """The root of what rounding leaves of a difference of means of size 1 is 1e-8."""
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    assert value(name, X, X[order]) < 1e-7


@distance
def test_it_is_symmetric(name):
    """But for the MMD's ruler, which is y's."""
    spelling = "mmd(bandwidth=1.0)" if name == "mmd" else name
    assert value(spelling, X, Y) == pytest.approx(value(spelling, Y, X), rel=1e-9)


@distance
def test_it_grows_as_it_says(name):
    """By the unit: the data's, their root or square; the MMD's ruler grows along."""
    grown = value(name, 4 * X, 4 * Y)
    assert grown == pytest.approx(4 ** POWER.get(name, 1.0) * value(name, X, Y), rel=1e-9)


@pytest.mark.parametrize("name", ["wasserstein", "energy_distance", "mmd(bandwidth=1.0)"])
def test_the_triangle_holds(name):
    z = normal(120, 3, 2, mean=-0.2)
    assert value(name, X, z) <= value(name, X, Y) + value(name, Y, z)


@pytest.mark.parametrize("metric", [m for m in OF_SAMPLES if "modes" not in m.needs], ids=repr)
def test_it_is_blind_to_a_shift_of_all(metric):
    there = cheap(metric).measure(X, Y)
    moved = cheap(metric).measure(X + MOVED, Y + MOVED)
    assert moved == pytest.approx(there, rel=1e-9, abs=1e-12)
    assert moved.stderr == pytest.approx(there.stderr, rel=1e-6)


@pytest.mark.parametrize("name", ["kl", "precision", "recall", "classifier"])
def test_what_compares_distances_is_blind_to_scale(name):
    assert value(name, 4 * X, 4 * Y) == pytest.approx(value(name, X, Y), abs=1e-9)


def test_precision_and_recall_are_each_others_mirror():
    assert value("precision", X, Y) == value("recall", Y, X)
