"""Three ways to have the law of an output: Gaussian, on a line, and as samples.

Each knows the law of a sampler's output, of the data and of the marginal at the last time, and how
far two of its laws are apart. The first two are exact; the third has standard errors.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sdekit._catalogue import make_one
from sdekit.errors import NotAffine
from sdekit.exact.affine import as_gaussian, denoised_gaussian, output_law
from sdekit.exact.densities import denoised_law, output_law_1d
from sdekit.exact.distances import bures_wasserstein, kl_divergence, total_variation
from sdekit.exact.line import Law1D
from sdekit.model import ExactScore, Predictor
from sdekit.sampling import sample
from sdekit.sampling.base import Sampler
from sdekit.sampling.grid import resolve_grid
from sdekit.sampling.plan import plan_for
from sdekit.sampling.setup import starting_law
from sdekit.targets import Gaussian, GaussianMixture, Target

__all__ = ["Effect", "Laws", "laws_for"]

L = TypeVar("L")

_DIRECTIONS = 64  # of the sliced distance
_WIDTH = 1e-6  # that an atom is given, as a share of the variance of the whole law
_BLOCKS = 10  # of samples, whose spread gives the standard errors


@dataclass(frozen=True, eq=False)
class Effect:
    """How far one law is from another.

    Attributes:
        w2: the 2-Wasserstein distance; the sliced one where it comes from samples.
        kl: KL of the first from the second in nats, or None where it is not known.
        tv: the total variation, or None where it is not known.
        weights: the first law's weights of the modes less the second's [(k,)], or None.
        stderr: the standard error of w2; 0 where it is exact.
        weights_stderr: those of the weights [(k,)], or None where they are exact.
    """

    w2: float
    kl: float | None
    tv: float | None
    weights: Tensor | None
    stderr: float = 0.0
    weights_stderr: Tensor | None = None

    def less(self, parts: Sequence[Effect]) -> Effect:
        """This effect less the sum of others, measure by measure."""

        def rest(name: str) -> Any:
            values = [getattr(e, name) for e in (self, *parts)]
            if any(v is None for v in values):
                return None
            if any(isinstance(v, float) and not math.isfinite(v) for v in values):
                return None  # nothing can be taken from infinity
            return values[0] - sum(values[1:])

        spread = [e.weights_stderr for e in (self, *parts)]
        return Effect(
            w2=rest("w2"),
            kl=rest("kl"),
            tv=rest("tv"),
            weights=rest("weights"),
            stderr=math.hypot(*(e.stderr for e in (self, *parts))),
            weights_stderr=None
            if any(s is None for s in spread)
            else torch.stack(spread).square().sum(0).sqrt(),  # type: ignore[arg-type]
        )

    def cells(self, mode: int | None) -> list[str]:
        """W2, KL, TV and the shift of one mode's weight, as they are printed."""
        noise = f" +- {self.stderr:.2g}" if self.stderr else ""
        cells = [f"{self.w2:.4f}{noise}"]
        cells += ["-" if v is None else f"{v:.4f}" for v in (self.kl, self.tv)]
        if mode is not None:
            spread = self.weights_stderr
            noise = "" if spread is None else f" +- {float(spread[mode]):.2g}"
            shift = self.weights
            cells.append("-" if shift is None else f"{float(shift[mode]):+.4f}{noise}")
        return cells


