"""FAULTS.md A, B, C and D for SDEs: bad input gets an error that names argument and value."""

import fractions
import math

import numpy as np
import pytest
import torch
from strategies import EVERY, every_sde, f64, smooth_times

from sdekit._catalogue import make
from sdekit.errors import (
    ConfigError,
    DeviceError,
    DtypeError,
    NonFiniteError,
    SdekitError,
    ShapeError,
    TimeError,
)
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE

nan, inf = math.nan, math.inf


def raises(error, words, function, *args, **kwargs):
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert all(str(word) in message for word in words), message
    return caught.value


BETAS = [VPSDE, SubVPSDE]
SIGMAS = [VESDE, EDM]

CONSTRUCTORS = [
    *[
        case
        for cls in BETAS
        for case in [
            ("A1", cls, {"beta_min": -1}, ConfigError, ["beta_min", ">= 0", "-1"]),
            ("A1", cls, {"beta_max": -1, "beta_min": 0}, ConfigError, ["beta_max", ">= 0", "-1"]),
            (
                "A2",
                cls,
                {"beta_min": 20, "beta_max": 0.1},
                ConfigError,
                ["beta_min <= beta_max", "swap", 20, 0.1],
            ),
            ("A3", cls, {"beta_min": nan}, ConfigError, ["beta_min", "finite", "nan"]),
            ("A3", cls, {"beta_max": inf}, ConfigError, ["beta_max", "finite", "inf"]),
            ("A3", cls, {"beta_max": 10**400}, ConfigError, ["beta_max", "finite"]),
            (
                "A7",
                cls,
                {"beta_min": 0, "beta_max": 0},
                ConfigError,
                ["beta_min", "degenerate", "no noise"],
            ),
            ("A8", cls, {"beta_min": "a"}, DtypeError, ["beta_min", "'a'"]),
            ("A8", cls, {"beta_min": None}, DtypeError, ["beta_min", "None"]),
            ("A8", cls, {"beta_max": True}, DtypeError, ["beta_max", "True"]),
            ("A8", cls, {"beta_max": np.bool_(True)}, DtypeError, ["beta_max", "True"]),
            ("A8", cls, {"beta_max": 1j}, DtypeError, ["beta_max", "1j"]),
            (
                "A8",
                cls,
                {"beta_max": torch.tensor(2.0, requires_grad=True)},
                DtypeError,
                ["beta_max", "gradient"],
            ),
            (
                "A8",
                cls,
                {"beta_max": torch.tensor([2.0])},
                DtypeError,
                ["beta_max", "0 dimensions"],
            ),
            ("A8", cls, {"beta_max": torch.tensor(True)}, DtypeError, ["beta_max"]),
            ("A8", cls, {"beta_max": torch.tensor(1j)}, DtypeError, ["beta_max"]),
            ("A13", cls, {"beta_mim": 0.1}, TypeError, ["beta_mim", "'beta_min'"]),
        ]
    ],
    *[
        case
        for cls in SIGMAS
        for case in [
            ("A4", cls, {"sigma_min": 0}, ConfigError, ["sigma_min", "> 0", "0"]),
            ("A4", cls, {"sigma_min": 1e-200}, ConfigError, ["sigma_min", "1e-18", "1e-200"]),
            (
                "A5",
                cls,
                {"sigma_min": 50, "sigma_max": 0.01},
                ConfigError,
                ["sigma_min < sigma_max", "swap", 50, 0.01],
            ),
            ("A6", cls, {"sigma_min": -1}, ConfigError, ["sigma_min", "> 0", "-1"]),
            ("A6", cls, {"sigma_max": -1}, ConfigError, ["sigma_max", "> 0", "-1"]),
            (
                "A7",
                cls,
                {"sigma_min": 2, "sigma_max": 2},
                ConfigError,
                ["sigma_min", "degenerate", "2"],
            ),
            ("A8", cls, {"sigma_max": "b"}, DtypeError, ["sigma_max", "'b'"]),
            ("A10", cls, {"sigma_max": 1e30}, ConfigError, ["sigma_max", "1e+18", "1e+30"]),
            ("A13", cls, {"sigma": 3}, TypeError, ["sigma", "sigma_m"]),
        ]
    ],
    *[
        case
        for cls in [VPSDE, SubVPSDE, VESDE, EDM, CosineSDE, FlowSDE]
        for case in [
            ("A9", cls, {"t_max": 0}, ConfigError, ["t_max", "> 0", "0"]),
            ("A9", cls, {"t_max": -2}, ConfigError, ["t_max", "> 0", "-2"]),
            ("A9", cls, {"t_max": inf}, ConfigError, ["t_max", "finite", "inf"]),
            ("A9", cls, {"t_max": nan}, ConfigError, ["t_max", "finite", "nan"]),
            ("C6", cls, {"t_min": 0.5, "t_max": 0.5}, ConfigError, ["t_min", "< 0.5", "0.5"]),
            ("C6", cls, {"t_min": 2}, ConfigError, ["t_min", "2"]),
            ("C6", cls, {"t_min": -0.1}, ConfigError, ["t_min", ">= 0", "-0.1"]),
            ("C6", cls, {"t_min": nan}, ConfigError, ["t_min", "finite", "nan"]),
            ("A13", cls, {"t_mx": 1}, TypeError, ["t_mx", "'t_max'"]),
        ]
    ],
    *[
        ("C6", cls, {"t_min": 0}, ConfigError, ["t_min", "> 0", "var(0)"])
        for cls in [VPSDE, SubVPSDE, CosineSDE, FlowSDE]
    ],
    ("C6", CosineSDE, {"t_max": 1.0}, ConfigError, ["t_max", "< 1", "1"]),
    ("C6", FlowSDE, {"t_max": 1.0}, ConfigError, ["t_max", "< 1", "1"]),
    ("C6", CosineSDE, {"shift": -0.1}, ConfigError, ["shift", ">= 0", "-0.1"]),
    ("C6", CosineSDE, {"shift": 1.0}, ConfigError, ["shift", "< 1"]),
    ("B10", EDM, {"rho": 0}, ConfigError, ["rho", "> 0", "0"]),
    ("B10", EDM, {"rho": -7}, ConfigError, ["rho", "> 0", "-7"]),
    ("B10", EDM, {"rho": 1e-3}, ConfigError, ["rho", "0.001"]),
]


