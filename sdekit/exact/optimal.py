r"""Time grids that make a sampler's exact error small, on Gaussians and on mixtures alike.

For data laws p^i and a sampler S on a grid, started from the true x_T, let

    e_i(grid) = W2(S on p^i, p^i_{t_min})                                                       (1)

and let e_i(best) be that of the one named grid whose errors have the least geometric mean. The
grid minimises

    T log mean_i exp(log(e_i(grid) / e_i(best)) / T),                                           (2)

which for small T is the worst ratio: no law may be made worse for the good of the others. The laws
are Gaussians over a spectrum of variances *and* a fixed family of mixtures in one dimension: a
grid that is fitted to Gaussians alone gains a thousandfold there, and loses to a plain one on
mixtures.

A grid is described by its steps in the log-SNR, those of a named grid times exp of a short cosine
series. (1) is computed for all laws at once by running the real sampler on quantiles of x_T, which
a deterministic sampler maps to quantiles of its output. For a stochastic one the law of every
mixture has to be pushed through its kernels, which is dear: there the grid is the best of the named
ones and of a family of powers of sigma / alpha.

References: Sabour et al., arXiv:2404.14507 (schedules optimised for a sampler); Karras et al.,
arXiv:2206.00364, appendix D.1 (powers of sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from sdekit._cache import cached
from sdekit._catalogue import catalogue, make_one
from sdekit._check import finite, floating, integer, shown
from sdekit.errors import ConfigError, SdekitError, ShapeError
from sdekit.exact.affine import output_law
from sdekit.exact.densities import output_law_1d
from sdekit.exact.distances import bures_wasserstein
from sdekit.exact.line import Law1D
from sdekit.model import ExactScore
from sdekit.model.parametrization import Score
from sdekit.model.prediction import Prediction, RawCall
from sdekit.sampling.base import CountedModel, Sampler
from sdekit.sampling.grid import Grid, Karras, resolve_grid
from sdekit.sampling.noise import Zero
from sdekit.sde.base import LinearSDE
from sdekit.targets import Gaussian, GaussianMixture

__all__ = ["FAMILY", "optimal_grid"]

_TEMPERATURE = 0.05  # T of eq. (2)
_QUANTILES = 64  # of x_T for each law
_TERMS = 10  # of the cosine series
_STARTS = 2  # named grids from which the search begins
_ITERATIONS = 80
_POWERS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)  # rho of the grids that stochastic samplers choose from
_SPECTRUM = np.logspace(-3, 1, 9)  # variances, where none are given
_KEPT = 16  # variances of a longer spectrum that are used
_CACHED = 64
_LAWS = 24  # of the family that are drawn


def _family() -> Sequence[GaussianMixture]:
    """Mixtures of unit scale: some by hand, with what is known to be hard, the rest drawn once."""
    rows: list[tuple[list[float], list[float], list[float]]] = [
        ([0.3, 0.7], [-2.0, 1.0], [0.3, 0.3]),
        ([0.5, 0.5], [-1.0, 1.0], [0.1, 0.1]),  # narrow: a steep map between the modes
        ([0.2, 0.5, 0.3], [-1.5, 0.0, 1.5], [0.15, 0.3, 0.1]),
        ([0.1, 0.9], [-1.0, 0.5], [0.05, 0.5]),  # a narrow mode beside a wide one
        ([0.5, 0.5], [-0.5, 0.5], [0.4, 0.4]),  # modes that overlap
        ([0.2, 0.8], [4.2, -4.2], [1.0, 1.0]),  # far apart: alpha_T still tells them apart
        ([0.05, 0.95], [4.0, -0.3], [0.5, 0.5]),  # a rare mode
    ]
    draw = np.random.default_rng(2024)  # of its own: nothing global is touched
    for _ in range(_LAWS):
        k = int(draw.integers(2, 5))
        weights = draw.dirichlet(np.full(k, 2.0))
        means = draw.normal(size=k) * math.exp(draw.uniform(-0.7, 1.0))
        stds = np.exp(draw.uniform(math.log(0.05), math.log(0.8), size=k))
        rows.append((list(weights / weights.sum()), list(means), list(stds)))
    return [_mixture(*row) for row in rows]


def _mixture(
    weights: Sequence[float], means: Sequence[float], stds: Sequence[float]
) -> GaussianMixture:
    return GaussianMixture(
        torch.tensor(weights, dtype=torch.float64),
        torch.tensor(means, dtype=torch.float64)[:, None],
        torch.tensor(stds, dtype=torch.float64).square(),
    )


FAMILY = _family()


class _Bank:
    """The exact scores of many mixtures at once: rows of x belong to the laws in turn.

    Args:
        laws: the mixtures.
        sde: the process.
        n: how many rows each has.
    """

    parametrization = Score()

    def __init__(self, laws: Sequence[GaussianMixture], sde: LinearSDE, n: int) -> None:
        self.sde, self.n = sde, n
        k = max(len(law.weights) for law in laws)
        self.weights, self.means, self.vars = (
            torch.stack([_padded(part(law), k, fill) for law in laws])[..., None]
            for part, fill in (
                (lambda law: law.weights, 0.0),
                (lambda law: law.means[:, 0], 0.0),
                (lambda law: law.covs[:, 0, 0], 1.0),
            )
        )

    def bind(self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> RawCall:
        """The score as a function of (x, float)."""
        held: dict[float, tuple[Tensor, Tensor, Tensor]] = {}

        def score(x: Tensor, t: float) -> Tensor:
            if t not in held:
                alpha, var = float(self.sde.alpha(t)), float(self.sde.var(t))
                spread = alpha**2 * self.vars + var
                held[t] = alpha * self.means, 1 / spread, self.weights.log() - 0.5 * spread.log()
            means, precision, level = held[t]
            gap = x.reshape(-1, 1, self.n) - means
            pull = gap * precision
            share = torch.softmax(level - 0.5 * pull * gap, 1)
            return -(share * pull).sum(1).reshape(-1, 1)

        return score

    def __call__(self, x: Tensor, t: Any, **cond: Any) -> Prediction:
        """The prediction at x [(laws n, 1)] and one time."""
        raw = self.bind(x, (), cond)(x, float(t))
        return Prediction(x, raw, t, (self.sde, self.parametrization))


def _padded(values: Tensor, k: int, fill: float) -> Tensor:
    return torch.cat([values, values.new_full((k - len(values),), fill)])


@dataclass(frozen=True, eq=False)
class _Errors:
    """Eq. (1) of a sampler for a list of laws, as a function of the grid."""

    sampler: Sampler
    sde: LinearSDE
    laws: Sequence[GaussianMixture]

    def __call__(self, grid: Tensor) -> Tensor:
        """e_i [(laws,)]; infinite where the run fails."""
        try:
            with torch.no_grad():
                errors = self._mapped(grid) if self.maps else self._pushed(grid)
        except SdekitError:
            return torch.full((len(self.laws),), torch.inf, dtype=torch.float64)
        return torch.where(torch.isfinite(errors), errors, torch.inf)

    @cached_property
    def maps(self) -> bool:
        """Whether the sampler draws no noise."""
        return "noise" not in self.sampler.needs

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """Quantiles of x_T [(laws n, 1)], and of the true law at the end [(laws, n)]."""
        u = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        found = []
        for t in (self.sde.t_max, self.sde.t_min):
            alpha, var = float(self.sde.alpha(t)), float(self.sde.var(t))
            rows = [Law1D.of(law.perturbed(alpha, var)).quantile(u) for law in self.laws]
            found.append(torch.from_numpy(np.stack(rows)))
        return found[0].reshape(-1, 1), found[1]

    @cached_property
    def _bank(self) -> _Bank:
        return _Bank(self.laws, self.sde, _QUANTILES)

    def _mapped(self, grid: Tensor) -> Tensor:
        start, truth = self._ends
        x = start
        last = {len(grid) - 1}
        for frame in self.sampler.frames(CountedModel(self._bank), start, grid, Zero(), only=last):
            x = frame.x
        return (x.reshape(-1, _QUANTILES) - truth).square().mean(1).sqrt()

    def _pushed(self, grid: Tensor) -> Tensor:
        errors = []
        for law in self.laws:
            model = ExactScore(law, self.sde)
            prior, end = model.at(float(grid[0])), model.at(float(grid[-1]))
            if len(law.weights) == 1:
                start, truth = _single(prior), _single(end)
                single = ExactScore(_single(law), self.sde)
                found = output_law(self.sampler, single, grid=grid, prior=start)
                errors.append(bures_wasserstein(found, truth))
            else:
                pushed = output_law_1d(self.sampler, model, grid=grid, prior=prior)
                errors.append(pushed.wasserstein(Law1D.of(end)))
        return torch.tensor(errors, dtype=torch.float64)


def _single(law: Any) -> Gaussian:
    return Gaussian(law.means[0], law.covs[0])


def optimal_grid(
    sampler: str | Sampler,
    sde: LinearSDE,
    spectrum: Tensor | Gaussian | None = None,
    *,
    steps: int,
) -> Tensor:
    """Times that make the worst exact error of a sampler small, eq. (2); a grid for `sample`.

    Never worse on its own laws than the best named grid, to which it falls back. The result is
    cached; the first call takes seconds.

    Args:
        sampler: a sampler that steps along a grid, or the spelling of one.
        sde: the process.
        spectrum: the variances of the data [(d,)], or a Gaussian that has them; by default 1e-3
            to 10. The mixtures are scaled to the largest of them.
        steps: how many.

    Returns:
        The grid [(steps + 1,)], float64, from t_max to t_min.

    Raises:
        ConfigError: an adaptive sampler, steps < 1, a variance that is negative, or none positive.
        NotAffine: a stochastic sampler that takes several draws a row.

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
    scale = math.sqrt(max(variances) / float(_SPECTRUM.max()))
    family = [
        GaussianMixture(law.weights, scale * law.means, scale**2 * law.covs) for law in FAMILY
    ]
    errors = _Errors(sampler, sde, [])
    if not errors.maps:
        family = family[:4]
    singles = [_mixture([1.0], [scale * 0.3], [math.sqrt(v)]) for v in variances]
    errors = _Errors(sampler, sde, [*family, *singles])
    named = _named(sde, steps, () if errors.maps else _POWERS)
    table = torch.stack([errors(grid) for grid in named])
    mean = table.log().mean(1)
    best = int(mean.argmin())
    reference = table[best].clamp_min(1e-300)

    def ratio(grid: Tensor) -> float:
        logs = (errors(grid).clamp_min(1e-300) / reference).log() / _TEMPERATURE
        if not bool(torch.isfinite(logs).all()):
            return 1e3
        return _TEMPERATURE * float(torch.logsumexp(logs, 0) - math.log(len(logs)))

    if not errors.maps or steps < 2:
        return min(named, key=ratio)
    tried = [_searched(sde, named[i], ratio) for i in mean.argsort().tolist()[:_STARTS]]
    return min([named[best], *tried], key=ratio)


