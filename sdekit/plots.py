"""Pictures from plain tensors or arrays, in one style, for a page, a terminal user or a paper.

Every function takes data and returns a `matplotlib.figure.Figure` (or, for an animation, the bytes
of a GIF); `png` turns a figure into bytes. matplotlib is imported inside the functions, pyplot and
its global state are never touched: pictures can be made in any thread, and without a display.

The colours are Okabe and Ito's, which stay apart for every common kind of colour vision. Figures
are five inches wide with text of 9 points, readable on a page 400 pixels wide.

Reference: Okabe and Ito 2008, Color Universal Design, https://jfly.uni-koeln.de/color/.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Bar",
    "Fan",
    "Panel",
    "animate_samples",
    "density_contours_with_samples",
    "forward_strip",
    "histogram",
    "image_grid",
    "png",
    "scatter",
    "trajectories",
    "weight_bars",
]

BLUE, ORANGE, GREEN, INK, MUTED, FAINT = (
    "#0072B2", "#D55E00", "#009E73", "#1a1a1a", "#6b6b6b", "#d0d0d0",
)  # fmt: skip
_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
_KINDS = (GREEN, "#8c8c8c", "#CC79A7", "#E69F00")  # of bars: other than those of points
_WIDTH = 5.0  # inches
_DPI = 200
_POINTS = 4000  # more points of a scatter do not show

Density = Callable[[np.ndarray], Any]  # points (m, 2) -> densities (m,)


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


def png(figure: Figure, *, dpi: int = _DPI) -> bytes:
    """The figure as the bytes of a PNG file, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


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
    x = _array(points)
    figure = _figure(4.6)
    ax = figure.add_axes((0.13, 0.11, 0.83, 0.80))
    limits = _limits(x)
    if density is not None:
        _contours(ax, density, limits)
    _dots(ax, x, labels, size=3.0)
    _plane(ax, limits)
    _style(ax, title=title, labels=("x1", "x2"))
    return figure


def histogram(values: Any, *, title: str = "", axis: str = "x") -> Figure:
    """The distribution of numbers [(n,)]."""
    x = _array(values).reshape(-1)
    figure = _figure(3.2)
    ax = figure.add_axes((0.13, 0.16, 0.83, 0.72))
    low, high = np.quantile(x, [0.001, 0.999]) if len(x) else (0.0, 1.0)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    bins = max(10, min(120, round(2 * len(x) ** (1 / 3))))
    ax.hist(x, bins=bins, range=(low, high), density=True, color=BLUE, alpha=0.85)
    _style(ax, title=title, labels=(axis, "density"))
    return figure


def image_grid(images: Any, *, title: str = "", columns: int = 8) -> Figure:
    """Images [(n, h, w), (n, 1, h, w) or (n, 3, h, w)] side by side, each on its own scale."""
    x = _array(images)
    x = x[:, 0] if x.ndim == 4 and x.shape[1] == 1 else x
    columns = max(1, min(columns, len(x)))
    rows = max(1, math.ceil(len(x) / columns))
    figure = _figure(_WIDTH * rows / columns + 0.5)
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
    figure = _figure(1.86 * rows)
    for k, panel in enumerate(panels):
        ax = figure.add_subplot(rows, columns, k + 1)
        _dots(ax, _array(panel.points), panel.labels, size=2.0)
        _plane(ax, (-span, span, -span, span))
        _style(ax, title=panel.title)
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
    figure = _figure(2.62 * rows)
    for k, panel in enumerate(panels):
        ax = figure.add_subplot(rows, 2, k + 1)
        limits = (-span, span, -span, span)
        _contours(ax, density, limits)
        _dots(ax, _array(panel.points), panel.labels, size=2.5)
        _plane(ax, limits)
        _style(ax, title=panel.title)
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
    figure = _figure(2.25 * len(panels) + 0.75)
    grid = figure.add_gridspec(
        len(panels), 2, width_ratios=(1, 4.2), wspace=0.05, hspace=0.3,
        left=0.1, right=0.985, top=1 - 0.62 / figure.get_figheight(),
        bottom=0.45 / figure.get_figheight(),
    )  # fmt: skip
    handles: list[Any] = []
    for k, panel in enumerate(panels):
        side, ax = figure.add_subplot(grid[k, 0]), figure.add_subplot(grid[k, 1])
        times, paths, labels = _array(panel.times), _array(panel.paths), _array(panel.labels)
        values, start, truth = map(_array, (panel.values, panel.start, panel.truth))
        visible = np.where(truth > 0.004 * truth.max(), truth, np.nan)
        for path, label in zip(paths.T, labels, strict=True):
            ax.plot(times, path, color=_COLOURS[int(label)], lw=0.6, alpha=0.45)
        handles = [
            side.fill_betweenx(values, start, color=FAINT, lw=0),
            side.plot(visible, values, color=INK, lw=1.3)[0],
        ]
        span = float(np.abs(values).max())
        for each in (side, ax):
            each.set_ylim(-span, span)
        side.set_xlim(1.1 * max(start.max(), truth.max()), 0)
        ax.set_xlim(times[0], times[-1])
        _style(ax, title=panel.title, labels=(axes[0] if k == len(panels) - 1 else "", ""))
        _style(side, labels=("", axes[1]))
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


