"""Claim: `probe_callable` gives the exact law of any affine sampler, and refuses all others.

Hand-written samplers agree with closed forms, ours with the probe that drives them by their own
noise argument; each way of drawing normal noise through torch is answered, each other way of
drawing is refused by its name or by what it does; no generator moves.
"""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from sampling_support import exact_law, probe, spectrum
from strategies import f64
from torch import nn
from torch.nn import functional

from sdekit import DDPM, VESDE, VPSDE, ExactScore, Gaussian, SubVPSDE, sample
from sdekit._catalogue import make_one
from sdekit.errors import ConfigError, DtypeError, NonFiniteError, NotAffine, ShapeError
from sdekit.exact import probe_callable
from sdekit.sampling import Sampler
from sdekit.sampling.grid import resolve_grid

SAME = 1e-12
START = Gaussian.from_spectrum(f64([0.5, -1.0, 2.0]), f64([4.0, 0.25, 1.0]))


def close(found, expected, tol=SAME):
    torch.testing.assert_close(found, expected, rtol=tol, atol=tol)


def variances(law):
    """The diagonal's variances [(d,)]; the law must have been found without a matrix."""
    values, vectors = law.spectrum
    assert vectors is None
    return values


# laws -------------------------------------------------------------------------------------------


def chain(data, eta, drawn):
    """A DDPM chain of 50 betas, written as in the DDIM paper; and its variance by hand."""
    betas = torch.linspace(1e-3, 0.2, 50, dtype=torch.float64)
    kept = (1 - betas).cumprod(0)
    mean, var = data.mean, variances(data)

    def f(x):
        for i in reversed(range(50)):
            a, b = kept[i], kept[i - 1] if i else kept.new_ones(())
            eps = (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * var + 1 - a)
            x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
            fresh = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
            x = b.sqrt() * x0 + (1 - b - fresh).sqrt() * eps
            if fresh > 0:
                x = x + fresh.sqrt() * drawn(x)
        return x

    m, v = torch.zeros_like(mean), torch.ones_like(var)
    for i in reversed(range(50)):  # x_s = gain (x_t - sqrt(a) mean) + sqrt(b) mean + noise
        a, b = kept[i], kept[i - 1] if i else kept.new_ones(())
        fresh = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
        total = a * var + 1 - a
        gain = (b * a).sqrt() * var / total + ((1 - b - fresh) * (1 - a)).sqrt() / total
        m, v = gain * (m - a.sqrt() * mean) + b.sqrt() * mean, gain**2 * v + fresh
    return f, m, v


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_hand_written_chain_has_the_law_that_its_recursion_gives(eta):
    data = spectrum()
    f, mean, var = chain(data, eta, torch.randn_like)
    law = probe_callable(f, Gaussian(torch.zeros(4), 1.0))
    close(law.mean, mean)
    close(variances(law) / var, torch.ones(4, dtype=torch.float64))


SDES = {"vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE(), "ddpm": DDPM.linear(100)}
SAMPLERS = [
    "ddim", "ancestral", "euler_maruyama(eta=0.5)", "heun", "langevin",
    "predictor_corrector(predictor='ddim')",
]  # fmt: skip


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_our_samplers_from_outside_are_what_they_are_from_inside(sde, sampler):
    model = ExactScore(spectrum(), SDES[sde])
    grid = resolve_grid("uniform", model.sde, 12)
    start = exact_law(model, float(grid[0]))

    def f(x):
        noise = torch.randn_like
        return sample(model, x.shape, sampler=sampler, grid=grid, x_init=x, noise=noise).x

    law = probe_callable(f, Gaussian.from_spectrum(*start))
    mean, var = probe(make_one("sampler", sampler, Sampler), model, grid).law(*start)
    close(law.mean, mean)
    close(variances(law) / var, torch.ones_like(var))


def test_an_impulse_has_the_size_of_the_start():
    """From 1e6 to 1e-6: a unit impulse would come out as 1e-12 beside a mean of 1e3."""
    gain = f64([1e-12, 2e-12, 3e-12])
    start = Gaussian.from_spectrum(torch.zeros(3), f64([1e12, 4e12, 1e14]))
    law = probe_callable(lambda x: 1e3 + gain * x, start)
    close(variances(law).sqrt() / f64([1e-6, 4e-6, 3e-5]), torch.ones(3).double(), tol=1e-6)


MIX = f64([[1.0, 0.5, 0.0], [-0.3, 2.0, 0.1], [0.0, 0.7, 0.4]])
CORRELATED = Gaussian(
    f64([1.0, 0.0, -2.0]), f64([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]])
)


