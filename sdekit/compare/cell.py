"""One cell of a comparison: a model, a sampler, a grid and a budget; the unit of work."""

from __future__ import annotations

import importlib
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from sdekit._catalogue import make
from sdekit._check import shown
from sdekit.compare.keys import digest
from sdekit.compare.subjects import Source
from sdekit.errors import ConfigError, DtypeError
from sdekit.sampling import Sampler
from sdekit.sampling.grid import resolve_grid
from sdekit.sde import LinearSDE

__all__ = ["Cell", "imported", "steps_within"]

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is run, in spellings; the fields are those of `Experiment`, one of each.

    Attributes:
        source: the model.
        sampler: the sampler.
        grid: where its steps are.
        steps: how many; None where `calls` says it, or the sampler itself.
        calls: the network calls that the run stays within.
    """

    source: Source
    sampler: str
    grid: str
    steps: int | None = None
    calls: int | None = None
    seeds: tuple[int, ...]
    n: int
    metrics: tuple[str, ...]
    prior: str
    denoise: bool
    device: str
    modules: tuple[str, ...] = ()

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Everything that its numbers depend on, in plain Python."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @cached_property
    def id(self) -> str:
        """A digest of the spec: equal cells have one name in any comparison."""
        return digest(self.spec)

    @property
    def label(self) -> str:
        """A few words for a progress line."""
        budget = f"{self.steps} steps" if self.steps else f"{self.calls} calls"
        free = self.steps is None and self.calls is None
        where = self.source.path or f"{self.source.target}, {self.source.sde}"
        return f"{self.sampler}, {'own steps' if free else budget}, {where}"


def imported(where: str, name: object) -> str:
    """The name of a module, once it is imported: what it registers has names from then on.

    Raises:
        ConfigError: it is no name of a module, or cannot be imported.
        DtypeError: it is no string.
    """
    if not isinstance(name, str):
        raise DtypeError(f"{where} must be the name of a module, got {shown(name)}")
    if not _MODULE.fullmatch(name):
        raise ConfigError(f"{where}={shown(name)} is no name of a module")
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever the module's own code raises
        raise ConfigError(
            f"{where}={shown(name)} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return name


def steps_within(calls: int, sampler: Sampler, sde: LinearSDE, grid: str, *, last: int) -> int:
    """The most steps of a sampler that take at most so many calls, as it declares them.

    Args:
        calls: the budget.
        sampler: the sampler.
        sde: the process.
        grid: the spelling of the grid.
        last: calls after the last step: 1 for the noiseless step to x_0, else 0.

    Raises:
        ConfigError: not even one step does.

    Example:
        >>> from sdekit import VPSDE
        >>> from sdekit.sampling import Heun
        >>> steps_within(17, Heun(), VPSDE(), "uniform()", last=0)
        8
    """
    each = sampler.nfe_per_step
    most = (calls - last) // each
    if "ddpm" in sde.kinds:
        most = min(most, sde.default_steps)
    for steps in range(most, 0, -1):
        rows = sampler.times(sde, resolve_grid(make("grid", grid), sde, steps))[0]
        if len(rows) * each + sampler.warmup_nfe + last <= calls:  # Restart has more rows
            return steps
    least = each + sampler.warmup_nfe + last
    raise ConfigError(f"{sampler!r} takes {least} calls for one step, the budget is {calls}")
