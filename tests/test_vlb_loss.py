"""Claim: VLB is an unbiased estimate of the bound, for fixed and for learned variances.

Averaged over the steps it is L_0 + sum L_{t-1}; for a fixed variance L_{t-1} is the weight
beta^2 / (2 sigma^2 alpha (1 - alpha_bar)) times the error of the noise and a constant
(PEER_BUGS 27); its minimum is the exact score; a one-parameter model recovers -1/(alpha^2 c + v)
(property 76). In the hybrid loss the bound moves the variance alone. A network that learns
variances returns twice the channels, and samplers see the first half.
"""

from __future__ import annotations

import math

import pytest
import torch
from support import assert_close
from torch import nn

from sdekit import DDPM, DSM, VESDE, VPSDE, ExactScore, Gaussian, ScoreModel, sample
from sdekit.errors import ConfigError, DataError, DtypeError, ModelError, ShapeError, TimeError
from sdekit.likelihood.chain import chain_rows, prior_kl
from sdekit.model import MLP
from sdekit.model.prediction import Prediction
from sdekit.objectives import VLB
from sdekit.training import Trainer, load_checkpoint, save_checkpoint

CHAIN = DDPM.linear(12, beta_start=0.01, beta_end=0.5)


def f64(values):
    return torch.as_tensor(values, dtype=torch.float64)


def draws(*shape, seed=0):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed)).double()


def network(x, time):
    return torch.tanh(x) * 0.3 + 0.1


def both(x, time):
    """A prediction and a fraction."""
    return torch.cat([network(x, time), torch.sin(3 * x)], dim=1)


# the value ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_weight_of_the_noise(variance):
    """By the published weight and a numerical KL divergence of two normal laws, per element."""
    (x0, noise), chain = draws(5, 3), CHAIN
    bar = torch.cat([f64([1.0]), (1 - chain.betas).cumprod(0)])
    for i in range(2, chain.n + 1):
        beta, a, before = chain.betas[i - 1], bar[i], bar[i - 1]
        tilde = beta * (1 - before) / (1 - a)
        sigma2 = tilde if variance == "posterior" else beta
        x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
        error = network(x_t, None) - noise
        weight = beta**2 / (2 * sigma2 * (1 - beta) * (1 - a))
        spread = 0.5 * (tilde / sigma2 - 1 - (tilde / sigma2).log())
        loss = VLB(variance=variance).loss_at(ScoreModel(network, chain), x0, i / chain.n, noise)
        assert_close(loss / chain.n, (weight * error**2 + spread).sum(1), tol=1e-12)
        # the two means, in Ho et al.'s form, and torch's own divergence
        q_mean = before.sqrt() * beta / (1 - a) * x0
        q_mean = q_mean + (1 - beta).sqrt() * (1 - before) / (1 - a) * x_t
        p_mean = (x_t - beta / (1 - a).sqrt() * network(x_t, None)) / (1 - beta).sqrt()
        normal = torch.distributions.Normal
        kl = torch.distributions.kl_divergence(
            normal(q_mean, tilde.sqrt()), normal(p_mean, sigma2.sqrt())
        )
        assert_close(loss / chain.n, kl.sum(1), tol=1e-10)


@pytest.mark.parametrize(
    "objective", [VLB(), VLB(variance="beta"), VLB(variance="learned")], ids=repr
)
def test_unbiased(objective):
    """Every step is drawn equally often, and a call is the loss at its draws."""
    model = ScoreModel(both, CHAIN, variance="learned_range")
    n, (x0, noise) = CHAIN.n, draws(4, 2)
    each = torch.stack(
        [objective.loss_at(model, x0, CHAIN.time(i), noise) for i in range(1, n + 1)]
    )
    assert bool(each.isfinite().all())
    generator = torch.Generator().manual_seed(3)
    called = objective(model, x0, generator=torch.Generator().manual_seed(3))
    u = torch.rand(4, generator=generator, dtype=torch.float64)
    z = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    node = (u * n).to(torch.int64) + 1  # u in [(i - 1)/n, i/n) is step i
    assert_close(called, objective.loss_at(model, x0, node / n, z), tol=1e-14)


def test_steps_are_uniform():
    """At the ends of each interval of the uniform draw, and never a step that there is not."""
    loss, model = VLB(), ScoreModel(network, CHAIN)
    x0 = torch.zeros(30_000, 1)
    t = loss.prepare(model, x0, torch.Generator().manual_seed(0))[1]
    counts = torch.bincount(CHAIN.index(t), minlength=CHAIN.n + 1)
    assert counts[0] == 0
    expected = 30_000 / CHAIN.n
    assert float((counts[1:] - expected).abs().max()) < 7 * math.sqrt(expected)


