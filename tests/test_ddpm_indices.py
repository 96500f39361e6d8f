"""Property 30, B9: index and time of a chain are a bijection for every N, also in float32."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import f64

from sdekit.errors import ConfigError, DtypeError, ShapeError, TimeError
from sdekit.sde import DDPM

BETA = torch.full((10_000,), 1e-4, dtype=torch.float64)


def broken_nodes(n):
    """How many nodes do not come back: by index, model time or interval; in float64, float32."""
    chain = DDPM(BETA[:n])
    i = torch.arange(n + 1)
    t = chain.time(i)
    narrow = t.float()
    later, steps = i[1:], t[1:]
    return (
        int((chain.index(t) != i).sum())
        + int((chain.index(narrow) != i).sum())
        + int((chain.to_model_time(steps) != steps).sum())
        + int((chain.to_model_time(narrow[1:]) != narrow[1:]).sum())
        + int((chain._interval(steps) + 1 != later).sum())
        + int((chain._interval(narrow[1:].double()) + 1 != later).sum())
    )


@pytest.mark.slow
def test_bijection_for_every_n():
    assert sum(broken_nodes(n) for n in range(1, 10_001)) == 0


def test_forms():
    chain = DDPM.linear(10)
    assert (chain.time(3), type(chain.time(3))) == (0.3, float)
    assert (chain.index(0.3), type(chain.index(0.3))) == (3, int)
    assert chain.time(torch.tensor([0, 10])).tolist() == [0.0, 1.0]
    assert chain.time(torch.tensor([], dtype=torch.int64)).shape == (0,)
    assert chain.index(torch.tensor([[0.31], [0.26]])).tolist() == [[3], [3]]
    assert chain.index(f64([0.349, 0.351])).tolist() == [3, 4]
    assert chain.index(torch.tensor([0.3])).dtype == torch.int64


@pytest.mark.parametrize(
    ("i", "error", "words"),
    [
        (-1, TimeError, ["i", "0 .. 10", "-1"]),
        (11, TimeError, ["i", "0 .. 10", "11"]),
        (torch.tensor([3, -2]), TimeError, ["i", "-2"]),
        (torch.tensor([3, 12]), TimeError, ["i", "12"]),
        (3.7, DtypeError, ["i", "3.7"]),
        (3.0, DtypeError, ["i", "3.0"]),
        (True, DtypeError, ["i", "True"]),
        ("3", DtypeError, ["i", "3"]),
        (torch.tensor([1.0]), DtypeError, ["i", "float32"]),
        (torch.tensor([True]), DtypeError, ["i", "bool"]),
    ],
)
def test_bad_indices(i, error, words):
    """B7, B8."""
    with pytest.raises(error) as caught:
        DDPM.linear(10).time(i)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan"), torch.tensor([0.5, 2.0])])
def test_bad_times(t):
    with pytest.raises(TimeError, match=r"t must lie in \[0, 1\]"):
        DDPM.linear(10).index(t)


def test_model_times():
    """The node at or above t, never 0: where the chain's network was trained."""
    chain = DDPM.linear(10)
    t = f64([0.0, 1e-9, 0.05, 0.1, 0.1 + 1e-9, 0.3, 0.31, 0.999, 1.0])
    expected = f64([0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 1.0, 1.0])
    assert torch.equal(chain.to_model_time(t), expected)
    assert chain.to_model_time(t.float()).dtype == torch.float32
    assert torch.equal(DDPM([0.1] * 10, t_max=0.5).to_model_time(f64([0.42])), f64([0.5]))


def test_coefficients_beside_a_node():
    """f jumps at a node and nowhere else; log_alpha is continuous and falls on both sides."""
    chain = DDPM([0.3, 0.01, 0.2])
    for node, before, after in ((1 / 3, 0, 1), (2 / 3, 1, 2)):
        sides = chain.f(f64([node - 1e-9, node, node + 1e-9])) / 1.5
        assert torch.allclose(
            sides, torch.log1p(-chain.betas[[before, before, after]]), rtol=1e-14
        )
        t = f64([node - 2e-7, node - 1e-7, node, node + 1e-7, node + 2e-7])
        falls = chain.log_alpha(t).diff() / 1e-7
        expected = chain.f(f64([node - 1e-3] * 2 + [node + 1e-3] * 2))
        assert torch.allclose(falls, expected, rtol=1e-7)


@given(n=st.integers(1, 60), data=st.data())
def test_align_named_grids(n, data):
    """A named grid keeps its number of steps: strictly decreasing nodes, same ends."""
    chain = DDPM(BETA[:n])
    steps = data.draw(st.integers(1, n), label="steps")
    power = data.draw(st.sampled_from([1.0, 2.0, 4.0, 0.3]), label="power")
    grid = torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** power
    aligned = chain.align(grid, keep=True)
    assert aligned.shape == grid.shape
    assert (float(aligned[0]), float(aligned[-1])) == (1.0, 0.0)
    assert bool((aligned.diff() < 0).all())
    assert torch.equal(aligned, chain.time(chain.index(aligned)))
    if steps == n:
        assert torch.equal(aligned, chain.time(torch.arange(n, -1, -1)))