def _named(sde: LinearSDE, steps: int, powers: Sequence[float]) -> list[Tensor]:
    """The grids of the catalogue that serve this process, and powers of sigma / alpha."""
    rules: list[Grid] = [entry.make() for entry in catalogue("grid").values()]
    found: list[Tensor] = []
    for rule in [*rules, *(Karras(rho=rho) for rho in powers)]:
        try:
            found.append(resolve_grid(rule, sde, steps))
        except ConfigError:  # the spacings of a chain, elsewhere
            continue
    return found


def _searched(sde: LinearSDE, base: Tensor, ratio: Callable[[Tensor], float]) -> Tensor:
    """The grid near a named one that minimises the ratio."""
    last = float(sde.var(float(base[-1]))) == 0  # where the log-SNR is infinite
    inner = base[:-1] if last else base
    level = sde.log_snr(inner)
    steps = level.diff()
    n = len(steps)
    if n < 2:
        return base
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    terms = torch.arange(1, min(_TERMS, n), dtype=torch.float64)
    series = torch.cos(math.pi * terms[:, None] * places)

    def grid(weights: np.ndarray) -> Tensor:
        moved = steps * (torch.from_numpy(weights) @ series).clamp(-20, 20).exp()
        share = moved.cumsum(0) / moved.sum()
        inside = level[0] + (level[-1] - level[0]) * share[:-1]
        times = torch.cat([inner[:1], sde.t_from_log_snr(inside), inner[-1:]])
        return torch.cat([times, base[-1:]]) if last else times

    def loss(weights: np.ndarray) -> float:
        times = grid(weights)
        return ratio(times) if bool((times.diff() < 0).all()) else 1e3

    found = minimize(
        loss, np.zeros(len(terms)), method="BFGS", options={"maxiter": _ITERATIONS, "gtol": 1e-3}
    )
    return sde.align(grid(found.x).clamp(sde.t_min, sde.t_max), keep=True)
