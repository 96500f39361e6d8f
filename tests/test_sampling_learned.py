"""Claim: ancestral steps take a learned variance from the model, element by element.

With a fraction that is the same everywhere the step is that of v = (1 + fraction) / 2, whose ends
are the two variances of arXiv:2102.09672, eq. 15; test_reference_iddpm.py repeats runs of the
released code. A model without a fraction is refused by name.
"""

from __future__ import annotations

import pytest
import torch
from sampling_support import WithFraction, draws, two_modes
from strategies import every_sde, f64
from support import assert_close

from sdekit import DDPM, VESDE, VPSDE, ExactScore, ScoreModel, sample
from sdekit.errors import ConfigError
from sdekit.model import Thresholded
from sdekit.model.parametrization import Eps
from sdekit.model.prediction import Prediction
from sdekit.sampling import Ancestral, PredictorCorrector
from sdekit.verify import check_sampler

LEARNED = Ancestral(variance="learned")
CHAIN = DDPM.linear(20, beta_end=0.4)


class Learned:
    """The exact noise, as noise: where alpha is small a score says little of x_0."""

    def __init__(self, sde, fraction):
        self.sde, self.fraction, self.exact = sde, fraction, ExactScore(two_modes(), sde)

    def __call__(self, x, t):
        eps = self.exact(x, t).eps
        fraction = torch.as_tensor(self.fraction, dtype=x.dtype).expand_as(x)
        return Prediction(x, eps, t, (self.sde, Eps()), fraction)


@every_sde
@pytest.mark.parametrize("v", [0.0, 0.3, 1.0])
def test_one_fraction_is_one_variance(sde, v):
    if float(sde.alpha(sde.t_max)) < 1e-8:
        return  # eps says nothing of x_0 there: both runs are roundings times 1 / alpha
    how = dict(steps=min(5, sde.default_steps), seed=3, dtype=torch.float64, keep="all")
    found = sample(Learned(sde, 2 * v - 1), (6, 2), sampler=LEARNED, **how)
    expected = sample(ExactScore(two_modes(), sde), (6, 2), sampler=Ancestral(variance=v), **how)
    scale = float(expected.trajectory.abs().max())
    assert_close(found.trajectory, expected.trajectory, tol=1e-11, scale=scale)
    assert found.nfe == expected.nfe


def test_the_raw_output_may_be_anything():
    """A model without `bind` that predicts the score, not the noise that a plan is made for."""
    how = dict(steps=8, seed=3, dtype=torch.float64)
    exact = ExactScore(two_modes(), CHAIN)
    found = sample(WithFraction(exact, f64(-0.4)), (6, 2), sampler=LEARNED, **how).x
    assert_close(found, sample(exact, (6, 2), sampler=Ancestral(variance=0.3), **how).x, tol=1e-11)


def test_each_entry_has_its_own():
    """Coordinates of one run are those of two runs with one variance each, row by row."""
    model, (x, z) = Learned(CHAIN, f64([-0.4, 0.8])), draws(2, (50, 2))
    exact, t = ExactScore(two_modes(), CHAIN), CHAIN.time(torch.tensor([9, 8]))
    how = dict(grid=t, x_init=x.double(), noise=lambda y: z.double())
    found = sample(model, (50, 2), sampler=LEARNED, **how).x
    for i, v in enumerate((0.3, 0.9)):
        alone = sample(exact, (50, 2), sampler=Ancestral(variance=v), **how).x
        assert_close(found[:, i], alone[:, i], tol=1e-12)
    assert float((found - alone)[:, 0].abs().max()) > 1e-3


def test_a_network_says_it_after_its_prediction_also_behind_a_threshold():
    def network(x, time):
        return torch.cat([0.1 * x, torch.full_like(x, -0.4)], dim=1)

    how = dict(steps=20, seed=0, dtype=torch.float64)
    plain = ScoreModel(lambda x, time: 0.1 * x, CHAIN)
    learned = ScoreModel(network, CHAIN, variance="learned_range")
    for left, right in ((learned, plain), (Thresholded(learned), Thresholded(plain))):
        found = sample(left, (6, 2), sampler="ancestral(variance='learned')", **how)
        expected = sample(right, (6, 2), sampler=Ancestral(variance=0.3), **how)
        assert_close(found.x, expected.x, tol=1e-12)


def test_runs_do_not_depend_on_chunks_and_end_without_noise():
    model = Learned(VPSDE(), 0.3)
    how = dict(sampler=PredictorCorrector(predictor=LEARNED), steps=4, seed=1)
    whole = sample(model, (10, 2), dtype=torch.float64, **how).x
    assert_close(sample(model, (10, 2), chunk=3, dtype=torch.float64, **how).x, whole, tol=1e-12)
    last = DDPM.linear(20).time(torch.tensor([1, 0]))
    silent = sample(
        Learned(DDPM.linear(20), 0.5), (5, 2), sampler=LEARNED, grid=last, seed=0,
        noise=lambda y: pytest.fail("the last step draws"),
    )  # fmt: skip
    assert bool(silent.x.isfinite().all())


def test_who_learns_none_is_refused():
    for model in (ExactScore(two_modes(), VESDE()), ScoreModel(lambda x, time: x, CHAIN)):
        with pytest.raises(ConfigError, match="needs a model that returns a fraction"):
            sample(model, (3, 2), sampler=LEARNED, steps=3)
    with pytest.raises(ConfigError, match="did you mean 'learned'"):
        Ancestral(variance="learnt")


def test_the_kit_says_why_it_does_not_ask():
    report = check_sampler(LEARNED)
    assert not report.ok  # nothing was asked
    assert all("must learn variances" in result.reason for result in report)
