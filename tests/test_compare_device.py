"""Claim: a comparison on a GPU says what one on the CPU says; its costs are counted there."""

from __future__ import annotations

import pytest
import torch
from compare_tools import small

from sdekit import catalogue
from sdekit.compare import run
from sdekit.compare.meter import PeakMemory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_rows_are_those_of_the_cpu(tmp_path):
    """Exact rows are the same; a GPU draws noise of its own, so samples agree within errors."""
    metrics = ["exact_wasserstein", "sliced_wasserstein", "energy_distance(points=60)"]
    some = {"metrics": metrics, "seeds": 12, "n": 100}
    there = run(small(device="cuda", **some), out=tmp_path / "gpu", workers=0)
    here = run(small(**some), out=tmp_path / "cpu", workers=0)
    assert {r["status"] for r in there} == {"ok"}
    for a, b in zip(there, here, strict=True):
        assert (a["calls"], a["floor"]) == (b["calls"], b["floor"])
        assert a["cell"] != b["cell"]
        assert 0 < a["memory"] < 8 * b["memory"]  # noise comes in blocks
        if a["exact"]:
            assert a["value"] == b["value"]
        else:  # 16 comparisons at 6 errors with 11 degrees of freedom
            assert abs(a["value"] - b["value"]) < 6 * (a["stderr"] ** 2 + b["stderr"] ** 2) ** 0.5
    assert run(small(device="cuda", **some), out=tmp_path / "again", workers=0) == there


def test_bytes_are_counted_on_the_device():
    with PeakMemory() as seen:
        x = torch.ones(1000, dtype=torch.float64, device="cuda")
        for _ in range(5):
            x = x + 1
    assert seen.peak == 16000


@pytest.mark.parametrize("name", [n for n, e in catalogue("metric").items()
                                  if "law" not in e.cls.needs])  # fmt: skip
def test_metrics_take_tensors_of_the_device(name):
    metric = catalogue("metric")[name].examples()[0]
    law = catalogue("target")["tutorial"].make()
    x, y = (law.sample(300, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    there = metric.measure(x.cuda(), y.cuda(), target=law)
    assert float(there) == float(metric.measure(x, y, target=law))
