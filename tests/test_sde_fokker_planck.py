"""Property 11: the exact density of a mixture under each SDE solves its Fokker-Planck equation.

d ln p/dt + div b + b . s - g^2 (Laplacian p)/(2 p) = 0, with p written out by hand and the time
derivative taken by autograd through the SDE's own alpha and var.
"""

import pytest
import torch
from strategies import EVERY, MIXTURES, every_mixture, every_sde, smooth_times

SOLVED = 1e-9  # of the sum of the terms' sizes; the spec asks for 1e-7


def divergence(field, x):
    """The exact divergence of a field of samples [(n,)]."""
    x = x.detach().requires_grad_()
    out = field(x)
    parts = [
        torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0][:, i]
        for i in range(x.shape[1])
    ]
    return sum(parts)


def log_density_slope(sde, law, x, t):
    """d ln p_t(x) / dt at fixed x [(n,)]."""
    t = t.clone().requires_grad_()
    value = law.log_prob(x, sde.alpha(t), sde.var(t))
    return torch.autograd.grad(value.sum(), t)[0]


def residual(sde, law, t, *, drift=None, g2=None, direction=1):
    """The equation's residual over the sum of its terms' sizes [(n,)]."""
    drift = drift or sde.drift
    g2 = sde.diffusion(t).square() if g2 is None else g2
    alpha, var = sde.alpha(t), sde.var(t)
    x = law.points(alpha, var)
    slope = log_density_slope(sde, law, x, t)
    spread = divergence(lambda y: drift(y, t), x)
    carried = (drift(x, t) * law.score(x, alpha, var)).sum(-1)
    noise = 0.5 * direction * g2 * law.curvature(x, alpha, var)
    size = slope.abs() + spread.abs() + carried.abs() + noise.abs()
    # a flow's drift is a difference that vanishes where the law is stationary: count its parts
    pull = (
        0.5
        * sde.g2(t)
        * (law.laplacian(x, alpha, var).abs() + law.score(x, alpha, var).square().sum(-1))
    )
    size = size + (law.d * sde.f(t)).abs() + pull
    return (slope + spread + carried - noise).abs() / size


@every_mixture
@every_sde
def test_fokker_planck(sde, law):
    assert float(residual(sde, law, smooth_times(sde, 40)).max()) <= SOLVED


@every_mixture
@every_sde
def test_fokker_planck_by_the_derived_coefficients(sde, law):
    t = smooth_times(sde, 40)
    worst = residual(sde, law, t, drift=lambda x, t: sde.f(t)[:, None] * x, g2=sde.g2(t)).max()
    assert float(worst) <= SOLVED


@pytest.mark.parametrize(
    "key", ["vp-0", "sub_vp-0", "ve-0", "cosine-0", "edm-0", "flow-0", "ddpm-1"]
)
def test_wrong_coefficients_are_seen(key):
    """Twice g^2 (PEER_BUGS 1), no half in the drift (2), g for g^2: each leaves a residual."""
    sde, law = EVERY[key], MIXTURES["2d"]
    t = smooth_times(sde, 40)
    wrong = [residual(sde, law, t, g2=2 * sde.g2(t)), residual(sde, law, t, g2=sde.g2(t).sqrt())]
    if "ve" not in sde.kinds:
        wrong.append(residual(sde, law, t, drift=lambda x, t: 2 * sde.drift(x, t)))
        wrong.append(residual(sde, law, t, drift=lambda x, t: -sde.drift(x, t)))
    for each in wrong:
        assert float(each.max()) > 1e6 * SOLVED
