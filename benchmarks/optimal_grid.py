r"""The optimal grid on data that it has not seen: is it better than the named ones.

    python benchmarks/optimal_grid.py [--quick] [--against NAME]

The errors are W2 distances to the true law at t_min, from the true x_T, by quadrature over the
sampler's map, and by the exact law of its output wherever the gain is small:

- on mixtures in one dimension of six kinds, drawn with a seed and from ranges of their own; three
  of the kinds (heavy tails, skewed, flat) are not in the family that the grid is fitted to;
- on Gaussians with spectra: falling powers, and variances at random.

The gain is the error on the best named grid, the one that `optimal_grid` starts from and would
return if there were nothing better, over the error on the optimal grid; "below 1" is the share of
the laws that it makes worse. Which named grid is best is settled on the family, before any
held-back law is seen; where another one has the less geometric mean over the held-back mixtures,
the table names it, and by how much.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sdekit import ExactScore, LinearSDE, make
from sdekit.exact import Law1D, output_law_1d
from sdekit.exact.bank import Laws
from sdekit.exact.family import SPECTRUM, family, gaussians
from sdekit.exact.optimal import best_of, named_grids, optimal_grid
from sdekit.exact.quadrature import MapErrors
from sdekit.targets import GaussianMixture

SEED = 20261122  # of laws on which nothing was chosen: neither family, nor guards, nor price
NODES = 128  # of a law
FITTED = 48  # those that the optimiser has
NEAR = 1.03  # gains below which a mixture is judged again, by its exact law
SAMPLERS = ("ddim", "heun")
SDES = ("vp", "sub_vp", "ve")
RISKS = (0.0, 0.01)


def mixtures(n: int, seed: int = SEED) -> list[GaussianMixture]:
    """Held-back mixtures of six kinds in turn."""
    draw = np.random.default_rng(seed)

    def log_uniform(low: float, high: float, size: int | None = None) -> np.ndarray:
        return np.exp(draw.uniform(np.log(low), np.log(high), size=size))

    def scattered() -> tuple[np.ndarray, ...]:
        k = int(draw.integers(2, 7))
        return (
            draw.dirichlet(np.ones(k)),
            draw.normal(size=k) * log_uniform(0.4, 3),
            log_uniform(0.04, 1, k),
        )

    def comb() -> tuple[np.ndarray, ...]:
        k = int(draw.integers(5, 9))
        gap = log_uniform(0.3, 1)
        return np.full(k, 1 / k), gap * np.arange(k), np.full(k, gap * draw.uniform(0.1, 0.5))

    def rare() -> tuple[np.ndarray, ...]:
        w = draw.uniform(0.02, 0.5)
        return np.array([w, 1 - w]), np.array([log_uniform(0.5, 7), 0]), log_uniform(0.05, 1, 2)

    def heavy() -> tuple[np.ndarray, ...]:
        """Deviations by the root of an inverse gamma law, as Student's t has them."""
        k = 8
        stds = (log_uniform(0.1, 1) / np.sqrt(draw.gamma(1.5, size=k) / 1.5)).clip(0.02, 4)
        return np.full(k, 1 / k), np.full(k, draw.normal()), stds

    def skewed() -> tuple[np.ndarray, ...]:
        k = 7
        weights = 0.6 ** np.arange(k)
        return (
            weights / weights.sum(),
            log_uniform(0.2, 0.8) * np.arange(k),
            np.linspace(0.1, 0.5, k),
        )

    def flat() -> tuple[np.ndarray, ...]:
        k = 8
        means = np.linspace(-1, 1, k) * log_uniform(0.5, 3)
        return np.full(k, 1 / k), means, np.full(k, 0.7 * (means[1] - means[0]))

    kinds = (scattered, comb, rare, heavy, skewed, flat)
    found = []
    for i in range(n):
        w, m, s = (torch.from_numpy(np.asarray(v, dtype=np.float64)) for v in kinds[i % 6]())
        w = w / w.sum()
        found.append(GaussianMixture(w, (m - (w * m).sum())[:, None], s.square()))
    return found


def spectra(n: int, seed: int = SEED) -> list[np.ndarray]:
    """Held-back spectra of 2 to 40 variances between 1e-3 and 10."""
    draw = np.random.default_rng(seed)
    found = []
    for i in range(n):
        d = int(draw.integers(2, 41))
        largest = np.exp(draw.uniform(np.log(0.05), np.log(10)))
        falling = largest * np.arange(1, d + 1.0) ** -draw.uniform(0.3, 2.5)
        random = np.exp(draw.uniform(np.log(1e-3), np.log(10), size=d))
        found.append((falling if i % 2 else random).clip(1e-3))
    return found


