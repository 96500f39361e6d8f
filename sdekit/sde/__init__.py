"""Forward processes: SDEs from data (t = 0) to noise (t = t_max), continuous and discrete."""

from sdekit.sde.base import LinearSDE, Posterior
from sdekit.sde.ddpm import DDPM
from sdekit.sde.flow import FlowSDE
from sdekit.sde.process import SDE
from sdekit.sde.reverse import ReverseSDE
from sdekit.sde.ve import EDM, VESDE
from sdekit.sde.vp import VPSDE, CosineSDE, SubVPSDE, VariancePreserving

__all__ = [
    "DDPM",
    "EDM",
    "SDE",
    "VESDE",
    "VPSDE",
    "CosineSDE",
    "FlowSDE",
    "LinearSDE",
    "Posterior",
    "ReverseSDE",
    "SubVPSDE",
    "VariancePreserving",
]
