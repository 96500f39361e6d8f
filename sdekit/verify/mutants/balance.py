"""Wrong acceptance of proposals: correctors that leave another law than p_t at rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdekit.sampling import MALA
from sdekit.sampling.mala import log_acceptance
from sdekit.verify.mutants._make import Table

_TABLE = Table("sampler")
_add = _TABLE.add
ROWS = _TABLE.rows


def _acceptance(change: Any) -> Any:
    """`acceptance` as a method, from a function of its arguments."""
    return staticmethod(change)


def _way_back_with_the_score_at_x(
    x: Tensor, y: Tensor, score_x: Tensor, score_y: Tensor, log_ratio: Tensor, step: float
) -> Tensor:
    return log_acceptance(x, y, score_x, score_x, log_ratio, step)


_add(
    "mala_always_accepts",
    MALA(snr=0.5),
    "adjusted_corrector_is_reversible",
    "every proposal is taken: plain Langevin",
    acceptance=_acceptance(lambda x, y, a, b, ratio, step: torch.zeros_like(ratio)),
)
_add(
    "mala_without_proposals",
    MALA(snr=0.5),
    "adjusted_corrector_is_reversible",
    "the ratio of densities alone decides, as if the proposal were symmetric",
    acceptance=_acceptance(lambda x, y, a, b, ratio, step: ratio.clamp_max(0.0)),
)
_add(
    "mala_proposals_upside_down",
    MALA(snr=0.5),
    "adjusted_corrector_is_reversible",
    "q(y | x) / q(x | y) for q(x | y) / q(y | x)",
    acceptance=_acceptance(
        lambda x, y, a, b, ratio, step: (
            2 * ratio - (ratio + _proposals(x, y, a, b, step))
        ).clamp_max(0.0)
    ),
)
_add(
    "mala_one_score",
    MALA(snr=0.5),
    "adjusted_corrector_is_reversible",
    "the way back drifts along the score at x",
    acceptance=_acceptance(_way_back_with_the_score_at_x),
)
_add(
    "mala_left_end_only",
    MALA(snr=0.5),
    "adjusted_corrector_is_reversible",
    "the path's integral is the score at x times the way",
    _log_ratio=lambda self, x, y, score_x, score_y, c, model: (score_x * (y - x)).sum(1),
)


def _proposals(x: Tensor, y: Tensor, score_x: Tensor, score_y: Tensor, step: float) -> Tensor:
    """log q(x | y) - log q(y | x)."""
    out, back = y - x - step * score_x, x - y - step * score_y
    return (out.square() - back.square()).reshape(len(x), -1).sum(1) / (4 * step)
