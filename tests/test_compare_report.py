"""Claim: the report's files say what the rows say, in bytes that follow from the inputs alone.

Names that others chose are inert in each of them; a number that is none never looks like one.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
import sys
from functools import cache
from html.parser import HTMLParser

import pytest
from compare_support import HOSTILE, MMD, SWD, W2, row, sampled, stored

from sdekit.compare import charts, escaping, reporting

pytest.importorskip("altair", reason="the report extra is not installed")
pytest.importorskip("vl_convert", reason="the report extra is not installed")

FILES = {"report.html", "report.md", "rows.csv", "rows.jsonl", "times.csv"}
VARYING = re.compile(rb"<!-- varies -->.*<!-- /varies -->", re.DOTALL)


@pytest.fixture(autouse=True)
def small_bundle(monkeypatch):
    """The library of the charts takes seconds to bundle and says nothing of the rows."""
    monkeypatch.setattr("sdekit.compare.page.bundle", lambda: "window.sdekitVega = {};")


def small(**given):
    kept = {"steps": (5, 10), "sdes": ("vp()",), "samplers": {"ddim()": 1, "heun()": 2}}
    return stored(**{**kept, "points": 20, "times": 3, **given})


@cache
def hostile():
    return stored(
        name=" ".join(HOSTILE), datas=HOSTILE[:1], sdes=HOSTILE[3:5], grids=HOSTILE[6:7],
        samplers={name: 1 + k / 10 for k, name in enumerate(HOSTILE)}, steps=(5,),
        failing=HOSTILE[5:7], points=20, times=3, metrics=(SWD, W2),
    )  # fmt: skip


def embedded(page: bytes, name: str):
    """The JSON of a script element."""
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page.decode()
    )
    return json.loads(found[1], parse_constant=pytest.fail)


def test_the_files_are_those_of_the_design():
    assert reporting.render(small()).keys() == FILES


def test_report_reads_the_store_and_writes_every_file(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(reporting, "load", lambda out: asked.append(out) or small())
    made = reporting.report(tmp_path)
    assert asked == [tmp_path]
    assert made == tmp_path / "report.html"
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert made.read_bytes() == reporting.render(small())["report.html"]


@pytest.mark.parametrize("name", ["altair", "vl_convert"])
def test_without_the_extra_nothing_is_begun(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sdekit\[report\]'"):
        reporting.report(tmp_path / "not there")


def test_the_same_inputs_make_the_same_bytes():
    first, again = reporting.render(small()), reporting.render(small())
    assert first == again


def test_times_and_environment_are_in_the_declared_block_alone():
    first, other = small(), small()
    for k, cell in enumerate(other.cells):
        cell["times"] = {"seconds": [k + 1.5], "network": [k + 0.25], "calls": 7.0}
    other.environment = {"cpu": "another", "date": "later"}
    a, b = reporting.render(first), reporting.render(other)
    for name in FILES - {"times.csv"}:
        assert VARYING.sub(b"", a[name]) == VARYING.sub(b"", b[name]), name
        assert (a[name] != b[name]) == name.startswith("report"), name
    assert a["times.csv"] != b["times.csv"]


def test_rows_csv_gives_every_number_back():
    made = small()
    lines = list(csv.DictReader(io.StringIO(reporting.render(made)["rows.csv"].decode())))
    assert len(lines) == len(made.rows)
    for line, known in zip(lines, made.rows, strict=True):
        assert line["sampler"] == known["sampler"]
        assert json.loads(line["values"]) == known["values"]
        assert json.loads(line["detail"]) == known["detail"]
        for key in ("value", "stderr", "floor", "calls"):
            assert (float(line[key]) if line[key] else None) == known[key]


def test_rows_jsonl_are_the_rows():
    made = small()
    lines = reporting.render(made)["rows.jsonl"].decode("ascii").splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(json.dumps(r)) for r in made.rows]
    assert list(json.loads(lines[0])) == list(row())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_never_written(bad):
    made = small()
    first = made.rows[0]
    first |= {"value": bad, "low": bad, "stderr": bad, "values": [bad, 1.0], "floor": bad}
    first["detail"] = {"weights": [bad, 0.5], "truth": [0.5, 0.5]}
    made.cells[1]["picture"]["x"][1][:3] = [[bad, 0.0], [None, 1.0], [1.0]]
    made.cells[1]["budget"]["effects"]["score"]["w2"] = bad
    files = reporting.render(made)
    for line in files["rows.jsonl"].decode().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    for name in ("numbers", "specs", "times"):
        embedded(files["report.html"], name)
    assert embedded(files["report.html"], "numbers")["rows"]["value"][0] is None
    line = next(csv.DictReader(io.StringIO(files["rows.csv"].decode())))
    assert line["value"] == line["low"] == ""
    assert json.loads(line["values"]) == [None, 1.0]


def test_na_and_failed_rows_say_why():
    made = small(failing=("heun()",))
    made.rows[0] |= {"status": "n/a", "reason": "needs modes", "value": None, "low": None,
                     "high": None}  # fmt: skip
    files = reporting.render(made)
    for name in ("report.html", "report.md"):
        text = files[name].decode()
        assert "needs modes" in text, name
        assert "NonFiniteError" in text, name
    assert "n/a: sliced W2 in 1 cell: needs modes." in files["report.md"].decode()
    assert "FAILED in 1 cell: `heun`" in files["report.md"].decode()


def test_an_experiment_without_a_finished_cell_has_a_report():
    made = small()
    made.rows, made.cells, made.missing = [], [], 4
    text = reporting.render(made)["report.md"].decode()
    assert "Nothing has run yet: 4 cells to come." in text
    assert "nothing can be ranked" in text


def test_the_winner_is_named_first():
    made = small(metrics=(SWD,))
    text = reporting.render(made)["report.md"].decode()
    first = next(line for line in text.splitlines() if line.startswith("- "))
    assert re.match(r"- `vp`, sliced W2: up to 5 calls `ddim` .* up to 20 calls", first)


# what a text of others may not do ---------------------------------------------------------------


class Elements(HTMLParser):
    """The tags and attributes of a page, and the text of each kind of element."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]

    def handle_data(self, data):
        self.text.append(data)


