"""Claim: `sdekit likelihood` writes the library's numbers, of the samples that it says they are.

A checkpoint's test split is the rows that its run held out and no others, whole numbers are
dequantised as they are declared, and what cannot be meant is refused in one line with code 2.
"""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from sdekit import VPSDE, ExactScore, load_checkpoint, make
from sdekit.cli import main
from sdekit.likelihood import bits_per_dim, dequantize, elbo, log_prob
from sdekit.targets import Digits
from sdekit.targets._split import split_rows

TINY = ["--steps", "4", "--network", "mlp(width=8, depth=1)"]
GAUSSIAN = "gaussian(mean=[1.0, -2.0], cov=0.3)"
EXACT = ["--target", GAUSSIAN, "--sde", "vp"]
N = 40


def evaluated(out, *words):
    """Run it; what its file says, and the columns of its table."""
    assert main(["likelihood", *map(str, words), "--out", str(out)]) == 0
    with (out / "likelihood.csv").open(newline="") as file:
        head, *rows = list(csv.reader(file))
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    columns = dict(zip(head, np.array(rows, dtype=float).T, strict=True))
    return json.loads((out / "likelihood.json").read_text(), parse_constant=pytest.fail), columns


def exact(text=GAUSSIAN):
    return ExactScore(make("target", text), VPSDE())


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A file of points."""
    path = tmp_path_factory.mktemp("data") / "points.csv"
    x = np.random.default_rng(0).normal(size=(N, 2)).round(3)
    path.write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in x) + "\n")
    return path


@pytest.fixture(scope="module")
def held(tmp_path_factory, points):
    """A run on these points that held 10 of them out."""
    out = tmp_path_factory.mktemp("runs") / "held"
    words = ["--data", str(points), "--holdout", "0.25", "--holdout-seed", "3"]
    assert main(["train", *words, *TINY, "--out", str(out)]) == 0
    return out


def tensor(path):
    return torch.from_numpy(np.loadtxt(path, delimiter=",", skiprows=1).astype(np.float32))


# an exact score ---------------------------------------------------------------------------------


def test_an_exact_score_has_the_library_s_numbers(tmp_path, points, capsys):
    found, columns = evaluated(tmp_path / "o", *EXACT, "--data", points, "--budget")
    x = tensor(points).double()
    want = log_prob(exact(), x)
    law = make("target", GAUSSIAN).log_prob(x).numpy()
    assert np.allclose(columns["nats"], want.nats.numpy(), rtol=0, atol=1e-12)
    assert np.allclose(columns["corrected"], want.corrected().numpy(), rtol=0, atol=1e-12)
    assert np.allclose(columns["exact"], law, rtol=0, atol=1e-12)
    for name in ("probes", "solver", "prior", "truncation", "change", "total"):
        line = getattr(want.budget, name)
        assert np.allclose(columns[f"budget_{name}"], line.numpy(), rtol=1e-9, atol=1e-12), name
        lines = found["ode"]["budget"]["lines"]
        assert lines[name]["largest"] == pytest.approx(float(line.abs().max()), abs=1e-12)
    off = columns["nats"] - columns["exact"]
    error = found["exact"]["error"]["ode"]
    assert error["largest"] == pytest.approx(np.abs(off).max(), abs=1e-12)
    assert error["mean"] == pytest.approx(off.mean(), abs=1e-12)
    assert np.all(np.abs(off) <= columns["budget_total"])  # of 40 statements of 99 %
    assert (found["n"], found["data"]["source"]) == (N, "file")
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines()[:-1])) <= 79
    assert f"The largest line of the budget is {found['ode']['budget']['largest']}" in said
    assert found["ode"]["budget"]["sentence"] in " ".join(said.split())
    assert {p.name for p in (tmp_path / "o").iterdir()} == {
        "likelihood.json", "likelihood.csv", "likelihood.png",
    }  # fmt: skip
    picture = Image.open(io.BytesIO((tmp_path / "o" / "likelihood.png").read_bytes()))
    assert np.ptp(np.asarray(picture.convert("L"))) > 100


def test_the_summary_is_that_of_the_samples(tmp_path, points):
    """Student's 95 % interval of 40 numbers: 2.0227 standard errors."""
    found, columns = evaluated(tmp_path / "o", *EXACT, "--data", points)
    nats, said = columns["nats"], found["ode"]["nats"]
    error = nats.std(ddof=1) / math.sqrt(N)
    assert said["mean"] == pytest.approx(nats.mean(), abs=1e-10)
    assert said["stderr"] == pytest.approx(error, rel=1e-9)
    assert said["interval"][1] - said["mean"] == pytest.approx(2.02269 * error, rel=1e-5)
    assert (said["median"], said["min"], said["max"]) == (np.median(nats), nats.min(), nats.max())
    per_dim = found["ode"]["minus_nats_per_dim_ln2"]
    assert per_dim["mean"] == pytest.approx(-nats.mean() / (2 * math.log(2)), abs=1e-10)
    assert per_dim["interval"][0] < per_dim["mean"] < per_dim["interval"][1]
    assert "bits_per_dim" not in found["ode"]  # nobody said what the levels are


