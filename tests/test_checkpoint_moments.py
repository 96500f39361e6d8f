"""Claim: the data's moments are kept with the model, through training, checkpoints and resuming.

Format 1 had none, and its files load (H14): one written by that version is stored below.
"""

from __future__ import annotations

import base64
import zlib

import pytest
import torch
from sampling_support import draws
from support import assert_close

from sdekit import VPSDE, Gaussian, ScoreModel, Trainer, load_checkpoint, sample, save_checkpoint
from sdekit.cli import main
from sdekit.errors import CheckpointError, DataError
from sdekit.model import MLP, Moments
from sdekit.training import data as sources
from sdekit.training import format as layout

ROWS = draws(60, (2,)).float() @ torch.tensor([[2.0, 0.5], [0.0, 1.0]]) + 3.0
MEASURED = Moments.of(ROWS)

# A network of ones and a step of 7, data of shape (5, 1), as sdekit 0.1.0 wrote it in format 1.
FORMAT_1 = """
eNqVU1tu2zAQNNCLBPxKUYGlHrZkA0Hz1UtYhkqKy4iNRLEiHdcxfIceqcfpMbqiFKNomhQRQGBnH7O7Q+rXu0X4
TqSqOvBccs+rimxOxEm4155syKkkruHJclWSTUkSBZCmy3qVCJXzOk5TXjCVSSXXK7HO64wVcS5UzIu1KJZimbO8
gCLLZCZTCYUoSVQS1Q8d98gXI4DO+iPapzOCujcezBga23qwaOXob7iroOOIFG8dTJlK382JEsJwD/Za4BJVp80N
o3F0NSH+/SZhlL0PvS0fOG466EfudW9CHVh3PUW97qDSxu59CPjgNOAP/XA/9TJYHWJda0P0z0Gk7uatDlr6ZrYl
2IutBvi2B1NrcLNHcCMv2ZShxwFIBOw8KtKLr1B7/TA2Nfu2HfnwkqZ+qJXrB7S3yyjejel+4NrAEPQM5RZX0o/B
M5c7zz08Cd5xCZU4XnTEOw/boXyUTZL0Q91Md0/jlLIPtd1PSh59MwuY0jimeUlCS8tlcCIk54h0vYT246whbfkR
BkcZFZq78Z1Jf7SAz+xzmpBofGkj2sa7KKxZ9Uo58Ji5ZVG2e5nuAPqu8a8QYvUzyixK2IucydtHTFiUZK8Q/n/I
f5HilMVz0sPbJiuiNNmdz4vFz0/4u/91vtwuFld4ftz+BmGORww=
"""

FORMS = {
    "full": MEASURED,
    "diagonal": Moments.of(ROWS, covariance="diagonal"),
    "low rank": Moments.of(draws(9, (3, 2)), covariance="low_rank", rank=2).perturbed(0.3, 0.1),
    "isotropic": Moments.isotropic((2,), 0.1),
    "none": None,
}


def small(moments=None, dim=2):
    return ScoreModel(MLP(dim, width=4, depth=1), VPSDE(), moments=moments)


def trainer(model, **kwargs):
    return Trainer(model, **({"batch_size": 7, "seed": 3} | kwargs))


# files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moments", FORMS.values(), ids=FORMS)
def test_what_is_saved_is_what_is_loaded(tmp_path, moments):
    path = save_checkpoint(tmp_path / "a", small(moments), ema=small())
    found = load_checkpoint(path)
    assert found.moments == found.model.moments == found.raw_model().moments == moments
    again = save_checkpoint(tmp_path / "b", found.raw_model(), ema=found.model)
    assert again.read_bytes() == path.read_bytes()
    # a model that is given for its structure keeps its own where the file has none
    given = load_checkpoint(path, model=small(MEASURED))
    assert given.model.moments == (moments or MEASURED)


def test_a_file_of_format_1(tmp_path):
    """It has no moments; what it has is what it had, and its model is ready for new ones."""
    path = tmp_path / "step-00000007.safetensors"
    path.write_bytes(zlib.decompress(base64.b64decode(FORMAT_1)))
    assert layout.FORMAT > 1
    found = load_checkpoint(tmp_path)
    assert found.moments is found.model.moments is None
    assert (found.step, found.config["data"]) == (7, {"tensor": [5, 1]})
    assert found.model.sde == VPSDE()
    weights = [float(p.detach().flatten()[0]) for p in found.model.parameters()]
    assert weights == [0.5 + k for k in range(len(weights))]
    model = found.model
    model.moments = Moments.of(ROWS[:, :1])
    assert load_checkpoint(save_checkpoint(path, model)).moments == model.moments
    assert sample(model, (3, 1), prior="matched", steps=2, seed=0).x.shape == (3, 1)


