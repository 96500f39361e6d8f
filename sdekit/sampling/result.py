"""What a run returned, and what one does with it: a table, a picture, a moving one, a file.

pandas, matplotlib and safetensors are imported when they are asked for.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sdekit import _files
from sdekit._check import integer, number, shown
from sdekit._extras import needed
from sdekit.errors import ConfigError, DtypeError

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

    from sdekit.plots.base import Density

__all__ = ["SampleResult"]

_FEW = 8  # samples of a picture that shows the way of each


@dataclass(frozen=True, eq=False)
class SampleResult:
    """What a run returned.

    Attributes:
        x: the samples [(n, *dims)].
        nfe: the network calls that each sample took, counted.
        grid: the times that the run visited [(K + 1,)], float64.
        seconds: wall time.
        trajectory: the kept states [(m, n, *dims)] from noise to data, or None. A run that was
            stopped has the state of the stop as its last one.
        trajectory_t: their times [(m,)], or None.
        trajectory_step: the numbers of steps done at them [(m,)], or None.
        rejected: the steps or proposals that a sample had rejected, on average: those of adaptive
            and Metropolis methods, 0 of others; None where the solver does not tell (SciPy's).
        stopped_at: the time at which a callback stopped the run before its end, or None. Where
            chunks stopped apart, the first (largest) of the times; the kept states are then those
            that all chunks have.

    Example:
        >>> import tempfile, pathlib
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian([0.0, 1.0], 1.0), VPSDE())
        >>> result = sample(model, (3, 2), steps=4, seed=0, keep="all")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = result.save(pathlib.Path(folder) / "run.npz", meta={"seed": 0})
        >>> path.name, result.stopped_at
        ('run.npz', None)
    """

    x: Tensor
    nfe: int
    grid: Tensor
    seconds: float
    trajectory: Tensor | None = field(default=None, repr=False)
    trajectory_t: Tensor | None = field(default=None, repr=False)
    trajectory_step: Tensor | None = field(default=None, repr=False)
    stopped_at: float | None = None
    rejected: float | None = 0.0

    def to_dataframe(self, *, trajectory: bool = False) -> Any:
        """The samples as a table of pandas: a row each, with the columns x0, x1, ...

        Args:
            trajectory: a row for each kept state of each sample, with the columns sample, step and
                t before the others.

        Returns:
            A `pandas.DataFrame`; the values of a sample with several dimensions stand in C order.

        Raises:
            ConfigError: trajectory=True for a run that kept no states.
            ModuleNotFoundError: pandas is missing: pip install 'sdekit[report]'.
        """
        pandas = needed("pandas", extra="report", by="to_dataframe")
        size = math.prod(self.x.shape[1:])
        names = [f"x{i}" for i in range(size)]
        if not trajectory:
            return pandas.DataFrame(_array(self.x).reshape(-1, max(size, 1)), columns=names)
        states, t, step = self._kept("to_dataframe(trajectory=True)")
        m, n = states.shape[:2]
        values = _array(states).reshape(-1, max(size, 1))
        table = pandas.DataFrame(values, columns=names)
        table.insert(0, "sample", np.tile(np.arange(n), m))
        table.insert(1, "step", np.repeat(step.numpy(), n))
        table.insert(2, "t", np.repeat(t.numpy(), n))
        return table

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        density: Density | None = None,
        title: str = "",
        trajectory: bool = False,
        overwrite: bool = False,
    ) -> Figure:
        """A picture: a histogram of numbers, a scatter of the plane, images side by side.

        Of vectors in more than two dimensions the first two are drawn. Samples that are not finite
        are left out, and the title says how many.

        Args:
            path: where to write it, a `.png` file; None: nowhere.
            density: a function from points [(m, d)] to densities [(m,)], for d = 1 and 2: a curve
                over the histogram, contours below the scatter.
            title: above the picture.
            trajectory: show the kept states instead: their densities one below the other in one
                dimension, panels in more, and the images of the first samples, a row each.
            overwrite: whether an existing file may be replaced.

        Raises:
            ConfigError: the file exists, has another suffix, no sample is finite, or
                trajectory=True for a run that kept no states.
            DtypeError: density is no function, or title no string.
            CheckpointError: the file cannot be written, or is no plain file ("unsafe").
        """
        from sdekit import plots

        _drawing(density, title)
        target = None if path is None else _target(path, (".png",), overwrite=overwrite)
        if trajectory:
            figure = self._way(title)
        else:
            x, title = _finite_rows("plot", self.x, title)
            figure = plots.samples(x, density=density, title=title)
        if target is not None:
            _files.write(target, plots.png(figure))
        return figure

    def _way(self, title: str) -> Figure:
        """The kept states as a picture."""
        from sdekit import plots

        states, t, _ = self._kept("plot(trajectory=True)")
        rows, title = _finite_rows("plot", states.transpose(0, 1), title)
        states = rows.transpose(0, 1)
        captions = [f"t = {time:.3g}" for time in t.tolist()]
        if states.ndim == 3 and states.shape[2] == 1:
            ends = {"first": f"t={t[0]:.2g}", "last": f"{t[-1]:.2g}"}
            return plots.histogram_ridges(states, title=title, **ends)
        if states.ndim == 3:
            captions[0] = f"{title}{', ' if title else ''}{captions[0]}"
            panels = [
                plots.Panel(c, _array(x)[:, :2]) for c, x in zip(captions, states, strict=True)
            ]
            return plots.forward_strip(panels, span=_span(states[-1]))
        images = rows[:_FEW].flatten(0, 1)
        return plots.image_grid(_array(images), title=title, columns=len(states))

    def animate(
        self,
        path: str | os.PathLike[str],
        *,
        density: Density | None = None,
        span: float | None = None,
        milliseconds: int = 90,
        overwrite: bool = False,
    ) -> Path:
        """The way from noise to data as a GIF: points, a histogram, or the first images.

        Args:
            path: the file, `.gif`.
            density: as for `plot`; drawn in two dimensions.
            span: the axes run from -span to span; by default they hold the last state.
            milliseconds: how long a frame is shown.
            overwrite: whether an existing file may be replaced.

        Returns:
            The path.

        Raises:
            ConfigError: the run kept no states (`sample(..., keep="all")`), or no sample whose
                states are all finite; span <= 0; the file exists or has another suffix.
            DtypeError: density is no function.
            CheckpointError: the file cannot be written, or is no plain file ("unsafe").
        """
        from sdekit import plots

        integer("milliseconds", milliseconds, ge=1)
        span = None if span is None else number("span", span, gt=0)
        _drawing(density, "")
        states, t, _ = self._kept("animate")
        target = _target(path, (".gif",), overwrite=overwrite)
        rows, _ = _finite_rows("animate", states.transpose(0, 1), "")
        states = rows.transpose(0, 1)
        captions = [f"t = {time:.3f}" for time in t.tolist()]
        if states.ndim == 3 and states.shape[2] > 1:
            span = _span(states[-1]) if span is None else span
            data = plots.animate_samples(
                _array(states[..., :2]), captions, density=density, span=span,
                milliseconds=milliseconds,
            )  # fmt: skip
        else:
            figures = _frames(states, captions, span)
            data = plots.animate_figures(figures, milliseconds=milliseconds)
        _files.write(target, data)
        return target

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        meta: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write the result into a file, all or nothing; nothing in it is executed when read.

        The arrays are x, t (the grid), nfe, seconds, and, where there are any, trajectory,
        trajectory_t, trajectory_step and stopped_at. NumPy has no bfloat16: an `.npz` then holds
        float32.

        Args:
            path: `.npz`, or `.safetensors`; its folder is made if need be.
            meta: what else to note, JSON: the text is the array `meta` of an `.npz` and the entry
                `meta` of a safetensors file's metadata.
            overwrite: whether an existing file may be replaced.

        Returns:
            The path.

        Raises:
            ConfigError: the file exists, has another suffix, or meta is no JSON.
            CheckpointError: the file cannot be written, or is no plain file ("unsafe").
        """
        target = _target(path, (".npz", ".safetensors"), overwrite=overwrite)
        try:
            text = json.dumps(dict(meta or {}), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"meta must be what JSON can hold, got {shown(meta)}") from error
        arrays = {
            "x": self.x, "t": self.grid, "nfe": torch.tensor(self.nfe),
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
            "trajectory": self.trajectory, "trajectory_t": self.trajectory_t,
            "trajectory_step": self.trajectory_step,
            "stopped_at": None if self.stopped_at is None
            else torch.tensor(self.stopped_at, dtype=torch.float64),
        }  # fmt: skip
        present = {name: value for name, value in arrays.items() if value is not None}
        if target.suffix == ".npz":
            buffer = io.BytesIO()
            given: dict[str, Any] = {name: _array(value) for name, value in present.items()}
            np.savez(buffer, meta=np.array(text), **given)
            _files.write(target, buffer.getvalue())
        else:
            from safetensors.torch import save

            tensors = {name: value.detach().cpu().contiguous() for name, value in present.items()}
            _files.write(target, save(tensors, metadata={"meta": text}))
        return target

    def _kept(self, what: str) -> tuple[Tensor, Tensor, Tensor]:
        """The kept states, their times and numbers of steps.

        Raises:
            ConfigError: there are none.
        """
        if self.trajectory is None or self.trajectory_t is None or self.trajectory_step is None:
            raise ConfigError(
                f"{what} needs the states of the run, and none were kept: sample(..., keep='all') "
                "keeps them, keep=20 that many"
            )
        return self.trajectory, self.trajectory_t, self.trajectory_step


