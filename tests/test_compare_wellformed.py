"""Claim: what a disk or a hand has changed counts as not there; it ends no run and no page."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from compare_tools import small

from sdekit.compare import report, run
from sdekit.compare.measure import measure
from sdekit.compare.pictures import still
from sdekit.compare.store import Folder, load
from sdekit.compare.wellformed import is_cell, is_still
from sdekit.errors import ConfigError

E = {"steps": 3, "samplers": "ddim", "sdes": "vp"}
MISSING = object()


@pytest.fixture(scope="module")
def cell():
    (one,) = small(**E).cells
    return one, json.loads(json.dumps(measure(one)))


def changed(content, path, value):
    """A copy in which the entry at the path is another, or gone."""
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


def test_a_cell_is_one_as_measured_failed_and_changed_in_value(cell):
    one, content = cell
    assert is_cell(content, one.metrics)
    assert is_cell(changed(content, ("rows", 0, "value"), 1e9), one.metrics)
    assert is_cell(changed(content, ("picture",), None), one.metrics)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rows",), None), (("rows",), []), (("rows", 0), "x"), (("rows", 0, "value"), "1"),
        (("rows", 0, "values"), None), (("rows", 0, "values"), [True]),
        (("rows", 0, "seeds"), None), (("rows", 0, "metric"), "mmd()"),
        (("rows", 0, "detail"), None), (("rows", 1), MISSING), (("rows", 0, "exact"), None),
        (("spec",), None), (("spec", "sde"), 3), (("status",), None), (("times",), MISSING),
        (("times", "seconds"), None), (("budget",), {"effects": None}),
        (("picture",), "x"), (("picture", "t"), None), (("picture", "t"), []),
        (("picture", "x"), None), (("picture", "x"), [1.0]), (("picture", "x", 0), MISSING),
    ],
)  # fmt: skip
def test_what_has_another_form_is_no_cell(cell, path, value):
    one, content = cell
    assert not is_cell(changed(content, path, value), one.metrics)


IMAGES = still(torch.linspace(-1, 1, 5 * 48).reshape(5, 3, 4, 4))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image", None), ("image", []), ("image", "abc"), ("image", [4, 4, 2]),
        ("image", [0, 4, 3]), ("image", [4.0, 4, 3]), ("count", 0), ("count", -1),
        ("count", 10**6), ("count", True), ("count", "<b>"), ("bytes", None), ("bytes", "!!!"),
        ("bytes", "AAAA"), ("bytes", 3), ("range", None),
    ],
)  # fmt: skip
def test_what_has_another_form_is_no_picture(key, value):
    assert is_still(IMAGES)
    assert not is_still({**IMAGES, key: value})
    assert not is_still({k: v for k, v in IMAGES.items() if k != key})


def test_damage_is_measured_again(tmp_path):
    e = small(**E)
    rows = run(e, out=tmp_path, workers=0)
    (one,) = e.cells
    path = tmp_path / "cells" / f"{one.id}.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), ("picture", "x"), None)))
    truth = tmp_path / "truth.json"
    before = truth.read_text()
    truth.write_text(json.dumps(dict.fromkeys(json.loads(before), None)))
    assert Folder(tmp_path).finished(one) is None
    assert run(e, out=tmp_path, workers=0) == rows
    assert truth.read_text() == before
    truth.write_text("[]")
    assert load(tmp_path).truth == {}


def test_another_format_is_refused_by_its_number(tmp_path):
    e = small(**E)
    run(e, out=tmp_path, workers=0)
    made = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**made, "format": 1}))
    with pytest.raises(ConfigError, match="format 1"):
        report(tmp_path)
    with pytest.raises(ConfigError, match="format: 1 there, 2 now"):
        run(e, out=tmp_path, workers=0)
