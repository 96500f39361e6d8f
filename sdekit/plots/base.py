"""The one style of all pictures: colours, sheet, axes, points and contours."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "COLOURS",
    "FAINT",
    "INK",
    "KINDS",
    "MUTED",
    "ORANGE",
    "WIDTH",
    "Density",
    "array",
    "contours",
    "dots",
    "plane",
    "png",
    "sheet",
    "style",
]

BLUE, ORANGE, GREEN, INK, MUTED, FAINT = (
    "#0072B2", "#D55E00", "#009E73", "#1a1a1a", "#6b6b6b", "#d0d0d0",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
KINDS = (GREEN, "#8c8c8c", "#CC79A7", "#E69F00")  # of bars: other than those of points
WIDTH = 5.0  # inches
DPI = 200
POINTS = 4000  # more points of a scatter do not show

Density = Callable[[np.ndarray], Any]  # points (m, 2) -> densities (m,)


def png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """The figure as the bytes of a PNG file, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def array(x: Any) -> np.ndarray:
    """A tensor of any device, or whatever NumPy takes, as an array."""
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def sheet(height: float, *, width: float = WIDTH) -> Figure:
    """An empty white figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def style(ax: Axes, *, title: str = "", labels: tuple[str, str] = ("", "")) -> None:
    """Quiet axes with two spines, a title above and labels beside them."""
    ax.set_title(title, fontsize=9.5, color=INK, pad=4)
    ax.set_xlabel(labels[0], fontsize=9, color=INK)
    ax.set_ylabel(labels[1], fontsize=9, color=INK)
    ax.tick_params(labelsize=8.5, color=FAINT, labelcolor=MUTED, length=3)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)


def plane(ax: Axes, limits: tuple[float, float, float, float]) -> None:
    """The same scale on both axes, inside the limits (left, right, bottom, top)."""
    ax.set_xlim(*limits[:2])
    ax.set_ylim(*limits[2:])
    ax.set_aspect("equal", adjustable="box")


def dots(ax: Axes, x: np.ndarray, labels: Any, *, size: float, most: int = POINTS) -> Any:
    """Points [(n, 2)], coloured by their labels; at most `most` of them, evenly chosen."""
    stride = max(1, math.ceil(len(x) / most))
    x = x[::stride]
    colours: Any = BLUE
    if labels is not None:
        colours = [COLOURS[int(k) % len(COLOURS)] for k in array(labels)[::stride]]
    alpha = 0.35 if len(x) > 1500 else 0.5
    return ax.scatter(x[:, 0], x[:, 1], s=size, c=colours, alpha=alpha, linewidths=0, zorder=2)


def contours(
    ax: Axes, density: Density, limits: tuple[float, float, float, float], *, side: int = 121
) -> None:
    """Contours that halve the density three times from each to the next, below the points."""
    first = np.linspace(limits[0], limits[1], side)
    second = np.linspace(limits[2], limits[3], side)
    mesh = np.stack(np.meshgrid(first, second), axis=-1)
    height = array(density(mesh.reshape(-1, 2))).reshape(side, side)
    levels = float(height.max()) * 0.5 ** np.arange(10, -1, -3)
    ax.contour(first, second, height, levels=levels, colors=MUTED, linewidths=0.7, zorder=1)
