"""Claim: a thresholded model predicts what eqs. (1) and (2) say, for each sample by itself.

Every sampler then uses that x_0 and the noise that belongs to it. diffusers' clip_sample and
thresholding, in steps of its DDIM (with use_clipped_model_output) and DDPM, give the same numbers.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sampling_support import FINE, Wrapped, defaults, draws, two_modes
from strategies import every_sde, f64
from support import assert_close, leaving

from sdekit import DDIM, DDPM, VPSDE, ExactScore, Gaussian, ScoreModel, sample
from sdekit.errors import ConfigError, DtypeError, ModelError
from sdekit.model import MLP, Thresholded
from sdekit.model.moments import Moments
from sdekit.model.parametrization import X0
from sdekit.model.prediction import Prediction
from sdekit.sampling.noise import Replay

WIDE = ExactScore(Gaussian(torch.zeros(5, dtype=torch.float64), 9.0), VPSDE())


class Says:
    """A model that predicts the same x_0 [(n, *dims)] everywhere."""

    def __init__(self, x0, sde=None) -> None:
        self.x0, self.sde = x0, sde or VPSDE()

    def __call__(self, x, t, **cond):
        return Prediction(x, self.x0[: len(x)], t, (self.sde, X0()))


# the formulas -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.3, 1.0, 2.5])
def test_static_is_the_clamp(limit):
    x0 = 3 * draws(1, (6, 2, 3))[0]
    found = Thresholded(Says(x0), limit=limit)(torch.zeros_like(x0), 0.5)
    assert torch.equal(found.x0, torch.from_numpy(np.clip(x0.numpy(), -limit, limit)))
    sde = VPSDE()  # and the noise that belongs to it
    assert_close(found.eps, -float(sde.alpha(0.5) / sde.sigma(0.5)) * found.x0, tol=1e-12)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995, 1.0])
def test_dynamic_scales_each_sample_by_its_own_quantile(quantile):
    x0 = draws(1, (6, 4, 5))[0] * torch.tensor([0.01, 0.3, 1, 2, 5, 100.0]).reshape(6, 1, 1)
    found = Thresholded(Says(x0), "dynamic", limit=0.8, quantile=quantile)(x0, 0.5).x0
    for one, had in zip(found.numpy(), x0.numpy(), strict=True):
        s = max(0.8, np.quantile(np.abs(had), quantile))
        assert np.allclose(one, 0.8 * np.clip(had, -s, s) / s, rtol=1e-12, atol=0)


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_inside_the_range_nothing_changes(how):
    x0 = draws(1, (6, 3))[0].clamp(-1, 1)
    assert torch.equal(Thresholded(Says(x0), how)(x0, 0.3).x0, x0)


def test_a_step_of_ddim_uses_the_kept_x0_and_its_noise():
    sde, grid = VPSDE(), f64([0.8, 0.5])
    x = 4 * draws(1, (9, 5))[0]
    found = sample(Thresholded(WIDE), (9, 5), grid=grid, x_init=x).x
    (a, b), (u, v) = (f(grid).tolist() for f in (sde.alpha, sde.sigma))
    clean = (a * 9 / (a * a * 9 + u * u) * x).clamp(-1, 1)
    assert float((clean.abs() == 1).double().mean()) > 0.3
    assert_close(found, b * clean + v * (x - a * clean) / u, tol=1e-12)


# other people's numbers -------------------------------------------------------------------------

pytest_diffusers = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
CLIPS = {
    "static": {"clip_sample": True, "clip_sample_range": 1.0, "thresholding": False},
    "dynamic": {"clip_sample": False, "thresholding": True, "sample_max_value": 1e6,
                "dynamic_thresholding_ratio": 0.9},
}  # fmt: skip


@pytest_diffusers
@pytest.mark.parametrize("how", CLIPS)
@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler"])
def test_diffusers_steps(name, how):
    diffusers = pytest.importorskip("diffusers")
    made = getattr(diffusers, name)(
        num_train_timesteps=100, beta_schedule="linear", beta_start=1e-3, beta_end=0.2,
        timestep_spacing="leading", **CLIPS[how],
    )  # fmt: skip
    chain = DDPM(made.betas.double())
    plain = ExactScore(Gaussian(torch.zeros(6, dtype=torch.float64), 9.0), chain)
    x = start = 3 * draws(1, (8, 6))[0]
    noise = draws(10, (8, 6), seed=5)
    made.set_timesteps(10)
    nodes = [*(made.timesteps.double() + 1).tolist(), 0.0]
    for k, i in enumerate(made.timesteps):
        given = plain(x, nodes[k] / 100).eps[..., None], i, x[..., None]  # it wants two axes
        if name == "DDIMScheduler":
            x = made.step(*given, use_clipped_model_output=True).prev_sample[..., 0]
        else:  # its noise is drawn inside: take it out, and put ours in
            generator = torch.Generator().manual_seed(0)
            out = made.step(*given, generator=generator).prev_sample[..., 0]
            drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
            std = float(made._get_variance(int(i)) ** 0.5) if i > 0 else 0.0
            x = out + std * (noise[k] - drawn)
    kept = Thresholded(plain, how, quantile=0.9)
    sampler = "ddim" if name == "DDIMScheduler" else "ancestral"
    found = sample(
        kept, (8, 6), sampler=sampler, grid=f64(nodes) / 100, x_init=start, noise=Replay(noise)
    )
    assert_close(found.x, x, tol=1e-4)  # its table is float32
    without = sample(
        plain, (8, 6), sampler=sampler, grid=f64(nodes) / 100, x_init=start, noise=Replay(noise)
    )
    assert float((without.x - x).abs().max()) > 0.5


# with every sampler -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["static", "dynamic"])
@pytest.mark.parametrize("name", leaving([*defaults("sampler")], lambda name: name in FINE))
def test_every_sampler_runs_on_it_and_chunks_do_not_matter(name, how):
    model = Thresholded(ExactScore(two_modes(), VPSDE()), how, limit=0.4, quantile=0.9)
    options = dict(sampler=name, steps=6, seed=0, denoise=True, dtype=torch.float64)
    whole = sample(model, (20, 2), **options)
    assert float(whole.x.abs().max()) <= 0.4
    # how much of a prediction is at the limit depends on where the model is asked: at the start
    x = sample(ExactScore(two_modes(), VPSDE()), (20, 2), steps=1, seed=0, keep="all").trajectory[
        0
    ]
    assert float((model(x, 0.3).x0.abs() > 0.4 - 1e-9).double().mean()) > 0.2
    if "adaptive" not in defaults("sampler")[name].needs:  # whose steps a batch shares
        assert torch.equal(sample(model, (20, 2), chunk=16, **options).x, whole.x)
        unbound = sample(Wrapped(model), (20, 2), **options)
        assert_close(unbound.x, whole.x, tol=1e-9)


@every_sde
def test_bound_and_called_it_says_the_same(sde):
    network = ScoreModel(MLP(2, width=8, seed=0), sde, parametrization="v").double()
    model = Thresholded(network, limit=0.2)
    x, times = draws(1, (7, 2))[0], [0.7 * sde.t_max, 0.3 * sde.t_max]
    if "ddpm" in sde.kinds:
        times = [float(sde.time(round(t * sde.n))) for t in times]
    with torch.no_grad():
        call = model.bind(x, times, {})
        for t in times:
            assert_close(call(x, t), model(x, t).x0, tol=1e-12)


def test_the_network_inside_is_seen():
    network = ScoreModel(MLP(2, width=8, seed=0), VPSDE(), moments=Moments.isotropic((2,), 1.0))
    model = Thresholded(network, "dynamic", limit=2.0)
    assert len(list(model.parameters())) == len(list(network.parameters()))
    assert model.moments is network.moments
    assert sample(model, (3, 2), steps=2, seed=0, prior="matched").x.dtype == torch.float32
    assert "limit=2" in repr(model)
    network.train()
    sample(model, (3, 2), steps=2, seed=0)
    assert network.training


def test_an_empty_batch_and_half_precision():
    for how in ("static", "dynamic"):
        assert sample(Thresholded(WIDE, how), (0, 5), steps=2).x.shape == (0, 5)
        x = 9 * draws(1, (4, 5))[0].bfloat16()
        assert Thresholded(WIDE, how).kept(x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        ((WIDE, "soft"), {}, ConfigError, "static"),
        ((WIDE,), {"limit": 0}, ConfigError, "limit"),
        ((WIDE,), {"limit": "1"}, DtypeError, "limit"),
        ((WIDE,), {"quantile": 0.0}, ConfigError, "quantile"),
        ((WIDE,), {"quantile": 1.5}, ConfigError, "quantile"),
        ((WIDE,), {"quantile": True}, DtypeError, "quantile"),
        ((VPSDE(),), {}, ModelError, "model"),
        ((DDIM(),), {}, ModelError, "model"),
    ],
)
def test_refused(arguments, options, error, said):
    with pytest.raises(error, match=said):
        Thresholded(*arguments, **options)