def test_both_methods_and_fresh_draws(tmp_path):
    """The bound is the library's, and below the exact log p on average."""
    words = ["--n", "300", "--method", "both", "--times", "16", "--draws", "2", "--seed", "4"]
    found, columns = evaluated(tmp_path / "o", *EXACT, *words)
    law = make("target", GAUSSIAN)
    generator = torch.Generator().manual_seed(4)
    x = law.sample(300, generator=generator, dtype=torch.float64)
    assert np.allclose(columns["exact"], law.log_prob(x).numpy(), rtol=0, atol=1e-12)
    bound = elbo(exact(), x, times=16, draws=2, seed=4)
    assert np.allclose(columns["elbo"], -bound.total.numpy(), rtol=0, atol=1e-9)
    parts = sum(columns[f"elbo_{name}"] for name in ("prior", "steps", "decoder"))
    assert np.allclose(parts, -columns["elbo"], rtol=0, atol=1e-9)
    assert found["elbo"]["nats"]["stderr"] == pytest.approx(bound.mean_stderr, rel=1e-9)
    off = found["exact"]["error"]["elbo"]["mean"]
    assert off < 5 * bound.mean_stderr
    assert found["data"] == {"source": "draws", "target": repr(law), "rows": 300}


def test_the_options_reach_the_solve(tmp_path, points):
    words = ["--divergence", "gaussian", "--probes", "3", "--seed", "5", "--rtol", "1e-3",
             "--solver", "scipy:RK45"]  # fmt: skip
    found, columns = evaluated(tmp_path / "o", *EXACT, "--data", points, *words)
    want = log_prob(
        exact(), tensor(points).double(), divergence="gaussian", probes=3, seed=5, rtol=1e-3,
        solver="scipy:RK45",
    )  # fmt: skip
    assert np.allclose(columns["nats"], want.nats.numpy(), rtol=0, atol=1e-12)
    assert np.allclose(columns["stderr"], want.stderr.numpy(), rtol=0, atol=1e-12)
    assert found["ode"]["nfe"] == want.nfe
    assert found["settings"]["probes"] == 3


def test_pieces_give_the_same_and_have_their_own_probes(tmp_path, points):
    _, whole = evaluated(tmp_path / "a", *EXACT, "--data", points)
    _, cut = evaluated(tmp_path / "b", *EXACT, "--data", points, "--chunk", "17")
    assert np.allclose(whole["nats"], cut["nats"], rtol=0, atol=1e-4)
    same = tmp_path / "same.csv"
    same.write_text("3,3\n" * 4)
    tutorial = ["--target", "tutorial", "--data", same, "--divergence", "gaussian"]
    _, cut = evaluated(tmp_path / "c", *tutorial, "--chunk", "2")
    assert len(set(cut["nats"].round(6))) == 4


def test_one_sample_has_no_interval_and_one_probe_no_error(tmp_path, capsys):
    words = ["--n", "1", "--divergence", "gaussian", "--probes", "1", "--budget"]
    found, columns = evaluated(tmp_path / "o", *EXACT, *words)
    assert found["ode"]["nats"]["interval"] == [None, None]
    assert found["ode"]["budget"]["lines"]["probes"]["mean"] is None
    assert "take --probes 2 or more" in capsys.readouterr().out
    assert math.isinf(columns["budget_total"][0])


