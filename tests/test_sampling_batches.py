"""Claim: a sample depends on its index and the seed, not on its batch, chunk or cuts.

Properties 54, 55, 58; K1, K5, K7, K8; bug 31. Bitwise on exact models. What does not hold is
listed: batch means, one error control for a batch, and rules that look at the whole grid.
"""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from sampling_support import (
    adaptive,
    defaults,
    draws,
    each,
    entries,
    may_refuse,
    spectrum,
    two_modes,
)  # fmt: skip
from strategies import f64

from sdekit.errors import DtypeError
from sdekit.model import ExactScore, ScoreModel
from sdekit.sampling import Heun, iterate, sample
from sdekit.sampling.base import LARGE
from sdekit.sampling.noise import KeyedNoise, Recorded, Replay
from sdekit.sde import DDPM, VESDE, VPSDE

SAMPLERS = entries("sampler")
every_sampler = pytest.mark.parametrize("sampler", each(SAMPLERS))


def coupled(sampler) -> bool:
    """Whether samples of a batch look at each other, by definition."""
    parts = [sampler, getattr(sampler, "corrector", None), getattr(sampler, "predictor", None)]
    return adaptive(sampler) or any(getattr(part, "rule", "") == "batch_norm" for part in parts)


@every_sampler
def test_chunks_and_batch_sizes(sampler):
    model = ExactScore(spectrum(), VPSDE())
    how = dict(sampler=sampler, steps=4, seed=11)
    starts = sample(
        model, (37, 4), steps=1, sampler="ddim(eta=0)", seed=11, keep="all"
    ).trajectory[0]
    whole = sample(model, (37, 4), keep="all", chunk=30, **how)
    assert torch.equal(whole.trajectory[0], starts)  # the same noise, whatever the sampler
    whole = whole.x
    if coupled(sampler):
        return
    for chunk in (1, 5, 16, 36, 37, 1000):
        assert torch.equal(sample(model, (37, 4), chunk=chunk, **how).x, whole)
    assert torch.equal(sample(model, (9, 4), **how).x, whole[:9])


@pytest.mark.parametrize("sampler", ["ancestral", "euler_maruyama", "langevin", "heun(churn=5)"])
def test_a_large_batch_is_its_parts(sampler):
    """It holds one tensor less than a small one, and gives the same."""
    model, how = ExactScore(spectrum(), VPSDE()), dict(sampler=sampler, steps=3, seed=11)
    n = LARGE // 4 + 100
    whole = sample(model, (n, 4), **how).x
    assert torch.equal(sample(model, (n, 4), chunk=n // 3, **how).x, whole)
    assert torch.equal(sample(model, (50, 4), **how).x, whole[:50])


def looks_at_the_whole_grid(sampler) -> bool:
    """Churn is divided by the number of steps; a corrector's k by the next level below."""
    return (
        bool(getattr(sampler, "churn", 0))
        or getattr(sampler, "first", "") == "predictor"
        or (sampler.catalogue_name in ("langevin", "annealed_langevin"))
    )


@every_sampler
@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), DDPM.linear(20, beta_end=0.4)], ids=repr)
def test_cutting_a_run(sde, sampler):
    """Property 55: [T -> s] + [s -> 0] = [T -> 0] on the same grid and noise."""
    if adaptive(sampler) or (looks_at_the_whole_grid(sampler) and "ve" not in sde.kinds):
        return  # one row; rules of the whole grid: listed above
    if may_refuse(sampler, sde) or sampler.memory or hasattr(sampler, "intervals"):
        return  # churn / K; refused on a chain; a history, and loops at a level of the whole grid
    model, grid = ExactScore(two_modes(), sde), sample(
        ExactScore(two_modes(), sde), (0, 2), steps=8
    ).grid  # fmt: skip
    x = draws(1, (3, 2))[0]
    source = Recorded(KeyedNoise(3))
    how = dict(sampler=sampler)
    whole = sample(model, (3, 2), grid=grid, x_init=x, noise=source, keep="all", **how)
    for cut in (1, 4, 7):
        rest = Replay(source.draws)
        first = sample(model, (3, 2), grid=grid[: cut + 1], x_init=x, noise=rest, **how).x
        second = sample(model, (3, 2), grid=grid[cut:], x_init=first, noise=rest, **how).x
        # bitwise on a chain; torch.pow and torch.exp round by the place in a vector of times
        slack = 1e-13 * ("ddpm" not in sde.kinds) * float(whole.trajectory.abs().max())
        torch.testing.assert_close(first, whole.trajectory[cut], rtol=0, atol=slack)
        torch.testing.assert_close(second, whole.x, rtol=0, atol=slack)


@every_sampler
def test_going_on_from_a_frame(sampler):
    """The loop itself, from any frame: bitwise, whatever the sampler remembers."""
    from sdekit.sampling import CountedModel

    model = ExactScore(two_modes(), VPSDE())
    x, grid = draws(1, (3, 2))[0], torch.linspace(1, 0.01, 7, dtype=torch.float64)
    noise = KeyedNoise(8)
    frames, marks = [], []
    for frame in iterate(model, x, sampler=sampler, grid=grid, noise=noise):
        frames.append(frame)
        marks.append(noise.draw)
    k = len(frames) // 2
    again = list(sampler.frames(CountedModel(model), x, grid, noise.at(marks[k]), after=frames[k]))
    assert len(again) == len(frames) - k
    for one, two in zip(again, frames[k:], strict=True):
        assert torch.equal(one.x, two.x)
        assert (one.step, one.t) == (two.step, two.t)


