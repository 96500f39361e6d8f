"""Claim: a network that computes the right quantity is the exact model, whatever it predicts.

For every parametrisation a network returns a x_0 + b eps of a known Gaussian; samples must equal
the exact model's to 1e-9. Also: the time inputs by their formulas, scaling, dtypes, conditions,
refusals.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import EXACT, ConstantEps, defaults, draws, entries, spectrum, two_modes
from strategies import EVERY, every_sde, f64
from support import leaving
from test_model_conversions import hand_row
from torch import nn

from sdekit.errors import (
    ConfigError,
    DtypeError,
    ModelError,
    NonFiniteError,
    ShapeError,
    TimeError,
)
from sdekit.model import MLP, ExactScore, ScoreModel
from sdekit.model.prediction import PerTime, Predictor
from sdekit.sampling import sample
from sdekit.sde import DDPM, EDM, VESDE, VPSDE

KINDS = entries("parametrization")
SDES = defaults("sde")


class Oracle(nn.Module):
    """The output of a parametrisation for a Gaussian with a diagonal covariance, by hand."""

    def __init__(self, kind, sde, law, dtype=torch.float64):
        super().__init__()
        self.kind, self.sde, self.law = kind, sde, law
        self.anchor = nn.Parameter(torch.zeros(1, dtype=dtype))  # the dtype of the network
        self.seen = []

    def forward(self, x, t, **cond):
        self.seen.append((x, t, cond))
        alpha, sigma = self.sde.alpha(t)[:, None], self.sde.sigma(t)[:, None]
        if self.kind.catalogue_name == "edm":  # c_in, undone
            x = x * ((alpha * self.kind.sigma_data) ** 2 + sigma**2).sqrt()
        mean, var = self.law.mean, self.law.cov.diagonal()
        x0 = mean + alpha * var / (alpha**2 * var + sigma**2) * (x - alpha * mean)
        eps = sigma * (x - alpha * mean) / (alpha**2 * var + sigma**2)
        a, b = hand_row(self.kind, self.sde, t)
        return a[:, None] * x0 + b[:, None] * eps


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    "sampler",
    leaving(
        ["ddim", "predictor_corrector", "ancestral", "euler_maruyama", "heun"],
        lambda name: name not in ("ddim", "predictor_corrector"),
    ),
)
def test_samples_do_not_depend_on_the_parametrization(sde, kind, sampler):
    # a grid that ends where x_0 and eps are both well determined: 1e-9 is then far above rounding
    steps = 7
    law = spectrum()
    grid = torch.linspace(0.9, 0.05, steps + 1, dtype=torch.float64) * sde.t_max
    how = dict(sampler=sampler, grid=grid, seed=1, dtype=torch.float64, keep="all")
    exact = sample(ExactScore(law, sde), (5, 4), **how)
    network = Oracle(kind, sde, law)
    model = ScoreModel(network, sde, parametrization=kind)
    found = sample(model, (5, 4), **how)
    scale = float(exact.trajectory.abs().max())
    torch.testing.assert_close(found.trajectory, exact.trajectory, rtol=0, atol=EXACT * scale)
    assert found.nfe == exact.nfe == len(network.seen)


@every_sde
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_calls_and_runs_see_the_same_network(sde, kind):
    """The interactive call and the prepared one agree, also at times not prepared."""
    model = ScoreModel(Oracle(kind, sde, spectrum()), sde, parametrization=kind)
    x, t = draws(1, (3, 4))[0], 0.5 * sde.t_max
    if "ddpm" in sde.kinds:
        t = sde.time(max(1, sde.n // 2))
    prepared = model.bind(x, (t,), {})
    torch.testing.assert_close(prepared(x, t), model(x, t).raw, rtol=1e-14, atol=1e-14)
    late = model.bind(x, (), {})
    torch.testing.assert_close(late(x, t), model(x, t).raw, rtol=1e-14, atol=1e-14)
    each = model(x, torch.full((3,), t, dtype=torch.float64)).raw
    torch.testing.assert_close(each, model(x, t).raw, rtol=1e-14, atol=1e-14)


class Listener(nn.Module):
    """Keeps what it is told; returns zeros."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1, dtype=dtype))
        self.calls = []

    def forward(self, x, time, **cond):
        self.calls.append((x, time, cond))
        return torch.zeros_like(x)


TOLD = {
    "t": lambda sde, t: t,
    "sigma": lambda sde, t: sde.sigma(t) / sde.alpha(t),
    "c_noise": lambda sde, t: (sde.sigma(t) / sde.alpha(t)).log() / 4,
    "log_snr": lambda sde, t: (sde.alpha(t) ** 2 / sde.var(t)).log(),
}


