"""Claim: bad input and failing models get the error that FAULTS.md promises, and leave no trace.

Sections D and E, black box: the class of the error, a message that names the argument or the
place, no model call where the fault is in the arguments, and modes restored afterwards.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sampling_support import Given, Wrapped, each, entries, two_modes
from strategies import f64
from torch import nn

from sdekit.errors import (
    ConfigError,
    DeviceError,
    DtypeError,
    ModelError,
    NonFiniteError,
    SdekitError,
    ShapeError,
    SolverError,
    TimeError,
)  # fmt: skip
from sdekit.model import MLP, ExactScore, ScoreModel
from sdekit.sampling import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    EulerMaruyama,
    Heun,
    Langevin,
    PredictorCorrector,
    ProbabilityFlow,
    iterate,
    sample,
)  # fmt: skip
from sdekit.sampling.base import LARGE
from sdekit.sde import VESDE, VPSDE
from sdekit.targets import Gaussian

MODEL = ExactScore(two_modes(), VPSDE())


def refused(error, *words, model=MODEL, shape=(3, 2), **how):
    """The call raises before any model call; all words are in the message."""
    seen = Wrapped(model)
    with pytest.raises(error) as caught:
        sample(seen, shape, **{"seed": 0, "steps": 3, **how})
    assert isinstance(caught.value, SdekitError)
    assert seen.calls == 0
    for word in words:
        assert word in str(caught.value), caught.value


# arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: DDIM(eta=-0.1), ConfigError, ["eta", "-0.1"]),  # E12
        (lambda: DDIM(eta=1.1), ConfigError, ["eta", "1.1"]),
        (lambda: DDIM(eta=math.nan), ConfigError, ["eta", "nan"]),
        (lambda: DDIM(eta="1"), DtypeError, ["eta", "'1'"]),
        (lambda: DDIM(eta=True), DtypeError, ["eta", "True"]),
        (lambda: DDIM(etta=1), TypeError, ["etta", "eta"]),
        (lambda: EulerMaruyama(eta=-1), ConfigError, ["eta", "-1"]),
        (lambda: Ancestral(variance="betta"), ConfigError, ["variance", "'betta'", "'beta'"]),
        (lambda: Ancestral(variance=1.5), ConfigError, ["variance", "1.5"]),
        (lambda: Ancestral(variance=-0.1), ConfigError, ["variance", "-0.1"]),
        (lambda: Ancestral(variance=None), DtypeError, ["variance", "None"]),
        (lambda: Heun(churn=-1), ConfigError, ["churn", "-1"]),
        (lambda: Heun(churn_min=-1), ConfigError, ["churn_min", "-1"]),
        (lambda: Heun(noise_scale=-1), ConfigError, ["noise_scale", "-1"]),
        (lambda: Heun(churn_min=2, churn_max=1), ConfigError, ["churn_max", "2", "1"]),
        (lambda: Langevin(snr=0), ConfigError, ["snr", "0"]),  # E21
        (lambda: Langevin(snr=-0.1), ConfigError, ["snr", "-0.1"]),
        (lambda: Langevin(rule="norm"), ConfigError, ["rule", "'norm'"]),
        (lambda: Langevin(repeats=0), ConfigError, ["repeats", "0"]),
        (lambda: Langevin(repeats=1.5), DtypeError, ["repeats", "1.5"]),
        (lambda: AnnealedLangevin(snr=0), ConfigError, ["snr"]),
        (lambda: AnnealedLangevin(repeats=0), ConfigError, ["repeats"]),
        (
            lambda: PredictorCorrector(predictor="ancestrall"),
            ConfigError,
            ["predictor", "ancestral"],
        ),
        (lambda: PredictorCorrector(predictor="langevin"), ConfigError, ["predictor", "langevin"]),
        (lambda: PredictorCorrector(predictor="probability_flow"), ConfigError, ["predictor"]),
        (lambda: PredictorCorrector(corrector="ddim"), ConfigError, ["corrector", "ddim"]),
        (lambda: PredictorCorrector(corrections=0), ConfigError, ["corrections", "0"]),
        (lambda: PredictorCorrector(first="last"), ConfigError, ["first", "'last'", "corrector"]),
        (lambda: PredictorCorrector(corrector=3), DtypeError, ["corrector", "3"]),
    ],
)
def test_constructors(make, error, words):
    with pytest.raises(error) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("sampler", entries("sampler").values(), ids=repr)
def test_samplers_are_frozen_values(sampler):
    with pytest.raises(AttributeError):
        sampler.anything = 3
    assert eval_spelling(sampler) == sampler
    assert hash(eval_spelling(sampler)) == hash(sampler)


def eval_spelling(sampler):
    from sdekit._catalogue import make

    return make("sampler", repr(sampler))


def test_names():
    refused(ConfigError, "sampler", "'ddimm'", "'ddim'", sampler="ddimm")  # E19
    refused(ConfigError, "eta", sampler="ddim(etta=1)")
    refused(DtypeError, "sampler", sampler=3)
    refused(ConfigError, "grid", "'karas'", "'karras'", grid="karas")
    refused(ConfigError, "on_nonfinite", "'ignore'", on_nonfinite="ignore")
    refused(ConfigError, "prior", "'normal'", "standard", prior="normal")
    refused(DtypeError, "prior", prior=3)


@pytest.mark.parametrize("shape", [(), 3, "32", None, torch.zeros(2)])
def test_shapes(shape):
    refused((ShapeError, DtypeError), "shape", shape=shape)


def test_shape_entries():
    refused(ConfigError, "shape", "-1", shape=(-1, 2))
    refused(DtypeError, "shape", "2.5", shape=(2.5, 2))
    with pytest.raises(ShapeError, match=r"\(2,\).*\(5,\)"):
        sample(MODEL, (3, 5))


def test_x_init():
    refused(ShapeError, "x_init", "(3, 2)", "(4, 2)", x_init=torch.zeros(4, 2))
    refused(DtypeError, "float", x_init=torch.zeros(3, 2, dtype=torch.int64))  # D6
    refused(DtypeError, "complex", x_init=torch.zeros(3, 2, dtype=torch.complex64))  # D7
    refused(DtypeError, "x_init", "as_tensor", x_init=[[0.0, 0.0]] * 3)  # D11
    refused(DtypeError, "x_init", "as_tensor", x_init=np.zeros((3, 2)))
    refused(NonFiniteError, "x_init", "[1]", x_init=f64([[0, 0], [0, math.nan], [0, 0]]))  # D12
    refused(DtypeError, "x_init", "to_dense", x_init=torch.zeros(3, 2).to_sparse())
    refused(
        DeviceError, "x_init", "meta", "cpu", x_init=torch.zeros(3, 2, device="meta"), device="cpu"
    )  # D9


def test_other_arguments():
    refused(ConfigError, "keep", "1", keep=1)
    refused(DtypeError, "keep", "'some'", keep="some")
    refused(ConfigError, "chunk", "0", chunk=0)
    refused(DtypeError, "chunk", "2.5", chunk=2.5)
    refused(ConfigError, "max_nfe", "0", max_nfe=0)
    refused(DtypeError, "dtype", "int64", dtype=torch.int64)
    refused(DtypeError, "dtype", "'float32'", dtype="float32")
    refused(DtypeError, "noise", noise=3)
    refused(DtypeError, "callback", callback=3)
    refused(DtypeError, "cond", "[1]", cond=[1])
    with pytest.raises(DtypeError, match="cond must be a mapping"):
        iterate(MODEL, torch.zeros(3, 2), sampler="ddim", grid="uniform", cond=3)
    refused(ConfigError, "x_init", "prior", x_init=torch.zeros(3, 2), prior=MODEL.target)
    for device in ("foo", 3.4, "cuda:99"):
        refused(DeviceError, "device", str(device), device=device)
    refused(ConfigError, "steps", "1000000", steps=10**6 + 1)
    refused(ShapeError, "prior", "(3,)", prior=Gaussian([0.0, 0.0, 0.0], 1.0))
    with pytest.raises(ShapeError, match="label"):
        sample(MODEL, (3, 2), cond={"label": 3})


@pytest.mark.parametrize(
    ("noise", "error", "word"),
    [
        (lambda x: torch.ones(1, 2), ShapeError, "(1, 2)"),
        (lambda x: torch.ones(2), ShapeError, "(3, 2)"),
        (lambda x: None, DtypeError, "NoneType"),
        (lambda x: torch.ones(3, 2, dtype=torch.int64), DtypeError, "int64"),
        (lambda x: torch.ones(3, 2, device="meta"), DeviceError, "meta"),
    ],
)
def test_draws_of_a_source_of_ones_own(noise, error, word):
    """One that does not fit is neither broadcast nor taken for the samples."""
    for how in ({}, {"x_init": torch.zeros(3, 2)}, {"seed": 0}):
        with pytest.raises(error) as caught:
            sample(MODEL, (3, 2), sampler="ancestral", steps=3, noise=noise, **how)
        assert "noise(x)" in str(caught.value)
        assert word in str(caught.value)
    with pytest.raises(error):
        list(iterate(MODEL, torch.zeros(3, 2), sampler="ancestral", grid="uniform", noise=noise))


@pytest.mark.parametrize("model", [None, 3, nn.Linear, lambda x, t: x, "vp", VPSDE()])
def test_what_is_no_model(model):
    with pytest.raises(ModelError, match="model"):
        sample(model, (3, 2))
    with pytest.raises(ModelError, match="model"):
        iterate(model, torch.zeros(3, 2), sampler="ddim", grid="uniform")


def test_iterate_refuses_too():
    def run(x, **how):
        return list(iterate(MODEL, x, **{"sampler": "ddim", "grid": "uniform", "steps": 2, **how}))

    x = torch.zeros(3, 2)
    for error, word, value in (
        (ShapeError, "x", torch.zeros(())), (DtypeError, "x", [[0.0, 0.0]]),
        (NonFiniteError, "x", torch.full((3, 2), math.nan)),
        (DtypeError, "x", torch.zeros(3, 2).long()),
    ):  # fmt: skip
        with pytest.raises(error, match=word):
            run(value)
    with pytest.raises(ShapeError):
        run(torch.zeros(3, 5))
    with pytest.raises(DtypeError, match="seed"):
        run(x, noise="a")
    with pytest.raises(ConfigError, match="sampler"):
        run(x, sampler="ddmi")
    with pytest.raises(TimeError):
        run(x, grid=f64([0.1, 0.9]), steps=None)


# sizes ------------------------------------------------------------------------------------------


def test_an_empty_batch():
    """D4: an empty result, and the model is not called."""
    model = Wrapped(MODEL)
    run = sample(model, (0, 2), steps=3, keep="all")
    assert run.x.shape == (0, 2)
    assert (run.nfe, model.calls) == (0, 0)


@pytest.mark.parametrize("dims", [(), (1,), (1, 1, 1), (3, 4, 5), (100_000,)])
@pytest.mark.parametrize(
    "sampler", ["ddim", "heun", "predictor_corrector", "langevin(rule='sample_norm')"]
)
def test_any_dimensions(dims, sampler):
    """D5."""
    model = Given(lambda x, t: -x, VPSDE())
    for n in (1, 2):
        run = sample(model, (n, *dims), sampler=sampler, steps=2, seed=0)
        assert run.x.shape == (n, *dims)
        assert bool(torch.isfinite(run.x).all())


@pytest.mark.parametrize("sampler", each(entries("sampler")))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_kept(sampler, dtype):
    """D8: from x_init or from dtype, at every frame."""
    model = Given(lambda x, t: -x, VPSDE(t_min=0.05))
    if dtype.itemsize == 2 and "adaptive" in sampler.needs:
        return  # a tolerance of 1e-5 has no meaning there
    run = sample(model, (3, 2), sampler=sampler, steps=3, seed=0, dtype=dtype, keep="all")
    assert run.x.dtype == run.trajectory.dtype == dtype
    x = torch.ones(3, 2, dtype=dtype)
    assert sample(model, (3, 2), sampler=sampler, steps=3, seed=0, x_init=x).x.dtype == dtype


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 3).t(),
        torch.zeros(1, 2).expand(3, 2),
        torch.zeros(3, 2, requires_grad=True),
        torch.zeros(6, 2)[::2],
    ],
    ids=["transposed", "expanded", "requires grad", "strided"],
)
@pytest.mark.parametrize(
    "sampler", ["ddim", "ancestral", "heun(churn=2, churn_max=1)", "predictor_corrector"]
)
def test_any_layout(x, sampler):
    """D10: the same values, and the input untouched."""
    how = dict(sampler=sampler, steps=3, seed=0)
    before = x.detach().clone()
    expected = sample(MODEL, (3, 2), x_init=before.clone(), **how).x
    assert torch.equal(sample(MODEL, (3, 2), x_init=x, **how).x, expected)
    assert torch.equal(x.detach(), before)


# models that fail -------------------------------------------------------------------------------


def failing(output, at: float = 2.0, sde=None):
    """A model that returns `output(x)` from time `at` downwards, and a fair score before."""

    class Failing:
        def __init__(self):
            self.sde = sde or VPSDE()
            self.parametrization = MODEL.parametrization

        def bind(self, x, times, cond):
            return lambda x, t: output(x) if t <= at else -x

        def __call__(self, x, t, **cond):
            raise AssertionError("bound")

    return Failing()


OUTPUTS = [
    (lambda x: x[:, :1], ShapeError, ["(3, 2)", "(3, 1)"]),  # E3
    (lambda x: x[None], ShapeError, ["(3, 2)", "(1, 3, 2)"]),
    (lambda x: x.sum(), ShapeError, ["(3, 2)", "()"]),
    (lambda x: torch.cat([x, x[:1]]), ShapeError, ["(3, 2)", "(4, 2)"]),
    (lambda x: None, ModelError, ["NoneType"]),  # E4
    (lambda x: (x, x), ModelError, ["tuple"]),
    (lambda x: x.numpy(), ModelError, ["ndarray"]),
    (lambda x: x.long(), ModelError, ["int64"]),
    (lambda x: x.to(torch.complex64), ModelError, ["complex64"]),
    (lambda x: torch.zeros(3, 2, device="meta"), DeviceError, ["meta", "cpu"]),  # E5
]


@pytest.mark.parametrize(("output", "error", "words"), OUTPUTS)
@pytest.mark.parametrize("sampler", ["ddim", "heun", "langevin", "probability_flow"])
def test_outputs_that_are_none(output, error, words, sampler):
    with pytest.raises(error) as caught:
        sample(failing(output), (3, 2), sampler=sampler, steps=4, seed=0)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("output", "error", "words"), OUTPUTS[:6])
def test_outputs_that_turn_bad_on_the_way(output, error, words):
    """Not only the first call is looked at."""
    with pytest.raises(error):
        sample(failing(output, at=0.5), (3, 2), steps=10, seed=0)


def test_a_wider_output_is_cast():
    """E5: float64 from the model, float32 samples."""
    run = sample(failing(lambda x: -x.double()), (3, 2), steps=3, seed=0, dtype=torch.float32)
    assert run.x.dtype == torch.float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("steps", [3, 40, 100])
@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "heun", "predictor_corrector"])
def test_a_state_that_is_not_finite(bad, steps, sampler):
    """E1, E2: the step, its time, the fraction and the first rows, whenever it is noticed."""

    def output(x):
        return torch.where(torch.arange(len(x))[:, None] == 1, bad, -x)

    for at in (2.0, 0.4):
        model = failing(output, at=at)
        clean = sample(failing(lambda x: -x), (3, 2), sampler=sampler, steps=steps, seed=0).grid
        # the first row that calls the model at or below `at`
        ends = [float(s) for t, s in pairwise(clean)
                if t <= at or (sampler == "heun" and s <= at)]  # fmt: skip
        with pytest.raises(NonFiniteError) as caught:
            sample(model, (3, 2), sampler=sampler, steps=steps, seed=0)
        message = str(caught.value)
        step = clean.tolist().index(ends[0])
        for word in (
            f"step {step} ",
            f"t = {ends[0]:.6g}",
            "1 of 3",
            "33.3%",
            "[1]",
            "on_nonfinite",
        ):
            assert word in message, message


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_a_large_state_that_is_not_finite(sampler):
    """No good state is kept of it: every row is looked at instead."""
    n = LARGE // 2 + 1
    bad = failing(lambda x: x * math.nan, at=0.86)
    with pytest.raises(NonFiniteError, match=r"after step 7 of 40.*32769 of 32769 samples"):
        sample(bad, (n, 2), sampler=sampler, steps=40, seed=0)


def test_a_state_that_is_not_finite_with_any_source():
    """Also where the noise cannot be set back, or the run is stopped at once."""
    for noise in (torch.randn_like, lambda x: torch.zeros_like(x)):
        state = torch.get_rng_state()
        with pytest.raises(NonFiniteError, match=r"step 7 of 40"):
            sample(
                failing(lambda x: x * math.nan, at=0.86), (3, 2), sampler="ancestral", steps=40,
                noise=noise, x_init=torch.zeros(3, 2),
            )  # fmt: skip
        torch.set_rng_state(state)


def test_non_finite_samples_on_demand():
    run = sample(failing(lambda x: x * math.nan), (3, 2), steps=3, seed=0, on_nonfinite="return")
    assert bool(run.x.isnan().all())
    with pytest.raises(NonFiniteError, match="denoised"):
        sample(failing(lambda x: x * math.nan, at=1e-3), (3, 2), steps=3, seed=0, denoise=True)
    out = sample(
        failing(lambda x: x * math.nan, at=1e-3),
        (3, 2),
        steps=3,
        seed=0,
        denoise=True,
        on_nonfinite="return",
    )
    assert bool(out.x.isnan().all())


def test_large_but_finite_samples_are_fine():
    """A sum that overflows is not a state that does."""
    model = Given(lambda x, t: torch.zeros_like(x), VESDE())
    x = torch.full((4, 2), 3e38)
    run = sample(model, (4, 2), sampler="euler_maruyama(eta=0)", steps=3, x_init=x)
    assert torch.equal(run.x, x)


def test_a_model_that_writes_into_its_input():
    """E17."""
    for at in (2.0, 0.5):
        with pytest.raises(ModelError, match="in place"):
            sample(failing(lambda x: x.mul_(0.5), at=at), (3, 2), steps=4, seed=0)
        x = torch.ones(3, 2)
        with pytest.raises(ModelError, match="in place"):
            sample(failing(lambda x: x.zero_(), at=at), (3, 2), steps=4, x_init=x)


def test_a_model_that_keeps_its_input():
    seen = []
    run = sample(failing(lambda x: (seen.append(x), -x)[1]), (3, 2), steps=4, seed=0, keep="all")
    for x, state in zip(seen, run.trajectory, strict=False):
        assert torch.equal(x, state)


class Broken(Exception):
    pass


class Network(nn.Module):
    def __init__(self, fail_at=None):
        super().__init__()
        self.inner = nn.Sequential(nn.Dropout(0.5), nn.Identity())
        self.scale = nn.Parameter(torch.ones(1))
        self.fail_at, self.calls, self.modes = fail_at, 0, []

    def forward(self, x, t):
        self.calls += 1
        self.modes.append((self.training, self.inner.training, torch.is_grad_enabled()))
        if self.calls == self.fail_at:
            raise Broken("out of luck")
        return self.inner(x) * self.scale


@pytest.mark.parametrize("fail_at", [None, 1, 3])
def test_modes_are_restored(fail_at):
    """E15, E16, E22: evaluation and no gradients inside; outside all is as it was."""
    network = Network(fail_at)
    model = ScoreModel(network, VPSDE())
    model.train()
    network.inner.eval()
    grad = torch.is_grad_enabled()
    if fail_at is None:
        run = sample(model, (3, 2), steps=4, seed=0)
        assert not run.x.requires_grad
    else:
        with pytest.raises(
            ModelError, match=rf"Broken.*call {fail_at}.*t = .*out of luck"
        ) as caught:
            sample(model, (3, 2), steps=4, seed=0)
        assert isinstance(caught.value.__cause__, Broken)
    assert network.modes[0] == (False, False, False)
    assert (model.training, network.training, network.inner.training) == (True, True, False)
    assert network.inner[0].training is False
    assert torch.is_grad_enabled() == grad


def test_gradients_flow_through_the_loop_on_demand():
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    frames = list(iterate(MODEL, x, sampler="ddim", grid="uniform", steps=3))
    frames[-1].x.sum().backward()
    h, direction = 1e-6, torch.ones(3, 2, dtype=torch.float64)
    how = dict(sampler="ddim", steps=3)
    up = sample(MODEL, (3, 2), x_init=x.detach() + h * direction, **how).x.sum()
    down = sample(MODEL, (3, 2), x_init=x.detach() - h * direction, **how).x.sum()
    assert float(x.grad.sum()) == pytest.approx(float((up - down) / (2 * h)), rel=1e-6)


def test_a_stopped_run_is_checked_and_returned():
    frames = []
    run = sample(
        MODEL, (3, 2), steps=10, seed=0, callback=lambda f: frames.append(f) or f.step == 4
    )
    assert [frame.step for frame in frames] == [0, 1, 2, 3, 4]
    assert torch.equal(run.x, frames[-1].x)
    assert run.nfe == 4
    with pytest.raises(NonFiniteError):
        sample(
            failing(lambda x: x * math.nan),
            (3, 2),
            steps=50,
            seed=0,
            callback=lambda f: f.step == 2,
        )


def test_an_error_in_a_callback_is_the_callers():
    def callback(frame):
        raise Broken("mine")

    network = MLP(2, width=4, depth=1).train()
    with pytest.raises(Broken):
        sample(ScoreModel(network, VPSDE()), (3, 2), steps=4, seed=0, callback=callback)
    assert network.training


def test_a_sdekit_error_of_the_model_stays_what_it_is():
    def output(x):
        raise ShapeError("mine")

    with pytest.raises(ShapeError, match=r"^mine$"):
        sample(failing(output), (3, 2), steps=2, seed=0)


def test_an_adaptive_solve_passes_model_errors_on():
    for solver in ("dopri5", "scipy:RK45"):
        with pytest.raises(ModelError, match="NoneType"):
            sample(failing(lambda x: None), (3, 2), sampler=ProbabilityFlow(solver=solver), seed=0)
        with pytest.raises(SolverError, match="max_nfe=5"):
            sample(MODEL, (3, 2), sampler=ProbabilityFlow(solver=solver, max_nfe=5), seed=0)
