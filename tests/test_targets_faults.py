"""Bad parameters and bad samples are refused with an error that names them; laws never change."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from support import assert_close

from sdekit._catalogue import catalogue, make
from sdekit.errors import (
    ConfigError,
    DataError,
    DtypeError,
    NonFiniteError,
    SdekitError,
    ShapeError,
)
from sdekit.targets import Empirical, ExactTarget, Gaussian, GaussianMixture, Tutorial

EYE = [[1.0, 0.0], [0.0, 1.0]]
LAWS = [
    example.perturbed(0.9, 0.2)
    for entry in catalogue("target").values()
    if issubclass(entry.cls, ExactTarget)
    for example in entry.examples()
]
every_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: repr(law)[:40])


BAD_GAUSSIAN_PARAMETERS = [
    (([], 1.0), ShapeError, "mean"),
    ((1.0, 1.0), ShapeError, "mean"),
    (([[0.0]], 1.0), ShapeError, "mean"),
    (([0.0, math.nan], 1.0), ConfigError, r"mean\[1\]"),
    ((["a"], 1.0), DtypeError, "mean"),
    (([True], 1.0), DtypeError, "mean"),
    ((None, 1.0), DtypeError, "mean"),
    ((np.zeros(2), 1.0), DtypeError, "as_tensor"),
    ((torch.zeros(2).long(), 1.0), DtypeError, "cast to float"),
    ((torch.zeros(2) + 0j, 1.0), DtypeError, "mean"),
    (([0.0, 0.0], -1.0), ConfigError, "cov .*>= 0"),
    (([0.0, 0.0], math.inf), ConfigError, "cov"),
    (([0.0, 0.0], [1.0, 2.0]), ShapeError, r"cov .*\(2, 2\)"),
    (([0.0], EYE), ShapeError, r"\(1, 1\)"),
    (([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), ConfigError, "cov .*symmetric"),
    (([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), ConfigError, "cov .*eigenvalue -1"),
    (([0.0, 0.0], [[1.0, 0.0], [0.0, -2.0]]), ConfigError, "cov .*eigenvalue -2"),
    (([0.0, 0.0], [[1.0], [0.0, 1.0]]), ShapeError, "unequal"),
    (([0.0], True), DtypeError, "cov"),
    (([0.0], torch.ones(1, 1, device="meta")), SdekitError, "meta"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_GAUSSIAN_PARAMETERS)
def test_gaussian_parameters(arguments, error, words):
    with pytest.raises(error, match=words):
        Gaussian(*arguments)


BAD_MIXTURE_PARAMETERS = [
    (([0.5, 0.6], EYE, 1.0), ConfigError, "sum of 1.1"),
    (([1.5, -0.5], EYE, 1.0), ConfigError, r"weights\[1\]"),
    (([0.5, 0.5], [[0.0]], 1.0), ShapeError, "means .*2 weights"),
    ((1.0, EYE, 1.0), ShapeError, "weights"),
    (([], EYE, 1.0), ShapeError, "weights"),
    (([0.5, 0.5], [0.0, 1.0], 1.0), ShapeError, "means"),
    (([0.5, 0.5], EYE, [1.0, 2.0, 3.0]), ShapeError, "covs .*2 weights"),
    (([0.5, 0.5], EYE, EYE), ShapeError, "covs"),
    (([0.5, 0.5], EYE, [1.0, -2.0]), ConfigError, r"covs\[1\]"),
    (([0.5, 0.5], EYE, [EYE, [[1.0, 0.3], [0.0, 1.0]]]), ConfigError, r"covs\[1\] .*symmetric"),
    (([0.5, 0.5], EYE, [EYE, [[1.0, 3.0], [3.0, 1.0]]]), ConfigError, r"covs\[1\] .*eigenvalue"),
    (([0.5, 0.5], EYE, [EYE, [[1.0, math.nan], [0.0, 1.0]]]), ConfigError, r"covs\[1, 0, 1\]"),
    (([0.5, 0.5], [[0.0], [math.inf]], 1.0), ConfigError, r"means\[1, 0\]"),
    ((np.ones(1), [[0.0]], 1.0), DtypeError, "weights"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_MIXTURE_PARAMETERS)
def test_mixture_parameters(arguments, error, words):
    with pytest.raises(error, match=words):
        GaussianMixture(*arguments)


BAD_DATA = [
    (torch.zeros(0, 2), DataError, "at least one"),
    (torch.zeros(3, 0), DataError, "at least one"),
    (torch.zeros(3), ShapeError, "data"),
    (torch.tensor([[0.0], [math.nan], [math.inf]]), DataError, r"2 of 3.*\[1, 2\]"),
    (torch.zeros(3, 2).long(), DtypeError, "cast to float"),
    (np.zeros((3, 2)), DtypeError, "as_tensor"),
    ([[0.0], ["a"]], DtypeError, "data"),
    (None, DtypeError, "data"),
]


@pytest.mark.parametrize(("data", "error", "words"), BAD_DATA)
def test_data(data, error, words):
    with pytest.raises(error, match=words):
        Empirical(data)


@every_law
def test_bad_samples_and_levels(law):
    good = torch.zeros(2, *law.shape)
    nan = good.clone()
    nan[1] = math.nan
    for method in (law.log_prob, law.score, lambda x: law.denoise(x, 0.5, 0.5)):
        for x in (torch.tensor(1.0), good[0], good[..., :0], torch.zeros(2, *law.shape, 1)):
            with pytest.raises(ShapeError, match="x must"):
                method(x)
        for x in (good.long(), good + 0j, good.numpy(), good.tolist(), good.to_sparse()):
            with pytest.raises(DtypeError, match="x must"):
                method(x)
        with pytest.raises(NonFiniteError, match=r"1 of 2 rows, first: \[1\]"):
            method(nan)
        assert len(method(good[:0])) == 0
    assert law.score(good[:0]).shape == good[:0].shape
    for alpha, var, error in ((1.0, -1.0, ConfigError), (math.nan, 1.0, ConfigError),
                              (1.0, math.inf, ConfigError), ("1", 1.0, DtypeError),
                              (1.0, None, DtypeError), (True, 1.0, DtypeError)):  # fmt: skip
        with pytest.raises(error, match=r"alpha|var"):
            law.perturbed(alpha, var)
    with pytest.raises(ConfigError, match="alpha"):
        law.denoise(good, 0.0, 1.0)


@every_law
def test_half_types_are_kept_and_computed_in_float32(law):
    x = torch.randn(5, *law.shape, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16):
        half = x.to(dtype)
        assert torch.equal(law.score(half), law.score(half.float()).to(dtype))
        assert torch.equal(law.log_prob(half), law.log_prob(half.float()).to(dtype))


@every_law
def test_inputs_are_not_mutated_and_meta_tensors_pass(law):
    x = torch.randn(5, *law.shape, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    law.score(x), law.log_prob(x), law.denoise(x, 0.5, 0.5)
    assert torch.equal(x, before)
    assert law.score(x.to("meta")).shape == x.shape


@pytest.mark.parametrize("law", [
    Gaussian([0.0, 0.0], 0.0), Gaussian([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]),
    Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 0.0]]), GaussianMixture([0.5, 0.5], EYE, [1.0, 0.0]),
    Tutorial().perturbed(0.0, 0.0), Empirical([[0.0, 1.0]]),
], ids=str)  # fmt: skip
def test_a_singular_law_says_to_perturb_it(law):
    for method in (law.log_prob, law.score):
        with pytest.raises(ConfigError, match=r"no density.*perturbed"):
            method(torch.zeros(1, 2))
    assert law.sample(3).shape == (3, 2)
    assert torch.isfinite(law.perturbed(1.0, 0.1).score(torch.zeros(1, 2))).all()


@every_law
def test_laws_are_frozen_and_survive_copies(law):
    with pytest.raises(AttributeError, match="frozen"):
        law.shape = (3,)
    with pytest.raises(AttributeError, match="frozen"):
        del law.shape
    x = torch.randn(4, *law.shape, generator=torch.Generator().manual_seed(0))
    law.score(x)
    for other in (copy.deepcopy(law), pickle.loads(pickle.dumps(law))):
        assert other == law
        assert hash(other) == hash(law)
        assert torch.equal(other.score(x), law.score(x))
    assert law != object()


@every_law
def test_a_spelling_gives_an_equal_law(law):
    assert make("target", repr(law)) == law


def test_parameters_are_copied_and_own_nothing_of_the_caller():
    means = torch.zeros(2, 2)
    law = GaussianMixture([0.2, 0.8], means, 1.0)
    means += 5
    law.means.add_(7)
    assert torch.equal(law.means, torch.zeros(2, 2).double())
    data = torch.zeros(2, 2)
    law = Empirical(data)
    data += 5
    law.data.add_(7)
    assert torch.equal(law.data, torch.zeros(2, 2))


def test_a_spelling_is_readable_and_a_long_one_is_short():
    text = "gaussian_mixture(weights=[0.2, 0.8], means=[[3.0, 3.0], [-3.0, -3.0]], covs=1.0)"
    law = make("target", text)
    assert repr(law) == text
    assert law == make("target", "tutorial")
    assert isinstance(law, ExactTarget)
    assert repr(Gaussian(torch.zeros(1000), 1.0)) == "Gaussian(<mean (1000,)>, <cov (1000, 1000)>)"
    with pytest.raises(ConfigError, match="'weights'"):
        make("target", "gaussian_mixture(weigths=[1.0])")
    with pytest.raises(ConfigError, match="tutorial"):
        make("target", "tutorial(n=3)")


def test_weights_within_rounding_are_normalised_once():
    law = GaussianMixture(torch.tensor([0.1, 0.2, 0.7]), [[0.0], [1.0], [2.0]], 1.0)
    assert abs(math.fsum(law.weights.tolist()) - 1) < 1e-15
    assert make("target", repr(law)) == law


@every_law
def test_a_law_first_used_in_inference_mode_or_a_transform_works_with_autograd_later(law):
    def fresh():
        return law.perturbed(1.0, 0.0)

    x = torch.randn(3, *law.shape, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.functional.jacobian(lambda v: fresh().score(v), x)
    with torch.inference_mode():
        cold = law.perturbed(1.0, 0.0)
        cold.score(x), cold.log_prob(x)
    assert_close(torch.autograd.functional.jacobian(cold.score, x), expected)
    cold = fresh()
    inside = torch.func.jacrev(cold.score)(x)
    assert_close(inside, expected)
    torch.func.grad(lambda s: (s * cold.log_prob(x)).sum())(torch.tensor(1.0))
    assert_close(torch.autograd.functional.jacobian(cold.score, x), expected)
    assert torch.isfinite(cold.log_prob(x)).all()
