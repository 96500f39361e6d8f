"""sdekit: score-based generative modelling with SDEs, every formula checked.

The public names live in the rooms of the house (`sdekit.sde`, `sdekit.targets`, `sdekit.model`,
`sdekit.sampling`, ...); the ones used daily are here. They are resolved when first used, so that
`import sdekit` and `sdekit --help` import no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> the module that defines it
_HOME = {
    "catalogue": "sdekit._catalogue",
    "make": "sdekit._catalogue",
    "register": "sdekit._catalogue",
    **dict.fromkeys(
        ["CosineSDE", "DDPM", "EDM", "FlowSDE", "LinearSDE", "SDE", "SubVPSDE", "VESDE", "VPSDE"],
        "sdekit.sde",
    ),
    **dict.fromkeys(["Empirical", "Gaussian", "GaussianMixture"], "sdekit.targets"),
    **dict.fromkeys(["ExactScore", "ScoreModel"], "sdekit.model"),
    **dict.fromkeys(
        ["Ancestral", "DDIM", "EulerMaruyama", "Sampler", "inpaint", "iterate", "sample"],
        "sdekit.sampling",
    ),
    **dict.fromkeys(
        ["DSM", "VLB", "ImplicitScoreMatching", "SlicedScoreMatching"], "sdekit.objectives"
    ),
    **dict.fromkeys(["bits_per_dim", "decode", "elbo", "encode", "log_prob"], "sdekit.likelihood"),
    **dict.fromkeys(["Trainer", "load_checkpoint", "save_checkpoint"], "sdekit.training"),
}

__all__ = ["__version__", *sorted(_HOME)]  # literal names, sorted once

if TYPE_CHECKING:
    from sdekit._catalogue import catalogue, make, register
    from sdekit.likelihood import bits_per_dim, decode, elbo, encode, log_prob
    from sdekit.model import ExactScore, ScoreModel
    from sdekit.objectives import DSM, VLB, ImplicitScoreMatching, SlicedScoreMatching
    from sdekit.sampling import (
        DDIM,
        Ancestral,
        EulerMaruyama,
        Sampler,
        inpaint,
        iterate,
        sample,
    )
    from sdekit.sde import (
        DDPM,
        EDM,
        SDE,
        VESDE,
        VPSDE,
        CosineSDE,
        FlowSDE,
        LinearSDE,
        SubVPSDE,
    )
    from sdekit.targets import Empirical, Gaussian, GaussianMixture
    from sdekit.training import Trainer, load_checkpoint, save_checkpoint


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'sdekit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, resolved or not."""
    return sorted(__all__)