class Laws(ABC, Generic[L]):
    """One way to have laws, for a sampler on the exact score of a target.

    Args:
        sampler: a sampler, or the spelling of one.
        exact: the exact score of the data.
        settings: steps, grid and denoise, as `sample` takes them.
    """

    name: str
    last = True  # False where another exact way is tried next
    error = 0.0  # the largest of a quadrature so far, as a W2

    def __init__(
        self, sampler: str | Sampler, exact: ExactScore, settings: dict[str, Any]
    ) -> None:
        self.sampler: Sampler = make_one("sampler", sampler, Sampler)
        self.exact = exact
        grid = resolve_grid(settings["grid"], exact.sde, settings["steps"])
        self.plan = plan_for(self.sampler, exact.sde, exact.parametrization, grid)
        self.settings = {**settings, "steps": None, "grid": grid}
        self.start, self.end = float(grid[0]), float(self.plan.grid[-1])
        self.denoised = settings["denoise"] and float(exact.sde.var(self.end)) > 0

    def true_start(self) -> Target:
        """The true law of x_T."""
        return self.exact.at(self.start)

    def start_of(self, model: Predictor, prior: str | Target) -> str | Target:
        """The prior that a model is sampled from, for the exact score to start from it too."""
        if prior == "matched":
            shape = tuple(self.exact.target.shape)
            return as_gaussian(starting_law(model, prior, self.start, shape))
        return prior

    @abstractmethod
    def output(self, model: Predictor, prior: str | Target) -> L:
        """The law of what the sampler returns.

        Raises:
            NotAffine: this way does not know it.
        """

    @abstractmethod
    def data(self) -> L:
        """The law of the data."""

    @abstractmethod
    def marginal(self) -> L:
        """The true law at the last time, denoised where the output is."""

    @abstractmethod
    def distance(self, law: L, reference: L) -> tuple[float, float]:
        """W2 alone, without KL and TV, which cost more, and its standard error."""

    @abstractmethod
    def effect(self, law: L, reference: L) -> Effect:
        """How far a law is from another."""

    def weights(self, law: L) -> Tensor | None:
        """The weights of the data's modes in a law [(k,)], where the data have modes."""
        return None

    def floor(self) -> float:
        """The W2 of two draws of one law."""
        return 0.0


class GaussianLaws(Laws[Gaussian]):
    """Gaussian data, by `output_law`."""

    name = "gaussian"
    last = False

    def output(self, model: Predictor, prior: str | Target) -> Gaussian:
        """Exact."""
        d = self._law.shape[0]
        return output_law(self.sampler, model, prior=prior, dim=d, **self.settings)

    @property
    def _law(self) -> Gaussian:
        if not isinstance(self.exact.target, Gaussian):
            raise NotAffine("the data are no Gaussian")
        return self.exact.target

    def data(self) -> Gaussian:
        """The target."""
        return self._law

    def marginal(self) -> Gaussian:
        """N(alpha m, alpha^2 C + var I), or the law of E[x_0 | x_t]."""
        if not self.denoised:
            return self.exact.at(self.end)  # type: ignore[return-value]  # of a Gaussian
        return denoised_gaussian(self._law, self.exact.sde, self.end)

    def distance(self, law: Gaussian, reference: Gaussian) -> tuple[float, float]:
        """In closed form."""
        return bures_wasserstein(law, reference), 0.0

    def effect(self, law: Gaussian, reference: Gaussian) -> Effect:
        """In closed form."""
        return Effect(
            bures_wasserstein(law, reference),
            kl_divergence(law, reference),
            total_variation(law, reference),
            None,
        )


class LineLaws(Laws[Law1D]):
    """Mixtures along a line, by `output_law_1d`."""

    name = "line"

    def output(self, model: Predictor, prior: str | Target) -> Law1D:
        """Exact to the error of the quadrature."""
        if getattr(model, "target", None) is None and self.exact.target.shape != (1,):
            raise NotAffine("a network has an exact law in one dimension only")
        law = output_law_1d(self.sampler, model, prior=prior, **self.settings)
        self.error = max(self.error, law.error)
        return law

    def data(self) -> Law1D:
        """The target along its line."""
        return Law1D.of(self.exact.target)

    def marginal(self) -> Law1D:
        """The mixture at the last time, or its image under E[x_0 | x_t]."""
        if self.denoised:
            return denoised_law(self.exact, self.end)
        return Law1D.of(self.exact.at(self.end), along=self.exact.target)

    def distance(self, law: Law1D, reference: Law1D) -> tuple[float, float]:
        """By quadrature."""
        return law.wasserstein(reference), 0.0

    def effect(self, law: Law1D, reference: Law1D) -> Effect:
        """By quadrature."""
        mine, its = self.weights(law), self.weights(reference)
        return Effect(
            law.wasserstein(reference),
            law.kl(reference),
            law.total_variation(reference),
            None if mine is None or its is None else mine - its,
        )

    def weights(self, law: Law1D) -> Tensor | None:
        """The mass where each mode is the likeliest."""
        target = self.exact.target
        return law.weights(target) if isinstance(target, GaussianMixture) else None