def test_a_run_of_format_1_goes_on_and_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "FORMAT", 1)
    first = trainer(small())
    first.fit(ROWS, steps=3, checkpoint_dir=tmp_path)
    (path,) = tmp_path.glob("step-*")
    tensors, meta = layout.decode(path.read_bytes(), "a")
    del meta["moments"]
    path.write_bytes(
        layout.encode({k: v for k, v in tensors.items() if not k.startswith("moments/")}, meta)
    )
    monkeypatch.undo()
    assert load_checkpoint(tmp_path).moments is None
    result = trainer(small()).fit(ROWS, steps=5, checkpoint_dir=tmp_path, resume=True)
    assert result.first_step == 3
    assert load_checkpoint(tmp_path).moments == MEASURED


def put(name, value):
    def change(tensors, meta):
        tensors[f"moments/{name}"] = torch.as_tensor(value)

    return change


def meta_is(value):
    def change(tensors, meta):
        meta["moments"] = value

    return change


D = torch.float64
FORGERIES = {
    "mean of another length": put("mean", torch.zeros(3, dtype=D)),
    "mean of no length": put("mean", torch.zeros(0, dtype=D)),
    "mean of two dimensions": put("mean", torch.zeros(2, 2, dtype=D)),
    "mean in float32": put("mean", torch.zeros(2)),
    "mean of integers": put("mean", torch.zeros(2, dtype=torch.int64)),
    "NaN in the mean": put("mean", torch.tensor([0.0, float("nan")], dtype=D)),
    "infinity in the values": put("values", torch.tensor([1.0, float("inf")], dtype=D)),
    "a negative value": put("values", torch.tensor([1.0, -1.0], dtype=D)),
    "values of another length": put("values", torch.ones(5, dtype=D)),
    "vectors of another shape": put("vectors", torch.eye(3, dtype=D)),
    "vectors that are not orthonormal": put("vectors", 2 * torch.eye(2, dtype=D)),
    "NaN in the vectors": put("vectors", torch.full((2, 2), float("nan"), dtype=D)),
    "an unknown part": put("median", torch.zeros(2, dtype=D)),
    "no mean": lambda tensors, meta: tensors.pop("moments/mean"),
    "no tensors": lambda tensors, meta: [
        tensors.pop(name) for name in list(tensors) if name.startswith("moments/")
    ],
    "no description": meta_is(None),
    "a description that is a list": meta_is([2]),
    "no shape": meta_is({"rest": 0.0}),
    "another key": meta_is({"shape": [2], "rest": 0.0, "kind": "full"}),
    "a shape of other size": meta_is({"shape": [3], "rest": 0.0}),
    "a huge shape": meta_is({"shape": [10**12, 10**12], "rest": 0.0}),
    "a negative shape": meta_is({"shape": [-1, -2], "rest": 0.0}),
    "a shape of floats": meta_is({"shape": [2.0], "rest": 0.0}),
    "a shape that is a text": meta_is({"shape": "2", "rest": 0.0}),
    "a negative rest": meta_is({"shape": [2], "rest": -1.0}),
    "a rest that is a text": meta_is({"shape": [2], "rest": "1"}),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_moments_are_damage(tmp_path, name):
    """Under a right digest; and a run folder passes over the file, as over any damaged one."""
    save_checkpoint(tmp_path, small(MEASURED), step=1)
    path = save_checkpoint(tmp_path, small(MEASURED), step=2)
    tensors, meta = layout.decode(path.read_bytes(), "a")
    FORGERIES[name](tensors, meta)
    path.write_bytes(layout.encode(tensors, meta))
    with pytest.raises(CheckpointError, match="moments") as caught:
        load_checkpoint(path)
    assert caught.value.kind == "corrupt"
    with pytest.warns(RuntimeWarning, match="using step-00000001"):
        assert load_checkpoint(tmp_path).step == 1


def test_an_empty_tensor_that_is_not_empty(tmp_path, monkeypatch):
    """A shape that memory would be taken for, before a byte of it is there."""
    path = save_checkpoint(tmp_path / "a", small(MEASURED))
    tensors, meta = layout.decode(path.read_bytes(), "a")
    tensors["moments/vectors"] = torch.empty(0, 2, dtype=D)
    honest = layout.json.dumps
    forge = {'["torch.float64",[0,2]]': '["torch.float64",[99999999,9999]]'}

    def dumps(content, **how):
        text = honest(content, **how)
        for old, new in forge.items():
            assert old in text
            text = text.replace(old, new)
        return text

    monkeypatch.setattr(layout.json, "dumps", dumps)
    data = layout.encode(tensors, meta)
    monkeypatch.undo()
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="not empty") as caught:
        load_checkpoint(path)
    assert caught.value.kind == "corrupt"


# training -------------------------------------------------------------------------------------


def test_a_tensor_is_measured(tmp_path):
    run = trainer(small())
    seen = []
    result = run.fit(
        ROWS, steps=3, checkpoint_dir=tmp_path, callback=lambda *_: seen.append(run.model.moments)
    )
    assert result.model.moments == run.model.moments == MEASURED
    assert seen == [MEASURED] * 3  # from the first step on
    found = load_checkpoint(tmp_path)
    assert found.moments == found.model.moments == MEASURED