@cache
def judges(
    sampler: str, sde: LinearSDE, n: int, seed: int = SEED
) -> tuple[MapErrors, Callable[[Tensor], Tensor]]:
    """Exact W2 on each of n mixtures and of n / 4 spectra, as functions of the grid."""
    method = make("sampler", sampler)
    own = spectra(max(2, n // 4), seed)
    on_axes = MapErrors(method, sde, gaussians(np.concatenate(own), sizes=(1.0,)), NODES)
    sizes = [len(v) for v in own]

    def on_spectra(grid: Tensor) -> Tensor:
        return torch.stack([e.square().sum().sqrt() for e in on_axes(grid).split(sizes)])

    return MapErrors(method, sde, Laws.of(mixtures(n, seed)), NODES), on_spectra


@cache
def reference(sampler: str, sde: LinearSDE, steps: int, name: str | None = None) -> Tensor:
    """The named grid that is best on the family, or one by its name."""
    if name is not None:
        return named_grids(sde, steps)[name]
    laws = family().joined(gaussians(SPECTRUM))
    errors = MapErrors(make("sampler", sampler), sde, laws, FITTED)
    return best_of(errors, list(named_grids(sde, steps).values()))


def against(sampler: str, sde: LinearSDE, steps: int, n: int, seed: int = SEED) -> str:
    """The name of the reference, and of the named grid that is best on the held-back mixtures."""
    errors = judges(sampler, sde, n, seed)[0]
    means = {k: float(errors(g).log().mean()) for k, g in named_grids(sde, steps).items()}
    best = reference(sampler, sde, steps)
    name = next(k for k, g in named_grids(sde, steps).items() if torch.equal(g, best))
    other = min(means, key=lambda k: means[k])
    nearer = math.exp(means[name] - means[other]) - 1
    return f"`{name}`" + (f" (`{other}`: {nearer:.1%} less)" if nearer > 5e-4 else "")


def gains(
    sampler: str,
    sde: LinearSDE,
    steps: int,
    n: int,
    seed: int = SEED,
    risk: float = 0.0,
    name: str | None = None,
) -> list[Tensor]:
    """The gain on every mixture and every spectrum, against the best named grid or another."""
    grid = optimal_grid(sampler, sde, steps=steps, risk=risk)
    on_mixtures, on_spectra = judges(sampler, sde, n, seed)
    best = reference(sampler, sde, steps, name)
    found = [errors(best) / errors(grid) for errors in (on_mixtures, on_spectra)]
    if torch.equal(grid, best):
        return found
    for i in (found[0] < NEAR).nonzero().flatten().tolist():
        law = on_mixtures.laws[i]
        found[0][i] = _exact(sampler, sde, law, best) / _exact(sampler, sde, law, grid)
    return found


def _exact(sampler: str, sde: LinearSDE, law: GaussianMixture, grid: Tensor) -> float:
    """W2 by the exact law of the output."""
    model = ExactScore(law, sde)
    start, end = model.at(float(grid[0])), model.at(float(grid[-1]))
    found = output_law_1d(sampler, model, grid=grid, prior=start)
    return found.wasserstein(Law1D.of(end))


def row(gain: Tensor) -> str:
    """Least, median, and the share below 1."""
    worse = float((gain < 0.9995).double().mean())
    return f"{float(gain.min()):.3f} | {float(gain.median()):.2f} | {worse:.1%}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="ddim on VP at 10 steps, 24 mixtures")
    parser.add_argument("--seed", type=int, default=SEED, help="of the held-back laws")
    parser.add_argument("--against", help="a named grid, in place of the best on the family")
    options = parser.parse_args(arguments)
    steps, n = ((10,), 24) if options.quick else ((5, 10, 20), 120)
    print("| sampler | SDE | steps | best named | risk | mixtures: least | median | below 1 "
          "| spectra: least | median | below 1 | seconds |")  # fmt: skip
    print("| --- | --- " + "| ---: | --- " + "| ---: " * 8 + "|")
    for sampler in SAMPLERS[: 1 if options.quick else None]:
        for name in SDES[: 1 if options.quick else None]:
            for k in steps:
                sde = make("sde", name)
                start = time.perf_counter()
                optimal_grid(sampler, sde, steps=k)
                seconds = time.perf_counter() - start
                named = options.against or against(sampler, sde, k, n, options.seed)
                for risk in RISKS:
                    found = gains(sampler, sde, k, n, options.seed, risk, options.against)
                    cells = " | ".join(row(g) for g in found)
                    first = f"`{sampler}` | `{name}` | {k} | {named} | {risk:g}"
                    print(f"| {first} | {cells} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
