"""Measures over time: one panel each, with intervals, and the band that is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sdekit.plots.base import BLUE, FAINT, INK, MUTED, ORANGE, WIDTH, sheet, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Track", "tracks"]

_TALL, _ROW, _TOP, _BOTTOM = 1.05, 1.5, 0.62, 0.5  # inches: of a panel, a row, and the margins
_LEFT, _GAP, _RIGHT = 0.52, 0.55, 0.12
_LABELS = 5  # of times below a panel, at most


class Track(NamedTuple):
    """One panel of `tracks`.

    Attributes:
        title: above it.
        place: where each value stands [(k,)].
        value: [(k,)].
        stderr: of the values [(k,)].
        low: the lower end of each interval [(k,)].
        high: the upper one [(k,)].
        beyond: which are beyond the tolerance [(k,)].
        tolerance: what is allowed.
        both: whether it is allowed on both sides of 0; else values below 0 are right as well.
    """

    title: str
    place: Sequence[float]
    value: Sequence[float]
    stderr: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    beyond: Sequence[bool]
    tolerance: float
    both: bool = False


def tracks(
    rows: Sequence[Track], *, marks: Sequence[tuple[float, str]], axis: str, columns: int = 2
) -> Figure:
    """Panels side by side, all over one axis.

    Args:
        rows: the panels.
        marks: places of the axis and what is written there; some are left out where they are many.
        axis: what it is.
        columns: panels in a row.
    """
    lines = max(1, -(-len(rows) // columns))
    figure = sheet(_TOP + _BOTTOM + (lines - 1) * _ROW + _TALL)
    height = figure.get_figheight()
    wide = (WIDTH - _LEFT - _RIGHT - (columns - 1) * _GAP) / columns
    for k, track in enumerate(rows):
        line, column = divmod(k, columns)
        left = _LEFT + column * (wide + _GAP)
        bottom = height - _TOP - _TALL - line * _ROW
        ax = figure.add_axes((left / WIDTH, bottom / height, wide / WIDTH, _TALL / height))
        last = k + columns >= len(rows)
        _panel(ax, track, marks)
        style(ax, title=track.title, labels=(axis if last else "", ""))
        _mark(ax, marks)
    _legend(figure)
    return figure


def _panel(ax: Axes, track: Track, marks: Sequence[tuple[float, str]]) -> None:
    """The allowed band, the intervals, the values with two standard errors."""
    place, value, stderr, low, high = (
        np.asarray(part, dtype=float)
        for part in (track.place, track.value, track.stderr, track.low, track.high)
    )
    allowed = track.tolerance
    # what is far below 0 says no more than that it is right
    least = float(np.min(low)) if track.both else min(0.0, max(-2 * allowed, float(np.min(low))))
    top = max(1.25 * allowed, 1.08 * float(np.max(high)))
    bottom = min(-1.25 * allowed, 1.08 * least) if track.both else 1.15 * least
    if track.both or bottom < 0:
        ax.axhline(0, color=MUTED, lw=0.6, zorder=1)
    ax.axhspan(-allowed if track.both else bottom, allowed, color=FAINT, alpha=0.45, lw=0)
    ax.fill_between(place, low, high, color=BLUE, alpha=0.18, lw=0, zorder=2)
    beyond = np.asarray(track.beyond, dtype=bool)
    inside = value >= bottom
    for chosen, colour in ((~beyond, BLUE), (beyond, ORANGE)):
        shown = chosen & inside
        ax.errorbar(
            place[shown], value[shown], yerr=2 * stderr[shown], fmt="o", ms=3.2, color=colour,
            lw=1.0, capsize=0, zorder=4,
        )  # fmt: skip
    ax.plot(place, value, color=MUTED, lw=0.7, zorder=3)
    if not inside.all():
        below = place[~inside]
        ax.plot(below, np.full_like(below, bottom), "v", ms=4, color=BLUE, clip_on=False, zorder=4)
    ax.set_ylim(bottom if bottom < 0 else 0.0, top)
    ends = [at for at, _ in marks]
    margin = 0.04 * (max(ends) - min(ends))
    ax.set_xlim(min(ends) - margin, max(ends) + margin)
    ax.locator_params(axis="y", nbins=4)


def _mark(ax: Axes, marks: Sequence[tuple[float, str]]) -> None:
    """The axis' labels, evenly chosen, the ends among them."""
    few = np.unique(np.linspace(0, len(marks) - 1, min(_LABELS, len(marks))).round().astype(int))
    ax.set_xticks([marks[k][0] for k in few], [marks[k][1] for k in few])
    ax.tick_params(axis="x", labelsize=7.5)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def dot(colour: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, marker="o", ms=3.2, lw=1.0, label=label)

    handles = [
        dot(BLUE, "measured, 2 s.e."),
        dot(ORANGE, "surely beyond"),
        Patch(color=BLUE, alpha=0.18, lw=0, label="interval of the verdict"),
        Patch(color=FAINT, alpha=0.45, lw=0, label="tolerated"),
    ]
    figure.legend(
        handles=handles, loc="upper center", ncols=4, frameon=False, fontsize=8, labelcolor=INK,
        handlelength=1.3, columnspacing=1.1, handletextpad=0.5, bbox_to_anchor=(0.5, 1.0),
    )  # fmt: skip
