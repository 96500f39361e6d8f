"""Claim: rows that are held out are never trained on, and come back from checkpoint and data.

Which rows they are is decided by a fraction and a seed of their own that the checkpoint keeps;
other data and another fraction are refused. Digits are a target with such a split of its own.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from sdekit import VPSDE, ScoreModel, Trainer, load_checkpoint, make
from sdekit.cli import main
from sdekit.errors import CheckpointError, ConfigError, DataError, DtypeError
from sdekit.model import MLP, Moments
from sdekit.targets import Digits, digits
from sdekit.targets._split import split_rows
from sdekit.training import held_out
from sdekit.training.data import source

TINY = ["--steps", "6", "--network", "mlp(width=8, depth=1)"]
N = 60


def trainer(seed=0, **fields):
    return Trainer(ScoreModel(MLP(2, width=8, depth=1), VPSDE()), seed=seed, **fields)


@pytest.fixture
def data():
    """Rows that name themselves: row i is (i, -i)."""
    rows = torch.arange(1, N + 1, dtype=torch.float32)[:, None]
    return rows * torch.tensor([1.0, -1.0])


@pytest.fixture
def file(tmp_path, data):
    """The same as a file."""
    path = tmp_path / "points.npy"
    np.save(path, data.numpy())
    return path


def names(x):
    """The rows in a tensor."""
    return set(x[:, 0].round().int().tolist())


def seen(batches, blocks=40):
    """Every row that the first blocks of a source hold."""
    return set().union(*(names(batches.rows(k)) for k in range(blocks)))


# the split --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "held"), [(0.0, 0), (0.1, 6), (0.25, 15), (0.99, 59)])
def test_both_sides_are_all_rows_once(fraction, held):
    kept, out = split_rows(N, fraction, 3)
    assert len(out) == held
    assert sorted([*kept.tolist(), *out.tolist()]) == list(range(N))
    assert torch.equal(split_rows(N, fraction, 3)[1], out)


def test_another_seed_holds_out_other_rows():
    """Two choices of 15 of 60 agree with probability 1 / C(60, 15) < 1e-13."""
    assert not torch.equal(split_rows(N, 0.25, 0)[1], split_rows(N, 0.25, 1)[1])


def test_every_row_is_as_likely_held_out():
    """In 4000 choices of 6 of 60 a row is out 400 times, deviation 19; 6 of these in 60 rows."""
    counts = torch.zeros(N)
    for seed in range(4000):
        counts[split_rows(N, 0.1, seed)[1]] += 1
    assert float((counts - 400).abs().max()) < 6 * 19


@pytest.mark.parametrize("seed", [0, 1])
def test_no_batch_and_no_moment_sees_a_row_that_is_held_out(data, seed):
    batches = source(data, batch_size=16, seed=seed, holdout=0.25, holdout_seed=5)
    kept, out = split_rows(N, 0.25, 5)
    assert seen(batches) == names(data[kept])
    assert not seen(batches) & names(data[out])
    moments, want = batches.moments(), Moments.of(data[kept])
    assert torch.equal(moments.mean, want.mean)
    assert batches.holdout == {"fraction": 0.25, "seed": 5, "rows": 15}


def test_without_a_holdout_nothing_changes(data):
    """The order of the batches is what it was, and a checkpoint says None."""
    plain = source(data, batch_size=16, seed=0)
    assert torch.equal(plain.rows(3), source(data, batch_size=16, seed=0, holdout_seed=9).rows(3))
    assert plain.holdout is None
    assert seen(plain) == names(data)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_is_in_0_1(data, fraction):
    with pytest.raises(ConfigError, match="holdout"):
        trainer().fit(data, steps=1, holdout=fraction)


def test_some_rows_must_be_on_both_sides(data):
    with pytest.raises(DataError, match="holds out 0"):
        trainer().fit(data[:3], steps=1, holdout=0.1)
    with pytest.raises(DataError, match="holds out 3"):
        trainer().fit(data[:3], steps=1, holdout=0.9)


def test_only_a_tensor_has_rows(data):
    for other in (make("target", "tutorial"), [data]):
        with pytest.raises(ConfigError, match="rows of a tensor"):
            trainer().fit(other, steps=1, holdout=0.1)


# found again ------------------------------------------------------------------------------------


def test_the_split_comes_back_from_the_checkpoint(tmp_path, data):
    run = tmp_path / "run"
    trainer(seed=4).fit(data, steps=2, holdout=0.25, holdout_seed=7, checkpoint_dir=run)
    found = load_checkpoint(run)
    assert found.config["holdout"] == {"fraction": 0.25, "seed": 7, "rows": 15}
    assert torch.equal(held_out(found, data), data[split_rows(N, 0.25, 7)[1]])


def test_other_data_are_refused(tmp_path, data):
    run = tmp_path / "run"
    trainer().fit(data, steps=2, holdout=0.25, checkpoint_dir=run)
    found = load_checkpoint(run)
    changed = data.clone()
    changed[0, 0] += 1e-3
    for other in (changed, data[:-1], data.double(), data.flip(0)):
        with pytest.raises(DataError, match="data is not that of"):
            held_out(found, other)
    with pytest.raises(ConfigError, match="needs data"):
        held_out(found)
    with pytest.raises(DtypeError):
        held_out(found, "points.npy")


def test_a_run_without_one_has_no_test_split(tmp_path, data):
    trainer().fit(data, steps=2, checkpoint_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="held nothing out"):
        held_out(load_checkpoint(tmp_path / "run"), data)
    trainer().fit(make("target", "tutorial"), steps=2, checkpoint_dir=tmp_path / "fresh")
    with pytest.raises(ConfigError, match="no test split"):
        held_out(load_checkpoint(tmp_path / "fresh"))


def test_resume_refuses_another_split_unless_it_is_named(tmp_path, data):
    run = tmp_path / "run"
    trainer().fit(data, steps=4, holdout=0.25, checkpoint_dir=run)
    for other in (dict(), dict(holdout=0.1), dict(holdout=0.25, holdout_seed=1)):
        with pytest.raises(CheckpointError, match=r"holdout: .* stored"):
            trainer().fit(data, steps=8, checkpoint_dir=run, resume=True, **other)
    same = trainer().fit(data, steps=6, holdout=0.25, checkpoint_dir=run, resume=True)
    assert (same.first_step, same.steps) == (4, 6)
    named = dict(holdout=0.1, override=["holdout", "batch_size"])
    trainer().fit(data, steps=8, checkpoint_dir=run, resume=True, **named)
    assert load_checkpoint(run).config["holdout"]["rows"] == 6


# the command line -------------------------------------------------------------------------------


def test_train_holds_out_and_resumes(tmp_path, capsys, file, data):
    run = tmp_path / "run"
    words = ["train", "--data", str(file), *TINY, "--out", str(run), "--seed", "3"]
    assert main([*words, "--holdout", "0.25", "--holdout-seed", "2"]) == 0, capsys.readouterr().err
    assert "held out" in capsys.readouterr().out
    found = load_checkpoint(run)
    kept, out = split_rows(N, 0.25, 2)
    assert torch.equal(held_out(found, data), data[out])
    size = float(data[kept].double().square().mean().sqrt())  # measured without them too
    assert found.config["parametrization"] == f"edm(sigma_data={float(f'{size:.3g}')})"
    assert json.loads((run / "config.json").read_text())["options"]["holdout"] == 0.25
    for other in ([], ["--holdout", "0.25"], ["--holdout", "0.1", "--holdout-seed", "2"]):
        assert main([*words, *other, "--resume"]) == 2
        assert "holds out the fraction 0.25 by the seed 2" in capsys.readouterr().err
    same = ["--holdout", "0.25", "--holdout-seed", "2", "--schedule", "cosine"]
    assert main([*words, *same, "--steps", "8", "--resume"]) == 0, capsys.readouterr().err
    fixed = ["--parametrization", found.config["parametrization"], "--override", "holdout"]
    assert main([*words, *fixed, "--steps", "9", "--resume"]) == 0, capsys.readouterr().err
    assert load_checkpoint(run).config["holdout"] is None


def test_wrong_use_is_named(tmp_path, capsys, file):
    out = ["--out", str(tmp_path / "run"), *TINY]
    for words, said in [
        (["--data", str(file), "--holdout", "1"], "--holdout"),
        (["--data", str(file), "--holdout", "0.001"], "holds out 0"),
        (["--data", str(file), "--holdout", "0.5", "--batch", "31"], "30 samples"),
        (["--target", "tutorial", "--holdout", "0.5"], "--holdout 0.5 needs --data"),
    ]:
        assert main(["train", *words, *out]) in (1, 2)
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# digits -----------------------------------------------------------------------------------------


def test_digits_are_the_data_set_at_17_levels():
    """x = -1 + k / 8; the inverse is scikit-learn's array, every level taken."""
    from sklearn.datasets import load_digits

    law = Digits(split="all")
    levels = (law.data + 1) * (law.levels - 1) / (law.high - law.low)
    assert np.array_equal(levels.numpy(), load_digits().data)
    assert torch.equal(levels.unique(), torch.arange(17, dtype=torch.float64))
    assert (float(law.data.min()), float(law.data.max())) == (law.low, law.high)


def test_the_splits_of_digits_are_all_images_once():
    train, test, whole = (Digits(split=name, seed=3).data for name in ("train", "test", "all"))
    assert (len(train), len(test), len(whole)) == (1438, 359, 1797)
    together = sorted(map(tuple, torch.cat([train, test]).tolist()))
    assert together == sorted(map(tuple, whole.tolist()))
    assert not torch.equal(test, Digits(split="test", seed=4).data)


def test_digits_are_drawn_with_replacement_from_their_split():
    law = Digits(split="test", fraction=0.01)
    x = law.sample(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = {tuple(row) for row in x.tolist()}
    assert rows == {tuple(row) for row in law.data.tolist()}  # 18: one is missed with 1e-11


def test_a_run_on_digits_has_their_test_split(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", "--target", "digits(seed=5)", *TINY, "--out", str(run)]
    assert main(words) == 0, capsys.readouterr().err
    assert torch.equal(held_out(load_checkpoint(run)), Digits(split="test", seed=5).data)
    with pytest.raises(ConfigError, match="no test split"):
        Digits(split="all").test()


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    """The law can be made and spelled; its images cannot be read."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "sklearn"] + ["sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    law = Digits()
    digits._images.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sdekit\[images\]'"):
        law.sample(1)
