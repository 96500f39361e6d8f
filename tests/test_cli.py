"""Claim: whatever is wrong with a command line, the answer is one line and an exit code.

2 for wrong use, with the nearest name where a name was expected; 1 for a run that failed; 130 for
an interrupt; and never a traceback, whatever the terminal is like (FAULTS I).
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from support import REPOSITORY

from sdekit import errors
from sdekit.cli import COMMANDS, failure, main

TRAIN = ["train", "--target", "tutorial"]


def one_line(capsys):
    """What was said on stderr, which must be a single line; stdout must be empty."""
    heard = capsys.readouterr()
    assert heard.out == ""
    assert heard.err.startswith("sdekit: ")
    assert heard.err.count("\n") == 1, heard.err
    assert "Traceback" not in heard.err
    return heard.err


WRONG = [
    ([], ["demo", "train", "sample", "list"]),
    (["smaple"], ["smaple", "did you mean 'sample'"]),
    (["--halp"], ["did you mean '--help'"]),
    (["list", "sdse"], ["did you mean 'sde'"]),
    (["list", "sde", "extra"], ["extra"]),
    (["train", "--stpes", "3"], ["--stpes", "did you mean --steps"]),
    (["train", "--target", "tutorial"], ["--out"]),
    (["train", "--out"], ["--out"]),
    ([*TRAIN, "--out", "new", "--steps", "1e3"], ["--steps", "1e3"]),
    ([*TRAIN, "--out", "new", "--steps", "010"], ["--steps", "010"]),
    ([*TRAIN, "--out", "new", "--steps", "-5"], ["--steps", "-5"]),
    ([*TRAIN, "--out", "new", "--steps", ","], ["--steps", ","]),
    ([*TRAIN, "--out", "new", "--batch", "0"], ["batch", "0"]),
    ([*TRAIN, "--out", "new", "--checkpoint-every", "0"], ["--checkpoint-every", "0"]),
    ([*TRAIN, "--out", "new", "--lr", "nan"], ["lr", "nan"]),
    ([*TRAIN, "--out", "new", "--lr", "fast"], ["--lr", "fast"]),
    ([*TRAIN, "--out", "new", "--sde", "vpp"], ["vpp", "did you mean 'vp'"]),
    ([*TRAIN, "--out", "new", "--sde", "vp(beta_mim=1)"], ["beta_mim", "beta_min"]),
    ([*TRAIN, "--out", "new", "--sde", "vp(beta_min=-1)"], ["beta_min", "-1"]),
    ([*TRAIN, "--out", "new", "--sde", "vp(beta_min=open('x'))"], ["vp(beta_min=open('x'))"]),
    ([*TRAIN, "--out", "new", "--weighting", "simpel"], ["simpel", "did you mean 'simple'"]),
    ([*TRAIN, "--out", "new", "--parametrization", "epsilon"], ["epsilon"]),
    ([*TRAIN, "--out", "new", "--time-input", "c_nosie"], ["c_nosie", "c_noise"]),
    ([*TRAIN, "--out", "new", "--device", "cudda"], ["--device", "cudda"]),
    ([*TRAIN, "--out", "new", "--resume", "--overwrite"], ["--resume", "--overwrite"]),
    ([*TRAIN, "--out", "x" * 5000], ["--out"]),
    ([*TRAIN, "--out", "held/file"], ["held/file"]),
    ([*TRAIN, "--out", "held"], ["held", "not empty", "--resume", "--overwrite"]),
    ([*TRAIN, "--data", "held/file", "--out", "new"], ["--target", "--data"]),
    (["train", "--out", "new"], ["--target", "--data"]),
    (["train", "--target", "tutorail", "--out", "new"], ["did you mean 'tutorial'"]),
    (["train", "--data", "no.csv", "--out", "new"], ["no.csv", "no such file"]),
    (["train", "--data", "held", "--out", "new"], ["held", "folder"]),
    (["sample", "no-such-run"], ["no such file", "no-such-run"]),
    (["sample", "held"], ["no checkpoint in held"]),
    (["sample", "held", "--sampler", "dimm"], ["did you mean 'ddim'"]),
    (["sample", "held", "--grid", "uniformly"], ["did you mean 'uniform'"]),
    (["sample", "held", "--n", "0"], ["--n", "0"]),
    (["sample", "held", "--steps", "0"], ["--steps", "0"]),
    (["demo", "--out", "held"], ["held", "not empty", "--overwrite"]),
    (["demo", "--out", "held/file"], ["held/file", "folder"]),
]


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=lambda value: " ".join(value)[:60])
def test_wrong_use_is_one_line_and_code_2(words, parts, capsys, tmp_path, monkeypatch):
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "file").write_text("somebody's")
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    line = one_line(capsys)
    assert [part for part in parts if part not in line] == []
    assert not (tmp_path / "new").exists(), "nothing is made before the words are understood"
    assert (tmp_path / "held" / "file").read_text() == "somebody's"


DATA = {
    "word.csv": (b"a,b\n1,2\n3,x\n", ["line 3", "3,x"]),
    "ragged.csv": (b"1,2\n3\n", ["line 2", "1 numbers"]),
    "empty.csv": (b"", ["no sample"]),
    "binary.csv": (b"\xff\xfe\x00", ["CSV"]),
    "hole.csv": (b"1,2\nnan,1\n", ["NaN", "[1]"]),
    "text.txt": (b"1,2\n", [".npy", ".csv"]),
    "broken.npy": (b"\x93NUMPY", [".npy"]),
    "pickle.npy": (b"\x80\x04]\x94.", ["Python objects"]),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_cannot_be_used_is_named_with_the_place(name, capsys, tmp_path):
    content, parts = DATA[name]
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "run"
    assert main(["train", "--data", str(tmp_path / name), "--out", str(out)]) == 2
    line = one_line(capsys)
    assert [part for part in [name, *parts] if part not in line] == []
    assert not out.exists()


def test_few_samples_are_a_batch_but_not_a_larger_one(capsys, tmp_path):
    (tmp_path / "few.csv").write_text("1,2\n3,4\n5,5\n")
    words = ["train", "--data", str(tmp_path / "few.csv"), "--out", str(tmp_path / "run")]
    assert main([*words, "--batch", "4"]) == 2
    line = one_line(capsys)
    assert "--batch 4" in line
    assert "3 samples" in line
    assert main([*words, "--steps", "2"]) == 0


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((600, 2), dtype=np.int64), "int64"),
        (np.array([{}], dtype=object), "objects"),
        (np.zeros((600, 4, 4)), "(4, 4)"),
        (np.zeros((0, 2)), "no sample"),
    ],
    ids=["integers", "objects", "images for an mlp", "empty"],
)
def test_an_array_that_cannot_be_used_is_refused(array, part, capsys, tmp_path):
    np.save(tmp_path / "data.npy", array, allow_pickle=True)
    words = ["train", "--data", str(tmp_path / "data.npy"), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert part in one_line(capsys)


ENDINGS = [
    (errors.ConfigError("no"), 2),
    (errors.DataError("no"), 2),
    (errors.DeviceError("no"), 2),
    (errors.CheckpointError("no", kind="incompatible"), 2),
    (errors.CheckpointError("no", kind="corrupt"), 1),
    (errors.CheckpointError("no", kind="unsafe"), 1),
    (errors.CheckpointError("no", kind="version"), 1),
    (errors.NonFiniteError("no"), 1),
    (errors.SolverError("no"), 1),
    (errors.ModelError("no"), 1),
    (errors.RunLockedError("no"), 1),
    (OSError(28, "no space left"), 1),
    (ZeroDivisionError("a bug"), 1),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize(("error", "code"), ENDINGS, ids=lambda v: repr(v))
def test_every_error_has_its_exit_code_and_one_line(error, code, capsys):
    def command(words):
        raise error

    assert failure.guarded(command, [], debug=False) == code
    one_line(capsys)


def test_debug_shows_the_traceback_and_the_line(capsys):
    assert main(["list", "sdse", "--debug"]) == 2
    heard = capsys.readouterr().err
    assert "Traceback" in heard
    assert heard.splitlines()[-1].startswith("sdekit: kind='sdse'")


def test_a_message_cannot_command_the_terminal(capsys):
    assert main(["list", "\x1b]0;title\x07\nsecond line"]) == 2
    line = one_line(capsys)
    assert "\x1b" not in line
    assert "\x07" not in line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_every_option(command, capsys):
    assert main([command, "--help"]) == 0
    heard = capsys.readouterr().out
    assert f"\n  sdekit {command}" in heard
    assert heard.startswith(f"usage: sdekit {command}")
    if command == "verify":  # it computes nothing that lies on a device, and writes with --json
        assert all(option in heard for option in ("--seed", "--json"))
    elif command != "list":
        assert all(option in heard for option in ("--seed", "--device", "--out"))


def shell(line, **environment):
    """A line of bash in which $SDEKIT is the command; its exit codes are those of the pipe."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "SDEKIT": f"{sys.executable} -m sdekit",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


POOR = {"LANG": "C", "LC_ALL": "C", "TERM": "dumb", "NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$SDEKIT list | head -n 1", 0),
        ("$SDEKIT train --help | head -n 1", 0),
        ("$SDEKIT --help >&-", 0),
        ("$SDEKIT train --help >&- 2>&-", 0),
        ("$SDEKIT train 2>&-", 2),
        ("$SDEKIT smapl\u00e9 --out \u00fc", 2),
        ("$SDEKIT --version > /dev/full", 1),
    ],
)
def test_a_poor_terminal_or_a_reader_that_leaves_gives_no_traceback(line, code):
    done = shell(line, **POOR)  # no HOME either
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_is_wrong_is_said_whatever_the_encoding(encoding):
    done = shell("$SDEKIT train --out x --steps 1e3", PYTHONIOENCODING=encoding)
    expected = (
        "sdekit: Error parsing --steps: '1e3' is not a whole number; see sdekit train --help\n"
    )
    assert (done.returncode, done.stderr) == (2, expected)
