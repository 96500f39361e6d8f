"""Claim: `sdekit diagnose` says why samples are wrong, in numbers that its files hold as well.

The tutorial's chain is told as what it is, exactly and without a sample; a checkpoint is held
against its own target; wrong use is one line and code 2.
"""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from sdekit import load_checkpoint, make
from sdekit.cli import main
from sdekit.exact import attribute_error

TUTORIAL = ["--target", "tutorial", "--sde", "ddpm(n=100)", "--sampler", "ancestral"]
GAUSSIAN = ["--target", "gaussian(mean=[1.0, -2.0], cov=0.3)", "--sampler", "ddim"]


def diagnosed(out, *words):
    """Run it; what its file says."""
    assert main(["diagnose", *words, "--out", str(out)]) == 0
    return json.loads((out / "diagnosis.json").read_text(), parse_constant=pytest.fail)


def test_the_tutorial_is_told_exactly(tmp_path, capsys):
    found = diagnosed(tmp_path / "d", *TUTORIAL)
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "d").iterdir()} == {
        "diagnosis.json", "waterfall.png",
    }  # fmt: skip
    assert found["cause"] == "initialisation"
    assert found["exact"]
    assert 0.598 < found["weights"][1] < 0.605
    total = found["effects"]["total"]
    assert abs(total["w2"] - 2.78) < 0.01
    assert abs(total["tv"] - 0.48) < 0.01
    flat = " ".join(said.split())
    assert "Initialisation is the cause: alpha_bar_T is 0.36" in flat
    assert f"large mode gets {found['weights'][1]:.3f} instead of 0.800" in flat
    assert f"{total['w2']:.3g} in all, TV {total['tv']:.2g}" in flat
    assert "zero terminal SNR" in {mend["action"] for mend in found["mends"]}
    assert "not tried: n=1000 in the same 100 steps: left out to save time" in flat
    assert found["sentence"] in flat
    for name, effect in found["effects"].items():
        assert re.search(rf"^{name} +{effect['w2']:.4f}", said, re.MULTILINE)
    for mend in found["mends"]:
        assert f"{mend['w2']:.4f}" in said
    assert max(map(len, said.splitlines()[:-1])) <= 79
    picture = Image.open(io.BytesIO((tmp_path / "d" / "waterfall.png").read_bytes()))
    assert np.ptp(np.asarray(picture.convert("L"))) > 100


def test_a_long_law_is_told_short(tmp_path, capsys):
    points = ", ".join(f"[{k}.5]" for k in range(100))
    words = ["--sampler", "ddim", "--steps", "3", "--n", "200"]
    found = diagnosed(tmp_path / "d", "--target", f"empirical(data=[{points}])", *words)
    head = capsys.readouterr().out.partition("\n\n")[0]
    assert " ".join(head.split()) == f"ddim(eta=0.0) on {found['what']}"
    assert len(head) < 200
    assert found["settings"]["target"].endswith("[99.5]])")


def test_the_options_reach_the_run(tmp_path):
    words = ["--steps", "7", "--grid", "karras", "--prior", "matched", "--denoise"]
    found = diagnosed(tmp_path / "d", *GAUSSIAN, "--sde", "vp(beta_max=5.0)", *words)
    from sdekit import ExactScore

    model = ExactScore(make("target", GAUSSIAN[1]), make("sde", "vp(beta_max=5.0)"))
    budget = attribute_error("ddim", model, steps=7, grid="karras", prior="matched", denoise=True)
    assert found["effects"] == json.loads(json.dumps(budget.to_json()["effects"]))
    assert found["settings"]["steps"] == 7


def test_a_checkpoint_is_held_against_its_own_target(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", "--target", "gaussian(mean=[3.0], cov=1.0)", "--sde", "ddpm(n=20)"]
    small = ["--steps", "20", "--batch", "64", "--network", "mlp(width=8, depth=1)"]
    assert main([*words, *small, "--out", str(run)]) == 0
    capsys.readouterr()
    found = diagnosed(tmp_path / "d", str(run), "--sampler", "ddim")
    model = load_checkpoint(run).model
    law = make("target", "gaussian(mean=[3.0], cov=1.0)")
    budget = attribute_error("ddim", model, law)
    assert found["method"] == budget.method == "line"  # a network in one dimension is exact
    assert found["effects"]["score"]["w2"] == pytest.approx(budget.score.w2, rel=1e-9)
    assert found["effects"]["score"]["w2"] > 0.01
    assert any(mend["retrain"] for mend in found["mends"])
    assert main(["diagnose", str(run), "--sde", "vp", "--out", str(tmp_path / "e")]) == 2
    assert "--sde contradicts the checkpoint" in capsys.readouterr().err

    data = tmp_path / "points.csv"
    data.write_text("1,2\n3,4\n5,5\n")
    other = tmp_path / "other"
    assert main(["train", "--data", str(data), *small[:2], *small[4:], "--out", str(other)]) == 0
    assert main(["diagnose", str(other), "--out", str(tmp_path / "e")]) == 2
    assert "say it with --target" in capsys.readouterr().err


def test_a_folder_that_holds_something_is_kept(tmp_path, capsys):
    out = tmp_path / "held"
    out.mkdir()
    (out / "file").write_text("somebody's")
    assert main(["diagnose", *GAUSSIAN, "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert diagnosed(out, *GAUSSIAN, "--overwrite")["cause"]
    assert (out / "file").read_text() == "somebody's"


WRONG = [
    ([], ["CHECKPOINT", "--target"]),
    (["--target", "tutorail"], ["did you mean 'tutorial'"]),
    (["--target", "moons"], ["moons", "closed form"]),
    (["no-such-run"], ["no such file", "no-such-run"]),
    ([*GAUSSIAN[:2], "--sampler", "dimm"], ["did you mean 'ddim'"]),
    ([*GAUSSIAN, "--sde", "vpp"], ["did you mean 'vp'"]),
    ([*GAUSSIAN, "--grid", "karas"], ["did you mean 'karras'"]),
    ([*GAUSSIAN, "--prior", "match"], ["did you mean 'matched'"]),
    ([*GAUSSIAN, "--steps", "0"], ["--steps", "0"]),
    ([*GAUSSIAN, "--n", "1"], ["--n", "1"]),
    ([*GAUSSIAN, "--stesp", "3"], ["did you mean --steps"]),
]


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=lambda value: " ".join(value)[:50])
def test_wrong_use_is_one_line_and_code_2(words, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose", *words]) == 2
    heard = capsys.readouterr()
    assert heard.out == ""
    assert heard.err.count("\n") == 1
    assert [part for part in parts if part not in heard.err] == []
    assert not (tmp_path / "diagnosis").exists()