def test_align_moves_to_the_nearest_free_node():
    chain = DDPM(BETA[:10])
    grid = f64([1.0, 0.31, 0.3, 0.29, 0.0])
    assert chain.index(chain.align(grid, keep=True)).tolist() == [10, 4, 3, 2, 0]


def test_align_a_users_grid():
    """Rounded to nodes; a collapse names both times; too many steps is a ConfigError (B5)."""
    chain = DDPM(BETA[:10])
    assert chain.index(chain.align(f64([1.0, 0.52, 0.24, 0.0]), keep=False)).tolist() == [
        10,
        5,
        2,
        0,
    ]
    with pytest.raises(TimeError, match=r"grid\[1\] = 0\.31 .*grid\[2\] = 0\.3 .*3/10"):
        chain.align(f64([1.0, 0.31, 0.3, 0.0]), keep=False)
    for keep in (True, False):
        with pytest.raises(ConfigError, match=r"steps must be <= 10.*got 11"):
            chain.align(torch.linspace(1, 0, 12, dtype=torch.float64), keep=keep)


@pytest.mark.parametrize(
    ("betas", "error", "words"),
    [
        ([], ConfigError, ["betas", "empty"]),
        ([0.1, 1.0], ConfigError, ["betas[1]", "(0, 1)"]),
        ([0.1, 0.2, -0.1, 2.0], ConfigError, ["betas[2]", "-0.1"]),
        ([0.1, 0.0], ConfigError, ["betas[1]", "SNR"]),
        ([0.1, float("nan")], ConfigError, ["betas[1]", "nan"]),
        (torch.ones(2, 2) / 2, ShapeError, ["betas", "(2, 2)"]),
        (torch.tensor(0.5), ShapeError, ["betas", "()"]),
        ([0.1, "a"], DtypeError, ["betas", "a"]),
        ([0.1j], DtypeError, ["betas", "complex"]),
        ([True], DtypeError, ["betas", "bool"]),
        (0.1, DtypeError, ["betas", "0.1"]),
        (None, DtypeError, ["betas", "None"]),
    ],
)
def test_bad_tables(betas, error, words):
    """B1 to B3: the first bad index is named."""
    with pytest.raises(error) as caught:
        DDPM(betas)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_one_step_chain():
    """B3b."""
    chain = DDPM([0.5])
    assert (chain.n, float(chain.alphas_bar[0])) == (1, 0.5)
    posterior = chain.posterior(0.0, 1.0)
    assert float(posterior.x_0) == pytest.approx(1.0, rel=1e-15)
    assert (float(posterior.x_t), float(posterior.var)) == (0.0, 0.0)
    assert chain.index(chain.time(1)) == 1


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        (
            {"schedule": "liner"},
            ConfigError,
            ["schedule", "liner", "'linear'", "cosine", "sigmoid"],
        ),
        ({"schedule": 3}, DtypeError, ["schedule", "3"]),
        ({"n": 0}, ConfigError, ["n must be", ">= 1", "0"]),
        ({"n": -5}, ConfigError, ["n must be", "-5"]),
        ({"n": 2.5}, ConfigError, ["n must be", "2.5"]),
        ({"n": True}, ConfigError, ["n must be", "True"]),
        ({"beta_end": 2.0}, ConfigError, ["betas[", "(0, 1)"]),
        ({"beta_start": -0.1}, ConfigError, ["betas[0]", "-0.1"]),
        ({"schedule": "scaled_linear", "beta_start": -0.1}, ConfigError, ["beta_start", "-0.1"]),
        ({"beta_start": "a"}, DtypeError, ["beta_start", "a"]),
        ({"schedule": "cosine", "shift": 1.5}, ConfigError, ["shift", "1.5"]),
        ({"schedule": "cosine", "max_beta": 1.0}, ConfigError, ["max_beta", "1"]),
        ({"shift": 0.1}, TypeError, ["shift", "linear", "beta_start"]),
        ({"beta_sart": 0.1}, TypeError, ["beta_sart", "'beta_start'"]),
        ({"n": 10, "t_max": 0.55}, ConfigError, ["t_max", "0.55", "10"]),
        ({"n": 10, "t_min": 0.33}, ConfigError, ["t_min", "0.33", "10"]),
    ],
)
def test_bad_fields(fields, error, words):
    """A12, A13, B1, B4."""
    with pytest.raises(error) as caught:
        DDPM.from_fields(**fields)
    assert all(word in str(caught.value) for word in words), str(caught.value)
