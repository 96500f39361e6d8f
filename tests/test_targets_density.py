"""The densities and scores of the exact laws are those of other people's code, and of autograd."""

import numpy as np
import pytest
import torch
from scipy import stats
from support import assert_close, reference_cases

from sdekit.targets import Empirical, Gaussian, GaussianMixture

EXACT = 1e-9
KINDS = ("shared", "unlike", "diagonal", "full")


def spread(kind, k, d, generator):
    """Covariances: a float, variances [(k,)], or matrices [(k, d, d)]."""
    if kind == "shared":
        return 0.7
    if kind == "unlike":
        return torch.rand(k, generator=generator, dtype=torch.float64) + 0.2
    if kind == "diagonal":
        return torch.diag_embed(torch.rand(k, d, generator=generator, dtype=torch.float64) + 0.2)
    root = torch.randn(k, d, d, generator=generator, dtype=torch.float64)
    return root @ root.mT / d + 0.3 * torch.eye(d, dtype=torch.float64)


def random_mixture(kind, k, d, seed=0):
    """A mixture whose components overlap, and its parameters as dense float64 tensors."""
    generator = torch.Generator().manual_seed(1000 * seed + 10 * k + d)
    weights = torch.rand(k, generator=generator, dtype=torch.float64) + 0.1
    weights /= weights.sum()
    means = 2 * torch.randn(k, d, generator=generator, dtype=torch.float64) + 0.5
    covs = spread(kind, k, d, generator)
    if isinstance(covs, float):
        dense = covs * torch.eye(d, dtype=torch.float64).expand(k, d, d)
    elif covs.ndim == 1:
        dense = torch.einsum("k,ij->kij", covs, torch.eye(d, dtype=torch.float64))
    else:
        dense = covs
    return GaussianMixture(weights, means, covs), (weights, means, dense)


def oracle(weights, means, covs):
    """The same law by torch.distributions."""
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights),
        torch.distributions.MultivariateNormal(means, covs),
    )


def points(d, n=40, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, d, generator=generator, dtype=torch.float64)


every_kind = pytest.mark.parametrize("kind", KINDS)
every_size = pytest.mark.parametrize(
    ("k", "d"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (4, 1), (5, 5), (2, 17)]
)


