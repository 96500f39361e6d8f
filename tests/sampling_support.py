"""Shared by the tests of model/ and sampling/: targets, wrapped models, and the affine probe.

The probe: on Gaussian data with the exact score a fixed-step sampler maps (x_T, z_1 .. z_K)
affinely to its output. One batch of K + 2 rows reads that map off the real sampler: row 0 starts
at 0 without noise, row 1 at a unit x_T, row 2 + k has one unit impulse in draw k. With a diagonal
covariance the coordinates never meet, so one run measures a whole spectrum of data variances at
once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from strategies import f64
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.model.parametrization import Score
from sdekit.model.prediction import Prediction
from sdekit.sampling import sample
from sdekit.sampling.grid import LogSNR
from sdekit.targets import Gaussian, GaussianMixture

EXACT = 1e-9  # what the reference values are good for


def entries(kind: str) -> dict[str, object]:
    """Every example of every entry of one kind, plug-ins included, by a readable id."""
    return {
        f"{name}-{k}": thing
        for name, entry in catalogue(kind).items()
        for k, thing in enumerate(entry.examples())
    }


def defaults(kind: str) -> dict[str, object]:
    """The first example of every entry of one kind, by its name."""
    return {
        key.removesuffix("-0"): thing for key, thing in entries(kind).items() if key[-2:] == "-0"
    }


def adaptive(sampler) -> bool:
    """Whether it chooses its own steps."""
    return "adaptive" in sampler.needs


def spectrum() -> Gaussian:
    """A diagonal Gaussian whose variances spread over three decades."""
    return Gaussian(f64([0.7, -1.0, 0.2, 2.0]), torch.diag(f64([0.01, 0.2, 1.0, 6.0])))


def two_modes() -> GaussianMixture:
    """A mixture in two dimensions with isotropic components."""
    return GaussianMixture(f64([0.3, 0.7]), f64([[1.0, 0.5], [-0.8, 0.2]]), f64([0.2, 0.5]))


def reference_target(reference, name: str) -> GaussianMixture:
    """A law of shared/reference/targets, on flattened vectors."""
    data = reference.load("targets")
    w, m, s = (data.array(name, key) for key in ("w", "m", "s"))
    return GaussianMixture(w, m, torch.diag_embed(s.square()))


class Wrapped:
    """A predictor around another one, without `bind`: notes the times of its calls."""

    def __init__(self, model) -> None:
        self.model = model
        self.sde = model.sde
        self.times: list[float] = []

    @property
    def calls(self) -> int:
        return len(self.times)

    def __call__(self, x, t, **cond):
        self.times.append(float(t))
        return self.model(x, t, **cond)


class Given:
    """A predictor whose score at (x, t) is any function, on any SDE."""

    def __init__(self, score, sde) -> None:
        self.score = score
        self.sde = sde

    def __call__(self, x, t, **cond):
        return Prediction(x, self.score(x, float(t)), t, (self.sde, Score()))


class ConstantEps(Given):
    """A predictor of one and the same noise everywhere."""

    def __init__(self, eps: Tensor, sde) -> None:
        super().__init__(lambda x, t: -eps.expand_as(x) / float(sde.sigma(t)), sde)


def draws(k: int, shape, seed: int = 0) -> Tensor:
    """k float64 standard normal draws [(k, *shape)]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, *shape, generator=generator, dtype=torch.float64)


def no_noise(x):
    raise AssertionError("noise was drawn")


def marginal_draw(model, t: float, n: int, seed: int = 0) -> Tensor:
    """Float64 draws of the exact law at t, for a target that has `sample`."""
    generator = torch.Generator().manual_seed(seed)
    x0 = model.target.sample(n, generator=generator, dtype=torch.float64)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    return model.sde.perturb(x0, float(t), noise)


@dataclass(frozen=True)
class Affine:
    """Output = offset + start * x_T + sum_k kicks[k] z_k [(d,), (d,), (K, d)], by coordinate."""

    offset: Tensor
    start: Tensor
    kicks: Tensor

    def law(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output [(d,)] for x_T with these."""
        return self.offset + self.start * mean, self.start**2 * var + self.kicks.square().sum(0)


class _Impulses:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        if 2 + self.count < len(x):
            z[2 + self.count] = 1
        self.count += 1
        return z


def probe(sampler, model, grid: Tensor) -> Affine:
    """The affine map of the real sampler, float64; asserts that it is affine at all."""
    d = model.target.shape[0]
    # an impulse of the start's own size: a response of 1e-10 would drown in rounding
    size = max(1.0, float(model.sde.sigma(grid[0])))

    def run(rows: int, noise, x=None) -> Tensor:
        if x is None:
            x = torch.zeros(rows, d, dtype=torch.float64)
            x[1] = size
        return sample(model, tuple(x.shape), sampler=sampler, grid=grid, x_init=x, noise=noise).x

    counter = _Impulses()
    run(2, counter)
    out = run(2 + counter.count, _Impulses())
    zero = out[0]
    affine = Affine(zero, (out[1] - zero) / size, out[2:] - zero)
    # superposition: any other input must follow from these responses
    z, x = draws(max(counter.count, 1), (1, d), seed=3), draws(1, (1, d), seed=4)[0]
    left = list(z)
    seen = run(1, lambda y: left.pop(0), x)[0]
    expected = zero + affine.start * x[0] + (affine.kicks * z[: counter.count, 0]).sum(0)
    torch.testing.assert_close(seen, expected, rtol=1e-9, atol=1e-9)
    return affine


def exact_law(model, t: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_t for Gaussian data with a diagonal covariance [(d,)]."""
    alpha, var = float(model.sde.alpha(t)), float(model.sde.var(t))
    return alpha * model.target.mean, alpha**2 * model.target.cov.diagonal() + var


def law_error(sampler, model, grid: Tensor) -> float:
    """The largest relative error of the variance and of the mean (in standard deviations)."""
    mean, var = probe(sampler, model, grid).law(*exact_law(model, float(grid[0])))
    true_mean, true_var = exact_law(model, float(grid[-1]))
    away = (mean - true_mean).abs() / true_var.sqrt()
    return float(torch.maximum((var / true_var - 1).abs(), away).max())


def inner_grid(sde, steps: int, low: float = 0.05, high: float = 0.95) -> Tensor:
    """Equal steps in the log-SNR between low and high times t_max."""
    inside = replace(sde, t_min=low * sde.t_max, t_max=high * sde.t_max)
    return LogSNR().times(inside, steps)