class SampledLaws(Laws[Tensor]):
    """Anything else: samples, with common random numbers.

    Args:
        n: how many.
        seed: of the samples.
    """

    name = "samples"

    def __init__(
        self,
        sampler: str | Sampler,
        exact: ExactScore,
        settings: dict[str, Any],
        n: int,
        seed: int,
    ) -> None:
        super().__init__(sampler, exact, settings)
        self.n, self.seed = n, seed

    def output(self, model: Predictor, prior: str | Target) -> Tensor:
        """Samples of the run."""
        shape = (self.n, *self.exact.target.shape)
        result = sample(
            model, shape, sampler=self.sampler, prior=prior, seed=self.seed, **self.settings
        )
        return result.x.double().cpu()

    def _drawn(self, law: Target, stream: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + stream)
        return law.sample(self.n, generator=generator, dtype=torch.float64)

    def data(self) -> Tensor:
        """Draws of the target."""
        return self._x0

    @cached_property
    def _x0(self) -> Tensor:
        return self._drawn(self.exact.target, 1)

    def marginal(self) -> Tensor:
        """The draws of the data, noised to the last time."""
        t, x0 = self.end, self.data()
        generator = torch.Generator().manual_seed(self.seed + 2)
        z = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        x = self.exact.sde.perturb(x0, t, z) if float(self.exact.sde.var(t)) > 0 else x0
        return self.exact(x, self.end).x0 if self.denoised else x

    def effect(self, law: Tensor, reference: Tensor) -> Effect:
        """The sliced distance, and the shares of samples nearest to each mode."""
        if law is reference:
            shift = self.weights(law)
            still = None if shift is None else torch.zeros_like(shift)
            return Effect(0.0, None, None, still, 0.0, still)
        w2, stderr = self.distance(law, reference)
        mine, its = self.weights(law), self.weights(reference)
        if mine is None or its is None:
            return Effect(w2, None, None, None, stderr)
        spread = ((mine * (1 - mine) + its * (1 - its)) / self.n).sqrt()
        return Effect(w2, None, None, mine - its, stderr, spread)

    def weights(self, law: Tensor) -> Tensor | None:
        """The share of samples for which each mode is the likeliest."""
        if self._modes is None:
            return None
        shares = torch.bincount(self._modes.component(law), minlength=len(self._modes.weights))
        return shares.double() / len(law)

    @cached_property
    def _modes(self) -> GaussianMixture | None:
        """The mixture by which samples belong to modes; atoms have a little width for it."""
        target = self.exact.target
        if not isinstance(target, GaussianMixture):
            return None
        if float(torch.linalg.eigvalsh(target.covs).min()) > 0:
            return target
        return target.perturbed(1.0, _WIDTH * float(target.cov.diagonal().max()) or 1.0)  # type: ignore[return-value]  # of a mixture, a mixture

    def floor(self) -> float:
        """Two draws of the data."""
        return self.distance(self.data(), self._drawn(self.exact.target, 3))[0]

    def distance(self, law: Tensor, reference: Tensor) -> tuple[float, float]:
        """sqrt(d mean over directions of W2^2), and its standard error over blocks of samples.

        The factor d makes it W2 itself for laws that differ by a shift or a scale.
        """
        a, b = (x.reshape(len(x), -1) for x in (law, reference))
        d = a.shape[1]
        generator = torch.Generator().manual_seed(0)
        angles = torch.randn(d, _DIRECTIONS, generator=generator, dtype=torch.float64)
        angles /= angles.norm(dim=0)

        def sliced(x: Tensor, y: Tensor) -> float:
            gap = (x @ angles).sort(dim=0).values - (y @ angles).sort(dim=0).values
            return math.sqrt(d * float(gap.square().mean()))

        blocks = torch.tensor(
            [sliced(x, y) for x, y in zip(a.chunk(_BLOCKS), b.chunk(_BLOCKS), strict=True)]
        )
        return sliced(a, b), float(blocks.std()) / math.sqrt(_BLOCKS)


def laws_for(
    method: str,
    sampler: str | Sampler,
    exact: ExactScore,
    settings: dict[str, Any],
    n: int,
    seed: int,
) -> Iterator[Laws[Any]]:
    """The ways to try, the most exact one first."""
    if method != "samples":
        yield GaussianLaws(sampler, exact, settings)
        yield LineLaws(sampler, exact, settings)
    if method != "exact":
        yield SampledLaws(sampler, exact, settings, n, seed)
