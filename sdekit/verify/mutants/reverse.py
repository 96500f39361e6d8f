"""Wrong reversals of an SDE."""

from __future__ import annotations

from typing import Any

from sdekit._times import expand_like
from sdekit.sde import VESDE, VPSDE
from sdekit.sde.reverse import ReverseSDE
from sdekit.verify.mutants._make import Table, altered

_TABLE = Table("sde")
_add = _TABLE.add
ROWS = _TABLE.rows
VP = VPSDE()


def _reversed(weight: Any = None, **methods: Any) -> Any:
    """A `reverse` whose process has these methods, or this weight(eta, g) of the score."""
    if weight is not None:

        def drift(self: Any, x: Any, t: Any) -> Any:
            of = weight(self.eta, self.sde.diffusion(t))
            return self.sde.drift(x, t) + self.direction * expand_like(of, x) * self.score(x, t)

        methods["drift"] = drift

    def reverse(self: Any, score: Any, *, eta: float = 1.0) -> Any:
        return altered(ReverseSDE(sde=self, score=score, eta=eta), **methods)

    return reverse


_add(
    "reverse_without_half",
    VP,
    "reverse_marginals",
    "(1 + eta^2) g^2: the half is missing",
    reverse=_reversed(lambda eta, g: (1 + eta**2) * g**2),
)
_add(
    "reverse_eta_not_squared",
    VP,
    "reverse_marginals",
    "(1 + eta)/2 g^2, right at eta = 0 and 1 only",
    reverse=_reversed(lambda eta, g: 0.5 * (1 + eta) * g**2),
)
_add(
    "reverse_score_sign",
    VP,
    "reverse_marginals",
    "the score pushes away from the data",
    reverse=_reversed(lambda eta, g: -0.5 * (1 + eta**2) * g**2),
)
_add(
    "reverse_g_not_squared",
    VESDE(),
    "reverse_marginals",
    "g for g^2 before the score",
    reverse=_reversed(lambda eta, g: 0.5 * (1 + eta**2) * g),
)
_add(
    "reverse_half_a_percent",
    VP,
    "reverse_marginals",
    "0.5 % too much of the score",
    reverse=_reversed(lambda eta, g: 0.5025 * (1 + eta**2) * g**2),
)
_add(
    "flow_is_the_reverse_sde",
    VP,
    "flow_of_a_gaussian flow_keeps_quantiles flow_divergence",
    "the flow has g^2, Anderson's weight, not g^2 / 2",
    reverse=_reversed(lambda eta, g: g**2),
)
_add(
    "flow_weight_a_percent",
    VP,
    "flow_of_a_gaussian flow_keeps_quantiles",
    "the flow has 1 % too much of the score",
    reverse=_reversed(lambda eta, g: 0.505 * (1 + eta**2) * g**2),
)
_add(
    "reverse_diffusion_eta_squared",
    VP,
    "reverse_marginals",
    "the diffusion is eta^2 g",
    reverse=_reversed(diffusion=lambda self, t: self.eta**2 * self.sde.diffusion(t)),
)
_add(
    "reverse_twice_stays_reversed",
    VP,
    "reverse_twice",
    "the reversal of a reversal is the reversal again",
    reverse=_reversed(
        reverse=lambda self, score, *, eta=1.0: ReverseSDE(sde=self.sde, score=score, eta=eta)
    ),
)
