"""Claim: fitted noise gives a lower bound on log P(k) that closes most of the uniform one's gap.

The probabilities are exact, from the normal distribution function; the uniform bound is found by
quadrature. log q is compared with the change of variables, and with its value far in the tails.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support import assert_close
from torch.distributions import Normal

from sdekit import Gaussian, GaussianMixture
from sdekit.errors import (
    ConfigError,
    DataError,
    DtypeError,
    ModelError,
    NonFiniteError,
    ShapeError,
)
from sdekit.likelihood import Quantization, VariationalDequantizer, dequantize

HOW = Quantization(levels=8)
WEIGHTS, MEANS, VARS = [0.3, 0.7], [-0.45, 0.35], [0.01, 0.02]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def moved(noise, scale=1.0):
    """The noise with a last layer that is not zero."""
    with torch.no_grad():
        for parameter in noise.network.layers[-1].parameters():
            parameter.normal_(0, scale, generator=seeded(3))
    return noise


def cells_1d(weights, means, variances):
    """log P of each of the eight cells on the line."""
    ends = torch.linspace(HOW.low, HOW.high, HOW.levels + 1, dtype=torch.float64)
    total = 0.0
    for w, m, v in zip(weights, means, variances, strict=True):
        total = total + w * Normal(m, v**0.5).cdf(ends).diff()
    return total.log()


def uniform(law, values):
    """The bound of uniform noise by Gauss and Legendre's rule, in each dimension."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(40))
    dim = values.shape[1]
    u = torch.cartesian_prod(*[(nodes + 1) / 2] * dim).reshape(-1, dim)
    w = torch.cartesian_prod(*[weights / 2] * dim).reshape(-1, dim).prod(1)
    x = HOW.placed(values.repeat_interleave(len(u), 0), u.repeat(len(values), 1))
    each = law.log_prob(x).reshape(len(values), -1)
    return each @ w + dim * math.log(HOW.width)


def check_order(law, values, exact, *, closed, copies):
    """Uniform <= fitted <= importance-weighted <= exact, and how much of the gap is closed."""
    share = exact.exp() / exact.exp().sum()  # the data's own cells
    noise = VariationalDequantizer(HOW, values.shape[1:], width=32).double()
    rows = torch.multinomial(share, 2000, replacement=True, generator=seeded(1))
    noise.fit(law.log_prob, values[rows], steps=500, lr=0.03, batch_size=256)

    def gap(draws):
        """Mean of log P - bound over the data, five standard errors of it, and both for each k."""
        found = noise.bound(
            law.log_prob, values.repeat(copies, 1), draws=draws, generator=seeded(2),
            importance=draws > 1,
        )  # fmt: skip
        each = exact - found.nats.reshape(copies, -1)
        slack = 5 * each.std(0) / copies**0.5
        return float(share @ each.mean(0)), float((share * slack).norm()), each.mean(0), slack

    flat = float(share @ (exact - uniform(law, values)))
    assert flat > 0.1  # there is something to gain
    plain, slack, each, slacks = gap(1)
    assert -slack < plain < (1 - closed) * flat - slack
    assert bool((each > -slacks).all())  # a bound for each k, not only on average
    weighted, slack_weighted, each, slacks = gap(16)
    assert -slack_weighted < weighted < 0.5 * plain
    assert bool((each > -slacks).all())


def test_a_mixture_on_the_line():
    law = GaussianMixture(WEIGHTS, [[m] for m in MEANS], VARS)
    exact = cells_1d(WEIGHTS, MEANS, VARS)
    check_order(law, torch.arange(8)[:, None], exact, closed=0.8, copies=4000)


def test_a_mixture_in_the_plane():
    """Components with independent coordinates: a cell's probability is a sum of products."""
    means = [[-0.45, 0.35], [0.35, -0.3]]
    law = GaussianMixture(WEIGHTS, means, VARS)
    total = torch.zeros(8, 8, dtype=torch.float64)
    for w, (a, b), v in zip(WEIGHTS, means, VARS, strict=True):
        one, other = (cells_1d([1.0], [m], [v]).exp() for m in (a, b))
        total += w * one[:, None] * other
    values = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    likely = total.flatten() > 1e-4
    exact = total.flatten()[likely].log()
    check_order(law, values[likely], exact, closed=0.7, copies=2000)


