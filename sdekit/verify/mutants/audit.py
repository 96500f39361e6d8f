"""Wrong networks, as training or their declaration may leave them: all audited as they would be.

The right one is the exact noise of a mixture, as a plain network; what is wrong is off by a few
per cent, or in some times only. `caught_by` names checks that need no true score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdekit.model import ExactScore, ScoreModel
from sdekit.sde import VPSDE
from sdekit.targets import Empirical, GaussianMixture
from sdekit.verify.audit.subject import Audited
from sdekit.verify.mutants._make import Table

_TABLE = Table("model")
ROWS = _TABLE.rows

SDE = VPSDE()
LAW = GaussianMixture([0.3, 0.7], [[2.0, 1.0], [-1.5, 0.0]], [0.3, 0.8])
EXACT = ExactScore(LAW, SDE)
DATA = LAW.sample(8192, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

Network = Callable[[Tensor, Tensor], Tensor]


def noise(x: Tensor, t: Tensor) -> Tensor:
    """The exact noise, as a network is called: t [(batch,)]."""
    return EXACT(x, float(t.reshape(-1)[0])).eps


def audited(network: Network, parametrization: str = "eps", **how: Any) -> Audited:
    """A network declared as this, with held-out data."""
    model = ScoreModel(network, SDE, parametrization=parametrization)
    return Audited(model, DATA, draws=len(DATA), **how)


RIGHT = audited(noise)


def _add(name: str, wrong: Network | Audited, caught_by: str, fault: str) -> None:
    made = wrong if isinstance(wrong, Audited) else audited(wrong)
    _TABLE.add(name, RIGHT, caught_by, fault, wrong=made)


def _of(change: Callable[[Tensor, float, Tensor], Tensor]) -> Network:
    """The right network with its output changed: change(x, t, eps)."""
    return lambda x, t: change(x, float(t.reshape(-1)[0]), noise(x, t))


_add(
    "network_declared_v",
    audited(noise, "v"),
    "declared_reading gaussian_floor",
    "its output is eps, and it is declared v",
)
_add(
    "network_declared_score",
    audited(lambda x, t: -noise(x, t) / SDE.sigma(t)[:, None].to(x), "eps"),
    "declared_reading gaussian_floor",
    "its output is the score, and it is declared eps",
)
_add(
    "network_sign",
    _of(lambda x, t, eps: -eps),
    "declared_reading stein_identity noise_calibration gaussian_floor",
    "the sign is turned",
)
_add(
    "network_time_backwards",
    lambda x, t: noise(x, (1 - t).clamp_min(SDE.t_min)),
    "declared_reading stein_identity",
    "it was trained on t_max - t",
)
_add(
    "network_time_a_tenth_off",
    lambda x, t: noise(x, (1.1 * t).clamp_max(1.0)),
    "tweedie_martingale",
    "it is told 1.1 t: a grid of other ends",
)
_add(
    "network_five_percent",
    _of(lambda x, t, eps: 1.05 * eps),
    "noise_calibration",
    "the score is 5 % too large",
)
_add(
    "network_shrunk",
    _of(lambda x, t, eps: 0.93 * eps),
    "noise_calibration",
    "the noise is 7 % too small, as of a network that was stopped early",
)
_add(
    "network_rotated",
    _of(lambda x, t, eps: eps + 0.1 * torch.stack([-x[:, 1], x[:, 0]], 1)),
    "jacobian_symmetry",
    "a rotation is added: no gradient field",
)
_add(
    "network_bad_stretch",
    _of(lambda x, t, eps: eps * (0.85 if 0.4 < t < 0.6 else 1.0)),
    "noise_calibration",
    "wrong for t in (0.4, 0.6) only: a weighting that left them out",
)
_add(
    "network_bias",
    _of(lambda x, t, eps: eps + 0.15),
    "stein_identity",
    "a constant is added: a last layer's bias",
)
_add(
    "network_without_time",
    lambda x, t: noise(x, torch.full_like(t, 0.3)),
    "stein_identity noise_calibration score_fokker_planck",
    "it does not look at the time",
)
_add(
    "network_flickers",
    _of(lambda x, t, eps: (1 + 0.03 * torch.sin(torch.tensor(150.0 * t))) * eps),
    "score_fokker_planck",
    "3 % more and less noise as the time goes: Fourier features of too high frequencies",
)
_add(
    "network_memory",
    (lambda model: lambda x, t: model(x, float(t.reshape(-1)[0])).eps)(
        ExactScore(Empirical(DATA[:20] + 0.05), SDE)
    ),
    "gaussian_floor",
    "it knows twenty samples by heart",
)
_add(
    "network_rippled",
    _of(lambda x, t, eps: eps + 0.2 * torch.sin(40 * x)),
    "gaussian_floor score_fokker_planck",
    "a ripple of 0.2 that averages out, where the network has not learnt",
)
_add(
    "network_blurred",
    (lambda model: lambda x, t: model(x, float(t.reshape(-1)[0])).eps)(
        ExactScore(LAW.perturbed(1.0, 0.5), SDE)
    ),
    "noise_calibration",
    "the score of data with noise of variance 0.5: over-smoothed",
)
_add(
    "network_two_halves",
    (lambda model: lambda x, t: noise(x, t) if t[0] < 0.3 else model(x, float(t[0])).eps)(
        ExactScore(GaussianMixture([0.3, 0.7], [[2.6, 1.0], [-0.9, 0.0]], [0.3, 0.8]), SDE)
    ),
    "tweedie_martingale",
    "one expert below t = 0.3, another above, trained on data shifted by 0.6",
)
