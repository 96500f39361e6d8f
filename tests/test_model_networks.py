"""Claim: the perceptron is a function of (x, time) with the global generator left alone.

Same seed, same weights; the Fourier features are cos and sin of 2 pi w t; sizes are checked.
"""

from __future__ import annotations

import math

import pytest
import torch

from sdekit.errors import ConfigError, DtypeError
from sdekit.model import MLP


def test_seeds():
    one, same, other = MLP(3, seed=5), MLP(3, seed=5), MLP(3, seed=6)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])
    assert torch.equal(MLP(3).w, MLP(3, seed=0).w)  # the default is a seed, not chance


def test_forward_by_hand():
    """One hidden layer, written out: SiLU between, none at the end."""
    net = MLP(2, width=5, depth=1, frequencies=3, bandwidth=2.0, seed=1).double()
    x, t = (
        torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double(),
        torch.rand(4, generator=torch.Generator().manual_seed(1)).double(),
    )
    angle = 2 * math.pi * t[:, None] * net.w
    features = torch.cat([x, t[:, None], angle.cos(), angle.sin()], dim=1)
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in (net.layers[0], net.layers[2]))
    hidden = features @ w1.T + b1
    expected = (hidden * torch.sigmoid(hidden)) @ w2.T + b2
    torch.testing.assert_close(net(x, t), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shape_and_size(depth):
    net = MLP(3, width=7, depth=depth, frequencies=2)
    assert net(torch.zeros(5, 3), torch.zeros(5)).shape == (5, 3)
    linear = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (3 + 1 + 4, 7), *[(7, 7)] * (depth - 1), (7, 3)
    ]  # fmt: skip


def test_initial_law():
    """Uniform in +- 1/sqrt(fan_in), as torch's own Linear: the largest of many values shows it."""
    net = MLP(2, width=200, depth=2, seed=3)
    for layer in (m for m in net.modules() if isinstance(m, torch.nn.Linear)):
        bound = 1 / math.sqrt(layer.in_features)
        for values in (layer.weight, layer.bias):
            assert float(values.detach().abs().max()) <= bound
        # P(max < 0.9 bound) = 0.9^n for n >= 400 values
        assert float(layer.weight.detach().abs().max()) > 0.9 * bound
    assert 0.3 < float(net.w.std()) < 3
    wide = MLP(2, bandwidth=10.0, seed=3)
    torch.testing.assert_close(wide.w, 10 * MLP(2, bandwidth=1.0, seed=3).w)


@pytest.mark.parametrize("name", ["dim", "width", "depth", "frequencies"])
def test_sizes_are_checked(name):
    for value, error in (
        (0, ConfigError),
        (-1, ConfigError),
        (2.5, DtypeError),
        (True, DtypeError),
    ):
        with pytest.raises(error, match=name):
            MLP(**{"dim": 2, name: value})
    with pytest.raises(ConfigError, match="bandwidth"):
        MLP(2, bandwidth=0)
    with pytest.raises(DtypeError, match="seed"):
        MLP(2, seed="a")
