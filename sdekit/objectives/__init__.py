"""Training losses: denoising score matching, its weightings and its laws of the time."""

from sdekit.objectives.base import Objective
from sdekit.objectives.dsm import DSM
from sdekit.objectives.times import TIMES
from sdekit.objectives.vlb import VLB
from sdekit.objectives.weightings import Likelihood, Sigma2, Simple, Weighting

__all__ = ["DSM", "TIMES", "VLB", "Likelihood", "Objective", "Sigma2", "Simple", "Weighting"]
