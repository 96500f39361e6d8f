r"""Time grids that make a sampler's exact error small, on Gaussians and on mixtures alike.

For groups i of data laws p and a sampler S on a grid, started from the true x_T, let

    e_i(grid)^2 = mean over p in i of W2(S on p, p_{t_min})^2                                   (1)
    l_i(grid) = log(e_i(grid) / e_i(best))                                                      (2)

where "best" is the one named grid whose errors have the least geometric mean. The grid minimises

    mean_i l_i + price mean_i max(0, l_i + margin).                                             (3)

The first term is what is gained on the whole. The second is dear: no kind of data may be made
worse for the good of the others, and a margin is kept for those that are not among the p. The
groups are Gaussians over a spectrum of variances *and* a fixed family of mixtures in one
dimension: a grid that is fitted to Gaussians alone gains a thousandfold there, and loses to a
plain one on mixtures. A group holds one law in three sizes, for the error at a single law may
vanish by accident.

(3) is minimised over the grids near the best named one (`sdekit.exact.descent`). For a stochastic
sampler the law of every mixture has to be pushed through its kernels, which is dear: there the
grid is the best of the named ones and of a family of powers of sigma / alpha.

References: Sabour et al., arXiv:2404.14507 (schedules optimised for a sampler); Karras et al.,
arXiv:2206.00364, appendix D.1 (powers of sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdekit._cache import cached
from sdekit._catalogue import catalogue, make_one
from sdekit._check import finite, floating, integer, shown
from sdekit.errors import ConfigError, NotAffine, SdekitError, ShapeError
from sdekit.exact.affine import output_law
from sdekit.exact.bank import Laws, MapErrors
from sdekit.exact.densities import output_law_1d
from sdekit.exact.descent import Path, descended, value
from sdekit.exact.line import Law1D
from sdekit.exact.passes import Run
from sdekit.model import ExactScore
from sdekit.sampling.base import Corrector, Sampler
from sdekit.sampling.grid import Karras, resolve_grid
from sdekit.sde.base import LinearSDE
from sdekit.targets import Gaussian, GaussianMixture

__all__ = ["family", "named_grids", "optimal_grid"]

Array = NDArray[np.float64]
Errors = Callable[[Tensor], Tensor]  # of groups, of a grid

_SPECTRUM = np.logspace(-3, 1, 12)  # variances, where none are given
_KEPT = 12  # variances of a longer spectrum that are used
_LAWS = 120  # groups of the family
_SEED = 2024  # from which it is drawn
_SIZES = (0.8, 1.0, 1.25)  # of the laws of a group
_TILT = 0.5  # deviation of log w between them
_OFFSET = 0.3  # mean of the Gaussians, in units of the largest deviation's: nothing is centred
_NODES = 32  # of each law
_PRICE = 60.0  # of eq. (3)
_MARGINS = (0.03, 0.01, 0.0)  # of eq. (3), until one leads to a better grid
_PROGRAMS = 40  # linear ones, of a descent
_FEW = 24  # steps up to which a descent from the named grid itself is tried as well
_LOOSE = (2.0, 0.0, 10)  # price, margin and programs of a descent that finds another start
_PUSHED = 2  # mixtures of the family that are pushed through the kernels of stochastic samplers
_SHORTLIST = 4  # grids along which they are, those that serve Gaussians best
_POWERS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)  # rho of the grids that these choose from
_LEAST = 1e-12  # an error that still has a logarithm
_CACHED = 64


# the laws ---------------------------------------------------------------------------------------


@cache
def family() -> Laws:
    """The mixtures of unit scale, three a group: at random, alike, nested, rare, in combs."""
    draw = np.random.default_rng(_SEED)  # of its own: nothing global is touched

    def log_uniform(low: float, high: float, size: int | None = None) -> Array:
        return np.exp(draw.uniform(math.log(low), math.log(high), size=size))

    def scattered() -> tuple[Array, Array, Array]:
        k = int(draw.integers(2, 5))
        weights = draw.dirichlet(np.full(k, 1.5))
        return weights, draw.normal(size=k) * log_uniform(0.5, 2.7), log_uniform(0.05, 0.8, k)

    def alike() -> tuple[Array, Array, Array]:
        k = int(draw.integers(2, 5))
        means = np.linspace(-1, 1, k) * log_uniform(0.6, 3.7)
        return np.full(k, 1 / k), means, np.full(k, log_uniform(0.05, 0.8))

    def nested() -> tuple[Array, Array, Array]:
        k = int(draw.integers(2, 4))
        return draw.dirichlet(np.full(k, 2.0)), np.zeros(k), log_uniform(0.05, 2.0, k)

    def rare() -> tuple[Array, Array, Array]:
        w, gap = draw.uniform(0.03, 0.5), log_uniform(0.5, 7.4)
        means = np.array([gap * (1 - w), -gap * w])
        return np.array([w, 1 - w]), means, log_uniform(0.05, 1.0, 2)

    def comb() -> tuple[Array, Array, Array]:
        k, gap = int(draw.integers(4, 9)), log_uniform(0.3, 1.2)
        means = gap * (np.arange(k) - (k - 1) / 2)
        return np.full(k, 1 / k), means, np.full(k, gap * draw.uniform(0.08, 0.5))

    def narrow() -> tuple[Array, Array, Array]:
        w, gap = log_uniform(0.01, 0.2), log_uniform(0.4, 8)
        means = np.array([gap * (1 - w), -gap * w])
        return np.array([w, 1 - w]), means, np.array([log_uniform(0.03, 0.3), log_uniform(0.1, 1)])

    kinds = (scattered, alike, nested, rare, comb, narrow)
    laws: list[GaussianMixture] = []
    for i in range(_LAWS):
        weights, means, stds = kinds[i % len(kinds)]()
        for size in _SIZES:
            tilted = weights * np.exp(_TILT * draw.normal(size=len(weights)) * (size != 1))
            laws.append(_mixture(tilted / tilted.sum(), size * means, size * stds))
    return Laws.of(laws)


def _mixture(weights: Array, means: Array, stds: Array) -> GaussianMixture:
    columns = (torch.from_numpy(np.asarray(v, dtype=np.float64)) for v in (weights, means, stds))
    w, m, s = columns
    return GaussianMixture(w, m[:, None], s.square())


def _gaussians(variances: Sequence[float]) -> Laws:
    """One law for every variance, in three sizes."""
    centre = _OFFSET * math.sqrt(max(variances) / float(_SPECTRUM.max()))
    one = np.ones(1)
    return Laws.of(
        [
            _mixture(one, size * centre * one, size * math.sqrt(v) * one)
            for v in variances
            for size in _SIZES
        ]
    )


def _grouped(laws: int) -> Tensor:
    """The weights of squared errors in eq. (1) [(groups, laws)]."""
    size = len(_SIZES)
    return torch.eye(laws // size, dtype=torch.float64).repeat_interleave(size, dim=1) / size


# the grid ---------------------------------------------------------------------------------------


def optimal_grid(
    sampler: str | Sampler,
    sde: LinearSDE,
    spectrum: Tensor | Gaussian | None = None,
    *,
    steps: int,
) -> Tensor:
    """Times that make a sampler's exact errors small, eq. (3); a grid for `sample`.

    The best named grid is returned where nothing better is found. The result is cached; the first
    call takes seconds.

    Args:
        sampler: a sampler that steps along a grid, or the spelling of one.
        sde: the process.
        spectrum: the variances of the data [(d,)], or a Gaussian that has them; by default 1e-3
            to 10. The mixtures are scaled to the largest of them.
        steps: how many.

    Returns:
        The grid [(steps + 1,)], float64, from t_max to t_min.

    Raises:
        ConfigError: an adaptive sampler or a corrector, steps < 1 or more than a chain has, a
            variance that is negative, or none positive; a sampler that does not serve the process.
        ShapeError: a spectrum that is not one-dimensional.
        NotAffine: a stochastic sampler whose steps depend on the sample.

    Example:
        >>> from sdekit import VESDE, ExactScore, make, sample
        >>> grid = optimal_grid("ddim", VESDE(), steps=4)
        >>> model = ExactScore(make("target", "tutorial"), VESDE())
        >>> sample(model, (5, 2), sampler="ddim", grid=grid, seed=0).nfe
        4
    """
    method: Sampler = make_one("sampler", sampler, Sampler)
    if not isinstance(sde, LinearSDE):
        raise ConfigError(f"sde must be a LinearSDE, got {shown(sde)}")
    if "adaptive" in method.needs:
        raise ConfigError(f"sampler must step along a grid, got {method!r}, which chooses its own")
    if isinstance(method, Corrector):
        raise ConfigError(f"sampler must lead from t_max to t_min, got the corrector {method!r}")
    resolve_grid("uniform", sde, integer("steps", steps, ge=1))
    return _found(method, sde, _variances(spectrum), steps).clone()


def _variances(spectrum: Tensor | Gaussian | None) -> tuple[float, ...]:
    if spectrum is None:
        return tuple(_SPECTRUM.tolist())
    values = spectrum.spectrum[0] if isinstance(spectrum, Gaussian) else spectrum
    values = finite("spectrum", floating("spectrum", values)).detach().cpu().double()
    if values.ndim != 1 or not len(values):
        raise ShapeError(f"spectrum must be variances (d,), got shape {tuple(values.shape)}")
    if float(values.min()) < 0 or float(values.max()) <= 0:
        raise ConfigError(
            f"spectrum must be variances >= 0, one of them > 0, got {float(values.min()):g} to "
            f"{float(values.max()):g}"
        )
    ordered = values.clamp_min(1e-8 * float(values.max())).unique()
    kept = torch.linspace(0, len(ordered) - 1, min(len(ordered), _KEPT)).round().long()
    return tuple(ordered[kept.unique()].tolist())


@cached(_CACHED)
def _found(sampler: Sampler, sde: LinearSDE, variances: tuple[float, ...], steps: int) -> Tensor:
    mixtures = family().scaled(math.sqrt(max(variances) / float(_SPECTRUM.max())))
    named = named_grids(sde, steps)
    if not _is_a_map(sampler, sde, mixtures, named):
        powers = [resolve_grid(Karras(rho=rho), sde, steps) for rho in _POWERS]
        return _chosen(_Pushed(sampler, sde, mixtures, variances), [*named, *powers])
    laws = mixtures.joined(_gaussians(variances))
    errors = MapErrors(sampler, sde, laws, _grouped(len(laws)), _NODES)

    def logs_of(grid: Tensor) -> Array:
        return errors(grid).clamp_min(_LEAST).log().numpy()

    table = [(logs_of(grid), grid) for grid in named]
    reference, best = min(table, key=lambda row: float(row[0].mean()))
    path = Path.near(best, sde)
    if not path.terms or not np.isfinite(reference).all():
        return best

    def logs(w: Array) -> Array:
        grid = path(w)
        return np.full(1, np.inf) if grid is None else logs_of(grid) - reference

    start = np.zeros(path.terms)
    starts = [descended(logs, start, *_LOOSE), *([start] if steps <= _FEW else [])]
    for margin in _MARGINS:
        found: list[tuple[float, Tensor]] = []
        for w in starts:
            grid = path(descended(logs, w, _PRICE, margin, _PROGRAMS))
            if grid is not None:
                grid = sde.align(grid, keep=True)
                away = logs_of(grid) - reference
                if value(away, _PRICE, 0.0) < 0:
                    found.append((value(away, _PRICE, margin), grid))
        if found:
            return min(found, key=lambda pair: pair[0])[1]
    return best


def named_grids(sde: LinearSDE, steps: int) -> list[Tensor]:
    """The grids of the catalogue that serve this process and begin at t_max."""
    found: list[Tensor] = []
    for entry in catalogue("grid").values():
        try:
            grid = resolve_grid(entry.make(), sde, steps)
        except ConfigError:  # the spacings of a chain, elsewhere
            continue
        if float(grid[0]) == sde.t_max:  # ddpm_leading leaves the noisiest steps out
            found.append(grid)
    return found


def _is_a_map(sampler: Sampler, sde: LinearSDE, laws: Laws, named: Sequence[Tensor]) -> bool:
    """Whether no noise is drawn, tried on one law.

    Raises:
        SdekitError: the sampler runs along none of the grids.
    """
    failure: SdekitError | None = None
    for grid in named:
        try:
            return Run(sampler, ExactScore(laws[0], sde), grid, denoise=False).is_a_map
        except SdekitError as error:
            failure = error
    assert failure is not None
    raise failure


# stochastic samplers ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Pushed:
    """The errors of a stochastic sampler by its exact laws, of each law alone."""

    sampler: Sampler
    sde: LinearSDE
    mixtures: Laws
    variances: tuple[float, ...]

    def __call__(self, grid: Tensor) -> Tensor:
        """For all variances, and a few mixtures where those can be pushed."""
        middle, size = len(_SIZES) // 2, len(_SIZES)
        found = [self.gaussian(grid)]
        for i in range(_PUSHED):
            model = ExactScore(self.mixtures[size * i + middle], self.sde)
            try:
                found.append(self._pushed(model, grid))
            except NotAffine:  # it draws several times a row, or remembers
                break
        return torch.cat(found)

    def gaussian(self, grid: Tensor) -> Tensor:
        """For all variances [(variances,)]."""
        values = torch.tensor(self.variances, dtype=torch.float64)
        centre = torch.full_like(values, _OFFSET * float(values.max() / _SPECTRUM.max()) ** 0.5)
        model = ExactScore(Gaussian.from_spectrum(centre, values), self.sde)
        law = output_law(self.sampler, model, grid=grid, prior=model.at(float(grid[0])))
        alpha, var = (float(of(float(grid[-1]))) for of in (self.sde.alpha, self.sde.var))
        spread, true = law.spectrum[0], alpha**2 * values + var  # both along the axes
        shift = law.mean - alpha * centre
        return (shift.square() + (spread.sqrt() - true.sqrt()).square()).sqrt()

    def _pushed(self, model: ExactScore, grid: Tensor) -> Tensor:
        first, last = model.at(float(grid[0])), model.at(float(grid[-1]))
        law = output_law_1d(self.sampler, model, grid=grid, prior=first)
        away = law.wasserstein(Law1D.of(last))
        return torch.tensor([away], dtype=torch.float64)


def _chosen(errors: _Pushed, grids: Sequence[Tensor]) -> Tensor:
    """The grid of a list that eq. (3) likes best, against the one of least geometric mean."""
    kept = sorted(_rows(errors.gaussian, grids), key=lambda row: float(row[1].mean()))
    rows = _rows(errors, [grid for grid, _ in kept[:_SHORTLIST]])
    reference = min((logs for _, logs in rows), key=lambda logs: float(logs.mean()))
    return min(rows, key=lambda row: value(row[1] - reference, _PRICE, 0.0))[0]


def _rows(errors: Errors, grids: Sequence[Tensor]) -> list[tuple[Tensor, Array]]:
    """The grids along which the sampler runs, and the logarithms of its errors.

    Raises:
        SdekitError: there is none.
    """
    rows: list[tuple[Tensor, Array]] = []
    failure: SdekitError | None = None
    for grid in grids:
        try:
            rows.append((grid, errors(grid).clamp_min(_LEAST).log().numpy()))
        except SdekitError as error:
            failure = error
    if not rows:
        assert failure is not None
        raise failure
    return rows
