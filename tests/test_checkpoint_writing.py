"""Claim: at every moment the file on the disk is the old one or the new one (FAULTS H1 to H15)."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from support import REPOSITORY

from sdekit import VPSDE, ScoreModel, load_checkpoint, save_checkpoint
from sdekit.errors import CheckpointError
from sdekit.model import MLP

CLEAN = "*.sdekit-tmp"


def small(width=8):
    return ScoreModel(MLP(2, width=width, depth=1), VPSDE())


def refused(path, **kwargs):
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(path, small(), **kwargs)
    return caught.value


# A parent that has imported torch forks the writers: only the first import is slow.
WRITERS = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from sdekit import ScoreModel, VPSDE, load_checkpoint, save_checkpoint
from sdekit.model import MLP

path, rounds, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
model = ScoreModel(MLP(2, width=64, depth=2), VPSDE())
save_checkpoint(path, model, step=0)
last = 0
for round in range(rounds):
    child = os.fork()
    if child == 0:
        for step in range(last + 1, last + 10**6):
            with torch.no_grad():
                model.network.layers[0].bias.fill_(step)
            save_checkpoint(path, model, step=step)
    time.sleep(draw.uniform(0.001, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = load_checkpoint(path)
    assert found.step >= last, (round, found.step, last)
    bias = found.model.network.layers[0].bias
    assert found.step == 0 or bool((bias == found.step).all()), round
    last = found.step
save_checkpoint(path, model, step=last)
print(last, len(os.listdir(os.path.dirname(path))))
"""


@pytest.mark.parametrize("rounds", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_kill_while_saving(tmp_path, rounds):
    """After every kill -9 the file loads and is never older; the next save removes leftovers."""
    run = subprocess.run([sys.executable, "-c", WRITERS, str(tmp_path / "a"), str(rounds), "0"],
                         cwd=REPOSITORY, capture_output=True, text=True, timeout=500)  # fmt: skip
    assert run.returncode == 0, run.stderr
    last, names = map(int, run.stdout.split())
    assert last > 0, "no writer ever got to save: the test shows nothing"
    assert names == 1


FULL = """
import resource, sys
from sdekit import ScoreModel, VPSDE, load_checkpoint, save_checkpoint
from sdekit.errors import CheckpointError
from sdekit.model import MLP

path, limit = sys.argv[1], int(sys.argv[2])
save_checkpoint(path, ScoreModel(MLP(2, width=8, depth=1), VPSDE()), step=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    save_checkpoint(path, ScoreModel(MLP(2, width=512, depth=2), VPSDE()), step=2)
except CheckpointError as error:
    print(type(error.__cause__).__name__, load_checkpoint(path).step)
"""


def test_a_full_disk(tmp_path):
    run = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "a"), "100000"],
                         cwd=REPOSITORY, capture_output=True, text=True, timeout=100)  # fmt: skip
    assert run.stdout.split() == ["OSError", "1"], run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failure_while_renaming(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "a", small(), step=1)
    before = path.read_bytes()

    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    assert isinstance(refused(path).__cause__, OSError)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_is_no_plain_file_is_neither_written_nor_read(tmp_path):
    real = save_checkpoint(tmp_path / "real", small())
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    before = real.read_bytes()
    for name in ("link", "dangling", "folder", "pipe"):
        assert refused(tmp_path / name).kind == "unsafe", name
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(tmp_path / name)
        assert caught.value.kind == "unsafe", name
    os.link(real, tmp_path / "second")
    for name in ("real", "second"):
        assert refused(tmp_path / name).kind == "unsafe"
        with pytest.raises(CheckpointError, match="hard link") as caught:
            load_checkpoint(tmp_path / name)
        assert caught.value.kind == "unsafe"
    assert real.read_bytes() == before
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "nowhere").exists()


def test_a_device(tmp_path):
    assert refused("/dev/null").kind == "unsafe"
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint("/dev/zero")
    assert caught.value.kind == "unsafe"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "sealed").mkdir(mode=0o500)
    assert isinstance(refused(tmp_path / "sealed" / "a").__cause__, PermissionError)


def test_a_folder_that_is_not_there(tmp_path):
    assert isinstance(refused(tmp_path / "no" / "a").__cause__, FileNotFoundError)


@pytest.mark.parametrize("name", ["missing", "no/such/file", "x" * 300, "a\0b"])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / name)
    assert caught.value.kind == "incompatible"


def test_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint") as caught:
        load_checkpoint(tmp_path)
    assert caught.value.kind == "incompatible"


def leftover(folder, host, pid):
    path = folder / f".step-00000009.safetensors.{host}.{pid}.0a1b2c3d.sdekit-tmp"
    path.write_bytes(b"half a checkpoint")
    return path


def test_leftovers_of_the_dead_are_removed_and_of_the_living_kept(tmp_path):
    from sdekit._files import host

    dead = subprocess.Popen(["true"])
    dead.wait()
    gone = leftover(tmp_path, host(), dead.pid)
    living = leftover(tmp_path, host(), os.getppid())
    elsewhere = leftover(tmp_path, "another-host", dead.pid)
    other = tmp_path / ".notes.sdekit-tmp"
    other.write_text("mine")
    save_checkpoint(tmp_path, small(), step=1)
    assert [p.exists() for p in (gone, living, elsewhere, other)] == [False, True, True, True]
    assert load_checkpoint(tmp_path).step == 1


def test_who_holds_the_lock_removes_all_leftovers(tmp_path):
    from sdekit import Trainer

    elsewhere = leftover(tmp_path, "another-host", 1)
    rows = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    Trainer(small()).fit(rows, steps=1, checkpoint_dir=tmp_path)
    assert not elsewhere.exists()


@pytest.mark.slow
def test_a_reader_sees_the_old_or_the_new(tmp_path):
    """Reading in a loop while another process writes never fails (J2)."""
    script = WRITERS.replace("time.sleep(draw.uniform(0.001, 0.02))", "time.sleep(1.0)")
    path = tmp_path / "a"
    save_checkpoint(path, small())
    writer = subprocess.Popen([sys.executable, "-c", script, str(path), "1", "0"], cwd=REPOSITORY,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    steps, draw = set(), random.Random(0)
    while writer.poll() is None:
        steps.add(load_checkpoint(path).step)
        time.sleep(draw.uniform(0, 0.005))
    assert len(steps) > 3
    assert writer.returncode not in (None, -signal.SIGKILL)
