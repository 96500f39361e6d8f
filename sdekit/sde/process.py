"""What an SDE is: a drift, a diffusion and the law that its reversal starts from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sdekit._check import Checked
from sdekit._times import Time

if TYPE_CHECKING:
    from sdekit.sde.reverse import ReverseSDE

Score = Callable[[Tensor, Time], Tensor]

__all__ = ["SDE", "Score"]


class SDE(Checked, ABC):
    """dx = drift(x, t) dt + diffusion(t) dW on t in [0, t_max], any drift.

    A subclass has `t_min`, `t_max` and the four methods below. Times are floats or tensors of
    shape (), (batch,) or (batch, 1, ..., 1); samples are (batch, *dims).

    Reference: arXiv:2011.13456, eq. 5.
    """

    t_min: float
    t_max: float
    direction: ClassVar[int] = 1  # +1: time runs from data to noise; a reversed process has -1
    kinds: ClassVar[frozenset[str]] = frozenset()  # what samplers may require in `needs`

    @abstractmethod
    def drift(self, x: Tensor, t: Time) -> Tensor:
        """The drift [(batch, *dims)] at x [(batch, *dims)] and t."""

    @abstractmethod
    def diffusion(self, t: Time) -> Tensor:
        """The scalar diffusion g(t) [shape of t]."""

    @abstractmethod
    def prior_sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws [shape] of the law that sampling starts from at t_max."""

    @abstractmethod
    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log-density of that law in nats [(batch,)] at x [(batch, *dims)]."""

    def reverse(self, score: Score, *, eta: float = 1.0) -> ReverseSDE:
        r"""The process that runs from t_max to 0 with the same marginals.

        drift(x, t) - (1 + eta^2) / 2 g(t)^2 score(x, t), diffusion eta g(t): eta = 1 is Anderson's
        reverse SDE, eta = 0 the probability-flow ODE, and every eta >= 0 has the same marginals.

        Args:
            score: grad log p_t, a callable (x, t) -> tensor of the shape of x.
            eta: the stochasticity, >= 0.

        Raises:
            ConfigError: eta < 0.

        Reference: arXiv:2011.13456, eqs. 6 and 13; arXiv:2206.00364, eq. 6 for the family.

        Example:
            >>> import torch
            >>> from sdekit import VPSDE, Gaussian
            >>> sde, data = VPSDE(), Gaussian(torch.zeros(2), 1.0)
            >>> backward = sde.reverse(lambda x, t: data.score(x), eta=0.0)
            >>> x = torch.ones(3, 2)
            >>> bool(backward.drift(x, 0.5).abs().max() < 1e-6)  # N(0, I) does not move
            True
        """
        from sdekit.sde.reverse import ReverseSDE  # it subclasses SDE

        return ReverseSDE(sde=self, score=score, eta=eta)
