"""Claim: SIGINT and SIGTERM finish the step, save and end; a second one ends at once (G11)."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from support import REPOSITORY

from sdekit import VPSDE, ScoreModel, Trainer, load_checkpoint
from sdekit.model import MLP

ROWS = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


def fit(folder, callback=None, steps=20, **kwargs):
    model = ScoreModel(MLP(2, width=8, depth=1), VPSDE())
    return Trainer(model, batch_size=8).fit(
        ROWS, steps=steps, checkpoint_dir=folder, callback=callback, **kwargs
    )


def sender(at, number):
    return lambda step, loss: os.kill(os.getpid(), number) if step == at else None


@pytest.mark.parametrize("at", [1, 7, 20])
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_one_signal_finishes_the_step_and_saves(tmp_path, number, error, at):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    whole = fit(tmp_path / "whole")
    with pytest.raises(error) as caught:
        fit(tmp_path / "part", sender(at, number))
    if error is SystemExit:
        assert caught.value.code == 143
    assert load_checkpoint(tmp_path / "part").step == at
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    rest = fit(tmp_path / "part", resume=True)
    pairs = zip(whole.model.parameters(), rest.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_without_a_folder_the_run_ends_too():
    with pytest.raises(KeyboardInterrupt, match="step 3"):
        fit(None, sender(3, signal.SIGINT))


def test_a_second_signal_ends_at_once(tmp_path, monkeypatch):
    """Even while the checkpoint is written: the old one stays, no leftover."""
    from sdekit.training import files

    fit(tmp_path, steps=5)

    def slow(handle):
        os.kill(os.getpid(), signal.SIGINT)

    def callback(step, loss):
        if step == 8:
            monkeypatch.setattr(files.os, "fsync", slow)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="second"):
        fit(tmp_path, callback, resume=True)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path).step == 5
    assert not list(tmp_path.glob(".*tmp"))


def test_other_threads_leave_signals_alone(tmp_path):
    before, done = signal.getsignal(signal.SIGINT), []

    def work():
        fit(tmp_path, lambda *_: done.append(signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(done) == 20
    assert all(done)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes(tmp_path, number, code):
    """A shell sees 130 after SIGINT (Python dies of the signal itself) and 143 after SIGTERM."""
    script = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from sdekit import ScoreModel, Trainer, VPSDE; from sdekit.model import MLP\n"
        "say = lambda step, loss: print(step, flush=True)\n"
        "Trainer(ScoreModel(MLP(2, width=8), VPSDE())).fit(\n"
        "    torch.randn(64, 2), steps=10**6, checkpoint_dir=sys.argv[1], callback=say)"
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=REPOSITORY,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    assert run.stdout.readline()
    run.send_signal(number)
    run.stdout.read()
    run.stdout.close()
    assert run.wait() in (code, -number)
    assert load_checkpoint(tmp_path).step > 0