def test_a_chain_that_ends_above_its_first_node():
    """Nodes 3 .. 10; the decoder is at node 3 with the variance (1 - alpha_bar) / alpha_bar."""
    chain = DDPM(f64([0.1] * 10), t_min=0.3)
    rows = chain_rows(chain)
    assert chain.index(rows.t).tolist() == list(range(3, 11))
    bar = 0.9**3
    assert float(rows.low[0].exp()) == pytest.approx((1 - bar) / bar)
    assert float(rows.high[0].exp()) == pytest.approx(1 - bar)
    model, (x0, noise) = ScoreModel(network, chain), draws(3, 2)
    whole = VLB().loss_at(ScoreModel(network, DDPM(chain.betas)), x0, 0.7, noise)
    assert_close(VLB().loss_at(model, x0, 0.7, noise) / 8, whole / 10, tol=1e-14)
    with pytest.raises(TimeError, match=r"0\.2"):
        VLB().loss_at(model, x0, 0.2, noise)


def test_one_step():
    """A chain of one step is its decoder."""
    chain = DDPM(f64([0.4]))
    x0, noise = draws(3, 2)
    x_t = 0.6**0.5 * x0 + 0.4**0.5 * noise
    mean = (x_t - 0.4**0.5 * network(x_t, None)) / 0.6**0.5
    nats = -torch.distributions.Normal(mean, (0.4 / 0.6) ** 0.5).log_prob(x0).sum(1)
    assert_close(VLB().loss_at(ScoreModel(network, chain), x0, 1.0, noise), nats, tol=1e-12)
    u = math.log(0.4)
    assert_close(prior_kl(chain, x0), 0.5 * (0.6 * x0**2 + 0.4 - 1 - u).sum(1), tol=1e-12)


def test_prior_of_ve():
    """KL(N(x_0, s^2) || N(0, s^2)) = |x_0|^2 / (2 s^2): the mean is not removed."""
    x0 = draws(3, 2)[0]
    expected = 0.5 * x0.square().sum(1) / 50.0**2
    assert_close(prior_kl(VESDE(), x0), expected, tol=1e-10)


def test_continuous_processes():
    """Likelihood weighting over the whole time, as a sum."""
    sde, (x0, noise) = VPSDE(), draws(4, 2)
    model = ScoreModel(network, sde)
    plain = DSM(weighting="likelihood", reduction="sum").loss_at(model, x0, 0.4, noise)
    assert_close(VLB().loss_at(model, x0, 0.4, noise), 0.5 * 0.999 * plain, tol=1e-14)
    for wrong in (VLB(variance="learned"), VLB(hybrid=True)):
        with pytest.raises(ConfigError, match="DDPM"):
            wrong(model, x0)


# gradients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["gaussian", "discretized"])
@pytest.mark.parametrize("node", [1, 2, 12])
def test_gradient(decoder, node):
    """In the prediction and in the fraction, at the decoder's step and above."""
    x0, noise = torch.linspace(-1, 1, 5).double()[[0, 1, 3, 4]].reshape(2, 2), draws(2, 2)[1]
    objective = VLB(variance="learned", decoder=decoder, levels=5)

    def loss(theta):
        def learned(x, time):
            return torch.cat([theta[0] * torch.tanh(x), theta[1] * torch.sin(x)], dim=1)

        model = ScoreModel(learned, CHAIN, variance="learned_range")
        return objective.loss_at(model, x0, CHAIN.time(node), noise)

    theta = f64([0.4, 0.7]).requires_grad_()
    assert torch.autograd.gradcheck(loss, theta, atol=1e-5, rtol=1e-6)