def weight_bars(rows: Sequence[Bar], *, truth: float, axis: str) -> Figure:
    """Bars from 0 with error bars of two standard errors, and a line at the true value."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure = _figure(0.36 * len(rows) + 1.05)
    height = figure.get_figheight()
    ax = figure.add_axes((0.415, 0.52 / height, 0.5, 1 - 0.95 / height))
    kinds = dict.fromkeys(row.kind for row in rows)
    colours = {kind: _KINDS[k % len(_KINDS)] for k, kind in enumerate(kinds)}
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
    _style(ax, labels=(axis, ""))
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


def animate_samples(
    frames: Any,
    captions: Sequence[str],
    *,
    labels: Any = None,
    density: Density | None = None,
    span: float,
    milliseconds: int = 90,
) -> bytes:
    """Moving points as the bytes of a GIF that repeats; it stays two seconds on the last frame.

    Args:
        frames: the points at each moment [(m, n, 2)].
        captions: a line above each frame.
        labels: the colour of each point [(n,)].
        density: a function from points [(k, 2)] to densities, drawn as contours.
        span: the axes run from -span to span.
        milliseconds: how long a frame is shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    x = _array(frames)
    figure = _figure(4.2, width=4.0)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0.03, 0.03, 0.94, 0.87))
    limits = (-span, span, -span, span)
    if density is not None:
        _contours(ax, density, limits)
    dots = _dots(ax, x[0], labels, size=4.0, most=len(x[0]))
    _plane(ax, limits)
    _style(ax)
    ax.set_xticks([])
    ax.set_yticks([])
    caption = figure.text(0.03, 0.935, "", fontsize=10.5, color=INK, family="monospace")
    for artist in (dots, caption):
        artist.set_animated(True)
    figure.set_dpi(100)
    canvas.draw()  # what does not move is drawn once
    still = canvas.copy_from_bbox(figure.bbox)
    images = []
    for points, text in zip(x, captions, strict=True):
        canvas.restore_region(still)
        dots.set_offsets(points)
        caption.set_text(text)
        ax.draw_artist(dots)
        figure.draw_artist(caption)
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    palette = images[len(images) // 2].quantize(64)
    entries = palette.getpalette() or []  # the background is white, not nearly
    palette.putpalette([255 if level > 248 else level for level in entries])
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    buffer = io.BytesIO()
    images[0].save(
        buffer, format="GIF", save_all=True, append_images=images[1:], loop=0, optimize=False,
        duration=[milliseconds] * (len(images) - 1) + [2000],
    )  # fmt: skip
    return buffer.getvalue()


# parts ------------------------------------------------------------------------------------------


def _array(x: Any) -> np.ndarray:
    """A tensor of any device, or whatever NumPy takes, as an array."""
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _figure(height: float, *, width: float = _WIDTH) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def _style(ax: Axes, *, title: str = "", labels: tuple[str, str] = ("", "")) -> None:
    ax.set_title(title, fontsize=9.5, color=INK, pad=4)
    ax.set_xlabel(labels[0], fontsize=9, color=INK)
    ax.set_ylabel(labels[1], fontsize=9, color=INK)
    ax.tick_params(labelsize=8.5, color=FAINT, labelcolor=MUTED, length=3)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)


def _plane(ax: Axes, limits: tuple[float, float, float, float]) -> None:
    ax.set_xlim(*limits[:2])
    ax.set_ylim(*limits[2:])
    ax.set_aspect("equal", adjustable="box")


def _limits(x: np.ndarray) -> tuple[float, float, float, float]:
    """A square that holds all but the outermost points [(n, 2)]."""
    if not len(x):
        return (-1.0, 1.0, -1.0, 1.0)
    low, high = np.quantile(x, [0.002, 0.998], axis=0)
    centre, half = (low + high) / 2, 0.6 * float(max((high - low).max(), 1e-6))
    return (centre[0] - half, centre[0] + half, centre[1] - half, centre[1] + half)


def _dots(ax: Axes, x: np.ndarray, labels: Any, *, size: float, most: int = _POINTS) -> Any:
    stride = max(1, math.ceil(len(x) / most))
    x = x[::stride]
    colours: Any = BLUE
    if labels is not None:
        colours = [_COLOURS[int(k) % len(_COLOURS)] for k in _array(labels)[::stride]]
    alpha = 0.35 if len(x) > 1500 else 0.5
    return ax.scatter(x[:, 0], x[:, 1], s=size, c=colours, alpha=alpha, linewidths=0, zorder=2)


def _contours(
    ax: Axes, density: Density, limits: tuple[float, float, float, float], *, side: int = 121
) -> None:
    """Contours that halve the density three times from each to the next, below the points."""
    first = np.linspace(limits[0], limits[1], side)
    second = np.linspace(limits[2], limits[3], side)
    mesh = np.stack(np.meshgrid(first, second), axis=-1)
    height = _array(density(mesh.reshape(-1, 2))).reshape(side, side)
    levels = float(height.max()) * 0.5 ** np.arange(10, -1, -3)
    ax.contour(first, second, height, levels=levels, colors=MUTED, linewidths=0.7, zorder=1)
