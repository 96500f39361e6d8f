"""Training losses: score matching of three kinds, its weightings and its laws of the time."""

from sdekit.objectives.base import Objective
from sdekit.objectives.dsm import DSM
from sdekit.objectives.fisher import FisherDivergence, FisherResult
from sdekit.objectives.implicit import ImplicitScoreMatching
from sdekit.objectives.sliced import SlicedScoreMatching
from sdekit.objectives.times import (
    Importance,
    LogitNormal,
    LogNormal,
    LogSNR,
    Stratified,
    TimeLaw,
    Uniform,
)
from sdekit.objectives.vlb import VLB
from sdekit.objectives.weightings import (
    P2,
    EDMWeighting,
    Likelihood,
    MinSNR,
    Sigma2,
    Simple,
    SoftMinSNR,
    UncertaintyWeighting,
    Weighting,
)

__all__ = [
    "DSM",
    "P2",
    "VLB",
    "EDMWeighting",
    "FisherDivergence",
    "FisherResult",
    "ImplicitScoreMatching",
    "Importance",
    "Likelihood",
    "LogNormal",
    "LogSNR",
    "LogitNormal",
    "MinSNR",
    "Objective",
    "Sigma2",
    "Simple",
    "SlicedScoreMatching",
    "SoftMinSNR",
    "Stratified",
    "TimeLaw",
    "UncertaintyWeighting",
    "Uniform",
    "Weighting",
]
