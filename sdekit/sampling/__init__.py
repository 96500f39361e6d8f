"""From noise to samples: grids, noise, the one loop, and a file for every family of samplers."""

from sdekit.sampling.ancestral import Ancestral
from sdekit.sampling.base import Corrector, CountedModel, Frame, OneKick, Sampler, kick
from sdekit.sampling.brownian import Brownian
from sdekit.sampling.ddim import DDIM
from sdekit.sampling.euler import EulerMaruyama, ReverseDiffusion
from sdekit.sampling.exponential import ExponentialEuler
from sdekit.sampling.grid import (
    DDPMLeading,
    DDPMLinspace,
    DDPMTrailing,
    Grid,
    Karras,
    LogSNR,
    Quadratic,
    Uniform,
)
from sdekit.sampling.heun import Heun
from sdekit.sampling.langevin import AnnealedLangevin, Langevin
from sdekit.sampling.plan import Mix, Plan, plan_for
from sdekit.sampling.predictor_corrector import PredictorCorrector
from sdekit.sampling.probability_flow import ProbabilityFlow
from sdekit.sampling.result import SampleResult
from sdekit.sampling.run import iterate, sample

__all__ = [
    "DDIM",
    "Ancestral",
    "AnnealedLangevin",
    "Brownian",
    "Corrector",
    "CountedModel",
    "DDPMLeading",
    "DDPMLinspace",
    "DDPMTrailing",
    "EulerMaruyama",
    "ExponentialEuler",
    "Frame",
    "Grid",
    "Heun",
    "Karras",
    "Langevin",
    "LogSNR",
    "Mix",
    "OneKick",
    "Plan",
    "PredictorCorrector",
    "ProbabilityFlow",
    "Quadratic",
    "ReverseDiffusion",
    "SampleResult",
    "Sampler",
    "Uniform",
    "iterate",
    "kick",
    "plan_for",
    "sample",
]