# a checkpoint -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "side"), [("test", 1), ("train", 0)])
def test_a_split_is_the_rows_of_the_run(tmp_path, points, held, split, side):
    x = tensor(points)[split_rows(N, 0.25, 3)[side]]
    want = log_prob(load_checkpoint(held).model, x).nats.numpy()
    words = [held, "--data", points, "--split", split]
    found, columns = evaluated(tmp_path / "o", *words)
    assert np.allclose(columns["nats"], want, rtol=0, atol=1e-9)
    about = found["data"]
    assert (about["split"], about["rows"], about["of"]) == (split, len(x), N)
    assert (about["fraction"], about["seed"]) == (0.25, 3)
    assert about["sha256"] == load_checkpoint(held).config["data"]["sha256"]


def test_the_run_knows_its_file(tmp_path, points, held):
    """Without a word it is the test split, of the file that config.json names."""
    rough = ["--rtol", "0.01", "--atol", "0.01"]
    _, columns = evaluated(tmp_path / "a", held, *rough)
    _, named = evaluated(tmp_path / "b", held, "--data", points, "--split", "test", *rough)
    assert np.array_equal(columns["nats"], named["nats"])
    assert len(columns["nats"]) == 10
    _, every = evaluated(tmp_path / "c", held, "--data", points, *rough)
    assert len(every["nats"]) == N


def test_another_file_and_a_run_without_a_test_split_are_refused(tmp_path, points, held, capsys):
    other = tmp_path / "other.csv"
    other.write_text(points.read_text().replace("\n", "\n0.5,0.5\n", 1))
    out = ["--out", str(tmp_path / "o")]
    assert main(["likelihood", str(held), "--data", str(other), "--split", "test", *out]) == 2
    said = capsys.readouterr().err
    assert "other.csv" in said
    assert "is not that of" in said
    plain = tmp_path / "plain"
    assert main(["train", "--data", str(points), *TINY, "--out", str(plain)]) == 0
    for words in ([], ["--split", "test"], ["--split", "train", "--data", str(points)]):
        capsys.readouterr()
        assert main(["likelihood", str(plain), *words, *out]) == 2
        assert "--holdout FRACTION" in capsys.readouterr().err
    assert main(["likelihood", str(held), "--target", "tutorial", "--split", "test", *out]) == 2
    assert "--target contradicts --split" in capsys.readouterr().err
    (held / "config.json").rename(tmp_path / "config.json")
    try:
        assert main(["likelihood", str(held), *out]) == 2
    finally:
        (tmp_path / "config.json").rename(held / "config.json")
    assert "needs the data of its run: --data FILE" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_run_on_a_law_is_held_against_that_law(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "--target", GAUSSIAN, *TINY, "--out", str(run)]) == 0
    found, columns = evaluated(tmp_path / "o", run, "--n", "20", "--seed", "2")
    generator = torch.Generator().manual_seed(2)
    x = make("target", GAUSSIAN).sample(20, generator=generator, dtype=torch.float64)
    want = log_prob(load_checkpoint(run).model, x.float()).nats.numpy()
    assert np.allclose(columns["nats"], want, rtol=0, atol=1e-6)
    assert found["exact"]["error"]["ode"]["mean"] < 0  # -KL
    assert "corrected" not in found["ode"]
    assert main(["likelihood", str(run), "--split", "test", "--out", str(tmp_path / "e")]) == 2
    assert "no test split" in capsys.readouterr().err


# whole numbers ----------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    """Images of whole numbers 0 .. 255."""
    path = tmp_path / "images.npy"
    values = np.random.default_rng(1).integers(0, 256, size=(6, 1, 2, 2)).astype(np.uint8)
    np.save(path, values)
    return path


SQUARE = ["--target", "gaussian(mean=[0.0, 0.0, 0.0, 0.0], cov=0.5)", "--sde", "vp"]


