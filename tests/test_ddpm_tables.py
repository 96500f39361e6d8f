"""Properties 25, 26 and 31: a chain's tables are its products; on its nodes the SDE is it."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import EPS, f64, tables
from support import assert_close

from sdekit.errors import ConfigError, TimeError
from sdekit.sde import DDPM, VPSDE

CHAINS = {
    **{repr(chain): chain for chain in DDPM.examples()},
    "cosine_1000": DDPM.cosine(1000),
    "sigmoid_200": DDPM.sigmoid(200),
    "falling": DDPM(torch.linspace(0.4, 0.01, 15)),
}
every_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


def nodes(chain):
    return torch.arange(1, chain.n + 1, dtype=torch.float64) / chain.n


@every_chain
def test_alphas_bar_is_the_product(chain):
    """Property 25: exp of the sum of log1p against the plain product and 50 digits."""
    assert_close(
        chain.alphas_bar / torch.cumprod(1 - chain.betas, 0),
        torch.ones(chain.n).double(),
        tol=1e-13,
    )
    assert torch.equal(chain.alphas, 1 - chain.betas)
    with mpmath.mp.workdps(50):
        product = mpmath.mpf(1)
        for beta, bar in zip(chain.betas.tolist(), chain.alphas_bar.tolist(), strict=True):
            product *= 1 - mpmath.mpf(beta)
            assert abs(mpmath.mpf(bar) / product - 1) <= 8 * EPS * (1 - mpmath.log(product))


@every_chain
def test_sde_on_the_nodes_is_the_chain(chain):
    """alpha^2 = alpha_bar, var = 1 - alpha_bar, a step's kernel is sqrt(1 - beta), sqrt(beta)."""
    t = nodes(chain)
    one = torch.ones_like(t)
    assert_close(chain.alpha(t).square() / chain.alphas_bar, one, tol=1e-13)
    assert_close(chain.var(t), 1 - chain.alphas_bar, tol=1e-14)
    before = torch.cat([f64([0.0]), t[:-1]])
    scale, std = chain.transition(before, t)
    assert_close(scale.square() / chain.alphas, one, tol=1e-11)
    assert_close(std.square() / chain.betas, one, tol=1e-10)
    assert_close(chain.f(t) * 2 / chain.n, torch.log1p(-chain.betas), tol=1e-14)
    inside = t - 0.4 / chain.n  # f and g at a node are those of the interval before it
    assert_close(chain.f(inside), chain.f(t), tol=1e-14)
    assert_close(chain.g2(inside), chain.g2(t), tol=1e-14)
    middle = t - 0.5 / chain.n
    assert_close(
        chain.log_alpha(middle), 0.5 * (chain.log_alpha(before) + chain.log_alpha(t)), tol=1e-13
    )


@every_chain
def test_posterior_is_bayes_and_the_papers(chain):
    """Property 26: DDPM eqs. 6 and 7, Bayes' rule, the tables and the generic posterior agree."""
    beta, bar = chain.betas, torch.cumprod(1 - chain.betas, 0)
    rest, rest_before = -torch.expm1(torch.log1p(-beta).cumsum(0)), None
    bar_before = torch.cat([f64([1.0]), bar[:-1]])
    rest_before = torch.cat([f64([0.0]), rest[:-1]])
    table = chain.posterior_mean_coefficients
    expected = bar_before.sqrt() * beta / rest, (1 - beta).sqrt() * rest_before / rest
    one = torch.ones_like(beta)
    assert_close(table.x_0 / expected[0], one, tol=1e-12)
    assert_close(table.x_t, expected[1], tol=1e-12)
    assert_close(chain.posterior_variance, beta * rest_before / rest, tol=1e-12)
    assert float(chain.posterior_variance[0]) == 0.0
    if chain.n > 1:  # precision and mean by Bayes' rule of x_{i-1} | x_0 and x_i | x_{i-1}
        precision = 1 / rest_before[1:] + (1 - beta[1:]) / beta[1:]
        assert_close(chain.posterior_variance[1:] * precision, one[1:], tol=1e-12)
        by_bayes = bar_before[1:].sqrt() / rest_before[1:] / precision
        assert_close(table.x_0[1:] / by_bayes, one[1:], tol=1e-12)
        by_bayes = (1 - beta[1:]).sqrt() / beta[1:] / precision
        assert_close(table.x_t[1:] / by_bayes, one[1:], tol=1e-12)
    t = nodes(chain)
    generic = chain.posterior(torch.cat([f64([0.0]), t[:-1]]), t)
    assert_close(generic.x_0, table.x_0, tol=1e-12)
    assert_close(generic.x_t, table.x_t, tol=1e-12)
    assert_close(generic.var, chain.posterior_variance, tol=1e-12)


@given(betas=tables)
def test_drawn_tables(betas):
    """Any table: the nodes' kernels by the plain recursion of the chain."""
    chain = DDPM(betas)
    mean, var = 1.0, 0.0
    for i, beta in enumerate(betas, start=1):
        mean, var = math.sqrt(1 - beta) * mean, (1 - beta) * var + beta
        assert float(chain.alpha(chain.time(i))) == pytest.approx(mean, rel=1e-12)
        assert float(chain.var(chain.time(i))) == pytest.approx(var, rel=1e-12)
        step = chain.transition(chain.time(i - 1), chain.time(i))
        assert float(step[0]) == pytest.approx(math.sqrt(1 - beta), rel=1e-11)
        assert float(step[1]) == pytest.approx(math.sqrt(beta), rel=1e-10)


