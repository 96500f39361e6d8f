"""Claim: a result is what the run did, and its table, pictures and files hold those numbers.

A stopped run says so, and its last kept state is that of the stop; a file is whole or not there,
takes nobody's place unasked, and gives every array back.
"""

from __future__ import annotations

import io
import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from sdekit import VPSDE, ExactScore, Gaussian, GaussianMixture, sample
from sdekit.errors import CheckpointError, ConfigError, DtypeError
from sdekit.model.parametrization import Eps
from sdekit.model.prediction import Prediction
from sdekit.sampling import SampleResult

PLANE = ExactScore(GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0), VPSDE())
LINE = ExactScore(GaussianMixture([0.2, 0.8], [[3.0], [-3.0]], 1.0), VPSDE())


class Pixels:
    """Images of independent standard normal pixels."""

    sde = VPSDE()

    def __call__(self, x, t, **cond):
        return Prediction(x, x * self.sde.sigma(t).to(x), t, (self.sde, Eps()))


def run(model=PLANE, shape=(40, 2), **how) -> SampleResult:
    return sample(model, shape, **{"steps": 8, "seed": 0, "keep": 5, **how})


# stopped ----------------------------------------------------------------------------------------


def test_a_run_that_reaches_its_end_was_not_stopped():
    whole = run(callback=lambda frame: frame.step == 8)
    assert whole.stopped_at is None
    assert whole.trajectory_step.tolist() == [0, 2, 4, 6, 8]
    assert torch.equal(whole.trajectory_t, whole.grid[::2])
    assert torch.equal(whole.trajectory[-1], whole.x)


@pytest.mark.parametrize(
    ("at", "steps"), [(0, [0]), (3, [0, 2, 3]), (4, [0, 2, 4]), (7, [0, 2, 4, 6, 7])]
)
def test_a_stopped_run_says_where_and_keeps_that_state(at, steps):
    stopped, whole = run(callback=lambda frame: frame.step == at), run(keep="all")
    assert stopped.stopped_at == float(whole.grid[at])
    assert torch.equal(stopped.grid, whole.grid[: at + 1])
    assert stopped.nfe == at
    assert stopped.trajectory_step.tolist() == steps
    assert torch.equal(stopped.trajectory_t, whole.grid[steps])
    assert torch.equal(stopped.trajectory, whole.trajectory[steps])
    assert torch.equal(stopped.x, whole.trajectory[at])


def test_chunks_that_stop_apart_share_the_states_that_all_have():
    """The first chunk stops after three steps, the second goes on to its end."""
    calls = []

    def stop(frame):
        calls.append(frame.step)
        return calls.count(0) == 1 and frame.step == 3

    result = run(chunk=20, callback=stop)
    whole = run(keep="all")
    assert result.stopped_at == float(whole.grid[3])
    assert result.trajectory_step.tolist() == [0, 2]
    assert torch.equal(result.trajectory, whole.trajectory[[0, 2]])
    assert torch.equal(result.x[:20], whole.trajectory[3, :20])
    assert torch.equal(result.x[20:], whole.x[20:])
    assert len(result.grid) == 9


def test_nothing_kept_and_no_samples():
    plain, none = run(keep=None), run(shape=(0, 2))
    assert plain.trajectory is plain.trajectory_t is plain.trajectory_step is None
    assert none.trajectory.shape == (5, 0, 2)
    assert none.trajectory_step.tolist() == [0, 2, 4, 6, 8]
    assert none.stopped_at is None


# table ------------------------------------------------------------------------------------------


def test_the_table_has_a_row_a_sample_and_every_number():
    pytest.importorskip("pandas")
    result = run()
    table = result.to_dataframe()
    assert list(table.columns) == ["x0", "x1"]
    assert np.array_equal(table.to_numpy(), result.x.numpy())
    images = sample(Pixels(), (3, 1, 2, 2), steps=2, seed=0).to_dataframe()
    assert list(images.columns) == ["x0", "x1", "x2", "x3"]
    assert run(shape=(0, 2)).to_dataframe().shape == (0, 2)


def test_the_long_table_names_sample_step_and_time():
    pytest.importorskip("pandas")
    result = run(shape=(3, 2))
    table = result.to_dataframe(trajectory=True)
    assert list(table.columns) == ["sample", "step", "t", "x0", "x1"]
    assert len(table) == 15
    one = table[(table["sample"] == 2) & (table["step"] == 4)]
    assert one["t"].tolist() == [float(result.trajectory_t[2])]
    assert one[["x0", "x1"]].to_numpy().tolist() == [result.trajectory[2, 2].tolist()]


