"""Properties 1 to 6: f and g^2 are those of the moment equations, and the schedules are sound.

d alpha/dt = f alpha and d var/dt = 2 f var + g^2, by differences that know nothing of autograd.
"""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from strategies import EPS, every_sde, kinks, room, sdes, smooth_times, unit_times

from sdekit.sde import VESDE, VPSDE, LinearSDE, SubVPSDE

FIVE_POINT = 1e-7  # truncation (h/t)^4 / 30 and rounding eps t/h, with h = room/1000


def slope(function, t, h):
    """The five-point difference of a function of time."""
    near = function(t + h) - function(t - h)
    far = function(t + 2 * h) - function(t - 2 * h)
    return (8 * near - far) / (12 * h)


def moment_residuals(sde, t, f=None, g2=None):
    """The two moment equations' residuals, each over the size of its own terms."""
    f = sde.f(t) if f is None else f
    g2 = sde.g2(t) if g2 is None else g2
    h = 1e-3 * room(sde, t)
    first = slope(sde.log_alpha, t, h)
    var, second = sde.var(t), slope(sde.var, t, h)
    noise = 40 * EPS / h  # of a difference quotient, on a quantity of size 1
    mean = (first - f).abs() / (
        first.abs() + f.abs() + noise * sde.log_alpha(t).abs() / FIVE_POINT
    )
    size = second.abs() + 2 * (f * var).abs() + g2 + noise * var / FIVE_POINT
    return mean.nan_to_num(0.0), (second - 2 * f * var - g2).abs() / size


@every_sde
def test_moment_equations(sde):
    mean, var = moment_residuals(sde, smooth_times(sde))
    assert float(mean.max()) <= FIVE_POINT
    assert float(var.max()) <= FIVE_POINT


@given(sde=sdes(), data=st.data())
def test_moment_equations_of_drawn_sdes(sde, data):
    units = data.draw(st.lists(unit_times, min_size=3, max_size=3), label="units")
    t = torch.tensor(units, dtype=torch.float64) * sde.t_max
    t = t[(room(sde, t) > 1e-3 * t) & (room(sde, t) > 1e-9 * (len(kinks(sde)) > 0))]
    if len(t):
        mean, var = moment_residuals(sde, t)
        assert float(mean.max()) <= FIVE_POINT
        assert float(var.max()) <= FIVE_POINT


@every_sde
def test_drift_and_diffusion_are_f_and_g(sde):
    """What the papers write out by hand equals what is derived from log_alpha and var."""
    t = smooth_times(sde)
    x = torch.linspace(-2.0, 3.0, len(t), dtype=torch.float64)[:, None]
    f, g2 = LinearSDE.f(sde, t), LinearSDE.g2(sde, t)
    scale = f.abs() + 1e-3
    assert (
        float(((sde.drift(x, t) - f[:, None] * x).abs() / (scale[:, None] * x.abs())).max())
        <= 1e-10
    )
    size = g2 + 2 * (f * sde.var(t)).abs()
    assert float(((sde.diffusion(t).square() - g2).abs() / size).max()) <= 1e-10
    assert float(((sde.g2(t) - g2).abs() / size).max()) <= 1e-10
    assert float(((sde.f(t) - f).abs() / scale).max()) <= 1e-10


@every_sde
def test_start(sde):
    """Property 3: alpha(0) = 1; var(0) is what the SDE declares: 0, sigma_min^2 or var0."""
    assert float(sde.alpha(0.0)) == 1.0
    assert float(sde.log_alpha(0.0)) == 0.0
    declared = getattr(sde, "sigma_min", 0.0) ** 2 or getattr(
        sde, "var0", getattr(sde, "start", 0.0)
    )
    assert float(sde.var(0.0)) == pytest.approx(declared, rel=1e-14, abs=0)
    assert sde.closed_start or sde.t_min > 0 or declared > 0