@pytest.mark.parametrize(
    ("cls", "fields", "error", "words"),
    [case[1:] for case in CONSTRUCTORS],
    ids=[f"{case[0]}-{case[1].__name__}-{case[2]!r:.40}" for case in CONSTRUCTORS],
)
def test_constructors(cls, fields, error, words):
    caught = raises(error, words, cls, **fields)
    assert isinstance(caught, SdekitError) or error is TypeError


def test_a8_what_counts_as_a_number():
    """Ints, NumPy scalars, fractions and 0-d tensors are parameters; they become plain floats."""
    for value in (
        2,
        np.float32(2),
        np.int64(2),
        fractions.Fraction(2),
        torch.tensor(2),
        torch.tensor(2.0),
    ):
        sde = VPSDE(beta_min=value)
        assert (type(sde.beta_min), sde.beta_min) == (float, 2.0)
    assert VPSDE(beta_min=np.float32(2)) == VPSDE(beta_min=2)


@pytest.mark.parametrize("low", [1e-18, 1e-8])
@pytest.mark.parametrize("cls", SIGMAS)
def test_a10_large_sigmas_stay_finite(cls, low):
    sde = cls(sigma_min=low, sigma_max=1e18)
    t = torch.linspace(0, 1, 5, dtype=torch.float32)
    for value in (sde.sigma(t), sde.log_snr(t), *sde.transition(t[:-1], t[1:])):
        assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(sde.var(t)).all())
    x = sde.perturb(torch.ones(5, 2), t, torch.ones(5, 2))
    assert bool(torch.isfinite(x).all())
    assert sde.prior_std() == pytest.approx(1e18, rel=1e-12)