def test_whole_numbers_are_dequantised_as_declared(tmp_path, images, capsys):
    assert main(["likelihood", *SQUARE, "--data", str(images), "--out", str(tmp_path / "e")]) == 2
    said = capsys.readouterr().err
    assert "uint8" in said
    assert "--levels" in said
    words = [*SQUARE, "--data", images, "--levels", "256", "--low", "-2", "--high", "1"]
    more = ["--dequantizations", "2", "--seed", "7", "--divergence", "gaussian", "--probes", "2"]
    found, columns = evaluated(tmp_path / "o", *words, *more)
    values = torch.from_numpy(np.load(images)).reshape(6, 4)
    generator, scale = torch.Generator().manual_seed(7), dict(levels=256, low=-2.0, high=1.0)
    draws = [dequantize(values, generator=generator, dtype=torch.float64, **scale) for _ in "12"]
    one, two = (
        log_prob(exact(SQUARE[1]), x, divergence="gaussian", probes=2, seed=7 + k)
        for k, x in enumerate(draws)
    )
    nats = (one.nats + two.nats) / 2
    stderr = (one.stderr.square() + two.stderr.square()).sqrt() / 2
    assert np.allclose(columns["stderr"], stderr.numpy(), rtol=1e-9, atol=1e-12)
    assert np.allclose(columns["nats"], nats.numpy(), rtol=0, atol=1e-9)
    want = float(bits_per_dim(nats, (4,), **scale).mean())
    assert found["ode"]["bits_per_dim"]["mean"] == pytest.approx(want, abs=1e-9)
    assert found["levels"] == scale
    assert found["data"]["shape"] == [1, 2, 2]
    assert "row by row" in capsys.readouterr().out


def test_the_discretised_bound_is_in_bits_of_the_levels(tmp_path, images):
    """Each level is in the middle of its cell: the decoder's range is half a cell narrower."""
    words = [*SQUARE, "--data", images, "--levels", "256", "--method", "elbo", "--times", "8"]
    found, columns = evaluated(tmp_path / "o", *words)
    values = torch.from_numpy(np.load(images)).reshape(6, 4).double()
    middles = -1 + (values + 0.5) / 128
    ends = (-1 + 1 / 256, 1 - 1 / 256)
    bound = elbo(
        exact(SQUARE[1]), middles, decoder="discretized", levels=256, data_range=ends, times=8,
        seed=0,
    )  # fmt: skip
    assert np.allclose(columns["elbo"], -bound.total.numpy(), rtol=0, atol=1e-9)
    bits = found["elbo"]["bits_per_dim"]["mean"]
    assert bits == pytest.approx(float(bound.bits_per_dim.mean()), abs=1e-9)
    assert found["ode"] is None
    assert found["exact"] is None


def test_digits_declare_their_levels(tmp_path, capsys):
    """Cells of width 1/8 around the levels -1 + k/8: 3 bits, and the test images."""
    run = tmp_path / "run"
    words = ["--target", "digits(fraction=0.005)", "--sde", "ddpm(n=8)", *TINY]
    assert main(["train", *words, "--out", str(run)]) == 0
    rough = ["--rtol", "0.1", "--atol", "0.1"]
    found, columns = evaluated(tmp_path / "o", run, "--method", "both", *rough)
    x = Digits(split="test", fraction=0.005).data.float()
    assert found["n"] == len(x) == 9
    assert found["levels"] == {"levels": 17, "low": -1.0625, "high": 1.0625}
    model = load_checkpoint(run).model
    bound = elbo(model, x, decoder="discretized", levels=17, data_range=(-1.0, 1.0), seed=0)
    assert np.allclose(columns["elbo"], -bound.total.numpy(), rtol=1e-5, atol=0)
    nats, bits = found["ode"]["nats"]["mean"], found["ode"]["bits_per_dim"]["mean"]
    assert bits == pytest.approx(-nats / (64 * math.log(2)) + 3.0, abs=1e-9)
    assert found["settings"]["dequantize"] == "uniform"
    for words, said in [
        (["--levels", "17"], "--levels contradicts digits"),
        (["--split", "test", "--data", "no.npy"], "takes no --data"),
    ]:
        assert main(["likelihood", str(run), *words, "--out", str(tmp_path / "e")]) == 2
        assert said in capsys.readouterr().err


