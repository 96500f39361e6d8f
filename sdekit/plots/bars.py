"""Pictures of numbers with their errors: bars of weights, and the waterfall of an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sdekit.plots.base import BLUE, FAINT, INK, KINDS, MUTED, ORANGE, WIDTH, sheet, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Bar", "Part", "waterfall", "weight_bars"]


class Bar(NamedTuple):
    """One row of `weight_bars`.

    Attributes:
        label: what it is.
        value: its length.
        stderr: the standard error of the value.
        kind: rows of one kind share a colour; the kind is named in the legend.
    """

    label: str
    value: float
    stderr: float
    kind: str


class Part(NamedTuple):
    """One row of `waterfall`: an amount that is added to those above it.

    Attributes:
        label: what it is.
        size: how much it adds, negative where it takes away.
        stderr: its standard error.
        shift: what it adds to a second number, or None.
        shift_stderr: the standard error of that.
    """

    label: str
    size: float
    stderr: float = 0.0
    shift: float | None = None
    shift_stderr: float = 0.0


def weight_bars(rows: Sequence[Bar], *, truth: float, axis: str) -> Figure:
    """Bars from 0 with error bars of two standard errors, and a line at the true value."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure = sheet(0.36 * len(rows) + 1.05)
    height = figure.get_figheight()
    ax = figure.add_axes((0.415, 0.52 / height, 0.5, 1 - 0.95 / height))
    kinds = dict.fromkeys(row.kind for row in rows)
    colours = {kind: KINDS[k % len(KINDS)] for k, kind in enumerate(kinds)}
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        ax.barh(place, row.value, height=0.62, color=colours[row.kind], alpha=0.85)
        ax.errorbar(row.value, place, xerr=2 * row.stderr, color=INK, lw=1.2, capsize=2.5)
        ax.text(
            1.015, place, f"{row.value:.3f}", va="center", fontsize=9, color=INK,
            transform=ax.get_yaxis_transform(),
        )  # fmt: skip
    ax.axvline(truth, color=INK, lw=1.2, ls=(0, (4, 3)))
    ax.set_yticks(places, [row.label for row in rows])
    ax.set_xlim(0, 1)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    style(ax, labels=(axis, ""))
    ax.tick_params(axis="y", length=0, labelsize=9, labelcolor=INK)
    handles: list[Any] = [
        Patch(color=colour, alpha=0.85, label=kind) for kind, colour in colours.items()
    ]
    handles.append(Line2D([], [], color=INK, lw=1.2, ls=(0, (4, 3)), label=f"data: {truth:g}"))
    figure.legend(
        handles=handles, loc="upper right", ncols=len(handles), frameon=False, fontsize=9,
        labelcolor=INK, handlelength=1.4, columnspacing=1.4, bbox_to_anchor=(0.99, 1.0),
    )  # fmt: skip
    return figure


def waterfall(
    parts: Sequence[Part],
    total: Part,
    *,
    axis: str,
    shift_axis: str = "",
    start: float = 0.0,
) -> Figure:
    """Bars that each begin where the one above ends, and the total, with two standard errors.

    Where every row has a shift, a second panel shows how these lead from `start`, at a dashed
    line, to the total, and says where that ends.

    Args:
        parts: what adds up to the total.
        total: the last row; its bars begin at 0 and at `start`.
        axis: what the sizes are.
        shift_axis: what the shifts are.
        start: the value that the shifts are added to.
    """
    rows = [*parts, total]
    figure = sheet(0.36 * len(rows) + 0.85)
    height = figure.get_figheight()
    bottom, tall = 0.5 / height, 1 - 0.62 / height
    shifts = [row.shift for row in rows if row.shift is not None]
    both = len(shifts) == len(rows)
    first = figure.add_axes((1.16 / WIDTH, bottom, (1.37 if both else 3.2) / WIDTH, tall))
    _steps(first, [row.size for row in rows], [row.stderr for row in rows], 0.0, ".3f")
    first.axvline(0, color=INK, lw=0.8)
    style(first, labels=(axis, ""))
    first.set_yticks(range(len(rows))[::-1], [row.label for row in rows])
    first.tick_params(axis="y", length=0, labelsize=9, labelcolor=INK)
    if both:
        second = figure.add_axes((3.08 / WIDTH, bottom, 1.37 / WIDTH, tall))
        _steps(second, shifts, [row.shift_stderr for row in rows], start, "+.3f")
        second.axvline(start, color=INK, lw=1.2, ls=(0, (4, 3)))
        style(second, labels=(shift_axis, ""))
        second.set_yticks([])
    return figure


def _steps(
    ax: Axes, sizes: Sequence[float], errors: Sequence[float], start: float, numbers: str
) -> None:
    """The bars of one panel, the last of them the total, and their numbers at its right."""
    ends = start + np.cumsum(sizes[:-1])
    begins = [start, *ends[:-1], start]
    for row, (begin, size, error) in enumerate(zip(begins, sizes, errors, strict=True)):
        place, last = len(sizes) - 1 - row, row == len(sizes) - 1
        colour = MUTED if last else ORANGE if size >= 0 else BLUE
        ax.barh(place, size, left=begin, height=0.62, color=colour, alpha=0.85)
        if error:
            ax.errorbar(begin + size, place, xerr=2 * error, color=INK, lw=1.2, capsize=2.5)
        if not last:
            ax.plot([begin + size] * 2, [place - 0.69, place], color=MUTED, lw=0.8, zorder=0)
        ax.text(
            1.03, place, f"{start + size:.3f}" if last else f"{size:{numbers}}", va="center",
            fontsize=9, color=INK, transform=ax.get_yaxis_transform(),
        )  # fmt: skip
    ax.axhline(0.5, color=FAINT, lw=0.8)
    ax.set_ylim(-0.6, len(sizes) - 0.4)
    ax.use_sticky_edges = False
    ax.margins(x=0.06)