def elements(page: bytes) -> Elements:
    found = Elements()
    found.feed(page.decode())
    return found


def test_names_make_no_element_and_no_attribute():
    """The page of hostile names has the kinds of elements that the page of plain ones has."""
    found = elements(reporting.render(hostile())["report.html"])
    plain = elements(reporting.render(small(failing=("heun()",)))["report.html"])
    assert set(found.tags) == set(plain.tags)
    assert {(t, k) for t, k, _ in found.attributes} == {(t, k) for t, k, _ in plain.attributes}
    assert not any(
        key.startswith("on") or key in ("src", "href") for _, key, _ in found.attributes
    )
    assert found.tags.count("script") == plain.tags.count("script") == 5
    assert "<script>alert(1)</script>" in "".join(found.text)  # it is text


def test_the_script_has_names_as_escaped_json():
    page = reporting.render(hostile())["report.html"]
    texts = embedded(page, "numbers")["texts"]
    assert {escaping.visible(name) for name in HOSTILE} <= set(texts)
    raw = re.search(rb'id="numbers">(.*?)</script>', page, re.DOTALL)[1]
    assert not re.search(rb"[<>&\x80-\xff]", raw)


def test_markdown_has_no_markup_of_others():
    text = reporting.render(hostile())["report.md"].decode()
    prose = re.sub(r"`[^`\n]*`", "", text)  # code spans are inert, and hold what is plain
    prose = re.sub(r"(?m)^    .*$", "", prose)  # so is the experiment, an indented block
    assert set(re.findall(r"<[a-zA-Z!/?][^>]*>", prose)) == {"<!-- varies -->", "<!-- /varies -->"}
    assert "](" not in prose
    assert "http://" not in prose
    assert "`" not in prose
    assert "<script" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {11, 10}