@every_sde
def test_schedules_are_sound(sde):
    """Properties 4 to 6: sigma^2 = var, signs, finite, log-SNR strictly decreasing."""
    t = torch.cat(
        [smooth_times(sde, 60, low=1e-12), torch.tensor([sde.t_max], dtype=torch.float64)]
    )
    var, alpha = sde.var(t), sde.alpha(t)
    assert torch.allclose(sde.sigma(t).square(), var, rtol=4 * EPS, atol=0)
    assert torch.allclose(alpha.log(), sde.log_alpha(t), rtol=1e-14, atol=4 * EPS)
    for value in (var, alpha, sde.g2(t)):
        assert bool(torch.isfinite(value).all())
        assert bool((value > 0).all())
    assert bool(torch.isfinite(sde.f(t)).all())
    assert bool((sde.log_snr(t).diff() < 0).all())
    expected = 2 * sde.log_alpha(t) - var.log()
    assert torch.allclose(sde.log_snr(t), expected, rtol=1e-13, atol=1e-13)


@given(sde=sdes(), data=st.data())
def test_log_snr_decreases(sde, data):
    """Property 6 at drawn neighbours, kinks and nodes included."""
    t = data.draw(unit_times, label="t/t_max") * sde.t_max
    s = t * (1 - data.draw(st.sampled_from([0.5, 1e-2, 1e-6]), label="gap"))
    at = [*kinks(sde), t][data.draw(st.integers(0, len(kinks(sde))), label="place")]
    for low, high in ((s, t), (at * (1 - 1e-6), at), (at, min(at * (1 + 1e-6), sde.t_max))):
        if low < high:
            above, below = float(sde.log_snr(low)), float(sde.log_snr(high))
            if high - low > 1e-7 * sde.t_max:
                assert above > below
            else:  # on VE the SNR is finite at 0, and this gap is below its rounding
                assert above >= below - 4 * EPS * abs(below)


@pytest.mark.parametrize("name", ["alpha", "sigma", "var", "log_alpha", "f", "g2", "diffusion"])
@every_sde
def test_peer_bug_13_coefficients_are_finite_on_the_closed_interval(sde, name):
    """flow_matching's VP and linear-VP schedules have d_sigma = -inf at an end of the interval."""
    ends = [0.0, sde.t_min, sde.t_max]
    if name in ("f", "g2", "diffusion") and sde.t_min > 0:
        ends = ends[1:]  # d sqrt(...) at 0 is the schedule's own business where 0 is not its end
    assert bool(torch.isfinite(getattr(sde, name)(torch.tensor(ends, dtype=torch.float64))).all())
    wrong = 1 / (1 - torch.tensor(1.0))  # sigma' = -t/sqrt(1 - t^2) of that schedule, at t = 1
    assert not torch.isfinite(wrong)


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE()], ids=["vp", "sub_vp", "ve"])
def test_peer_bug_1_half_missing_in_sigma_prime(sde):
    """deepinv: sigma' = xi/(s^2 sigma) without its half makes g^2 twice the marginals' own."""
    t = smooth_times(sde)
    wrong = moment_residuals(sde, t, g2=2 * sde.g2(t))[1]
    assert float(wrong.min()) > 1e3 * FIVE_POINT
    assert float(moment_residuals(sde, t)[1].max()) <= FIVE_POINT


def test_peer_bug_2_square_root_inside_and_rate_of_the_mean():
    """deepinv: s = exp(-int beta) for a drift of -beta/2, and sigma from sqrt(2 xi) for xi."""
    sde = VPSDE()
    t = smooth_times(sde)
    beta = 0.1 + 19.9 * t
    mean, _ = moment_residuals(sde, t, f=-beta)
    assert float(mean.min()) > 1e3 * FIVE_POINT
    _, var = moment_residuals(sde, t, g2=beta.sqrt())
    assert float(var.median()) > 1e3 * FIVE_POINT
    right = moment_residuals(sde, t, f=-0.5 * beta, g2=beta)
    assert max(float(each.max()) for each in right) <= FIVE_POINT


def test_beta_is_the_papers():
    """Song et al., eqs. 11 and 29: f = -beta/2, log alpha = -t^2 (b1 - b0)/4 - t b0/2."""
    sde = VPSDE(beta_min=0.3, beta_max=7.0)
    t = torch.linspace(0.01, 1, 7, dtype=torch.float64)
    assert torch.allclose(sde.beta(t), 0.3 + 6.7 * t, rtol=1e-14, atol=0)
    assert torch.allclose(sde.log_alpha(t), -0.25 * t**2 * 6.7 - 0.15 * t, rtol=1e-14, atol=0)
    assert math.isclose(float(sde.beta(1.0)), 7.0, rel_tol=1e-15)
