r"""The law of what a fixed-grid sampler returns on Gaussian data, without Monte Carlo.

With Gaussian data the score is affine, so a sampler that steps along a given grid maps its start
and its draws of noise affinely to its output,

    x = b + A x_T + sum_k K_k z_k,                                                              (1)

whatever its order, its memory of earlier steps, or the correctors between them. Hence, for a start
of mean m and covariance S,

    E x = b + A m,        Cov x = A S A^T + sum_k K_k K_k^T.                                    (2)

b is the *real* sampler's output from 0 without noise; A and the K_k are its derivatives, by one
backward pass. In the eigenbasis of the data's
covariance the coordinates never meet: one row of d numbers then carries a whole spectrum of
variances. A model that is affine without such a basis takes a row for each coordinate.

Whether (1) holds at all is measured: it must say what the sampler S as it is, run in the original
coordinates, makes of a random start u and random draws a. Where it does not, the defect of

    S(u + v, a + b) - S(u, a) - S(v, b) + S(0, 0) = 0                                           (3)

tells a sampler that is not affine from one that autograd cannot see through.

Reference: Pierret and Galerne, arXiv:2405.14250, sections 3 and 4, who derive (2) by hand for five
samplers on centred data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sdekit._check import integer, shown
from sdekit.errors import NonFiniteError, NotAffine, ShapeError
from sdekit.exact.passes import Run, run_of
from sdekit.model import ExactScore, Moments, Predictor
from sdekit.sampling.base import Sampler
from sdekit.sampling.grid import Grid, resolve_grid
from sdekit.sampling.noise import KeyedNoise
from sdekit.sampling.setup import evaluating, sde_of, starting_law
from sdekit.sde.base import LinearSDE
from sdekit.targets import Gaussian, Target

__all__ = ["AffineMap", "affine_map", "as_gaussian", "denoised_gaussian", "output_law"]

_DEFECT = 1e-9  # of the output's size: what rounding leaves between eq. (1) and a run
_ROUNDING = 2.0**-46  # of the largest state on the way, which a later step may shrink
_PROBE = 2024  # the key of the draws in eq. (3)


@dataclass(frozen=True, eq=False)
class AffineMap:
    """Eq. (1), in the basis of the columns of `vectors`.

    Attributes:
        offset: b [(d,)].
        start: A, its diagonal [(d,)] where coordinates do not meet, else [(d, d)].
        noise: sum_k K_k K_k^T, likewise.
        vectors: the basis [(d, d)], or None for the coordinates themselves.
        draws: how many draws of noise a run takes.
        defect: how far eq. (1) is from a random run, as a share of the output's size.
    """

    offset: Tensor
    start: Tensor
    noise: Tensor
    vectors: Tensor | None
    draws: int
    defect: float

    def law(self, start: Gaussian) -> Gaussian:
        """The law of the output, eq. (2), for an x_T of this law."""
        variances, axes = start.spectrum
        mean = _into(self.vectors, start.mean)
        if self.start.ndim == 2:
            centre = self.offset + self.start @ mean
            return _dense(centre, self.start @ start.cov @ self.start.T + self.noise)
        centre = _out_of(self.vectors, self.offset + self.start * mean)
        alike = bool((variances == variances[0]).all())
        if alike or _same(axes, self.vectors):
            spread = self.start.square() * variances + self.noise
            return Gaussian.from_spectrum(centre, spread, self.vectors)
        inner = _into(self.vectors, _into(self.vectors, start.cov).T)
        inner = self.start[:, None] * inner * self.start + self.noise.diag()
        return _dense(centre, _out_of(self.vectors, _out_of(self.vectors, inner).T))


def _dense(mean: Tensor, cov: Tensor) -> Gaussian:
    return Gaussian(mean, (cov + cov.T) / 2)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def _into(vectors: Tensor | None, x: Tensor) -> Tensor:
    """The coordinates of x [(d,) or (d, n)] in the basis."""
    return x if vectors is None else vectors.T @ x


def _out_of(vectors: Tensor | None, x: Tensor) -> Tensor:
    return x if vectors is None else vectors @ x


class _Superposed:
    """u a + v b for fixed draws a and b: those of one term of eq. (3)."""

    def __init__(self, u: float, v: float) -> None:
        self.u, self.v = u, v
        self.source = KeyedNoise(_PROBE)

    def __call__(self, x: Tensor) -> Tensor:
        a, b = self.source(x.expand(2, -1))
        return (self.u * a + self.v * b)[None]


class _Answer(NamedTuple):
    """S(u, a) [(d,)], and how far eq. (1) may be from it, as a share of the output's size."""

    end: Tensor
    allowed: float


def _size(x: Tensor) -> float:
    return float(x.abs().max()) or 1.0


