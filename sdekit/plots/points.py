"""Pictures of samples: scatters, histograms, images, strips of panels and fans of paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sdekit.plots.base import (
    BLUE,
    COLOURS,
    FAINT,
    INK,
    WIDTH,
    Density,
    array,
    contours,
    dots,
    plane,
    sheet,
    style,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Fan",
    "Panel",
    "density_contours_with_samples",
    "forward_strip",
    "histogram",
    "image_grid",
    "samples",
    "scatter",
    "trajectories",
]


class Panel(NamedTuple):
    """Points of one panel.

    Attributes:
        title: above the panel.
        points: [(n, 2)].
        labels: the colour of each point [(n,)], small integers; None: one colour.
        note: a line inside the panel.
    """

    title: str
    points: Any
    labels: Any = None
    note: str = ""


class Fan(NamedTuple):
    """Paths of one panel of `trajectories`.

    Attributes:
        title: above the panel.
        times: the places along the horizontal axis, first to last [(m,)].
        paths: the value of each path there [(m, n)].
        labels: the colour of each path [(n,)].
        values: where the densities beside the panel are given [(k,)].
        start: the density that the paths start from [(k,)].
        truth: the density that they should start from [(k,)].
    """

    title: str
    times: Any
    paths: Any
    labels: Any
    values: Any
    start: Any
    truth: Any


def scatter(
    points: Any, *, density: Density | None = None, labels: Any = None, title: str = ""
) -> Figure:
    """Points [(n, 2)] of the plane, over contours of a density where one is given.

    Args:
        points: [(n, 2)]; at most 4000 of them, evenly chosen, are drawn.
        density: a function from points [(m, 2)] to densities [(m,)].
        labels: the colour of each point [(n,)], small integers.
        title: above the picture.
    """
    x = array(points)
    figure = sheet(4.6)
    ax = figure.add_axes((0.13, 0.11, 0.83, 0.80))
    limits = _limits(x)
    if density is not None:
        contours(ax, density, limits)
    dots(ax, x, labels, size=3.0)
    plane(ax, limits)
    style(ax, title=title, labels=("x1", "x2"))
    return figure


def samples(x: Any, *, density: Density | None = None, title: str = "") -> Figure:
    """Samples of any shape: a histogram of numbers, a scatter of the plane, or images.

    Args:
        x: vectors [(n, d)], of which the first two dimensions are drawn, the first 64 of images
            [(n, h, w), (n, 1, h, w) or (n, 3, h, w)], or numbers of any other shape.
        density: a function from points [(m, d)] to densities [(m,)], drawn for d = 1 and 2.
        title: above the picture.
    """
    x = array(x)
    if x.ndim == 2 and x.shape[1] > 1:
        more = f", 2 of {x.shape[1]} dimensions" if x.shape[1] > 2 else ""
        below = density if x.shape[1] == 2 else None
        return scatter(x[:, :2], density=below, title=title + more)
    if x.ndim == 3 or (x.ndim == 4 and x.shape[1] in (1, 3)):
        return image_grid(x[:64], title=title)
    return histogram(x, density=density if x.shape[1:] == (1,) else None, title=title)


def histogram(
    values: Any,
    *,
    density: Density | None = None,
    title: str = "",
    axis: str = "x",
    span: float | None = None,
) -> Figure:
    """The distribution of numbers [(n,)].

    Args:
        values: the numbers, of any shape.
        density: a function from points [(m, 1)] to densities [(m,)], drawn as a curve.
        title: above the picture.
        axis: the name of the numbers.
        span: the axis runs from -span to span; by default it holds all but the outermost numbers.
    """
    x = array(values).reshape(-1)
    figure = sheet(3.2)
    ax = figure.add_axes((0.13, 0.16, 0.83, 0.72))
    low, high = np.quantile(x, [0.001, 0.999]) if len(x) else (0.0, 1.0)
    low, high = (low, high) if span is None else (-span, span)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    bins = max(10, min(120, round(2 * len(x) ** (1 / 3))))
    inside = bool(((x >= low) & (x <= high)).any())  # else no bar has a height
    ax.hist(x, bins=bins, range=(low, high), density=inside, color=BLUE, alpha=0.85)
    if density is not None:
        at = np.linspace(low, high, 401)
        ax.plot(at, array(density(at[:, None])), color=INK, linewidth=1.2)
    if span is not None:
        ax.set_xlim(low, high)
    style(ax, title=title, labels=(axis, "density"))
    return figure


def image_grid(images: Any, *, title: str = "", columns: int = 8) -> Figure:
    """Images [(n, h, w), (n, 1, h, w) or (n, 3, h, w)] side by side, each on its own scale."""
    x = array(images)
    x = x[:, 0] if x.ndim == 4 and x.shape[1] == 1 else x
    columns = max(1, min(columns, len(x)))
    rows = max(1, math.ceil(len(x) / columns))
    figure = sheet(WIDTH * rows / columns + 0.5)
    for k, image in enumerate(x):
        ax = figure.add_subplot(rows, columns, k + 1)
        low, high = float(image.min()), float(image.max())
        shown = (image - low) / ((high - low) or 1.0)
        ax.imshow(shown if image.ndim == 2 else np.moveaxis(shown, 0, -1), cmap="gray")
        ax.set_axis_off()
    top = 1 - 0.4 / figure.get_figheight()
    figure.subplots_adjust(0.01, 0.01, 0.99, top, wspace=0.05, hspace=0.05)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def forward_strip(panels: Sequence[Panel], *, span: float, columns: int = 3) -> Figure:
    """The forward process: one panel a time, all with the same axes from -span to span."""
    rows = math.ceil(len(panels) / columns)
    figure = sheet(1.86 * rows)
    for k, panel in enumerate(panels):
        ax = figure.add_subplot(rows, columns, k + 1)
        dots(ax, array(panel.points), panel.labels, size=2.0)
        plane(ax, (-span, span, -span, span))
        style(ax, title=panel.title)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(True)
        ax.spines[:].set_color(FAINT)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.93, wspace=0.06, hspace=0.2)
    return figure


def density_contours_with_samples(
    panels: Sequence[Panel], density: Density, *, span: float
) -> Figure:
    """Samples over the contours of the true density, two panels a row."""
    rows = math.ceil(len(panels) / 2)
    figure = sheet(2.62 * rows)
    for k, panel in enumerate(panels):
        ax = figure.add_subplot(rows, 2, k + 1)
        limits = (-span, span, -span, span)
        contours(ax, density, limits)
        dots(ax, array(panel.points), panel.labels, size=2.5)
        plane(ax, limits)
        style(ax, title=panel.title)
        ax.text(0.04, 0.96, panel.note, transform=ax.transAxes, fontsize=9, color=INK, va="top")
        ax.set_xticks([-5, 0, 5])
        ax.set_yticks([-5, 0, 5])
        ax.tick_params(labelleft=k % 2 == 0, labelbottom=k >= len(panels) - 2)
    figure.subplots_adjust(0.06, 0.05, 0.99, 1 - 0.27 / (2.62 * rows), wspace=0.06, hspace=0.16)
    return figure


def trajectories(
    panels: Sequence[Fan], *, axes: tuple[str, str], legend: tuple[str, str]
) -> Figure:
    """Reverse paths over time, one panel a row, each beside the law it starts from.

    Args:
        panels: the paths; time runs from left to right.
        axes: the names of time and value.
        legend: what the two densities at the left are: the one used, and the true one.
    """
    figure = sheet(2.25 * len(panels) + 0.75)
    grid = figure.add_gridspec(
        len(panels), 2, width_ratios=(1, 4.2), wspace=0.05, hspace=0.3,
        left=0.1, right=0.985, top=1 - 0.62 / figure.get_figheight(),
        bottom=0.45 / figure.get_figheight(),
    )  # fmt: skip
    handles: list[Any] = []
    for k, panel in enumerate(panels):
        side, ax = figure.add_subplot(grid[k, 0]), figure.add_subplot(grid[k, 1])
        times, paths, labels = array(panel.times), array(panel.paths), array(panel.labels)
        values, start, truth = map(array, (panel.values, panel.start, panel.truth))
        visible = np.where(truth > 0.004 * truth.max(), truth, np.nan)
        for path, label in zip(paths.T, labels, strict=True):
            ax.plot(times, path, color=COLOURS[int(label)], lw=0.6, alpha=0.45)
        handles = [
            side.fill_betweenx(values, start, color=FAINT, lw=0),
            side.plot(visible, values, color=INK, lw=1.3)[0],
        ]
        span = float(np.abs(values).max())
        for each in (side, ax):
            each.set_ylim(-span, span)
        side.set_xlim(1.1 * max(start.max(), truth.max()), 0)
        ax.set_xlim(times[0], times[-1])
        style(ax, title=panel.title, labels=(axes[0] if k == len(panels) - 1 else "", ""))
        style(side, labels=("", axes[1]))
        ax.tick_params(labelleft=False)
        ax.margins(x=0)
        side.set_xticks([])
        side.spines["left"].set_visible(False)
        side.spines["bottom"].set_visible(False)
        side.tick_params(left=False)
    figure.legend(
        handles, legend, loc="upper left", ncols=2, frameon=False, fontsize=9, labelcolor=INK,
        bbox_to_anchor=(0.02, 1.0), handlelength=1.4, columnspacing=1.6,
    )  # fmt: skip
    return figure


def _limits(x: np.ndarray) -> tuple[float, float, float, float]:
    """A square that holds all but the outermost points [(n, 2)]."""
    if not len(x):
        return (-1.0, 1.0, -1.0, 1.0)
    low, high = np.quantile(x, [0.002, 0.998], axis=0)
    centre, half = (low + high) / 2, 0.6 * float(max((high - low).max(), 1e-6))
    return (centre[0] - half, centre[0] + half, centre[1] - half, centre[1] + half)
