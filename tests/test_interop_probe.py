"""Claim: from outside, other libraries' samplers have the exact errors that are known of them.

The reference values are W2 to N(0, 1/4) of diffusers 0.42.1's schedulers with the exact noise
prediction, found by another implementation of the same idea with impulses of its own: 1000 steps
of training, betas linear from 1e-4 to 0.02, x_T ~ N(0, I), the prediction at the integer time that
a network would be given. Their last digit may have been rounded twice.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import spectrum
from strategies import f64
from support import leaving

from sdekit import DDPM, ExactScore, Gaussian
from sdekit.exact import bures_wasserstein, output_law, probe_callable

# diffusers hands its schedule to NumPy in a way that NumPy 2 will drop
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

SINGLE = 1e-4  # most schedulers cast to float32 inside
STEPS = (10, 20, 40, 80)
TRAINED = {
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
}  # fmt: skip

# class, options -> W2 at 10, 20, 40 and 80 steps
TABLE = {
    "DDIM": ("DDIMScheduler", {}, "1.30e-1 6.86e-2 3.55e-2 3.07e-3"),
    "Euler": ("EulerDiscreteScheduler", {}, "1.30e-1 6.86e-2 3.55e-2 1.81e-2"),
    "DDIM, linspace": (
        "DDIMScheduler", {"timestep_spacing": "linspace"}, "8.11e-2 4.70e-2 2.53e-2 1.59e-3"
    ),
    "DDIM, leading": (
        "DDIMScheduler", {"timestep_spacing": "leading"}, "1.26e-1 6.63e-2 3.42e-2 1.67e-2"
    ),
    "DDPM, fixed_small": (
        "DDPMScheduler", {"variance_type": "fixed_small"}, "1.67e-1 1.08e-1 6.63e-2 3.84e-2"
    ),
    "DDPM, fixed_large": (
        "DDPMScheduler", {"variance_type": "fixed_large"}, "8.90e-2 4.41e-2 2.17e-2 1.08e-2"
    ),
    "Heun": ("HeunDiscreteScheduler", {}, "6.5e-2 2.0e-2 6.2e-3 1.9e-3"),
    "DPM++2M": ("DPMSolverMultistepScheduler", {}, "9.5e-2 2.2e-2 8.8e-4 1.4e-3"),
    "DPM++2M, karras": (
        "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "5.3e-2 2.6e-2 6.1e-3 1.2e-3"
    ),
    "UniPC": ("UniPCMultistepScheduler", {}, "9.1e-2 2.0e-2 2.3e-3 3.8e-5"),
    "sde-DPM++2M": (
        "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"},
        "1.1e-1 1.3e-2 1.5e-2 1.2e-2",
    ),
    "SA-Solver": ("SASolverScheduler", {}, "4.0e-2 8.4e-4 6.1e-3 2.8e-3"),
    "PNDM": ("PNDMScheduler", {}, "8.7e-3 1.2e-3 3.1e-4 1.5e-2"),
}  # fmt: skip


@pytest.fixture(scope="module")
def diffusers():
    """The library; skipped, with the reason, where absent."""
    return pytest.importorskip("diffusers", reason="diffusers is absent: pip install diffusers")


def scheduler_law(diffusers, case, steps, data):
    """The law of what a scheduler makes of N(0, I), with the exact noise prediction for `data`."""
    name, options, _ = TABLE[case]
    options = {"timestep_spacing": "trailing", **TRAINED, **options}
    if name in ("DDIMScheduler", "DDPMScheduler"):
        options["clip_sample"] = False
    mean, var = data.mean, data.spectrum[0]

    def f(x):
        scheduler = getattr(diffusers, name)(**options)
        scheduler.set_timesteps(steps)
        kept = scheduler.alphas_cumprod.double()
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            a = kept[round(float(t))]
            seen = scheduler.scale_model_input(x, t)
            eps = (1 - a).sqrt() * (seen - a.sqrt() * mean) / (a * var + 1 - a)
            x = scheduler.step(eps, t, x).prev_sample
        return x

    return probe_callable(f, Gaussian(torch.zeros_like(mean), 1.0), tolerance=SINGLE)


QUARTER = Gaussian([0.0], 0.25)


def scheduler_error(diffusers, case, steps):
    return bures_wasserstein(scheduler_law(diffusers, case, steps, QUARTER), QUARTER)


@pytest.mark.parametrize("steps", leaving(STEPS, lambda n: n > 20))
@pytest.mark.parametrize("case", TABLE)
def test_the_errors_of_a_scheduler(diffusers, case, steps):
    printed = dict(zip(STEPS, TABLE[case][2].split(), strict=True))[steps]
    digits = printed.split("e")[0]
    unit = 10.0 ** (int(printed.split("e")[1]) - len(digits.partition(".")[2]))
    found = scheduler_error(diffusers, case, steps)
    assert abs(found - float(printed)) <= 0.55 * unit, (found, printed)


def test_a_step_to_a_time_that_is_not_the_next_one_stands_out(diffusers):
    """DDIM and Euler are one method; DDIM's scheduler steps to t - 1000 // n."""
    for steps in STEPS:
        ratio = scheduler_error(diffusers, "Euler", steps) / scheduler_error(
            diffusers, "DDIM", steps
        )
        if 1000 % steps == 0:
            assert abs(ratio - 1) < 1e-3
        else:
            assert 5.5 < ratio < 6.5


