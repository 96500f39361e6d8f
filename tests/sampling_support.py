"""Shared by tests of model/ and sampling/: targets, wrapped models, the kit's affine probe."""

from __future__ import annotations

import torch
from strategies import f64
from support import leaving
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.model.parametrization import Score
from sdekit.model.prediction import Prediction
from sdekit.targets import GaussianMixture
from sdekit.verify.probes import Affine, draws, exact_law, inner_grid, law_errors, probe, spectrum

__all__ = [
    "EXACT", "FINE", "Affine", "ConstantEps", "Given", "WithFraction", "Wrapped", "adaptive",
    "defaults", "draws", "each", "entries", "exact_law", "inner_grid", "law_error", "may_refuse",
    "no_noise", "parts", "probe", "reference_target", "spectrum", "two_modes",
]  # fmt: skip

EXACT = 1e-9  # what the reference values are good for


def entries(kind: str) -> dict[str, object]:
    """Every example of every entry of one kind, plug-ins included, by a readable id."""
    return {
        f"{name}-{k}": thing
        for name, entry in catalogue(kind).items()
        for k, thing in enumerate(entry.examples())
    }


# hundreds of calls a run: of these the fast suite asks the second example, of coarse tolerance
FINE = {"adaptive_sde"}


def each(things: dict[str, object]) -> list:
    """Parameters of a test that asks the same of all `entries`: the fast suite asks one each.

    The kit makes most of these claims too, and the fast suite has it ask two.
    """

    def slow(key: str) -> bool:
        name, number = key.rsplit("-", 1)
        return int(number) != (name in FINE)

    return leaving(things, slow)


def defaults(kind: str) -> dict[str, object]:
    """The first example of every entry of one kind, by its name."""
    return {
        key.removesuffix("-0"): thing for key, thing in entries(kind).items() if key[-2:] == "-0"
    }


def adaptive(sampler) -> bool:
    """Whether it chooses its own steps."""
    return "adaptive" in sampler.needs


def parts(sampler) -> list:
    """The sampler and the ones it is made of."""
    inner = [getattr(sampler, name, None) for name in ("sampler", "predictor")]
    return [sampler, *(p for part in inner if part is not None for p in parts(part))]


def may_refuse(sampler, sde) -> bool:
    """Churn, which needs times above t_max or between nodes; stages that a chain has no time for.

    Heun's rule and rk4 in t need f and g at the end of a step, which a chain lacks at 0; a
    singlestep row calls the model between its ends.
    """
    for part in parts(sampler):
        inside = not getattr(part, "multistep", True) and part.order > 1
        if getattr(part, "churn", 0):
            return True
        if "ddpm" in sde.kinds and (inside or getattr(part, "solver", "") in ("heun", "rk4")):
            return True
    return False


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
        self.calls = 0

    def __call__(self, x, t, **cond):
        self.calls += 1
        # one, or one a sample; float64, which a float's 53 bits need
        self.times += torch.as_tensor(t, dtype=torch.float64).reshape(-1).tolist()
        return self.model(x, t, **cond)


class Given:
    """A predictor whose score at (x, t), t a float, is any function, on any SDE."""

    def __init__(self, score, sde) -> None:
        self.score = score
        self.sde = sde

    def __call__(self, x, t, **cond):
        times = torch.as_tensor(t, dtype=torch.float64).reshape(-1).tolist()
        if len(times) == 1:
            score = self.score(x, times[0])
        else:  # one a sample
            score = torch.cat([self.score(x[i : i + 1], at) for i, at in enumerate(times)])
        return Prediction(x, score, t, (self.sde, Score()))


class WithFraction:
    """The exact model, and a fraction that is the same at every time."""

    def __init__(self, model, fraction):
        self.model, self.sde, self.parametrization = model, model.sde, model.parametrization
        self.fraction = fraction

    def __call__(self, x, t, **cond):
        seen = self.model(x, t)
        origin = (self.sde, self.parametrization)
        return Prediction(x, seen.raw, t, origin, self.fraction.expand_as(x))


class ConstantEps(Given):
    """A predictor of one and the same noise everywhere."""

    def __init__(self, eps: Tensor, sde) -> None:
        super().__init__(lambda x, t: -eps.expand_as(x) / float(sde.sigma(t)), sde)


def no_noise(x):
    raise AssertionError("noise was drawn")


def law_error(sampler, model, grid: Tensor) -> float:
    """The largest relative error of the variance and of the mean (in standard deviations)."""
    return float(law_errors(sampler, model, grid).abs().max())
