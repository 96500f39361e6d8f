r"""Time grids that make a sampler's exact error small, on Gaussians and on mixtures alike.

For groups i of data laws p and a sampler S on a grid, started from the true x_T, let

    e_i(grid)^2 = mean over p in i of W2(S on p, p_{t_min})^2                                   (1)
    l_i(grid) = log(e_i(grid) / e_i(best))                                                      (2)

where "best" is the one named grid whose errors e_i have the least geometric mean. Near it the mean
of the l_i is minimised, each of them and that of every guard held below 0 at a high price
(`sdekit.exact.descent`; the groups and the guards are in `sdekit.exact.family`). Of more than two
thousand guards only those are watched that some grid on the way has made worse: after each descent
all of them are asked, and those that fared worse are added for the next.

Whether such a grid exists is a property of the sampler. Where the error of the named grid vanishes
by accident, on data whose modes it happens to weigh rightly, almost any other grid is worse: for
Heun on VE none was found that is better on every guard. So every grid on the way keeps the share
of guards that it makes worse, and the caller says what share is allowed: by default none, and then
the best named grid may be what is left.

For a stochastic sampler the law of every mixture has to be pushed through its kernels, which is
dear: there the grid is the best of the named ones and of a family of powers of sigma / alpha.

References: Sabour et al., arXiv:2404.14507 (schedules optimised for a sampler); Karras et al.,
arXiv:2206.00364, appendix D.1 (powers of sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdekit._cache import cached
from sdekit._catalogue import catalogue, make_one
from sdekit._check import finite, floating, integer, number, shown
from sdekit.errors import ConfigError, NotAffine, SdekitError, ShapeError
from sdekit.exact.affine import output_law
from sdekit.exact.bank import Laws
from sdekit.exact.densities import output_law_1d
from sdekit.exact.descent import Merit, Path, descended
from sdekit.exact.family import OFFSET, SIZES, SPECTRUM, family, gaussians, guards
from sdekit.exact.line import Law1D
from sdekit.exact.passes import Run
from sdekit.exact.quadrature import MapErrors
from sdekit.model import ExactScore
from sdekit.sampling.base import Corrector, Sampler
from sdekit.sampling.grid import Karras, resolve_grid
from sdekit.sde.base import LinearSDE
from sdekit.targets import Gaussian

__all__ = ["best_of", "named_grids", "optimal_grid"]

Array = NDArray[np.float64]
Errors = Callable[[Tensor], Tensor]  # of groups, of a grid

_KEPT = 12  # variances of a longer spectrum that are used
_SINGLES = 64  # Gaussians among the guards
_NODES = 48  # of each law
_LOOSE = (2.0, 0.0)  # price and margin of the first descent, which finds a start
_STRICT = (1000.0, 0.01)  # of those after it
_PROGRAMS = (10, 40)  # linear ones, of the first descent and of each other
_ROUNDS = 5  # of descents
_WATCHED = 100  # guards that a round adds, at most
_PRICE = 60.0  # for stochastic samplers
_PUSHED = 2  # mixtures of the family that are pushed through their kernels
_SHORTLIST = 4  # grids along which they are, those that serve Gaussians best
_POWERS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)  # rho of the grids that these choose from
_LEAST = 1e-12  # an error that still has a logarithm
_CACHED = 64


def optimal_grid(
    sampler: str | Sampler,
    sde: LinearSDE,
    spectrum: Tensor | Gaussian | None = None,
    *,
    steps: int,
    risk: float = 0.0,
) -> Tensor:
    """Times that make a sampler's exact errors small; a grid for `sample`.

    The best named grid is returned where nothing better is found. The result is cached; the first
    call takes seconds.

    Args:
        sampler: a sampler that steps along a grid, or the spelling of one.
        sde: the process.
        spectrum: the variances of the data [(d,)], or a Gaussian that has them; by default 1e-3
            to 10. The mixtures are scaled to the largest of them.
        steps: how many.
        risk: the share of 2624 laws, single Gaussians and mixtures of two to seven, that may fare
            worse than along the best named grid; the more, the more is gained on the others.
            Stochastic samplers, which choose from a list, do not use it.

    Returns:
        The grid [(steps + 1,)], float64, from t_max to t_min.

    Raises:
        ConfigError: an adaptive sampler or a corrector, steps < 1 or more than a chain has, a
            variance that is negative, or none positive; a sampler that does not serve the process;
            a risk that is not between 0 and 1.
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
    allowed = number("risk", risk, ge=0.0, le=1.0)
    found = _candidates(method, sde, _variances(spectrum), steps)
    kept = (candidate for candidate in found if candidate.worse <= allowed)
    return max(kept, key=lambda candidate: candidate.gain).grid.clone()


