"""Scores and log-densities are finite and right 1e4 deviations out, and in 1e6 dimensions."""

import pytest
import torch
from support import assert_close
from test_targets_density import every_kind, random_mixture

from sdekit.targets import Empirical, Gaussian, GaussianMixture, Tutorial


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("var", [0.0, 1e-8, 1e8])
def test_far_out_the_score_is_that_of_the_nearest_component(kind, dtype, var):
    law, _ = random_mixture(kind, 3, 2)
    law = law.perturbed(1.0, var)
    far = 1e4 * float(law.covs.diagonal(dim1=1, dim2=2).max()) ** 0.5
    x = far * torch.tensor([[1.0, 0.0], [-1.0, 0.3], [0.2, -1.0]], dtype=dtype)
    wide = x.double().unsqueeze(1) - law.means
    pulls = -torch.linalg.solve(law.covs, wide.unsqueeze(-1)).squeeze(-1)
    logs = law.weights.log() + torch.distributions.MultivariateNormal(
        law.means, law.covs
    ).log_prob(x.double().unsqueeze(1))
    expected = (logs.softmax(1).unsqueeze(-1) * pulls).sum(1)
    tol = 1e-5 if dtype == torch.float32 else 1e-11
    assert_close(law.score(x).double(), expected, tol=tol)
    assert_close(law.log_prob(x).double(), logs.logsumexp(1), tol=tol)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    assert_close(slope.double(), expected, tol=tol)


def test_data_far_out_are_pulled_to_the_nearest_point():
    law = Empirical([[0.0, 0.0], [1.0, 0.0]]).perturbed(1.0, 1e-6)
    x = torch.tensor([[10.0, 0.0], [-10.0, 0.0]])
    assert_close(law.score(x), torch.tensor([[-9e6, 0.0], [1e7, 0.0]]), tol=1e-6)
    assert torch.isfinite(law.log_prob(x)).all()


def test_between_far_components_float32_agrees_with_float64():
    """Where the logits are huge and nearly equal: on the ridge between narrow components."""
    for law in (Tutorial(), GaussianMixture([0.2, 0.3, 0.5], [[3.0, 3], [-3, -3], [9, -9]], 1.0)):
        narrow = law.perturbed(1.0, 0.0).perturbed(0.1, 1e-4)
        x = torch.tensor([[1e-3, -2e-3], [0.01, 0.0], [0.0, 0.0]])
        assert_close(narrow.score(x).double(), narrow.score(x.double()), tol=1e-4)


def test_a_common_offset_costs_no_precision_of_the_responsibilities():
    offset = torch.tensor([1000.0, -2000.0])
    plain, moved = Tutorial(), GaussianMixture(Tutorial().weights, Tutorial().means + offset, 1.0)
    x = torch.tensor([[0.25, 0.125], [-0.5, 0.5], [3.0, 3.0]])
    assert_close(moved.score(x + offset), plain.score(x), tol=1e-6)


def test_a_million_dimensions():
    d = 10**6
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, d, generator=generator)
    one = Gaussian(torch.ones(d), 4.0)
    assert_close(one.score(x), (1 - x) / 4, tol=1e-6)
    other = torch.distributions.Normal(torch.ones(d).double(), 2.0)
    assert_close(one.log_prob(x).double(), other.log_prob(x.double()).sum(1), tol=1e-6)
    two = GaussianMixture([0.5, 0.5], torch.stack([torch.zeros(d), torch.full((d,), 9.0)]), 1.0)
    assert_close(two.perturbed(0.5, 0.75).score(x), -x, tol=1e-6)
    assert two.sample(2, generator=generator).shape == (2, d)
