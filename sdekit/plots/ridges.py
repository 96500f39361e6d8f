"""Densities on a line, step after step: one curve above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sdekit.plots.base import BLUE, INK, MUTED, ORANGE, array, sheet, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Ridge", "histogram_ridges", "ridges"]

_STEP = 0.13  # inches between two curves
_TALL = 0.55  # inches of the highest one
_LEFT, _GAP, _RIGHT = 0.5, 0.25, 0.1


class Ridge(NamedTuple):
    """One column of `ridges`.

    Attributes:
        title: above it.
        x: the points of the line [(m,)].
        densities: one for every step [(n, m)], drawn from the top down.
        reference: a density that the last one is compared with [(m,)], or None.
    """

    title: str
    x: Any
    densities: Any
    reference: Any = None


def ridges(
    columns: Sequence[Ridge], *, axis: str = "x", first: str = "", last: str = ""
) -> Figure:
    """Columns of densities, all of one height scale, drawn from the top down.

    Args:
        columns: side by side.
        axis: the name of the line.
        first: a word beside the first curve.
        last: a word beside the last one.
    """
    rows = max(len(array(column.densities)) for column in columns)
    figure = sheet(_STEP * (rows - 1) + _TALL + 0.85)
    width, height = figure.get_figwidth(), figure.get_figheight()
    share = (width - _LEFT - _RIGHT - _GAP * (len(columns) - 1)) / len(columns)
    top = max(float(array(column.densities).max()) for column in columns)
    scale = _TALL / _STEP / top  # densities in units of the distance between two curves
    for k, column in enumerate(columns):
        left = (_LEFT + k * (share + _GAP)) / width
        ax = figure.add_axes((left, 0.5 / height, share / width, 1 - 0.8 / height))
        x, densities = array(column.x), array(column.densities)
        base = np.arange(len(densities))[::-1]
        for row, (density, level) in enumerate(zip(densities, base, strict=True)):
            ax.fill_between(
                x, level, level + scale * density, color="white", zorder=2 * row, linewidth=0
            )
            end = row in (0, len(densities) - 1)
            ax.plot(
                x, level + scale * density, color=BLUE, linewidth=1.3 if end else 0.7,
                zorder=2 * row + 1,
            )  # fmt: skip
        if column.reference is not None:
            curve = scale * array(column.reference)
            ax.plot(x, curve, color=ORANGE, linewidth=1.0, linestyle=(0, (4, 2)), zorder=10**6)
        style(ax, title=column.title, labels=(axis, ""))
        ax.set_xlim(float(x[0]), float(x[-1]))
        ax.set_ylim(-0.3, rows - 1 + scale * top + 0.4)
        ax.spines["left"].set_visible(False)
        ax.set_yticks([])
        if k == 0:
            for level, word in ((rows - 1, first), (0, last)):
                ax.annotate(
                    word, (float(x[0]), level), xytext=(-4, 0), textcoords="offset points",
                    ha="right", va="bottom", fontsize=8.5, color=INK if word else MUTED,
                )  # fmt: skip
    return figure


def histogram_ridges(states: Any, *, title: str = "", first: str = "", last: str = "") -> Figure:
    """Samples on a line at several moments, one histogram below the other.

    Args:
        states: the numbers at each moment [(m, n, 1)].
        title: above the picture.
        first: a word beside the first histogram.
        last: a word beside the last one.
    """
    x = array(states).reshape(len(states), -1)
    ends = np.quantile(x, [0.001, 0.999], axis=1) if x.size else np.array([[0.0], [1.0]])
    low, high = float(ends.min()), float(ends.max())
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    bins = max(15, min(80, round(2.5 * x.shape[1] ** (1 / 3))))
    edges = np.linspace(low, high, bins + 1)
    heights = np.stack([np.histogram(row, edges)[0] for row in x]) / max(x.shape[1], 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    return ridges([Ridge(title, middle, heights / (edges[1] - edges[0]))], first=first, last=last)