def _variances(spectrum: Tensor | Gaussian | None) -> tuple[float, ...]:
    if spectrum is None:
        return tuple(SPECTRUM.tolist())
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


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A grid, the mean of -l_i over the groups, and the share of the guards that fare worse."""

    grid: Tensor
    gain: float = 0.0
    worse: float = 0.0


@cached(_CACHED)
def _candidates(
    sampler: Sampler, sde: LinearSDE, variances: tuple[float, ...], steps: int
) -> tuple[_Candidate, ...]:
    """The best named grid, and grids near it to which the descents lead."""
    scale = math.sqrt(max(variances) / float(SPECTRUM.max()))
    mixtures = family().scaled(scale)
    named = list(named_grids(sde, steps).values())
    if not _is_a_map(sampler, sde, mixtures, named):
        powers = [resolve_grid(Karras(rho=rho), sde, steps) for rho in _POWERS]
        return (
            _Candidate(_chosen(_Pushed(sampler, sde, mixtures, variances), [*named, *powers])),
        )
    errors = MapErrors(sampler, sde, mixtures.joined(gaussians(variances)), _NODES)
    best = best_of(errors, named)
    path = Path.near(best, sde)
    if not path.terms or not bool(torch.isfinite(errors(best)).all()):
        return (_Candidate(best),)
    spread = np.unique(np.geomspace(min(variances), max(variances), _SINGLES))
    singles = gaussians(spread, sizes=(1.0,))
    watch = _Watch(errors, replace(errors, laws=guards().scaled(scale).joined(singles)), best)

    def changes(w: Array) -> Array:
        grid = path(w)
        return np.full(len(watch), np.inf) if grid is None else watch.changes(grid)

    found = [_Candidate(best)]
    first, programs = _PROGRAMS
    w = descended(changes, np.zeros(path.terms), Merit(watch.groups, *_LOOSE), first)
    for _ in range(_ROUNDS):
        w = descended(changes, w, Merit(watch.groups, *_STRICT), programs)
        grid = path(w)
        if grid is None:  # never, where the errors are finite
            break
        grid = sde.align(grid, keep=True)
        guarded = watch.guarded(grid)
        gain = -float(watch.changes(grid)[: watch.groups].mean())
        found.append(_Candidate(grid, gain, float((~(guarded <= 0)).mean())))
        if not watch.widened(guarded, margin=_STRICT[1]):
            break
    return tuple(found)


def _logs(errors: Tensor) -> Array:
    return errors.clamp_min(_LEAST).log().numpy()


def _of_groups(errors: Tensor) -> Array:
    """log e_i, eq. (1), of groups as large as SIZES [(groups,)]."""
    return _logs(errors.reshape(-1, len(SIZES)).square().mean(1).sqrt())


class _Watch:
    """The groups, all guards, and those of the guards that are watched."""

    def __init__(self, groups: MapErrors, guards: MapErrors, best: Tensor) -> None:
        self.groups = len(groups.laws) // len(SIZES)
        self._alone, self._guards, self._best = groups, guards, best
        self._before = _logs(guards(best))
        self._watch(torch.zeros(0, dtype=torch.long))

    def _watch(self, index: Tensor) -> None:
        self._index = index
        watched = self._guards.laws.taken(index)
        self._errors = replace(self._alone, laws=self._alone.laws.joined(watched))
        self._reference = self._rows(self._best)

    def __len__(self) -> int:
        return len(self._reference)

    def _rows(self, grid: Tensor) -> Array:
        groups, watched = self._errors(grid).tensor_split([len(self._alone.laws)])
        return np.concatenate([_of_groups(groups), _logs(watched)])

    def changes(self, grid: Tensor) -> Array:
        """l_i of the groups, and then the same of the guards that are watched."""
        return self._rows(grid) - self._reference

    def guarded(self, grid: Tensor) -> Array:
        """The same of all guards."""
        return _logs(self._guards(grid)) - self._before

    def widened(self, guarded: Array, margin: float) -> bool:
        """Watch those guards too that came off worst; whether any is new."""
        worst = np.argsort(-guarded)[:_WATCHED]
        risen = torch.from_numpy(worst[guarded[worst] > -margin])
        before = len(self)
        self._watch(torch.cat([self._index, risen]).unique())
        return len(self) > before


def named_grids(sde: LinearSDE, steps: int) -> dict[str, Tensor]:
    """The grids of the catalogue that serve this process and begin at t_max, by their names."""
    found: dict[str, Tensor] = {}
    for name, entry in catalogue("grid").items():
        try:
            grid = resolve_grid(entry.make(), sde, steps)
        except ConfigError:  # the spacings of a chain, elsewhere
            continue
        if float(grid[0]) == sde.t_max:  # ddpm_leading leaves the noisiest steps out
            found[name] = grid
    return found


def best_of(errors: MapErrors, grids: Sequence[Tensor]) -> Tensor:
    """The grid whose errors e_i on the groups have the least geometric mean."""
    return min(grids, key=lambda grid: float(_of_groups(errors(grid)).mean()))


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
        middle, size = len(SIZES) // 2, len(SIZES)
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
        centre = torch.full_like(values, OFFSET * float(values.max() / SPECTRUM.max()) ** 0.5)
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
    """The grid of a list with the least merit, against the one of least geometric mean."""
    kept = sorted(_rows(errors.gaussian, grids), key=lambda row: float(row[1].mean()))
    rows = _rows(errors, [grid for grid, _ in kept[:_SHORTLIST]])
    reference = min((logs for _, logs in rows), key=lambda logs: float(logs.mean()))
    merit = Merit(len(reference), _PRICE, 0.0)
    return min(rows, key=lambda row: merit(row[1] - reference))[0]


def _rows(errors: Errors, grids: Sequence[Tensor]) -> list[tuple[Tensor, Array]]:
    """The grids along which the sampler runs, and the logarithms of its errors.

    Raises:
        SdekitError: there is none.
    """
    rows: list[tuple[Tensor, Array]] = []
    failure: SdekitError | None = None
    for grid in grids:
        try:
            rows.append((grid, _logs(errors(grid))))
        except SdekitError as error:
            failure = error
    if not rows:
        assert failure is not None
        raise failure
    return rows