def test_a11_alpha_underflows():
    """beta_max = 5000: alpha is 0 in float64, the std 1, every schedule and posterior finite."""
    sde = VPSDE(beta_min=0.1, beta_max=5000.0)
    t = f64([0.5, 0.9, 1.0])
    assert float(sde.alpha(1.0)) == 0.0
    assert float(sde.sigma(1.0)) == 1.0
    parts = [sde.f(t), sde.g2(t), sde.log_snr(t), sde.diffusion(t), *sde.transition(t[:-1], t[1:])]
    parts += [*sde.posterior(t[:-1], t[1:])]
    assert all(bool(torch.isfinite(part).all()) for part in parts)
    assert float(sde.t_from_log_snr(sde.log_snr(1.0))) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("n", [0, -5, 2.5, True, "10", None])
@pytest.mark.parametrize(
    "build", [DDPM.linear, DDPM.cosine, DDPM.sigmoid, DDPM.scaled_linear, VPSDE().discretize]
)
def test_a12_number_of_steps(build, n):
    raises(ConfigError, ["n must be an int >= 1", n], build, n)


def test_a13_by_name():
    raises(ConfigError, ["beta_mim", "'beta_min'"], make, "sde", "vp(beta_mim=0.1)")
    raises(ConfigError, ["liner", "'linear'"], make, "sde", "ddpm(schedule='liner')")
    raises(ConfigError, ["vpp", "'vp'"], make, "sde", "vpp")


# C: times ---------------------------------------------------------------------------------------

SCHEDULES = ["log_alpha", "alpha", "var", "sigma", "log_snr", "f", "g2", "diffusion"]


@every_sde
def test_c1_c2_c5_times_outside(sde):
    end = sde.t_max
    beyond = torch.nextafter(torch.tensor(end), torch.tensor(inf))
    for name in SCHEDULES:
        method = getattr(sde, name)
        for bad in (-1e-9, -1, math.nextafter(end, inf), end + 1, nan, inf, -inf):
            raises(TimeError, ["t must lie in", repr(float(bad))], method, bad)
            raises(TimeError, ["t must lie in"], method, f64([0.5 * end, bad]))
        raises(TimeError, ["t must lie in"], method, torch.nextafter(beyond, torch.tensor(inf)))
        assert bool(torch.isfinite(method(end)))


@pytest.mark.parametrize("bad", ["0.5", None, True, 1j, [0.5], np.array([0.5]), np.array(0.5)])
@pytest.mark.parametrize("key", ["vp-0", "ve-0", "ddpm-0", "two_lambdas", "plain_ou"])
def test_times_of_wrong_type(key, bad):
    sde = EVERY[key]
    for name in SCHEDULES:
        raises(DtypeError, ["t must be"], getattr(sde, name), bad)
    raises(DtypeError, ["s must be"], sde.transition, bad, 0.5)
    raises(DtypeError, ["t must be"], sde.posterior, 0.1, bad)
    raises(DtypeError, ["t must be"], sde.drift, torch.ones(2, 2), bad)


@pytest.mark.parametrize(
    "bad", [torch.tensor(True), torch.tensor(0.5j), torch.tensor([0.5]).to_sparse()], ids=str
)
def test_time_tensors_of_wrong_type(bad):
    raises(DtypeError, ["t must be"], EVERY["vp-0"].alpha, bad)