@pytest.mark.parametrize("start", [START, CORRELATED], ids=["diagonal", "correlated"])
@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_where_coordinates_meet_the_whole_matrix_is_found(start, chunk):
    def f(x):
        return (x + 2 * torch.randn_like(x)) @ MIX.T + torch.randn(len(x), 3)

    law = probe_callable(f, start, chunk=chunk)
    close(law.mean, MIX @ start.mean)
    close(law.cov, MIX @ (start.cov + 4 * torch.eye(3)) @ MIX.T + torch.eye(3))


def test_a_correlated_start_alone_needs_no_more_than_its_own_matrix():
    law = probe_callable(lambda x: f64([1.0, 2.0, 3.0]) * x + torch.randn_like(x), CORRELATED)
    gain = f64([1.0, 2.0, 3.0]).diag()
    close(law.cov, gain @ CORRELATED.cov @ gain + torch.eye(3))


def test_draws_may_have_other_shapes_than_a_sample():
    def f(x):
        common = torch.randn(len(x), 1)
        pair = torch.normal(0.0, 1.0, (len(x), 2, 1)).flatten(1)
        return x + common + torch.cat([pair, 0 * common], 1)

    expected = START.cov + torch.ones(3, 3) + torch.diag(f64([1.0, 1.0, 0.0]))
    close(probe_callable(f, START).cov, expected)


def test_a_pipeline_draws_its_own_start():
    def f(n):
        x = 3 * torch.randn(n, 2)
        return 0.5 * x + 1 + torch.randn(n, 2)

    law = probe_callable(f, None)
    close(law.mean, torch.ones(2).double())
    close(variances(law), f64([3.25, 3.25]))


def test_chunks_change_nothing_and_bound_the_batch():
    sizes = []

    def f(x):
        sizes.append(len(x))
        for _ in range(40):
            x = 0.9 * x + torch.randn_like(x)
        return x

    laws = [probe_callable(f, START, chunk=chunk) for chunk in (1, 3, 7, None)]
    for law in laws[1:]:
        close(variances(law), variances(laws[0]), tol=1e-14)
    del sizes[:]
    probe_callable(f, START, chunk=7)
    assert max(sizes) == 8
    assert sum(sizes) == 5 + 2 + 1 + 40 + 6  # eq. (3), zeros, start, draws, zeros in each call


def test_constants_and_point_masses_have_no_variance():
    point = Gaussian(f64([1.0, 2.0]), 0.0)
    for f in (lambda x: 0 * x + 5, lambda x: 3 * x):
        law = probe_callable(f, point)
        assert variances(law).tolist() == [0.0, 0.0]
    assert probe_callable(lambda n: torch.full((n, 2), 7.0), None).mean.tolist() == [7.0, 7.0]


# draws ------------------------------------------------------------------------------------------

