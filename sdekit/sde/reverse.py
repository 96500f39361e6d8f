r"""Running an SDE backwards: the family of processes with the same marginals.

For dx = b(x, t) dt + g dW with marginals p_t and any eta >= 0, the process that runs from t_max
down,

    dx = [b - (1 + eta^2) / 2 g^2 grad log p_t(x)] dt + eta g dW,                         (1)

has the marginals p_t: eta = 1 is Anderson's reverse SDE, eta = 0 the probability-flow ODE. Seen
from a process that itself runs backwards, the sign of the score's term changes; with eta = 1
twice, the forward process comes back.

References: Anderson, Stoch. Proc. Appl. 12 (1982); Song et al., arXiv:2011.13456, eqs. 6 and 13;
Karras et al., arXiv:2206.00364, eq. 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._check import number, shown
from sdekit._times import Time, expand_like
from sdekit.errors import DtypeError, ModelError, ShapeError
from sdekit.sde.process import SDE, Score

__all__ = ["ReverseSDE"]


@dataclass(frozen=True, kw_only=True)
class ReverseSDE(SDE):
    """Eq. (1) as an SDE; integrate it with negative dt (or, reversed twice, with positive dt).

    Args:
        sde: the process to run the other way.
        score: grad log p_t, a callable (x, t) -> tensor of the shape of x.
        eta: the stochasticity, >= 0.

    Raises:
        ConfigError: eta < 0.
        DtypeError: score is not callable.
    """

    sde: SDE
    score: Score
    eta: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(eta=number("eta", self.eta, ge=0))
        if not callable(self.score):
            raise DtypeError(f"score must be a callable (x, t) -> tensor, got {shown(self.score)}")

    def __getattr__(self, name: str) -> Any:
        """t_min and t_max are those of the process underneath."""
        if name in ("t_min", "t_max"):
            return getattr(self.sde, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def direction(self) -> int:  # type: ignore[override]  # a class attribute in the base
        """-1 where the process underneath runs forward."""
        return -self.sde.direction

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """The bracket of eq. (1) [(batch, *dims)]."""
        forward = self.sde.drift(x, t)  # first, for it checks x and t
        score = self.score(x, t)
        if not isinstance(score, Tensor):
            raise ModelError(f"score must return a tensor, got {type(score).__name__}")
        if score.shape != x.shape:
            raise ShapeError(f"score must return {tuple(x.shape)}, got {tuple(score.shape)}")
        weight = 0.5 * (1 + self.eta**2) * self.sde.diffusion(t).square()
        return forward + (self.direction * expand_like(weight, x)) * score

    def diffusion(self, t: Time) -> Tensor:
        """Eta g(t) [shape of t]."""
        return self.eta * self.sde.diffusion(t)

    def prior_sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """As the process underneath."""
        return self.sde.prior_sample(shape, generator=generator, dtype=dtype, device=device)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """As the process underneath [(batch,)]."""
        return self.sde.prior_log_prob(x)
