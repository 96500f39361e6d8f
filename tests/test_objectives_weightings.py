"""Claim: parametrisations and the simple loss are their formulas (properties 32 and 41)."""

import pytest
import torch
from support import assert_close

from sdekit import DSM, ScoreModel, catalogue
from sdekit.sde import DDPM

TIGHT = 1e-12
SDES = [sde for entry in catalogue("sde").values() for sde in entry.examples()]
sdes = pytest.mark.parametrize("sde", SDES, ids=repr)


def draws(sde, n=6):
    generator = torch.Generator().manual_seed(5)
    kwargs = {"dtype": torch.float64, "generator": generator}
    x0, noise = torch.randn(n, 3, **kwargs), torch.randn(n, 3, **kwargs)
    u = torch.rand(n, **kwargs).clamp_min(0.1)
    t = sde.to_model_time(sde.t_min + u * (sde.t_max - sde.t_min))
    return x0, t, noise


def network(x, time):
    return torch.tanh(x) * 0.3 + 0.1


def column(c):
    return c[:, None]


@sdes
def test_parametrisations_by_hand(sde):
    """eps error: of x_0, times the SNR; of v, times alpha^2 over (alpha^2 + sigma^2)^2."""
    x0, t, noise = draws(sde)
    alpha, sigma = column(sde.alpha(t)), column(sde.sigma(t))
    x_t = alpha * x0 + sigma * noise
    raw = network(x_t, t)
    by_hand = {
        "eps": raw - noise,
        "x0": alpha / sigma * (raw - x0),
        "score": sigma * (raw + noise / sigma),
        "v": alpha / (alpha**2 + sigma**2) * (raw - (alpha * noise - sigma * x0)),
    }
    for name, error in by_hand.items():
        model = ScoreModel(network, sde, parametrization=name)
        loss = DSM().loss_at(model, x0, t, noise)
        assert_close(loss / error.square().mean(1), torch.ones_like(loss), tol=1e-9)


def test_simple_loss_of_ddpm_is_weighted_score_matching():
    """Property 32: L_simple = (1 - alpha_bar) |score error|^2 on every node."""
    chain = DDPM.linear(50)
    x0, _, noise = draws(chain, 50)
    t = torch.arange(1, 51, dtype=torch.float64) / 50
    bar = chain.alphas_bar[:, None]
    x_t = bar.sqrt() * x0 + (1 - bar).sqrt() * noise
    score = -network(x_t, t) / (1 - bar).sqrt()
    expected = ((1 - bar) * (score + noise / (1 - bar).sqrt()).square()).mean(1)
    assert_close(DSM().loss_at(ScoreModel(network, chain), x0, t, noise), expected, tol=TIGHT)


def test_a_weighting_of_ones_own():
    """A weighting without a name is accepted as an object; it multiplies the loss of eps."""
    from sdekit.objectives import Weighting

    class Half(Weighting):
        def weight(self, sde, t):
            return 0.5 * torch.ones_like(t)

    sde = SDES[0]
    x0, t, noise = draws(sde)
    model = ScoreModel(network, sde)
    plain = DSM().loss_at(model, x0, t, noise)
    assert_close(DSM(weighting=Half()).loss_at(model, x0, t, noise), 0.5 * plain, tol=TIGHT)
