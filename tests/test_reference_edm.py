"""Claim: Heun's method, with and without churn, is EDM's `edm_sampler` to 1e-9.

The source appends sigma = 0 to its grid of `num_steps` levels: that last step, an Euler step from
sigma_min to 0, is `denoise=True`. So a run takes num_steps - 1 rows, and because churn is divided
by the number of steps, S_churn is scaled by (num_steps - 1) / num_steps. It draws noise also
where gamma is 0 and multiplies it away; sdekit draws only where it is used, so those rows of the
draws are left out.

Listed, not reproduced: the ten `ablation_sampler` cases (other discretisations, schedules and
scalings) and the two loss cases of the file.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import EXACT, Wrapped, reference_target
from support import assert_close, reference_cases

from sdekit.model import ExactScore
from sdekit.sampling import Heun, sample
from sdekit.sampling.noise import Replay
from sdekit.sde import EDM

FILE = "edm_samplers"
LISTED = {"ablation_sampler": 10, "loss": 2}  # a later issue; objectives


@pytest.mark.parametrize(
    "about", reference_cases(FILE, lambda c: c["case"].startswith("edm_sampler"))
)
def test_case(about, reference):
    data, options = reference.load(FILE), about["kwargs"]
    steps = options["num_steps"]
    sde = EDM(**{k: v for k, v in options.items() if k in ("sigma_min", "sigma_max", "rho")})
    model = Wrapped(ExactScore(reference_target(reference, about["target"]), sde))
    levels = sde.sigma(torch.linspace(1, 0, steps, dtype=torch.float64))
    churned = torch.zeros(steps, dtype=torch.bool)
    sampler, noise = Heun(), []
    if "S_churn" in options:
        sampler = Heun(
            churn=options["S_churn"] * (steps - 1) / steps,
            churn_min=options["S_min"], churn_max=options["S_max"], noise_scale=options["S_noise"],
        )  # fmt: skip
        churned = (levels >= options["S_min"]) & (levels <= options["S_max"])
        noise = list(data.array(about, "noise").flatten(-3)[churned])
    x = data.array(about, "latents").flatten(-3)
    source = Replay(noise)
    run = sample(
        model, tuple(x.shape), sampler=sampler, steps=steps - 1, x_init=sde.prior_std() * x,
        noise=source, denoise=True,
    )  # fmt: skip
    assert_close(run.x, data.array(about, "x_out").flatten(-3), tol=EXACT)
    assert source.draw == int(churned.sum())
    seen = data.array(about, "sigmas_seen_by_model")
    assert_close(sde.sigma(torch.tensor(model.times, dtype=torch.float64)), seen, tol=EXACT)
    assert run.nfe == len(seen) == 2 * steps - 1


def test_no_case_is_left_out(reference):
    names = [case["case"].split("/")[0] for case in reference.load(FILE).cases]
    counts = {name: names.count(name) for name in set(names)}
    assert counts == {"edm_sampler": 6, **LISTED}