def test_the_bound_of_a_hybrid_moves_the_variance_alone():
    theta = f64([0.4, 0.7]).requires_grad_()

    def learned(x, time):
        return torch.cat([theta[0] * torch.tanh(x), theta[1] * torch.sin(x)], dim=1)

    model, (x0, noise) = ScoreModel(learned, CHAIN, variance="learned_range"), draws(6, 2)

    def slopes(objective):
        loss = objective.loss_at(model, x0, 0.5, noise)
        return loss, torch.autograd.grad(loss.sum(), theta)[0]

    hybrid, moved = slopes(VLB(variance="learned", hybrid=True, weight=0.25))
    bound, by_bound = slopes(VLB(variance="learned"))
    fixed, by_plain = slopes(VLB(variance="beta", hybrid=True, weight=0.0))
    plain = DSM().loss_at(model, x0, 0.5, noise)
    assert_close(fixed, plain, tol=1e-12)
    assert_close(hybrid, plain + 0.25 / 2 * bound, tol=1e-12)
    assert_close(moved[0], by_plain[0], tol=1e-12)
    assert_close(moved[1], 0.25 / 2 * by_bound[1], tol=1e-12)
    assert float(by_bound[0].abs()) > 0.1


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("node", [1, 2, 7, 12])
def test_least_at_the_score(node, variance):
    """Two points as data: the slope in scale and shift of the exact noise is 0 at each step."""
    t = CHAIN.time(node)
    alpha, var = CHAIN.alpha(t), CHAIN.var(t)
    z = torch.linspace(-9, 9, 481, dtype=torch.float64)
    p = torch.exp(-0.5 * z**2)
    p = torch.cat([0.3 * p, 0.7 * p]) / p.sum()
    x0, noise = torch.cat([0 * z - 1, 0 * z + 1])[:, None], torch.cat([z, z])[:, None]
    off = f64([0.0, 0.0]).requires_grad_()

    def best(x, time):
        up = torch.sigmoid(2 * alpha * x / var + math.log(0.7 / 0.3))
        return (1 + off[0]) * (x - alpha * (2 * up - 1)) / var.sqrt() + off[1]

    loss = VLB(variance=variance).loss_at(ScoreModel(best, CHAIN), x0, t, noise)
    slope = torch.autograd.grad((p * loss).sum(), off)[0]
    assert float(slope.abs().max()) < 1e-10 * float(loss.detach().abs().max())


def test_the_best_fraction_is_that_of_the_true_variance():
    """N(0, c) data and the exact mean: v* = beta_tilde + w_0^2 Var(x_0 | x_t)."""
    c, t = 0.8, 0.5
    chain, exact = CHAIN, ExactScore(Gaussian(f64([0.0]), 0.8), CHAIN)
    rows = chain_rows(chain).at(torch.tensor([5]))
    assert float(rows.t) == t
    a = float(chain.alpha(t)) ** 2
    given = c * (1 - a) / (a * c + 1 - a)
    best = rows.log_q.exp() + rows.w_0**2 * given
    fraction = (2 * (best.log() - rows.low) / (rows.high - rows.low) - 1).requires_grad_()

    class Learned:
        sde, parametrization = chain, exact.parametrization

        def __call__(self, x, t):
            seen = exact(x, t)
            origin = (self.sde, self.parametrization)
            return Prediction(x, seen.raw, t, origin, fraction.expand_as(x))

    z, p = (f64(v) for v in ([-math.sqrt(3), 0.0, math.sqrt(3)], [1 / 6, 2 / 3, 1 / 6]))
    x0, noise = torch.cartesian_prod(z, z).unbind(1)
    weights = torch.cartesian_prod(p, p).prod(1)
    loss = VLB(variance="learned").loss_at(
        Learned(), math.sqrt(c) * x0[:, None], t, noise[:, None]
    )
    slope = torch.autograd.grad((weights * loss).sum(), fraction)[0]
    assert abs(float(slope)) < 1e-10
    assert -1 < float(fraction.detach()) < 1


def test_one_parameter_is_recovered():
    """Property 76: s = -theta x at one node; theta is 1/(alpha^2 c + v) within 6 of its errors."""
    c, t, n = 0.5, 0.5, 20_000
    generator = torch.Generator().manual_seed(1)
    x0 = c**0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    sigma = CHAIN.sigma(t)
    theta = f64(1.0).requires_grad_()
    model = ScoreModel(lambda x, time: sigma * theta * x, CHAIN)
    loss = VLB(variance="beta").loss_at(model, x0, t, noise)
    (slope,) = torch.autograd.grad(loss.mean(), theta, create_graph=True)
    (second,) = torch.autograd.grad(slope, theta)
    found = (theta - slope / second).detach()  # one step of Newton's: the loss is a parabola
    x_t = CHAIN.alpha(t) * x0 + sigma * noise
    each = x_t * (sigma * float(found) * x_t - noise)  # of the estimating equation
    error = float(each.std() / n**0.5 / (sigma * x_t.square().mean()))
    wanted = 1 / float(CHAIN.alpha(t) ** 2 * c + CHAIN.var(t))
    assert abs(float(found) - wanted) < 6 * error < 0.05 * wanted


# networks that learn the variance ----------------------------------------------------------------


