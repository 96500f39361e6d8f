"""Claim: the exact model predicts posterior means, and each view is what its name says.

Properties 34, 35 and 36: Tweedie's formula and the posterior covariance of a mixture, the velocity
of the flow as a derivative of the path, all against closed forms written out here.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import draws, spectrum, two_modes
from strategies import EVERY, MIXTURES, every_mixture, every_sde, f64, smooth_times

from sdekit.errors import DtypeError, NonFiniteError, ShapeError, TimeError
from sdekit.model import ExactScore
from sdekit.model.prediction import Predictor
from sdekit.sampling import sample
from sdekit.sde import DDPM, VESDE, VPSDE, LinearSDE
from sdekit.targets import Gaussian, GaussianMixture

LAW = MIXTURES["2d"]


def responsibilities(law, x, alpha, var):
    total = alpha[:, None] ** 2 * law.spreads + var[:, None]
    away = x[:, None] - alpha[:, None, None] * law.means
    logits = law.weights.log() - 0.5 * law.d * total.log() - 0.5 * away.square().sum(-1) / total
    return logits.softmax(1), total, away


def posterior_moments(law, x, alpha, var):
    """E[x_0 | x_t] and Cov[x_0 | x_t] of a mixture with isotropic components, by conditioning."""
    r, total, away = responsibilities(law, x, alpha, var)
    gain = alpha[:, None] * law.spreads / total
    means = law.means + gain[..., None] * away  # (n, k, d)
    mean = (r[..., None] * means).sum(1)
    within = (r * law.spreads * var[:, None] / total).sum(1)[:, None, None]
    spread = means - mean[:, None]
    between = torch.einsum("nk,nki,nkj->nij", r, spread, spread)
    return mean, within * torch.eye(law.d, dtype=torch.float64) + between


@every_sde
@every_mixture
def test_tweedie(sde, law):
    """Property 35: alpha x_0 = x + var score, and x_0 is the mean of the posterior."""
    t = smooth_times(sde, 10, low=1e-3)
    alpha, var = sde.alpha(t), sde.var(t)
    t, alpha, var = (v[alpha > 1e-6] for v in (t, alpha, var))
    x = law.points(alpha, var)
    model = ExactScore(GaussianMixture(law.weights, law.means, law.spreads), sde)
    seen = model(x, t)
    mean, _ = posterior_moments(law, x, alpha, var)
    # eps/alpha, times the size of the terms that make x_0
    near = 1e-9 * (1 + (x.abs() / alpha[:, None]))
    assert bool(((seen.x0 - mean).abs() <= near).all())
    tweedie = alpha[:, None] * seen.x0 - x - var[:, None] * seen.score
    assert bool((tweedie.abs() <= 1e-13 * (1 + x.abs())).all())


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), EVERY["sub_vp-0"], EVERY["flow-0"]], ids=repr)
def test_second_order_tweedie(sde):
    """Property 36: Cov(x_0 | x) = var/alpha^2 (I + var Hessian of log p), which is PSD."""
    t = f64([0.05, 0.3, 0.6]) * sde.t_max
    alpha, var = sde.alpha(t), sde.var(t)
    x = LAW.points(alpha, var, seed=2).requires_grad_()
    model = ExactScore(GaussianMixture(LAW.weights, LAW.means, LAW.spreads), sde)
    score = model(x, t).score
    rows = [torch.autograd.grad(score[:, i].sum(), x, retain_graph=True)[0] for i in range(2)]
    hessian = torch.stack(rows, dim=1)
    ratio = (var / alpha**2)[:, None, None]
    found = ratio * (torch.eye(2, dtype=torch.float64) + var[:, None, None] * hessian)
    _, expected = posterior_moments(LAW, x.detach(), alpha, var)
    scale = float(ratio.max()) * 1e-10
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=scale)
    assert bool((torch.linalg.eigvalsh(found) > 0).all())


@every_sde
def test_the_views_are_what_they_are_called(sde):
    """Property 34, for one known (x_0, eps): a law at a point has both for sure."""
    point = f64([0.7, -1.2])
    model = ExactScore(Gaussian(point, 0.0), sde)
    t = smooth_times(sde, 12, low=1e-3)
    t = t[sde.alpha(t) > 1e-6]
    x0, (eps,) = point.expand(len(t), 2), draws(1, (len(t), 2))
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    x = alpha * x0 + sigma * eps
    seen = model(x, t)
    lost = 1e-12 * (1 + sigma) ** 2 / torch.minimum(alpha, sigma)
    assert bool(((seen.x0 - x0).abs() <= lost).all())
    assert bool(((seen.eps - eps).abs() <= lost).all())
    assert bool(((seen.score + eps / sigma).abs() <= lost / sigma).all())
    assert bool(((seen.v - (alpha * eps - sigma * x0)).abs() <= lost).all())
    # the velocity along the path alpha(t) x_0 + sigma(t) eps, by a five-point difference
    h = 1e-4 * t

    def path(k):
        u = t + k * h
        return sde.alpha(u)[:, None] * x0 + sde.sigma(u)[:, None] * eps

    inside = t + 2 * h < sde.t_max
    if "ddpm" not in sde.kinds:
        slope = ((path(-2 * 1) - path(2)) / 12 + (path(1) - path(-1)) * 2 / 3)[inside] / h[
            inside, None
        ]
        error = (seen.flow[inside] - slope).abs()
        assert bool((error <= 1e-6 * (1 + slope.abs().amax(1, keepdim=True))).all())


def test_a_time_for_each_sample():
    model, t = ExactScore(two_modes(), VPSDE()), f64([0.2, 0.7, 0.2, 1.0])
    x = draws(1, (4, 2))[0]
    for shape in ((4,), (4, 1)):
        together = model(x, t.reshape(shape))
        for i in range(4):
            one = model(x[i : i + 1], float(t[i]))
            for name in ("raw", "x0", "eps", "score", "v", "flow"):
                assert torch.equal(getattr(together, name)[i : i + 1], getattr(one, name)), name
    same = model(x, f64([0.3, 0.3, 0.3, 0.3]))
    assert torch.equal(same.score, model(x, 0.3).score)
    assert torch.equal(
        model(x, torch.tensor(0.3, dtype=torch.float64)).score, model(x, f64([0.3])).score
    )


def test_it_is_a_predictor():
    model = ExactScore(spectrum(), VPSDE())
    assert isinstance(model, Predictor)
    assert "vp(" in repr(model)
    assert "gaussian(" in repr(model)
    law = model.at(0.5)
    alpha, var = model.sde.alpha(0.5), model.sde.var(0.5)
    expected = alpha**2 * spectrum().cov + var * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(law.cov, expected, rtol=1e-13, atol=0)


def test_what_is_kept_belongs_to_one_process():
    """Two processes of a class that is no dataclass are told apart by scores and by plans."""

    class Spreading(LinearSDE):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        def log_alpha(self, t):
            return torch.zeros_like(t)

        def var(self, t):
            return self.rate * t

    x, law = f64([[0.37]]), Gaussian(f64([0.0]), 1.0)
    for rate in (1.0, 9.0, 1.0):
        model = ExactScore(law, Spreading(rate))
        for t in (0.37, 0.5, 0.37):
            raw = model.bind(x, (), {})(x, t)
            assert float(raw) == pytest.approx(-0.37 / (1 + rate * t))
            assert torch.equal(raw, model(x, t).score)
        end = sample(model, (1, 1), sampler="ddim", steps=1, x_init=x).x
        s, t = model.sde.t_min, model.sde.t_max
        # DDIM: x + (sigma_s - sigma_t) eps, with eps = -sigma_t score
        want = 0.37 * (1 - rate * (t - (s * t) ** 0.5) / (1 + rate * t))
        assert float(end) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype):
    """D8."""
    seen = ExactScore(two_modes(), VPSDE())(torch.zeros(3, 2, dtype=dtype), 0.5)
    for name in ("raw", "x0", "eps", "score", "v", "flow"):
        assert getattr(seen, name).dtype == dtype


def test_what_it_refuses():
    model = ExactScore(two_modes(), VPSDE())
    with pytest.raises(DtypeError, match="target"):
        ExactScore(VPSDE(), VPSDE())
    with pytest.raises(DtypeError, match="sde"):
        ExactScore(two_modes(), two_modes())
    with pytest.raises(ShapeError, match="label"):
        model(torch.zeros(3, 2), 0.5, label=1)
    with pytest.raises(ShapeError, match=r"\(3, 5\)"):
        model(torch.zeros(3, 5), 0.5)
    with pytest.raises(ShapeError):
        model(torch.zeros(3, 2), torch.full((2,), 0.5))
    with pytest.raises(TimeError):
        model(torch.zeros(3, 2), 1.5)
    with pytest.raises(NonFiniteError, match=r"x.*\[1\]"):
        model(torch.tensor([[0.0, 0.0], [torch.nan, 0.0]]), 0.5)
    with pytest.raises(DtypeError):
        model(torch.zeros(3, 2, dtype=torch.int64), 0.5)


def test_on_a_chain_the_nodes_have_the_alphas_of_the_table():
    sde = DDPM.linear(20, beta_start=0.005, beta_end=0.5)
    model, x = ExactScore(Gaussian([0.0], 4.0), sde), f64([[1.0]])
    for i in range(1, 21):
        bar = sde.alphas_bar[i - 1]
        torch.testing.assert_close(
            model(x, sde.time(i)).score, -x / (4 * bar + 1 - bar), rtol=1e-14, atol=0
        )
