"""Log-likelihoods: closed forms, total mass, what a change of variables and a product must do.

Every process here is long enough that the prior is the law of the latents: on VP with
beta_max = 40, alpha(1) = 4e-5, and the data has mean 0; on VE the data is a five-hundredth as wide
as sigma_max.
"""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import torch

from sdekit.model import ExactScore
from sdekit.sde import VESDE, VPSDE, SubVPSDE
from sdekit.targets import Gaussian, GaussianMixture
from sdekit.verify.claims import Finding, agree, claim, no_more_than
from sdekit.verify.probes import draws
from sdekit.verify.strategies import f64

_LONG = {"beta_max": 40.0}
_SDES = (VPSDE(**_LONG), SubVPSDE(**_LONG), VESDE(sigma_min=0.01, sigma_max=500.0))
_FLOW = "arXiv:1806.07366, theorem 1; arXiv:2011.13456, eq. 39"
_OFF = 1e-3  # nats: what a solve at the usual tolerance of 1e-5 may be off by, many times over
_cases = st.fixed_dictionaries(
    {
        "sde": st.sampled_from(_SDES),
        "var": st.floats(0.1, 2.0),
        "seed": st.integers(0, 10**6),
    }
)


def _modes(dim: int = 1) -> GaussianMixture:
    """Two unlike modes around the origin."""
    return GaussianMixture([0.4, 0.6], [[1.5] * dim, [-1.0] * dim], [0.3, 0.5])


def _held(likelihood: Any, model: ExactScore, seed: int) -> Finding:
    """The log-likelihoods of four points against the law's own at t_min."""
    x = 1.5 * draws(1, (4, *model.target.shape), seed)[0]
    return agree(
        "the log-likelihood", likelihood(model, x), "the closed form",
        model.at(model.sde.t_min).log_prob(x), tol=_OFF, scale=1.0, at={"x": x[:, 0]},
    )  # fmt: skip


@claim(
    "likelihood",
    "the log-likelihood of Gaussian data is log N(x; alpha m, alpha^2 C + sigma^2 I) at t_min",
    _FLOW,
    cost="fast",
    share=0.15,
    cases=lambda likelihood: _cases,
)
def gaussian_in_closed_form(likelihood: Any, case: Any) -> Finding:
    """A correlated law, and points as far as three standard deviations."""
    sde, var = case["sde"], case["var"]
    law = Gaussian([0.0, 0.0], [[var, 0.5 * var], [0.5 * var, 1.0]])
    return _held(likelihood, ExactScore(law, sde), case["seed"])


@claim(
    "likelihood",
    "the log-likelihood of a mixture is that of its components, each at its noise level",
    _FLOW,
    cost="fast",
    share=0.15,
    cases=lambda likelihood: _cases,
)
def mixture_in_closed_form(likelihood: Any, case: Any) -> Finding:
    """In three dimensions, where the divergence changes along the path."""
    return _held(likelihood, ExactScore(_modes(3), case["sde"]), case["seed"])


@claim(
    "likelihood",
    "the density integrates to one: the integral of exp(log p) over the line",
    "the definition of a density",
    cost="fast",
    share=0.05,
    cases=lambda likelihood: st.fixed_dictionaries({"sde": st.sampled_from(_SDES)}),
)
def density_has_mass_one(likelihood: Any, case: Any) -> Finding:
    """By the trapezoid rule, which is exact to rounding for smooth densities."""
    line = torch.linspace(-8.0, 8.0, 201, dtype=torch.float64)
    density = likelihood(ExactScore(_modes(), case["sde"]), line[:, None]).exp()
    mass = float(torch.trapezoid(density, line))
    return no_more_than(abs(mass - 1), _OFF, f"the mass is {mass:.6g} on {case['sde']!r}")


