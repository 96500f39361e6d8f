"""Claim: the options of `sample` do what they say: start, prior, kept states, dtype, bars.

Bug 20: the starting point has the marginal's scale at the time where the run starts, whatever it
is.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import Given, draws, two_modes
from strategies import EVERY, every_sde, f64
from support import mean_test, variance_test

from sdekit.model import MLP, ExactScore, ScoreModel
from sdekit.sampling import SampleResult, iterate, sample
from sdekit.sampling.noise import KeyedNoise
from sdekit.sde import DDPM, EDM, VESDE, VPSDE
from sdekit.targets import Gaussian


def start(model, shape=(4, 2), **how):
    return sample(model, shape, steps=how.pop("steps", 1), keep="all", **how).trajectory[0]


@every_sde
def test_the_standard_start_is_the_prior_at_the_first_time(sde):
    """Bug 20, also for a run that starts elsewhere than at t_max."""
    model = ExactScore(two_modes(), sde)
    z = KeyedNoise(6)(torch.empty(4, 2, dtype=torch.float64))
    how = dict(seed=6, dtype=torch.float64)
    assert torch.equal(start(model, **how), z * sde.prior_std())
    if "ddpm" not in sde.kinds:
        t = 0.6 * sde.t_max
        grid = torch.tensor([t, 0.3 * sde.t_max], dtype=torch.float64)
        assert torch.equal(start(model, grid=grid, **how), z * sde.prior_std(t))
        if "ve" in sde.kinds:
            assert sde.prior_std(t) == pytest.approx(float(sde.sigma(t)))


def test_the_priors_law(alpha_budget):
    x = start(ExactScore(two_modes(), VESDE()), (20000, 2), seed=0, dtype=torch.float64)
    values = x.flatten()
    assert mean_test(values, mean=0.0, std=50.0, alpha=alpha_budget.spend("start mean"))
    assert variance_test(values, var=2500.0, alpha=alpha_budget.spend("start variance"))


def test_x_init_is_the_start():
    model, x = ExactScore(two_modes(), VPSDE()), draws(1, (4, 2))[0]
    assert torch.equal(start(model, x_init=x), x)
    assert start(model, x_init=x).dtype == torch.float64
    assert start(model, x_init=x, dtype=torch.float32).dtype == torch.float32


def test_a_target_as_prior():
    """The matched prior: the law of x at the first time of the grid."""
    model = ExactScore(two_modes(), DDPM.linear(20))
    law = model.at(1.0)
    one, two = (start(model, prior=law, seed=3) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, start(model, prior=law, seed=4))
    assert not torch.equal(one, start(model, prior=law, seed=3 + 2**32))
    many = start(model, (700, 2), prior=law, seed=3)
    assert torch.equal(many[:4], one)  # K1: whatever the number of samples
    assert torch.equal(start(model, (700, 2), prior=law, seed=3, chunk=99), many)
    assert len(torch.unique(many, dim=0)) == 700
    assert start(model, (0, 2), prior=law).shape == (0, 2)
    far = Gaussian([100.0, -100.0], 1e-6)
    assert float((start(model, prior=far, seed=0) - f64([100, -100])).abs().max()) < 0.1


def test_kept_states():
    model = ExactScore(two_modes(), VPSDE())
    how = dict(steps=10, seed=0)
    everything = sample(model, (4, 2), keep="all", **how)
    assert everything.trajectory.shape == (11, 4, 2)
    assert torch.equal(everything.trajectory_t, everything.grid)
    for keep, rows in (
        (2, [0, 10]),
        (3, [0, 5, 10]),
        (6, [0, 2, 4, 6, 8, 10]),
        (99, list(range(11))),
    ):
        run = sample(model, (4, 2), keep=keep, **how)
        assert torch.equal(run.trajectory, everything.trajectory[rows])
        assert torch.equal(run.trajectory_t, everything.grid[rows])
    plain = sample(model, (4, 2), **how)
    assert plain.trajectory is None
    assert plain.trajectory_t is None
    chunked = sample(model, (4, 2), keep=3, chunk=3, **how)
    assert torch.equal(chunked.trajectory, everything.trajectory[[0, 5, 10]])
    stopped = sample(model, (4, 2), keep="all", callback=lambda frame: frame.step == 3, **how)
    assert torch.equal(stopped.trajectory, everything.trajectory[:4])
    assert torch.equal(stopped.trajectory_t, everything.grid[:4])


def test_denoise_is_tweedie_at_the_end():
    for sde in (VPSDE(), EDM(), EVERY["sub_vp-0"]):
        model = ExactScore(two_modes(), sde)
        how = dict(steps=5, seed=0, dtype=torch.float64, sampler="ancestral")
        plain, clean = sample(model, (4, 2), **how), sample(model, (4, 2), denoise=True, **how)
        expected = model(plain.x, sde.t_min).x0
        torch.testing.assert_close(clean.x, expected, rtol=1e-12, atol=1e-12)


def test_the_result_says_what_happened():
    run = sample(ExactScore(two_modes(), VPSDE()), (4, 2), steps=5, seed=0)
    assert isinstance(run, SampleResult)
    assert run.seconds > 0
    assert run.grid.dtype == torch.float64
    assert "tensor" in repr(run)


def test_dtype_by_default():
    """x_init's, else the network's, else the target's, else torch's."""
    wide = ExactScore(Gaussian(f64([0.0, 0.0]), 1.0), VPSDE())
    plain = ExactScore(Gaussian([0.0, 0.0], 1.0), VPSDE())
    assert sample(wide, (2, 2), steps=1).x.dtype == torch.float64
    assert sample(plain, (2, 2), steps=1).x.dtype == torch.float32
    assert sample(wide, (2, 2), steps=1, x_init=torch.zeros(2, 2)).x.dtype == torch.float32
    network = ScoreModel(MLP(2, width=4, depth=1).double(), VPSDE())
    assert sample(network, (2, 2), steps=1).x.dtype == torch.float64
    assert sample(network, (2, 2), steps=1, dtype=torch.float32).x.dtype == torch.float32
    assert sample(Given(lambda x, t: -x, VPSDE()), (2, 2), steps=1).x.dtype == torch.float32


def test_callbacks_see_every_frame_of_every_chunk():
    seen = []
    sample(
        ExactScore(two_modes(), VPSDE()), (5, 2), steps=3, seed=0, chunk=2,
        callback=lambda frame: seen.append((frame.step, len(frame.x), round(frame.t, 3))) and None,
    )  # fmt: skip
    rows = [(0, 1.0), (1, 0.667), (2, 0.334), (3, 0.001)]
    assert seen == [(k, n, t) for n in (2, 2, 1) for k, t in rows]


def test_a_progress_bar_changes_nothing(capsys):
    model = ExactScore(two_modes(), VPSDE())
    quiet = sample(model, (5, 2), steps=3, seed=0, chunk=2)
    loud = sample(model, (5, 2), steps=3, seed=0, chunk=2, progress=True)
    assert torch.equal(quiet.x, loud.x)


def test_iterate_and_sample_are_one_loop():
    model, x = ExactScore(two_modes(), VPSDE()), draws(1, (4, 2))[0]
    for sampler in ("ancestral", "heun", "predictor_corrector", "probability_flow"):
        run = sample(model, (4, 2), sampler=sampler, steps=6, x_init=x, seed=2)
        frames = list(iterate(model, x, sampler=sampler, grid="uniform", steps=6, noise=2))
        assert torch.equal(frames[-1].x, run.x)
        assert [frame.t for frame in frames] == run.grid.tolist()


def test_spellings_are_objects():
    model = ExactScore(two_modes(), VPSDE())
    from sdekit.sampling import DDIM, Karras

    one = sample(model, (4, 2), sampler="ddim(eta=0.5)", grid="karras(rho=5)", steps=4, seed=0)
    two = sample(model, (4, 2), sampler=DDIM(eta=0.5), grid=Karras(rho=5), steps=4, seed=0)
    assert torch.equal(one.x, two.x)
    assert torch.equal(sample(model, (4, 2), steps=4, seed=0).x, sample(
        model, (4, 2), sampler="ddim", grid="uniform", steps=4, seed=0
    ).x)  # fmt: skip