def test_csv_has_no_formula_and_numbers_stay_numbers():
    made = hostile()
    made.rows[0] = {**made.rows[0], "value": -0.25, "reason": "\tTAB"}
    files = reporting.render(made)
    for name in ("rows.csv", "times.csv"):
        for line in csv.reader(io.StringIO(files[name].decode())):
            for field in line:
                assert not field.lstrip().startswith(("=", "+", "@", "\t", "\r")), field
                assert not field.startswith("-") or float(field) < 0
    first = next(csv.DictReader(io.StringIO(files["rows.csv"].decode())))
    assert first["value"] == "-0.25"


def test_no_file_has_a_character_that_a_terminal_obeys():
    for name, data in reporting.render(hostile()).items():
        odd = {c for c in data.decode() if not c.isprintable()} - {"\n"}
        assert not odd, (name, odd)


@pytest.mark.parametrize("text", [*HOSTILE, "", "plain", "\ud800"])
def test_every_escape_keeps_what_is_printable(text):
    assert "\n" not in escaping.visible(text)
    assert json.loads(escaping.json_in_script(text)) == text
    escaping.html(text).encode()
    escaping.markdown(text).encode()
    assert not set(escaping.code(text).strip("`")) & set("<>|`")
    assert escaping.cell(text) == "" or escaping.cell(text)[0] not in "=+-@\t\r"


# the page's size and policy ---------------------------------------------------------------------


def test_the_policy_names_the_scripts_of_the_page():
    page = reporting.render(hostile())["report.html"].decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "eval" not in policy
    assert "unsafe-inline" not in policy.split(";")[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@pytest.mark.slow
def test_a_large_experiment_makes_a_page_of_a_few_megabytes():
    """900 cells, 2 metrics: 6 MB with the library; the first pictures are of the most steps."""
    samplers = {f"ddim(eta={k / 100})": 1 for k in range(75)}
    made = stored(samplers=samplers, steps=(5, 10, 20, 40, 80, 160), metrics=(SWD, MMD))
    assert len(made.cells) == 900
    page = reporting.render(made)["report.html"]
    assert len(page) < 5_000_000
    pictures = embedded(page, "numbers")["pictures"]
    assert 150 < len(pictures) < 900
    assert {p["steps"] for p in pictures[:150]} == {160}


def test_pictures_are_the_states_to_a_byte():
    made = small()
    numbers = embedded(reporting.render(made)["report.html"], "numbers")
    for packed in numbers["pictures"]:
        name = numbers["texts"][packed["cell"]]
        known = next(c for c in made.cells if c["cell"] == name)["picture"]
        data = base64.b64decode(packed["bytes"])
        assert packed["t"] == known["t"]
        assert packed["count"] == 20
        for k, (box, frame) in enumerate(zip(packed["box"], known["x"], strict=True)):
            for p, point in enumerate(frame):
                for axis in (0, 1):
                    low, high = box[axis], box[axis + 2]
                    byte = data[2 * (20 * k + p) + axis]
                    assert low + (high - low) * byte / 254 == pytest.approx(
                        point[axis], abs=(high - low) / 500
                    )


def test_specs_are_plain_and_the_same_every_time():
    first = charts.specs()
    charts.specs.cache_clear()
    assert json.dumps(first) == json.dumps(charts.specs())
    assert first.keys() == {"front", "front_linear", "effects", "weights", "overhead"}
    assert "http" not in json.dumps([{**s, "$schema": ""} for s in first.values()])


def test_a_sampled_row_of_the_tests_has_the_interval_of_its_values():
    """The tests' own rows: t interval of (1, 2, 3) is 2 +- 4.303 / sqrt(3)."""
    made = sampled([1.0, 2.0, 3.0])
    assert made["high"] - 2 == pytest.approx(4.302652729749464 / math.sqrt(3))


def test_names_are_short_where_only_one_entrant_has_them():
    """`heun` for the one Heun; two of DDIM keep their fields, and rows.csv those of all."""
    made = small(samplers={"heun()": 2, "ddim(eta=0.0)": 1, "ddim(eta=1.0)": 1})
    files = {name: data.decode() for name, data in reporting.render(made).items()}
    assert "`heun`" in files["report.md"]
    assert "`ddim(eta=0.0)`" in files["report.md"]
    assert "heun()" in files["rows.csv"]
    assert "heun()" in files["rows.jsonl"]
