"""Moving pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdekit.plots.base import INK, Density, array, contours, dots, plane, sheet, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["animate_figures", "animate_samples"]


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
    from PIL.Image import fromarray

    x = array(frames)
    figure = sheet(4.2, width=4.0)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0.03, 0.03, 0.94, 0.87))
    limits = (-span, span, -span, span)
    if density is not None:
        contours(ax, density, limits)
    moving = dots(ax, x[0], labels, size=4.0, most=len(x[0]))
    plane(ax, limits)
    style(ax)
    ax.set_xticks([])
    ax.set_yticks([])
    caption = figure.text(0.03, 0.935, "", fontsize=10.5, color=INK, family="monospace")
    for artist in (moving, caption):
        artist.set_animated(True)
    figure.set_dpi(100)
    canvas.draw()  # what does not move is drawn once
    still = canvas.copy_from_bbox(figure.bbox)
    images = []
    for points, text in zip(x, captions, strict=True):
        canvas.restore_region(still)
        moving.set_offsets(points)
        caption.set_text(text)
        ax.draw_artist(moving)
        figure.draw_artist(caption)
        images.append(fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return _gif(images, milliseconds)


def animate_figures(figures: Iterable[Figure], *, milliseconds: int = 90) -> bytes:
    """Pictures one after the other as the bytes of a GIF that repeats, as `animate_samples`.

    Args:
        figures: of one size; each is drawn before the next one is asked for.
        milliseconds: how long a frame is shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL.Image import fromarray

    images = []
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(100)
        canvas.draw()
        images.append(fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return _gif(images, milliseconds)


def _gif(images: Sequence[Image], milliseconds: int) -> bytes:
    """Frames as a GIF that stays two seconds on the last one."""
    from PIL.Image import Dither

    palette = images[len(images) // 2].quantize(64)
    entries = palette.getpalette() or []  # the background is white, not nearly
    palette.putpalette([255 if level > 248 else level for level in entries])
    frames = [image.quantize(palette=palette, dither=Dither.NONE) for image in images]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, format="GIF", save_all=True, append_images=frames[1:], loop=0, optimize=False,
        duration=[milliseconds] * (len(frames) - 1) + [2000],
    )  # fmt: skip
    return buffer.getvalue()
