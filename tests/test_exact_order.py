"""Claim: `convergence_order` measures orders: known ones, and the change that a wrong step makes.

The regression itself is shown laws of which the order is known in closed form, with a rounding
floor, with a head that is not asymptotic, and with corrections of order 1/n.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import pytest
import torch
from sampling_support import draws
from strategies import f64
from support import assert_close

from sdekit.errors import ConfigError, DtypeError, NotAffine, TimeError
from sdekit.exact.order import convergence_order, fit_slope
from sdekit.sampling import Ancestral, EulerMaruyama, Heun, PredictorCorrector, kick
from sdekit.sde import DDPM, VESDE, VPSDE, SubVPSDE
from sdekit.targets import Gaussian

N = [10 * 2**k for k in range(8)]
RUNGS = (16, 32, 64, 128, 256)


# the regression ---------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0])
def test_a_power_is_found_exactly(p):
    found = fit_slope(N, [3.0 * n**-p for n in N])
    assert abs(found.value - p) < 1e-12
    assert found.window == (10, 1280)
    assert found.interval[1] - found.interval[0] < 1e-11


def test_steps_need_not_double():
    n = [7, 10, 15, 40, 41]
    assert abs(fit_slope(n, [0.2 * k**-2 for k in n]).value - 2) < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_a_floor_and_a_wrong_head_are_left_out(seed):
    """Order 4 between 40 and 320 steps: rounding of 1e-10 beyond, something else before."""
    jitter = draws(1, (len(N),), seed)[0].abs().add(0.3).tolist()
    errors = [1.5 * n**-4 if n < 640 else 1e-10 * z for n, z in zip(N, jitter, strict=True)]
    errors[:2] = [3e-7, 2e-6]
    found = fit_slope(N, errors)
    assert found.window == (40, 320)
    assert abs(found.value - 4) < 1e-9


@pytest.mark.parametrize("c", [-4.0, 5.0, 40.0])
@pytest.mark.parametrize("p", [1, 2])
def test_the_interval_holds_the_order_that_the_slopes_still_drift_to(p, c):
    errors = [n**-p * (1 + c / n) for n in N]
    found = fit_slope(N, errors)
    assert found.interval[0] <= p <= found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.4
    # and it is nearer than all points together
    plain = -math.log2(errors[-1] / errors[0]) / math.log2(N[-1] / N[0])
    assert abs(found.value - p) < abs(plain - p)


def test_a_bias_is_no_floor():
    """Errors that stop falling far above rounding have order 0, whatever they did before."""
    found = fit_slope(N, [1 / n + 0.05 for n in N])
    assert found.interval[0] < found.value < 0.1


@pytest.mark.parametrize(
    ("steps", "errors", "said"),
    [
        (N, [0.0] * 8, "rounding"),
        (N, [1e-2, 1e-3, *[1e-15] * 6], "rounding"),
        (N[:2], [1.0, 0.5], "rounding but for fewer than three"),
        (N[:3], [1.0, 0.5], "every"),
        (N[:3], [1.0, math.nan, 0.5], "finite"),
        ([10, 10, 20], [1.0, 0.5, 0.2], "increasing"),
    ],
)
def test_what_has_no_slope(steps, errors, said):
    with pytest.raises(ConfigError, match=said):
        fit_slope(steps, errors)


def test_sampled_errors_are_compared_no_sharper_than_they_are_known():
    """Order 1 within a tenth although no two local slopes agree."""
    jitter = [1.0, 0.94, 1.08, 0.97, 1.1, 0.93, 1.06, 0.95]
    errors = [z / n for n, z in zip(N, jitter, strict=True)]
    found = fit_slope(N, errors, scatter=0.1)
    assert found.window == (10, 1280)
    assert abs(found.value - 1) < 0.03
    assert abs(fit_slope(N, errors).value - 1) > 0.1


# samplers ---------------------------------------------------------------------------------------

KNOWN = [
    ("ddim", VPSDE(), 1, 0.02),
    ("heun", SubVPSDE(), 2, 0.02),
    ("probability_flow(solver='rk4')", VESDE(), 4, 0.04),
]


@pytest.mark.parametrize(("sampler", "sde", "order", "within"), KNOWN)
def test_known_orders(sampler, sde, order, within):
    found = convergence_order(sampler, sde)
    assert abs(found.weak - order) < within
    assert found.interval[0] <= order <= found.interval[1]
    assert found.strong is None
    assert found.steps[-1] == found.window[1] == 640
    assert found.errors[-1] < found.errors[0] / 30**order
    assert str(found).startswith(f"weak order {found.weak:.2f} (")
    assert "strong" not in str(found)


@pytest.mark.parametrize(("sampler", "sde"), [
    ("euler_maruyama", VPSDE()), pytest.param("ancestral", VESDE(), marks=pytest.mark.slow),
])  # fmt: skip
def test_additive_noise_has_strong_order_one(sampler, sde):
    """Euler-Maruyama is Milstein's scheme where the noise does not depend on x: not 1/2 but 1."""
    found = convergence_order(sampler, sde, steps=RUNGS)
    assert abs(found.strong - 1) < 0.15
    assert "strong order" in str(found)


def test_rows_without_a_draw_keep_the_path_in_step():
    """A first row that takes the probability flow: the second row's draw is still its own."""

    class Quiet(EulerMaruyama):
        def coefficients(self, sde, grid):
            flow = EulerMaruyama(eta=0.0).coefficients(sde, grid)
            noisy = super().coefficients(sde, grid)
            first = torch.arange(len(grid) - 1) == 0
            score = torch.where(first, flow["mean"].score, noisy["mean"].score)
            std = torch.where(first, 0.0, noisy["std"])
            return {"mean": replace(noisy["mean"], score=score), "std": std}

    found = convergence_order(Quiet(), VPSDE(), steps=RUNGS)
    assert abs(found.strong - 1) < 0.2


