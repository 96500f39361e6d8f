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
from compare_tools import small

from sdekit import ExactScore, make, sample
from sdekit.compare import pictures, reporting
from sdekit.compare.measure import measure


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


def test_the_picture_is_that_of_the_first_seed():
    (one,) = small(steps=3, samplers="ddim", sdes="vp", seeds=[5, 2]).cells
    found = measure(one)["picture"]
    model = ExactScore(make("target", "tutorial"), make("sde", "vp"))
    x = sample(model, (60, 2), sampler="ddim", steps=3, seed=5, dtype=torch.float64).x
    assert np.array(found["x"][-1]) == pytest.approx(x.numpy(), rel=1e-3)


TILES = """(() => [...document.querySelectorAll('#pictures canvas')].map((c) => {
  const across = %d, down = %d, size = c.width / Math.max(across, down), side = c.width;
  const pen = c.getContext('2d', { willReadFrequently: true });
  const data = pen.getImageData(0, 0, side, side).data;
  return [...Array(down).keys()].map((j) => [...Array(across).keys()].map((i) => {
    const at = 4 * (Math.floor((j + 0.5) * size) * side + Math.floor((i + 0.5) * size));
    return [...data.slice(at, at + 4)];
  }));
}))()"""  # the pixels of the sheets, from their middles


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
@pytest.mark.parametrize("shape", [(3, 5, 7), (8, 6)])
def test_the_page_shows_images_and_true_ones(tmp_path, shape):
    """Panels of two samplers after one of true samples; the pixels are the bytes."""
    pytest.importorskip("altair", reason="the report extra is not installed")
    pytest.importorskip("vl_convert", reason="the report extra is not installed")
    made = stored(steps=(5,), samplers={"ddim(eta=0.0)": 1, "dpmpp_2m(order=2)": 2})
    for k, cell in enumerate(made.cells):
        moving = states(2, 3, *shape) + k * torch.linspace(0, 1, shape[-1])
        cell["picture"] = pictures.frames(moving, [1.0, 0.0])
    made.truth = dict.fromkeys(made.truth, pictures.still(states(3, *shape)))
    page = tmp_path / "report.html"
    page.write_bytes(reporting.render(made)["report.html"])
    h, w = shape[-2:]
    with Browser.open(page, tmp_path / "profile") as tab:
        ends = tab.run(TILES % (2 * w + 1, 2 * h + 1))  # three images: two rows of two
        tab.run("document.getElementById('time').focus()")
        tab.key("Home", 36)
        starts = tab.run(TILES % (2 * w + 1, 2 * h + 1))
        faults = [one for one in tab.faults() if "willReadFrequently" not in one]  # TILES' own
        said = tab.run("document.getElementById('moment').textContent")
        caption = tab.run("document.getElementById('pictures-caption').textContent")
    assert faults == []
    assert said == "t = 1"
    assert "percentile" in caption
    sde = made.cells[0]["spec"]["sde"]
    moving = [c["picture"] for c in made.cells if c["spec"]["sde"] == sde]
    truth = levels(next(iter(made.truth.values())))[0]
    assert len(ends) == len(starts) == 3
    for moment, seen in ((0, starts), (1, ends)):
        wanted = [truth, *(levels(picture, 2)[moment] for picture in moving)]
        for sheet, images in zip(np.array(seen), wanted, strict=True):
            for n, image in enumerate(images):
                top, left = n // 2 * (h + 1), n % 2 * (w + 1)
                tile = sheet[top : top + h, left : left + w]
                assert (tile[..., :3] == image).all()
                assert (tile[..., 3] == 255).all()