def test_the_global_generators_are_left_alone():
    model = ExactScore(two_modes(), VPSDE())
    before = torch.get_rng_state(), repr(np.random.get_state(legacy=False)), random.getstate()
    for sampler in defaults("sampler").values():
        sample(model, (4, 2), sampler=sampler, steps=3)
        sample(model, (4, 2), sampler=sampler, steps=3, seed=0, prior=two_modes())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state(legacy=False)) == before[1]
    assert random.getstate() == before[2]
    torch.manual_seed(3)  # and what the caller seeds changes nothing
    one = sample(model, (4, 2), seed=0).x
    torch.manual_seed(4)
    assert torch.equal(sample(model, (4, 2), seed=0).x, one)
    torch.set_rng_state(before[0])


@every_sampler
def test_kept_states_are_not_overwritten(sampler):
    model, x = ExactScore(two_modes(), VPSDE()), draws(1, (3, 2))[0]
    how = dict(sampler=sampler, steps=5)
    kept = sample(model, (3, 2), x_init=x, noise=KeyedNoise(1), keep="all", **how)
    frames = iterate(model, x, grid="uniform", noise=KeyedNoise(1), **how)
    live = [(frame.x, frame.x.clone(), frame.t) for frame in frames]
    for k, (now, then, t) in enumerate(live):
        assert torch.equal(now, then)
        assert torch.equal(kept.trajectory[k], then)
        assert float(kept.trajectory_t[k]) == t
    assert torch.equal(kept.trajectory[-1], kept.x)


@every_sampler
def test_threads_share_nothing(sampler):
    """E23: one sampler object, one model, several threads, other seeds in each."""
    model = ExactScore(spectrum(), VPSDE())
    how = dict(sampler=sampler, steps=3)
    serial = {seed: sample(model, (5, 4), seed=seed, **how).x for seed in range(3)}
    found = {}

    def work(seed):
        for _ in range(1 if adaptive(sampler) else 3):
            found[seed] = sample(model, (5, 4), seed=seed, **how).x

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(torch.equal(found[seed], serial[seed]) for seed in range(3))


def test_another_sampler_in_between_changes_nothing():
    """K7 and K8: no state is left behind."""
    model = ExactScore(two_modes(), VPSDE())

    def results(names):
        return {n: sample(model, (4, 2), sampler=n, steps=4, seed=0).x for n in names}

    names = list(defaults("sampler"))
    one, two = results(names), results(reversed(names[1:]))
    assert all(torch.equal(one[name], two[name]) for name in names[1:])


def test_precision_changes_the_noise_by_rounding_only():
    """K6: a float32 and a float64 run of one seed are the same run."""
    model = ExactScore(two_modes(), VPSDE())
    how = dict(sampler="ancestral", steps=20, seed=0)
    single = sample(model, (50, 2), dtype=torch.float32, **how).x
    double = sample(model, (50, 2), dtype=torch.float64, **how).x
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)


def test_a_network_sees_its_own_rounding_only():
    """Chunks change a matrix product by 6e-8, the noise not at all."""
    torch_net = torch.nn.utils.skip_init(torch.nn.Linear, 2, 2)
    with torch.no_grad():
        torch_net.weight.copy_(torch.eye(2) * 0.3)
        torch_net.bias.zero_()
    model = ScoreModel(lambda x, t: torch_net(x), VPSDE())
    how = dict(sampler="ancestral", steps=10, seed=0)
    whole, cut = (sample(model, (33, 2), chunk=chunk, **how).x for chunk in (None, 7))
    torch.testing.assert_close(whole, cut, rtol=0, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("seed", [0, 2**63 - 1, -1, 2**64, -(2**70)])
def test_any_int_is_a_seed(seed):
    """K10."""
    model = ExactScore(two_modes(), VPSDE())
    one, two = (sample(model, (3, 2), steps=2, seed=seed).x for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("seed", [1.5, "0", True, np.random.default_rng(0), [0]])
def test_what_is_no_seed(seed):
    with pytest.raises(DtypeError, match=r"seed.*Generator"):
        sample(ExactScore(two_modes(), VPSDE()), (3, 2), seed=seed)


def test_a_generator_for_the_start_and_a_source_for_the_rest():
    model = ExactScore(two_modes(), VPSDE())
    zero = sample(
        model, (3, 2), sampler="ancestral", steps=3, seed=4, noise=torch.zeros_like, keep="all"
    )
    keyed = sample(model, (3, 2), sampler="ancestral", steps=3, seed=4, keep="all")
    assert torch.equal(zero.trajectory[0], keyed.trajectory[0])
    assert not torch.equal(zero.x, keyed.x)


def test_heun_splits_where_it_does_not_churn():
    model, x, grid = ExactScore(two_modes(), VPSDE()), draws(1, (3, 2))[0], f64([0.9, 0.5, 0.1])
    whole = sample(model, (3, 2), sampler=Heun(), grid=grid, x_init=x).x
    half = sample(model, (3, 2), sampler=Heun(), grid=grid[:2], x_init=x).x
    assert torch.equal(sample(model, (3, 2), sampler=Heun(), grid=grid[1:], x_init=half).x, whole)