def test_without_pandas_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sdekit\[report\]'"):
        run().to_dataframe()


# pictures ---------------------------------------------------------------------------------------


def drawn(figure):
    """The points of the one scatter of a figure."""
    return max((c.get_offsets() for c in figure.axes[0].collections), key=len)


def test_the_plane_is_a_scatter_of_the_samples_with_the_density_below():
    result = run()
    seen = []

    def density(points):
        seen.append(points.shape)
        return np.exp(-0.5 * (points**2).sum(axis=1))

    figure = result.plot(density=density, title="two modes")
    assert np.allclose(drawn(figure), result.x.numpy())
    assert seen[0][1] == 2
    assert figure.axes[0].get_title() == "two modes"


def test_a_line_is_a_histogram_with_the_density_over_it():
    figure = run(LINE, (500, 1)).plot(density=lambda x: np.exp(-(x[:, 0] ** 2)))
    (ax,) = figure.axes
    width = ax.patches[0].get_width()
    mass = sum(bar.get_height() for bar in ax.patches) * width
    assert mass == pytest.approx(1.0)
    x, y = ax.lines[0].get_data()
    assert np.allclose(y, np.exp(-(x**2)))


def test_images_lie_side_by_side_and_vectors_show_two_dimensions():
    images = sample(Pixels(), (5, 1, 4, 4), steps=2, seed=0, keep="all")
    figure = images.plot()
    assert len(figure.axes) == 5
    shown = figure.axes[3].images[0].get_array()
    x = images.x[3, 0].numpy()
    assert np.allclose(shown, (x - x.min()) / (x.max() - x.min()))
    assert len(images.plot(trajectory=True).axes) == 5 * 3  # a row for each sample
    three = ExactScore(Gaussian([0.0, 0.0, 0.0], 1.0), VPSDE())
    assert "2 of 3 dimensions" in run(three, (9, 3)).plot().axes[0].get_title()


def test_samples_that_are_not_finite_are_left_out_and_counted():
    result = run()
    x = result.x.clone()
    x[:3, 0] = torch.nan
    broken = SampleResult(x=x, nfe=1, grid=result.grid, seconds=0.0)
    figure = broken.plot(title="t")
    assert figure.axes[0].get_title() == "t, 3 of 40 not finite"
    assert np.allclose(drawn(figure), x[3:].numpy())


def test_half_precision_is_drawn():
    half = SampleResult(x=run().x.bfloat16(), nfe=1, grid=run().grid, seconds=0.0)
    assert np.allclose(drawn(half.plot()), half.x.float().numpy())


@pytest.mark.parametrize("x", [torch.zeros(0, 2), torch.full((3, 2), torch.nan)], ids=["0", "nan"])
def test_a_picture_of_nothing_is_refused(x, tmp_path):
    states = torch.stack([x, x])
    times = torch.tensor([1.0, 0.5], dtype=torch.float64)
    nothing = SampleResult(
        x=x, nfe=1, grid=times, seconds=0.0, trajectory=states, trajectory_t=times,
        trajectory_step=torch.tensor([0, 1]),
    )  # fmt: skip
    ask = [
        nothing.plot,
        lambda: nothing.plot(trajectory=True),
        lambda: nothing.animate(tmp_path / "a.gif"),
    ]
    for one in ask:
        with pytest.raises(ConfigError, match=r"needs a finite sample to draw, got none of shape"):
            one()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"density": 3.0}, DtypeError, "density must be a function"),
        ({"title": 3}, DtypeError, "title must be a string, got 3"),
    ],
)
def test_wrong_options_of_a_picture(options, error, says):
    with pytest.raises(error, match=says):
        run().plot(**options)


@pytest.mark.parametrize("span", [0.0, -1.0, float("nan"), "wide"])
def test_a_span_is_a_positive_number(span, tmp_path):
    with pytest.raises((ConfigError, DtypeError), match=r"span must be"):
        run(keep="all").animate(tmp_path / "a.gif", span=span)


def test_the_way_is_a_curve_or_a_panel_for_every_kept_state():
    ridges = run(LINE, (300, 1)).plot(trajectory=True)
    assert len(ridges.axes[0].lines) == 5
    panels = run().plot(trajectory=True)
    assert [ax.get_title() for ax in panels.axes] == [
        f"t = {t:.3g}" for t in run().trajectory_t.tolist()
    ]


