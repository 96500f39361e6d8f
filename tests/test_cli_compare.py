"""Claim: `sdekit compare` makes its page, goes on after a kill, refuses what it must in one line.

Codes: 0 done, 1 a cell failed or a replay differs, 2 wrong use. What a folder held stays.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from compare_tools import cells_of, misbehaving, without_times
from support import REPOSITORY

from sdekit.cli import main
from sdekit.compare.defaults import default, quick
from sdekit.compare.embedded import overheads
from sdekit.compare.experiment import read_file
from sdekit.compare.store import load
from sdekit.training.files import locked

__all__ = ["misbehaving"]  # a fixture

SMALL = """
target = "gaussian(mean=[1.0, 0.0], cov=0.5)"
sdes = ["vp", "ddpm(n=20)"]
samplers = ["ddim", "ancestral"]
steps = [3, 5]
seeds = 2
n = 60
metrics = ["exact_wasserstein", "sliced_wasserstein", "classifier"]
"""
FILES = {"report.html", "report.md", "rows.csv", "rows.jsonl", "experiment.toml", "times.csv"}


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "e.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished comparison."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "e.toml").write_text(SMALL)
    assert main(["compare", str(folder / "e.toml"), "--out", str(folder / "out"), *HERE]) == 0
    return folder / "out"


HERE = ["--workers", "0"]


def compared(*words):
    return main(["compare", *map(str, words), *HERE])


def said(capsys):
    """What stands on stderr: one line, and no traceback."""
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if not line.startswith("cells: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def test_files_and_rows(made):
    assert {p.name for p in made.iterdir()} >= FILES
    rows = [json.loads(line, parse_constant=pytest.fail)
            for line in (made / "rows.jsonl").read_text().splitlines()]  # fmt: skip
    assert len(rows) == 8 * 3
    with (made / "rows.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(r["cell"], r["metric"]) for r in table] == [(r["cell"], r["metric"]) for r in rows]
    for line, row in zip(table, rows, strict=True):
        assert float(line["value"]) == row["value"]
    page = (made / "report.html").read_text(encoding="utf-8")
    assert all(row["cell"] in page for row in rows)
    assert read_file(made / "experiment.toml").n == 60


def test_the_same_inputs_give_the_same_bytes(made, toml, tmp_path):
    assert compared(toml, "--out", tmp_path / "again") == 0
    for name in ("rows.csv", "rows.jsonl", "experiment.toml"):
        assert (made / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    for name in ("report.html", "report.md"):
        a, b = (
            (folder / name).read_text(encoding="utf-8").split("<!-- varies -->")
            for folder in (made, tmp_path / "again")
        )
        assert len(a) == len(b) == 2
        # the folder's name is in the commands that reproduce a row
        assert a[0].replace(str(made), "OUT") == b[0].replace(str(tmp_path / "again"), "OUT")


def test_a_folder_that_holds_something_is_refused_and_stays(made, toml, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert compared(toml, "--out", tmp_path / "full") == 2
    assert "notes.txt" in said(capsys)
    assert compared(toml, "--out", made) == 2
    assert "--resume" in said(capsys)
    assert compared(toml, "--out", toml) == 2
    assert "is a file" in said(capsys)
    # not ours: neither flag makes it so
    for flag in ("--resume", "--overwrite"):
        assert compared(toml, "--out", tmp_path / "full", flag) == 2
        assert "something else" in said(capsys)
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_taken(toml, tmp_path):
    (tmp_path / "empty").mkdir()
    assert compared(toml, "--out", tmp_path / "empty") == 0


def test_overwrite_starts_anew(toml, tmp_path):
    out = tmp_path / "out"
    assert compared(toml, "--out", out) == 0
    toml.write_text(SMALL.replace("n = 60", "n = 50"))
    assert compared(toml, "--out", out, "--resume") == 2
    assert compared(toml, "--out", out, "--overwrite") == 0
    assert read_file(out / "experiment.toml").n == 50
    assert len(cells_of(out)) == 8


def test_overwrite_removes_nothing_of_somebody_else_s(toml, tmp_path):
    out = tmp_path / "out"
    (out / "cells").mkdir(parents=True)
    (out / "cells" / "mine.txt").write_text("mine")
    (out / "notes.txt").write_text("mine")
    assert compared(toml, "--out", out, "--overwrite") == 2
    assert (out / "cells" / "mine.txt").read_text() == "mine"


def test_overwrite_takes_no_folder_from_a_live_run(made, toml, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    before = cells_of(out)
    with locked(out):
        assert compared(toml, "--out", out, "--overwrite") != 0
    assert "in use" in said(capsys)
    assert cells_of(out) == before


def test_times_of_a_run_are_on_the_page(made):
    """Seconds a call, in the network and outside it: of every cell that ran, from a real run."""
    with (made / "times.csv").open(newline="", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 8 * 2
    assert {float(run["calls"]) for run in runs} == {3.0, 5.0}
    assert len(overheads(load(made))) == 8
    table = (made / "report.md").read_text(encoding="utf-8").split("<!-- varies -->")[1]
    assert table.count("`ddim`") == 4


def test_resume_runs_what_is_missing(made, toml, tmp_path, capsys):
    out = tmp_path / "out"
    assert compared(toml, "--out", out) == 0
    lost = sorted((out / "cells").iterdir())[:3]
    kept = {p: p.stat().st_mtime_ns for p in (out / "cells").iterdir() if p not in lost}
    for path in lost:
        path.unlink()
    assert compared(toml, "--out", out, "--resume") == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert (out / "rows.csv").read_bytes() == (made / "rows.csv").read_bytes()


def test_one_sampler_fails_among_others(tmp_path, capsys, misbehaving):
    path = tmp_path / "e.toml"
    path.write_text(SMALL.replace('"ancestral"', '"ancestral", "misbehaving"')
                    + 'modules = ["misbehaving_sampler"]\n')  # fmt: skip
    assert compared(path, "--out", tmp_path / "out") == 1
    text = capsys.readouterr().out
    assert "FAILED" in text
    assert "always fails" in text
    rows = [json.loads(r) for r in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert {r["status"] for r in rows if "misbehaving" in r["sampler"]} == {"FAILED"}
    assert {r["status"] for r in rows if "misbehaving" not in r["sampler"]} == {"ok"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "FAILED" in page
    assert "always fails" in page


def test_replay_agrees_and_finds_what_was_changed(made, tmp_path, capsys):
    assert compared("--replay", made) == 0
    assert "24 rows: 24 same, 0 agrees, 0 DIFFERS" in capsys.readouterr().out
    name = sorted(cells_of(made))[0]
    assert compared("--replay", made, "--cell", name[:6]) == 0
    assert "3 rows: 3 same" in capsys.readouterr().out
    path = made / "cells" / f"{name}.json"
    before = path.read_text()
    cell = json.loads(before)
    cell["rows"][0]["value"] *= 1 + 1e-9
    cell["rows"][1]["value"] *= 1.01
    path.write_text(json.dumps(cell))
    try:
        assert compared("--replay", made, "--cell", name) == 1
        text = capsys.readouterr().out
        assert "3 rows: 1 same, 1 agrees, 1 DIFFERS" in text
        assert "DIFFERS" in text
        assert name in text
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing.toml"], "nothing.toml"),
        (["--replay", "nothing"], "nothing"),
        (["--cell", "3f"], "--replay"),
        (["--resume", "--overwrite"], "--resume"),
        (["--dask", "x", "--slurm", "y=1"], "--slurm"),
        (["--wrokers", "2"], "--workers"),
        (["--quik"], "--quick"),
    ],
)
def test_wrong_words_are_refused(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compared(*words) == 2
    assert says in said(capsys)
    assert list(tmp_path.iterdir()) == []


def test_no_such_cell_names_those_there_are(made, capsys):
    assert compared("--replay", made, "--cell", "zzz") == 2
    assert "no finished cell" in said(capsys)


def test_a_wrong_file_names_file_line_and_key(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "e.toml"
    path.write_text('target = "tutorial"\nstpes = 3\n')
    assert compared(path) == 2
    text = said(capsys)
    assert all(word in text for word in ("e.toml", "line 2", "stpes", "steps"))
    assert [p.name for p in tmp_path.iterdir()] == ["e.toml"]


def test_a_checkpoint_of_one_s_own_is_compared(tmp_path):
    """`checkpoints` without more: with the law that the checkpoint was trained on."""
    run = tmp_path / "run"
    assert main(["train", "--target", "moons", "--sde", "vp", "--steps", "4", "--out", str(run),
                 "--network", "mlp(width=8, depth=1)"]) == 0  # fmt: skip
    path = tmp_path / "e.toml"
    path.write_text(f'checkpoints = ["{run}"]\nsamplers = ["ddim"]\nsteps = 3\nn = 50\n')
    assert compared(path, "--out", tmp_path / "out") == 0
    (row,) = [json.loads(r) for r in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert (row["score"], row["status"]) == ("network", "ok")
    assert row["data"].startswith("moons(")
    # another checkpoint under the same name is another run
    assert main(["train", "--target", "moons", "--sde", "vp", "--steps", "5", "--out", str(run),
                 "--network", "mlp(width=8, depth=1)", "--overwrite"]) == 0  # fmt: skip
    assert compared(path, "--out", tmp_path / "out", "--resume") == 2


def test_the_seed_moves_every_seed(toml, tmp_path):
    assert compared(toml, "--seed", "5", "--out", tmp_path / "out") == 0
    assert read_file(tmp_path / "out" / "experiment.toml").seeds == (5, 6)


def test_the_defaults_are_experiments_with_their_metrics():
    assert len(default().cells) >= 60
    assert len(quick().cells) == 15
    assert any("exact" in m for m in default().metrics)


def _run(words, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "sdekit", "compare", *map(str, words)], cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell that started these tests in the background had SIGINT ignored, for good
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_keeps_its_cells_and_goes_on(tmp_path, how, code):
    """Ctrl-C reaches the whole group, as on a terminal; kill -9 only the command."""
    path = tmp_path / "e.toml"
    path.write_text(SMALL.replace("[3, 5]", str(list(range(3, 10)))).replace("n = 60", "n = 1500"))
    run = _run([path, "--out", "out", "--workers", "2"], tmp_path)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("out/cells/*.json"))) < 2:
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    if how == signal.SIGINT:
        os.killpg(run.pid, how)
    else:
        run.send_signal(how)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    assert "Traceback" not in err
    kept = cells_of(tmp_path / "out")
    assert 2 <= len(kept) < 28
    assert compared(path, "--out", tmp_path / "out", "--resume") == 0
    ended = cells_of(tmp_path / "out")
    assert len(ended) == 28
    assert kept.items() <= ended.items()
    assert all(without_times(cell) for cell in ended.values())
