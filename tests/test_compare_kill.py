"""Claim: kill -9 at any moment loses no finished cell, and leaves none half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from compare_tools import cells_of, small, without_times
from support import REPOSITORY

from sdekit.compare import run
from sdekit.compare.measure import measure

# A parent that has imported torch forks the runs: only the first import is slow.
RUNS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from compare_tools import cells_of, small
from sdekit.compare import run

out, kills = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(0)
e = small(seeds=1, n=20, steps=range(1, 16), samplers=["ddim", "heun", "ancestral", "deis"],
          metrics=["sliced_wasserstein"], sdes=["vp", "ddpm(n=20)", "ve"])
for name in ("cold", "warm"):
    began = time.monotonic()
    run(small(steps=3, samplers="ddim"), out=out / name, workers=0)
lasts = time.monotonic() - began  # of a run of two cells, on this machine, now
before, grown = {}, 0
for kill in range(kills):
    child = os.fork()
    if child == 0:
        run(e, out=out / "run", workers=0)
        os._exit(0)
    time.sleep(draw.uniform(0.0, 1.6 * lasts))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"run {kill} was finished before it could be killed"
    if not (out / "run" / "cells").exists():
        continue
    now = {p.name: (p.stat().st_mtime_ns, p.read_bytes())
           for p in (out / "run" / "cells").glob("*.json")}
    lost = [name for name, seen in before.items() if now.get(name) != seen]
    assert not lost, (kill, lost)
    cells_of(out / "run")  # each is whole
    grown += len(now) > len(before)
    before = now
print(len(before), len(e.cells), grown)
"""


@pytest.mark.parametrize("kills", [50])
def test_kills_at_random_moments(tmp_path, kills):
    """After each of 50 kills every finished cell is there, the same file; the run then ends."""
    done = subprocess.run(
        [sys.executable, "-c", RUNS, str(tmp_path), str(kills)], cwd=REPOSITORY / "tests",
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    finished, total, grown = map(int, done.stdout.split())
    assert 0 < finished < total
    assert grown >= 5, "hardly any run got to a cell before it was killed: the test shows little"
    before = cells_of(tmp_path / "run")
    e = small(seeds=1, n=20, steps=range(1, 16), samplers=["ddim", "heun", "ancestral", "deis"],
              metrics=["sliced_wasserstein"], sdes=["vp", "ddpm(n=20)", "ve"])  # fmt: skip
    run(e, out=tmp_path / "run", workers=0)
    ended = cells_of(tmp_path / "run")
    assert before.items() <= ended.items()
    assert len(ended) == len(e.cells)
    for cell in e.cells[::9]:
        assert without_times(ended[cell.id]) == without_times(measure(cell))
    assert not [p for p in (tmp_path / "run").rglob("*") if p.name.endswith("tmp")]


PARENT = """
import sys
from compare_tools import small
from sdekit.compare import run

if __name__ == "__main__":
    e = small(samplers=[f"misbehaving(how='sleep', name='{k}')" for k in range(40)], steps=20,
              modules=["misbehaving_sampler"], sdes="vp")
    run(e, out=sys.argv[1], workers=2)
"""


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/cells/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(children) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}/exe") for pid in children):
        assert time.monotonic() < end, "a worker outlived its parent by 20 s"
        time.sleep(0.2)
