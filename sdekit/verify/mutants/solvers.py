"""Wrong solvers of several stages, and wrong correctors."""

from __future__ import annotations

import math
from typing import Any

from sdekit.sampling import (
    Heun,
    Langevin,
    PredictorCorrector,
    ProbabilityFlow,
)
from sdekit.sampling.plan import Mix
from sdekit.verify.mutants._make import Table, changed

_TABLE = Table("sampler")
_add = _TABLE.add
ROWS = _TABLE.rows


def _columns_with(self: Any, sde: Any, level: Any, below: Any, **columns: Any) -> Any:
    found = Langevin.corrections(self, sde, level, below)
    return {**found, **{name: change(found[name]) for name, change in columns.items()}}


# Heun and Runge-Kutta -----------------------------------------------------------------------

_add(
    "heun_second_stage_at_t",
    Heun(),
    "declared_order",
    "the second stage calls the model at the step's beginning",
    peer=24,
    coefficients=lambda self, sde, grid: {
        **Heun.coefficients(self, sde, grid),
        "rest": Mix(grid[:-1], eps=Heun.coefficients(self, sde, grid)["rest"].eps),
    },
)
_add(
    "heun_stages_not_halved",
    Heun(),
    "limit_law",
    "both stages count in full",
    coefficients=changed(
        Heun, half=lambda m: {"eps": 2 * m.eps}, rest=lambda m: {"eps": 2 * m.eps}
    ),
)
_add(
    "heun_weights_off",
    Heun(),
    "declared_order",
    "stages of weight 0.49 and 0.51",
    coefficients=changed(
        Heun, half=lambda m: {"eps": 0.98 * m.eps}, rest=lambda m: {"eps": 1.02 * m.eps}
    ),
)
_add(
    "heun_is_euler",
    Heun(),
    "declared_order declared_calls",
    "the correction is skipped",
    step=lambda self, x, c, model, state, noise: (model(x, c.high).mix(c.euler), state),
)
_add(
    "heun_churn_without_root",
    Heun(churn=5.0),
    "limit_law",
    "the churned noise is gamma, not sqrt(gamma (2 + gamma)), of the level",
    coefficients=changed(Heun, fresh=lambda fresh: 0.2 * fresh),
)
_add(
    "flow_rk4_weights",
    ProbabilityFlow(solver="rk4"),
    "declared_order",
    "the weights of RK4 are 1/4 each",
    coefficients=changed(ProbabilityFlow, b=lambda b: b.sum(1, keepdim=True).expand_as(b) / 4),
)
_add(
    "flow_midpoint_at_the_start",
    ProbabilityFlow(solver="midpoint"),
    "declared_order",
    "the inner stage takes no step",
    coefficients=changed(ProbabilityFlow, a1=lambda a: 0 * a),
)
_add(
    "flow_without_half",
    ProbabilityFlow(solver="heun"),
    "limit_law",
    "g^2, not g^2 / 2, before the score of the flow",
    coefficients=changed(
        ProbabilityFlow, k0=lambda m: {"score": 2 * m.score}, k1=lambda m: {"score": 2 * m.score}
    ),
)

# correctors ---------------------------------------------------------------------------------

_add(
    "langevin_noise_without_root",
    Langevin(),
    "corrector_keeps_the_law",
    "2 h, not sqrt(2 h), of noise",
    peer=3,
    corrections=lambda self, sde, level, below: _columns_with(
        self, sde, level, below, std=lambda std: std**2
    ),
)
_add(
    "langevin_noise_without_two",
    Langevin(),
    "corrector_keeps_the_law",
    "sqrt(h), not sqrt(2 h), of noise",
    corrections=lambda self, sde, level, below: _columns_with(
        self, sde, level, below, std=lambda std: std / math.sqrt(2)
    ),
)
_add(
    "langevin_noise_one_percent",
    Langevin(),
    "corrector_keeps_the_law",
    "the noise is 1 % too large",
    corrections=lambda self, sde, level, below: _columns_with(
        self, sde, level, below, std=lambda std: 1.01 * std
    ),
)
_add(
    "langevin_step_halved",
    Langevin(),
    "published_step",
    "h = (snr sigma)^2: at rest all the same, but half as fast",
    corrections=lambda self, sde, level, below: Langevin.corrections(
        Langevin(snr=self.snr / math.sqrt(2)), sde, level, below
    ),
)
_add(
    "langevin_batch_norms",
    Langevin(rule="sample_norm"),
    "batches_do_not_mix",
    "norms are averaged over the batch",
    peer=9,
    _moved=lambda self, x, c, model, noise: Langevin._moved(
        Langevin(rule="batch_norm", snr=self.snr), x, c, model, noise
    ),
)
_add(
    "langevin_levels_of_vp",
    Langevin(),
    "corrector_keeps_the_law",
    "on other SDEs the step is VP's, with alpha for alpha_bar",
    peer=8,
    corrections=lambda self, sde, level, below: _columns_with(
        self, sde, level, below, std=lambda std: std * (1.5 - 0.5 * sde.alpha(level))
    ),
)
_add(
    "pc_corrects_after_the_move",
    PredictorCorrector(first="predictor", corrector="langevin"),
    "corrector_at_its_level",
    "the corrector works at the old time after the sample has moved",
    peer=18,
    coefficients=lambda self, sde, grid: {
        **PredictorCorrector.coefficients(self, sde, grid),
        "correct": PredictorCorrector(
            predictor=self.predictor, corrector=self.corrector
        ).coefficients(sde, grid)["correct"],
    },
)