@pytest.mark.parametrize("kind", ["plane", "line", "images"])
def test_an_animation_has_a_frame_for_every_kept_state(kind, tmp_path):
    model, shape = {
        "plane": (PLANE, (30, 2)), "line": (LINE, (30, 1)), "images": (Pixels(), (4, 1, 3, 3)),
    }[kind]  # fmt: skip
    path = run(model, shape).animate(tmp_path / "way.gif", milliseconds=40)
    with Image.open(path) as gif:
        assert gif.n_frames == 5
        frames = []
        for k in range(5):
            gif.seek(k)
            frames.append((gif.info["duration"], gif.convert("RGB").tobytes()))
    assert [duration for duration, _ in frames] == [40] * 4 + [2000]
    assert len({data for _, data in frames}) == 5


@pytest.mark.parametrize(
    "call",
    [
        lambda result, folder: result.animate(folder / "a.gif"),
        lambda result, folder: result.plot(trajectory=True),
        lambda result, folder: result.to_dataframe(trajectory=True),
    ],
)
def test_without_kept_states_what_would_keep_them_is_named(call, tmp_path):
    pytest.importorskip("pandas")
    with pytest.raises(ConfigError, match="keep='all'"):
        call(run(keep=None), tmp_path)


# files ------------------------------------------------------------------------------------------


def test_an_npz_gives_every_array_back(tmp_path):
    result = run(callback=lambda frame: frame.step == 3)
    path = result.save(tmp_path / "new" / "a.npz", meta={"seed": 0})
    with np.load(path, allow_pickle=False) as found:
        for name in ("x", "trajectory", "trajectory_t", "trajectory_step"):
            assert np.array_equal(found[name], getattr(result, name).numpy()), name
        assert np.array_equal(found["t"], result.grid.numpy())
        assert int(found["nfe"]) == 3
        assert float(found["seconds"]) == result.seconds
        assert float(found["stopped_at"]) == result.stopped_at
        assert json.loads(str(found["meta"])) == {"seed": 0}
    with np.load(run(keep=None).save(tmp_path / "b.npz")) as found:
        assert set(found) == {"x", "t", "nfe", "seconds", "meta"}


def test_safetensors_keep_the_dtype(tmp_path):
    result = run(dtype=torch.bfloat16)
    path = result.save(tmp_path / "a.safetensors", meta={"a": [1]})
    with safe_open(path, "pt") as found:
        assert torch.equal(found.get_tensor("x"), result.x)
        assert torch.equal(found.get_tensor("trajectory"), result.trajectory)
        assert torch.equal(found.get_tensor("t"), result.grid)
        assert json.loads(found.metadata()["meta"]) == {"a": [1]}
    with np.load(result.save(tmp_path / "a.npz")) as found:
        assert np.array_equal(found["x"], result.x.float().numpy())


def test_nothing_is_replaced_unasked_and_no_link_followed(tmp_path):
    result, path = run(), tmp_path / "a.npz"
    path.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="overwrite=True"):
        result.save(path)
    assert path.read_bytes() == b"mine"
    result.save(path, overwrite=True)
    assert np.load(path)["x"].shape == (40, 2)
    (tmp_path / "link.npz").symlink_to(path)
    with pytest.raises(CheckpointError, match="symbolic link") as caught:
        result.save(tmp_path / "link.npz", overwrite=True)
    assert caught.value.kind == "unsafe"
    os.mkfifo(tmp_path / "pipe.gif")
    with pytest.raises(CheckpointError, match="not a regular file"):
        result.animate(tmp_path / "pipe.gif", overwrite=True)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    result, path = run(), tmp_path / "a.npz"
    result.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space"):
        result.save(path, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda r, f: r.save(f / "a.txt"), ConfigError, ".npz or .safetensors"),
        (lambda r, f: r.save(3), DtypeError, "path"),
        (lambda r, f: r.save(f / "a.npz", meta={"a": object()}), ConfigError, "meta"),
        (lambda r, f: r.save(f / "a.npz", meta={"a": float("nan")}), ConfigError, "meta"),
        (lambda r, f: r.plot(f / "a.jpg"), ConfigError, ".png"),
        (lambda r, f: r.animate(f / "a.png"), ConfigError, ".gif"),
        (lambda r, f: r.animate(f / "a.gif", milliseconds=0), ConfigError, "milliseconds"),
    ],
)
def test_refused_before_anything_is_written(call, error, said, tmp_path):
    with pytest.raises(error, match=said):
        call(run(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_written_as_it_is_returned(tmp_path):
    from sdekit import plots

    figure = run().plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == plots.png(figure)
    with Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())) as picture:
        assert picture.width == 1000
