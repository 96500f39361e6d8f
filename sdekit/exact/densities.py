r"""The law of what a sampler returns on a mixture along a line, without Monte Carlo.

A deterministic sampler is a map S of the line. Where it rises, quantiles map to quantiles:

    F_out(S(x)) = F_T(x),    p_out(S(x)) = p_T(x) / S'(x).                                      (1)

Where it folds, the masses of its branches add up. Nodes are added until no two neighbours land far
apart. A stochastic one-step sampler is a chain of Gaussian kernels (`sdekit.exact.kernels`).

Mixtures in d dimensions that lie along a line (`sdekit.exact.collinear`) reduce to it exactly:
a sampler's steps are the same combinations in every coordinate.

Reference: Song et al., arXiv:2011.13456, appendix D.1, and Khrulkov et al., arXiv:2202.07477 (the
flow as the monotone map of quantiles).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sdekit._check import choice
from sdekit.errors import NonFiniteError, NotAffine
from sdekit.exact.affine import as_gaussian, denoised_gaussian, output_law
from sdekit.exact.collinear import Line, line_of, split
from sdekit.exact.kernels import Map, pushed
from sdekit.exact.line import Array, Law1D
from sdekit.exact.passes import Run, ZeroNoise, column, run_of
from sdekit.model import ExactScore, Predictor
from sdekit.sampling.base import Sampler
from sdekit.sampling.grid import Grid
from sdekit.sampling.setup import evaluating, starting_law
from sdekit.targets import GaussianMixture, Target

__all__ = ["denoised_law", "output_law_1d"]

_SPACINGS = (0.8, 0.65, 0.5, 0.35, 0.25, 0.18)  # of the narrowest kernel
_REFINED = (2, 1, 0.5, 0.25)  # of the gap between the images of neighbouring nodes
_ERROR = 1e-6  # of the law's deviation: where two resolutions agree so far, the finer one stands
_GAP = 0.002  # of the law's width: how far apart two neighbouring nodes may land
_LEAST = 1e-13  # a mass that is not worth a node
_ROUNDS = 60  # of halving: a node's neighbour is then an ulp away


def denoised_law(model: ExactScore, t: float) -> Law1D:
    """The law of E[x_0 | x_t] along the line of the data, with x_t of the true law at t."""
    line, law = line_of(model.target), model.at(t)
    if line is None:
        return _mapped(Law1D.of(law), Map.of(partial(_clean, model, t)))
    along, across = split(model.target, line)
    inside = ExactScore(along, model.sde)
    table = _mapped(Law1D.of(law, along=model.target), Map.of(partial(_clean, inside, t)))
    return replace(table, across=denoised_gaussian(across, model.sde, t))


# deterministic samplers, eq. (1) ----------------------------------------------------------------


def _mapped(start: Law1D, of: Map, factor: float = 1) -> Law1D:
    """The law of S(x) for x of this law; `factor` scales how far apart nodes may land."""
    x = start.x[:: max(1, int(factor))]
    y = of.values(x)
    gap = _GAP * factor * _width(y, start.distribution(x))
    for _ in range(_ROUNDS):
        cdf = start.distribution(x)
        far = (np.abs(np.diff(y)) > gap) & (np.diff(cdf) > _LEAST)
        middle = 0.5 * (x[:-1] + x[1:])[far]
        middle = middle[(middle > x[:-1][far]) & (middle < x[1:][far])]
        if not len(middle):
            break
        order = np.argsort(np.concatenate([x, middle]), kind="stable")
        y = np.concatenate([y, of.values(middle)])[order]
        x = np.concatenate([x, middle])[order]
    if not np.isfinite(y).all():
        raise NonFiniteError("the sampler's map leaves the finite numbers: its output has no law")
    slope = np.abs(of.slopes(x))
    pdf = start.density(x) / np.where(slope > 0, slope, np.inf)
    seen = start.density(x) > 1e-6 * start.pdf.max()
    return _tabulated(y, start.distribution(x), pdf, start.narrowest * float(slope[seen].min()))


def _width(y: Array, cdf: Array) -> float:
    """Between the 1e-6 quantiles at both ends."""
    seen = y[(cdf > 1e-6) & (cdf < 1 - 1e-6)]
    return float(seen.max() - seen.min()) if len(seen) else 1.0


def _tabulated(y: Array, cdf: Array, pdf: Array, narrowest: float) -> Law1D:
    """The law whose mass between two nodes lies between their images y."""
    rise = np.diff(y)
    if (rise <= 0).all():
        y, cdf, pdf, rise = y[::-1], 1 - cdf[::-1], pdf[::-1], -rise[::-1]
    if (rise >= 0).all():
        kept = np.append(True, rise > 0)
        return Law1D(y[kept], cdf[kept], pdf[kept], narrowest)
    nodes = np.unique(y)  # the map folds: the mass of a cell lies evenly between its ends
    low, high = (np.searchsorted(nodes, f(y[:-1], y[1:])) for f in (np.minimum, np.maximum))
    spread = np.diff(cdf) / np.where(high > low, nodes[high] - nodes[low], np.inf)
    density = np.zeros(len(nodes))
    np.add.at(density, low, spread)
    np.add.at(density, high, -spread)
    density = np.clip(np.cumsum(density), 0.0, None)
    total = np.concatenate([[0.0], np.cumsum(density[:-1] * np.diff(nodes))])
    beside = np.concatenate([density[:1], density[:-1]])
    return Law1D(nodes, total / total[-1], 0.5 * (density + beside) / total[-1], narrowest)


def _whole(run: Run) -> Map:
    """S and S' of a deterministic run."""

    def values(x: Array) -> Array:
        with torch.no_grad():
            *_, last = run.frames(column(x), ZeroNoise())
        return last.x.reshape(-1).numpy()

    def slopes(x: Array) -> Array:
        marks = run.marks(column(x))
        ones = torch.ones_like(marks[-1].frame.x)
        return run.backward(marks, ones, lambda k, kick: None).reshape(-1).numpy()

    return Map(values, slopes)