@every_sde
def test_c3_c10_accepted_times(sde):
    """Floats, NumPy scalars, 0-d, half, bfloat16: schedules in float32 at least."""
    at = float(smooth_times(sde)[-3])
    exact = sde.alpha(at)
    for t in (np.float64(at), f64(at), torch.tensor(at)):
        assert float(sde.alpha(t)) == pytest.approx(float(exact), rel=1e-4)
    for dtype in (torch.float16, torch.bfloat16):
        t = torch.tensor(at, dtype=dtype)
        assert torch.equal(sde.alpha(t), sde.alpha(t.double()).float())


@every_sde
def test_c4_nothing_infinite_at_the_start(sde):
    """At t = 0: kernels are finite, the log-SNR is +inf exactly where var(0) = 0."""
    for value in (sde.alpha(0.0), sde.var(0.0), sde.sigma(0.0), *sde.posterior(0.0, sde.t_max)):
        assert bool(torch.isfinite(value))
    singular = float(sde.var(0.0)) == 0
    assert (float(sde.log_snr(0.0)) == inf) is singular
    assert bool(torch.isfinite(sde.log_snr(sde.t_min))) or sde.closed_start


@every_sde
def test_c9_wrong_order(sde):
    """s > t names both values; s = t is the identity (tested with the kernels)."""
    low, high = (0.25 * sde.t_max, 0.75 * sde.t_max)
    for method in (sde.transition, sde.posterior):
        raises(TimeError, ["s <= t", f"s = {high!r}", f"t = {low!r}"], method, high, low)
        raises(
            TimeError,
            ["s <= t", f"s = {high!r}", f"t = {low!r}"],
            method,
            f64([low, high]),
            f64(low),
        )


# D: samples -------------------------------------------------------------------------------------


def calls(sde):
    """Every public method of samples, as functions of (x, t)."""
    process = sde.reverse(lambda x, t: -x)
    return {
        "drift": lambda x, t: sde.drift(x, t),
        "perturb": lambda x, t: sde.perturb(x, t, torch.zeros(4, 3)),
        "reverse.drift": lambda x, t: process.drift(x, t),
    }


KEYS = [
    "vp-0",
    "sub_vp-0",
    "ve-0",
    "edm-0",
    "cosine-0",
    "flow-0",
    "ddpm-0",
    "two_lambdas",
    "plain_ou",
]
every_call = pytest.mark.parametrize("call", ["drift", "perturb", "reverse.drift"])
every_key = pytest.mark.parametrize("key", KEYS)


@every_call
@every_key
def test_d2_d3_shapes_of_t(key, call):
    function = calls(EVERY[key])[call]
    x = torch.ones(4, 3)
    for shape in [(3,), (5,), (0,), (1, 4), (4, 3), (4, 1, 1), (1, 1, 4)]:
        raises(
            ShapeError, ["t must have shape", "(4,)", shape], function, x, torch.full(shape, 0.5)
        )
    for shape in [(), (4,), (1,), (4, 1), (1, 1)]:
        assert function(x, torch.full(shape, 0.5)).shape == (4, 3)


@pytest.mark.parametrize("key", KEYS)
def test_d3_square_case(key):
    """A row (1, batch) is refused even where batch == dims, where it would broadcast silently."""
    sde, x = EVERY[key], torch.ones(3, 3)
    raises(ShapeError, ["t must have shape", "(1, 3)"], sde.drift, x, torch.full((1, 3), 0.5))
    raises(ShapeError, ["t must have shape", "(1, 3)"], sde.perturb, x, torch.full((1, 3), 0.5), x)


@every_call
@every_key
def test_d5_to_d7_d10_d11_wrong_samples(key, call):
    function = calls(EVERY[key])[call]
    for bad, error, words in [
        (torch.tensor(1.0), ShapeError, ["shape (batch, *dims)", "0-d"]),
        (torch.ones(4, 3, dtype=torch.int64), DtypeError, ["int64", "float"]),
        (torch.ones(4, 3, dtype=torch.complex64), DtypeError, ["complex64"]),
        (torch.ones(4, 3, dtype=torch.bool), DtypeError, ["bool"]),
        (torch.ones(4, 3).to_sparse(), DtypeError, ["sparse"]),
        (np.ones((4, 3)), DtypeError, ["ndarray", "torch.as_tensor"]),
        ([[1.0] * 3] * 4, DtypeError, ["list", "torch.as_tensor"]),
        (None, DtypeError, ["NoneType"]),
    ]:
        raises(error, ["x", *words], function, bad, 0.5)


