"""Claim: what a metric cannot use it refuses by name, and what it can it leaves as it was.

FAULTS D and J5: NaN, shapes, integers, too few samples, devices; float32, bfloat16, images and
constant data give finite numbers; no input is written to.
"""

from __future__ import annotations

import copy
import json
import math
import multiprocessing

import numpy as np
import pytest
import torch
from metrics_support import APART, DISTANCES, OF_LAWS, OF_SAMPLES, budget, normal
from scipy import stats

from sdekit import DDPM, VPSDE, ExactScore, Gaussian, catalogue, make
from sdekit.errors import (
    ConfigError,
    DataError,
    DeviceError,
    DtypeError,
    NonFiniteError,
    ShapeError,
)
from sdekit.exact import attribute_error
from sdekit.metrics import (
    Estimate,
    LawMetric,
    Metric,
    SampleMetric,
    frechet_distance,
    mode_weights,
)

X, Y, TRUE = (normal(60, 2, seed) for seed in range(3))
every_metric = pytest.mark.parametrize("metric", OF_SAMPLES, ids=repr)


def measure(metric, x=X, y=Y, **more):
    return metric.measure(x, y, **{"target": APART, **more})


# what is there -----------------------------------------------------------------------------------


@every_metric
def test_every_metric_of_samples_tells_value_error_and_floor(metric):
    x, y, floor = X.clone(), Y.clone(), TRUE.clone()
    found = measure(metric, x, y, floor=floor, seed=5)
    assert found == measure(metric, x, y, floor=floor, seed=5)
    assert math.isfinite(found)
    assert found.stderr > 0
    assert found.n == 60
    assert not found.exact
    assert found.floor == measure(metric, floor, y, seed=5)
    assert found.floor_stderr == measure(metric, floor, y, seed=5).stderr
    low, high = found.interval()
    assert found.lo <= low <= found <= high <= found.hi
    assert all(map(torch.equal, (x, y, floor), (X, Y, TRUE))), "an input was written to"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["value"] == float(found)
    assert metric.title
    assert metric.unit
    assert metric.better in ("smaller", "larger")
    assert metric.needs <= {"modes", "law"}


@pytest.mark.parametrize("metric", OF_LAWS, ids=repr)
def test_every_metric_of_laws_reads_the_budget(metric):
    found, whole = metric.of(budget()), budget()
    expected = {
        "exact_wasserstein": whole.total.w2,
        "exact_kl": whole.total.kl,
        "exact_total_variation": whole.total.tv,
        "exact_mode_weights": float((whole.weights - whole.truth).abs().max()),  # of two modes
        "exact_discretisation": whole.discretisation.w2,
    }
    assert found == pytest.approx(expected[metric.catalogue_name], rel=1e-12)
    assert (found.stderr, found.floor, found.exact) == (0.0, 0.0, True)
    assert found.interval() == (found, found)
    assert "law" in metric.needs
    assert json.dumps(found.to_json(), allow_nan=False)


def test_the_names_are_these():
    assert set(catalogue("metric")) == {
        "sliced_wasserstein", "wasserstein", "energy_distance", "mmd", "mode_weights", "kl",
        "classifier", "precision", "recall", "frechet", "exact_wasserstein", "exact_kl",
        "exact_total_variation", "exact_mode_weights", "exact_discretisation",
    }  # fmt: skip


def test_the_tutorials_weights_are_known():
    """Of the DDPM tutorial with 100 steps: 60 % where 80 % are true."""
    found = make("metric", "exact_mode_weights").of(budget())
    assert found.detail["truth"] == pytest.approx([0.2, 0.8], abs=1e-5)
    assert found.detail["weights"] == pytest.approx([0.4, 0.6], abs=0.005)


# what is refused ---------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize("which", ["x", "y", "floor"])
def test_nan_is_refused_with_its_rows(metric, which):
    if which == "y" and "modes" in metric.needs:
        return  # y is not used
    bad = X.clone()
    bad[7, 1] = math.nan
    with pytest.raises(NonFiniteError, match=rf"{which}\b.*first: \[7\]"):
        measure(metric, **{which: bad})


WRONG = {
    "another dimension": (X[:, :1], ShapeError),
    "no samples": (X[:0], DataError),
    "one sample": (X[:1], DataError),
    "a number": (torch.tensor(1.0), ShapeError),
    "integers": (torch.ones(60, 2, dtype=torch.int64), DtypeError),
    "complex": (torch.ones(60, 2, dtype=torch.complex64), DtypeError),
    "numpy": (X.numpy(), DtypeError),
    "a list": ([[1.0, 2.0]] * 60, DtypeError),
    "sparse": (torch.ones(60, 2).to_sparse(), DtypeError),
    "infinite": (X + math.inf, NonFiniteError),
    "values whose squares overflow": (X * 1e200, NonFiniteError),
    "another device": (torch.ones(60, 2, device="meta", dtype=torch.float64), DeviceError),
}


@every_metric
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_set_is_refused(metric, case):
    given, error = WRONG[case]
    with pytest.raises(error, match=r"\bx\b|floor"):
        measure(metric, given)


@every_metric
def test_too_few_samples_are_told_how_many(metric):
    with pytest.raises(DataError, match=r"at least \d+ samples"):
        measure(metric, X[:2], Y[:2])


def test_sets_of_two_sizes():
    with pytest.raises(DataError, match="sliced_wasserstein"):
        make("metric", "wasserstein").measure(X, Y[:50])
    cut = make("metric", "wasserstein(points=40)")
    assert cut.measure(X, Y[:50]) == cut.measure(X[:40], Y[:40])
    for name in DISTANCES:
        if name != "wasserstein":
            assert make("metric", name).measure(X, Y[:50]) > 0


