"""Claim: a run is resumable cell by cell, and its rows do not depend on where or when they ran."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from compare_tools import cells_of, small, without_times
from support import REPOSITORY

from sdekit import ExactScore, catalogue, make, sample
from sdekit.compare import Experiment, run
from sdekit.compare.store import load
from sdekit.errors import ConfigError, DataError, RunLockedError
from sdekit.exact import attribute_error
from sdekit.metrics.intervals import gamma_mean
from sdekit.training.files import locked


def test_rows_are_those_of_sample_and_of_the_metric(tmp_path):
    """A cell is what a user would do by hand: sample, draw true samples, measure, average."""
    rows = run(small(), out=tmp_path, workers=0)
    row = next(r for r in rows if r["sampler"].startswith("ancestral") and r["steps"] == 5
               and r["sde"].startswith("vp") and r["metric"].startswith("sliced"))  # fmt: skip
    law, sde = make("target", "tutorial"), make("sde", "vp")
    values, floors = [], []
    for seed in (0, 1):
        x = sample(ExactScore(law, sde), (60, 2), sampler="ancestral", steps=5, seed=seed,
                   dtype=torch.float64).x  # fmt: skip
        from sdekit.compare.keys import generator

        y = law.sample(120, generator=generator("truth", seed), dtype=torch.float64)
        metric = make("metric", row["metric"])
        values.append(float(metric.measure(x, y[:60])))
        floors.append(float(metric.measure(y[60:], y[:60])))
    assert row["values"] == pytest.approx(values, rel=1e-12)
    assert row["value"] == pytest.approx(sum(values) / 2, rel=1e-12)
    assert row["floors"] == pytest.approx(floors, rel=1e-12)
    half = abs(values[0] - values[1]) / 2
    assert row["stderr"] == pytest.approx(half, rel=1e-9)
    assert (row["low"], row["high"]) == pytest.approx(gamma_mean(values, 0.95), rel=1e-9)
    assert row["calls"] == 5
    assert (row["n"], row["seeds"]) == (60, [0, 1])


def test_exact_rows_are_those_of_the_exact_law(tmp_path):
    names = [name for name, e in catalogue("metric").items() if name.startswith("exact_")]
    e = small(sdes="ddpm(n=8)", samplers="ancestral", steps=8, metrics=names)
    rows = {r["metric"].partition("(")[0]: r for r in run(e, out=tmp_path, workers=0)}
    model = ExactScore(make("target", "tutorial"), make("sde", "ddpm(n=8)"))
    budget = attribute_error("ancestral", model, steps=8, method="exact")
    assert rows["exact_wasserstein"]["value"] == budget.total.w2
    assert rows["exact_kl"]["value"] == budget.total.kl
    assert rows["exact_discretisation"]["value"] == budget.discretisation.w2
    for row in rows.values():
        assert row["exact"]
        assert row["stderr"] == 0
        assert row["low"] == row["high"] == row["value"]
        assert row["values"] == []


def test_processes_and_this_process_give_the_same_bytes(tmp_path):
    e = small()
    assert run(e, out=tmp_path / "here", workers=0) == run(e, out=tmp_path / "there", workers=2)
    here, there = cells_of(tmp_path / "here"), cells_of(tmp_path / "there")
    assert {k: without_times(v) for k, v in here.items()} == {
        k: without_times(v) for k, v in there.items()
    }


def test_other_cells_do_not_change_a_cell(tmp_path):
    """Common random numbers: a sampler's rows are the same alone and in company."""
    run(small(), out=tmp_path / "two", workers=0)
    run(small(samplers=["heun", "ddim"], steps=[5]), out=tmp_path / "other", workers=0)
    two, other = cells_of(tmp_path / "two"), cells_of(tmp_path / "other")
    both = set(two) & set(other)
    assert len(both) == 2
    for name in both:
        assert without_times(two[name]) == without_times(other[name])