def test_log_q_is_that_of_the_noise():
    """By the change of variables from y to x, in two dimensions, with a law that depends on k."""
    noise = moved(VariationalDequantizer(HOW, (2,), width=8).double(), 0.5)
    values = torch.randint(8, (500, 2), generator=seeded())
    x, log_q = noise(values, generator=seeded(1))
    mean, log_std = noise._law(values)
    u = (x - HOW.low) / HOW.width - values
    expected = Normal(mean, log_std.exp()).log_prob(torch.logit(u)) - (u * (1 - u)).log()
    assert_close(log_q, expected.sum(1), tol=1e-9)
    assert bool((HOW.cells(x) == values).all())


def test_it_starts_near_the_uniform_law():
    """KL(q || uniform) = E log q is 0.0095 nats a dimension."""
    noise = VariationalDequantizer(HOW, (1,)).double()
    each = noise(torch.zeros(200_000, 1), generator=seeded())[1].detach()
    assert abs(float(each.mean()) - 0.0095) < 5 * float(each.std()) / len(each) ** 0.5 < 0.0015


@pytest.mark.parametrize("mean", [-700.0, -60.0, 60.0, 700.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tails_keep_value_and_gradient(mean, dtype):
    """Where u rounds to 0 or 1: log q = |y| and a Gaussian's, the slope of the mean is +-1."""
    noise = VariationalDequantizer(HOW, (1,)).to(dtype)
    last = noise.network.layers[-1]
    with torch.no_grad():
        last.bias[0] = mean
    values = torch.tensor([[7], [0]])
    x, log_q = noise(values, generator=seeded())
    eps = torch.randn(2, 1, generator=seeded(), dtype=torch.float64)
    y = mean + 1.75 * eps
    gauss = -0.5 * eps**2 - math.log(1.75) - 0.5 * math.log(2 * math.pi)
    assert_close(log_q, (y.abs() + gauss)[:, 0], tol=1e-12)
    (slope,) = torch.autograd.grad(log_q.sum() + x.sum(), last.bias)
    assert_close(slope[0].double(), torch.tensor(2 * math.copysign(1, mean)).double(), tol=1e-6)
    assert bool(((x >= HOW.low) & (x < HOW.high)).all())
    assert x.dtype == dtype


def test_x_carries_the_gradient_of_the_noise():
    """d E[x] / d mean = width E[u (1 - u)]; central differences at the same eps."""
    noise = moved(VariationalDequantizer(HOW, (1,), width=8).double(), 0.3)
    values, bias = torch.tensor([[2], [5]]), noise.network.layers[-1].bias
    x, _ = noise(values, generator=seeded())
    (slope,) = torch.autograd.grad(x.sum(), bias)
    step, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            bias[0] += sign * step
            ends.append(noise(values, generator=seeded())[0].sum())
            bias[0] -= sign * step
    assert_close(slope[0], (ends[0] - ends[1]) / (2 * step), tol=1e-7)


def test_the_same_seed_gives_the_same_noise_and_touches_nothing_else():
    law, values = Gaussian([0.1], 0.02), torch.arange(8)[:, None]
    state = torch.get_rng_state()
    one, same = (VariationalDequantizer(HOW, (1,), width=8, seed=1) for _ in range(2))
    height = torch.nn.Parameter(torch.tensor(1.0))
    histories = [
        noise.fit(lambda x: height * law.log_prob(x), values, steps=5, generator=seeded(4))
        for noise in (one, same)
    ]
    assert torch.equal(*histories)
    assert histories[0].shape == (5,)
    assert height.grad is None
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert all(p.grad is None for p in one.parameters())
    assert torch.equal(one(values, generator=seeded())[0], same(values, generator=seeded())[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_one_draw_says_nothing_of_its_error():
    noise = VariationalDequantizer(HOW, (1,))
    for importance in (False, True):
        found = noise.bound(
            Gaussian([0.0], 1.0).log_prob, torch.tensor([[1]]), importance=importance
        )
        assert bool(found.stderr.isnan().all())
        assert bool(found.nats.isfinite().all())


def test_importance_weights_beyond_the_range_of_floats():
    """Densities of e^-2000: their average is taken in logarithms."""
    noise, k = VariationalDequantizer(HOW, (1,)).double(), torch.tensor([[1], [2]])
    plain = noise.bound(lambda x: x[:, 0], k, draws=7, generator=seeded(), importance=True)
    low = noise.bound(lambda x: x[:, 0] - 2000, k, draws=7, generator=seeded(), importance=True)
    assert_close(low.nats + 2000, plain.nats, tol=1e-11)
    assert_close(low.stderr, plain.stderr, tol=1e-9)


K = torch.tensor([[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        (torch.tensor([[8, 0]]), DataError, "8"),
        (torch.tensor([[0.5, 0.0]]), DataError, "0.5"),
        (torch.tensor([[1]]), ShapeError, r"\(batch, 2\)"),
        (torch.tensor(1), ShapeError, "0-d"),
        ([[1, 2]], DtypeError, "values"),
    ],
)
@pytest.mark.parametrize("entry", ["forward", "bound", "fit"])
def test_values_that_are_none(entry, values, error, match):
    noise, law = VariationalDequantizer(HOW, (2,), width=4), Gaussian([0.0, 0.0], 1.0).log_prob
    with pytest.raises(error, match=match):
        {
            "forward": lambda: noise(values),
            "bound": lambda: noise.bound(law, values),
            "fit": lambda: noise.fit(law, values, steps=1),
        }[entry]()


@pytest.mark.parametrize(
    ("law", "error", "match"),
    [
        (lambda x: x, ShapeError, r"\(2,\)"),
        (lambda x: 3.0, ModelError, "log_density"),
        (lambda x: x[:, 0] / 0, NonFiniteError, "rows: \\[0, 1\\]"),
        (lambda x: x[:, 0].detach(), ModelError, "gradient"),
    ],
)
def test_densities_that_are_none(law, error, match):
    with pytest.raises(error, match=match):
        VariationalDequantizer(HOW, (2,), width=4).fit(law, K, steps=1)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda n, f: VariationalDequantizer(8, (2,)), DtypeError, "quantization"),
        (lambda n, f: VariationalDequantizer(HOW, "2"), ShapeError, "shape"),
        (lambda n, f: VariationalDequantizer(HOW, 2), ShapeError, "shape"),
        (lambda n, f: VariationalDequantizer(HOW, (0,)), ConfigError, "shape"),
        (lambda n, f: VariationalDequantizer(HOW, (2,), width=0), ConfigError, "width"),
        (lambda n, f: VariationalDequantizer(HOW, (2,), seed=0.5), DtypeError, "seed"),
        (lambda n, f: n.bound(f, K, draws=0), ConfigError, "draws"),
        (lambda n, f: n.bound(f, K, importance=1), DtypeError, "importance"),
        (lambda n, f: n.bound(f, K, generator=1), DtypeError, "generator"),
        (lambda n, f: n.fit(f, K, steps=-1), ConfigError, "steps"),
        (lambda n, f: n.fit(f, K, steps=1, lr=0), ConfigError, "lr"),
        (lambda n, f: n.fit(f, K, steps=1, lr=math.nan), ConfigError, "lr"),
        (lambda n, f: n.fit(f, K, steps=1, batch_size=0), ConfigError, "batch_size"),
        (lambda n, f: n.fit(f, K[:0], steps=1), DataError, "at least one"),
    ],
)
def test_arguments_that_are_none(call, error, match):
    noise = VariationalDequantizer(HOW, (2,), width=4)
    with pytest.raises(error, match=match):
        call(noise, Gaussian([0.0, 0.0], 1.0).log_prob)


def test_both_kinds_of_noise_are_found_by_name():
    """The module of the one does not hide the function of the other."""
    assert HOW.cells(dequantize(K, levels=8, generator=seeded())).equal(K)


def test_no_steps_leave_it_as_it_was():
    noise = VariationalDequantizer(HOW, (2,), width=4)
    before = [p.detach().clone() for p in noise.parameters()]
    assert noise.fit(Gaussian([0.0, 0.0], 1.0).log_prob, K, steps=0).shape == (0,)
    assert all(torch.equal(a, b) for a, b in zip(before, noise.parameters(), strict=True))


def test_a_bar_is_shown_on_request(capsys):
    noise = VariationalDequantizer(HOW, (2,), width=4)
    noise.fit(Gaussian([0.0, 0.0], 1.0).log_prob, K, steps=2, progress=True)
    shown = capsys.readouterr()
    assert "fitting the noise" in shown.err
    assert not shown.out