WAYS = {
    "randn": lambda x: torch.randn(*x.shape),
    "randn, one size": lambda x: torch.randn(x.shape, dtype=x.dtype, device=x.device),
    "randn, generator": lambda x: torch.randn(x.shape, generator=torch.Generator()),
    "randn, out": lambda x: torch.randn(x.shape, out=torch.empty_like(x)),
    "randn, out and generator": lambda x: torch.randn(
        x.shape, out=torch.empty(0), generator=torch.Generator()
    ),
    "randn, gradient": lambda x: torch.randn(x.shape, requires_grad=True),
    "randn_like": torch.randn_like,
    "randn_like, dtype": lambda x: torch.randn_like(x, dtype=torch.float32),
    "normal of a size": lambda x: torch.normal(0.0, 1.0, x.shape),
    "normal of means": lambda x: torch.normal(torch.zeros_like(x), 1.0),
    "normal of deviations": lambda x: torch.normal(0.0, torch.ones_like(x)),
    "normal of both": lambda x: torch.normal(torch.zeros_like(x), torch.ones(3).double()),
    "normal, out": lambda x: torch.normal(0.0, torch.ones_like(x), out=torch.empty_like(x)),
    "normal of a size, out": lambda x: torch.normal(0.0, 1.0, x.shape, out=torch.empty_like(x)),
    "normal of both, out": lambda x: torch.normal(
        torch.zeros_like(x), torch.ones_like(x), out=torch.empty_like(x)
    ),
    "normal, scaled": lambda x: (torch.normal(x, 2.0) - x) / 2,
    "normal_": lambda x: torch.empty_like(x).normal_(),
    "normal_, scaled": lambda x: x.clone().normal_(5, 2, generator=torch.Generator()) / 2 - 2.5,
    "normal_ of a part": lambda x: [z := torch.empty(len(x), 6).double(), z[:, ::2].normal_()][1],
    "new_empty": lambda x: x.new_empty(x.shape).normal_(),
    "an initialiser": lambda x: nn.init.normal_(torch.empty_like(x)),
    "a distribution": lambda x: torch.distributions.Normal(x, 1.0).sample() - x,
    "a distribution, rsample": lambda x: torch.distributions.Normal(x, 1.0).rsample() - x,
    "a multivariate distribution": lambda x: torch.distributions.MultivariateNormal(
        torch.zeros(3), torch.eye(3)
    ).sample((len(x),)),
}  # fmt: skip


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_drawing_is_answered(way, inference):
    def f(x):
        with torch.inference_mode(inference):
            return 2 + 0.5 * x + 3 * WAYS[way](x)

    law = probe_callable(f, START)
    close(law.mean, 2 + 0.5 * START.mean)
    close(variances(law), 0.25 * START.spectrum[0] + 9)


def test_a_draw_without_a_dtype_is_in_double_precision():
    """Torch's default stays single: a coefficient of 0.1 would be off by 1e-8."""
    law = probe_callable(lambda x: x + 0.1 * torch.randn(x.shape), START)
    close(variances(law), START.spectrum[0] + 0.01)
    assert torch.get_default_dtype() == torch.float32


OTHERS = {
    "rand": lambda x: torch.rand(x.shape),
    "rand_like": torch.rand_like,
    "uniform_": lambda x: torch.empty_like(x).uniform_(),
    "randint": lambda x: torch.randint(3, x.shape),
    "randint_like": lambda x: torch.randint_like(x, 3),
    "random_": lambda x: torch.empty_like(x).random_(),
    "randperm": lambda x: torch.randperm(3),
    "bernoulli": lambda x: torch.bernoulli(torch.full_like(x, 0.5)),
    "bernoulli_": lambda x: torch.empty_like(x).bernoulli_(torch.full_like(x, 0.5)),
    "multinomial": lambda x: torch.multinomial(torch.ones(3), 3),
    "poisson": lambda x: torch.poisson(torch.ones_like(x)),
    "exponential_": lambda x: torch.empty_like(x).exponential_(),
    "cauchy_": lambda x: torch.empty_like(x).cauchy_(),
    "geometric_": lambda x: torch.empty_like(x).geometric_(0.5),
    "log_normal_": lambda x: torch.empty_like(x).log_normal_(),
    "_standard_gamma": lambda x: torch.distributions.Gamma(torch.ones(3), 1.0).sample((len(x),)),
    "binomial": lambda x: torch.binomial(torch.ones_like(x), torch.ones_like(x) / 2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_noise_of_another_law_is_refused_by_its_name(name):
    with pytest.raises(NotAffine, match=rf"draws by torch's {name},"):
        probe_callable(lambda x: x + OTHERS[name](x), START)


def test_dropout_is_refused_in_training_and_no_draw_in_evaluation():
    layer = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.0)).double()
    with pytest.raises(NotAffine, match="draws by torch's"):
        probe_callable(layer, START)
    layer.eval()
    for inference in (False, True):
        with torch.inference_mode(inference):
            close(variances(probe_callable(layer, START)), START.spectrum[0])


