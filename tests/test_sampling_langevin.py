"""Claim: Langevin correctors take the documented step, rule by rule.

Property 64; bugs 8 and 9. Formulas: 2 (snr sigma)^2; with norms 2 k^2 (snr |z| / |s|)^2, of the
batch or of each sample; annealed 2 k^2 (snr sigma)^2, k^2 = 1 - beta_i on a chain, 1 on VE. The
stationary variance (property 61) is a check of the kit.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import Given, draws, two_modes
from strategies import every_sde, f64

from sdekit.model import ExactScore
from sdekit.sampling import AnnealedLangevin, Langevin, PredictorCorrector, sample
from sdekit.sampling.noise import Replay
from sdekit.sde import DDPM, VESDE, VPSDE, SubVPSDE

LEVEL = 0.5


def corrected(model, sampler, x, z, level=LEVEL):
    """The corrector alone at one level."""
    grid = f64([model.sde.t_max, level])
    how = dict(sampler=sampler, grid=grid, x_init=x, noise=Replay(z))
    return sample(model, tuple(x.shape), **how)


@every_sde
def test_the_default_step_is_two_snr_sigma_squared(sde):
    model, x, z = ExactScore(two_modes(), sde), draws(1, (3, 2))[0], draws(2, (3, 2), seed=9)
    level = sde.time(max(1, sde.n // 2)) if "ddpm" in sde.kinds else LEVEL * sde.t_max
    if level == sde.t_max:
        return  # a chain of one step has no level below
    step = 2 * 0.16**2 * sde.var(level)
    y = x
    for k in range(2):
        y = y + step * model(y, level).score + (2 * step).sqrt() * z[k]
    run = corrected(model, Langevin(repeats=2), x, z, level)
    torch.testing.assert_close(run.x, y, rtol=1e-12, atol=1e-12 * float(y.abs().max()))
    assert run.nfe == 2


def k_squared(sde, t, s):
    return float(sde.transition(s, t)[0]) ** 2


@pytest.mark.parametrize("rule", ["sigma", "batch_norm", "sample_norm", "annealed"])
@pytest.mark.parametrize("sde", [DDPM.linear(10, beta_end=0.5), VESDE(), SubVPSDE()], ids=repr)
def test_each_rule_by_hand(sde, rule):
    """Inside a predictor-corrector, where the level below is the predictor's target."""
    t, s, snr = 0.7, 0.5, 0.2
    model, x, z = ExactScore(two_modes(), sde), draws(1, (3, 2))[0], draws(2, (3, 2), seed=3)
    score, k2 = model(x, t).score, k_squared(sde, t, s)
    sizes = {
        "sigma": 2 * (snr * sde.sigma(t)) ** 2,
        "annealed": 2 * k2 * (snr * sde.sigma(t)) ** 2,
        "batch_norm": 2 * k2 * (snr * z[0].norm(dim=1).mean() / score.norm(dim=1).mean()) ** 2,
        "sample_norm": (2 * k2 * (snr * z[0].norm(dim=1) / score.norm(dim=1)) ** 2)[:, None],
    }
    size = sizes[rule]
    moved = x + size * score + (2 * size).sqrt() * z[0]
    corrector = (
        AnnealedLangevin(snr=snr, repeats=1)
        if rule == "annealed"
        else Langevin(snr=snr, rule=rule)
    )
    both = PredictorCorrector(predictor="ancestral", corrector=corrector)
    how = dict(grid=f64([t, s]), noise=Replay(z), keep="all")
    found = sample(model, (3, 2), sampler=both, x_init=x, **how).x
    expected = sample(
        model, (3, 2), sampler="ancestral", grid=f64([t, s]), x_init=moved, noise=Replay(z[1:])
    ).x
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_k_squared_is_one_minus_beta_on_a_chain():
    """Bug 9: the factor is 1 - beta_i of the level, not alpha_bar; sub-VP has it too (8)."""
    sde = DDPM.linear(10, beta_end=0.5)
    for i in (3, 9):
        assert k_squared(sde, i / 10, (i - 1) / 10) == pytest.approx(
            1 - float(sde.betas[i - 1]), rel=1e-13
        )
    assert k_squared(VESDE(), 0.9, 0.8) == 1.0


