"""Claim: where a sampler must be exact, it is: one point, one noise, one step, the end.

Properties 47 to 51, by the affine probe and by constant predictions, on every SDE and grid.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from sampling_support import (
    ConstantEps,
    Given,
    defaults,
    draws,
    entries,
    exact_law,
    no_noise,
    probe,
    spectrum,
    two_modes,
)  # fmt: skip
from strategies import EVERY, every_sde, f64, sdes

from sdekit.errors import ConfigError, SdekitError
from sdekit.model import ExactScore
from sdekit.sampling import DDIM, Ancestral, Heun, sample
from sdekit.sampling.noise import KeyedNoise, Recorded, Replay
from sdekit.sde import DDPM, VESDE, VPSDE
from sdekit.targets import Gaussian

POINT = Gaussian(f64([0.8, -1.5]), 0.0)
# samplers whose kernels are exact for data at a point, whatever their noise
KERNELS = {
    **{f"ddim eta={eta}": DDIM(eta=eta) for eta in (0.0, 0.3, 0.5, 1.0)},
    "ancestral": Ancestral(),
    "heun": Heun(),
    "heun churned": Heun(churn=20.0),
}
GRIDS = [name for name in defaults("grid") if not name.startswith("ddpm")]


def grid_of(sde, name: str, steps: int) -> torch.Tensor:
    if "ddpm" in sde.kinds:
        steps = min(steps, sde.n)
    return sample(ExactScore(POINT, sde), (0, 2), grid=name, steps=steps).grid


@every_sde
@pytest.mark.parametrize("name", KERNELS)
def test_a_point_is_reproduced_by_any_kernel_on_any_grid(sde, name):
    """Property 48: from the exact x_T the output is N(alpha x_0, var) exactly, every eta."""
    sampler, model = KERNELS[name], ExactScore(POINT, sde)
    if name == "heun churned" and ("ddpm" in sde.kinds or not sde.extends):
        with pytest.raises(SdekitError, match=r"churn|extend"):
            probe(sampler, model, grid_of(sde, "uniform", 6))
        return
    for grid_name in ("uniform", "karras"):
        grid = grid_of(sde, grid_name, 6)
        grid = grid[sde.alpha(grid) > 1e-6]  # before, x_t says nothing about x_0
        level = sde.sigma(grid) / sde.alpha(grid)
        if "heun" in name:  # which subtracts noise levels: 1 - (r_t - r_s)/r_t = r_s/r_t
            level = level[level > 0]
            grid = grid[: len(level)][level < 1e5 * level[-1]]
        if len(grid) < 2:
            continue
        affine = probe(sampler, model, grid)
        (mean, var), (true_mean, true_var) = (
            affine.law(*exact_law(model, float(grid[0]))), exact_law(model, float(grid[-1]))
        )  # fmt: skip
        # lost in x_0 = (x - sigma eps) / alpha at the noisiest time
        lost = 1e-9 + 1e-14 / float(sde.alpha(grid[0]))
        # responses are differences of outputs near the mean
        lost += 1e-14 / float(true_var.sqrt().clamp_min(1e-12).min()) if true_var.any() else 0
        if "heun" in name:
            lost *= 100
        assert bool(((mean - true_mean).abs() <= lost * (1 + true_mean.abs())).all())
        assert bool(((var - true_var).abs() <= lost * true_var.clamp_min(1e-300) + 1e-20).all())


@given(sde=sdes(), eta=st.floats(0, 1), seed=st.integers(0, 1000), data=st.data())
def test_a_point_is_reproduced_on_random_grids(sde, eta, seed, data):
    low = sde.t_min if sde.t_min > 0 else 0.01 * sde.t_max
    u = torch.rand(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    grid = (low + (sde.t_max - low) * u.sort(descending=True).values).clamp(sde.t_min, sde.t_max)
    if "ddpm" in sde.kinds:
        nodes = sde.index(grid).unique().flip(0)
        grid = sde.time(nodes)
    if len(grid) < 2 or float(sde.alpha(grid[0])) < 1e-4 or float(-grid.diff().max()) < 1e-6:
        return
    model = ExactScore(POINT, sde)
    mean, var = probe(DDIM(eta=eta), model, grid).law(*exact_law(model, float(grid[0])))
    true_mean, true_var = exact_law(model, float(grid[-1]))
    torch.testing.assert_close(mean, true_mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(var, true_var, rtol=1e-9, atol=1e-18)


@every_sde
def test_one_step_is_enough_for_a_point(sde):
    """Property 50: the kernel is exact, so one step is."""
    t = next(u * sde.t_max for u in (1, 0.5, 0.25, 0.1) if float(sde.alpha(u * sde.t_max)) > 1e-6)
    grid = f64([t, sde.t_min])
    model = ExactScore(POINT, sde)
    for sampler in (Ancestral(), DDIM(eta=1.0)):
        mean, var = probe(sampler, model, grid).law(*exact_law(model, t))
        true_mean, true_var = exact_law(model, sde.t_min)
        torch.testing.assert_close(mean, true_mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(var, true_var, rtol=1e-9, atol=1e-20)


@every_sde
@pytest.mark.parametrize("name", GRIDS)
def test_ddim_is_exact_for_constant_noise(sde, name):
    """Property 47: x_s = alpha_s x_0 + sigma_s eps along the whole path, whatever the grid."""
    eps, x0 = f64([0.4, -1.1]), draws(1, (3, 2))[0]
    grid = grid_of(sde, name, 9)
    grid = grid[sde.alpha(grid) > 1e-6]
    if len(grid) < 2:
        return  # all but one time of this grid lie where alpha has vanished
    start = sde.alpha(grid[0]) * x0 + sde.sigma(grid[0]) * eps
    for sampler in (DDIM(), Heun()):
        run = sample(
            ConstantEps(eps, sde), (3, 2), sampler=sampler, grid=grid, x_init=start,
            noise=no_noise, keep="all",
        )  # fmt: skip
        expected = torch.stack([sde.alpha(t) * x0 + sde.sigma(t) * eps for t in grid])
        assert torch.equal(run.trajectory_t, grid)
        # relative to the largest term at the start, and to the loss in x_0
        scale = float(expected.abs().max()) * 1e-10 + 1e-14 * float(1 / sde.alpha(grid[0]))
        torch.testing.assert_close(run.trajectory, expected, rtol=0, atol=scale)


@every_sde
def test_ddim_with_eta_one_is_ancestral(sde):
    """Property 49, step by step with the same noise."""
    model = ExactScore(two_modes(), sde)
    how = dict(x_init=draws(1, (4, 2))[0], keep="all", grid=grid_of(sde, "uniform", 12))
    one = sample(model, (4, 2), sampler=DDIM(eta=1.0), seed=5, **how)
    two = sample(model, (4, 2), sampler=Ancestral(), seed=5, **how)
    scale = float(two.trajectory.abs().max()) + 1 / float(sde.alpha(how["grid"][0]))
    torch.testing.assert_close(one.trajectory, two.trajectory, rtol=0, atol=1e-12 * scale)


SILENT = {
    key: s for key, s in entries("sampler").items() if "noise" not in s.needs
}  # every deterministic one


@pytest.mark.parametrize("sampler", SILENT.values(), ids=SILENT)
def test_what_declares_no_noise_draws_none(sampler):
    model = ExactScore(two_modes(), VPSDE())
    sample(model, (2, 2), sampler=sampler, steps=3, x_init=torch.zeros(2, 2), noise=no_noise)


LOUD = {key: s for key, s in entries("sampler").items() if "noise" in s.needs}


@pytest.mark.parametrize("sampler", LOUD.values(), ids=LOUD)
def test_what_declares_noise_uses_it(sampler):
    model = ExactScore(two_modes(), VPSDE())
    how = dict(sampler=sampler, steps=4, x_init=torch.zeros(2, 2))
    one, two = (sample(model, (2, 2), seed=seed, **how).x for seed in (0, 1))
    assert (one - two).abs().min() > 1e-6


@pytest.mark.parametrize("sde", [sde for sde in EVERY.values() if "ddpm" in sde.kinds], ids=repr)
@pytest.mark.parametrize("sampler", LOUD.values(), ids=LOUD)
def test_the_last_step_onto_the_data_adds_no_noise(sde, sampler):
    """Property 51: where var(s) = 0 the last row is deterministic, for any variance."""
    model = ExactScore(two_modes(), sde)
    grid = torch.tensor([sde.time(1), 0.0], dtype=torch.float64)
    try:
        run = sample(model, (2, 2), sampler=sampler, grid=grid, x_init=draws(1, (2, 2))[0], seed=0)
    except ConfigError as error:
        assert "churn" in str(error)  # noqa: PT017  # the one refusal on a chain
        return
    source = Recorded(KeyedNoise(0))
    again = sample(
        model, (2, 2), sampler=sampler, grid=grid, x_init=draws(1, (2, 2))[0], noise=source
    )
    assert torch.equal(run.x, again.x)
    if getattr(sampler, "first", "") == "corrector":  # its corrector acts at node 1, with noise
        assert len(source.draws) == sampler.corrections
    else:
        assert source.draws == []


def test_ancestral_noise_is_a_log_interpolation():
    """arXiv:2102.09672, eq. 15, on a chain: between the posterior's variance and beta."""
    sde = DDPM.linear(20, beta_start=0.005, beta_end=0.5)
    model, x = ExactScore(two_modes(), sde), draws(1, (1, 2))[0]
    i = 13
    grid = sde.time(torch.tensor([i, i - 1]))
    for v, name in ((0.0, "posterior"), (1.0, "beta"), (0.25, 0.25)):
        means = [
            sample(
                model, (1, 2), sampler=Ancestral(variance=name), grid=grid, x_init=x, noise=source
            ).x
            for source in (torch.zeros_like, torch.ones_like)
        ]
        log_var = v * sde.betas[i - 1].log() + (1 - v) * sde.posterior_variance[i - 1].log()
        std = (0.5 * log_var).exp()
        torch.testing.assert_close(means[1] - means[0], std.expand(1, 2), rtol=1e-12, atol=0)
        w0, wt = (w[i - 1] for w in sde.posterior_mean_coefficients)
        expected = w0 * model(x, float(grid[0])).x0 + wt * x
        torch.testing.assert_close(means[0], expected, rtol=1e-12, atol=1e-14)


