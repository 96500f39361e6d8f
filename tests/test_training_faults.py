"""Claim: a run that cannot go on says where and why, and leaves nothing poisoned (FAULTS G)."""

import json
import subprocess
import sys
import warnings

import pytest
import torch
from support import REPOSITORY

from sdekit import DSM, VPSDE, ScoreModel, Trainer, load_checkpoint, save_checkpoint
from sdekit.errors import (
    CheckpointError,
    ConfigError,
    DtypeError,
    ModelError,
    NonFiniteError,
    RunLockedError,
    ShapeError,
)
from sdekit.model import MLP
from sdekit.training.files import checkpoints, locked

ROWS = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


def small():
    return ScoreModel(MLP(2, width=8, depth=1), VPSDE())


class Failing(torch.nn.Module):
    """NaN, or a gradient of infinity, at the given calls."""

    def __init__(self, calls, how="nan"):
        super().__init__()
        self.mlp, self.calls, self.how, self.n = MLP(2, width=8, depth=1), calls, how, 0

    def forward(self, x, time):
        out = self.mlp(x, time)
        self.n += 1
        if self.n - 1 not in self.calls:
            return out
        if self.how == "nan":
            return out * float("nan")
        return out + torch.sqrt(0 * out)  # the value is finite, its slope is not


def tensors(*models):
    return [v.clone() for model in models for v in model.state_dict().values()]


def test_gradients_are_on_in_training_whatever_the_caller_does():
    with torch.no_grad():
        assert Trainer(small(), batch_size=8).fit(ROWS, steps=2).steps == 2
        assert not torch.is_grad_enabled()


def test_a_network_of_another_dimension_is_told_the_step():
    trainer = Trainer(ScoreModel(MLP(3), VPSDE()), batch_size=8)
    words = r"raised RuntimeError in step 0, on samples of shape \(8, 2\)"
    with pytest.raises(ModelError, match=words):
        trainer.fit(ROWS, steps=3)


@pytest.mark.parametrize("how", ["nan", "slope"])
def test_a_loss_that_is_not_finite_raises_at_its_step(tmp_path, how):
    model, seen = ScoreModel(Failing({7}, how), VPSDE()), []
    trainer = Trainer(model, batch_size=8)

    def callback(step, loss):
        if step == 7:
            seen.extend(tensors(model, trainer.ema_model))

    with pytest.raises(NonFiniteError, match="step 7 ") as caught:
        trainer.fit(ROWS, steps=20, checkpoint_dir=tmp_path, checkpoint_every=5, callback=callback)
    assert "step-00000005" in str(caught.value)
    # neither the weights nor the average took it in
    now = tensors(model, trainer.ema_model)
    assert all(torch.equal(a, b) for a, b in zip(seen, now, strict=True))
    assert [step for step, _ in checkpoints(tmp_path)] == [5]
    assert load_checkpoint(tmp_path, model=model).step == 5


def test_a_loss_without_end_whose_gradient_is_finite():
    class Endless(DSM):
        def losses(self, model, *terms, **cond):
            return super().losses(model, *terms, **cond) + float("inf")

    with pytest.raises(NonFiniteError, match="step 0 the loss is inf"):
        Trainer(small(), Endless()).fit(ROWS, steps=2)


def test_skipping_is_counted():
    model = ScoreModel(Failing({3, 8}), VPSDE())
    result = Trainer(model, batch_size=8, on_nonfinite="skip").fit(ROWS, steps=20)
    assert result.skipped == 2
    assert result.losses.isnan().nonzero().flatten().tolist() == [3, 8]
    assert all(bool(v.isfinite().all()) for v in tensors(model, result.model))


def test_skipping_has_an_end():
    model = ScoreModel(Failing(range(5, 99)), VPSDE())
    with pytest.raises(NonFiniteError, match=r"step 8 .*4 such steps"):
        Trainer(model, batch_size=8, on_nonfinite="skip", max_skipped=3).fit(ROWS, steps=50)


def test_a_skipped_step_is_as_if_it_had_not_been():
    """Weights, average and optimizer of a run that skips step 2 only differ by that one step."""
    model, before = ScoreModel(Failing({2}), VPSDE()), []

    def callback(step, loss):
        if step in (2, 3):
            before.append(tensors(model, trainer.ema_model))

    trainer = Trainer(model, batch_size=8, on_nonfinite="skip")
    trainer.fit(ROWS, steps=5, callback=callback)
    assert all(torch.equal(a, b) for a, b in zip(*before, strict=True))


