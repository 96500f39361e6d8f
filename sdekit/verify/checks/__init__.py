"""The checks, one file a room of the theory; importing this package enters them in `CHECKS`."""

import importlib

# in the order in which they are asked
ROOMS = (
    "marginals", "schedules", "kernels", "prior", "reverse", "chain", "sampler_law",
    "sampler_balance", "sampler_adaptive", "sampler_runs", "sampler_times", "parametrization",
    "target", "objective", "bound", "implicit", "weighting", "likelihood", "tools", "model",
)  # fmt: skip

for _room in ROOMS:
    importlib.import_module(f"{__name__}.{_room}")
