"""Claim: the losses of yang-song/score_sde_pytorch, with its stored times and noise, at 1e-9.

Their `std` weighting is ours of name sigma2, `halfsum` half the sum over the elements. Their SMLD
loss counts noise levels from the largest down and tells the network that number; here that is one
callable as the model's time input. Our convention for sigma below the first level plays no role.
"""

import pytest
import torch
from support import assert_close, reference_cases

from sdekit import DSM, ExactScore, GaussianMixture, ScoreModel
from sdekit.sde import VESDE, VPSDE, SubVPSDE

AGREE = 1e-9
CLASSES = {"VP": VPSDE, "sub-VP": SubVPSDE, "VE": VESDE}
WEIGHTINGS = {"std": ["sigma2", "simple"], "likelihood": ["likelihood"]}

continuous = reference_cases("score_sde_losses", lambda case: "target" in case)
discrete = reference_cases("score_sde_losses", lambda case: "net" in case)


def reduced(losses, reduction):
    return losses.mean() * (0.5 if reduction == "halfsum" else 1.0)


@pytest.mark.parametrize("reduction", ["mean", "halfsum"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("case", continuous)
def test_continuous(reference, case, weighting, reduction):
    data, laws = reference.load("score_sde_losses"), reference.load("targets")
    fields = ("beta_min", "beta_max", "sigma_min", "sigma_max")
    sde = CLASSES[case["sde"]](**{name: case[name] for name in fields if name in case})
    w, m, s = (laws.array(case["target"], key) for key in "wms")
    model = ExactScore(GaussianMixture(w, m, torch.diag_embed(s**2)), sde)
    x0, noise = (data.array(case, key).flatten(1) for key in ("x0", "z"))
    t = data.array(case, "u") * (1 - case["eps"]) + case["eps"]
    assert_close(t, data.array(case, "t"), tol=1e-15)
    for name in WEIGHTINGS[weighting]:
        objective = DSM(weighting=name, reduction="mean" if reduction == "mean" else "sum")
        losses = objective.loss_at(model, x0, t, noise)
        expected = data.array(case, f"loss_{reduction}_{weighting}")
        assert_close(reduced(losses, reduction), expected, tol=AGREE)


class Affine(torch.nn.Module):
    """The reference's network, a x (1 + label / N) + b."""

    def __init__(self, a, b, n):
        super().__init__()
        self.a, self.b, self.n = torch.nn.Parameter(a), torch.nn.Parameter(b), n

    def forward(self, x, label):
        return self.a * x * (1 + label / self.n).reshape(-1, 1, 1, 1) + self.b


@pytest.mark.parametrize("reduction", ["mean", "halfsum"])
@pytest.mark.parametrize("case", discrete)
def test_discrete(reference, case, reduction):
    data, n = reference.load("score_sde_losses"), case["N"]
    network = Affine(data.array(case, "a"), data.array(case, "b"), n)
    labels = data.array(case, "labels")
    if case["sde"] == "VP":
        chain = VPSDE(beta_min=case["p0"], beta_max=case["p1"]).discretize(n)
        model, t = ScoreModel(network, chain, time_input="index"), (labels + 1) / n
    else:
        model = ScoreModel(
            network,
            VESDE(sigma_min=case["p0"], sigma_max=case["p1"]),
            parametrization="score",
            time_input=lambda sde, t: ((1 - t) * (n - 1)).round(),
        )
        t = 1 - labels / (n - 1)
    objective = DSM(reduction="mean" if reduction == "mean" else "sum")
    losses = objective.loss_at(model, data.array(case, "x0"), t, data.array(case, "z"))
    expected = data.array(case, f"loss_{reduction}")
    assert_close(reduced(losses, reduction).detach(), expected, tol=AGREE)