@pytest.mark.parametrize("inference", [False, True])
def test_attention_without_dropout_is_no_draw(inference):
    """On a CPU torch counts its fused attention among the random operators."""

    def f(x):
        with torch.inference_mode(inference):
            same = torch.ones(len(x), 1, 2, 3).double()  # all weights are 1/2
            value = torch.stack([x, 0 * x], 1)[:, None]
            return functional.scaled_dot_product_attention(same, same, value)[:, 0, 0]

    close(variances(probe_callable(f, START)), START.spectrum[0] / 4)


def test_complex_noise_is_refused():
    with pytest.raises(NotAffine, match="complex"):
        probe_callable(lambda x: x + torch.randn(x.shape, dtype=torch.complex128).real, START)


# what is not affine -----------------------------------------------------------------------------

BENT = {
    "a step of the size of a norm": lambda x: x + x / x.norm(dim=1, keepdim=True),
    "noise of the size of a norm": lambda x: x + x.norm(dim=1, keepdim=True) * torch.randn_like(x),
    "a clip": lambda x: x.clamp(-1, 1),
    "a square of the noise": lambda x: x + torch.randn_like(x) ** 2,
    "noise times the sample": lambda x: x + x * torch.randn_like(x),
    "two draws multiplied": lambda x: x + torch.randn_like(x) * torch.randn_like(x),
    "an absolute value": lambda x: x.abs(),
    "a millionth of a sine": lambda x: x + 1e-6 * x.sin(),
}


@pytest.mark.parametrize("case", BENT)
def test_what_is_not_affine_is_refused_with_its_defect(case):
    with pytest.raises(NotAffine, match=r"superposition fails, by [\d.e-]+ of the output"):
        probe_callable(BENT[case], START)


def test_the_defect_is_the_one_that_was_planted():
    """x + c x^2 fails superposition by 2 c u v: as c shrinks tenfold, so does the defect."""
    found = []
    for c in (1e-3, 1e-4):
        with pytest.raises(NotAffine) as error:
            probe_callable(lambda x, c=c: x + c * x**2, START)
        found.append(float(str(error.value).split(" by ")[1].split()[0]))
    assert 8 < found[0] / found[1] < 12
    probe_callable(lambda x: x + 1e-4 * x**2, START, tolerance=0.01)


def test_single_precision_inside_needs_a_tolerance():
    def f(x):
        return (0.3 * x.float() + 0.7 * torch.randn_like(x)).double()

    with pytest.raises(NotAffine, match="tolerance=1e-4"):
        probe_callable(f, START)
    law = probe_callable(f, START, tolerance=1e-4)
    close(variances(law), 0.09 * START.spectrum[0] + 0.49, tol=1e-6)


UNSEEN = {
    "numpy": lambda x: x + torch.from_numpy(np.random.default_rng().standard_normal(x.shape)),
    "numpy, seeded": lambda x: x + torch.from_numpy(np.random.default_rng(0).normal(size=x.shape)),
    "python": lambda x: x + random.Random().gauss(0.0, 1.0),
}


@pytest.mark.parametrize("case", UNSEEN)
def test_noise_that_is_not_torchs_is_refused_by_what_it_does(case):
    with pytest.raises(NotAffine, match="not torch's"):
        probe_callable(UNSEEN[case], START)


