r"""Weightings over time: what the squared error of the predicted noise is multiplied by.

One convention for all of them. A loss lambda(t) |score error|^2 in the literature, with
score = -eps / sigma, is w(t) |eps error|^2 with w = lambda / sigma^2:

    name          lambda     w
    simple                   1              arXiv:2006.11239, eq. 14
    sigma2        sigma^2    1              arXiv:2011.13456, section 3.3: the same numbers
    likelihood    g^2        g^2 / sigma^2  arXiv:2101.09258, eq. 7: bounds the KL divergence
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import Checked
from sdekit.sde import LinearSDE

__all__ = ["Likelihood", "Sigma2", "Simple", "Weighting"]


class Weighting(Checked, ABC):
    """A weight >= 0 of the squared error of the predicted noise, as a function of time."""

    @abstractmethod
    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """w(t) [shape of t] at float64 times t."""

    @classmethod
    def examples(cls) -> list[Any]:
        """Instances that tests run over."""
        return [cls()]


@register("weighting", "simple", paper="arXiv:2006.11239, eq. 14")
@dataclass(frozen=True, kw_only=True)
class Simple(Weighting):
    """DDPM's simple loss: the plain squared error of the noise.

    Example:
        >>> import torch
        >>> from sdekit import VPSDE
        >>> Simple().weight(VPSDE(), torch.tensor([0.1, 1.0])).tolist()
        [1.0, 1.0]
    """

    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """1 [shape of t]."""
        return torch.ones_like(t)


@register("weighting", "sigma2", paper="arXiv:2011.13456, section 3.3")
@dataclass(frozen=True, kw_only=True)
class Sigma2(Weighting):
    """The score-SDE paper's loss: lambda(t) = sigma(t)^2 on the squared error of the score.

    sigma^2 |score error|^2 = |eps error|^2, so that this is `simple` by its other name.
    """

    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """sigma^2 / sigma^2 = 1 [shape of t]."""
        return torch.ones_like(t)


@register("weighting", "likelihood", paper="arXiv:2101.09258, eq. 7")
@dataclass(frozen=True, kw_only=True)
class Likelihood(Weighting):
    """Maximum-likelihood weighting: lambda(t) = g(t)^2 on the squared error of the score.

    Half its integral over time bounds the Kullback-Leibler divergence from the data to the model.
    Near the data w grows like 1/t on VP: the variance of the loss is high with uniform times.

    Example:
        >>> import torch
        >>> from sdekit import VESDE
        >>> sde = VESDE(sigma_min=0.01, sigma_max=10.0)  # g^2 / sigma^2 = 2 log(1000) at every t
        >>> t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> [round(w, 6) for w in Likelihood().weight(sde, t).tolist()]
        [13.815511, 13.815511]
    """

    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """g^2 / sigma^2 [shape of t]."""
        return sde.g2(t) / sde.var(t)
