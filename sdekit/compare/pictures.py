"""Samples as a report shows them: points in the plane, or small images.

A sample (d,) is the point at its first two coordinates. One of (h, w), or of (c, h, w) with one or
three channels, is an image: averaged down to at most 32 pixels a side, a byte a value between the
1st and 99th percentile of its moment. Samples of other shapes have no picture.
"""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from sdekit._times import expand_like

__all__ = ["frames", "pictured", "still", "wanted"]

_POINTS, _TIMES = 150, 9
_IMAGES, _STILLS = 16, 5  # images at a time, and times
_SIDE = 32  # pixels
_BYTES = 40_000  # of one cell's images
_PLACES = 4  # significant digits of a coordinate


def _image(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(h, w, c) of the images of samples of this shape; None where they are none."""
    if len(shape) not in (2, 3):
        return None
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    if channels not in (1, 3) or 0 in (height, width):
        return None
    return min(height, _SIDE), min(width, _SIDE), channels


def pictured(shape: tuple[int, ...]) -> bool:
    """Whether samples of this shape have a picture."""
    return len(shape) == 1 or _image(shape) is not None


def wanted(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many samples of this shape a picture holds, and at how many times.

    Example:
        >>> wanted((2,)), wanted((1, 28, 28)), wanted((3, 256, 256))
        ((150, 9), (10, 5), (2, 5))
    """
    image = _image(shape)
    if image is None:
        return _POINTS, _TIMES
    h, w, c = image
    return min(_IMAGES, max(1, _BYTES // (_STILLS * h * w * c))), _STILLS


def frames(states: Tensor, t: list[float]) -> dict[str, Any]:
    """The picture of states [(T, n, *shape)] at times t, in plain Python."""
    return {"t": t, **_packed(states)}


def still(points: Tensor) -> dict[str, Any]:
    """The picture of samples [(n, *shape)] that do not move: of all points, of some images."""
    shape = tuple(points.shape[1:])
    return _packed(points[None] if _image(shape) is None else points[None, : wanted(shape)[0]])


def _packed(states: Tensor) -> dict[str, Any]:
    states = states.detach().double().cpu()
    image = _image(tuple(states.shape[2:]))
    if image is None:
        plane = states[..., :2]
        if plane.shape[-1] == 1:
            plane = torch.cat([plane, torch.zeros_like(plane)], dim=-1)
        return {"x": _rounded(plane.tolist())}
    h, w, c = image
    small = adaptive_avg_pool2d(states.reshape(-1, c, *states.shape[-2:]), (h, w))
    small = small.reshape(len(states), -1, c, h, w).movedim(2, -1)
    small = torch.nan_to_num(small, nan=0.0, posinf=0.0, neginf=0.0)
    ends = torch.quantile(small.flatten(1), torch.tensor([0.01, 0.99], dtype=torch.float64), dim=1)
    low, high = (expand_like(end, small) for end in ends)
    level = ((small - low) / (high - low).clamp_min(1e-300)).clamp(0, 1)
    data = bytes((255 * level).round().to(torch.uint8).flatten().tolist())
    return {
        "image": [h, w, c], "count": small.shape[1], "range": _rounded(ends.T.tolist()),
        "bytes": base64.b64encode(data).decode(),
    }  # fmt: skip


def _rounded(value: Any) -> Any:
    """Numbers to a few significant digits, in lists of lists."""
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.{_PLACES}g}")
