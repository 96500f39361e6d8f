"""Claim: pictures are the samples: points to four digits, images to a level of 256, small ones.

Averages and percentiles are NumPy's; on the page a tile's pixels are the bytes.
"""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from browser_support import CHROMIUM, Browser
from compare_support import stored

from sdekit.compare import pictures, reporting


def states(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def levels(found, times=1):
    """The bytes [(T, n, h, w, c)]."""
    data = np.frombuffer(base64.b64decode(found["bytes"]), dtype=np.uint8)
    return data.reshape(times, found["count"], *found["image"])


@pytest.mark.parametrize("shape", [(2,), (64,)])
def test_points_are_the_first_two_coordinates(shape):
    x = states(3, 5, *shape)
    found = pictures.frames(x, [1.0, 0.5, 0.0])
    assert found["t"] == [1.0, 0.5, 0.0]
    assert np.array(found["x"]) == pytest.approx(x[..., :2].numpy(), rel=1e-3)


def test_points_of_a_line_are_at_height_0():
    found = np.array(pictures.still(states(7, 1))["x"])
    assert found.shape == (1, 7, 2)
    assert (found[..., 1] == 0).all()


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 5, 7)])
def test_images_are_levels_between_the_percentiles_of_their_moment(shape):
    x = states(2, 4, *shape)
    found = pictures.frames(x, [1.0, 0.0])
    c = shape[0] if len(shape) == 3 else 1
    assert found["image"] == [*shape[-2:], c]
    want = x.numpy().reshape(2, 4, c, *shape[-2:])
    for k, moment in enumerate(want):
        low, high = np.percentile(moment, [1, 99])
        grey = 255 * np.clip((moment - low) / (high - low), 0, 1)
        assert np.abs(levels(found, 2)[k] - np.moveaxis(grey, 1, -1)).max() <= 0.5 + 1e-9
        assert found["range"][k] == pytest.approx([low, high], rel=1e-3)


def test_large_images_are_averaged():
    x = states(2, 1, 64, 128)
    mean = x.numpy().reshape(2, 32, 2, 32, 4).mean(axis=(2, 4))
    low, high = np.percentile(mean, [1, 99])
    grey = 255 * np.clip((mean - low) / (high - low), 0, 1)
    assert np.abs(levels(pictures.still(x))[0, ..., 0] - grey).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("shape", [(8, 8), (1, 28, 28), (3, 32, 32), (3, 1024, 512)])
def test_a_cell_s_images_are_small(shape):
    n, times = pictures.wanted(shape)
    assert n >= 1
    found = pictures.frames(states(times, n, *shape), [0.0] * times)
    assert len(found["bytes"]) < 60_000


@pytest.mark.parametrize("shape", [(2, 8, 8), (4, 3, 8, 8), (1, 0, 3), ()])
def test_other_shapes_have_none(shape):
    assert not pictures.pictured(shape)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e300])
def test_images_without_contrast_or_sense_are_drawn(value):
    x = torch.full((1, 2, 1, 4, 4), value, dtype=torch.float64)
    assert levels(pictures.frames(x, [0.0])).max() == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
def test_the_page_shows_images_and_true_ones(tmp_path):
    """Panels of two samplers after one of true samples; the pixels are the bytes."""
    pytest.importorskip("altair", reason="the report extra is not installed")
    pytest.importorskip("vl_convert", reason="the report extra is not installed")
    made = stored(steps=(5,), samplers={"ddim(eta=0.0)": 1, "dpmpp_2m(order=2)": 2})
    for k, cell in enumerate(made.cells):
        moving = states(2, 4, 3, 6, 6) + k * torch.linspace(0, 1, 6)
        cell["picture"] = pictures.frames(moving, [1.0, 0.0])
    made.truth = dict.fromkeys(made.truth, pictures.still(states(9, 3, 6, 6)))
    page = tmp_path / "report.html"
    page.write_bytes(reporting.render(made)["report.html"])
    canvases = "[...document.querySelectorAll('#pictures canvas')]"
    with Browser.open(page, tmp_path / "profile") as tab:
        before = tab.run(f"{canvases}.map((c) => c.toDataURL())")
        middle = tab.run(f"""{canvases}.map((c) => [...c.getContext('2d').getImageData(
          c.width / 26, c.width / 26, 1, 1).data])""")  # of the first pixel: 13 are in a row
        tab.run("document.getElementById('time').focus()")
        tab.key("Home", 36)
        after = tab.run(f"{canvases}.map((c) => c.toDataURL())")
        said = tab.run("document.getElementById('moment').textContent")
        caption = tab.run("document.getElementById('pictures-caption').textContent")
        assert tab.faults() == []
    assert len(before) == len(set(before)) == 3
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] + [False] * 2
    assert said == "t = 1"
    assert "percentile" in caption
    sde = made.cells[0]["spec"]["sde"]
    first = [levels(c["picture"], 2)[1, 0, 0, 0] for c in made.cells if c["spec"]["sde"] == sde]
    assert [pixel[:3] for pixel in middle[1:]] == [one.tolist() for one in first]
