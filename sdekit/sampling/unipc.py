r"""UniPC and SA-Solver: multistep predictors whose corrector costs no further call.

Both solve eq. (3) or (4) of `sdekit.sampling.integrals`. A row from t to s first corrects the row
that led to t, now that the prediction there is known: the same integral with one more node, r = 1;
then it predicts x_s. UniPC is for the probability flow; SA-Solver for the SDE of stochasticity
tau, its corrector repeating the noise that the predictor drew. With two nodes, the papers put in
place of the exact mu_1

    c / 2  (UniPC's bh1, SA-Solver),    mu_0 / 2  (UniPC's bh2),                               (1)

which agree to leading order; "exact" keeps the integral. (So does the predictor of the UniPC
code's "vary_coeff"; its corrector leaves terms out, and measures order 1.)

References: Zhao et al., arXiv:2302.04867, eqs. 3 and 8, algorithms 1 to 4; Xue et al.,
arXiv:2305.14267, eqs. 14 and 17, algorithm 1.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, flag, integer, number
from sdekit.sampling.integrals import Levels, Rule, Semilinear, ramp, with_pair
from sdekit.sampling.multistep import Corrected, past
from sdekit.sampling.plan import Array, Mix
from sdekit.sde.base import LinearSDE

__all__ = ["SASolver", "UniPC"]

_FEW = 15  # rows below which orders fall at the end, unless a final order is given


@dataclass(frozen=True, kw_only=True)
class _PredictCorrect(Corrected):
    """The columns of both, from the fields that they share."""

    final_order: int | None = None
    prediction: str = "x0"
    quiet_fields: ClassVar[tuple[str, ...]] = (
        "final_order", "prediction", "corrector", "tau_min", "tau_max",
    )  # fmt: skip

    def __post_init__(self) -> None:
        choice("prediction", self.prediction, ("x0", "eps"))
        if self.final_order is not None:
            integer("final_order", self.final_order, ge=1, le=4)

    @property
    def exact_on(self) -> frozenset[str]:
        """A point, whose x_0 is the same everywhere; and its eps along the flow, not off it."""
        same = self.prediction == "x0" or "noise" not in self.needs
        return frozenset({"point"} if same else ())

    @abstractmethod
    def _orders(self, rows: int) -> tuple[Array, Array]:
        """The numbers of nodes of predictor and corrector [(K,) each]; 0: no corrector."""

    @abstractmethod
    def _pair(self, mu: Array, c: Array) -> Array:
        """What stands for mu_1 where there are two nodes [(K,)]."""

    @abstractmethod
    def _eta(self, at: Levels) -> float | Array:
        """The stochasticity of the rows from these levels [() or (K,)]."""

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """Both integrals, with eq. (1) for two nodes."""
        levels = Levels(sde, grid)
        at, to = levels[:-1], levels[1:]
        predict, correct = self._orders(len(at.t))
        solve = Semilinear(self.prediction, self._eta(at))
        h = np.where(to.sigma > 0, to.l - at.l, 1.0)[:, None]
        most = int(max(predict.max(), correct.max() - 1))
        behind = (past(at.l, most) - at.l[:, None]) / h
        ahead = np.concatenate([np.ones_like(h), behind], axis=1)
        # after a landing nothing is corrected: there is no call
        row, back = solve.rows(
            at, to,
            (behind, predict, self._rule(predict)),
            (ahead, np.maximum(correct, 1), self._rule(correct)),
        )  # fmt: skip
        before = [0, *range(len(h) - 1)]  # row k corrects the one that led to it
        return {
            "what": Mix(at.t, **{self.prediction: 1.0}),
            **row,
            "correct": {name: column[before] for name, column in back.items()},
            "corrects": (correct > 0).astype(float)[before],
        }

    def _rule(self, order: Array) -> Rule:
        return lambda mu, c: mu if mu.shape[1] < 2 else with_pair(mu, order, self._pair(mu, c))


@register("sampler", "unipc", paper="arXiv:2302.04867, algorithms 1 and 2")
@dataclass(frozen=True, kw_only=True)
class UniPC(_PredictCorrect):
    """UniPC: a predictor of order p and a corrector of order p + 1, one call a row.

    Args:
        order: p, 1 to 3.
        variant: "bh1", "bh2" or "exact", eq. (1).
        corrector: whether there is one; without, it is UniP.
        final_order: of the last row, to which the orders fall one by one: 1 in the authors' code;
            None is 1 in runs of fewer than 15 steps, and `order` in longer ones, whose order of
            convergence the last row would cap at 2.
        prediction: of "x0" (default) or "eps".

    Raises:
        ConfigError: a field out of range.

    Reference: arXiv:2302.04867, eqs. 3 and 8, algorithms 1 to 4, theorem 3.1 for the order.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (4, 2), sampler="unipc", steps=10, seed=0).nfe
        10
    """

    order: int = 2
    variant: str = "bh2"
    corrector: bool = True

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self._set(order=integer("order", self.order, ge=1, le=3))
        choice("variant", self.variant, ("bh1", "bh2", "exact"))
        flag("corrector", self.corrector)

    @property
    def weak_order(self) -> int:
        """Order + 1, the corrector's, of which 3 is measured; without it 2, by the first row."""
        full = min(self.order + 1, 3) if self.corrector else min(self.order, 2)
        return full if self.final_order in (None, self.order) else min(self.final_order + 1, full)

    @property
    def memory(self) -> int:
        """The predictions of a row and of those before it."""
        return self.order

    def _orders(self, rows: int) -> tuple[Array, Array]:
        order = ramp(rows, self.order, self.final_order, _FEW)
        return order, (order + 1) * self.corrector

    def _pair(self, mu: Array, c: Array) -> Array:
        return {"bh1": 0.5 * c, "bh2": 0.5 * mu[:, 0], "exact": mu[:, 1]}[self.variant]

    def _eta(self, at: Levels) -> float:
        return 0.0

    @classmethod
    def examples(cls) -> list[UniPC]:
        """Orders and variants, the noise form, and the predictor alone."""
        return [
            cls(),
            cls(order=3),
            cls(variant="bh1"),
            cls(prediction="eps"),
            cls(corrector=False),
        ]