def _forward(run: Run, x: Array) -> Iterator[tuple[float, Array]]:
    """The time and the states after every row of a deterministic run."""
    with torch.no_grad():
        for frame in run.frames(column(x), ZeroNoise()):
            yield frame.t, frame.x.reshape(-1).numpy()


# both -------------------------------------------------------------------------------------------


def output_law_1d(
    sampler: str | Sampler,
    model: Predictor,
    *,
    steps: int | None = None,
    grid: str | Grid | Tensor = "uniform",
    prior: str | Target = "standard",
    denoise: bool = False,
    keep: str | None = None,
) -> Law1D:
    """The law of what `sample` returns on a mixture along a line, by quadrature.

    Deterministic samplers of any kind, multistep ones too; stochastic samplers that take one step
    a row and add their noise last.

    Args:
        sampler: a sampler, or the spelling of one.
        model: an `ExactScore` of a Gaussian or a mixture along a line, or any predictor in one
            dimension.
        steps: as for `sample`.
        grid: as for `sample`.
        prior: as for `sample`: "standard", "matched", or the law of x at grid[0].
        denoise: as for `sample`.
        keep: "all" keeps the law at the start and after every row, in `.path`.

    Returns:
        The law; `.error` is the quadrature's, measured at two resolutions, as a W2.

    Raises:
        NotAffine: the data do not lie along a line, the prior does not split along it, or the
            sampler is adaptive, has several draws a row or a memory with noise.
        NonFiniteError: the run overflows.
        ConfigError, ShapeError, TimeError: of an argument, as for `sample`.

    Example:
        >>> from sdekit import DDPM, ExactScore, make
        >>> target = make("target", "tutorial")  # 0.2 and 0.8 in the data
        >>> law = output_law_1d("ancestral", ExactScore(target, DDPM.linear(100)))
        >>> [round(float(w), 4) for w in law.weights(target)]
        [0.3986, 0.6014]
    """
    if keep is not None:
        choice("keep", keep, ("all",))
    run = run_of(sampler, model, steps, grid, denoise)
    if {"adaptive", "rejects"} & run.sampler.needs:
        raise NotAffine(f"{run.sampler!r} chooses its steps by the samples: it has no exact law")
    target = getattr(run.model, "target", None)
    line = None if target is None else line_of(target)
    d = 1 if line is None else len(line.along)
    start = starting_law(run.model, prior, float(run.grid[0]), (d,))
    if not isinstance(start, GaussianMixture):
        start = as_gaussian(start)
    table = Law1D.of(start, along=target)
    across, inside = None, run
    if line is not None:
        inside, beside = _factors(run, line)
        across = output_law(
            run.sampler, beside.model, grid=run.grid, denoise=denoise,
            prior=split(start, line)[1],
        )  # fmt: skip
    with evaluating(run.model), torch.no_grad():
        path = [(float(run.grid[0]), table), *_rows(inside, table)] if keep else []
        law = _law(inside, table)
    return replace(law, across=across, path=path)


