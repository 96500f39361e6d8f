"""An SDE from two lambdas has the kernels of the closed form with the same coefficients."""

import pytest
import torch
from strategies import EVERY, PiecewiseBeta, PlainOU, f64, pairs, smooth_times
from support import assert_close

from sdekit.errors import ConfigError, DtypeError, ShapeError
from sdekit.sde import VESDE, VPSDE, LinearSDE, SubVPSDE

QUADRATURE = (
    1e-11  # 16-point rules agreeing to 1e-13 on each panel; a jump costs a few of its widths
)


def same_kernels(made, closed, *, tol=QUADRATURE):
    t = torch.cat([smooth_times(closed, 40, low=1e-12), f64([closed.t_max])])
    one = torch.ones_like(t)
    assert_close(made.log_alpha(t), closed.log_alpha(t), tol=tol)
    assert_close(made.var(t) / closed.var(t), one, tol=tol)
    s, t = pairs(closed)
    one = torch.ones_like(s)
    for mine, theirs in zip(made.transition(s, t), closed.transition(s, t), strict=True):
        assert_close(mine / theirs, one, tol=1e3 * tol)
    for mine, theirs in zip(made.posterior(s, t), closed.posterior(s, t), strict=True):
        assert_close(mine, theirs, tol=1e3 * tol)


def beta(t):
    return 0.1 + 19.9 * t


def test_vp():
    same_kernels(LinearSDE.from_coefficients(lambda t: -0.5 * beta(t), beta), VPSDE())


def test_sub_vp():
    def g2(t):
        return -beta(t) * torch.expm1(-2 * (0.1 * t + 0.5 * 19.9 * t**2))

    same_kernels(LinearSDE.from_coefficients(lambda t: -0.5 * beta(t), g2), SubVPSDE())


def test_ve_with_its_start():
    closed = VESDE(sigma_min=0.01, sigma_max=50.0)
    log_ratio = torch.log(f64(5000.0))

    def g2(t):
        return 2 * log_ratio * 1e-4 * torch.exp(2 * t * log_ratio)

    made = LinearSDE.from_coefficients(torch.zeros_like, g2, var0=1e-4, t_min=0.0)
    same_kernels(made, closed, tol=1e-10)
    assert float(made.var(0.0)) == 1e-4
    assert made.prior_std() == pytest.approx(50.0, rel=1e-11)


@pytest.mark.parametrize("jump", [0.3, 1 / 3, 0.5])
def test_piecewise_beta_with_a_jump(jump):
    """A jump of f and g^2, also off every dyadic panel edge."""
    closed = PiecewiseBeta(low=0.5, high=12.0, jump=jump)

    def step(t):
        return torch.where(t < jump, 0.5, 12.0).to(t.dtype)

    made = LinearSDE.from_coefficients(lambda t: -0.5 * step(t), step)
    same_kernels(made, closed, tol=1e-10)


def test_many_jumps():
    """A chain's coefficients, given as lambdas, have the chain's kernels."""
    chain = EVERY["ddpm-1"]
    made = LinearSDE.from_coefficients(chain.f, chain.g2)
    same_kernels(made, chain, tol=1e-10)


def test_constants_and_var0():
    """f and g^2 may return plain numbers; var(0) relaxes to the stationary variance."""
    closed = PlainOU(rate=2.0, spread=1.5, start=0.3, t_max=1.5)
    made = LinearSDE.from_coefficients(
        lambda t: -2.0, lambda t: 6.0, var0=0.3, t_min=0.0, t_max=1.5
    )
    same_kernels(made, closed)


def test_oscillating_coefficients():
    """f that changes sign, integrals in closed form: la = sin(9 t)/9, g2 = e^{2 la}."""
    made = LinearSDE.from_coefficients(
        lambda t: torch.cos(9 * t), lambda t: torch.exp(2 * torch.sin(9 * t) / 9)
    )
    t = torch.linspace(0.01, 1, 13, dtype=torch.float64)
    log_alpha = torch.sin(9 * t) / 9
    assert_close(made.log_alpha(t), log_alpha, tol=1e-12)
    assert_close(made.var(t), (2 * log_alpha).exp() * t, tol=1e-12)


def test_small_times_keep_their_digits():
    """var(1e-12) is as accurate as var(1/2): the rule's error is relative to the integral."""
    made, closed = EVERY["two_lambdas"], VPSDE()
    t = torch.logspace(-12, -2, 21, dtype=torch.float64)
    assert_close(made.var(t) / closed.var(t), torch.ones_like(t), tol=1e-14)
    assert_close(made.log_alpha(t) / closed.log_alpha(t), torch.ones_like(t), tol=1e-14)


def test_f_and_g2_are_the_given_functions():
    made = EVERY["two_lambdas"]
    t = smooth_times(made)
    assert torch.equal(made.f(t), -0.5 * beta(t))
    assert torch.equal(made.g2(t), beta(t))


@pytest.mark.parametrize(
    ("f", "g2", "error", "words"),
    [
        (lambda t: -t, lambda t: 0.5 - t, ConfigError, ["g2", ">= 0"]),
        (lambda t: -1 / t.sub(0.5), lambda t: t, ConfigError, ["f"]),
        (lambda t: t.log() * float("nan"), lambda t: t, ConfigError, ["f(t)", "finite"]),
        (lambda t: -t, lambda t: 1 / t**2, ConfigError, ["g2"]),
        (lambda t: -t, lambda t: float("inf"), ConfigError, ["g2", "finite"]),
        (lambda t: t[:1], lambda t: t, ShapeError, ["f(t)", "shape"]),
        (lambda t: -t, lambda t: "one", DtypeError, ["g2", "one"]),
        (3.0, lambda t: t, DtypeError, ["f", "3.0"]),
        (lambda t: t, None, DtypeError, ["g2", "None"]),
    ],
)
def test_bad_coefficients(f, g2, error, words):
    with pytest.raises(error) as caught:
        LinearSDE.from_coefficients(f, g2)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"var0": -1.0}, ConfigError, ["var0", "-1"]),
        ({"var0": "a"}, DtypeError, ["var0", "a"]),
        ({"t_min": 0.0}, ConfigError, ["t_min", "var(0)"]),
        ({"t_max": 0.0}, ConfigError, ["t_max", "0"]),
    ],
)
def test_bad_fields(given, error, words):
    with pytest.raises(error) as caught:
        LinearSDE.from_coefficients(lambda t: -t, lambda t: t, **given)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_no_noise_at_all_is_no_process():
    with pytest.raises(ConfigError, match="degenerate"):
        LinearSDE.from_coefficients(lambda t: 0 * t, lambda t: 0 * t)
