"""Row i of `score` and `log_prob` is bitwise the same whatever batch it is in."""

import pytest
import torch
from test_targets_density import every_kind, random_mixture

from sdekit.targets import Empirical, Gaussian

SIZES = (1, 2, 3, 16, 17, 64, 1000)  # as many of 1000 as there are
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def assert_rows_stand_alone(law, dtype, n=1000):
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(n, *law.shape, generator=generator, dtype=torch.float64).to(dtype)
    for function in (law.score, law.log_prob):
        whole = function(x)
        for size in SIZES:
            for start in (0, 5, n - size):
                rows = slice(max(start, 0), max(start, 0) + size)
                assert torch.equal(function(x[rows]), whole[rows]), (function, size, start)
                assert torch.equal(function(x[rows].clone()), whole[rows]), (function, size, start)
        order = torch.randperm(n, generator=generator)
        assert torch.equal(function(x[order]), whole[order])
        other_layout = x.flatten(1).t().contiguous().t().reshape(x.shape)
        assert torch.equal(function(other_layout), whole)
        repeated = x[:1].expand(7, *law.shape)
        assert torch.equal(function(repeated), function(repeated.clone()))


@every_kind
@every_dtype
@pytest.mark.parametrize(
    ("k", "d"), [(k, d) for d in (1, 2, 3, 5) for k in (1, 2, 3, 4, 5)] + [(2, 64), (5, 64)]
)
def test_mixtures(kind, dtype, k, d):
    law, _ = random_mixture(kind, k, d)
    assert_rows_stand_alone(law.perturbed(0.7, 0.3), dtype, n=1000 if d < 64 else 200)


@every_dtype
@pytest.mark.parametrize("law", [*Gaussian.examples(), Gaussian([0.1] * 64, 2.0)], ids=str)
def test_gaussians(law, dtype):
    assert_rows_stand_alone(law.perturbed(0.7, 0.3), dtype)


@every_dtype
@pytest.mark.parametrize(("n", "shape"), [(3, (2,)), (1000, (1,)), (5000, (2,)), (70, (2, 8, 8))])
def test_data(n, shape, dtype):
    generator = torch.Generator().manual_seed(1)
    law = Empirical(torch.randn(n, *shape, generator=generator)).perturbed(0.7, 0.3)
    assert_rows_stand_alone(law, dtype, n=100)
