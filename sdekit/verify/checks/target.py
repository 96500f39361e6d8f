"""Data laws in closed form: density, score, noised laws, draws; predictors made of them."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from torch import Tensor

from sdekit.errors import ConfigError
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.probes import draws
from sdekit.verify.statistics import bonferroni, uniform

_HYVARINEN = "Hyvarinen, JMLR 6 (2005), eq. 2"
_seeds = st.integers(0, 10**6)


def _density(law: Any, x: Tensor) -> Tensor:
    """log p, or a Skip where the law has no density."""
    try:
        return law.log_prob(x)
    except ConfigError as error:
        raise Skip(f"it has no density: {error}") from error


def _flat(law: Any, most: int) -> int:
    """The dimension of a law of vectors, or a Skip."""
    if len(law.shape) != 1 or law.shape[0] > most:
        raise Skip(
            f"samples of shape {tuple(law.shape)}: integrals are done up to dimension {most}"
        )
    return int(law.shape[0])


def _points(law: Any, seed: int, n: int = 6) -> Tensor:
    """Plausible points, a little off the samples."""
    x = law.sample(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x + 0.3 * draws(1, tuple(x.shape), seed)[0]


@claim(
    "target",
    "the score is the gradient of log p, in the bulk and far out",
    _HYVARINEN,
    cases=lambda law: st.fixed_dictionaries(
        {"seed": _seeds, "far": st.sampled_from([0.0, 30.0, 1e3])}
    ),
)
def score_of_the_density(law: Any, case: Any) -> Finding:
    """By autograd; far out the density underflows and its logarithm must not."""
    x = _points(law, case["seed"])
    x = x + case["far"] * torch.nn.functional.normalize(x.reshape(len(x), -1), dim=1).reshape(
        x.shape
    )
    with torch.enable_grad():
        point = x.clone().requires_grad_()
        slope = torch.autograd.grad(_density(law, point).sum(), point)[0]
    return agree(
        "the score",
        law.score(x),
        "grad log p",
        slope,
        tol=1e-7,
        scale=slope.abs().max(),
        at={"distance": case["far"]},
    )


@claim(
    "target",
    "noise adds up: the law noised by (a, v) and then by (b, w) is the law noised by "
    "(a b, b^2 v + w)",
    "semigroup of x -> alpha x + sqrt(var) eps",
    cases=lambda law: st.fixed_dictionaries(
        {
            "seed": _seeds,
            "a": st.floats(0.2, 1.0),
            "b": st.floats(0.2, 1.0),
            "v": st.floats(0.05, 2.0),
            "w": st.floats(0.05, 2.0),
        }
    ),
)
def noised_laws_add_up(law: Any, case: Any) -> Finding:
    """Density and score at plausible points."""
    a, b, v, w = (case[name] for name in "abvw")
    twice, once = law.perturbed(a, v).perturbed(b, w), law.perturbed(a * b, b * b * v + w)
    x = _points(once, case["seed"])
    densities = agree(
        "log p noised twice",
        twice.log_prob(x),
        "log p noised once",
        once.log_prob(x),
        tol=1e-9,
        scale=once.log_prob(x).abs().clamp_min(1.0),
    )
    if not densities.ok:
        return densities
    return agree(
        "the score noised twice",
        twice.score(x),
        "noised once",
        once.score(x),
        tol=1e-9,
        scale=once.score(x).abs().max(),
    )


class _Lattice:
    """The density of a law of one or two dimensions on a lattice that holds all of it."""

    def __init__(self, law: Any, size: int) -> None:
        d = _flat(law, 2)
        seen = law.sample(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        middle, reach = seen.mean(0), 3 * (seen - seen.mean(0)).abs().amax(0) + 1e-3
        self.axes = [
            torch.linspace(float(m - r), float(m + r), size, dtype=torch.float64)
            for m, r in zip(middle, reach, strict=True)
        ]
        x = torch.stack(torch.meshgrid(*self.axes, indexing="ij"), -1).reshape(-1, d)
        self.x = x
        self.cell = math.prod(float(axis[1] - axis[0]) for axis in self.axes)
        self.mass = (_density(law, x).exp() * self.cell).reshape([size] * d)

    @classmethod
    def of(cls, law: Any) -> _Lattice:
        """The lattice, once two of them agree."""
        coarse, fine = (cls(law, n if law.shape[0] == 2 else 40 * n) for n in (500, 701))
        if abs(float(coarse.mass.sum() - fine.mass.sum())) > 1e-6:
            raise Skip("the density has details too fine for a lattice")
        return fine


@claim("target", "the density integrates to 1", "a density's definition", cost="fast")
def density_integrates_to_one(law: Any) -> Finding:
    """On a lattice, in one and two dimensions."""
    total = float(_Lattice.of(law).mass.sum())
    return no_more_than(abs(total - 1), 1e-6, f"the integral is {total:.9g}")


@claim(
    "target",
    "samples follow the density: P(x_i <= c) is its integral",
    "a sampler's definition",
    cost="fast",
    statistical=True,
)
def target_draws(law: Any, n: int, generator: torch.Generator) -> float:
    """Every coordinate against the marginal of the density; the same generator, the same draws."""
    lattice = _Lattice.of(law)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    x, again = (
        law.sample(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for _ in range(2)
    )
    parts = [1.0 if torch.equal(x, again) else 0.0]
    for i, axis in enumerate(lattice.axes):
        others = [k for k in range(x.shape[1]) if k != i]
        marginal = lattice.mass.sum(dim=others) if others else lattice.mass
        # the mass left of a point of the lattice, by the trapezoid rule
        left = (marginal.cumsum(0) - 0.5 * marginal) / marginal.sum()
        at = np.interp(x[:, i].numpy(), axis.numpy(), left.numpy())
        parts.append(uniform(torch.from_numpy(at)))
    return bonferroni(*parts)


# predictors whose law is known ------------------------------------------------------------------

_levels = st.fixed_dictionaries({"t": st.floats(0.15, 0.95), "seed": _seeds})


def _noisy(model: Any, case: Any) -> tuple[Tensor, float, float, float, Any]:
    """Plausible x_t, t, alpha, var, and the law of x_t."""
    t = case["t"] * model.sde.t_max
    alpha, var = float(model.sde.alpha(t)), float(model.sde.var(t))
    law = model.target.perturbed(alpha, var)
    return _points(law, case["seed"]), t, alpha, var, law


@claim(
    "predictor",
    "the score is grad log p_t of the noised law",
    _HYVARINEN,
    cases=lambda model: _levels,
)
def score_is_the_gradient(model: Any, case: Any) -> Finding:
    """By autograd through the noised density."""
    x, t, _, _, law = _noisy(model, case)
    with torch.enable_grad():
        point = x.clone().requires_grad_()
        slope = torch.autograd.grad(law.log_prob(point).sum(), point)[0]
    return agree(
        "the score",
        model(x, t).score,
        "grad log p_t",
        slope,
        tol=1e-7,
        scale=slope.abs().max(),
        at={"t": t},
    )


@claim(
    "predictor",
    "the clean sample is the posterior mean: x_0 = (x + sigma^2 score)/alpha = E[x_0 | x_t]",
    "Robbins (1956); Efron (2011), eq. 1.4",
    cost="fast",
    share=0.2,
    cases=lambda model: _levels,
)
def tweedie(model: Any, case: Any) -> Finding:
    """The posterior mean by an integral over x_0, in one and two dimensions."""
    x, t, alpha, var, _ = _noisy(model, case)
    lattice = _Lattice.of(model.target)
    away = x[:, None, :] - alpha * lattice.x[None]
    weight = lattice.mass.reshape(-1) * torch.exp(-0.5 * away.square().sum(-1) / var)
    mean = (weight @ lattice.x) / weight.sum(1, keepdim=True)
    return agree(
        "x_0", model(x, t).x0, "E[x_0 | x_t]", mean, tol=1e-6, scale=mean.abs().max(), at={"t": t}
    )


@claim(
    "predictor",
    "Cov(x_0 | x_t) = sigma^2/alpha^2 (I + sigma^2 grad score) is symmetric and positive",
    "arXiv:2206.00364, appendix B.3; Efron (2011)",
    cases=lambda model: _levels,
)
def posterior_covariance(model: Any, case: Any) -> Finding:
    """The Jacobian of the score by autograd."""
    x, t, _, var, _ = _noisy(model, case)
    with torch.enable_grad():
        point = x.clone().requires_grad_()
        score = model(point, t).score
        rows = [
            torch.autograd.grad(score[:, i].sum(), point, retain_graph=True)[0]
            for i in range(x.shape[1])
        ]
    jacobian = var * torch.stack(rows, 1)
    skew = float((jacobian - jacobian.mT).abs().max() / (1 + jacobian.abs().max()))
    if skew > 1e-7:
        return no_more_than(skew, 1e-7, f"the Jacobian's skew part is {skew:.2g} at t = {t:.4g}")
    least = float(
        torch.linalg.eigvalsh(torch.eye(x.shape[1]) + 0.5 * (jacobian + jacobian.mT)).min()
    )
    return no_more_than(-least, 1e-7, f"the smallest eigenvalue is {least:.3g} at t = {t:.4g}")


@claim(
    "predictor",
    "a sample's prediction is its own: neither its batch nor the form of t matters",
    "conventions of sdekit, 6 and 9",
    cases=lambda model: _levels,
)
def predictions_by_the_sample(model: Any, case: Any) -> Finding:
    """In a batch, alone, and with one time a sample."""
    x, t, *_ = _noisy(model, case)
    whole = model(x, t).score
    forms = {
        "alone": torch.cat([model(x[k : k + 1], t).score for k in range(len(x))]),
        "with a time each": model(x, torch.full((len(x),), t, dtype=torch.float64)).score,
    }
    for form, seen in forms.items():
        found = agree(
            f"the score {form}",
            seen,
            "the score in a batch",
            whole,
            tol=1e-12,
            scale=whole.abs().max(),
            at={"t": t},
        )
        if not found.ok:
            return found
    return no_more_than(0.0, 1e-12, "the same")
