"""Synthetic experiments for the tests of the report: cells as the runner stores them."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import stats

HOSTILE = (
    "<script>alert(1)</script>", '"onload=alert(1) x="', "</style></script><b>",
    "![](http://x.y)", "a|b", "`tick``", '=cmd()|"calc"', "\x1b]0;owned\x07",
    "two\nlines\r\tand", "\u202eevil\u2028\u2029", "-1+1", "@SUM(A1)", "{{7*7}} ${1} datum.x",
    "<img src=http://x.y/p onerror=alert(1)>", "\N{SNOWMAN} \U0001f600",
)  # fmt: skip

SWD = ("sliced_wasserstein(directions=128)", "sliced W2", "units of the data", "smaller")
W2 = ("exact_wasserstein()", "exact W2", "units of the data", "smaller")
MMD = ("mmd()", "squared MMD", "squared kernel distance", "smaller")
PRECISION = ("precision()", "precision", "probability", "larger")
WEIGHTS = ("mode_weights()", "mode weights", "probability", "smaller")
EXACT_WEIGHTS = ("exact_mode_weights()", "exact mode weights", "probability", "smaller")
ALL = (SWD, W2, MMD, PRECISION, WEIGHTS, EXACT_WEIGHTS)
SAMPLERS = {"ddim(eta=0.0)": 1, "heun(churn=0.0)": 2, "dpmpp_2m(order=2)": 2, "unipc(order=2)": 2,
            "ancestral(variance='posterior')": 0.7}  # fmt: skip
SDES = ("vp(beta_min=0.1, beta_max=20.0)", "ve(sigma_min=0.01, sigma_max=50.0)")


@dataclass
class Stored:
    """What `sdekit.compare.store.load` gives."""

    experiment: Any
    rows: list[dict[str, Any]] = field(default_factory=list)
    cells: list[dict[str, Any]] = field(default_factory=list)
    truth: dict[str, Any] = field(default_factory=dict)
    missing: int = 0
    environment: dict[str, str] = field(default_factory=dict)


def row(**given: Any) -> dict[str, Any]:
    """A row with every key of the contract; `given` replaces what is plain."""
    plain: dict[str, Any] = {
        "cell": "000000000000", "data": "tutorial()", "score": "exact",
        "model": "exact score of tutorial()", "sde": SDES[0], "sampler": "ddim(eta=0.0)",
        "grid": "uniform()", "steps": 10, "calls": 10.0, "vjps": 0, "rejected": 0.0,
        "memory": None, "metric": SWD[0], "title": SWD[1], "unit": SWD[2], "better": "smaller",
        "exact": False, "status": "ok", "reason": "", "value": 1.0, "stderr": None, "low": None,
        "high": None, "floor": None, "floor_stderr": None, "p_value": None, "n": 2000,
        "seeds": [0], "values": [], "floors": [], "detail": {},
    }  # fmt: skip
    assert given.keys() <= plain.keys(), given.keys() - plain.keys()
    return {**plain, **given}


def sampled(values: list[float], **given: Any) -> dict[str, Any]:
    """A row of a sampled metric from its values by seed."""
    v = np.asarray(values)
    mean = float(v.mean())
    stderr = float(v.std(ddof=1) / math.sqrt(len(v))) if len(v) > 1 else None
    half = None if stderr is None else float(stats.t.ppf(0.975, len(v) - 1)) * stderr
    return row(
        value=mean, stderr=stderr, values=v.tolist(), seeds=list(range(len(v))),
        low=None if half is None else mean - half, high=None if half is None else mean + half,
        **given,
    )  # fmt: skip


def stored(
    *,
    datas: tuple[str, ...] = ("tutorial()",),
    sdes: tuple[str, ...] = SDES,
    samplers: dict[str, float] = SAMPLERS,
    grids: tuple[str, ...] = ("uniform()",),
    steps: tuple[int, ...] = (5, 10, 20, 50),
    metrics: tuple[tuple[str, str, str, str], ...] = ALL,
    seeds: int = 4,
    failing: tuple[str, ...] = (),
    name: str = "quick",
    points: int = 200,
    times: int = 11,
) -> Stored:
    """An experiment of which every number follows from its spec."""
    rng = np.random.default_rng(7)
    out = Stored(
        SimpleNamespace(
            name=name, seeds=tuple(range(seeds)), n=2000, metrics=(),
            to_toml=lambda: f"name = {json.dumps(name)}\nsteps = {list(steps)}\n",
        ),
        environment={"sdekit": "0.1.0", "torch": "2.13.0", "python": "3.11", "cpu": "two"},
    )  # fmt: skip
    shared = {seed: rng.normal(size=64) for seed in range(seeds)}
    for data in datas:
        side = rng.random((300, 1)) < 0.8
        truth = np.where(side, -3.0, 3.0) + rng.normal(size=(300, 2))
        out.truth[data] = {"x": [np.round(truth, 3).tolist()]}
        for sde in sdes:
            for k, (sampler, order) in enumerate(samplers.items()):
                for grid in grids:
                    for count in steps:
                        spec = {
                            "data": data, "score": "exact", "model": f"exact score of {data}",
                            "sde": sde, "sampler": sampler, "grid": grid, "steps": count,
                        }  # fmt: skip
                        cell = _cell(spec, order, k, metrics, shared, truth, points, times, rng)
                        if sampler in failing and count == steps[-1]:
                            cell = _failed(cell, "NonFiniteError: step 3, t = 0.5: NaN in 12 rows")
                        out.cells.append(cell)
                        out.rows += cell["rows"]
    return out


def _failed(cell: dict[str, Any], reason: str) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ["value", "stderr", "low", "high", "floor", "floor_stderr", "calls"], None
    )
    rows = [
        {**r, **nothing, "status": "FAILED", "reason": reason, "values": [], "detail": {}}
        for r in cell["rows"]
    ]
    return {**cell, "status": "FAILED", "reason": reason, "rows": rows, "budget": None,
            "picture": None}  # fmt: skip


def _cell(spec, order, k, metrics, shared, truth, points, times, rng):
    name = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]
    calls = float(spec["steps"] * (2 if "heun" in spec["sampler"] else 1))
    error = (2.0 if "vp" in spec["sde"] else 3.0) * (1 + 0.2 * k) * (calls / 4) ** -order
    seeds = list(shared)
    about = {"cell": name, **spec, "calls": calls}
    rows = []
    for metric in metrics:
        same = {**about, **dict(zip(("metric", "title", "unit", "better"), metric, strict=True))}
        floors = [0.05 + 0.002 * float(shared[s][0]) for s in seeds]
        noise = [0.01 * float(shared[s][1] + 0.2 * rng.normal()) for s in seeds]
        noisy = {"floor": 0.05, "floor_stderr": 0.002, "floors": floors}
        shift = min(0.15, error / 10)
        detail = {"weights": [0.2 + shift, 0.8 - shift], "truth": [0.2, 0.8]}
        if metric == W2:
            rows.append(row(**same, value=error, stderr=0.0, low=error, high=error, floor=0.0,
                            exact=True, seeds=[]))  # fmt: skip
        elif metric == EXACT_WEIGHTS:
            rows.append(row(**same, value=shift, stderr=0.0, low=shift, high=shift, floor=0.0,
                            exact=True, seeds=[], detail={**detail, "stderr": None}))  # fmt: skip
        elif metric == MMD:
            rows.append(sampled([error**2 / 9 + z / 10 for z in noise], **same,
                                **{**noisy, "floor": 0.0, "floor_stderr": 1e-4}))  # fmt: skip
        elif metric == PRECISION:
            rows.append(sampled([1 - min(0.9, error / 4) + z / 5 for z in noise], **same,
                                **{**noisy, "floor": 0.97}))  # fmt: skip
        elif metric == WEIGHTS:
            detail["stderr"] = [0.005, 0.005]
            away = [shift + abs(z) / 3 for z in noise]
            rows.append(sampled(away, **same, detail=detail, floor=0.007))
        else:
            rows.append(sampled([math.hypot(error, 0.05) + z for z in noise], **same, **noisy))
    start = 0.02 * (1 + k)
    parts = {"initialisation": start, "truncation": 0.004, "discretisation": 0.9 * error,
             "score": 0.0, "interaction": 0.1 * error - start - 0.004, "total": error}  # fmt: skip
    t = np.linspace(1, 0, times)
    scale = 1.0 if "vp" in spec["sde"] else 50.0
    ends = truth[:points] + rng.normal(scale=error / 10, size=truth[:points].shape)
    z = rng.normal(size=ends.shape)
    states = [np.round((1 - s) * ends + scale * s * z, 3).tolist() for s in t]
    seconds = [0.01 * calls + 0.001 * i for i in seeds]
    return {
        "format": 1, "cell": name, "spec": spec, "status": "ok", "reason": "", "rows": rows,
        "budget": {
            "cause": "discretisation", "exact": True, "truth": [0.2, 0.8], "mode": 1,
            "weights": [0.2, 0.8],
            "effects": {key: {"w2": w, "kl": None, "tv": None, "weights": None, "stderr": 0.0,
                              "weights_stderr": None} for key, w in parts.items()},
        },
        "picture": {"t": np.round(t, 4).tolist(), "x": states},
        "times": {"seconds": seconds, "network": [0.8 * s for s in seconds], "calls": calls},
    }  # fmt: skip
