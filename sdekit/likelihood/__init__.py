"""Likelihoods: by the probability flow, by the variational bound, in nats and bits.

Objectives are made of the bound's terms, and quantisation draws its noise as they do: names are
resolved when they are first used, so that neither room waits for the other.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    **dict.fromkeys(["Quantization", "bits_per_dim", "dequantize"], "sdekit.likelihood.bits"),
    "Budget": "sdekit.likelihood.budget",
    **dict.fromkeys(["ELBO", "RateDistortion", "elbo"], "sdekit.likelihood.bound"),
    "Decoder": "sdekit.likelihood.decoder",
    **dict.fromkeys(["LogProb", "log_prob"], "sdekit.likelihood.density"),
    **dict.fromkeys(
        ["DequantizedBound", "VariationalDequantizer"], "sdekit.likelihood.dequantization"
    ),
    **dict.fromkeys(["decode", "encode", "slerp"], "sdekit.likelihood.latents"),
}

__all__ = [*sorted(_HOME)]  # literal names, sorted once

if TYPE_CHECKING:
    from sdekit.likelihood.bits import Quantization, bits_per_dim, dequantize
    from sdekit.likelihood.bound import ELBO, RateDistortion, elbo
    from sdekit.likelihood.budget import Budget
    from sdekit.likelihood.decoder import Decoder
    from sdekit.likelihood.density import LogProb, log_prob
    from sdekit.likelihood.dequantization import DequantizedBound, VariationalDequantizer
    from sdekit.likelihood.latents import decode, encode, slerp


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, resolved or not."""
    return sorted(__all__)
