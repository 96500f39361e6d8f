"""Claim: a comparison on a GPU is the one on the CPU, to rounding; its costs are counted there."""

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
    metrics = ["exact_wasserstein", "sliced_wasserstein", "energy_distance(points=60)"]
    there = run(small(device="cuda", metrics=metrics), out=tmp_path / "gpu", workers=0)
    here = run(small(metrics=metrics), out=tmp_path / "cpu", workers=0)
    assert {r["status"] for r in there} == {"ok"}
    for a, b in zip(there, here, strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-6)
        assert a["values"] == pytest.approx(b["values"], rel=1e-6)
        assert (a["calls"], a["floor"]) == (b["calls"], b["floor"])
        assert a["cell"] != b["cell"]
        assert a["memory"] == pytest.approx(b["memory"], rel=0.5)


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