@pytest.mark.slow
def test_several_draws_a_row():
    """Half the variance from each of two paths."""

    class Twice(EulerMaruyama):
        def step(self, x, c, model, state, noise):
            half = c.std * 0.5**0.5
            return kick(kick(model(x, c.t).mix(c.mean), half, noise), half, noise), state

    found = convergence_order(Twice(), VESDE(), steps=RUNGS)
    assert abs(found.strong - 1) < 0.15


def test_the_spectrum_is_taken_along_the_axes_of_the_data():
    """Turned data have the same errors; another law has others."""
    turn = torch.linalg.qr(draws(1, (3, 3), seed=2)[0])[0]
    mean, variances = f64([1.0, -2.0, 0.5]), f64([0.05, 0.7, 3.0])
    options = dict(steps=(10, 20, 40))
    straight = convergence_order(
        "ddim", VPSDE(), target=Gaussian.from_spectrum(mean, variances), **options
    )
    turned = Gaussian(turn @ mean, turn @ variances.diag() @ turn.T)
    seen = convergence_order("ddim", VPSDE(), target=turned, **options)
    # means are compared along other axes only after turning back
    assert_close(f64(seen.errors), f64(straight.errors), tol=1e-9)
    round_ = Gaussian(mean, 1.0)
    other = convergence_order("ddim", VPSDE(), target=round_, **options)
    assert abs(other.errors[0] / straight.errors[0] - 1) > 0.01


# wrong steps ------------------------------------------------------------------------------------


def test_a_wrong_step_changes_the_weak_order():
    class Late(Heun):  # PEER_BUGS 24: Euler under the name of Heun
        def step(self, x, c, model, state, noise):
            return model(x, c.high).mix(c.euler), state

    class Loud(Ancestral):  # noise of the wrong size: a bias at any number of steps
        def coefficients(self, sde, grid):
            columns = super().coefficients(sde, grid)
            return {**columns, "std": 1.02 * columns["std"]}

    rungs = (40, 80, 160)  # too few for a strong order
    assert convergence_order(Late(), VPSDE(), steps=rungs).weak < 1.1
    assert convergence_order(Loud(), VPSDE(), steps=rungs).weak < 0.9


@pytest.mark.slow
def test_a_wrong_path_changes_the_strong_order_alone():
    """The sign of every other draw turned round: the same law, another path on every grid."""

    class Turned(EulerMaruyama):
        def step(self, x, c, model, state, noise):
            turned = -(state or 1)
            return kick(model(x, c.t).mix(c.mean), c.std * turned, noise), turned

    options = dict(steps=RUNGS)
    right, wrong = (convergence_order(s, VPSDE(), **options) for s in (EulerMaruyama(), Turned()))
    assert_close(f64(wrong.errors), f64(right.errors), tol=1e-12)
    assert wrong.strong < 0.3


@pytest.mark.slow
def test_what_claims_no_order_does_not_converge():
    """A corrector of fixed step leaves a bias: the error stays, and so does the slope at 0."""
    biased = PredictorCorrector(predictor="ddim", corrector="annealed_langevin(repeats=1)")
    order = convergence_order(biased, VPSDE())
    assert biased.order is None
    assert order.interval[1] < 0.5
    assert order.strong is None
    assert order.errors[-1] > 0.5 * order.errors[-2] > 5e-3


def test_the_strong_order_needs_doubling_steps():
    """Distances of unlike pairs have no common slope: none is claimed."""
    assert convergence_order("ddim(eta=1)", "vp", steps=(10, 20, 22, 80, 88)).strong is None


# refusals ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Clipped(EulerMaruyama):
    """Not affine."""

    def step(self, x, c, model, state, noise):
        x, state = super().step(x, c, model, state, noise)
        return x.clamp(-1, 1), state


@pytest.mark.parametrize(
    ("sampler", "sde", "options", "error", "said"),
    [
        ("probability_flow", VPSDE(), {}, ConfigError, "chooses its own steps"),
        ("ddim", DDPM.linear(1000), {}, ConfigError, "is a chain"),
        (Clipped(), VPSDE(), {"steps": (4, 8, 16)}, NotAffine, "superposition"),
        ("ddim", VPSDE(), {"target": Gaussian([1.0], 0.0)}, ConfigError, "at rounding"),
        ("ddim", VPSDE(), {"target": [0.0, 1.0]}, DtypeError, "target"),
        ("ddim", VPSDE(), {"steps": (10, 20)}, ConfigError, "steps must be at least 3"),
        ("ddim", VPSDE(), {"steps": (10, 40, 20)}, ConfigError, "increasing"),
        ("ddim", VPSDE(), {"steps": (10, 20.0, 40)}, DtypeError, "steps"),
        ("ddim", VPSDE(), {"interval": (0.5, 0.2)}, ConfigError, "interval[1]"),
        ("ddim", VPSDE(), {"interval": (1e-5, 0.2)}, TimeError, "grid"),
        ("ddim", VPSDE(), {"paths": 0}, ConfigError, "paths"),
        ("ddimm", VPSDE(), {}, ConfigError, "ddim"),
    ],
)
def test_refused(sampler, sde, options, error, said):
    with pytest.raises(error, match=re.escape(said)):
        convergence_order(sampler, sde, **options)
