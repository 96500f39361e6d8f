"""Claim: `sdekit train` makes a run that `sdekit sample` samples, from one flag for each part.

A run never mixes with another one, goes on where it stopped, and samples the law it learned.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np
import pytest

from sdekit import catalogue, load_checkpoint
from sdekit.cli import main
from sdekit.training import files

TINY = ["--steps", "30", "--batch", "64", "--network", "mlp(width=8, depth=1)"]


def train(out, *words, data=("--target", "tutorial")):
    """Run `sdekit train` with a tiny network."""
    return main(["train", *data, *TINY, "--out", str(out), *words])


def weights_of(folder):
    """The averaged weights of the newest checkpoint, flat."""
    model = load_checkpoint(folder).model
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


@pytest.mark.parametrize("sde", catalogue("sde"))
def test_sde_and_sampler_are_one_flag_each(sde, capsys, tmp_path):
    run, out = tmp_path / "run", tmp_path / "samples"
    assert train(run, "--sde", sde) == 0, capsys.readouterr().err
    words = ["sample", str(run), "--sampler", "ddim(eta=0.5)", "--steps", "5", "--n", "40"]
    assert main([*words, "--out", str(out)]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "5 steps, 5 network calls each" in said
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as found:
        meta = json.loads(str(found["meta"]))
        assert found["x"].shape == (40, 2)
        assert np.isfinite(found["x"]).all()
        assert int(found["nfe"]) == 5
        share = (found["x"].astype(float).sum(axis=1) < np.log(4) / 6).mean()
    assert meta["sde"] == repr(load_checkpoint(run).model.sde)
    assert meta["sampler"] == "ddim(eta=0.5)"
    (large,) = (mode for mode in meta["modes"] if mode["data"] == 0.8)
    assert abs(large["weight"] - share) < 1e-12
    assert abs(large["stderr"] - (share * (1 - share) / 40) ** 0.5) < 1e-12
    assert f"{large['weight']:.4f} +/- {large['stderr']:.4f}" in said
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_folder_says_what_the_run_was(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, "--checkpoint-every", "10", "--weighting", "likelihood", "--sde", "ve") == 0
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    steps = {f"step-{step:08d}.safetensors" for step in (10, 20, 30)}
    assert names == {"config.json", "log.jsonl", *steps}
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["steps"] == 30
    assert "likelihood" in config["made"]["objective"]
    assert config["made"]["sde"] == "ve(sigma_min=0.01, sigma_max=50.0)"
    # the size of the data: E|x|^2 / 2 = 1 + 9 for both modes
    size = float(config["made"]["parametrization"].partition("=")[2].rstrip(")"))
    assert abs(size - 10**0.5) < 0.05
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_resume_goes_on_and_says_where(tmp_path, capsys):
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = ["--schedule", "constant"]
    assert train(run, *words, "--steps", "10", "--resume") == 0
    assert "no checkpoint yet: starting at 0" in capsys.readouterr().out
    assert train(run, *words) == 2  # without --resume it is somebody's run
    assert "not empty" in capsys.readouterr().err
    assert train(run, *words, "--resume") == 0
    said = capsys.readouterr().out
    assert "going on from step-00000010.safetensors" in said
    assert "trained 20 steps" in said
    assert train(run, *words, "--resume") == 0
    assert "at step 30 already" in capsys.readouterr().out
    assert train(whole, *words) == 0
    assert load_checkpoint(run).step == load_checkpoint(whole).step == 30


def test_resume_with_another_setting_is_refused_unless_it_is_named(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, "--steps", "10") == 0
    assert train(run, "--resume", "--lr", "0.1") == 2
    heard = capsys.readouterr().err
    assert "lr: 0.004 stored, 0.1 now" in heard
    assert train(run, "--resume", "--lr", "0.1", "--override", "lr") == 0


def test_overwrite_leaves_what_is_not_of_the_run(tmp_path):
    run = tmp_path / "run"
    assert train(run, "--checkpoint-every", "10") == 0
    (run / "notes.txt").write_text("mine")
    assert train(run, "--steps", "5", "--overwrite") == 0
    assert load_checkpoint(run).step == 5
    assert len(list(run.glob("step-*"))) == 1
    assert (run / "notes.txt").read_text() == "mine"


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    capsys.readouterr()
    with files.locked(run):
        for words in (["--overwrite"], ["--resume"]):
            assert train(run, "--lr", "0.1", *words) == 1
            assert str(os.getpid()) in capsys.readouterr().err
    del before[".sdekit-lock"]
    assert before.items() <= {path.name: path.read_bytes() for path in run.iterdir()}.items()


def test_the_same_seed_gives_the_same_run_and_samples(tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert train(tmp_path / name, "--seed", seed) == 0
        words = ["--n", "20", "--steps", "3", "--seed", seed, "--out", str(tmp_path / name)]
        assert main(["sample", str(tmp_path / name), *words[:-1], f"{tmp_path / name}.npz"]) == 0
    a, b, c = (np.load(tmp_path / f"{name}.npz")["x"] for name in "abc")
    assert np.array_equal(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_a_file_of_points_is_data(kind, tmp_path, capsys):
    points = np.random.default_rng(0).normal(3.0, 0.5, size=(100, 1))
    path = tmp_path / f"points.{kind}"
    if kind == "csv":
        rows = "\r\n".join(repr(float(x)) for x in points[:, 0])
        path.write_bytes(b"\xef\xbb\xbfheight\r\n" + rows.encode() + b"\r\n\r\n")
    else:
        np.save(path, points[:, 0])
    assert train(tmp_path / "run", data=("--data", str(path))) == 0, capsys.readouterr().err
    out = tmp_path / "x.npz"
    words = ["sample", str(tmp_path / "run"), "--n", "10", "--steps", "3", "--out", str(out)]
    assert main(words) == 0
    assert np.load(out)["x"].shape == (10, 1)
    assert "weight" not in capsys.readouterr().out
    assert main(words) == 2, "an existing file is not replaced"
    assert main([*words, "--overwrite"]) == 0


def test_an_interrupt_saves_and_ends_with_130(tmp_path, capsys):
    run = tmp_path / "run"
    log = run / "log.jsonl"

    def interrupt_once_it_trains():
        for _ in range(6000):
            if log.exists() and log.stat().st_size:
                return os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    watcher = threading.Thread(target=interrupt_once_it_trains)
    watcher.start()
    code = train(run, "--steps", "1000000")
    watcher.join()
    heard = capsys.readouterr().err
    assert code == 130
    assert heard.splitlines()[-1].startswith("sdekit: interrupted: stopped after step ")
    assert f"stopped after step {load_checkpoint(run).step};" in heard


def test_a_damaged_checkpoint_is_code_1(tmp_path, capsys):
    assert train(tmp_path / "run") == 0
    (path,) = (tmp_path / "run").glob("step-*")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    assert main(["sample", str(path), "--out", str(tmp_path / "x.npz")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1"])
@pytest.mark.parametrize("sde", catalogue("sde"))
def test_trained_and_sampled_with_defaults_the_tutorial_has_its_weights(sde, seed, tmp_path):
    run, out = tmp_path / "run", tmp_path / "x.npz"
    words = ["--target", "tutorial", "--sde", sde, "--seed", seed, "--out", str(run)]
    assert main(["train", *words]) == 0
    assert main(["sample", str(run), "--n", "20000", "--seed", seed, "--out", str(out)]) == 0
    modes = json.loads(str(np.load(out)["meta"]))["modes"]
    (large,) = (mode for mode in modes if mode["data"] == 0.8)
    assert abs(large["weight"] - 0.8) < 0.03
