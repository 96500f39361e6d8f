"""An error budget as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdekit import plots
from sdekit.exact.wording import mode_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdekit.exact import Effect, ErrorBudget

__all__ = ["waterfall"]


def waterfall(budget: ErrorBudget) -> Figure:
    """The causes one below the other, in W2 and, where there are modes, in one's weight."""
    mode, truth = budget.mode, budget.truth

    def part(name: str, effect: Effect) -> plots.Part:
        if mode is None or effect.weights is None:
            return plots.Part(name, effect.w2, effect.stderr)
        spread = effect.weights_stderr
        noise = 0.0 if spread is None else float(spread[mode])
        return plots.Part(name, effect.w2, effect.stderr, float(effect.weights[mode]), noise)

    return plots.waterfall(
        [part(name, effect) for name, effect in budget.parts.items()],
        part("total", budget.total),
        axis="W2" if budget.exact else "sliced W2",
        shift_axis=f"weight of {mode_name(budget)}",
        start=0.0 if mode is None or truth is None else float(truth[mode]),
    )