def test_samples_that_depend_on_their_batch_are_refused():
    with pytest.raises(NotAffine, match="depend on their batch"):
        probe_callable(lambda x: x - x.mean(0), START)


def test_a_number_of_draws_that_varies_is_refused():
    calls = []

    def f(x):
        calls.append(0)
        for _ in calls:
            x = x + torch.randn_like(x)
        return x

    with pytest.raises(NotAffine, match="1 draws in one call and 2 in another"):
        probe_callable(f, START)

    def g(x):
        calls.append(0)
        return x + torch.randn(len(x), len(calls)).sum(1, keepdim=True)

    with pytest.raises(NotAffine, match="other shapes"):
        probe_callable(g, START)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (), (5, 3)])
def test_a_draw_without_a_row_for_each_sample_is_refused(shape):
    with pytest.raises(ShapeError, match=r"draw 1 of f .* got shape \("):
        probe_callable(lambda x: x + torch.randn(shape).sum(), START)


# other people's state ---------------------------------------------------------------------------


def test_no_generator_moves_and_global_state_stays():
    own = torch.Generator().manual_seed(5)
    before, global_before = own.get_state(), torch.get_rng_state()

    def f(x):
        torch.manual_seed(0)  # as a script of somebody's own may do
        return x + torch.randn(x.shape, generator=own) + torch.randn_like(x)

    probe_callable(f, START)
    assert torch.equal(own.get_state(), before)
    assert torch.equal(torch.get_rng_state(), global_before)


def test_after_an_error_draws_are_draws_again():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        probe_callable(lambda x: x + torch.randn_like(x) / (1 // 0), START)
    assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(1)
    assert bool((torch.randn(64, generator=generator) != 0).all())


def test_f_may_change_its_input_and_the_probe_may_be_nested():
    inner = probe_callable(lambda x: 2 * x + torch.randn_like(x), START)

    def f(x):
        law = probe_callable(lambda y: y.mul_(2).add_(torch.randn_like(y)), START)
        close(variances(law), variances(inner))
        return x.add_(torch.randn_like(x)).mul_(law.spectrum[0][0])

    law = probe_callable(f, START)
    close(variances(law), 17.0**2 * (START.spectrum[0] + 1))


def test_f_may_take_gradients():
    def f(x):
        x = x.requires_grad_()
        (slope,) = torch.autograd.grad((x**2).sum() / 2, x)
        return x - 0.5 * slope + torch.randn_like(x)

    close(variances(probe_callable(f, START)), START.spectrum[0] / 4 + 1)


# errors -----------------------------------------------------------------------------------------

WRONG = {
    "no tensor": (lambda x: x.tolist(), DtypeError, "list"),
    "integers": (lambda x: x.long(), DtypeError, "int64"),
    "fewer rows": (lambda x: x[1:], ShapeError, r"\(5, 3\), got \(4, 3\)"),
    "another dimension": (lambda x: x[:, 1:], ShapeError, r"\(5, 3\), got \(5, 2\)"),
    "infinity": (lambda x: x / 0, NonFiniteError, "NaN or infinity"),
    "nan": (lambda x: x + math.nan, NonFiniteError, "NaN or infinity"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_f_returns_is_checked(case):
    f, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        probe_callable(f, START)


def test_what_a_pipeline_returns_is_checked():
    for f in (lambda n: torch.randn(n), lambda n: torch.randn(n, 2)[1:]):
        with pytest.raises(ShapeError, match=r"\(5, d\)"):
            probe_callable(f, None)


def test_arguments_are_checked():
    with pytest.raises(DtypeError, match="f must be a function"):
        probe_callable(torch.zeros(2), START)
    with pytest.raises(DtypeError, match="start must be a Gaussian or None, got 3"):
        probe_callable(lambda x: x, 3)
    with pytest.raises(ConfigError, match="tolerance"):
        probe_callable(lambda x: x, START, tolerance=0)
    with pytest.raises(ConfigError, match="chunk"):
        probe_callable(lambda x: x, START, chunk=0)