def test_a_run_goes_on_where_it_ended_and_runs_nothing_twice(tmp_path):
    e = small()

    class Enough(Exception):
        pass

    def stop(done: int, total: int, label: str) -> None:
        if done == 3:
            raise Enough

    with pytest.raises(Enough):
        run(e, out=tmp_path, workers=0, progress=stop)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    assert len(before) == 3
    seen = []
    rows = run(e, out=tmp_path, workers=0, progress=lambda *at: seen.append(at[0]))
    assert seen == [3, 4, 5, 6, 7, 8]
    assert (
        before.items()
        <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}.items()
    )
    assert rows == run(small(), out=tmp_path / "anew", workers=0)


def test_another_experiment_is_refused_and_the_difference_named(tmp_path):
    run(small(steps=3), out=tmp_path, workers=0)
    before = cells_of(tmp_path)
    with pytest.raises(ConfigError, match="n: 60 there, 61 now"):
        run(small(steps=3, n=61), out=tmp_path, workers=0)
    assert cells_of(tmp_path) == before


def test_other_versions_are_not_mixed(tmp_path):
    run(small(steps=3), out=tmp_path, workers=0)
    made = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**made, "torch": "1.0"}))
    with pytest.raises(ConfigError, match=r"torch: 1\.0 there"):
        run(small(steps=3), out=tmp_path, workers=0)


def test_a_damaged_note_of_the_versions_is_no_licence_to_mix(tmp_path):
    run(small(steps=3), out=tmp_path, workers=0)
    for text in ("{", None):
        if text is None:
            (tmp_path / "run.json").unlink()
        else:
            (tmp_path / "run.json").write_text(text)
        with pytest.raises(ConfigError, match=r"run\.json"):
            run(small(steps=3), out=tmp_path, workers=0)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        run(small(), out=tmp_path, workers=0)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with locked(tmp_path), pytest.raises(RunLockedError, match="pid"):
        run(small(), out=tmp_path, workers=0)


def test_a_half_cell_is_run_again(tmp_path):
    e = small(steps=3)
    rows = run(e, out=tmp_path, workers=0)
    path = tmp_path / "cells" / f"{e.cells[0].id}.json"
    path.write_bytes(path.read_bytes()[:100])
    assert run(e, out=tmp_path, workers=0) == rows


def test_a_folder_without_a_comparison_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"experiment\.toml"):
        load(tmp_path)
    run(small(steps=3), out=tmp_path, workers=0)
    for path in (tmp_path / "cells").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no finished cell"):
        load(tmp_path)


def test_calls_are_a_budget_and_counted(tmp_path):
    """Each sampler takes the most steps within the budget; the rows say the counted calls."""
    e = small(samplers=["ddim", "heun", "rk4", "predictor_corrector", "restart"], steps=(),
              calls=[3, 13, 80], sdes="vp")  # fmt: skip
    rows = run(e, out=tmp_path, workers=0)
    got = {(r["sampler"].partition("(")[0], cell.calls): r for cell, r in
           zip(e.cells, rows[::2], strict=True)}  # fmt: skip
    assert got["ddim", 13]["calls"] == 13
    assert got["heun", 13]["calls"] == 12
    assert (got["rk4", 13]["calls"], got["rk4", 13]["steps"]) == (12, 3)
    assert got["predictor_corrector", 13]["calls"] == 12
    assert 60 < got["restart", 80]["calls"] <= 80  # its rows are more than its steps
    assert got["rk4", 3]["status"] == "n/a"
    assert "budget" in got["rk4", 3]["reason"]


def test_a_sampler_that_does_not_serve_a_process_is_no_failure(tmp_path):
    e = small(steps=30, sdes="ddpm(n=20)", samplers="ddim")
    (first, *_) = run(e, out=tmp_path, workers=0)
    assert first["status"] == "n/a"
    assert first["value"] is None
    assert "chain of 20" in first["reason"]