def test_tables_of_whole_numbers_and_values_off_the_levels(tmp_path, capsys):
    file, out = tmp_path / "k.csv", ["--out", str(tmp_path / "o")]
    file.write_text("0,3\n2,1\n")
    words = [*EXACT, "--data", file, "--levels", "4"]
    found, _ = evaluated(tmp_path / "a", *words)
    assert found["ode"]["bits_per_dim"]["mean"] > 0
    for more, said in [
        (["--dequantize", "none"], "whole numbers have no density"),
        (["--levels", "3"], "0 .. 2"),
    ]:
        assert main(["likelihood", *map(str, words), *more, *out]) == 2
        assert said in capsys.readouterr().err
    file.write_text("0.5,3.5\n")
    assert main(["likelihood", *map(str, words), *out]) == 2
    assert "3.5" in capsys.readouterr().err


# wrong use --------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_kept(tmp_path, capsys):
    out = tmp_path / "held"
    out.mkdir()
    (out / "file").write_text("somebody's")
    assert main(["likelihood", *EXACT, "--n", "3", "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert evaluated(out, *EXACT, "--n", "3", "--overwrite")[0]["n"] == 3
    assert (out / "file").read_text() == "somebody's"


def test_a_solve_that_fails_is_code_1(tmp_path, capsys):
    words = [*EXACT, "--n", "3", "--max-nfe", "5", "--out", str(tmp_path / "o")]
    assert main(["likelihood", *words]) == 1
    assert "5" in capsys.readouterr().err
    assert not (tmp_path / "o" / "likelihood.json").exists()


WRONG = [
    ([], ["CHECKPOINT", "--target"]),
    (["no-such-run"], ["no such file", "no-such-run"]),
    (["--target", "tutorail"], ["did you mean 'tutorial'"]),
    (["--target", "moons"], ["moons", "closed form"]),
    ([*EXACT, "--sde", "vpp"], ["did you mean 'vp'"]),
    ([*EXACT, "--method", "elob"], ["did you mean 'elbo'"]),
    ([*EXACT, "--divergence", "rademaher"], ["did you mean 'rademacher'"]),
    ([*EXACT, "--solver", "dopri"], ["did you mean 'dopri5'"]),
    ([*EXACT, "--decoder", "gausian"], ["did you mean 'gaussian'"]),
    ([*EXACT, "--decoder", "discretized"], ["--levels"]),
    ([*EXACT, "--dequantize", "uniform"], ["--levels"]),
    ([*EXACT, "--dequantize", "unifrom"], ["did you mean 'uniform'"]),
    ([*EXACT, "--split", "test"], ["--split", "CHECKPOINT"]),
    ([*EXACT, "--split", "tset"], ["did you mean 'test'"]),
    ([*EXACT, "--probes", "3"], ["--probes", "exact"]),
    ([*EXACT, "--budget", "--method", "elbo"], ["--budget"]),
    ([*EXACT, "--rtol", "0"], ["--rtol", "0"]),
    ([*EXACT, "--max-nfe", "0"], ["--max-nfe", "0"]),
    ([*EXACT, "--n", "0"], ["--n", "0"]),
    ([*EXACT, "--levels", "1"], ["--levels", "1"]),
    ([*EXACT, "--low", "0"], ["--low", "--levels"]),
    ([*EXACT, "--data", "no.csv"], ["no.csv", "no such file"]),
    ([*EXACT, "--data", "three.csv"], ["three.csv", "(3,)", "(2,)"]),
    ([*EXACT, "--chukn", "3"], ["did you mean --chunk"]),
]


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=lambda value: " ".join(value)[:60])
def test_wrong_use_is_one_line_and_code_2(words, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.csv").write_text("1,2,3\n")
    assert main(["likelihood", *words]) == 2
    heard = capsys.readouterr()
    assert heard.out == ""
    assert heard.err.count("\n") == 1
    assert [part for part in parts if part not in heard.err] == []
    assert not (tmp_path / "likelihood").exists()
