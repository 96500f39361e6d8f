"""A chain's schedules are the papers', respacing and discretising go both ways, bad ones fail."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close

from sdekit.errors import ConfigError, TimeError
from sdekit.sde import DDPM, VPSDE


def nodes(chain):
    return torch.arange(1, chain.n + 1, dtype=torch.float64) / chain.n


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