def _factors(run: Run, line: Line) -> tuple[Run, Run]:
    """The run along the line and the run across it.

    Raises:
        NotAffine: they are not its factors: the sampler treats the coordinates differently.
    """
    sde, parts = run.model.sde, split(run.model.target, line)  # type: ignore[attr-defined]
    inside, beside = (replace(run, model=ExactScore(part, sde)) for part in parts)
    x = 2 * sde.prior_std(float(run.grid[0])) * torch.eye(len(line.along), dtype=torch.float64)
    ends = []
    with torch.no_grad():
        starts = (x, x @ line.along[:, None], x @ line.across)
        for factor, start in zip((run, inside, beside), starts, strict=True):
            *_, frame = factor.frames(start, ZeroNoise())
            ends.append(frame.x)
    together = ends[1] * line.along + ends[2] @ line.across.T
    if not float((ends[0] - together).abs().max()) <= 1e-8 * float(ends[0].abs().max()):
        raise NotAffine(
            f"{run.sampler!r} does not take the same combinations in every coordinate: a mixture "
            "along a line does not reduce to one dimension"
        )
    return inside, beside


def _law(run: Run, start: Law1D) -> Law1D:
    """The law of the output: resolutions are refined until two of them agree."""
    tried = _mapped_laws(run, start) if run.is_a_map else _pushed_laws(run, start)
    coarse = next(tried)
    for fine in tried:
        error = fine.wasserstein(coarse)
        if error <= _ERROR * fine.var**0.5:
            break
        coarse = fine
    return replace(fine, error=error)


def _mapped_laws(run: Run, start: Law1D) -> Iterator[Law1D]:
    whole = _whole(run)
    for factor in _REFINED:
        yield _mapped(start, whole, factor)


def _pushed_laws(run: Run, start: Law1D) -> Iterator[Law1D]:
    for spacing in _SPACINGS:
        *_, (t, table) = pushed(run, start, spacing, _mapped)
        law = table()
        if run.denoise and float(run.model.sde.var(t)) > 0:
            law = _mapped(law, Map.of(partial(_clean, run.model, t)))
        yield law


def _clean(model: Predictor, t: float, x: Tensor) -> Tensor:
    """The model's x_0."""
    return model(x, t).x0


def _rows(run: Run, start: Law1D) -> Iterator[tuple[float, Law1D]]:
    """The time and the law after every row."""
    if not run.is_a_map:
        yield from ((t, table()) for t, table in pushed(run, start, _SPACINGS[1], _mapped))
        return
    for k, (t, y) in enumerate(_forward(run, start.x)):
        if k:
            pdf = np.abs(np.gradient(start.cdf, y, edge_order=1))
            yield t, _tabulated(y, start.cdf, pdf, start.narrowest)
