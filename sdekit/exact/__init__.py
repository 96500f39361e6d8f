"""The law of what a sampler returns, without Monte Carlo, and where its error comes from."""

from sdekit.exact.affine import AffineMap, affine_map, output_law
from sdekit.exact.attribution import ErrorBudget, attribute_error
from sdekit.exact.densities import mapped_law, output_law_1d
from sdekit.exact.diagnosis import Diagnosis, diagnose
from sdekit.exact.distances import (
    Comparison,
    Worst,
    bures_wasserstein,
    compare,
    kl_divergence,
    total_variation,
)
from sdekit.exact.foreign import probe_callable
from sdekit.exact.laws import Effect
from sdekit.exact.line import Law1D
from sdekit.exact.mends import Mend
from sdekit.exact.optimal import optimal_grid
from sdekit.exact.order import Order, Slope, convergence_order, fit_slope

__all__ = [
    "AffineMap",
    "Comparison",
    "Diagnosis",
    "Effect",
    "ErrorBudget",
    "Law1D",
    "Mend",
    "Order",
    "Slope",
    "Worst",
    "affine_map",
    "attribute_error",
    "bures_wasserstein",
    "compare",
    "convergence_order",
    "diagnose",
    "fit_slope",
    "kl_divergence",
    "mapped_law",
    "optimal_grid",
    "output_law",
    "output_law_1d",
    "probe_callable",
    "total_variation",
]
