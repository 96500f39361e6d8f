"""`perturbed(alpha, var)` is the law of alpha x_0 + sqrt(var) eps, and obeys Tweedie's formula."""

import math

import pytest
import torch
from support import assert_close
from test_targets_density import every_kind, oracle, points, random_mixture

from sdekit.targets import Empirical, Gaussian, GaussianMixture, Tutorial

LEVELS = [(1.0, 0.0), (0.9, 0.19), (0.3, 0.91), (1.0, 25.0), (0.0, 1.0), (-0.5, 0.4)]
every_level = pytest.mark.parametrize(("alpha", "var"), LEVELS)
LAWS = [*Gaussian.examples(), *GaussianMixture.examples(), Tutorial()]


@every_kind
@every_level
def test_a_mixture_moves_by_its_parameters(kind, alpha, var):
    law, (weights, means, covs) = random_mixture(kind, 3, 2)
    moved = alpha**2 * covs + var * torch.eye(2, dtype=torch.float64)
    other, noisy, x = oracle(weights, alpha * means, moved), law.perturbed(alpha, var), points(2)
    assert_close(noisy.log_prob(x), other.log_prob(x), tol=1e-12)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(other.log_prob(x).sum(), x)
    assert_close(noisy.score(x).detach(), expected, tol=1e-11)
    for got, value in (
        (noisy.weights, weights),
        (noisy.means, alpha * means),
        (noisy.covs, moved),
    ):
        assert_close(got, value, tol=1e-14)


@pytest.mark.parametrize("law", Gaussian.examples(), ids=str)
@every_level
def test_a_gaussian_moves_by_its_parameters(law, alpha, var):
    moved = alpha**2 * law.cov + var * torch.eye(law.shape[0], dtype=torch.float64)
    noisy, x = law.perturbed(alpha, var), points(law.shape[0])
    assert_close(noisy.mean, alpha * law.mean, tol=1e-14)
    assert_close(noisy.cov, moved, tol=1e-14)
    other = torch.distributions.MultivariateNormal(alpha * law.mean, moved)
    assert_close(noisy.log_prob(x), other.log_prob(x), tol=1e-12)
    assert_close(noisy.score(x), -torch.linalg.solve(moved, (x - alpha * law.mean).T).T, tol=1e-11)


@every_kind
def test_the_density_is_the_convolution(kind):
    """By quadrature over x_0, with no formula of ours for the noisy law."""
    law, _ = random_mixture(kind, 3, 1)
    alpha, var = 0.6, 0.5
    x0 = torch.linspace(-25, 25, 20001, dtype=torch.float64)
    density = law.log_prob(x0[:, None]).exp()
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)
    kernel = torch.distributions.Normal(alpha * x0, math.sqrt(var))
    direct = torch.stack([torch.trapezoid(density * kernel.log_prob(v).exp(), x0) for v in x])
    assert_close(law.perturbed(alpha, var).log_prob(x[:, None]).exp(), direct, tol=1e-12)


@every_kind
@pytest.mark.parametrize(("alpha", "var"), [(0.9, 0.19), (0.3, 0.91), (1.0, 25.0), (0.999, 1e-3)])
def test_property_35_tweedie_is_the_posterior_mean_by_bayes(kind, alpha, var):
    """E[x_0|x] = sum_k r_k (m_k + alpha C_k (alpha^2 C_k + var)^{-1} (x - alpha m_k))."""
    law, (weights, means, covs) = random_mixture(kind, 3, 2)
    x = points(2)
    moved = alpha**2 * covs + var * torch.eye(2, dtype=torch.float64)
    gap = x.unsqueeze(1) - alpha * means
    normal = torch.distributions.MultivariateNormal(alpha * means, moved)
    share = (weights.log() + normal.log_prob(x.unsqueeze(1))).softmax(1)
    gain = alpha * covs @ torch.linalg.inv(moved)
    mean = torch.einsum("nk,nki->ni", share, means + torch.einsum("kij,nkj->nki", gain, gap))
    assert_close(law.denoise(x, alpha, var), mean, tol=1e-9)
    assert_close((x + var * law.perturbed(alpha, var).score(x)) / alpha, mean, tol=1e-9)


def test_property_35_on_data_is_the_weighted_mean_of_the_data():
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    x, alpha, var = points(4), 0.8, 0.36
    share = (-torch.cdist(x, alpha * data).square() / (2 * var)).softmax(1)
    assert_close(Empirical(data).denoise(x, alpha, var), share @ data, tol=1e-9)


@every_kind
def test_property_36_the_second_derivative_is_the_posterior_covariance(kind):
    """Cov(x_0|x) = v/alpha^2 (I + v Hessian of log p), positive semi-definite; by quadrature."""
    law, _ = random_mixture(kind, 3, 1)
    alpha, var = 0.7, 0.4
    noisy, x = law.perturbed(alpha, var), torch.linspace(-3, 3, 7, dtype=torch.float64)
    x0 = torch.linspace(-25, 25, 20001, dtype=torch.float64)
    joint = (
        law.log_prob(x0[:, None]).exp()
        * (-(x.unsqueeze(1) - alpha * x0).square() / (2 * var)).exp()
    )
    joint /= torch.trapezoid(joint, x0).unsqueeze(1)
    mean = torch.trapezoid(joint * x0, x0)
    direct = torch.trapezoid(joint * (x0 - mean.unsqueeze(1)).square(), x0)
    point = x.unsqueeze(1).requires_grad_()
    (second,) = torch.autograd.grad(noisy.score(point).sum(), point)
    assert_close(var / alpha**2 * (1 + var * second.flatten()), direct, tol=1e-9)


def test_property_36_is_positive_semi_definite_in_the_plane():
    law, _ = random_mixture("full", 4, 2)
    noisy, var = law.perturbed(0.7, 0.4), 0.4
    second = torch.vmap(torch.func.jacrev(lambda r: noisy.score(r[None])[0]))(points(2, n=200))
    assert_close(second, second.mT, tol=1e-12)
    assert torch.linalg.eigvalsh(torch.eye(2) + var * second).min() > -1e-12


SINGULAR = [
    Gaussian([1.0, 2.0], 0.0),
    Gaussian([1.0, 2.0], [[1.0, 1.0], [1.0, 1.0]]),
    GaussianMixture([0.3, 0.7], [[0.0, 0.0], [3.0, 1.0]], 0.0),
]


@pytest.mark.parametrize("law", SINGULAR, ids=str)
def test_a_singular_law_has_a_density_once_perturbed(law):
    noisy, x = law.perturbed(0.8, 0.3), points(2)
    if isinstance(law, Gaussian):
        covs, means, weights = law.cov[None], law.mean[None], torch.ones(1, dtype=torch.float64)
    else:
        covs, means, weights = law.covs, law.means, law.weights
    other = oracle(weights, 0.8 * means, 0.64 * covs + 0.3 * torch.eye(2, dtype=torch.float64))
    assert_close(noisy.log_prob(x), other.log_prob(x), tol=1e-12)


def test_unchanged_at_no_noise():
    for law in LAWS:
        assert law.perturbed(1.0, 0.0) == law
        assert law.perturbed(0.9, 0.1) != law
    x = points(2)
    assert torch.equal(Tutorial().denoise(x, 0.5, 0.0), x / 0.5)
