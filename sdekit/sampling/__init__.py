"""From noise to samples: grids, noise, the one loop, and a file for every family of samplers."""

from sdekit.sampling.adams import DEIS, IPNDM, LMS, GradientEstimation
from sdekit.sampling.adaptive import AdaptiveSDE
from sdekit.sampling.ancestral import Ancestral
from sdekit.sampling.base import Corrector, CountedModel, Frame, OneKick, Sampler, kick
from sdekit.sampling.brownian import Brownian
from sdekit.sampling.composed import Churned, Renoised, Restart
from sdekit.sampling.ddim import DDIM
from sdekit.sampling.dpm import DPMSolver, DPMSolverPP, DPMSolverPP3M, SDEDPMSolverPP
from sdekit.sampling.er_sde import ERSDE
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
from sdekit.sampling.inpainting import inpaint
from sdekit.sampling.langevin import AnnealedLangevin, Langevin
from sdekit.sampling.mala import MALA
from sdekit.sampling.noise import Antithetic
from sdekit.sampling.plan import Mix, Plan, plan_for
from sdekit.sampling.predictor_corrector import PredictorCorrector
from sdekit.sampling.probability_flow import ProbabilityFlow
from sdekit.sampling.projected import Projected
from sdekit.sampling.result import SampleResult
from sdekit.sampling.run import iterate, sample
from sdekit.sampling.runge_kutta import RK4, Midpoint
from sdekit.sampling.unipc import SASolver, UniPC

__all__ = [
    "DDIM",
    "DEIS",
    "ERSDE",
    "IPNDM",
    "LMS",
    "MALA",
    "RK4",
    "AdaptiveSDE",
    "Ancestral",
    "AnnealedLangevin",
    "Antithetic",
    "Brownian",
    "Churned",
    "Corrector",
    "CountedModel",
    "DDPMLeading",
    "DDPMLinspace",
    "DDPMTrailing",
    "DPMSolver",
    "DPMSolverPP",
    "DPMSolverPP3M",
    "EulerMaruyama",
    "ExponentialEuler",
    "Frame",
    "GradientEstimation",
    "Grid",
    "Heun",
    "Karras",
    "Langevin",
    "LogSNR",
    "Midpoint",
    "Mix",
    "OneKick",
    "Plan",
    "PredictorCorrector",
    "ProbabilityFlow",
    "Projected",
    "Quadratic",
    "Renoised",
    "Restart",
    "ReverseDiffusion",
    "SASolver",
    "SDEDPMSolverPP",
    "SampleResult",
    "Sampler",
    "UniPC",
    "Uniform",
    "inpaint",
    "iterate",
    "kick",
    "plan_for",
    "sample",
]