@given(betas=st.lists(st.floats(1e-4, 0.5), min_size=2, max_size=12), data=st.data())
def test_respaced_keeps_alpha_bar(betas, data):
    """Property 31, exactly, and its steps are the chain's own jumps."""
    chain = DDPM(betas)
    kept = sorted(data.draw(st.sets(st.integers(1, chain.n), min_size=1), label="kept"))
    short = chain.respaced(kept)
    assert short.n == len(kept)
    index = torch.tensor(kept) - 1
    assert torch.equal(short.alphas_bar, chain.alphas_bar[index])
    assert_close(short.alpha(short.t_max), chain.alpha(chain.time(kept[-1])), tol=4 * EPS)
    times = torch.cat([f64([0.0]), chain.time(torch.tensor(kept))])
    scale, std = chain.transition(times[:-1], times[1:])
    assert_close(short.alphas.sqrt() / scale, torch.ones(short.n).double(), tol=1e-12)
    assert_close(short.betas.sqrt() / std, torch.ones(short.n).double(), tol=1e-11)


def test_respaced_everything_is_the_chain():
    chain = DDPM.linear(50)
    assert_close(
        chain.respaced(range(1, 51)).betas / chain.betas, torch.ones(50).double(), tol=1e-11
    )


@pytest.mark.parametrize("bad", [[], [0, 1], [1, 11], [2, 2], [3, 1]])
def test_respaced_refuses(bad):
    with pytest.raises(TimeError, match=r"indices .*1 \.\. 10"):
        DDPM.linear(10).respaced(bad)


def test_schedules_are_the_papers():
    """Each table by its formula, written out with plain numbers."""
    n = 7
    for i in range(n):
        w = i / (n - 1)
        assert float(DDPM.linear(n).betas[i]) == pytest.approx(1e-4 + w * (0.02 - 1e-4), rel=1e-13)
        root = math.sqrt(0.001) + w * (math.sqrt(0.3) - math.sqrt(0.001))
        scaled = DDPM.scaled_linear(n, beta_start=0.001, beta_end=0.3)
        assert float(scaled.betas[i]) == pytest.approx(root**2, rel=1e-13)
        rise = 1 / (1 + math.exp(-(-6 + 12 * w)))
        sigmoid = DDPM.sigmoid(n, beta_start=0.01, beta_end=0.3)
        assert float(sigmoid.betas[i]) == pytest.approx(0.01 + 0.29 * rise, rel=1e-13)

        def bar(u):
            return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

        expected = min(1 - bar((i + 1) / n) / bar(i / n), 0.999)
        assert float(DDPM.cosine(n).betas[i]) == pytest.approx(expected, rel=1e-12)
    assert float(DDPM.cosine(n, max_beta=0.9).betas[-1]) == 0.9
    assert float(DDPM.cosine(n, shift=0.3).betas[0]) == pytest.approx(
        1
        - math.cos((1 / 7 + 0.3) / 1.3 * math.pi / 2) ** 2 / math.cos(0.3 / 1.3 * math.pi / 2) ** 2
    )
    assert DDPM.linear() == DDPM.from_fields()
    assert DDPM.linear().n == DDPM.cosine().n == DDPM.sigmoid().n == DDPM.scaled_linear().n == 1000


@given(n=st.integers(2, 60), low=st.floats(0.01, 1), rise=st.floats(0, 30))
def test_discretize_and_back(n, low, rise):
    """VPSDE.discretize gives Song's betas; to_vpsde is its inverse."""
    high = min(low + rise, 0.99 * n)
    sde = VPSDE(beta_min=low, beta_max=max(low, high))
    chain = sde.discretize(n)
    expected = torch.linspace(sde.beta_min / n, sde.beta_max / n, n, dtype=torch.float64)
    assert_close(chain.betas, expected, tol=1e-14)
    back = chain.to_vpsde()
    assert (back.beta_min, back.beta_max) == pytest.approx((sde.beta_min, sde.beta_max), rel=1e-12)


@pytest.mark.parametrize(
    "chain", [DDPM.cosine(10), DDPM.scaled_linear(10), DDPM([0.1, 0.2, 0.3001])]
)
def test_to_vpsde_refuses_other_tables(chain):
    with pytest.raises(ConfigError, match="linear"):
        chain.to_vpsde()


def test_spelling():
    """repr is the catalogue's spelling where the table came from one."""
    assert repr(DDPM.linear(20, beta_end=0.5)) == (
        "ddpm(n=20, schedule='linear', beta_start=0.0001, beta_end=0.5)"
    )
    assert repr(DDPM.cosine(3)) == "ddpm(n=3, schedule='cosine', shift=0.008, max_beta=0.999)"
    assert repr(DDPM([0.1, 0.2])) == "DDPM(<2 betas>)"
    assert "t_max=0.5" in repr(DDPM.from_fields(n=4, t_max=0.5))


def test_the_table_is_a_copy():
    """The caller's tensor may change afterwards; lists keep their 53 bits."""
    betas = torch.tensor([0.1, 0.2], dtype=torch.float64)
    chain = DDPM(betas)
    betas[0] = 0.9
    assert chain.betas.tolist() == [0.1, 0.2]
    assert DDPM([0.1, 0.2]).betas.dtype == torch.float64