@claim(
    "likelihood",
    "log p of c x under the law of c x_0 is log p of x less d log c",
    "a change of variables; VE, whose process scales with the data",
    cost="fast",
    share=0.05,
    cases=lambda likelihood: st.fixed_dictionaries({"c": st.floats(0.3, 4.0)}),
)
def scaling_shifts_by_the_logarithm(likelihood: Any, case: Any) -> Finding:
    """With sigma_min and sigma_max scaled alike."""
    c, x = case["c"], draws(1, (3, 2))[0]
    found = [
        likelihood(ExactScore(Gaussian([0.0, 0.0], 0.5 * k**2), VESDE(sigma_min=0.01 * k,
                                                                     sigma_max=100.0 * k)), k * x)
        for k in (1.0, c)
    ]  # fmt: skip
    return agree(
        "log p(c x) + d log c", found[1] + 2 * math.log(c), "log p(x)", found[0], tol=_OFF,
        scale=1.0, at={"c": c},
    )  # fmt: skip


@claim(
    "likelihood",
    "the log-likelihood of independent coordinates is the sum of theirs",
    "the definition of independence",
    cost="fast",
    share=0.05,
    cases=lambda likelihood: _cases,
)
def independent_coordinates_add(likelihood: Any, case: Any) -> Finding:
    """A mixture beside a Gaussian."""
    sde, var = case["sde"], case["var"]
    one, other = _modes(), Gaussian([0.0], var)
    covs = torch.stack([torch.diag(f64([v, var])) for v in (0.3, 0.5)])
    both = GaussianMixture(one.weights, torch.cat([one.means, f64([[0.0]] * 2)], 1), covs)
    x, y = draws(2, (3, 1), case["seed"])
    whole = likelihood(ExactScore(both, sde), torch.cat([x, y], 1))
    parts = likelihood(ExactScore(one, sde), x) + likelihood(ExactScore(other, sde), y)
    return agree("of the pair", whole, "the sum", parts, tol=_OFF, scale=1.0)


@claim(
    "likelihood",
    "a sample of any rank is its flattened one",
    "PEER_BUGS 29b: a divergence that adds up the first dimension only",
    cost="fast",
    share=0.05,
    cases=lambda likelihood: st.fixed_dictionaries(
        {"shape": st.sampled_from([(4,), (2, 2), (1, 2, 2), (2, 1, 2)])}
    ),
)
def any_rank(likelihood: Any, case: Any) -> Finding:
    """Of independent normal entries, in shapes of four."""
    shape, sde = case["shape"], _SDES[0]
    x = draws(1, (3, 4))[0]
    law = Gaussian([0.0] * 4, 0.5)
    seen = likelihood(_Reshaped(ExactScore(law, sde), shape), x.reshape(3, *shape))
    expected = ExactScore(law, sde).at(sde.t_min).log_prob(x)
    return agree(
        "the log-likelihood", seen, "that of the flattened sample", expected, tol=_OFF, scale=1.0
    )


class _Reshaped:
    """A model of vectors, for samples of another shape."""

    def __init__(self, model: Any, shape: tuple[int, ...]) -> None:
        self.model, self.sde, self.shape = model, model.sde, shape

    def __call__(self, x: torch.Tensor, t: Any, **cond: Any) -> Any:
        from sdekit.model.parametrization import Eps
        from sdekit.model.prediction import Prediction

        eps = self.model(x.reshape(len(x), -1), t).eps.reshape(x.shape)
        return Prediction(x, eps, t, (self.sde, Eps()))


@claim(
    "likelihood",
    "the log-likelihood of a sample is its own, whatever its batch",
    "conventions of sdekit, 9",
    cost="fast",
    share=0.05,
    cases=lambda likelihood: _cases,
)
def rows_of_a_likelihood(likelihood: Any, case: Any) -> Finding:
    """In a batch of five, and in one of two."""
    model = ExactScore(_modes(2), case["sde"])
    x = draws(1, (5, 2), case["seed"])[0]
    whole, part = likelihood(model, x), likelihood(model, x[:2])
    return agree("in a batch of two", part, "in one of five", whole[:2], tol=_OFF, scale=1.0)
