"""The comparisons that `sdekit compare` makes where nobody says which."""

from __future__ import annotations

from typing import Any

from sdekit.compare.experiment import Experiment

__all__ = ["default", "quick"]

_METRICS = ("exact_wasserstein", "exact_mode_weights", "exact_discretisation",
            "sliced_wasserstein", "mode_weights")  # fmt: skip


def default() -> Experiment:
    """Ten samplers on the tutorial's mixture: fast and slow ones, with noise and without."""
    return Experiment(
        name="Ten samplers on the tutorial's mixture", target="tutorial",
        sdes=("vp", "sub_vp", "ve"),
        samplers=("euler_maruyama", "ancestral", "exponential_euler", "sde_dpmpp_2m", "ddim",
                  "heun", "dpmpp_2m", "deis", "unipc", "predictor_corrector"),
        grids=("log_snr",), calls=(8, 16, 32, 64), seeds=10, n=1000, metrics=_METRICS,
    )  # fmt: skip


def quick() -> Experiment:
    """Five samplers, three budgets: the same page in seconds."""
    values: dict[str, Any] = {
        "name": "Five samplers on the tutorial's mixture", "target": "tutorial",
        "sdes": ("vp",), "samplers": ("ancestral", "sde_dpmpp_2m", "ddim", "heun", "dpmpp_2m"),
        "grids": ("log_snr",), "calls": (8, 16, 32), "seeds": 6, "n": 700, "metrics": _METRICS,
    }  # fmt: skip
    return Experiment(**values)
