"""Claim: each weighting is its paper's, on any target of prediction, and what it says of itself.

Property 39: likelihood's weight is g^2 on the score and -d log_snr / dt; property 41: min-SNR,
soft-min-SNR and EDM's losses are the papers' own when the network predicts x_0, v or F. The
learned weighting is least at the log of the expected weighted error, and leaves the prediction's
minimiser where it was.
"""

import math

import pytest
import torch
from support import assert_close

from sdekit import (
    DDPM,
    DSM,
    EDM,
    VESDE,
    VPSDE,
    ScoreModel,
    Trainer,
    catalogue,
    load_checkpoint,
    save_checkpoint,
)
from sdekit.errors import CheckpointError, ConfigError, DtypeError
from sdekit.model import MLP
from sdekit.model.uncertainty import Uncertainty
from sdekit.objectives import (
    P2,
    EDMWeighting,
    Likelihood,
    MinSNR,
    SoftMinSNR,
    UncertaintyWeighting,
)

SDES = [sde for entry in catalogue("sde").values() for sde in entry.examples()]
PLAIN = [
    weighting
    for entry in catalogue("weighting").values()
    for weighting in entry.examples()
    if "learned" not in weighting.kinds
]
T = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)


def draws(n=7, d=3):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, n, d, generator=generator, dtype=torch.float64)


def network(x, time):
    return 0.3 * torch.tanh(x) + 0.1


def loss(weighting, sde, parametrization):
    x0, noise = draws()
    model = ScoreModel(network, sde, parametrization=parametrization)
    return DSM(weighting=weighting).loss_at(model, x0, T, noise)


def raw_error(sde, a, b, scale=None):
    """The squared error of a network that predicts a x_0 + b eps, from its definition."""
    x0, noise = draws()
    x = sde.alpha(T)[:, None] * x0 + sde.sigma(T)[:, None] * noise
    x = x if scale is None else scale[:, None] * x
    return (network(x, T) - a[:, None] * x0 - b[:, None] * noise).square().mean(1)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(sigma_min=0.1, sigma_max=10.0)], ids=repr)
def test_on_a_clean_sample(sde):
    """mu(SNR) |x_0 error|^2, for min-SNR, soft-min-SNR and EDM."""
    snr, one = sde.log_snr(T).exp(), torch.ones_like(T)
    error = raw_error(sde, one, 0 * one)
    s = snr.rsqrt()
    by_hand = {
        MinSNR(gamma=5.0): snr.clamp_max(5.0),
        SoftMinSNR(gamma=4.0): 4 * snr / (snr + 4),
        EDMWeighting(sigma_data=0.5): (s**2 + 0.25) / (0.5 * s) ** 2,
    }
    for weighting, mu in by_hand.items():
        assert_close(loss(weighting, sde, "x0") / (mu * error), one, tol=1e-9)


def test_on_v():
    """On VP min-SNR's weight of the v error is min(SNR, gamma) / (SNR + 1), as in its paper."""
    sde = VPSDE()
    snr = sde.log_snr(T).exp()
    error = raw_error(sde, -sde.sigma(T), sde.alpha(T))
    expected = snr.clamp_max(5.0) / (snr + 1) * error
    assert_close(loss("min_snr", sde, "v") / expected, torch.ones_like(T), tol=1e-9)


@pytest.mark.parametrize("sde", [EDM(), VPSDE()], ids=repr)
def test_edm_on_its_own_output_is_a_plain_square(sde):
    """lambda c_out^2 = 1: arXiv:2206.00364, section 5, for any alpha."""
    data, level = 0.5, (-0.5 * sde.log_snr(T)).exp()
    root = (level**2 + data**2).sqrt()
    # F = (x_0 - c_skip (x_0 + s eps)) / c_out
    a, b = level / (data * root), -data / root
    error = raw_error(sde, a, b, scale=1 / (sde.alpha(T) * root))
    assert_close(loss("edm", sde, "edm"), error, tol=1e-9)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_likelihood_is_the_slope_of_the_log_snr(sde):
    """Property 39: w sigma^2 = g^2 on the score; its integral is a difference of log-SNRs."""
    t = sde.to_model_time(torch.linspace(0.1, 0.8, 5, dtype=torch.float64) * sde.t_max)
    assert_close(Likelihood().weight(sde, t) * sde.var(t), sde.g2(t), tol=1e-12)
    nodes, w = torch.linspace(0, 1, 4001, dtype=torch.float64), torch.ones(4001).double()
    if "ddpm" in sde.kinds:  # beta is constant between two nodes: one interval
        low, high = (sde.n - 0.7) / sde.n, (sde.n - 0.2) / sde.n
    else:
        low, high = 0.2 * sde.t_max, 0.7 * sde.t_max
    w[1:-1:2], w[2:-1:2] = 4, 2  # Simpson's rule
    inside = Likelihood().weight(sde, low + (high - low) * nodes)
    area = (w * inside).sum() * (high - low) / 12000
    assert_close(area, sde.log_snr(low) - sde.log_snr(high), tol=1e-7)


