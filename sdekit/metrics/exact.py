r"""Distances of a sampler's law from the data's, with no sample drawn: read from an error budget.

`sdekit.exact.attribute_error(..., method="exact")` computes the law that a sampler returns. These
are its numbers as estimates whose standard error is 0 and whose floor is 0. Where the law came
from a quadrature, what that may be off by is in `detail`.

    exact_wasserstein        W2 of the output from the data
    exact_kl                 KL of the output from the data
    exact_total_variation    1/2 int |p - q|
    exact_mode_weights       1/2 sum_k |w_k - truth_k|                                          (1)
    exact_discretisation     W2 between p_{t_min} and what finitely many steps make of a true start

Reference: Chen et al., arXiv:2209.11215, theorem 2, for the parts of the total.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sdekit._catalogue import register
from sdekit._check import shown
from sdekit.errors import DataError, DtypeError
from sdekit.exact import ErrorBudget
from sdekit.metrics.base import Estimate, LawMetric

__all__ = [
    "ExactDiscretisation", "ExactKL", "ExactModeWeights", "ExactTotalVariation",
    "ExactWasserstein",
]  # fmt: skip


def _checked(budget: object) -> ErrorBudget:
    if not isinstance(budget, ErrorBudget):
        raise DtypeError(f"budget must be an ErrorBudget, got {shown(budget)}")
    if not budget.exact:
        raise DataError(
            'this budget comes from samples; make it with attribute_error(..., method="exact"), '
            "or compare samples by a SampleMetric"
        )
    return budget


def _exact(value: float, budget: ErrorBudget, hi: float = float("inf")) -> Estimate:
    detail = {"quadrature_error": budget.error}
    return Estimate(value, stderr=0.0, floor=0.0, exact=True, detail=detail, lo=0.0, hi=hi)


def _there(name: str, value: float | None) -> float:
    if value is None:
        raise DataError(
            f"the budget has no {name}: these laws have no closed form of it; "
            "exact_wasserstein is always there"
        )
    return value


@register("metric", "exact_wasserstein", paper="arXiv:1712.01504, theorem 1")
@dataclass(frozen=True, kw_only=True)
class ExactWasserstein(LawMetric):
    """The exact 2-Wasserstein distance of a sampler's law from the data's.

    Example:
        >>> from sdekit import DDPM, ExactScore, make
        >>> from sdekit.exact import attribute_error
        >>> model = ExactScore(make("target", "tutorial"), DDPM.linear(100))
        >>> budget = attribute_error("ancestral", model, method="exact")
        >>> found = ExactWasserstein().of(budget)
        >>> found == budget.total.w2, found.stderr, found.exact
        (True, 0.0, True)
    """

    title: ClassVar[str] = "exact W2"
    unit: ClassVar[str] = "units of the data"

    def of(self, budget: ErrorBudget) -> Estimate:
        """W2 of the total; see `LawMetric.of`."""
        return _exact(_checked(budget).total.w2, budget)


@register("metric", "exact_kl", paper="Cover and Thomas, Elements of Information Theory, 8.5")
@dataclass(frozen=True, kw_only=True)
class ExactKL(LawMetric):
    """The exact Kullback-Leibler divergence of a sampler's law from the data's.

    It is infinite where the sampler puts mass where the data have none.
    """

    title: ClassVar[str] = "exact KL"
    unit: ClassVar[str] = "nats"

    def of(self, budget: ErrorBudget) -> Estimate:
        """KL of the total; see `LawMetric.of`."""
        return _exact(_there("KL", _checked(budget).total.kl), budget)


@register("metric", "exact_total_variation", paper="arXiv:1810.08693, section 2")
@dataclass(frozen=True, kw_only=True)
class ExactTotalVariation(LawMetric):
    """The exact total variation distance of a sampler's law from the data's."""

    title: ClassVar[str] = "exact total variation"
    unit: ClassVar[str] = "probability"

    def of(self, budget: ErrorBudget) -> Estimate:
        """The total variation of the total; see `LawMetric.of`."""
        return _exact(_there("total variation", _checked(budget).total.tv), budget, 1.0)


@register("metric", "exact_mode_weights", paper="arXiv:1907.05600, section 3.2.2")
@dataclass(frozen=True, kw_only=True)
class ExactModeWeights(LawMetric):
    """Half the sum of |weight - truth| over the modes, without samples, eq. (1).

    `detail` has the weights that the sampler gives to the modes, and the truth.
    """

    title: ClassVar[str] = "exact error of the mode weights"
    unit: ClassVar[str] = "probability"
    needs: ClassVar[frozenset[str]] = frozenset({"law", "modes"})

    def of(self, budget: ErrorBudget) -> Estimate:
        """Eq. (1); see `LawMetric.of`."""
        found = _checked(budget)
        if found.weights is None or found.truth is None:
            raise DataError("the data of this budget have no modes; exact_wasserstein needs none")
        value = _exact(0.5 * float((found.weights - found.truth).abs().sum()), budget, 1.0)
        value.detail.update(
            weights=found.weights.tolist(), stderr=None, truth=found.truth.tolist()
        )
        return value


@register("metric", "exact_discretisation", paper="arXiv:2209.11215, theorem 2")
@dataclass(frozen=True, kw_only=True)
class ExactDiscretisation(LawMetric):
    """The exact W2 that finitely many steps alone make, from a true start and score."""

    title: ClassVar[str] = "exact W2 of the steps alone"
    unit: ClassVar[str] = "units of the data"

    def of(self, budget: ErrorBudget) -> Estimate:
        """W2 of the discretisation; see `LawMetric.of`."""
        return _exact(_checked(budget).discretisation.w2, budget)
