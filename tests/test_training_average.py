"""Claim: an average keeps a constant, forgets its first weights, and is what training returns."""

import torch
from support import assert_close

from sdekit import VPSDE, ScoreModel, Trainer
from sdekit.model import MLP
from sdekit.training.average import Average


class Number(torch.nn.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value, dtype=torch.float64))
        self.register_buffer("kept", torch.zeros(()))

    def forward(self, x, time):
        return x * self.value


def average_of(values, decay):
    model = ScoreModel(Number(), VPSDE())
    average = Average(model, decay)
    for value in values:
        with torch.no_grad():
            model.network.value.fill_(value)
        average.update()
    return float(average.model.network.value.detach())


def by_hand(values, decay):
    """The sum of its own definition: weights d_n d_(n-1) .. (1 - d_m), all of them explicit."""
    decays = [0.0, *(min(decay, (1 + n) / (10 + n)) for n in range(2, len(values) + 1))]
    total = 0.0
    for m, value in enumerate(values):
        weight = 1 - decays[m]
        for later in decays[m + 1 :]:
            weight *= later
        total += weight * value
    return total


def test_a_constant_stays():
    assert average_of([7.25] * 50, 0.999) == 7.25


def test_warm_up_forgets_the_first_weights():
    """After 100 steps at decay .9999 the first half weighs 0.4 %; without warm-up 99.5 %."""
    assert average_of([1.0] * 50 + [0.0] * 50, 0.9999) < 4e-3


def test_buffers_are_the_latest():
    model = ScoreModel(Number(), VPSDE())
    average = Average(model, 0.5)
    for value in (1.0, 2.0, 3.0):
        model.network.kept.fill_(value)
        average.update()
    assert float(average.model.network.kept) == 3.0


def test_training_returns_the_average_and_not_the_raw_weights():
    def trained(ema):
        model = ScoreModel(MLP(1, width=8, depth=1), VPSDE())
        result = Trainer(model, ema=ema, batch_size=8).fit(
            torch.linspace(-1, 1, 40)[:, None], steps=20
        )
        return model, result.model

    raw, averaged = trained(0.999)
    assert averaged is not raw
    assert not averaged.training
    pairs = zip(raw.parameters(), averaged.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs)
    same, latest = trained(0.0)
    pairs = zip(same.parameters(), latest.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    alone, none = trained(None)
    assert none is alone


def test_a_whole_run_by_hand():
    """The average over a run is the definition applied to the weights after each step."""
    model, seen = ScoreModel(Number(0.3), VPSDE()), []
    trainer = Trainer(model, ema=0.9, batch_size=4, lr=0.05)
    trainer.fit(
        torch.randn(20, 1, generator=torch.Generator().manual_seed(0)),
        steps=15,
        callback=lambda step, loss: seen.append(float(model.network.value.detach())),
    )
    value = trainer.ema_model.network.value.detach()
    assert_close(value, torch.tensor(by_hand(seen, 0.9), dtype=torch.float64), tol=1e-12)
    assert len(set(seen)) == 15
