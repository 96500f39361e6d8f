"""Data laws: Gaussians, mixtures and data sets with exact scores at every noise level; figures."""

from sdekit.targets.base import ExactTarget, Target
from sdekit.targets.digits import Digits
from sdekit.targets.empirical import Empirical
from sdekit.targets.gaussian import Gaussian
from sdekit.targets.mixture import GaussianMixture
from sdekit.targets.named import PowerLaw, Ring, Tutorial
from sdekit.targets.shapes import Checkerboard, Moons, Pinwheel, Rings, SwissRoll

__all__ = [
    "Checkerboard",
    "Digits",
    "Empirical",
    "ExactTarget",
    "Gaussian",
    "GaussianMixture",
    "Moons",
    "Pinwheel",
    "PowerLaw",
    "Ring",
    "Rings",
    "SwissRoll",
    "Target",
    "Tutorial",
]
