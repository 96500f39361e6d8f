"""Claim: the discretised Gaussian is right, gradient and all, however far a bin is from the mean.

Against 80 digits of mpmath down to probabilities of 1e-200000; the bins of a sample's levels fill
the line; the gradient is the difference's. Data off the levels and fields that mean nothing are
refused by name.
"""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from support import assert_close

from sdekit.errors import ConfigError, DataError, DtypeError
from sdekit.likelihood.decoder import Decoder

BINS = Decoder(kind="discretized", levels=256)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def by_mpmath(x, mean, std, half):
    with mpmath.workdps(80):
        a, b = (mpmath.mpf(x) - half - mean) / std, (mpmath.mpf(x) + half - mean) / std
        if a + b > 0:  # mpmath's ncdf is exact near 0, not near 1
            a, b = -b, -a
        return float(-mpmath.log(mpmath.ncdf(b) - mpmath.ncdf(a)))


@pytest.mark.parametrize("std", [1e-3, 2e-3, 0.01, 0.3, 1.0, 30.0])
def test_tails(std):
    """A level in the middle; the mean from where it is likely to 3000 deviations away."""
    x, half = 2 * 100 / 255 - 1, BINS.half_bin
    for away in (0.0, 1e-9, 0.5, -0.5, 1.0, 3.0, -8.0, 30.0, 100.0, -700.0):
        mean = x + away * std
        seen = float(BINS.nats(f64([x]), f64([mean]), f64([2 * math.log(std)])))
        exact = by_mpmath(x, mean, math.exp(0.5 * (2 * math.log(std))), half)
        # the mean itself is rounded: by eps |x| / std deviations, times the slope |away|
        rounding = 4e-16 * abs(away) * (1 + abs(mean)) / std
        assert abs(seen - exact) <= rounding + 2e-14 * max(1, abs(exact)), (away, seen, exact)


def test_ends_are_open():
    """The first and the last bin reach to infinity: Phi((x + h - m)/s), Phi((m + h - x)/s)."""
    for x, sign in ((-1.0, 1), (1.0, -1)):
        for mean in (-40.0, -1.0, 0.0, 1.0, 40.0):
            with mpmath.workdps(60):
                edge = (sign * (mpmath.mpf(x) - mean) + BINS.half_bin) / mpmath.mpf("0.5")
                exact = -mpmath.log(mpmath.ncdf(edge))
            seen = BINS.nats(f64([x]), f64([mean]), f64([2 * math.log(0.5)]))
            assert float(seen) == pytest.approx(float(exact), rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_the_bins_fill_the_line(levels, tanh):
    decoder = Decoder(kind="discretized", levels=levels, data_range=(0.0, 16.0), tanh=tanh)
    x = torch.linspace(0, 16, levels, dtype=torch.float64)
    decoder.check(x)
    for mean, std in ((3.3, 2.0), (20.0, 5.0), (8.0, 40.0)):
        nats = decoder.nats(x, torch.full_like(x, mean), f64(2 * math.log(std)))
        tol = 1e-10 * levels if tanh else 1e-13  # the released floor adds up to 1e-12 a bin
        assert_close((-nats).exp().sum(), f64(1.0), tol=tol)


@pytest.mark.parametrize("away", [0.0, 0.3, -4.0, 60.0, -900.0])
@pytest.mark.parametrize("x", [-1.0, 101 * 2 / 255 - 1, 1.0])
def test_gradient(x, away):
    """In the mean and the log-variance, by central differences of the value itself."""
    std = 0.02
    mean, log_var = f64(x + away * std).requires_grad_(), f64(2 * math.log(std)).requires_grad_()
    BINS.nats(f64(x), mean, log_var).backward()
    h = 1e-6
    with torch.no_grad():
        by_mean = BINS.nats(f64(x), mean + h, log_var) - BINS.nats(f64(x), mean - h, log_var)
        by_var = BINS.nats(f64(x), mean, log_var + h) - BINS.nats(f64(x), mean, log_var - h)
    for grad, seen in ((mean.grad, by_mean), (log_var.grad, by_var)):
        assert float(grad) == pytest.approx(float(seen) / (2 * h), rel=1e-5, abs=1e-4)


def test_a_fine_bin_is_a_density():
    """2 h p(x) for narrow bins: eqs. (1) and (2) agree to the order of the bin's width."""
    fine = Decoder(kind="discretized", levels=2**20 + 1)
    x, mean, log_var = f64([0.0, 0.5]), f64([0.3, -1.0]), f64([-0.4, 0.9])
    density = Decoder().nats(x, mean, log_var) - math.log(2 * fine.half_bin)
    assert_close(fine.nats(x, mean, log_var), density, tol=1e-9)


def test_data_off_the_levels():
    x = torch.linspace(-1, 1, 256)
    BINS.check(x)
    BINS.check(x.double())
    BINS.check(x.to(torch.float64) + 1e-12)
    Decoder().check(torch.full((3,), 0.123))  # a density takes anything
    for wrong in (0.001, 1.0079, -1.5):
        data = x.reshape(2, 128).clone()
        data[1, 7] = wrong
        with pytest.raises(DataError, match=r"x\[1, 7\] = .*256 levels|256 levels.*x\[1, 7\]"):
            BINS.check(data)


@pytest.mark.parametrize(
    ("fields", "error", "word"),
    [
        (dict(kind="gausian"), ConfigError, "gaussian"),
        (dict(kind=3), DtypeError, "decoder"),
        (dict(levels=0), ConfigError, "levels"),
        (dict(levels=1), ConfigError, "levels"),
        (dict(levels=None), ConfigError, "levels"),
        (dict(levels=2.5), ConfigError, "levels"),
        (dict(data_range=(1.0, 1.0)), ConfigError, "data_range"),
        (dict(data_range=1.0), DtypeError, "data_range"),
        (dict(data_range=(0.0, float("inf"))), ConfigError, "data_range"),
        (dict(tanh=1), DtypeError, "tanh"),
    ],
)
def test_fields(fields, error, word):
    with pytest.raises(error, match=word):
        Decoder(**fields)
