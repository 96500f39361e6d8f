"""Claim: bits per dimension follow from the declared transform, and dequantisation bounds them.

Property 70 and PEER_BUGS 28: an offset of 7 or 8 bits is a property of the range, not a constant;
an affine change of the range leaves the bits as they are. The uniform bound is one: by quadrature
against the probability of a cell.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close

from sdekit import ExactScore, Gaussian, bits_per_dim, log_prob
from sdekit.errors import ConfigError, DataError, DtypeError, ShapeError
from sdekit.likelihood import Quantization, dequantize
from sdekit.sde import VESDE


@given(
    st.integers(2, 2**16), st.floats(-10, 10), st.floats(0.01, 100), st.integers(1, 20),
    st.floats(-1e4, 1e4),
)  # fmt: skip
def test_the_offset_is_the_width_of_a_cell(levels, low, width, dim, nats):
    how = dict(levels=levels, low=low, high=low + width)
    value = torch.tensor([nats], dtype=torch.float64)
    bits = bits_per_dim(value, (dim,), **how)
    # log2 of the number of cells of that width with this density
    expected = -(value / dim + math.log(width / levels)) / math.log(2)
    assert_close(bits, expected, tol=1e-10, scale=max(1.0, float(expected.abs())))
    assert_close(Quantization(**how).nats(bits, (dim,)), value, tol=1e-9, scale=abs(nats) + dim)


def test_seven_and_eight_bits():
    zero = torch.zeros(1)
    assert float(bits_per_dim(zero, (3, 8, 8))) == 7.0
    assert float(bits_per_dim(zero, (3, 8, 8), low=0.0)) == 8.0
    assert float(bits_per_dim(zero, (64,), levels=16, low=0.0, high=16.0)) == 0.0


def test_bits_do_not_depend_on_the_range():
    """The same data on [0, 1] and on [-1, 1], under the law that is moved along."""
    law, c = Gaussian([0.4, 0.5], 0.02), 2.0
    moved = Gaussian([2 * 0.4 - 1, 2 * 0.5 - 1], 0.02 * c**2)
    values = torch.tensor([[100, 130], [20, 250]])
    u = torch.tensor([[0.25, 0.5], [0.75, 0.1]], dtype=torch.float64)
    bits = []
    for data, low, sde in ((law, 0.0, VESDE(sigma_min=0.01, sigma_max=5.0)),
                           (moved, -1.0, VESDE(sigma_min=0.02, sigma_max=10.0))):  # fmt: skip
        how = Quantization(low=low)
        # the prior's own place is not moved along
        nats = log_prob(ExactScore(data, sde), how.placed(values, u)).corrected()
        bits.append(how.bits_per_dim(nats, (2,)))
    assert_close(bits[0], bits[1], tol=1e-9)


def test_uniform_dequantisation_is_a_bound():
    """E log p(x) over a cell, plus log width, is below log P of the cell; eq. (2)."""
    law, how = Gaussian([0.1], 0.05), Quantization(levels=8)
    normal = torch.distributions.Normal(0.1, 0.05**0.5)
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    for k in range(8):
        x = how.placed(torch.full((2000, 1), k), u[:, None])
        bound = float(law.log_prob(x).mean()) + math.log(how.width)
        low = how.low + how.width * k
        ends = torch.tensor([low, low + how.width], dtype=torch.float64)
        exact = float((normal.cdf(ends)[1] - normal.cdf(ends)[0]).log())
        assert bound <= exact + 1e-9
        assert exact - bound < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])  # 256 levels
def test_values_go_to_their_cells_and_back(dtype, generator):
    levels = 256
    values = torch.randint(levels, (40, 6), generator=generator)
    x = dequantize(values, levels=levels, generator=generator, dtype=dtype)
    assert x.dtype == dtype
    assert float(x.min()) >= -1
    assert float(x.max()) < 1
    assert torch.equal(Quantization(levels=levels).cells(x), values)
    top = torch.full((1, 1), levels - 1)
    edge = Quantization(levels=levels).placed(top, torch.tensor([[1 - 1e-9]], dtype=dtype))
    assert float(edge) < 1


def test_the_noise_is_uniform_and_seeded(generator):
    values = torch.zeros(4000, 1, dtype=torch.uint8)
    x = dequantize(values, levels=2, low=0.0, high=2.0, generator=generator)
    ordered = x.double().flatten().sort().values
    gap = (ordered - torch.linspace(0, 1, 4000, dtype=torch.float64)).abs().max()
    assert float(gap) < 4.6 / 4000**0.5  # DKW at 1e-18
    state = torch.get_rng_state()
    one, same = (dequantize(values, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, same)
    dequantize(values)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        (torch.tensor([[256]]), DataError, "256"),
        (torch.tensor([[-1]]), DataError, "-1"),
        (torch.tensor([[0.5]]), DataError, "0.5"),
        (torch.tensor([[math.nan]]), DataError, "nan"),
        (torch.tensor(3), ShapeError, "0-d"),
        ([[1]], DtypeError, "tensor"),
    ],
)
def test_values_that_are_none(values, error, match):
    with pytest.raises(error, match=match):
        dequantize(values)


def test_types_that_cannot_tell_cells_apart():
    values = torch.arange(256)[None]
    with pytest.raises(DtypeError, match="wider type"):
        dequantize(values, low=1000.0, high=1001.0, dtype=torch.float16)
    for dtype in (torch.int64, "f"):
        with pytest.raises(DtypeError, match="dtype"):
            dequantize(values, dtype=dtype)


def test_declarations_that_are_none():
    for how in (dict(levels=10**400), dict(low=-1e308, high=1e308), dict(low=0.0, high=5e-324)):
        with pytest.raises(ConfigError):
            bits_per_dim(torch.zeros(1), (2,), **how)
    with pytest.raises(ShapeError, match="shape"):
        bits_per_dim(torch.zeros(1), ())
    with pytest.raises(ConfigError, match="high"):
        Quantization(low=1.0, high=1.0)
    with pytest.raises(ShapeError, match="shape"):
        bits_per_dim(torch.zeros(1), "64")
    with pytest.raises(DtypeError, match="nats"):
        bits_per_dim(3.0, (64,))
