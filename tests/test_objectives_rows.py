"""Claim: a loss takes times, types and conditions of every allowed form, and bad input is named.

Property 45 (finite at t_min); FAULTS sections D and E for losses. Rows and gradients are checks of
the kit.
"""

import pytest
import torch
from support import assert_close, leaving

from sdekit import DDPM, DSM, VPSDE, ExactScore, Gaussian, ScoreModel, catalogue
from sdekit.errors import (
    ConfigError,
    DataError,
    DeviceError,
    DtypeError,
    ModelError,
    NonFiniteError,
    ShapeError,
    TimeError,
)  # fmt: skip
from sdekit.model import MLP

SDES = [sde for entry in catalogue("sde").values() for sde in entry.examples()]
PARAMETRISATIONS = list(catalogue("parametrization"))
OBJECTIVES = [
    objective for entry in catalogue("objective").values() for objective in entry.examples()
]
objectives = pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)


def elementwise(x, time):
    return torch.tanh(x) + time.reshape(-1, *[1] * (x.ndim - 1))


def batch(sde, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, *shape, generator=generator)
    u = torch.rand(shape[0], generator=generator, dtype=torch.float64)
    return x0, sde.to_model_time(sde.t_min + u * (sde.t_max - sde.t_min)), noise


@objectives
def test_prepared_rows_are_the_same_loss(objective):
    """What a trainer does: prepare many batches at once and cut rows."""
    model, x0 = ScoreModel(elementwise, VPSDE(), uncertainty=True), batch(VPSDE(), 12, 3)[0]
    terms = objective.prepare(model, x0, torch.Generator().manual_seed(1))
    parts = [objective.losses(model, *(term[i : i + 4] for term in terms)) for i in (0, 4, 8)]
    called = objective(model, x0, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.cat(parts), called)


@pytest.mark.parametrize(
    "t", [0.3, torch.tensor(0.3), torch.full((4,), 0.3), torch.full((4, 1), 0.3)]
)
def test_times_of_every_allowed_shape(t):
    x0, _, noise = batch(VPSDE(), 4, 2)
    model = ScoreModel(elementwise, VPSDE())
    expected = DSM().loss_at(model, x0, torch.full((4,), 0.3, dtype=torch.float64), noise)
    assert_close(DSM().loss_at(model, x0, t, noise), expected, tol=1e-6)


@objectives
@pytest.mark.parametrize(
    "parametrization", leaving([*PARAMETRISATIONS], lambda name: name not in ("eps", "edm"))
)
@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_finite_at_the_ends(sde, parametrization, objective):
    """At t_min, where the first node of a chain stands in for the data itself, and at t_max."""
    x0, _, noise = batch(sde, 4, 2)
    model = ScoreModel(elementwise, sde, parametrization=parametrization, uncertainty=True)
    for t in (sde.t_min, sde.t_max):
        at = float(sde.to_model_time(torch.tensor(t, dtype=torch.float64)))
        assert bool(objective.loss_at(model, x0, at, noise).isfinite().all()), t


def test_x0_is_trained_as_precisely_as_eps():
    """An exact x_0 has no error at t = 1e-6, where (x - alpha x_0) / sigma loses every digit."""
    x0 = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) + 100
    noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    model = ScoreModel(lambda x, time: x0, VPSDE(t_min=1e-6), parametrization="x0")
    assert float(DSM().loss_at(model, x0, 1e-6, noise).max()) == 0
    plain = (model((VPSDE().perturb(x0, 1e-6, noise)), 1e-6).eps - noise).square()
    assert float(plain.max()) > 1e-4  # what the difference of the two would have given