@pytest.mark.parametrize(
    "target", [None, Gaussian([0.0, 0.0], 1.0), make("target", "checkerboard")]
)
def test_a_target_without_modes_is_told_what_would_do(target):
    with pytest.raises(DataError, match="GaussianMixture"):
        mode_weights(X, target)


def test_a_target_without_density():
    with pytest.raises(DataError, match="density=False"):
        make("metric", "kl(density=True)").measure(X, Y, target=make("target", "checkerboard"))


@pytest.mark.parametrize(
    "text",
    [
        "sliced_wasserstein(directions=0)", "wasserstein(points=1)", "mmd(bandwidth=0.0)",
        "mmd(permutations=-1)", "kl(k=0)", "kl(points=6)", "precision(k=0)", "classifier(k=4)",
        "energy_distance(points=0)", "recall(points=2)", "classifier(points=1)",
    ],
)  # fmt: skip
def test_a_field_out_of_range_is_refused(text):
    with pytest.raises(ConfigError):
        make("metric", text)


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ConfigError), (1.5, DtypeError), ("0", DtypeError)]
)
@every_metric
def test_a_seed_is_a_count(metric, seed, error):
    with pytest.raises(error, match="seed"):
        measure(metric, seed=seed)


def test_features_are_checked():
    with pytest.raises(DtypeError, match="features"):
        frechet_distance(X, Y, features=3)
    with pytest.raises(ShapeError, match="rows"):
        frechet_distance(X, Y, features=lambda x: x[:5])
    with pytest.raises(DtypeError, match="features"):
        frechet_distance(X, Y, features=lambda x: None)


def test_a_budget_of_samples_or_without_the_number_is_refused():
    law = Gaussian([0.0, 0.0], [[1.0, 0.5], [0.5, 2.0]])
    exact = attribute_error("ddim", ExactScore(law, VPSDE()), steps=5, method="exact")
    with pytest.raises(DataError, match="modes"):
        make("metric", "exact_mode_weights").of(exact)
    model = ExactScore(make("target", "tutorial"), DDPM.linear(10))
    drawn = attribute_error("ancestral", model, method="samples", n=100)
    for metric in OF_LAWS:
        with pytest.raises(DataError, match="exact"):
            metric.of(drawn)
        with pytest.raises(DtypeError, match="ErrorBudget"):
            metric.of(0.5)


# what is accepted --------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_narrow_dtype_is_computed_with_in_float64(metric, dtype):
    x, y = X.to(dtype), Y.to(dtype)
    assert measure(metric, x, y) == measure(metric, x.double(), y.double())


@every_metric
def test_images_strides_and_gradients(metric):
    if "modes" in metric.needs:
        return  # a mixture's samples are vectors
    images = normal(60, 12, 3).reshape(60, 3, 2, 2), normal(60, 12, 4).reshape(60, 3, 2, 2)
    flat = measure(metric, *(x.reshape(60, 12) for x in images))
    assert measure(metric, *images) == flat
    strided = [x.to(memory_format=torch.channels_last) for x in images]
    assert measure(metric, *strided) == flat
    asked = [x.clone().requires_grad_() for x in images]
    assert measure(metric, *asked) == flat


@every_metric
@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_constant_data_give_finite_numbers(metric, gap):
    x, y = torch.full((60, 2), 6.0 + gap), torch.full((60, 2), 6.0)
    found = measure(metric, x, y, floor=y)
    assert all(math.isfinite(v) for v in (found, found.stderr, found.floor, *found.interval()))
    if gap == 0 and metric.catalogue_name in DISTANCES:
        assert found == 0


@every_metric
def test_cuda_is_moved_once(metric, device):
    assert measure(metric, X.to(device), Y.to(device)) == measure(metric)


# an estimate -------------------------------------------------------------------------------------


def test_an_estimate_is_a_float_that_survives_copies():
    found = Estimate(0.5, stderr=0.1, df=4, floor=0.2, p_value=0.3, n=7, detail={"a": [1]}, lo=0.4)
    here, there = multiprocessing.Pipe()
    there.send(found)  # by pickle
    for copied in (copy.copy(found), copy.deepcopy(found), here.recv()):
        assert type(copied) is Estimate
        assert copied == found
        assert vars(copied) == vars(found)
    assert found + 1 == 1.5
    assert np.mean([found, found]) == 0.5


def test_an_interval_is_students_within_the_range():
    found = Estimate(0.5, stderr=0.1, df=4, lo=0.4)
    half = 0.1 * stats.t(4).ppf(0.95)
    assert found.interval(0.9) == (0.4, pytest.approx(0.5 + half))
    assert Estimate(0.5, stderr=0.1).interval(0.9)[1] == pytest.approx(
        0.5 + 0.1 * stats.norm.ppf(0.95)
    )
    assert all(map(math.isnan, Estimate(0.5).interval()))
    with pytest.raises(ConfigError, match="level"):
        found.interval(1.0)


def test_what_is_not_finite_is_null_in_json():
    found = Estimate(math.inf, stderr=math.nan).to_json()
    assert list(found) == [
        "value", "stderr", "df", "floor", "floor_stderr", "p_value", "n", "exact", "detail",
    ]  # fmt: skip
    assert [found[key] for key in ("value", "stderr", "df", "floor")] == [None] * 4


def test_metrics_are_abstract_or_final():
    for base in (Metric, SampleMetric, LawMetric):
        with pytest.raises(TypeError, match="abstract"):
            base()