def test_a_target_is_known():
    law = Gaussian([1.0, -2.0], [[2.0, 1.2], [1.2, 1.0]])
    run = trainer(small(), ema=None)
    moments = run.fit(law, steps=1).model.moments
    assert_close(moments.mean, law.mean, tol=1e-14)
    assert_close(moments.cov, law.cov, tol=1e-14)


def test_a_model_keeps_its_own(tmp_path):
    own = Moments.isotropic((2,), 3.0)
    result = trainer(small(own)).fit(ROWS, steps=3, checkpoint_dir=tmp_path)
    assert result.model.moments == load_checkpoint(tmp_path).moments == own
    result.model.moments = None


def test_the_moments_change_no_step():
    losses = [
        trainer(small(moments)).fit(ROWS, steps=9).losses
        for moments in (None, MEASURED, Moments.isotropic((2,), 3.0))
    ]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])


def test_a_resumed_run_keeps_the_stored_ones(tmp_path):
    """Bitwise: not what the model brings along, nor what the data would say now."""
    trainer(small()).fit(ROWS, steps=3, checkpoint_dir=tmp_path)
    for step, rows in ((5, ROWS), (7, 2 * ROWS)):
        run = trainer(small(Moments.isotropic((2,), 3.0)))
        result = run.fit(rows, steps=step, checkpoint_dir=tmp_path, resume=True, override=["data"])
        assert result.first_step == step - 2
        assert result.model.moments == run.model.moments == MEASURED
        assert load_checkpoint(tmp_path).moments == MEASURED


def test_a_stream_is_measured_by_the_batches_that_came(tmp_path):
    """No batch more is read than training takes, and none twice: a one-shot iterator will do."""
    taken = []

    def stream():
        memory = torch.empty(4, 2)  # which the next batch overwrites
        for k in range(5):
            taken.append(k)
            yield memory.copy_(ROWS[4 * k : 4 * k + 4])

    saved = []

    def note(step, loss):
        found = load_checkpoint(tmp_path).moments if step > 1 else None
        saved.append(found)

    run = trainer(small(), batch_size=None)
    result = run.fit(stream(), steps=5, checkpoint_dir=tmp_path, checkpoint_every=1, callback=note)
    assert taken == [0, 1, 2, 3, 4]
    assert result.model.moments == run.model.moments == Moments.of(ROWS[:20])
    assert saved == [None, *(Moments.of(ROWS[: 4 * k]) for k in range(1, 5))]
    assert load_checkpoint(tmp_path).moments == Moments.of(ROWS[:20])
    with pytest.raises(DataError, match="cannot be read again"):
        trainer(small(), batch_size=None).fit(iter([ROWS]), steps=2)


def test_a_long_stream_is_measured_by_its_beginning(monkeypatch):
    monkeypatch.setattr(sources, "_FIRST", 10)
    batches = [ROWS[4 * k : 4 * k + 4] for k in range(5)]
    for wanted, rows in ((sources._FIRST_NUMBERS, 10), (9, 4), (1, 1)):  # numbers, two a row
        monkeypatch.setattr(sources, "_FIRST_NUMBERS", wanted)
        run = trainer(small(), batch_size=None)
        source = sources.source(batches, batch_size=None, seed=0)
        assert source.moments() is None
        for k in range(5):
            source.rows(k)
        assert source.moments() == source.moments() == Moments.of(ROWS[:rows])
        assert not source._first  # nothing of it is held any longer
        assert run.fit(batches, steps=5).model.moments == Moments.of(ROWS[:rows])


# the command line -----------------------------------------------------------------------------


def test_sdekit_sample_starts_from_them(tmp_path, capsys):
    import json

    import numpy as np

    run = tmp_path / "run"
    words = ["--steps", "10", "--batch", "64", "--network", "mlp(width=8, depth=1)"]
    assert main(["train", "--target", "tutorial", *words, "--out", str(run)]) == 0

    def sampled(name, *more):
        out = tmp_path / f"{name}.npz"
        how = ["--n", "20", "--steps", "3", "--out", str(out)]
        assert main(["sample", str(run), *how, *more]) == 0, capsys.readouterr().err
        with np.load(out, allow_pickle=False) as found:
            return torch.from_numpy(found["x"]), json.loads(str(found["meta"]))

    model = load_checkpoint(run).model
    how = {"sampler": "ancestral", "steps": 3, "seed": 0}
    for prior in ("standard", "matched"):
        x, meta = sampled(prior, "--prior", prior, "--seed", "0")
        assert meta["prior"] == prior
        assert torch.equal(x, sample(model, (20, 2), prior=prior, **how).x)
    assert sampled("default")[1]["prior"] == "standard"
    out = ["--out", str(tmp_path / "no.npz")]
    assert main(["sample", str(run), "--prior", "mached", *out]) == 2
    assert "did you mean 'matched'" in capsys.readouterr().err
    model.moments = None
    (path,) = run.glob("step-*")
    save_checkpoint(path, model)
    assert main(["sample", str(run), "--prior", "matched", *out]) == 2
    heard = capsys.readouterr().err
    assert "prior='matched'" in heard
    assert heard.count("\n") == 1
    assert not (tmp_path / "no.npz").exists()
