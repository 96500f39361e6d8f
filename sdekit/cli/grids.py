"""What the options of a run name; --grid is a rule of the catalogue, or `optimal`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sdekit.cli.terminal import Terminal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdekit.sampling import Grid, Sampler

__all__ = ["Optimal", "asked", "grid_of", "grid_rule"]


@dataclass(frozen=True, repr=False)
class Optimal:
    """`optimal_grid` for the sampler and the data of the run: no rule, for it needs to know both.

    Attributes:
        risk: the share of laws that may fare worse.
    """

    catalogue_name: ClassVar[str] = "optimal"

    risk: float = 0.0

    def __post_init__(self) -> None:
        from sdekit._check import number

        object.__setattr__(self, "risk", number("risk", self.risk, ge=0.0, le=1.0))

    def __repr__(self) -> str:
        from sdekit._catalogue import spelling

        return spelling(self)


def asked(options: Any, *, least: int) -> tuple[Sampler, Grid | Optimal, torch.device]:
    """The sampler, the rule of the grid and the device that a command's options name.

    Args:
        options: with n, steps, prior, sampler, grid and device.
        least: the fewest samples that will do.

    Raises:
        ConfigError: one of them is out of range or unknown; the option is named.
    """
    from sdekit._catalogue import make_one
    from sdekit._check import choice, integer
    from sdekit.cli.device import device_of
    from sdekit.sampling import Sampler

    integer("--n", options.n, ge=least)
    if options.steps is not None:
        integer("--steps", options.steps, ge=1)
    choice("--prior", options.prior, ("standard", "matched"))
    sampler: Sampler = make_one("sampler", options.sampler, Sampler)
    return sampler, grid_rule(options.grid), device_of(options.device)


def grid_rule(text: str) -> Grid | Optimal:
    """The rule that --grid spells.

    Raises:
        ConfigError: an unknown name (the nearest is named), or fields that do not fit.
    """
    from sdekit._catalogue import Entry, catalogue, spelled

    optimal = Entry("grid", Optimal.catalogue_name, Optimal, "")
    rule: Grid | Optimal = spelled(text, {**catalogue("grid"), optimal.name: optimal}, "grid")
    return rule


def grid_of(
    rule: Grid | Optimal, sampler: Sampler, model: Any, steps: int, terminal: Terminal
) -> Grid | Tensor:
    """The grid of a run: the rule, or the optimal times on the scale of the model's data.

    Args:
        rule: what `grid_rule` made of the option.
        sampler: the sampler that will run.
        model: a predictor; the variances of its `moments`, where it has them, are the spectrum.
        steps: how many.
        terminal: where progress is shown: this takes seconds.

    Raises:
        ConfigError: as for `optimal_grid`.
    """
    if not isinstance(rule, Optimal):
        return rule
    from sdekit.exact import optimal_grid

    with terminal.progress(f"placing {steps} steps", None):
        return optimal_grid(sampler, model.sde, _spectrum(model), steps=steps, risk=rule.risk)


def _spectrum(model: Any) -> Tensor | None:
    """The variances of the model's data, where it knows any that is not 0."""
    moments = getattr(model, "moments", None)
    if moments is None:
        return None
    values: Tensor = moments.values
    if moments.kind == "low_rank":
        values = values.new_tensor([*values.tolist(), moments.rest])
    return values if float(values.max()) > 0 else None