def autograd_score(law, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(law.log_prob(x).sum(), x)[0]


@every_kind
@every_size
def test_mixture_against_torch_distributions(kind, k, d):
    law, parameters = random_mixture(kind, k, d)
    other, x = oracle(*parameters), points(d)
    assert_close(law.log_prob(x), other.log_prob(x), tol=1e-12)
    assert_close(law.score(x), autograd_score(other, x), tol=1e-11)


@every_kind
@every_size
def test_score_is_the_gradient_of_log_prob(kind, k, d):
    law, _ = random_mixture(kind, k, d)
    x = points(d)
    assert_close(law.score(x), autograd_score(law, x), tol=1e-12)


@every_kind
def test_second_derivatives_flow_through_score_and_log_prob(kind):
    law, parameters = random_mixture(kind, 3, 2)
    x = points(2, n=4)
    expected = torch.stack([torch.autograd.functional.hessian(oracle(*parameters).log_prob, r)
                            for r in x])  # fmt: skip
    by_log_prob = torch.stack(
        [torch.autograd.functional.hessian(lambda r: law.log_prob(r[None])[0], r) for r in x]
    )
    by_score = torch.vmap(torch.func.jacrev(lambda r: law.score(r[None])[0]))(x)
    assert_close(by_log_prob, expected, tol=1e-11)
    assert_close(by_score, expected, tol=1e-11)


@pytest.mark.parametrize("law", [*Gaussian.examples(), Gaussian([1.0] * 30, 0.3)], ids=str)
def test_gaussian_against_scipy(law):
    x = points(law.shape[0])
    other = stats.multivariate_normal(law.mean.numpy(), law.cov.numpy())
    assert_close(
        law.log_prob(x), torch.as_tensor(np.atleast_1d(other.logpdf(x.numpy()))), tol=1e-12
    )
    expected = -torch.linalg.solve(law.cov, (x - law.mean).T).T
    assert_close(law.score(x), expected, tol=1e-11)
    assert_close(law.score(x), autograd_score(law, x), tol=1e-12)


@every_kind
def test_a_mixture_of_one_is_the_gaussian(kind):
    _, (_, means, covs) = random_mixture(kind, 1, 3)
    x, one = points(3), GaussianMixture([1.0], means, covs)
    alone = Gaussian(means[0], covs[0])
    assert_close(one.log_prob(x), alone.log_prob(x), tol=1e-13)
    assert_close(one.score(x), alone.score(x), tol=1e-13)


@every_kind
def test_density_integrates_to_one(kind):
    """Independent of any normaliser's formula."""
    law, _ = random_mixture(kind, 3, 1)
    x = torch.linspace(-30, 30, 20001, dtype=torch.float64)
    total = torch.trapezoid(law.log_prob(x[:, None]).exp(), x)
    assert_close(total, torch.ones_like(total), tol=1e-12)


@pytest.mark.parametrize("case", reference_cases("targets", lambda c: "target" in c))
def test_reference_values(reference, case):
    """Log-density, score, eps, posterior mean and divergence of the score by another project."""
    data = reference.load("targets")
    w, m, s = (data.array(case["target"], key) for key in ("w", "m", "s"))
    value = {key: data.array(case, key) for key in case["arrays"]}
    alpha, sigma = value["alpha"].flatten(), value["sigma"].flatten()
    law = GaussianMixture(w, m, torch.diag_embed(s**2))
    x = value["x"].reshape(-1, m.shape[1])
    rows = len(x) // len(alpha)
    got = {key: [] for key in ("logp", "score", "eps", "x0", "score_div")}
    for a, b, part in zip(alpha.tolist(), sigma.tolist(), x.split(rows), strict=True):
        noisy = law.perturbed(a, b**2)
        score = noisy.score(part)
        got["logp"].append(noisy.log_prob(part))
        got["score"].append(score)
        got["eps"].append(-b * score)
        got["x0"].append(law.denoise(part, a, b**2))
        jacobian = torch.vmap(torch.func.jacrev(lambda r, p=noisy: p.score(r[None])[0]))(part)
        got["score_div"].append(jacobian.diagonal(dim1=1, dim2=2).sum(1))
    for key, values in got.items():
        assert_close(torch.cat(values).reshape(value[key].shape), value[key], tol=EXACT)


def test_mean_cov_and_parameters_of_a_mixture():
    law, (weights, means, covs) = random_mixture("full", 4, 3)
    for got, expected in ((law.weights, weights), (law.means, means), (law.covs, covs)):
        assert_close(got, expected, tol=1e-15)
    mean = torch.einsum("k,ki->i", weights, means)
    second = torch.einsum("k,kij->ij", weights, covs + torch.einsum("ki,kj->kij", means, means))
    assert_close(law.mean, mean, tol=1e-14)
    assert_close(law.cov, second - torch.outer(mean, mean), tol=1e-14)


@every_kind
def test_responsibilities_are_bayes_rule(kind):
    law, (weights, means, covs) = random_mixture(kind, 3, 2)
    x = points(2)
    normal = torch.distributions.MultivariateNormal(means, covs)
    joint = weights * normal.log_prob(x.unsqueeze(1)).exp()
    expected = joint / joint.sum(1, keepdim=True)
    assert_close(law.responsibilities(x), expected, tol=1e-12)
    assert torch.equal(law.component(x), expected.argmax(1))


@pytest.mark.parametrize("weights", [[0.0, 1.0], [0.5, 0.0, 0.5]])
@pytest.mark.parametrize("covs", ["shared", "unlike"])
def test_a_component_of_weight_zero_has_no_part(weights, covs):
    means = [[0.0, 1.0], [2.0, -1.0], [-2.0, 0.5]][: len(weights)]
    covs = [0.5, 0.5, 0.5] if covs == "shared" else [0.5, 1.5, 0.7]
    law = GaussianMixture(weights, means, covs[: len(weights)])
    kept = [i for i, w in enumerate(weights) if w]
    other = GaussianMixture(
        [weights[i] for i in kept], [means[i] for i in kept], [covs[i] for i in kept]
    )
    x = points(2)
    assert_close(law.log_prob(x), other.log_prob(x), tol=1e-13)
    assert_close(law.score(x), other.score(x), tol=1e-13)
    assert_close(autograd_score(law, x), other.score(x), tol=1e-12)


def test_smoothed_data_are_a_mixture_of_equal_weights():
    """In one piece and in many."""
    for n in (1, 7, 3000):
        generator = torch.Generator().manual_seed(n)
        data = torch.randn(n, 2, 3, generator=generator, dtype=torch.float64)
        law = Empirical(data).perturbed(0.7, 0.3)
        other = oracle(
            torch.full((n,), 1 / n, dtype=torch.float64),
            0.7 * data.flatten(1),
            0.3 * torch.eye(6, dtype=torch.float64),
        )
        x = points(6, n=9)
        assert_close(law.log_prob(x.reshape(9, 2, 3)), other.log_prob(x), tol=1e-12)
        expected = autograd_score(other, x).reshape(9, 2, 3)
        assert_close(law.score(x.reshape(9, 2, 3)), expected, tol=1e-11)
        assert_close(autograd_score(law, x.reshape(9, 2, 3)), expected, tol=1e-11)
