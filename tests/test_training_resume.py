"""Claim: a run that is stopped and resumed is bitwise the run that was not (property 75)."""

import copy
import json

import pytest
import torch

from sdekit import DDPM, VPSDE, Gaussian, ScoreModel, Trainer, load_checkpoint
from sdekit.errors import CheckpointError, ConfigError
from sdekit.model import MLP

ROWS = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))


class Dropping(torch.nn.Module):
    """A network with randomness and a buffer of its own."""

    def __init__(self):
        super().__init__()
        self.mlp = MLP(2, width=8, depth=1)
        self.norm = torch.nn.BatchNorm1d(2)
        self.drop = torch.nn.Dropout(0.3)

    def forward(self, x, time):
        return self.drop(self.norm(self.mlp(x, time)))


class Stopped(Exception):
    pass


def run(folder, data, steps, *, stop=None, make=lambda: MLP(2, width=8, depth=1), **kwargs):
    """(every tensor of the training state, losses) of a run, stopped after `stop` steps."""
    settings = {"batch_size": 7, "seed": 3, "sde": VPSDE()} | kwargs.pop("settings", {})
    model = ScoreModel(make(), settings.pop("sde"))

    def callback(step, loss):
        if step == stop:
            raise Stopped

    trainer = Trainer(model, **settings)
    try:
        result = trainer.fit(data, steps=steps, checkpoint_dir=folder, callback=callback, **kwargs)
    except Stopped:
        return None, None
    state = load_checkpoint(folder, model=model).state
    rows = state["optimizer"]["state"]
    optimizer = [rows[i][name] for i in sorted(rows) for name in sorted(rows[i])]
    tensors = [*model.state_dict().values(), *optimizer]
    if trainer.ema_model is not None:
        tensors += trainer.ema_model.state_dict().values()
    return tensors, result.losses


@pytest.mark.parametrize(
    ("data", "kwargs"),
    [
        (ROWS, {}),
        (ROWS, {"make": Dropping}),
        (Gaussian([0.0, 1.0], 2.0), {"settings": {"sde": DDPM.linear(10), "ema": None}}),
        (ROWS, {"settings": {"optimizer": "sgd", "batch_size": 1, "schedule": "constant"}}),
        (
            ROWS,
            {
                "settings": {
                    "optimizer": torch.optim.Adam,
                    "objective": "dsm(weighting='likelihood')",
                }
            },
        ),
    ],
    ids=["tensor", "dropout", "target", "sgd", "factory"],
)
@pytest.mark.parametrize("every", [1, 25])
def test_bitwise(tmp_path, data, kwargs, every):
    """Stopped inside a block of 64 steps and past its end, with a checkpoint some steps before."""
    whole, losses = run(tmp_path / "whole", data, 90, **kwargs)
    folder = tmp_path / "parts"
    for stop in (33, 71):
        run(folder, data, 90, stop=stop, checkpoint_every=every, resume=stop > 33, **kwargs)
    parts, last = run(folder, data, 90, checkpoint_every=every, resume=True, **kwargs)
    first = 90 - len(last)
    assert first in ((70,) if every == 1 else (50,))
    assert torch.equal(last, losses[first:])
    assert len(whole) == len(parts)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_a_finished_run_is_prolonged_as_if_it_had_never_ended(tmp_path):
    """Its last checkpoint holds the network's own randomness, inside a block of steps too."""
    how = {"make": Dropping, "settings": {"schedule": "constant", "warmup": 0}}
    whole, losses = run(tmp_path / "whole", ROWS, 90, **copy.deepcopy(how))
    run(tmp_path / "parts", ROWS, 70, **copy.deepcopy(how))
    parts, last = run(tmp_path / "parts", ROWS, 90, resume=True, **copy.deepcopy(how))
    assert torch.equal(last, losses[70:])
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_equal_runs_write_equal_files(tmp_path):
    with torch.random.fork_rng(devices=[]):
        for name in "ab":
            run(tmp_path / name, ROWS, 10, make=Dropping)
            torch.rand(100)  # whatever the rest of a program does
    one, other = (tmp_path / name / "step-00000010.safetensors" for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_the_log_is_that_of_one_run(tmp_path):
    run(tmp_path / "whole", ROWS, 60, log_every=5)
    run(tmp_path / "parts", ROWS, 60, stop=44, checkpoint_every=20, log_every=5)
    run(tmp_path / "parts", ROWS, 60, resume=True, log_every=5)

    def log(name):
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]

    assert [row["step"] for row in log("whole")] == list(range(5, 61, 5))
    assert log("parts") == log("whole")


def test_the_global_random_state_plays_no_part(tmp_path):
    """Nor is it changed, which the guard on every test checks."""
    one, _ = run(tmp_path / "one", ROWS, 5, make=Dropping)
    with torch.random.fork_rng(devices=[]):
        torch.rand(100)
        two, _ = run(tmp_path / "two", ROWS, 5, make=Dropping)
    # the networks' own initial weights of BatchNorm are constants, MLP's are seeded
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_resume_without_a_checkpoint_begins_at_0(tmp_path):
    whole, _ = run(tmp_path / "a", ROWS, 10)
    again, losses = run(tmp_path / "b", ROWS, 10, resume=True)
    assert len(losses) == 10
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_a_finished_run_has_nothing_left(tmp_path):
    run(tmp_path, ROWS, 10)
    _, losses = run(tmp_path, ROWS, 10, resume=True)
    assert len(losses) == 0


def test_a_folder_that_holds_a_run_is_not_mixed(tmp_path):
    run(tmp_path, ROWS, 10)
    with pytest.raises(ConfigError, match="step 10"):
        run(tmp_path, ROWS, 20)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 0.5}, ["lr", "0.001", "0.5"]),
        ({"seed": 4}, ["seed", "3", "4"]),
        ({"batch_size": 8, "ema": 0.9}, ["batch_size", "ema"]),
        ({"objective": "dsm(weighting='likelihood')"}, ["objective", "likelihood"]),
        ({"optimizer": "sgd"}, ["optimizer", "sgd"]),
        ({"sde": VPSDE(beta_max=5.0)}, ["sde", "beta_max=5.0"]),
    ],
)
def test_another_configuration_is_refused_with_its_differences(tmp_path, settings, words):
    run(tmp_path, ROWS, 4)
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, ROWS, 8, resume=True, settings=settings)
    assert caught.value.kind == "incompatible"
    assert all(word in str(caught.value) for word in words), caught.value


def test_other_data_is_refused(tmp_path):
    run(tmp_path, ROWS, 4)
    with pytest.raises(CheckpointError, match="data"):
        run(tmp_path, ROWS + 1, 8, resume=True)


def test_another_network_is_refused(tmp_path):
    run(tmp_path, ROWS, 4)
    with pytest.raises(CheckpointError, match="shape"):
        run(tmp_path, ROWS, 8, resume=True, make=lambda: MLP(2, width=9, depth=1))


def test_an_override_is_explicit(tmp_path):
    run(tmp_path, ROWS, 4)
    _, losses = run(tmp_path, ROWS, 8, resume=True, settings={"lr": 0.5}, override=["lr"])
    assert len(losses) == 4


def test_an_iterable_is_not_resumable_exactly(tmp_path):
    settings = {"batch_size": None}
    run(tmp_path, [ROWS], 4, settings=settings)
    with pytest.raises(CheckpointError, match="not resumable exactly"):
        run(tmp_path, [ROWS], 8, resume=True, settings=settings)
    _, losses = run(tmp_path, [ROWS], 8, resume=True, inexact_resume=True, settings=settings)
    assert len(losses) == 4