@dataclass(frozen=True, eq=False)
class _Probe:
    """A run in d coordinates, and the size of the starts it is tested with."""

    run: Run
    d: int
    size: float

    def starts(self) -> Tensor:
        """The starts u and v of eq. (3) [(2, d)]."""
        return self.size * KeyedNoise(_PROBE + 1)(torch.empty(2, self.d, dtype=torch.float64))

    def end(self, u: float, v: float) -> tuple[Tensor, float]:
        """One term of eq. (3), a run of its own, and the largest number on the way.

        A batch would not do: its rows would share adaptive steps and norms.
        """
        starts = self.starts()
        x, peak = u * starts[:1] + v * starts[1:], 0.0
        with torch.no_grad():
            for frame in self.run.frames(x, _Superposed(u, v)):
                x = frame.x
                peak = max(peak, float(x.abs().max()))
        if not bool(torch.isfinite(x).all()):
            raise NonFiniteError(
                f"{self.run.sampler!r} leaves the finite numbers on {shown(self.run.model)} "
                "along this grid: its output has no law"
            )
        return x[0], peak

    def superpose(self) -> float:
        """The defect of eq. (3), as a share of the output's size."""
        zero, u, v, both = (self.end(*at)[0] for at in ((0, 0), (1, 0), (0, 1), (1, 1)))
        return float((both - u - v + zero).abs().max()) / _size(both - zero)

    def answer(self) -> _Answer:
        """S(u, a), with which eq. (1) is compared."""
        end, peak = self.end(1, 0)
        return _Answer(end, _DEFECT + _ROUNDING * peak / _size(end))

    def linearise(self, answer: _Answer, vectors: Tensor | None, *, dense: bool) -> AffineMap:
        """Eq. (1) by a backward pass; its defect is that of its answer to u."""
        rows = self.d if dense else 1
        marks = self.run.marks(torch.zeros(rows, self.d, dtype=torch.float64))
        out = marks[-1].frame.x
        ones = torch.eye(self.d, dtype=torch.float64) if dense else torch.ones_like(out)
        noise = torch.zeros((self.d, self.d) if dense else self.d, dtype=torch.float64)
        said = torch.zeros(self.d, dtype=torch.float64)
        like = torch.empty(2, self.d, dtype=torch.float64)

        def seen(k: int, kick: Tensor) -> None:
            z = _into(vectors, KeyedNoise(_PROBE).at(k)(like)[0])
            said.add_(kick @ z if dense else kick[0] * z)
            noise.add_(kick @ kick.T if dense else kick[0].square())

        start = self.run.backward(marks, ones, seen)
        start = start if dense else start[0]
        u = _into(vectors, self.starts()[0])
        said += start @ u if dense else start * u
        away = _out_of(vectors, out[0] + said) - answer.end
        defect = float(away.abs().max()) / _size(answer.end)
        return AffineMap(out[0], start, noise, vectors, marks[-1].draws, defect)


def affine_map(
    sampler: str | Sampler,
    model: Predictor,
    *,
    steps: int | None = None,
    grid: str | Grid | Tensor = "uniform",
    denoise: bool = False,
    size: float | None = None,
    dim: int | None = None,
) -> AffineMap:
    """The affine map that a sampler is on Gaussian data, eq. (1).

    Args:
        sampler: a sampler, or the spelling of one.
        model: as for `output_law`.
        steps: as for `sample`.
        grid: as for `sample`.
        denoise: as for `sample`.
        size: the size of the starts with which eq. (3) is tested; by default the prior's.
        dim: d, where the model has no target that says it.

    Raises:
        NotAffine: eq. (1) does not hold; the measured defect is named.
        NonFiniteError: the run overflows.
        ConfigError, ShapeError, TimeError: of an argument, as for `sample`.

    Example:
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> model = ExactScore(Gaussian([0.0], 1.0), VPSDE())
        >>> found = affine_map("euler_maruyama(eta=0)", model, steps=10)
        >>> round(float(found.start), 12), float(found.noise)  # N(0, 1) is at rest
        (1.0, 0.0)
    """
    run = run_of(sampler, model, steps, grid, denoise)
    d = _dimension(model, dim)
    size = run.model.sde.prior_std(float(run.grid[0])) if size is None else size
    probe = _Probe(run, d, size)
    _refuse_rejection(run.sampler)
    with evaluating(run.model):
        if "adaptive" in run.sampler.needs:  # only the defect is of interest
            raise _not_affine(probe, probe.superpose())
        answer = probe.answer()
        inside, vectors = _eigenbasis(run.model)
        separate = _Probe(replace(run, model=inside), d, size)
        found = separate.linearise(answer, vectors, dense=False)
        if not found.defect <= answer.allowed:  # the coordinates may meet
            found = probe.linearise(answer, None, dense=True)
        if not found.defect <= answer.allowed:
            raise _not_affine(probe, probe.superpose(), found.defect)
    return found


