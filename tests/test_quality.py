"""Claim: the benchmark of quality measures what it says, ours and theirs through one door.

Its W2 is that of a closed form and of independent numbers for diffusers; calls are counted and
stay within the budget, and one step more would not; the page's tables pick the least error.
"""

from __future__ import annotations

import json
import math
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest
import torch
from support import REPOSITORY
from test_docs import script

from sdekit import ExactScore, Gaussian, make
from sdekit.exact import output_law, probe_callable

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def quality():
    """The benchmark as a module."""
    path = REPOSITORY / "benchmarks" / "sampler_quality.py"
    spec = spec_from_file_location("sampler_quality", path)
    module = sys.modules.setdefault("sampler_quality", module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


def test_one_step_of_ddim_in_closed_form(quality):
    """x_0 = (x + var score) / alpha: each deviation is alpha v / (alpha^2 v + var)."""
    (found,) = quality.Method("sdekit", "ddim(eta=0.0)", "trailing").on_gaussians(1, ["wide"])
    v = torch.logspace(-3, 1, 16, dtype=torch.float64)
    alpha, var = float(quality.CHAIN.alpha(1.0)), float(quality.CHAIN.var(1.0))
    w2 = (alpha * v / (alpha**2 * v + var) - v.sqrt()).square().sum().sqrt()
    assert found[1] == pytest.approx(float(w2), rel=1e-9)


@pytest.mark.parametrize("spelling", ["ddim(eta=0.0)", "ancestral(variance='posterior')"])
def test_ours_from_outside_is_ours_from_inside(quality, spelling):
    """The door that other libraries go through gives the law that `output_law` gives."""
    law = Gaussian.from_spectrum(torch.zeros(3, dtype=torch.float64), torch.tensor([0.1, 1, 5.0]))
    run, _ = quality.Method("sdekit", spelling, "trailing").function(law, 6)
    outside = probe_callable(run, Gaussian(torch.zeros(3, dtype=torch.float64), 1.0))
    inside = output_law(spelling, ExactScore(law, quality.CHAIN), steps=6, grid="ddpm_trailing")
    assert float((outside.spectrum[0] / inside.spectrum[0] - 1).abs().max()) < 1e-9


# W2 to N(0, 1/4) at 10 steps, found by another implementation (tests/test_interop_probe.py)
KNOWN = [
    ("ddim-trailing", 1.30e-1),
    ("ddpm-small-trailing", 1.67e-1),
    ("dpmpp-2m-trailing", 9.5e-2),
]


@pytest.mark.parametrize(("name", "w2"), KNOWN)
def test_their_known_errors(quality, monkeypatch, name, w2):
    pytest.importorskip("diffusers")
    quarter = {"quarter": torch.tensor([0.25], dtype=torch.float64)}
    monkeypatch.setattr(quality, "spectra", lambda: quarter)
    (found,) = quality.Method("diffusers", name, "trailing").on_gaussians(10, ["quarter"])
    assert found[1] == pytest.approx(w2, abs=6e-4)


@pytest.mark.parametrize("budget", [1, 5, 10, 21])
@pytest.mark.parametrize(
    ("name", "place"),
    [("ddim(eta=0.0)", "trailing"), ("ddim(eta=0.0)", "vp uniform"), (None, "trailing")],
)
def test_a_budget_is_used_and_kept(quality, name, place, budget):
    name = name or repr(make("sampler", "heun"))
    method = quality.Method("sdekit", name, place)
    steps, calls, why = method.steps(budget)
    if steps:
        assert calls == method.calls(steps) <= budget
    assert bool(steps) != bool(why)
    assert method.calls(steps + 1) > budget


def test_the_quick_form_runs_and_fills_the_page(quality, tmp_path, capsys):
    assert quality.main(["--quick", "--json", str(tmp_path / "q.json")]) == 0
    assert "tutorial" in capsys.readouterr().out
    found = json.loads((tmp_path / "q.json").read_text())
    assert {row["budget"] for row in found["rows"]} == {5, 10}
    assert all(row["calls"] <= row["budget"] for row in found["rows"])
    assert all(row["w2"] is not None and row["w2"] > 0 for row in found["rows"])
    page = tmp_path / "quality.md"
    page.write_text((REPOSITORY / "docs" / "quality.md").read_text())
    table = script("quality_table")
    text = table.best_table(found["rows"], found["laws"], found["budgets"])
    ours = [r for r in found["rows"] if r["side"] == "sdekit" and r["law"] == "wide"]
    least = min(r["w2"] for r in ours if r["budget"] == 5)
    assert f"| wide | 5 | `ddim(eta=0.0)`, trailing | {least:.3g} |" in text


def test_the_tables_leave_out_what_has_no_number_and_pick_the_least():
    table = script("quality_table")
    row = {"side": "sdekit", "method": "a()", "place": "p", "budget": 5, "calls": 5, "law": "l",
           "w2": 2.0, "modes": None, "note": ""}  # fmt: skip
    rows = [
        row,
        {**row, "method": "b()", "w2": 1.0, "modes": 0.01},
        {**row, "method": "c()", "w2": None, "note": "why"},
        {**row, "side": "azula", "method": "d", "w2": math.inf},
        {**row, "side": "azula", "method": "e", "w2": 3.0},
    ]
    text = table.best_table(rows, ["l"], [5])
    assert "| l | 5 | `b()`, p | 1 | 1.00 % | azula `e`, p | 3 |  | 3.00 |" in text
    assert "In 1 of 1 lines" in text
    assert "| sdekit | `a()` | 2.00 (p) |" in table.score_table(rows, ["l"], [5])
    assert "| sdekit | why | `c()` |" in table.notes(rows)
