"""Executors of other people's: a Dask cluster by its address, SLURM by submitit.

Both must see the paths of checkpoints and be able to import sdekit, in one version everywhere.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from sdekit._check import shown
from sdekit._extras import needed
from sdekit.errors import ConfigError

__all__ = ["SlurmExecutor", "dask", "settings"]

_PATIENCE = "10s"  # until a scheduler must answer


@contextlib.contextmanager
def dask(address: str) -> Iterator[Executor]:
    """The executor of a Dask cluster.

    Args:
        address: of its scheduler, such as tcp://10.0.0.1:8786.

    Raises:
        ConfigError: nobody answers there.
        ModuleNotFoundError: dask is missing: pip install 'sdekit[dask]'.
    """
    distributed = needed("distributed", extra="dask", by="--dask", package="dask")
    try:
        client = distributed.Client(address, timeout=_PATIENCE)
    except (OSError, ValueError) as error:  # its TimeoutError is an OSError
        raise ConfigError(f"no Dask scheduler answers at {shown(address)}: {error}") from None
    with client:
        # a cell is not a pure function's call to Dask: a lost one is computed again
        yield client.get_executor(pure=False)


def settings(text: str) -> dict[str, Any]:
    """The settings KEY=VALUE,KEY=VALUE of submitit; whole numbers are numbers.

    Raises:
        ConfigError: an item is not KEY=VALUE.

    Example:
        >>> settings("slurm_partition=gpu,timeout_min=60")
        {'slurm_partition': 'gpu', 'timeout_min': 60}
    """
    found: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"--slurm takes KEY=VALUE,KEY=VALUE, got {shown(item)}")
        found[key] = int(value) if value.isdigit() else value
    return found


class SlurmExecutor(Executor):
    """submitit's jobs as an executor: a cell a job, in one array.

    Args:
        folder: where submitit keeps scripts and logs; all nodes must see it.
        cluster: "slurm", or "local" and "debug", with which submitit stays on this machine.
        options: what `submitit.AutoExecutor.update_parameters` takes: timeout_min,
            slurm_partition, slurm_array_parallelism, gpus_per_node, ...

    Raises:
        ConfigError: submitit refuses the options.
        ModuleNotFoundError: submitit is missing: pip install 'sdekit[slurm]'.
    """

    def __init__(self, folder: Path, cluster: str = "slurm", **options: Any) -> None:
        submitit = needed("submitit", extra="slurm", by="--slurm")
        try:
            self._jobs = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self._jobs.update_parameters(**options)
        except Exception as error:  # whatever submitit thinks of them
            raise ConfigError(f"--slurm: {error}") from None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit one call; a thread waits for its job."""
        job = self._jobs.submit(fn, *args, **kwargs)
        future: Future[Any] = Future()

        def attend() -> None:
            if not future.set_running_or_notify_cancel():
                job.cancel()
                return
            try:
                future.set_result(job.result())
            except Exception as error:  # the job failed, or was lost
                future.set_exception(error)

        threading.Thread(target=attend, daemon=True).start()
        return future