@pytest.mark.parametrize(
    "sde", [VPSDE(), VESDE(), EDM(), DDPM.linear(50), EVERY["sub_vp-0"]], ids=repr
)
@pytest.mark.parametrize("name", TOLD)
def test_time_inputs(sde, name):
    network = Listener()
    model = ScoreModel(network, sde, time_input=name)
    t = f64([0.1, 0.5, 0.9])
    expected = TOLD[name](sde, t)
    model(torch.zeros(3, 2, dtype=torch.float64), t)
    for value, one in zip(expected, t, strict=True):
        model(torch.zeros(2, 2, dtype=torch.float64), float(one))
        assert network.calls[-1][1].shape == (2,)
        torch.testing.assert_close(network.calls[-1][1], value.expand(2), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(network.calls[0][1], expected, rtol=1e-13, atol=1e-13)
    # and in a run: the times that its rows call at
    network.calls.clear()
    grid = f64([0.9, 0.5, 0.1])
    sample(model, (4, 2), grid=grid, seed=0)
    told = torch.stack([call[1] for call in network.calls])
    expected = TOLD[name](sde, grid[:2])[:, None].expand(2, 4)
    torch.testing.assert_close(told, expected, rtol=1e-13, atol=1e-13)


def test_index_is_the_row_of_the_tables():
    sde, network = DDPM.linear(50), Listener()
    model = ScoreModel(network, sde, time_input="index")
    sample(model, (2, 2), seed=0)
    assert [float(call[1][0]) for call in network.calls] == list(range(49, -1, -1))
    with pytest.raises(ConfigError, match=r"index.*vp"):
        ScoreModel(network, VPSDE(), time_input="index")


def test_a_time_input_of_ones_own():
    network = Listener()
    model = ScoreModel(network, VPSDE(), time_input=lambda sde, t: 1000 * t)
    model(torch.zeros(2, 2), 0.25)
    assert network.calls[0][1].tolist() == [250.0, 250.0]


@pytest.mark.parametrize("own", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("kind", ["eps", "edm"])
def test_the_network_runs_in_its_own_dtype(own, dtype, kind):
    """E5, D8: cast on the way in and on the way out; samples keep their dtype."""
    network = Listener(own)
    model = ScoreModel(network, VPSDE(), parametrization=kind)
    seen = model(torch.zeros(3, 2, dtype=dtype), 0.5)
    assert seen.raw.dtype == seen.x0.dtype == seen.score.dtype == dtype
    run = sample(model, (3, 2), steps=2, seed=0, dtype=dtype)
    assert run.x.dtype == dtype
    for x, time, _ in network.calls:
        assert x.dtype == time.dtype == own


def test_a_network_without_parameters_gets_the_samples_dtype():
    seen = []

    def network(x, time):
        seen.append((x.dtype, time.dtype))
        return x

    sample(ScoreModel(network, VPSDE()), (3, 2), steps=2, seed=0, dtype=torch.float64)
    assert {x for x, _ in seen} == {torch.float64}


@pytest.mark.parametrize("kind", ["eps", "edm"])
def test_conditions_reach_the_network(kind):
    network = Listener()
    model = ScoreModel(network, VPSDE(), parametrization=kind)
    label = torch.arange(5)
    sample(model, (5, 2), steps=2, seed=0, cond={"label": label, "scale": 2.0}, chunk=3)
    labels = [call[2]["label"].tolist() for call in network.calls]
    assert labels == [[0, 1, 2], [0, 1, 2], [3, 4], [3, 4]]
    assert {call[2]["scale"] for call in network.calls} == {2.0}
    model(torch.zeros(5, 2), 0.5, label=label)
    assert torch.equal(network.calls[-1][2]["label"], label)


def test_edm_scales_what_the_network_sees():
    network, sde = Listener(), VPSDE()
    model = ScoreModel(network, sde, parametrization="edm(sigma_data=2.0)")
    x = torch.ones(3, 2, dtype=torch.float64)
    expected = (4 * sde.alpha(0.5) ** 2 + sde.var(0.5)) ** -0.5
    model(x, 0.5)
    model.bind(x, (0.5,), {})(x, 0.5)
    model.bind(x, (), {})(x, 0.5)
    for seen, _, _ in network.calls:
        torch.testing.assert_close(seen, expected.expand(3, 2), rtol=1e-14, atol=0)


def test_constructor_refuses():
    """E6: at construction, with the nearest name."""
    with pytest.raises(ConfigError, match=r"parametrization='epsilonn'"):
        ScoreModel(Listener(), VPSDE(), parametrization="epsilonn")
    with pytest.raises(ConfigError, match=r"time_input='c_nois'.*c_noise"):
        ScoreModel(Listener(), VPSDE(), time_input="c_nois")
    with pytest.raises(DtypeError, match="network"):
        ScoreModel(3, VPSDE())
    with pytest.raises(DtypeError, match="sde"):
        ScoreModel(Listener(), "vp")
    with pytest.raises(DtypeError, match="parametrization"):
        ScoreModel(Listener(), VPSDE(), parametrization=None)
    with pytest.raises(DtypeError, match="time_input"):
        ScoreModel(Listener(), VPSDE(), time_input=3)


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (lambda x: x[:, :1], ShapeError),
        (lambda x: x[None], ShapeError),
        (lambda x: x.sum(), ShapeError),
        (lambda x: torch.cat([x, x]), ShapeError),
        (lambda x: None, ModelError),
        (lambda x: (x, x), ModelError),
        (lambda x: x.detach().numpy(), ModelError),
    ],
)
def test_outputs_that_are_none(output, error):
    """E3, E4, in the interactive call."""
    model = ScoreModel(lambda x, t: output(x), VPSDE())
    with pytest.raises(error, match="network"):
        model(torch.zeros(3, 2), 0.5)