@pytest.mark.parametrize("steps", STEPS)
def test_ours_is_the_method_that_both_mean(diffusers, steps):
    """On a spectrum, sdekit's DDIM is the Euler scheduler, and DDIM's where n divides 1000."""
    data = spectrum()
    model = ExactScore(data, DDPM.linear(1000))
    ours = output_law("ddim", model, steps=steps, grid="ddpm_trailing")
    for case in ("Euler", "DDIM"):
        law = scheduler_law(diffusers, case, steps, data)
        apart = bures_wasserstein(law, ours) / bures_wasserstein(ours, data)
        if case == "DDIM" and 1000 % steps:
            assert apart > 0.1
        else:
            assert apart < 2e-3, case


# azula ------------------------------------------------------------------------------------------

NINE = Gaussian.from_spectrum(torch.zeros(9), torch.logspace(-2, 1, 9, dtype=torch.float64))


class Exact:
    """An azula denoiser: E[x_0 | x_t] of NINE."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, x, t, **_):
        alpha, sigma = self.schedule(t)
        var = NINE.spectrum[0]
        mean = alpha * var / (alpha**2 * var + sigma**2) * x
        return type("Posterior", (), {"mean": mean})()


def order(sampler, schedule, counts=(20, 40, 80, 160)):
    """The slope of log W2 against log steps, start and end at the schedule's true laws."""
    errors = []
    for steps in counts:
        run = sampler(Exact(schedule), steps=steps, silent=True, dtype=torch.float64)
        ends = [schedule(t) for t in f64([1.0, 0.0])]
        start, end = (NINE.perturbed(float(a), float(s) ** 2) for a, s in ends)
        errors.append(bures_wasserstein(probe_callable(run, start), end))
    logs = f64([[math.log(n), 1.0] for n in counts])
    return -float(torch.linalg.lstsq(logs, f64(errors).log()[:, None]).solution[0])


def test_the_order_of_azulas_reab_sampler_is_one():
    """It declares 2, as its sibling does, which is steeper on the same data."""
    sample = pytest.importorskip("azula.sample", reason="azula is absent: pip install azula")
    noise = pytest.importorskip("azula.noise")
    measured = order(sample.REABSampler, noise.VPSchedule())
    sibling = order(sample.xEABSampler, noise.VPSchedule())
    assert 0.7 < measured < 1.2
    assert sibling > 1.4
