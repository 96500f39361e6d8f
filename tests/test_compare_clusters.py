"""Claim: results are the same wherever cells ran, and a lost Dask worker changes none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from compare_tools import cells_of, small, without_times
from support import REPOSITORY

from sdekit.compare import run
from sdekit.compare.clusters import SlurmExecutor, settings
from sdekit.errors import ConfigError

E = {"steps": [3, 4, 5]}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The rows of a run in one process."""
    return run(small(**E), out=tmp_path_factory.mktemp("here"), workers=0)


def test_any_executor_will_do(tmp_path, expected):
    with ThreadPoolExecutor(1) as executor:
        assert run(small(**E), out=tmp_path, executor=executor) == expected


class Losing(Executor):
    """An executor that loses some tasks the first time, and one of them always."""

    def __init__(self, always: int | None) -> None:
        self.seen: list[str] = []
        self.always = always

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        first = args[0].id not in self.seen
        self.seen.append(args[0].id)
        number = len(set(self.seen)) - 1
        if (first and number % 3 == 0) or (self.seen[0] == args[0].id and self.always == 0):
            future.set_exception(ConnectionError("the worker is gone"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_a_lost_cell_is_submitted_once_more(tmp_path, expected):
    executor = Losing(always=None)
    assert run(small(**E), out=tmp_path, executor=executor) == expected
    assert len(executor.seen) == 12 + 4


def test_a_cell_that_is_lost_twice_has_failed(tmp_path, expected):
    rows = run(small(**E), out=tmp_path, executor=Losing(always=0))
    failed = [r for r in rows if r["status"] == "FAILED"]
    assert len({r["cell"] for r in failed}) == 1
    assert all("worker is gone" in r["reason"] for r in failed)
    assert [r for r in rows if r["status"] == "ok"] == [
        r for r in expected if r["cell"] != failed[0]["cell"]
    ]


def _worker(address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1",
         "--no-nanny", "--no-dashboard"],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # what Dask warns of when a worker is shot
def test_two_dask_workers_one_killed(tmp_path, expected):
    """Two workers on this machine; one is killed in the middle of the run: the same rows."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    from sdekit.compare.clusters import dask

    with distributed.LocalCluster(
        n_workers=0,
        dashboard_address=None,
        protocol="tcp://",
        host="127.0.0.1",
        silence_logs=50,
    ) as cluster:
        workers = [_worker(cluster.scheduler_address) for _ in range(2)]
        try:
            with dask(cluster.scheduler_address) as executor:
                with distributed.Client(cluster.scheduler_address) as client:
                    client.wait_for_workers(2, timeout=120)
                killed = threading.Event()

                def shoot(done: int, total: int, label: str) -> None:
                    if done == 2 and not killed.is_set():
                        workers[0].kill()
                        killed.set()

                rows = run(small(**E), out=tmp_path, executor=executor, progress=shoot)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    assert killed.is_set()
    assert rows == expected


@pytest.mark.slow
def test_slurm_by_submitit_on_this_machine(tmp_path, expected):
    """submitit's local executor runs each cell as a job of its own."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    e = small(steps=3, sdes="vp")
    jobs = SlurmExecutor(tmp_path / "jobs", cluster="local", timeout_min=5)
    rows = run(e, out=tmp_path / "out", executor=jobs)
    wanted = {r["cell"] for r in rows}
    assert rows == [r for r in expected if r["cell"] in wanted]
    assert len(wanted) == 2
    there = cells_of(tmp_path / "out")
    assert all(without_times(cell) for cell in there.values())


def test_settings_of_slurm():
    assert settings("") == {}
    assert settings("slurm_partition=gpu,timeout_min=60") == {
        "slurm_partition": "gpu", "timeout_min": 60,
    }  # fmt: skip
    for wrong in ("gpu", "a b=3", "=3"):
        with pytest.raises(ConfigError, match="KEY=VALUE"):
            settings(wrong)
    with pytest.raises(ConfigError, match="slurm"):
        SlurmExecutor(".", cluster="local", no_such_setting=1)


@pytest.mark.slow
def test_nobody_at_the_address_is_said_soon():
    pytest.importorskip("distributed", reason="dask is not installed")
    from sdekit.compare.clusters import dask

    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9"), dask("tcp://127.0.0.1:9"):
        pass
    assert time.monotonic() - began < 40