def test_predictor_first_corrects_at_the_level_it_lands_on():
    sde = DDPM.linear(10, beta_end=0.5)
    model, x, z = ExactScore(two_modes(), sde), draws(1, (3, 2))[0], draws(4, (3, 2), seed=5)
    grid = f64([0.9, 0.6, 0.5])
    corrector = AnnealedLangevin(repeats=1)
    both = PredictorCorrector(predictor="ancestral", corrector=corrector, first="predictor")
    found = sample(model, (3, 2), sampler=both, grid=grid, x_init=x, noise=Replay(z)).x
    y = x
    # below 0.6 comes 0.5; below the last level nothing, and k = 1
    for k, (t, s, below) in enumerate([(0.9, 0.6, 0.5), (0.6, 0.5, 0.5)]):
        y = sample(
            model,
            (3, 2),
            sampler="ancestral",
            grid=f64([t, s]),
            x_init=y,
            noise=Replay([z[2 * k]]),
        ).x
        size = 2 * k_squared(sde, s, below) * (0.16 * sde.sigma(s)) ** 2
        y = y + size * model(y, s).score + (2 * size).sqrt() * z[2 * k + 1]
    torch.testing.assert_close(found, y, rtol=1e-11, atol=1e-11)


def test_corrections_repeat_the_corrector():
    sde = VPSDE()
    model, x, z = ExactScore(two_modes(), sde), draws(1, (3, 2))[0], draws(7, (3, 2), seed=5)
    grid = f64([0.9, 0.6])
    by_corrections = PredictorCorrector(corrector=Langevin(), corrections=3)
    by_repeats = PredictorCorrector(corrector=Langevin(repeats=3))
    one, two = (
        sample(model, (3, 2), sampler=s, grid=grid, x_init=x, noise=Replay(z))
        for s in (by_corrections, by_repeats)
    )
    assert torch.equal(one.x, two.x)
    assert one.nfe == two.nfe == 4


@pytest.mark.parametrize("rule", ["sigma", "batch_norm", "sample_norm"])
def test_a_score_of_zero_is_finite(rule):
    """E21: 0/0 in the norms falls back to the step of the default rule."""
    sde = VPSDE()
    model = Given(lambda x, t: torch.zeros_like(x), sde)
    x, z = draws(1, (3, 2))[0], draws(1, (3, 2), seed=2)
    out = corrected(model, Langevin(rule=rule), x, z).x
    step = 2 * (0.16 * sde.sigma(LEVEL)) ** 2
    torch.testing.assert_close(out, x + (2 * step).sqrt() * z[0], rtol=1e-12, atol=0)


def test_one_zero_score_among_others():
    sde = VPSDE()
    model = Given(lambda x, t: torch.where(x > 0, -x, 0.0), sde)
    x, z = f64([[-1.0, -2.0], [1.0, 2.0]]), draws(1, (2, 2), seed=2)
    out = corrected(model, Langevin(rule="sample_norm"), x, z).x
    assert bool(torch.isfinite(out).all())
    step = 2 * (0.16 * sde.sigma(LEVEL)) ** 2
    torch.testing.assert_close(out[0], x[0] + (2 * step).sqrt() * z[0, 0], rtol=1e-12, atol=0)


def test_only_the_batch_rule_looks_at_its_neighbours():
    """Bug 9: with batch means, and only with them, a path depends on its batch mates."""
    model, x, z = ExactScore(two_modes(), VPSDE()), draws(1, (6, 2))[0], draws(1, (6, 2), seed=4)
    for rule in ("sigma", "sample_norm", "batch_norm"):
        whole = corrected(model, Langevin(rule=rule), x, z).x
        parts = torch.cat(
            [
                corrected(model, Langevin(rule=rule), x[i : i + 2], z[:, i : i + 2]).x
                for i in (0, 2, 4)
            ]
        )
        assert torch.equal(whole, parts) == (rule != "batch_norm")


def test_images_have_one_norm_a_sample():
    sde = VPSDE()
    model = Given(lambda x, t: -x, sde)
    x, z = draws(1, (3, 1, 4, 4))[0], draws(1, (3, 1, 4, 4), seed=4)
    flat = Given(lambda x, t: -x, sde)
    for rule in ("batch_norm", "sample_norm"):
        image = corrected(model, Langevin(rule=rule), x, z).x
        vector = corrected(flat, Langevin(rule=rule), x.flatten(1), z.flatten(2)).x
        torch.testing.assert_close(image.flatten(1), vector, rtol=1e-13, atol=0)


def test_a_corrector_alone_visits_every_level_below_the_start():
    sde = DDPM.linear(10, beta_end=0.5)
    model = ExactScore(two_modes(), sde)
    run = sample(model, (2, 2), sampler="langevin", seed=0, keep="all")
    assert run.trajectory_t.tolist()[1:] == [k / 10 for k in range(9, -1, -1)]
    assert run.nfe == 9  # node 0 is left as it is
    assert torch.equal(run.trajectory[-1], run.trajectory[-2])