def test_twice_the_channels():
    model = ScoreModel(both, CHAIN, variance="learned_range")
    x = draws(3, 2, 4, 4)[0]
    seen = model(x, 0.5)
    assert torch.equal(seen.raw, network(x, None))
    assert torch.equal(seen.fraction, torch.sin(3 * x))
    assert ScoreModel(network, CHAIN)(x, 0.5).fraction is None
    bound = model.bind(x, (0.5,), {})
    assert torch.equal(bound(x, 0.5), seen.raw)
    plain = sample(ScoreModel(network, CHAIN), (5, 2), sampler="ancestral", seed=1)
    assert torch.equal(sample(model, (5, 2), sampler="ancestral", seed=1).x, plain.x)
    with pytest.raises(ShapeError, match=r"\(3, 4, 4, 4\)"):
        ScoreModel(network, CHAIN, variance="learned_range")(x, 0.5)
    with pytest.raises(ShapeError, match=r"\(5, 4\)"):
        sample(ScoreModel(network, CHAIN, variance="learned_range"), (5, 2))
    with pytest.raises(ShapeError, match=r"\(3, 2, 4, 4\)"):
        ScoreModel(both, CHAIN)(x, 0.5)
    with pytest.raises(ShapeError, match="batch"):
        ScoreModel(lambda x, time: x, CHAIN, variance="learned_range")(x[:, 0, 0, 0], 0.5)
    with pytest.raises(ConfigError, match="learned_range"):
        ScoreModel(both, CHAIN, variance="learned")
    with pytest.raises(ConfigError, match="learned_range"):
        VLB(variance="learned")(ScoreModel(network, CHAIN), x)


def test_a_checkpoint_keeps_it(tmp_path):
    network = MLP(2, width=8, depth=1, outputs=4)
    assert network(torch.zeros(3, 2), torch.zeros(3)).shape == (3, 4)
    assert "outputs" not in MLP(2).config  # as in checkpoints of older releases
    model = ScoreModel(network, CHAIN, variance="learned_range")
    found = load_checkpoint(save_checkpoint(tmp_path / "a.safetensors", model)).model
    x = torch.linspace(-1, 1, 6).reshape(3, 2)
    for name in ("raw", "fraction"):
        assert torch.equal(getattr(found(x, 0.5), name), getattr(model(x, 0.5), name))
    assert found.variance == "learned_range"
    plain = ScoreModel(MLP(2, width=8, depth=1), CHAIN)
    path = save_checkpoint(tmp_path / "b.safetensors", plain)
    assert load_checkpoint(path).model.variance is None
    with pytest.raises(Exception, match="variance"):
        load_checkpoint(path, model=model)


def test_training_learns_the_variance():
    """A few steps of the hybrid loss lower the bound, and the fraction leaves 0."""
    torch_net = MLP(2, width=16, depth=1, outputs=4, seed=1)
    nn.init.zeros_(torch_net.layers[-1].weight)
    nn.init.zeros_(torch_net.layers[-1].bias)
    model = ScoreModel(torch_net, CHAIN, variance="learned_range", time_input="index")
    x = 0.5 * torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    objective, bound = VLB(variance="learned", hybrid=True, weight=0.05), VLB(variance="learned")

    def now():
        with torch.no_grad():
            return float(bound(model, x, generator=torch.Generator().manual_seed(5)).mean())

    before = now()
    Trainer(model, objective, lr=1e-2, warmup=0, batch_size=64, seed=0).fit(x, steps=60)
    assert now() < before - 1
    assert float(model(x, 0.5).fraction.detach().abs().mean()) > 0.05


# what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "word"),
    [
        (dict(variance="posteriour"), ConfigError, "posterior"),
        (dict(variance=0.5), DtypeError, "variance"),
        (dict(weight=-1.0), ConfigError, "weight"),
        (dict(hybrid="yes"), DtypeError, "hybrid"),
        (dict(decoder="discretised"), ConfigError, "discretized"),
        (dict(levels=1), ConfigError, "levels"),
    ],
)
def test_fields(fields, error, word):
    with pytest.raises(error, match=word):
        VLB(**fields)


def test_data_and_models():
    model, (x0, noise) = ScoreModel(network, CHAIN), draws(3, 2)
    with pytest.raises(DataError, match=r"x\[0, 0\]"):
        VLB(decoder="discretized")(model, x0)
    with pytest.raises(TimeError):
        VLB().loss_at(model, x0, 0.0, noise)
    with pytest.raises(ShapeError, match="noise"):
        VLB().loss_at(model, x0, 0.5, noise[:2])

    class NoPrediction:
        sde = CHAIN

        def __call__(self, x, t):
            return x

    with pytest.raises(ModelError, match="Prediction"):
        VLB()(NoPrediction(), x0)
    with pytest.raises(ConfigError, match="linear SDE"):
        VLB()(network, x0)
