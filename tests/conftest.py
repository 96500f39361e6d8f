"""What every test has: one thread, Hypothesis profiles, seeds, fixtures, a guard on globals."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib

import numpy as np
import pytest
import torch
from hypothesis import settings
from support import AlphaBudget, Reference, reference_absent, reference_folder

import sdekit

# Small tensors: a second thread costs more than it brings, and sums depend on their number.
torch.set_num_threads(1)

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True, max_examples=100)
settings.register_profile(
    "full", derandomize=False, deadline=None, print_blob=True, max_examples=2000
)
settings.load_profile("ci")  # `--hypothesis-profile=full` overrides it


def _base_seed(config: pytest.Config) -> int:
    """0, or the number given by --hypothesis-seed."""
    given = config.getoption("--hypothesis-seed", default=None)
    return int(given) if given and str(given).isdigit() else 0


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What a run can be repeated with."""
    folder = reference_absent() or f"reference data: {reference_folder()}"
    return [
        f"torch {torch.__version__}, numpy {np.__version__}, seed {_base_seed(config)} "
        "(repeat with --hypothesis-seed)",
        folder,
    ]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed of this test's own: fixed in `make test`, fresh and printed in `make test-all`."""
    text = f"{_base_seed(request.config)}:{request.node.nodeid}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    """A generator on the CPU seeded with `seed`."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def reference() -> Reference:
    """The reference values computed by other projects; skipped, with the reason, where absent."""
    absent = reference_absent()
    if absent:
        pytest.skip(absent)
    return Reference(reference_folder())


@pytest.fixture(scope="session")
def alpha_budget() -> AlphaBudget:
    """The significance levels of the whole session, 1e-9 together; a name is served once."""
    return AlphaBudget()


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device in turn; CUDA is skipped, with the reason, where there is none."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(request.param)


@pytest.fixture
def scratch_catalogue() -> Iterator[None]:
    """Entries that a test registers are gone when it ends."""
    entries = sys.modules[sdekit.register.__module__]._ENTRIES
    before = {kind: dict(named) for kind, named in entries.items()}
    yield
    for kind, named in entries.items():
        named.clear()
        named.update(before[kind])


class _GlobalState:
    """Torch's and NumPy's random states, the default dtype, and whether gradients are recorded."""

    def __init__(self) -> None:
        self.torch_rng = torch.get_rng_state()
        self.cuda_rng = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self.numpy_rng = np.random.get_state()
        self.dtype = torch.get_default_dtype()
        self.grad = torch.is_grad_enabled()

    def changed(self) -> list[str]:
        """What differs now."""
        now = _GlobalState()
        differs = {
            "torch's random state": not torch.equal(self.torch_rng, now.torch_rng),
            "CUDA's random state": self.cuda_rng is not None
            and not all(map(torch.equal, self.cuda_rng, now.cuda_rng)),
            "NumPy's random state": not all(
                map(np.array_equal, self.numpy_rng, now.numpy_rng)  # a repr takes a millisecond
            ),
            "the default dtype": self.dtype != now.dtype,
            "the grad mode": self.grad != now.grad,
        }
        return [name for name, wrong in differs.items() if wrong]

    def restore(self) -> None:
        torch.set_rng_state(self.torch_rng)
        if self.cuda_rng is not None:
            torch.cuda.set_rng_state_all(self.cuda_rng)
        np.random.set_state(self.numpy_rng)
        torch.set_default_dtype(self.dtype)
        torch.set_grad_enabled(self.grad)


@pytest.fixture(autouse=True)
def global_state_unchanged(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that changes global state is an error, unless marked `touches_global_rng`."""
    before = _GlobalState()
    yield
    changed = before.changed()
    if changed:
        before.restore()
        if request.node.get_closest_marker("touches_global_rng") is None:
            pytest.fail(f"the test changed {', '.join(changed)}")
