"""Claim: training finds the score: a one-parameter model its closed form (property 76).

For N(0, c) data the best eps_hat = k x at one noise level has k = sigma / (alpha^2 c + sigma^2).
"""

import math

import pytest
import torch

from sdekit import DDPM, DSM, Gaussian, GaussianMixture, ScoreModel, Trainer
from sdekit.model import MLP


class Slope(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def forward(self, x, time):
        return self.k * x


@pytest.mark.parametrize("c", [0.25, 4.0])
def test_one_parameter(c):
    """A chain of one node is one noise level: beta = var."""
    var = 0.6
    alpha2, steps, batch = 1 - var, 400, 1024
    model = ScoreModel(Slope(), DDPM([var]))
    data = Gaussian(torch.zeros(1, dtype=torch.float64), c)
    Trainer(model, optimizer="sgd", lr=0.05, warmup=0, batch_size=batch, ema=None).fit(
        data, steps=steps
    )
    total = alpha2 * c + var
    best = math.sqrt(var) / total
    # At the optimum one sample has gradient 2 x (k x - eps), of variance 4 Var(x) Var(eps | x).
    # A least-squares fit of all n samples has standard error sqrt(Var(eps | x) / (n Var(x))); the
    # falling rate weighs about a fifth of the samples.
    error = math.sqrt(alpha2 * c / total / total / (steps * batch / 5))
    assert abs(float(model.network.k.detach()) - best) < 6 * error


def test_the_loss_falls_to_its_floor():
    """On the tutorial's mixture the mean loss ends near what the exact score has."""
    from sdekit import ExactScore

    data = GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)
    chain = DDPM.linear(100)
    exact = ExactScore(data, chain)
    generator = torch.Generator().manual_seed(0)
    floor = float(DSM()(exact, data.sample(4000, generator=generator), generator=generator).mean())
    model = ScoreModel(MLP(2, width=64, depth=2), chain)
    result = Trainer(model, lr=3e-3, batch_size=256).fit(data, steps=600)
    start, end = float(result.losses[:5].mean()), float(result.losses[-100:].mean())
    assert start > floor + 0.2
    assert abs(end - floor) < 0.05


def test_the_schedule_of_the_rate():
    rates = []

    class Recorded(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    def fit(**kwargs):
        rates.clear()
        model = ScoreModel(Slope(), DDPM([0.5]))
        Trainer(model, optimizer=Recorded, lr=0.5, batch_size=2, **kwargs).fit(
            torch.ones(2, 1).mul(torch.tensor([[1.0], [2.0]])), steps=40
        )
        return list(rates)

    fall = [0.5 * 0.5 * (1 + math.cos(math.pi * k / 40)) for k in range(40)]
    rise = [min(1.0, (k + 1) / 4) for k in range(40)]  # a tenth of the run at most
    assert fit() == pytest.approx([a * b for a, b in zip(fall, rise, strict=True)])
    assert fit(schedule="constant", warmup=2) == pytest.approx([0.25] + [0.5] * 39)


def test_clipping():
    """Every step of plain SGD is at most lr clip long."""
    path = [0.2]
    model = ScoreModel(Slope(), DDPM([0.5]))
    trainer = Trainer(model, optimizer="sgd", schedule="constant", warmup=0, lr=0.1, clip=1e-3)
    trainer.fit(
        torch.tensor([[1.0], [50.0]], dtype=torch.float64),
        steps=20,
        callback=lambda step, loss: path.append(float(model.network.k.detach())),
    )
    lengths = torch.tensor(path, dtype=torch.float64).diff().abs()
    assert float(lengths.max()) == pytest.approx(1e-4, rel=1e-4)
    assert float(lengths.max()) <= 1e-4 * (1 + 1e-9)
