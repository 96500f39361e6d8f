"""Claim: keyed noise is a pure function of (seed, sample index, draw), bit for bit.

Whatever the batch, the chunks, the dtype, the thread or the order of the calls (K1, K5, K6, bug
31). The reference is one large batch; everything else must be a slice of it.
"""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
import torch

from sdekit.errors import ConfigError, DtypeError
from sdekit.sampling.noise import KeyedNoise, seed_from

SHAPES = [(), (1,), (2,), (3,), (7,), (16,), (1, 8, 8), (5000,), (20000,)]


def drawn(seed: int, n: int, dims=(2,), draws: int = 1, first: int = 0, dtype=torch.float32):
    """Draws of samples first .. first + n [(draws, n, *dims)]."""
    source = KeyedNoise(seed, first=first)
    like = torch.empty((n, *dims), dtype=dtype)
    return torch.stack([source(like) for _ in range(draws)])


@pytest.mark.parametrize("dims", SHAPES, ids=str)
def test_a_slice_is_a_slice_of_the_whole(dims):
    """Also across the borders of blocks."""
    n = max(40, min(20000, 40000 // max(torch.empty(dims).numel(), 1)))
    whole = drawn(3, n, dims, draws=6)
    cuts = sorted({0, 1, 5, 16, 17, n // 3, n // 2, n - 1, n})
    for low, high in pairwise(cuts):
        part = drawn(3, high - low, dims, draws=6, first=low)
        assert torch.equal(part, whole[:, low:high])
    across = drawn(3, n - 2, dims, draws=6, first=1)
    assert torch.equal(across, whole[:, 1 : n - 1])


def test_sizes_may_change_between_draws():
    """As where a composed sampler calls with other shapes: the counter alone decides."""
    source = KeyedNoise(5)
    seen = [source(torch.empty(n, 3)) for n in (4, 9, 9, 2, 50)]
    whole = drawn(5, 50, (3,), draws=5)
    for k, z in enumerate(seen):
        assert torch.equal(z, whole[k, : len(z)])


def test_the_dtype_only_casts():
    """K6: float32 and float64 runs see the same noise."""
    single, double = drawn(1, 100, draws=5), drawn(1, 100, draws=5, dtype=torch.float64)
    half = drawn(1, 100, draws=5, dtype=torch.float16)
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)
    assert torch.equal(single.half(), half)
    source = KeyedNoise(1)  # a change of dtype on the way changes nothing
    mixed = [source(torch.empty(100, 2, dtype=d)) for d in (torch.float32, torch.float64)]
    assert torch.equal(mixed[1], double[1])


@pytest.mark.parametrize("dims", [(), (2,), (7,), (5000,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adding_in_place_is_adding_the_draw(dims, dtype):
    """Block by block, from inside a block or not, and counted as a draw like any other."""
    for first, n in ((0, 3), (0, 300), (5, 90)):
        one, other = KeyedNoise(4, first=first), KeyedNoise(4, first=first)
        y = torch.linspace(-1, 1, n, dtype=dtype).reshape(n, *[1] * len(dims)).repeat(1, *dims)
        for std in (0.3, 2.0):
            expected = y.clone().add_(one(y), alpha=std)
            assert other.add_to(y, std) is y
            assert torch.equal(y, expected)
        assert torch.equal(one(y), other(y))


def test_draws_are_the_callers_own():
    """What was drawn is not overwritten by later draws."""
    source = KeyedNoise(2)
    like = torch.empty(50, 2)
    seen = [source(like) for _ in range(9)]
    kept = [z.clone() for z in seen]
    [source(like) for _ in range(9)]
    for z, copy in zip(seen, kept, strict=True):
        assert torch.equal(z, copy)


def test_streams_never_meet():
    """No sixteen values come twice over samples, draws and neighbouring seeds."""
    every = torch.cat(
        [drawn(seed, 3000, (16,), draws=9).flatten() for seed in (0, 1, -1, 2**32, 2**64)]
    )
    blocks = every.reshape(-1, 16)
    assert len(torch.unique(blocks, dim=0)) == len(blocks)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**64, 2**64 - 1, 2**200])
def test_every_int_is_a_seed(seed):
    """K10."""
    assert torch.equal(drawn(seed, 8), drawn(seed, 8))
    assert torch.isfinite(drawn(seed, 8)).all()


def test_seeds_differ():
    """In every draw of every block, and -300 from 301: signs and lengths count."""
    big = [2**32, -(2**32), 2**32 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, -(2**64), 2**96]
    seeds = [*range(-400, 400), *big]
    first = torch.stack([drawn(seed, 4, draws=5).flatten() for seed in seeds])
    for draw in first.reshape(len(seeds), 5, -1).unbind(1):
        assert len(torch.unique(draw, dim=0)) == len(seeds)


@pytest.mark.parametrize("seed", ["7", 1.5, 1.0, True, [1], torch.tensor(1.0), object()])
def test_what_is_no_seed(seed):
    """E13, K10: the message names what would do."""
    with pytest.raises(DtypeError, match=r"seed.*int.*Generator.*None"):
        seed_from(seed)


def test_a_generator_yields_one_key_and_moves():
    generator = torch.Generator().manual_seed(0)
    keys = [seed_from(generator) for _ in range(3)]
    assert len(set(keys)) == 3
    again = torch.Generator().manual_seed(0)
    assert [seed_from(again) for _ in range(3)] == keys
    assert seed_from(None) != seed_from(None)


def test_first_is_an_index():
    with pytest.raises(ConfigError, match="first"):
        KeyedNoise(0, first=-1)
    with pytest.raises(DtypeError, match="first"):
        KeyedNoise(0, first=1.5)


def test_threads():
    """K5, E23: the number of threads and who draws makes no difference."""
    expected, results = drawn(9, 500, (3,), draws=8), {}
    workers = [
        threading.Thread(target=lambda k=k: results.update({k: drawn(9, 500, (3,), draws=8)}))
        for k in range(4)
    ]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert all(torch.equal(results[k], expected) for k in range(4))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(drawn(9, 500, (3,), draws=8), expected)
    finally:
        torch.set_num_threads(before)


def test_an_empty_batch():
    assert KeyedNoise(0)(torch.empty(0, 2)).shape == (0, 2)
    assert KeyedNoise(0, first=5)(torch.empty(0, 2)).shape == (0, 2)