def test_inputs_are_left_as_they_are():
    x0, t, noise = batch(VPSDE(), 4, 2)
    before = [v.clone() for v in (x0, t, noise)]
    DSM().loss_at(ScoreModel(elementwise, VPSDE(), parametrization="x0"), x0, t, noise)
    assert all(torch.equal(a, b) for a, b in zip((x0, t, noise), before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    """The loss is float32 at least: squares of half types overflow."""
    model = ScoreModel(MLP(2, width=8, depth=1), VPSDE())
    loss = DSM()(model, torch.zeros(4, 2, dtype=dtype))
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    huge = ScoreModel(lambda x, time: torch.full_like(x, 3e4), VPSDE())
    assert bool(DSM()(huge, torch.zeros(4, 2, dtype=dtype)).isfinite().all())


def test_a_predictor_that_names_no_parametrisation():
    """It is taken by its noise."""
    exact = ExactScore(Gaussian([0.0, 0.0], 1.0), VPSDE())

    class Wrapped:
        sde = exact.sde

        def __call__(self, x, t):
            return exact(x, t)

    x0, t, noise = batch(VPSDE(), 4, 2)
    expected = DSM().loss_at(exact, x0, t, noise)
    assert_close(DSM().loss_at(Wrapped(), x0, t, noise), expected, tol=1e-5)


def test_conditions_reach_the_network():
    model = ScoreModel(lambda x, time, label: x + label[:, None], VPSDE())
    label, x0 = torch.tensor([0.0, 1.0]), torch.zeros(2, 2)
    loss = DSM().loss_at(model, x0, 0.5, torch.zeros(2, 2), label=label)
    assert loss.tolist() == [0.0, 1.0]


MODEL = ScoreModel(elementwise, VPSDE())
X0, NOISE = torch.zeros(4, 2), torch.zeros(4, 2)
NAN = torch.zeros(4, 2).index_fill(0, torch.tensor([2]), float("nan"))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: DSM()(MODEL, torch.zeros(0, 2)), DataError, ["x0", "(0, 2)"]),
        (lambda: DSM()(MODEL, torch.zeros(4, 0)), DataError, ["x0"]),
        (lambda: DSM()(MODEL, torch.tensor(1.0)), ShapeError, ["x0", "0-d"]),
        (lambda: DSM()(MODEL, NAN), NonFiniteError, ["x0", "[2]"]),
        (lambda: DSM()(MODEL, torch.zeros(4, 2, dtype=torch.int64)), DtypeError, ["x0", "int64"]),
        (lambda: DSM()(MODEL, X0.to(torch.complex64)), DtypeError, ["complex64"]),
        (lambda: DSM()(MODEL, X0.numpy()), DtypeError, ["ndarray", "as_tensor"]),
        (lambda: DSM()(MODEL, X0, generator=3), DtypeError, ["generator", "3"]),
        (lambda: DSM()(MODEL, X0.to("meta"), generator=torch.Generator()), DeviceError, ["meta"]),
        (lambda: DSM().loss_at(MODEL, X0, 0.5, X0[:, :1]), ShapeError, ["noise", "(4, 1)"]),
        (lambda: DSM().loss_at(MODEL, X0, torch.zeros(3) + 0.5, NOISE), ShapeError, ["t", "(3,)"]),
        (lambda: DSM().loss_at(MODEL, X0, torch.zeros(1, 4) + 0.5, NOISE), ShapeError, ["(1, 4)"]),
        (lambda: DSM().loss_at(MODEL, X0, 1.5, NOISE), TimeError, ["1.5"]),
        (lambda: DSM().loss_at(MODEL, X0, float("nan"), NOISE), TimeError, ["nan"]),
        (
            lambda: DSM(weighting="likelihood").loss_at(MODEL, X0, 0.0, NOISE),
            TimeError, ["0.0", "likelihood"],
        ),
        (lambda: DSM(weighting="likelyhood"), ConfigError, ["likelyhood", "likelihood"]),
        (lambda: DSM(weighting=3), DtypeError, ["weighting", "3"]),
        (lambda: DSM(time="unifrom"), ConfigError, ["unifrom", "uniform"]),
        (lambda: DSM(reduction="max"), ConfigError, ["max", "mean"]),
        (lambda: DSM(wieghting="simple"), TypeError, ["wieghting", "weighting"]),
        (lambda: DSM()(object(), X0), ConfigError, ["linear SDE"]),
        (lambda: DSM()(ScoreModel(lambda x, t: None, VPSDE()), X0), ModelError, ["NoneType"]),
        (lambda: DSM()(ScoreModel(lambda x, t: x[:, :1], VPSDE()), X0), ShapeError, ["(4, 1)"]),
    ],
)  # fmt: skip
def test_bad_input(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_model_that_returns_no_prediction():
    class Bare:
        sde = VPSDE()

        def __call__(self, x, t):
            return x

    with pytest.raises(ModelError, match="Prediction"):
        DSM()(Bare(), X0)


@objectives
def test_spelling(objective):
    """The repr makes the same objective again."""
    from sdekit._catalogue import make

    assert make("objective", repr(objective)) == objective
    assert hash(make("objective", repr(objective))) == hash(objective)


def test_no_model_is_called_at_the_data_of_a_chain():
    """The first node is finite; the data itself is refused where the weight is not."""
    model = ScoreModel(elementwise, DDPM.linear(4))
    assert bool(DSM().loss_at(model, X0, 0.25, NOISE).isfinite().all())
    with pytest.raises(TimeError, match=r"0\.0"):
        DSM(weighting="likelihood").loss_at(model, X0, 0.0, NOISE)