@pytest.mark.parametrize("where", ["objective", "network"])
def test_a_poisoned_buffer_is_not_skipped(where):
    class Norm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = MLP(2, width=4, depth=1), torch.nn.BatchNorm1d(2)

        def forward(self, x, time):
            return self.norm(self.linear(x, time) * float("nan"))

    with pytest.raises(NonFiniteError, match="running_mean"):
        Trainer(ScoreModel(Norm(), VPSDE()), batch_size=8, on_nonfinite="skip").fit(ROWS, steps=5)


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"lr": 0.0}, ConfigError, ["lr", "0"]),
        ({"lr": -1e-3}, ConfigError, ["lr", "-0.001"]),
        ({"lr": float("nan")}, ConfigError, ["lr", "nan"]),
        ({"lr": "fast"}, DtypeError, ["lr", "fast"]),
        ({"ema": 1.0}, ConfigError, ["ema", "1"]),
        ({"ema": -1.0}, ConfigError, ["ema", "-1"]),
        ({"ema": 2.0}, ConfigError, ["ema", "2"]),
        ({"clip": 0.0}, ConfigError, ["clip", "0"]),
        ({"clip": float("inf")}, ConfigError, ["clip", "inf"]),
        ({"batch_size": 0}, ConfigError, ["batch_size", "0"]),
        ({"batch_size": 2.5}, DtypeError, ["batch_size", "2.5"]),
        ({"warmup": -1}, ConfigError, ["warmup"]),
        ({"seed": 0.5}, DtypeError, ["seed"]),
        ({"optimizer": "adamm"}, ConfigError, ["adamm", "adam"]),
        ({"schedule": "cosin"}, ConfigError, ["cosin", "cosine"]),
        ({"on_nonfinite": "ignore"}, ConfigError, ["ignore", "skip"]),
        ({"objective": "dsn"}, ConfigError, ["dsn", "dsm"]),
        ({"objective": 3}, DtypeError, ["objective"]),
        ({"leraning_rate": 1.0}, TypeError, ["leraning_rate"]),
    ],
)
def test_bad_settings(kwargs, error, words):
    with pytest.raises(error) as caught:
        Trainer(small(), **kwargs)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"steps": -1}, ConfigError, ["steps", "-1"]),
        ({"steps": 2.0}, ConfigError, ["steps", "2.0"]),
        ({"steps": 2, "checkpoint_every": 1}, ConfigError, ["checkpoint_dir"]),
        ({"steps": 2, "resume": True}, ConfigError, ["checkpoint_dir"]),
        (
            {"steps": 2, "checkpoint_dir": "x", "checkpoint_every": 0},
            ConfigError,
            ["checkpoint_every"],
        ),
        ({"steps": 2, "log_every": 0}, ConfigError, ["log_every"]),
        ({"steps": 2, "on_save_error": "ignore"}, ConfigError, ["on_save_error"]),
    ],
)
def test_bad_calls(tmp_path, monkeypatch, kwargs, error, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        Trainer(small()).fit(ROWS, **kwargs)
    assert all(word in str(caught.value) for word in words), caught.value
    assert list(tmp_path.iterdir()) == []


def test_no_steps_are_no_steps():
    model = small()
    before = tensors(model)
    assert len(Trainer(model).fit(ROWS, steps=0).losses) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(model), strict=True))


def test_nothing_to_train():
    with pytest.raises(ConfigError, match="no trainable parameters"):
        Trainer(small().requires_grad_(False))
    with pytest.raises(ConfigError, match="no trainable parameters"):
        Trainer(ScoreModel(lambda x, t: x, VPSDE()))
    with pytest.raises(DtypeError, match="ScoreModel"):
        Trainer(MLP(2))


def test_frozen_parameters_stay():
    model = small()
    first, *rest = model.parameters()
    first.requires_grad_(False)
    before = [p.detach().clone() for p in model.parameters()]
    Trainer(model, batch_size=8).fit(ROWS, steps=3)
    assert torch.equal(before[0], first)
    assert not any(torch.equal(a, b) for a, b in zip(before[1:], rest, strict=True))