def test_heun_by_hand_on_any_sde():
    """Eqs. (1) to (3) of the module, in sigma / alpha, with churn, in plain numbers."""
    for sde in (VPSDE(), VESDE(), EVERY["sub_vp-0"]):
        model = ExactScore(spectrum(), sde)
        x, z = draws(1, (3, 4))[0], draws(2, (3, 4), seed=7)
        grid = f64([0.6, 0.4, 0.2])
        sampler = Heun(churn=0.5, noise_scale=1.1)
        run = sample(model, (3, 4), sampler=sampler, grid=grid, x_init=x, noise=Replay(z))
        y, t = x, float(grid[0])
        for k in range(2):
            s = float(grid[k + 1])
            level = float(sde.sigma(t) / sde.alpha(t))
            high_level = level * (1 + 0.5 / 2)
            high = float(
                sde.t_from_log_snr(-2 * torch.tensor(high_level, dtype=torch.float64).log())
            )
            lift = float(sde.alpha(high) / sde.alpha(t))
            extra = (high_level**2 - level**2) ** 0.5 * 1.1
            y = lift * y + float(sde.alpha(high)) * extra * z[k]
            r_s = float(sde.sigma(s) / sde.alpha(s))
            scaled = y / float(sde.alpha(high))
            slope = model(y, high).eps
            guess = float(sde.alpha(s)) * (scaled + (r_s - high_level) * slope)
            second = model(guess, s).eps
            y = float(sde.alpha(s)) * (scaled + (r_s - high_level) * (slope + second) / 2)
            t = s
        torch.testing.assert_close(run.x, y, rtol=1e-9, atol=1e-9)