def _refuse_rejection(sampler: Sampler) -> None:
    """NotAffine for a sampler that says so: a few random runs need not meet a rejection."""
    if "rejects" in sampler.needs:
        raise NotAffine(
            f"{sampler!r} keeps or rejects a proposal by the sample: it is not affine, and its "
            "output is not Gaussian"
        )


def _not_affine(probe: _Probe, superposed: float, derived: float | None = None) -> NotAffine:
    run = probe.run
    what = f"{run.sampler!r} on {shown(run.model)} is not affine: superposition fails by"
    if derived is not None and superposed <= _DEFECT:
        return NotAffine(
            f"{what} {superposed:.2g} of the output only, but its derivatives by {derived:.2g}: "
            "it takes values out of autograd's graph"
        )
    return NotAffine(
        f"{what} {superposed:.2g} of the output. Exact laws need Gaussian data, or a model that "
        "is affine, and steps that do not depend on the sample; output_law_1d serves mixtures in "
        "one dimension"
    )


def _dimension(model: Predictor, dim: int | None) -> int:
    shape = getattr(getattr(model, "target", None), "shape", None)
    if shape is None:
        shape = getattr(getattr(model, "moments", None), "shape", None)
    if dim is not None:
        return integer("dim", dim, ge=1)
    if shape is None or len(shape) != 1:
        raise ShapeError(
            f"samples must be vectors of known length: give dim for {shown(model)}, got "
            f"{'no shape' if shape is None else f'the shape {tuple(shape)}'}"
        )
    return int(shape[0])


def _eigenbasis(model: Predictor) -> tuple[Predictor, Tensor | None]:
    """The model in the coordinates in which its data are independent, and that basis."""
    target = getattr(model, "target", None)
    if not isinstance(target, Gaussian) or not isinstance(model, ExactScore):
        return model, None
    variances, vectors = target.spectrum
    if vectors is None:
        return model, None
    return ExactScore(
        Gaussian.from_spectrum(vectors.T @ target.mean, variances), model.sde
    ), vectors


def as_gaussian(law: Moments | Target) -> Gaussian:
    """The Gaussian law that a start has.

    Raises:
        NotAffine: it is no Gaussian.
    """
    if isinstance(law, Moments):
        return law.as_gaussian()
    if isinstance(law, Gaussian):
        return law
    raise NotAffine(f"prior must be Gaussian for an exact law, got {shown(law)}")


def denoised_gaussian(law: Gaussian, sde: LinearSDE, t: float) -> Gaussian:
    """The law of E[x_0 | x_t] for Gaussian data of this law.

    With C its covariance it is N(m, (alpha C)^2 (alpha^2 C + var I)^{-1}).
    """
    alpha, var = float(sde.alpha(t)), float(sde.var(t))
    values, vectors = law.spectrum
    return Gaussian.from_spectrum(
        law.mean, (alpha * values).square() / (alpha**2 * values + var), vectors
    )


def output_law(
    sampler: str | Sampler,
    model: Predictor,
    *,
    steps: int | None = None,
    grid: str | Grid | Tensor = "uniform",
    prior: str | Target = "standard",
    denoise: bool = False,
    dim: int | None = None,
) -> Gaussian:
    """The exact law of what `sample` returns on Gaussian data, eq. (2): no Monte Carlo.

    Any fixed-grid sampler: one-step, multistep, predictor-corrector. The real code runs, in
    float64, once forward and once backward.

    Args:
        sampler: a sampler, or the spelling of one.
        model: an `ExactScore` of a `Gaussian`, or a predictor that is affine in x.
        steps: as for `sample`.
        grid: as for `sample`.
        prior: as for `sample`: "standard", "matched", or a `Gaussian`, the law of x at grid[0].
        denoise: as for `sample`.
        dim: the dimension, where the model has no target that says it.

    Returns:
        The law; `.mean` [(d,)] and `.cov` [(d, d)], `.spectrum` without a matrix.

    Raises:
        NotAffine: the sampler, the model or the prior is not affine; the measured defect of
            superposition is named.
        NonFiniteError: the run overflows.
        ConfigError, ShapeError, TimeError: of an argument, as for `sample`.

    Reference: arXiv:2405.14250, section 4, for the idea on five samplers.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> law = output_law("ddim", model, steps=10)
        >>> [round(v, 4) for v in law.cov.diagonal().tolist()]  # 0.25 in the data
        [0.1402, 0.1402]
    """
    times = resolve_grid(grid, sde_of(model), steps)
    d = _dimension(model, dim)
    start = as_gaussian(starting_law(model, prior, float(times[0]), (d,)))
    size = float((start.spectrum[0].max() + start.mean.square().max()).sqrt())
    found = affine_map(sampler, model, grid=times, denoise=denoise, size=size or 1.0, dim=dim)
    return found.law(start)
