"""Pictures from plain tensors or arrays, in one style, for a page, a terminal user or a paper.

Every function takes data and returns a `matplotlib.figure.Figure` (or, for an animation, the bytes
of a GIF); `png` turns a figure into bytes. matplotlib is imported inside the functions, pyplot and
its global state are never touched: pictures can be made in any thread, and without a display.

The colours are Okabe and Ito's, which stay apart for every common kind of colour vision. Figures
are five inches wide with text of 9 points, readable on a page 400 pixels wide.

Reference: Okabe and Ito 2008, Color Universal Design, https://jfly.uni-koeln.de/color/.
"""

from __future__ import annotations

from sdekit.plots.animation import animate_figures, animate_samples
from sdekit.plots.bars import Bar, Part, waterfall, weight_bars
from sdekit.plots.base import png
from sdekit.plots.points import (
    Fan,
    Panel,
    density_contours_with_samples,
    forward_strip,
    histogram,
    image_grid,
    samples,
    scatter,
    trajectories,
)
from sdekit.plots.ridges import Ridge, histogram_ridges, ridges
from sdekit.plots.tracks import Track, tracks

__all__ = [
    "Bar",
    "Fan",
    "Panel",
    "Part",
    "Ridge",
    "Track",
    "animate_figures",
    "animate_samples",
    "density_contours_with_samples",
    "forward_strip",
    "histogram",
    "histogram_ridges",
    "image_grid",
    "png",
    "ridges",
    "samples",
    "scatter",
    "tracks",
    "trajectories",
    "waterfall",
    "weight_bars",
]
