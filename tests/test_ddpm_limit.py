"""Property 28: the ancestral step of a chain tends to the reverse Euler step."""

import numpy as np
import pytest

from sdekit.errors import ConfigError
from sdekit.sde import DDPM, VPSDE

NS = [50, 100, 200, 400, 800]


def slope(ns, errors):
    """The measured exponent of errors ~ n^slope over the last values."""
    return float(np.polyfit(np.log(ns[1:]), np.log(errors[1:]), 1)[0])


def test_peer_bug_7_betas_of_another_number_of_steps():
    """score_sde discretises with the training N: at other N, beta_max/N > 1 or a wrong alpha_bar.

    0 < beta_i < 1 or a ConfigError; |log alpha_bar - log alpha^2| = O(1/N), which the wrong betas
    (of N = 1000, used at every N) do not satisfy.
    """
    sde = VPSDE()
    for n in (1, 10, 19, 20):
        with pytest.raises(ConfigError, match=rf"n must be .*20.*{n}"):
            sde.discretize(n)
    assert sde.discretize(21).n == 21
    logs, wrong = [], []
    for n in NS:
        chain = sde.discretize(n)
        assert 0 < float(chain.betas.min()) <= float(chain.betas.max()) < 1
        end = 2 * float(sde.log_alpha(1.0))
        logs.append(abs(float(chain.alphas_bar[-1].log()) - end))
        other = DDPM.linear(n, beta_start=sde.beta_min / 1000, beta_end=sde.beta_max / 1000)
        wrong.append(abs(float(other.alphas_bar[-1].log()) - end))
    assert slope(NS, logs) <= -0.9
    assert logs[-1] < 0.1
    assert slope(NS, wrong) > -0.9


def step_gaps(sde, n, t=0.5):
    """Ancestral against reverse Euler-Maruyama over one step, as coefficients of x and s.

    Ancestral: the posterior's mean with x_0 = (x + var s)/alpha. Reverse EM: x - (f x - g^2 s)/n.
    """
    chain = sde.discretize(n)
    i = chain.index(t)
    at, to = chain.time(i), chain.time(i - 1)
    posterior = chain.posterior(to, at)
    alpha, var = chain.alpha(at), chain.var(at)
    of_x, of_s = posterior.x_t + posterior.x_0 / alpha, posterior.x_0 * var / alpha
    f, g2 = sde.f(at), sde.g2(at)
    mean = max(abs(float(of_x - (1 - f / n))), abs(float(of_s - g2 / n)))
    return mean, abs(float(posterior.var.sqrt() - (g2 / n).sqrt()))


@pytest.mark.parametrize("t", [0.25, 0.5, 1.0])
def test_ancestral_tends_to_reverse_euler(t):
    """Property 28: per step the means differ by O(N^-2), the noise by O(N^-3/2)."""
    ns = [400, 800, 1600, 3200]
    gaps = [step_gaps(VPSDE(), n, t) for n in ns]
    assert slope(ns, [mean for mean, _ in gaps]) <= -1.9
    assert slope(ns, [std for _, std in gaps]) <= -1.4
    assert gaps[-1][0] < 1e-3
    assert gaps[-1][1] < 1e-2


def test_ancestral_mean_is_the_papers():
    """(x + beta s)/sqrt(1 - beta), arXiv:2011.13456 eq. 46: exact, not a limit."""
    chain = VPSDE().discretize(100)
    for i in (2, 30, 100):
        at, to = chain.time(i), chain.time(i - 1)
        posterior, beta = chain.posterior(to, at), float(chain.betas[i - 1])
        alpha, var = float(chain.alpha(at)), float(chain.var(at))
        assert float(posterior.x_t) + float(posterior.x_0) / alpha == pytest.approx(
            (1 - beta) ** -0.5, rel=1e-12
        )
        assert float(posterior.x_0) * var / alpha == pytest.approx(
            beta * (1 - beta) ** -0.5, rel=1e-10
        )