def test_data_that_does_not_fit_the_network():
    class Picky(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = MLP(2, width=4, depth=1)

        def forward(self, x, time):
            return self.mlp(x, time)[:, :1]

    with pytest.raises(ShapeError, match="network"):
        Trainer(ScoreModel(Picky(), VPSDE())).fit(ROWS, steps=2)


def test_modes_are_restored():
    model = small()
    model.network.layers[0].eval()
    modes = [m.training for m in model.modules()]
    seen = []
    Trainer(model, batch_size=8).fit(
        ROWS, steps=2, callback=lambda *_: seen.append(all(m.training for m in model.modules()))
    )
    assert seen == [True, True]
    assert [m.training for m in model.modules()] == modes
    with pytest.raises(ZeroDivisionError):
        Trainer(model, batch_size=8).fit(ROWS, steps=2, callback=lambda *_: 1 / 0)
    assert [m.training for m in model.modules()] == modes


def test_objective_by_spelling_and_as_an_object():
    losses = [
        Trainer(small(), objective, batch_size=8).fit(ROWS, steps=3).losses
        for objective in ("dsm(weighting='likelihood')", DSM(weighting="likelihood"), "dsm")
    ]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_float64_networks_train_in_float64():
    model = small().double()
    result = Trainer(model, batch_size=8).fit(ROWS, steps=2)
    assert {p.dtype for p in result.model.parameters()} == {torch.float64}


# the run folder ---------------------------------------------------------------------------------


def test_two_runs_in_one_folder(tmp_path):
    """The second is told who holds the folder; the lock ends with its holder, kill -9 too."""
    code = (
        "import sys, time; from pathlib import Path; from sdekit.training.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY,
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match=f"pid {holder.pid} on host"):
            Trainer(small()).fit(ROWS, steps=1, checkpoint_dir=tmp_path)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    Trainer(small()).fit(ROWS, steps=1, checkpoint_dir=tmp_path)


def test_a_run_locks_its_folder_and_lets_go(tmp_path):
    def callback(step, loss):
        with pytest.raises(RunLockedError), locked(tmp_path):
            pass

    Trainer(small()).fit(ROWS, steps=1, checkpoint_dir=tmp_path, callback=callback)
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_known_before_training(tmp_path):
    (tmp_path / "file").write_text("x")
    model = ScoreModel(Failing({0}), VPSDE())  # would raise at the first step
    with pytest.raises(CheckpointError) as caught:
        Trainer(model).fit(ROWS, steps=1, checkpoint_dir=tmp_path / "file" / "run")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(("steps", "kept"), [(22, [22, 20]), (24, [24, 20])])
def test_which_checkpoints_are_written_and_stay(tmp_path, monkeypatch, steps, kept):
    from sdekit.training import loop

    written = []

    def save(path, *args, **kwargs):
        written.append(kwargs["step"])
        return save_checkpoint(path, *args, **kwargs)

    monkeypatch.setattr(loop, "save_checkpoint", save)
    Trainer(small(), batch_size=8).fit(
        ROWS, steps=steps, checkpoint_dir=tmp_path, checkpoint_every=4, keep=2
    )
    assert written == [4, 8, 12, 16, 20, steps]
    assert [step for step, _ in checkpoints(tmp_path)] == kept


def test_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch):
    from sdekit.training import files

    def run(policy, folder):
        model = small()
        monkeypatch.setattr(files.os, "fsync", lambda handle: None)

        def callback(step, loss):
            if step == 6:
                monkeypatch.setattr(files.os, "replace", refuse)
            if step == 11:
                monkeypatch.undo()

        return Trainer(model, batch_size=8).fit(
            ROWS, steps=20, checkpoint_dir=folder, checkpoint_every=5, callback=callback,
            on_save_error=policy, keep=None,
        )  # fmt: skip

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"):
        run("raise", tmp_path / "raise")
    monkeypatch.undo()
    assert [step for step, _ in checkpoints(tmp_path / "raise")] == [5]
    with pytest.warns(RuntimeWarning, match="goes on without"):
        run("continue", tmp_path / "continue")
    assert [step for step, _ in checkpoints(tmp_path / "continue")] == [20, 15, 5]
    assert not list(tmp_path.rglob("*.sdekit-tmp"))


def test_the_log(tmp_path):
    result = Trainer(small(), batch_size=8).fit(
        ROWS, steps=25, checkpoint_dir=tmp_path, log_every=10
    )
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 25]
    assert rows[0]["loss"] == pytest.approx(float(result.losses[:10].mean()))
    assert rows[2]["loss"] == pytest.approx(float(result.losses[20:].mean()))
    assert all(row["lr"] > 0 and row["grad_norm"] > 0 for row in rows)


def test_progress(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(small(), batch_size=8).fit(ROWS, steps=3, progress=True)
    heard = capsys.readouterr()
    assert "training" in heard.err  # standard output is for what a program says
    assert not heard.out