def _array(x: Tensor) -> np.ndarray:
    """A tensor of any device and floating type as an array."""
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def _drawing(density: object, title: object) -> None:
    """Refuse what is no function of points, or no title."""
    if density is not None and not callable(density):
        raise DtypeError(f"density must be a function of points or None, got {shown(density)}")
    if not isinstance(title, str):
        raise DtypeError(f"title must be a string, got {shown(title)}")


def _finite_rows(what: str, x: Tensor, title: str) -> tuple[Tensor, str]:
    """The samples [(n, ...)] that are finite, and a title that says how many are not.

    Raises:
        ConfigError: there are none to draw.
    """
    x = torch.from_numpy(_array(x))
    finite = (
        torch.isfinite(x).reshape(len(x), -1).all(dim=1) if x.numel() else torch.zeros(0).bool()
    )
    if not finite.any():
        raise ConfigError(f"{what} needs a finite sample to draw, got none of shape {[*x.shape]}")
    lost = len(x) - int(finite.sum())
    if lost:
        title = f"{title}{', ' if title else ''}{lost} of {len(x)} not finite"
    return x[finite], title


def _span(x: Tensor) -> float:
    """Half the side of a square about 0 that holds all but the outermost points."""
    values = _array(x.double()).reshape(-1)
    return 1.25 * float(np.quantile(np.abs(values), 0.998)) if values.any() else 1.0


def _frames(states: Tensor, captions: list[str], span: float | None) -> Iterator[Figure]:
    """A picture of each kept state, drawn when its turn comes."""
    from sdekit import plots

    span = _span(states[-1]) if span is None else span
    for caption, x in zip(captions, states, strict=True):
        if x.ndim in (3, 4):
            yield plots.image_grid(_array(x[: _FEW**2]), title=caption)
        else:
            yield plots.histogram(_array(x), title=caption, span=span)


def _target(path: Any, suffixes: tuple[str, ...], *, overwrite: bool) -> Path:
    """The path of a file that may be written, its folder made.

    Raises:
        ConfigError: another suffix, or a file that exists and may not be replaced.
        DtypeError: no path.
        CheckpointError: no plain file.
    """
    try:
        target = Path(path)
    except TypeError:
        raise DtypeError(f"path must be the path of a file, got {shown(path)}") from None
    if target.suffix not in suffixes:
        raise ConfigError(f"path must end in {' or '.join(suffixes)}, got {shown(str(path))}")
    _files.regular(target, missing=True)
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists; use overwrite=True, or another name")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{target.parent} cannot be made: {error.strerror or error}") from None
    return target