def test_inputs_are_checked():
    model = ScoreModel(Listener(), VPSDE())
    with pytest.raises(DtypeError, match="x"):
        model([[0.0, 0.0]], 0.5)
    with pytest.raises(ShapeError):
        model(torch.zeros(3, 2), f64([0.1, 0.2]))
    with pytest.raises(ShapeError):
        model(torch.zeros(()), 0.5)


@pytest.mark.parametrize("model", [ScoreModel(MLP(2), VPSDE()), ExactScore(two_modes(), VPSDE())])
def test_a_call_checks_its_time_and_its_samples(model):
    x = draws(1, (6, 2))[0]
    expected = model(x, 0.5).score
    for shape in ((6,), (6, 1)):
        t = torch.full(shape, 0.5, dtype=torch.float64)
        torch.testing.assert_close(model(x, t).score, expected, rtol=1e-6, atol=1e-6)
    for t in (7.0, -1.0, float("nan"), torch.tensor([0.1] * 5 + [1.5])):
        with pytest.raises(TimeError, match="t must lie in"):
            model(x, t)
    for t in ("a", None, True, torch.tensor(1j)):
        with pytest.raises(DtypeError, match="t must be"):
            model(x, t)
    for shape in ((5,), (1, 6), (6, 2)):
        with pytest.raises(ShapeError, match="t must have shape"):
            model(x, torch.full(shape, 0.5))
    with pytest.raises(NonFiniteError, match=r"x.*\[1\]"):
        model(x.index_fill(0, torch.tensor([1]), float("nan")), 0.5)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_a_network_that_returns_no_floats(dtype):
    model = ScoreModel(lambda x, time: torch.ones_like(x, dtype=dtype), VPSDE())
    with pytest.raises(ModelError, match=str(dtype)):
        model(torch.zeros(2, 2), 0.5)


def test_the_shapes_of_a_network_are_known_without_it():
    for config in ({}, dict(dim=5, width=7, depth=1, frequencies=3, bandwidth=2.0, seed=4)):
        built = {k: tuple(v.shape) for k, v in MLP(**config).state_dict().items()}
        assert MLP.shapes(99, **config) == built


def test_it_is_a_module_and_a_predictor():
    network = MLP(2, width=8, depth=1)
    model = ScoreModel(network, VPSDE())
    assert isinstance(model, Predictor)
    assert isinstance(ConstantEps(torch.zeros(2), VPSDE()), Predictor)
    assert {id(p) for p in model.parameters()} == {id(p) for p in network.parameters()}
    assert sample(model, (3, 2), steps=2, seed=0).x.shape == (3, 2)
    assert not sample(model, (3, 2), steps=2, seed=0).x.requires_grad
    x = torch.zeros(3, 2)
    model(x, 0.5).score.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_two_modes_are_found_by_a_network_too():
    """A mixture through the loop: ScoreModel over the exact score as network."""
    law, sde = two_modes(), VPSDE()
    exact = ExactScore(law, sde)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x, t):
            return exact(x, t).v

    model = ScoreModel(Network(), sde, parametrization="v")
    how = dict(sampler="ancestral", steps=10, seed=0, dtype=torch.float64)
    found, expected = sample(model, (20, 2), **how).x, sample(exact, (20, 2), **how).x
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT * 10)


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize("order", ["down", "up", "any"])
def test_values_per_time_in_any_order(order, window):
    """Windows are taken apart as they are reached, one time after another or not; others alone."""
    asked = []

    def make(t):
        asked.append(len(t))
        return (2 * t)[:, None].expand(len(t), 3)

    times = torch.linspace(1, 0, 300, dtype=torch.float64).tolist()
    values = PerTime(make, times, window=window)
    for t in {"down": times, "up": times[::-1], "any": times[::7] + times[::11]}[order]:
        assert values[t].tolist() == [2 * t] * 3
        assert values[t] is values[t]
        assert len(values) <= (window or 300)
    assert asked == [300]
    assert values[7.0].tolist() == [14.0] * 3
    assert PerTime(make, times, finish=torch.sum)[times[5]] == 6 * times[5]
