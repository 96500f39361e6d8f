"""Claim: winners, fronts and orders are those that the rows support, and no surer than they are.

Every function is compared with an example worked out by hand; what it claims of probabilities is
replayed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from compare_support import SDES, row, sampled
from scipy import stats

from sdekit.compare.analysis import budgets_of, front, slopes, winners
from sdekit.compare.paired import Pairs, difference, holm
from sdekit.errors import ConfigError


def entrants(values, *, calls=10.0, **given):
    """One row of each sampler s0, s1, ... from its values by seed."""
    return [
        sampled(list(v), sampler=f"s{k}()", calls=calls, cell=f"{k:012x}", **given)
        for k, v in enumerate(values)
    ]


def test_a_paired_difference_is_that_of_the_t_test():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 7))
    found = difference(*entrants([a, b]))
    known = stats.ttest_rel(a, b)
    low, high = known.confidence_interval(0.95)
    assert found.how == "paired"
    assert found.pairs == 7
    assert found.p == pytest.approx(known.pvalue, rel=1e-12)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(a - b), low, high))


def test_pairs_are_seeds_not_places():
    a, b = entrants([[1.0, 2.0, 4.0], [2.1, 4.2, 1.3]])
    a, b = {**a, "seeds": [0, 1, 2]}, {**b, "seeds": [1, 2, 9]}
    found = difference(a, b)  # seeds 1 and 2: 2 - 2.1 and 4 - 4.2
    assert found.pairs == 2
    assert found.mean == pytest.approx(-0.15)
    half = stats.t.ppf(0.975, 1) * 0.05
    assert (found.low, found.high) == pytest.approx((-0.15 - half, -0.15 + half))


def test_without_common_seeds_the_standard_errors_decide():
    a = row(value=1.0, stderr=0.3, seeds=[0], values=[1.0])
    b = row(value=2.0, stderr=0.4, seeds=[1], values=[2.0])
    found = difference(a, b)
    assert (found.how, found.pairs) == ("unpaired", 0)
    assert found.p == pytest.approx(2 * stats.norm.sf(2.0))  # 1 / hypot(0.3, 0.4)
    assert found.high == pytest.approx(-1 + 1.959963984540054 * 0.5)


def test_with_one_seed_and_no_standard_error_nothing_is_known():
    rows = [row(sampler=s, value=v, values=[v]) for s, v in (("a()", 1.0), ("b()", 2.0))]
    found = difference(*rows)
    assert (found.how, found.p, found.low) == ("not known", None, None)
    won = winners(rows)[0]
    assert won.row["sampler"] == "a()"
    assert not won.rivals[0].distinguishable
    assert won.p is None
    assert won.smallest_p is None


def test_exact_values_are_sure_unless_they_are_the_same():
    rows = [
        row(sampler=f"s{k}()", value=v, exact=True, stderr=0.0, seeds=[])
        for k, v in enumerate((0.2, 0.2 * (1 + 1e-13), 0.2001))
    ]
    won = winners(rows)[0]
    assert [r.row["sampler"] for r in won.equals] == ["s1()"]
    assert won.rivals[1].difference.mean == pytest.approx(0.0001)


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_definition(seed):
    """Reject in order while p_(r) <= level / (m - r + 1): the same set at every level."""
    p = np.random.default_rng(seed).uniform(size=9) ** 3
    adjusted = np.array(holm(p.tolist()))
    for level in (0.01, 0.05, 0.2, 0.7):
        rejected = set()
        for rank, k in enumerate(np.argsort(p)):
            if p[k] > level / (len(p) - rank):
                break
            rejected.add(int(k))
        assert set(np.flatnonzero(adjusted <= level).tolist()) == rejected


def test_equal_samplers_are_told_apart_in_one_of_twenty_experiments_at_most():
    """The winner is chosen by the same data; of 400 replays, 5 % + 3 standard errors may err."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(400):
        common = rng.normal(size=30)
        won = winners(entrants(10 + common + 0.3 * rng.normal(size=(8, 30))))[0]
        wrong += len(won.equals) < 7
    assert wrong <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