def test_floors_are_values_of_true_sets_and_p_values_tell_samples_from_them(tmp_path):
    e = small(sdes="vp", samplers="ddim", steps=[2, 200], n=400, seeds=5)
    rows = run(e, out=tmp_path, workers=0)
    coarse, fine = (r for r in rows if r["metric"].startswith("sliced"))
    assert coarse["floors"] == fine["floors"]  # the same true sets
    assert coarse["floor"] == pytest.approx(sum(coarse["floors"]) / 5)
    assert coarse["p_value"] < 1e-3 < fine["p_value"]
    assert all(math.isfinite(r["floor"]) for r in rows)


def test_costs_are_counted(tmp_path):
    """Rejections and memory; more samples hold more, more steps do not."""
    metrics = ["sliced_wasserstein"]
    e = small(sdes="vp", samplers=["ddim", "mala(snr=1.0)"], steps=[20, 40], metrics=metrics)
    rows = run(e, out=tmp_path / "a", workers=0)
    ddim = [r for r in rows if r["sampler"].startswith("ddim")]
    assert ddim[0]["memory"] == pytest.approx(ddim[1]["memory"], rel=0.1)
    assert [r["rejected"] for r in ddim] == [0, 0]
    mala = [r for r in rows if r["sampler"].startswith("mala")]
    assert all(0 < r["rejected"] < r["steps"] for r in mala)
    (more, *_) = run(small(sdes="vp", samplers="ddim", steps=20, metrics=metrics, n=6000),
                     out=tmp_path / "b", workers=0)  # fmt: skip
    # samples, score, noise and one more: each 6000 x 2 float64
    assert 3 < more["memory"] / (6000 * 2 * 8) < 10
    assert all(r["vjps"] == 0 for r in rows)


def test_calls_of_samplers_that_choose_their_steps_are_the_mean_over_seeds(tmp_path):
    loose = "adaptive_sde(rtol=0.5)"
    values = {"sdes": "vp", "samplers": [loose], "steps": 3, "metrics": "mode_weights"}
    e = small(**values, target="tutorial", seeds=3, n=20)
    (row,) = run(e, out=tmp_path, workers=0)
    model = ExactScore(make("target", "tutorial"), make("sde", "vp"))
    own = [
        sample(model, (20, 2), sampler=loose, seed=k, steps=1, dtype=torch.float64)
        for k in range(3)
    ]
    assert len({r.nfe for r in own}) > 1
    assert row["calls"] == pytest.approx(sum(r.nfe for r in own) / 3, rel=1e-12)
    assert row["rejected"] == pytest.approx(sum(float(r.rejected) for r in own) / 3, rel=1e-12)


FIRST = """
import gc, sys
from compare_tools import small
from sdekit.compare.measure import measure
if sys.argv[1] == "off":
    gc.disable()
print([measure(cell)["rows"][0]["memory"] for cell in small().cells[:2]])
"""


@pytest.mark.slow
def test_bytes_do_not_wait_for_the_garbage_collector():
    """The first cell of a process, too, is counted alike whenever the collector runs."""
    said = {
        subprocess.run(
            [sys.executable, "-c", FIRST, collector], cwd=REPOSITORY / "tests", check=True,
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        ).stdout
        for collector in ("on", "off")
    }  # fmt: skip
    assert len(said) == 1, said


def test_a_solver_that_does_not_tell_its_rejections_is_no_failure(tmp_path):
    e = small(sdes="vp", samplers="probability_flow(solver='scipy:RK45', rtol=1e-3)")
    rows = run(e, out=tmp_path, workers=0)
    assert {r["status"] for r in rows} == {"ok"}
    assert {r["rejected"] for r in rows} == {None}
    assert all(r["calls"] > 6 for r in rows)


def test_seeds_can_be_moved(tmp_path):
    e = small(steps=3, samplers="ddim", sdes="vp")
    assert e.moved(7).seeds == (7, 8)
    assert (
        run(e, out=tmp_path / "a", workers=0)[0]["value"]
        != run(e.moved(7), out=tmp_path / "b", workers=0)[0]["value"]
    )


def test_what_is_no_experiment_is_refused(tmp_path):
    with pytest.raises(TypeError, match="Experiment"):
        run({"target": "tutorial"}, out=tmp_path)
    assert isinstance(small(), Experiment)