def test_euler_maruyama_by_hand():
    """Eq. (1) of the module, with the drift and diffusion of `sde.reverse`."""
    for sde in (VPSDE(), VESDE(), EVERY["flow-0"]):
        model = ExactScore(spectrum(), sde)
        x, z = draws(1, (3, 4))[0], draws(1, (3, 4), seed=7)
        for eta in (0.0, 0.5, 1.0, 1.7):
            run = sample(
                model, (3, 4), sampler=f"euler_maruyama(eta={eta})", grid=f64([0.5, 0.3]),
                x_init=x, noise=Replay(z),
            ).x  # fmt: skip
            back = sde.reverse(lambda y, t, m=model: m(y, t).score, eta=eta)
            expected = x - 0.2 * back.drift(x, 0.5) + back.diffusion(0.5) * 0.2**0.5 * z[0]
            torch.testing.assert_close(run, expected, rtol=1e-12, atol=1e-12)


def test_reverse_diffusion_by_hand():
    """Eq. (2) of the module: (2 - k) x + std^2 score + std z, from the forward transition."""
    for sde in (VPSDE(), VESDE(), DDPM.linear(10, beta_end=0.4)):
        model = ExactScore(spectrum(), sde)
        x, z = draws(1, (3, 4))[0], draws(1, (3, 4), seed=7)
        run = sample(
            model,
            (3, 4),
            sampler="reverse_diffusion",
            grid=f64([0.5, 0.3]),
            x_init=x,
            noise=Replay(z),
        ).x
        k, std = sde.transition(0.3, 0.5)
        expected = (2 - k) * x + std**2 * model(x, 0.5).score + std * z[0]
        torch.testing.assert_close(run, expected, rtol=1e-12, atol=1e-12)


def test_a_wrong_alpha_would_be_seen():
    """Bug 4: x_0 times alpha at the old time leaves the path of a point at once."""

    class WrongDDIM(DDIM):
        def coefficients(self, sde, grid):
            columns = super().coefficients(sde, grid)
            mean = columns["mean"]
            t, _ = self.times(sde, grid)
            return {**columns, "mean": type(mean)(t, x0=sde.alpha(t), eps=mean.eps)}

    model = ExactScore(POINT, VPSDE())
    grid = f64([0.5, 0.45])
    wrong = probe(WrongDDIM(), model, grid).law(*exact_law(model, 0.5))[0]
    assert float((wrong / exact_law(model, 0.45)[0] - 1).abs().min()) > 0.05


def test_a_score_of_any_function_is_used_as_given():
    """`Given` itself: what the tests of constant predictions rest on."""
    sde = VPSDE()
    model = Given(lambda x, t: -x, sde)
    x = draws(1, (2, 2))[0]
    torch.testing.assert_close(model(x, 0.5).eps, sde.sigma(0.5) * x, rtol=1e-14, atol=0)