@pytest.mark.parametrize("weighting", PLAIN, ids=repr)
@pytest.mark.parametrize("sde", [*SDES, VESDE(sigma_min=1e-8, sigma_max=1e8)], ids=repr)
def test_finite_at_the_ends(sde, weighting):
    """Property 45, without overflow at SNRs of 1e16 and 1e-16."""
    first = sde.t_min or (sde.time(1) if "ddpm" in sde.kinds else 0.0)
    w = weighting.weight(sde, torch.tensor([first, sde.t_max], dtype=torch.float64))
    assert bool((w.isfinite() & (w > 0)).all()), w


def test_limits_of_the_families():
    sde = VPSDE()
    one = torch.ones_like(T)
    assert_close(MinSNR(gamma=1e300).weight(sde, T), one, tol=1e-12)
    assert_close(P2(gamma=0.0).weight(sde, T), one, tol=1e-12)
    assert_close(EDMWeighting(sigma_data=1e9).weight(sde, T), one, tol=1e-9)
    # P2 with k = gamma, exponent 1, is soft-min-SNR over gamma
    assert_close(4 * P2(k=4.0).weight(sde, T), SoftMinSNR(gamma=4.0).weight(sde, T), tol=1e-12)


# learned ------------------------------------------------------------------------------------


class Level(torch.nn.Module):
    """u as one number."""

    def __init__(self, value=0.3):
        super().__init__()
        self.u = torch.nn.Parameter(torch.tensor(value, dtype=torch.float64))

    def forward(self, c):
        return self.u.expand(c.shape)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_least_uncertainty_is_the_log_of_the_error(reduction):
    """At one time: the slope in u is 0 at u = log of the mean weighted error of an element."""
    sde, (x0, noise) = VPSDE(), draws(50)
    base = DSM(weighting="edm").loss_at(ScoreModel(network, sde), x0, 0.4, noise).mean()
    believed = Level(float(base.log()))
    model = ScoreModel(network, sde, uncertainty=believed)
    learned = DSM(weighting="uncertainty", reduction=reduction)
    value = learned.loss_at(model, x0, 0.4, noise).mean()
    elements = 1 if reduction == "mean" else 3
    assert_close(value.detach(), elements * (1 + base.log()), tol=1e-12)
    (slope,) = torch.autograd.grad(value, believed.u)
    assert abs(float(slope)) < 1e-12
    off = ScoreModel(network, sde, uncertainty=Level(float(base.log()) + 0.1))
    assert float((learned.loss_at(off, x0, 0.4, noise).mean() - value).detach()) > 1e-3


def test_the_prediction_has_the_same_minimiser():
    """The gradient in the network is that of the base loss over e^u, for any u."""
    sde, (x0, noise) = VPSDE(), draws()
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    model = ScoreModel(lambda x, time: k * x, sde, uncertainty=Level(0.3))
    slopes = [
        torch.autograd.grad(DSM(weighting=w).loss_at(model, x0, 0.4, noise).sum(), k)[0]
        for w in ("uncertainty", "edm")
    ]
    assert_close(slopes[0] * math.exp(0.3), slopes[1], tol=1e-12)


def test_the_module_is_told_a_quarter_of_the_log_of_the_noise_level():
    seen = []

    class Told(torch.nn.Module):
        def forward(self, c):
            seen.append(c)
            return 0 * c

    sde, (x0, noise) = VPSDE(), draws()
    model = ScoreModel(network, sde, uncertainty=Told())
    DSM(weighting="uncertainty").loss_at(model, x0, T, noise)
    assert_close(seen[0], 0.25 * (sde.sigma(T) / sde.alpha(T)).log(), tol=1e-12)