@every_call
@every_key
def test_d9_devices(key, call):
    """Times on another device are refused; one value on the CPU goes anywhere."""
    function = calls(EVERY[key])[call]
    there, here = torch.ones(4, 3, device="meta"), torch.ones(4, 3)
    if call != "perturb":
        raises(DeviceError, ["x", "t", "meta", "cpu"], function, there, torch.full((4,), 0.5))
        assert function(there, 0.5).device.type == "meta"
        raises(
            DeviceError,
            ["x", "t", "meta", "cpu"],
            function,
            here,
            torch.tensor(0.5, device="meta"),
        )
    else:
        raises(DeviceError, ["noise", "x0", "meta", "cpu"], function, there, 0.5)


@every_key
def test_d12_non_finite_samples(key):
    sde, x = EVERY[key], torch.ones(4, 3)
    x[2, 1] = nan
    x[3, 0] = inf
    raises(NonFiniteError, ["x0", "2 of 4", "[2, 3]"], sde.perturb, x, 0.5, torch.zeros(4, 3))
    raises(NonFiniteError, ["x", "2 of 4", "[2, 3]"], sde.prior_log_prob, x)


@every_key
def test_noise_of_another_kind(key):
    sde, x = EVERY[key], torch.ones(4, 3)
    raises(ShapeError, ["noise", "(4, 3)", "(4, 2)"], sde.perturb, x, 0.5, torch.zeros(4, 2))
    raises(ShapeError, ["noise", "(4, 3)", "(1, 3)"], sde.perturb, x, 0.5, torch.zeros(1, 3))
    raises(
        DtypeError, ["noise", "int64"], sde.perturb, x, 0.5, torch.zeros(4, 3, dtype=torch.int64)
    )
    raises(DtypeError, ["noise", "NoneType"], sde.perturb, x, 0.5, None)
    assert sde.perturb(x, 0.5, torch.zeros(4, 3, dtype=torch.float64)).dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "options", "error", "words"),
    [
        (5, {}, ShapeError, ["shape", "5"]),
        ("ab", {}, ShapeError, ["shape", "ab"]),
        ((2, -1), {}, ConfigError, ["shape", "-1"]),
        ((2, 1.5), {}, DtypeError, ["shape", "1.5"]),
        ((2, 2), {"dtype": torch.int64}, DtypeError, ["dtype", "int64"]),
        ((2, 2), {"dtype": torch.complex64}, DtypeError, ["dtype", "complex64"]),
        ((2, 2), {"dtype": float}, DtypeError, ["dtype", "float"]),
        ((2, 2), {"generator": 3}, DtypeError, ["generator", "3"]),
        (
            (2, 2),
            {"generator": np.random.default_rng(0)},
            DtypeError,
            ["generator", "torch.Generator"],
        ),
    ],
)
@pytest.mark.parametrize("key", ["vp-0", "ve-0"])
def test_prior_sample(key, shape, options, error, words):
    raises(error, words, EVERY[key].prior_sample, shape, **options)


@every_key
def test_prior_log_prob_refuses(key):
    sde = EVERY[key]
    raises(ShapeError, ["x", "0-d"], sde.prior_log_prob, torch.tensor(1.0))
    raises(DtypeError, ["x", "int64"], sde.prior_log_prob, torch.ones(2, 2, dtype=torch.int64))
    raises(DtypeError, ["x", "ndarray"], sde.prior_log_prob, np.ones((2, 2)))