@register("sampler", "sa_solver", paper="arXiv:2305.14267, algorithm 1")
@dataclass(frozen=True, kw_only=True)
class SASolver(_PredictCorrect):
    """SA-Solver: stochastic Adams steps with a corrector that keeps the predictor's noise.

    Args:
        predictor_order: the nodes of the predictor, 1 to 4.
        corrector_order: the nodes of the corrector, the new one among them, 1 to 4; 0: none.
        tau: the stochasticity, >= 0; 0 is the probability flow.
        tau_min: tau acts while sigma/alpha is at least this ...
        tau_max: ... and at most this; None: no limit. (0.05 and 1 on CIFAR-10 in the paper.)
        final_order: of the predictor's last row, to which orders fall one by one, 1 by default:
            c/2 for mu_1 is far off in a long last row. None is 1 in runs of fewer than 15 steps,
            else `predictor_order`.
        prediction: of "x0" (default, as the paper advises) or "eps".

    Raises:
        ConfigError: a field out of range.

    Reference: arXiv:2305.14267, eqs. 14 and 17, algorithm 1, appendix E for two nodes.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (4, 2), sampler="sa_solver", steps=20, seed=0).nfe
        20
    """

    final_order: int | None = 1
    predictor_order: int = 2
    corrector_order: int = 2
    tau: float = 1.0
    tau_min: float = 0.0
    tau_max: float | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self._set(
            predictor_order=integer("predictor_order", self.predictor_order, ge=1, le=4),
            corrector_order=integer("corrector_order", self.corrector_order, ge=0, le=4),
            tau=number("tau", self.tau, ge=0),
            tau_min=number("tau_min", self.tau_min, ge=0),
        )
        if self.tau_max is not None:
            self._set(tau_max=number("tau_max", self.tau_max, ge=self.tau_min))

    @property
    def order(self) -> int:
        """Of the nodes of what acts last, up to 2: more do not help along a rough path."""
        return min(self.corrector_order or self.predictor_order, 2)

    @property
    def memory(self) -> int:
        """The predictions of a row and of those before it."""
        return max(self.predictor_order, self.corrector_order, 1)

    @property
    def needs(self) -> frozenset[str]:
        """Noise, unless tau = 0."""
        return frozenset({"linear", "noise"} if self.tau else {"linear"})

    def _orders(self, rows: int) -> tuple[Array, Array]:
        correct = np.minimum(self.corrector_order, np.arange(rows) + 2)
        return ramp(rows, self.predictor_order, self.final_order, _FEW), correct

    def _pair(self, mu: Array, c: Array) -> Array:
        return 0.5 * c

    def _eta(self, at: Levels) -> Array:
        level = at.sigma / at.alpha
        highest = np.inf if self.tau_max is None else self.tau_max
        return self.tau * ((level >= self.tau_min) & (level <= highest))

    @classmethod
    def examples(cls) -> list[SASolver]:
        """The default, more nodes, the flow, and a range of levels."""
        return [
            cls(), cls(predictor_order=3, corrector_order=4), cls(tau=0.0),
            cls(tau_min=0.05, tau_max=5.0), cls(corrector_order=0),
        ]  # fmt: skip
