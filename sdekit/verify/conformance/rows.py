"""What is measured, by name: schedulers of diffusers, samplers of azula, sdekit's beside them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from sdekit import __version__
from sdekit._check import choice
from sdekit.verify.conformance.libraries import CHAIN, azula_sampler, scheduler

__all__ = ["ROWS", "Row", "named", "version"]


@dataclass(frozen=True)
class Row:
    """One sampler with its options.

    Attributes:
        library: diffusers, azula or sdekit.
        cls: the name of its class; of a sampler of sdekit's its spelling.
        options: of the class, beside those of the chain.
        order: that it is named after.
        declared: what else `conformance.libraries` is told: calls, noisy, point, last, memory.
    """

    library: str
    cls: str
    options: Mapping[str, Any] = field(default_factory=dict)
    order: int = 1
    declared: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The class with its options, as one would write it."""
        if self.library == "sdekit":
            return self.cls
        return f"{self.cls}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"

    def load(self) -> type:
        """The class.

        Raises:
            ImportError: the library is not installed.
        """
        home = {"azula": "azula.sample"}.get(self.library, self.library)
        found: type = getattr(importlib.import_module(home), self.cls)
        return found

    def function(self) -> Callable[..., Any]:
        """The sampler as a function that the checks of samplers can be asked of."""
        about = {"order": self.order, **self.declared}
        if self.library == "azula":
            return azula_sampler(self.load(), self.options, **about)
        return scheduler(self.load(), {**CHAIN, **self.options}, **about)


def version(library: str) -> str:
    """Of the installed release.

    Raises:
        ImportError: there is none.
    """
    return __version__ if library == "sdekit" else metadata.version(library)


def named(name: str) -> Row:
    """A row.

    Raises:
        ConfigError: an unknown name; the nearest is named.
    """
    return ROWS[choice("name", name, ROWS)]


_PLAIN = {"clip_sample": False}  # a clip is not affine; latent models are sampled without
_NOISY, _TWO, _HISTORY = {"noisy": True}, {"calls": 2}, {"memory": True}


def _spaced(
    name: str, cls: str, order: int, spacings: str, declared: Mapping[str, Any], **options: Any
) -> dict[str, Row]:
    """A row for each spacing: "linspace leading trailing"."""
    return {
        f"{name}-{spacing}": Row(
            "diffusers", cls, {"timestep_spacing": spacing, **options}, order, declared
        )
        for spacing in spacings.split()
    }


_THREE = "trailing linspace leading"

ROWS: dict[str, Row] = {
    **_spaced("ddim", "DDIMScheduler", 1, _THREE, {}, **_PLAIN),
    **_spaced("euler", "EulerDiscreteScheduler", 1, _THREE, {}),
    **_spaced("euler-ancestral", "EulerAncestralDiscreteScheduler", 1, "trailing", _NOISY),
    **_spaced("ddpm-small", "DDPMScheduler", 1, _THREE, _NOISY, variance_type="fixed_small",
              **_PLAIN),
    **_spaced("ddpm-large", "DDPMScheduler", 1, "trailing", {**_NOISY, "point": False},
              variance_type="fixed_large", **_PLAIN),
    **_spaced("heun", "HeunDiscreteScheduler", 2, "trailing", _TWO),
    **_spaced("kdpm2", "KDPM2DiscreteScheduler", 2, "trailing", _TWO),
    **_spaced("dpmpp-2m", "DPMSolverMultistepScheduler", 2, "trailing linspace", {}),
    **_spaced("dpmpp-2m-karras", "DPMSolverMultistepScheduler", 2, "trailing", {},
              use_karras_sigmas=True),
    **_spaced("dpmpp-3m", "DPMSolverMultistepScheduler", 3, "trailing", {}, solver_order=3),
    **_spaced("sde-dpmpp-2m", "DPMSolverMultistepScheduler", 2, "trailing linspace", _NOISY,
              algorithm_type="sde-dpmsolver++"),
    "dpmpp-2s": Row("diffusers", "DPMSolverSinglestepScheduler", {}, 2, {}),
    **_spaced("deis", "DEISMultistepScheduler", 2, "trailing linspace", {"last": 1}),
    **_spaced("unipc", "UniPCMultistepScheduler", 2, "trailing linspace", {}),
    **_spaced("sa-solver", "SASolverScheduler", 2, "trailing linspace",
              {**_NOISY, "last": 1}),
    **_spaced("pndm", "PNDMScheduler", 2, "trailing", {"calls": None, "last": 1}),
    # sdekit's own
    "sdekit-ddim": Row("sdekit", "ddim", {}, 1),
    "sdekit-ancestral": Row("sdekit", "ancestral", {}, 1),
    "sdekit-ancestral-beta": Row("sdekit", "ancestral(variance='beta')", {}, 1),
    "sdekit-heun": Row("sdekit", "heun", {}, 2),
    # azula
    "azula-ddpm": Row("azula", "DDPMSampler", {}, 1, _NOISY),
    "azula-ddim": Row("azula", "DDIMSampler", {}, 1, {}),
    "azula-ddim-half": Row("azula", "DDIMSampler", {"eta": 0.5}, 1, _NOISY),
    "azula-euler": Row("azula", "EulerSampler", {}, 1, {}),
    # on a single point its division by sigma_s amplifies rounding by 1e6 in one long step
    "azula-heun": Row("azula", "HeunSampler", {}, 2, {"point": False}),
    "azula-ito": Row("azula", "ItoSampler", {}, 1, {**_NOISY, "point": False}),
    "azula-zab": Row("azula", "zABSampler", {"order": 2}, 2, {**_HISTORY, "point": False}),
    "azula-vab": Row("azula", "vABSampler", {"order": 2}, 2, {**_HISTORY, "point": False}),
    "azula-zeab": Row("azula", "zEABSampler", {"order": 2}, 2, _HISTORY),
    "azula-xeab": Row("azula", "xEABSampler", {"order": 2}, 2, _HISTORY),
    "azula-reab": Row("azula", "REABSampler", {"order": 2}, 2, _HISTORY),
}  # fmt: skip
