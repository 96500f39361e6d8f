"""Distances between sets of samples, each with its standard error, its floor and its p-value."""

from sdekit.metrics.base import Estimate, LawMetric, Metric, SampleMetric
from sdekit.metrics.classifier import ClassifierTwoSample, classifier_two_sample
from sdekit.metrics.divergence import KL, kl_divergence
from sdekit.metrics.exact import (
    ExactDiscretisation,
    ExactKL,
    ExactModeWeights,
    ExactTotalVariation,
    ExactWasserstein,
)
from sdekit.metrics.frechet import Frechet, frechet_distance
from sdekit.metrics.kernels import MMD, EnergyDistance, energy_distance, mmd
from sdekit.metrics.manifold import Precision, Recall, precision, recall
from sdekit.metrics.modes import ModeWeights, mode_weights
from sdekit.metrics.transport import (
    SlicedWasserstein,
    Wasserstein,
    sliced_wasserstein,
    wasserstein,
)

__all__ = [
    "KL",
    "MMD",
    "ClassifierTwoSample",
    "EnergyDistance",
    "Estimate",
    "ExactDiscretisation",
    "ExactKL",
    "ExactModeWeights",
    "ExactTotalVariation",
    "ExactWasserstein",
    "Frechet",
    "LawMetric",
    "Metric",
    "ModeWeights",
    "Precision",
    "Recall",
    "SampleMetric",
    "SlicedWasserstein",
    "Wasserstein",
    "classifier_two_sample",
    "energy_distance",
    "frechet_distance",
    "kl_divergence",
    "mmd",
    "mode_weights",
    "precision",
    "recall",
    "sliced_wasserstein",
    "wasserstein",
]
