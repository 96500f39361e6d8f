"""Claim: the pictures show the numbers they are given, and leave matplotlib's globals alone."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support import REPOSITORY

from sdekit import plots


def bell(points):
    """The density of N(0, I) at points [(m, 2)]."""
    return np.exp(-0.5 * (points**2).sum(axis=1)) / (2 * np.pi)


def test_bars_have_the_lengths_of_the_weights_and_the_line_is_at_the_truth():
    rows = [plots.Bar("a", 0.6, 0.003, "exact"), plots.Bar("b", 0.8, 0.005, "trained")]
    figure = plots.weight_bars(rows, truth=0.8, axis="weight")
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [0.6, 0.8]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.texts] == ["0.600", "0.800"]
    line = next(line for line in ax.lines if line.get_linestyle() == "--")
    assert list(line.get_xdata()) == [0.8, 0.8]
    low, high = ax.collections[0].get_segments()[0][:, 0]
    assert np.allclose([low, high], [0.6 - 0.006, 0.6 + 0.006])


@pytest.mark.parametrize(
    "points",
    [
        torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).requires_grad_(),
        np.random.default_rng(0).normal(size=(50, 2)),
    ],
    ids=["tensor", "array"],
)
def test_a_scatter_draws_every_point_where_it_is(points):
    figure = plots.scatter(points, density=bell, labels=[0, 1] * 25)
    expected = np.asarray(points.detach() if isinstance(points, torch.Tensor) else points)
    drawn = [c for c in figure.axes[0].collections if len(c.get_offsets()) == 50]
    assert len(drawn) == 1
    assert np.allclose(drawn[0].get_offsets(), expected)
    assert len({tuple(colour) for colour in drawn[0].get_facecolors()}) == 2


def test_contours_lie_on_the_levels_of_the_density():
    panel = plots.Panel("t", np.zeros((1, 2)), None, "note")
    figure = plots.density_contours_with_samples([panel] * 3, bell, span=4.0)
    contours = figure.axes[0].collections[0]
    peak = bell(np.zeros((1, 2)))[0]
    for k, path in zip((10, 7, 4, 1), contours.get_paths(), strict=True):
        height = bell(path.vertices)
        assert np.abs(height / (peak * 0.5**k) - 1).max() < 0.02


def test_paths_are_the_given_ones_in_the_given_direction():
    times, paths = np.array([10.0, 5.0, 0.0]), np.arange(6.0).reshape(3, 2)
    values = np.linspace(-4, 4, 50)
    fan = plots.Fan("t", times, paths, [0, 1], values, np.exp(-(values**2)), np.exp(-(values**4)))
    figure = plots.trajectories([fan, fan], axes=("step", "u"), legend=("start", "truth"))
    right = figure.axes[1]
    assert right.get_xlim() == (10.0, 0.0)
    for line, path in zip(right.lines, paths.T, strict=True):
        assert np.array_equal(line.get_xdata(), times)
        assert np.array_equal(line.get_ydata(), path)


def test_an_animation_has_a_frame_a_moment_and_moves_the_points():
    frames = np.zeros((5, 1, 2))
    frames[:, 0, 0] = np.linspace(-3, 3, 5)
    data = plots.animate_samples(frames, [f"step {k}" for k in range(5)], span=4.0)
    image = Image.open(io.BytesIO(data))
    assert image.format == "GIF"
    assert image.n_frames == 5
    assert image.info["loop"] == 0
    places = []
    for k in range(5):
        image.seek(k)
        pixels = np.asarray(image.convert("RGB")).astype(int)[50:]
        blue = (pixels[..., 2] - pixels[..., 0]) > 40
        places.append(np.argwhere(blue)[:, 1].mean())
    assert np.abs(np.diff(places, 2)).max() < 2, "equal moves look equal"
    assert places[0] < 0.2 * image.width
    assert places[-1] > 0.8 * image.width


def test_a_picture_of_every_other_kind_is_drawn():
    x = np.random.default_rng(0).normal(size=(300, 2))
    panels = [plots.Panel(f"t = {k}", x, np.zeros(300)) for k in range(5)]
    for figure in (
        plots.forward_strip(panels, span=3.0),
        plots.histogram(x[:, 0], title="numbers"),
        plots.histogram(np.zeros(5)),
        plots.image_grid(np.zeros((5, 3, 4, 4))),
        plots.image_grid(np.zeros((9, 1, 4, 4))),
        plots.scatter(np.zeros((0, 2))),
    ):
        data = plots.png(figure, dpi=50)
        shown = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        assert np.ptp(shown) > 20, "not an empty sheet"


def test_the_same_figure_gives_the_same_bytes():
    x = np.random.default_rng(0).normal(size=(30, 2))
    assert plots.png(plots.scatter(x), dpi=50) == plots.png(plots.scatter(x), dpi=50)


def test_pyplot_and_its_state_are_not_touched():
    program = (
        "import sys, numpy as np\n"
        "from sdekit import plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plots.png(plots.scatter(np.zeros((3, 2))), dpi=30)\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


PARTS = [
    plots.Part("a", 0.5, 0.01, -0.1, 0.02),
    plots.Part("b", 0.25, 0.0, 0.04),
    plots.Part("rest", -0.15, 0.02, 0.01, 0.01),
]
WHOLE = plots.Part("total", 0.6, 0.03, -0.05, 0.01)


def test_a_waterfall_leads_from_nothing_to_the_total_and_from_the_start_to_the_end():
    figure = plots.waterfall(PARTS, WHOLE, axis="W2", shift_axis="weight", start=0.8)
    first, second = figure.axes
    spans = [
        [(b.get_x(), b.get_x() + b.get_width()) for b in ax.patches] for ax in (first, second)
    ]
    assert np.allclose(spans[0], [(0, 0.5), (0.5, 0.75), (0.75, 0.6), (0, 0.6)])
    assert np.allclose(spans[1], [(0.8, 0.7), (0.7, 0.74), (0.74, 0.75), (0.8, 0.75)])
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b", "rest", "total"]
    assert [text.get_text() for text in first.texts] == ["0.500", "0.250", "-0.150", "0.600"]
    assert [text.get_text() for text in second.texts] == ["-0.100", "+0.040", "+0.010", "0.750"]
    places = [patch.get_y() for patch in first.patches]
    assert places == sorted(places, reverse=True), "the first is above"
    low, high = first.collections[0].get_segments()[0][:, 0]
    assert np.allclose([low, high], [0.5 - 0.02, 0.5 + 0.02])
    up, down, *_ = (patch.get_facecolor() for patch in first.patches[1:])
    assert up != down
    assert len(first.collections) == 3, "no error bar where there is no error"


def test_a_waterfall_without_shifts_has_one_panel():
    bare = [part._replace(shift=None) for part in PARTS]
    assert len(plots.waterfall(bare, WHOLE._replace(shift=None), axis="W2").axes) == 1