def test_a_correction_for_the_rivals_alone_would_not_do():
    """What the module says of k - 1: it errs more than one replay in twenty."""
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(400):
        rows = entrants(10 + 0.3 * rng.normal(size=(8, 30)))
        rows.sort(key=lambda r: r["value"])
        wrong += min(holm(Pairs(rows).p[0, 1:].tolist())) <= 0.05
    assert wrong > 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


def test_intervals_of_differences_cover():
    """95 +- 3 % in 2000 replays, of differences that common noise makes small."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(2000):
        common = rng.normal(size=5)
        rows = entrants([1.0 + common + 0.1 * rng.normal(size=5) for _ in range(2)])
        found = difference(*rows)
        inside += found.low <= 0.0 <= found.high
    assert abs(inside / 2000 - 0.95) <= 0.03


def test_common_noise_tells_apart_what_independent_noise_does_not():
    rng = np.random.default_rng(6)
    common = rng.normal(size=8)
    rows = entrants([1 + common, 1.2 + common + 0.01 * rng.normal(size=8)])
    won = winners(rows)[0]
    assert not won.equals
    apart = [{**r, "seeds": [k] * 8} for k, r in enumerate(rows)]  # as if nothing were common
    assert winners(apart)[0].equals


def test_an_entrant_stands_for_its_most_calls_not_its_luckiest_row():
    few, many = (
        sampled([v, v + 0.1], sampler="a()", calls=c) for v, c in ((1.0, 5.0), (3.0, 9.0))
    )
    rival = sampled([2.0, 2.1], sampler="b()", calls=8.0)
    found = {w.budget: w for w in winners([few, many, rival], [4, 5, 8, 9])}
    assert 4 not in found  # nothing runs in four calls
    assert found[5].row is few
    assert found[5].left_out == 1
    assert found[8].row is few
    assert found[9].row is rival


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_finite_never_ranks(bad):
    worse = row(sampler="b()", value=2.0)
    rows = [
        row(sampler="a()", value=bad),
        worse,
        row(sampler="c()", value=1.0, status="FAILED"),
        row(sampler="d()", value=0.5, status="n/a"),
        row(sampler="e()", value=0.1, calls=None),
    ]
    won = winners(rows)
    assert [w.row for w in won] == [worse]
    assert won[0].left_out == 4
    assert [f.on for f in front(rows)] == [(worse,)]


def test_larger_is_better_where_the_metric_says_so():
    rows = [row(sampler=f"s{k}()", value=v, better="larger") for k, v in enumerate((0.5, 0.9))]
    assert winners(rows)[0].row["value"] == 0.9
    assert [r["value"] for r in front(rows)[0].on] == [0.9]


def test_questions_are_apart():
    rows = [
        row(sde=sde, metric=m, model=o, data=d, value=1.0)
        for sde in SDES for m in ("a", "b") for o in ("p", "q") for d in ("x", "y")
    ]  # fmt: skip
    assert len(winners(rows)) == len(front(rows)) == len(slopes(rows)) == 16


def test_the_front_and_what_is_off_it_within_noise():
    def one(calls, value, half):
        return row(calls=calls, value=value, low=value - half, high=value + half, cell=str(calls))

    rows = [one(5, 3.0, 0.1), one(10, 2.0, 0.1), one(11, 2.15, 0.1), one(12, 2.5, 0.1),
            one(20, 1.0, 0.1), one(40, 1.0, 0.1)]  # fmt: skip
    found = front(rows)[0]
    assert [r["calls"] for r in found.on] == [5, 10, 20]
    assert [r["calls"] for r in found.near] == [11, 40]


def test_points_equal_in_both_are_on_the_front_together():
    rows = [row(sampler="a()", value=1.0), row(sampler="b()", value=1.0)]
    assert len(front(rows)[0].on) == 2


def test_the_front_is_what_nothing_dominates():
    """Against the definition, on 200 random points."""
    rng = np.random.default_rng(8)
    rows = [
        row(calls=float(c), value=float(v), cell=str(k))
        for k, (c, v) in enumerate(
            zip(rng.integers(1, 30, 200), rng.uniform(size=200), strict=True)
        )
    ]
    known = {
        r["cell"] for r in rows
        if not any(
            o["calls"] <= r["calls"] and o["value"] <= r["value"]
            and (o["calls"] < r["calls"] or o["value"] < r["value"]) for o in rows
        )
    }  # fmt: skip
    assert {r["cell"] for r in front(rows)[0].on} == known


def test_budgets_are_the_counts_thinned():
    rows = [row(calls=float(c)) for c in range(1, 101)] + [row(calls=9.2)]
    assert budgets_of(rows) == [1, 21, 41, 60, 80, 100]
    assert budgets_of([row(calls=9.2)]) == [10]


def test_a_budget_below_one_is_refused():
    with pytest.raises(ConfigError, match="at least 1, got \\[0\\]"):
        winners([row()], [0])


def ladder(errors, *, calls=(5, 10, 20, 40, 80), **given):
    return [
        row(calls=float(c), value=float(e), **given) for c, e in zip(calls, errors, strict=False)
    ]


def test_an_exact_power_has_its_order():
    fit = slopes(ladder([3 * c**-1.5 for c in (5, 10, 20, 40, 80)], exact=True, stderr=0.0))[0]
    assert fit.slope.value == pytest.approx(1.5, abs=1e-9)
    assert fit.slope.window == (5, 80)
    assert fit.points == 5


def test_values_at_the_floor_tell_nothing_of_the_order():
    calls = np.array([5, 10, 20, 40, 80])
    true = 8.0 * calls**-2.0
    values = np.maximum(true, 0.011)
    fit = slopes(ladder(values, floor=0.01, stderr=0.001))[0]
    assert fit.points == 3
    assert fit.slope.window == (5, 20)
    assert fit.slope.value == pytest.approx(2.0, abs=1e-6)


def test_a_value_above_the_floor_by_luck_after_one_at_it_does_not_count():
    fit = slopes(ladder([1.0, 0.25, 0.01, 0.5, 0.4], floor=0.01, stderr=0.001))[0]
    assert fit.points == 2
    assert fit.slope is None
    assert "2 of 5 values" in fit.reason


def test_what_has_no_order_says_why():
    few = slopes(ladder([1.0, 0.5]))[0]
    assert few.slope is None
    assert "2 of 2 rows have a value; 3 are needed" in few.reason
    absent = ladder([1.0, 0.5, 0.3])
    for one in absent:
        one |= {"status": "n/a", "value": None}
    assert "0 of 3 rows have a value" in slopes(absent)[0].reason
    tiny = slopes(ladder([1e-12, 9e-13, 1e-12], exact=True))[0]
    assert tiny.slope is None
    assert "rounding" in tiny.reason
    assert slopes(ladder([0.5, 0.6, 0.7], better="larger")) == []


def test_intervals_of_orders_hold_the_order():
    """At least 95 % - 3 standard errors of 200 replays, with 2 % noise."""
    rng = np.random.default_rng(9)
    calls = np.array([5, 10, 20, 40, 80])
    inside = 0
    for _ in range(200):
        noisy = 2.0 / calls * (1 + 0.02 * rng.normal(size=5))
        rows = [{**r, "stderr": 0.02 * r["value"]} for r in ladder(noisy, floor=1e-6)]
        low, high = slopes(rows)[0].slope.interval
        inside += low <= 1.0 <= high
    assert inside >= 200 * 0.95 - 3 * math.sqrt(200 * 0.95 * 0.05)