def test_a_trained_uncertainty_knows_the_error_and_is_kept(tmp_path):
    """On N(0, 1) data with the network held at 0: E (eps_hat - eps)^2 = 1, so that u = log w."""

    class Zero(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.k = torch.nn.Parameter(torch.zeros(()), requires_grad=False)

        def forward(self, x, time):
            return self.k * x

    sde = VPSDE()
    model = ScoreModel(Zero(), sde, uncertainty=True)
    assert not any(v.any() for k, v in model.state_dict().items() if k.endswith("weight"))
    objective = DSM(weighting=UncertaintyWeighting(base=P2(gamma=0.5)))
    trainer = Trainer(model, objective, lr=0.03, batch_size=512, ema=0.9)
    result = trainer.fit(
        torch.randn(512, 1, generator=torch.Generator().manual_seed(0)), steps=300
    )
    believed = result.model.uncertainty(-0.125 * sde.log_snr(T)).double().detach()
    gap = believed - P2(gamma=0.5).weight(sde, T).log()
    assert float(gap.abs().max()) < 0.25
    path = save_checkpoint(tmp_path, result.model)
    with pytest.raises(CheckpointError, match="network"):
        load_checkpoint(path)
    again = load_checkpoint(path, network=Zero()).model
    assert_close(again.uncertainty(T), result.model.uncertainty(T), tol=1e-7)


def test_checkpoints_of_models_with_an_uncertainty(tmp_path):
    ours = ScoreModel(MLP(2, width=8), VPSDE(), uncertainty=Uncertainty(features=5, seed=3))
    ours.uncertainty.weight.data.fill_(0.5)
    found = load_checkpoint(save_checkpoint(tmp_path / "a.safetensors", ours))
    assert found.config["uncertainty"] == {"features": 5, "bandwidth": 1.0, "seed": 3}
    assert_close(found.model.uncertainty(T), ours.uncertainty(T))
    plain = load_checkpoint(
        save_checkpoint(tmp_path / "b.safetensors", ScoreModel(MLP(2, width=8), VPSDE()))
    )
    assert plain.model.uncertainty is None
    own = ScoreModel(MLP(2, width=8), VPSDE(), uncertainty=Level())
    path = save_checkpoint(tmp_path / "c.safetensors", own)
    with pytest.raises(CheckpointError, match=r"uncertainty.*model="):
        load_checkpoint(path)
    assert load_checkpoint(path, model=own).model.uncertainty.u == own.uncertainty.u
    with pytest.raises(CheckpointError, match="uncertainty"):
        load_checkpoint(path, model=ours)


def test_an_old_spelling_of_the_objective_resumes(tmp_path):
    """Runs of before the laws had fields stored time='uniform'."""
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))

    def trainer():
        return Trainer(ScoreModel(MLP(2, width=8, depth=1), VPSDE()), batch_size=16)

    class Old(DSM):
        __repr__ = lambda self: "dsm(weighting='simple', time='uniform', reduction='mean')"  # noqa: E731

    first = Trainer(trainer().model, Old(), batch_size=16)
    first.fit(data, steps=2, checkpoint_dir=tmp_path)
    assert load_checkpoint(tmp_path).config["objective"] == repr(Old())
    assert trainer().fit(data, steps=4, checkpoint_dir=tmp_path, resume=True).first_step == 2


def test_the_global_generator_is_not_used():
    before = torch.get_rng_state()
    Uncertainty()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: MinSNR(gamma=0), ConfigError, ["gamma", "0"]),
        (lambda: SoftMinSNR(gamma=-1), ConfigError, ["gamma", "-1"]),
        (lambda: P2(k=0), ConfigError, ["k", "0"]),
        (lambda: P2(gamma=-1), ConfigError, ["gamma"]),
        (lambda: EDMWeighting(sigma_data=0), ConfigError, ["sigma_data"]),
        (lambda: UncertaintyWeighting(base="uncertainty"), ConfigError, ["base", "learned"]),
        (lambda: UncertaintyWeighting(base=3), DtypeError, ["base", "3"]),
        (lambda: Uncertainty(features=0), DtypeError, ["features", "0"]),
        (lambda: ScoreModel(network, VPSDE(), uncertainty=3), DtypeError, ["uncertainty", "3"]),
        (
            lambda: DSM(weighting="uncertainty")(ScoreModel(network, DDPM.linear(5)), draws()[0]),
            ConfigError, ["uncertainty=True"],
        ),
    ],
)  # fmt: skip
def test_bad_input(call, error, words):
    with pytest.raises((error, ConfigError)) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value
