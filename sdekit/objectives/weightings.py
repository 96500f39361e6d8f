r"""Weightings over time: what the squared error of the predicted noise is multiplied by.

One convention for all of them. A loss lambda(t) |score error|^2 in the literature, with
score = -eps / sigma, is w(t) |eps error|^2 with w = lambda / sigma^2; a loss mu(t) |x_0 error|^2
is the same with w = mu / SNR, because eps error = -(alpha / sigma) x_0 error, SNR = alpha^2 /
sigma^2:

    name           on x_0: mu            w
    simple                               1                      arXiv:2006.11239, eq. 14
    sigma2         lambda = sigma^2      1                      arXiv:2011.13456, section 3.3
    likelihood     lambda = g^2          g^2 / sigma^2          arXiv:2101.09258, eq. 7
    min_snr        min(SNR, gamma)       min(1, gamma / SNR)    arXiv:2303.09556 (Min-SNR-gamma)
    soft_min_snr   SNR gamma             gamma / (SNR + gamma)  arXiv:2401.11605
                     / (SNR + gamma)
    p2                                   1 / (k + SNR)^gamma    arXiv:2204.00227 (P2 weighting)
    edm            (s^2 + d^2)/(s d)^2   1 + s^2 / d^2          arXiv:2206.00364, table 1
    uncertainty    w err / e^u + u, w of another weighting      arXiv:2312.02696, eq. 21

with s = sigma / alpha = SNR^(-1/2) and d = sigma_data. EDM's loss is on D = x_0 in units of the
data, whatever alpha is. Every w is a function of the log-SNR without overflow; g^2 / sigma^2 is
-d log_snr / dt.

The learned one divides by what it believes the error to be, and pays for believing: at each t the
least u is log E[w err], and the prediction that is best for any u is best for all (Kendall et
al.).

References: Ho et al., arXiv:2006.11239; Song et al., arXiv:2011.13456 and arXiv:2101.09258; Hang
et al., arXiv:2303.09556; Crowson et al., arXiv:2401.11605; Choi et al., arXiv:2204.00227; Karras
et al., arXiv:2206.00364 and arXiv:2312.02696; Kendall, Gal and Cipolla, arXiv:1705.07115, eq. 5.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit._catalogue import make_one, register
from sdekit._check import Checked, number
from sdekit.errors import ConfigError
from sdekit.sde import LinearSDE

__all__ = [
    "P2", "EDMWeighting", "Likelihood", "MinSNR", "Sigma2", "Simple", "SoftMinSNR",
    "UncertaintyWeighting", "Weighting",
]  # fmt: skip


class Weighting(Checked, ABC):
    """A weight >= 0 of the squared error of the predicted noise, as a function of time.

    `kinds` may hold "learned", where the loss is w err / e^u + u with u of the model's own, and
    "log_snr", where w dt = -d log_snr.
    """

    kinds: ClassVar[frozenset[str]] = frozenset()

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
    Near the data w grows like 1/t on VP: the variance of the loss is high with uniform times, and
    `time="importance"` draws the times for it.

    Example:
        >>> import torch
        >>> from sdekit import VESDE
        >>> sde = VESDE(sigma_min=0.01, sigma_max=10.0)  # g^2 / sigma^2 = 2 log(1000) at every t
        >>> t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> [round(w, 6) for w in Likelihood().weight(sde, t).tolist()]
        [13.815511, 13.815511]
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"log_snr"})

    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """g^2 / sigma^2 [shape of t]."""
        return sde.g2(t) / sde.var(t)


@register("weighting", "min_snr", paper="arXiv:2303.09556 (Min-SNR-gamma)")
@dataclass(frozen=True, kw_only=True)
class MinSNR(Weighting):
    """The squared error of x_0 times min(SNR, gamma): w = min(1, gamma / SNR).

    Args:
        gamma: the SNR above which levels count alike on x_0, > 0; 5 in the paper.

    Raises:
        ConfigError: gamma <= 0.

    Example:
        >>> import torch
        >>> from sdekit import VESDE
        >>> sde = VESDE(sigma_min=0.1, sigma_max=10.0)  # SNR 100 at t = 0, 1 in the middle
        >>> t = torch.tensor([0.0, 0.5], dtype=torch.float64)
        >>> [round(w, 6) for w in MinSNR().weight(sde, t).tolist()]
        [0.05, 1.0]
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        """Check the field."""
        self._set(gamma=number("gamma", self.gamma, gt=0))

    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """min(1, gamma exp(-log_snr)) [shape of t]; the exponent is cut before it overflows."""
        return (math.log(self.gamma) - sde.log_snr(t)).clamp_max(0.0).exp()

    @classmethod
    def examples(cls) -> list[MinSNR]:
        """The paper's, and one that acts where there is more noise than signal."""
        return [cls(), cls(gamma=0.5)]


@register("weighting", "soft_min_snr", paper="arXiv:2401.11605 (Soft-Min-SNR)")
@dataclass(frozen=True, kw_only=True)
class SoftMinSNR(Weighting):
    """Min-SNR without its corner: w = gamma / (SNR + gamma).

    On x_0 that is 1 / (s^2 + 1/gamma), half of min(SNR, gamma) where they meet.

    Args:
        gamma: where the weight is a half, > 0; 4 in the paper.

    Raises:
        ConfigError: gamma <= 0.
    """

    gamma: float = 4.0

    def __post_init__(self) -> None:
        """Check the field."""
        self._set(gamma=number("gamma", self.gamma, gt=0))

    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """The logistic function of log gamma - log_snr [shape of t]."""
        return torch.sigmoid(math.log(self.gamma) - sde.log_snr(t))


@register("weighting", "p2", paper="arXiv:2204.00227 (P2 weighting)")
@dataclass(frozen=True, kw_only=True)
class P2(Weighting):
    """Perception-prioritised: w = 1 / (k + SNR)^gamma.

    The paper multiplies the weight of the simple loss by it, so that gamma = 0 is `simple`.

    Args:
        k: what bounds the weight where SNR -> 0, > 0.
        gamma: how strongly low noise is played down, >= 0.

    Raises:
        ConfigError: k <= 0 or gamma < 0.
    """

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(k=number("k", self.k, gt=0), gamma=number("gamma", self.gamma, ge=0))

    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """exp(-gamma log(k + SNR)) [shape of t]."""
        log_snr = sde.log_snr(t)
        log_k = torch.full_like(log_snr, math.log(self.k))
        return (-self.gamma * torch.logaddexp(log_k, log_snr)).exp()

    @classmethod
    def examples(cls) -> list[P2]:
        """The paper's two."""
        return [cls(), cls(gamma=0.5)]


@register("weighting", "edm", paper="arXiv:2206.00364, table 1")
@dataclass(frozen=True, kw_only=True)
class EDMWeighting(Weighting):
    """EDM's lambda = (s^2 + d^2) / (s d)^2 on x_0, s = sigma / alpha: w = 1 + s^2 / d^2.

    It makes the loss of the raw output of `edm` one plain square: c^2 w = 1 there with the same
    sigma_data, for any alpha.

    Args:
        sigma_data: d, the standard deviation of the data, > 0; 0.5 in the paper.

    Raises:
        ConfigError: sigma_data <= 0.

    Example:
        >>> import torch
        >>> from sdekit import VESDE
        >>> sde = VESDE(sigma_min=0.1, sigma_max=10.0)  # sigma = 1 in the middle
        >>> round(float(EDMWeighting().weight(sde, torch.tensor(0.5, dtype=torch.float64))), 6)
        5.0
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Check the field."""
        self._set(sigma_data=number("sigma_data", self.sigma_data, gt=0))

    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """1 + exp(-log_snr) / sigma_data^2 [shape of t]."""
        return 1 + (-sde.log_snr(t)).exp() / self.sigma_data**2

    @classmethod
    def examples(cls) -> list[EDMWeighting]:
        """The paper's and a wide one."""
        return [cls(), cls(sigma_data=3.0)]


@register("weighting", "uncertainty", paper="arXiv:2312.02696, eq. 21")
@dataclass(frozen=True, kw_only=True)
class UncertaintyWeighting(Weighting):
    """Learned: the loss is w err / e^u(t) + u(t), with w of another weighting and u the model's.

    u is the model's module `uncertainty`, trained with the network; every level then counts by
    its own error, E[w err] = e^u at the optimum, and the best prediction stays what it was. A loss
    can be negative. With reduction="sum" both terms are sums: e^u is the error of one element.

    Args:
        base: the weighting of err, itself not learned; EDM's in the paper.

    Raises:
        ConfigError: an unknown name, or a base that is learned too.
        DtypeError: base is no weighting.

    Reference: arXiv:2312.02696, eq. 21; arXiv:1705.07115, eq. 5.

    Example:
        >>> import torch
        >>> from sdekit import DSM, ScoreModel, VPSDE
        >>> from sdekit.model import MLP
        >>> model = ScoreModel(MLP(2), VPSDE(), parametrization="edm", uncertainty=True)
        >>> DSM(weighting="uncertainty")(model, torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    base: str | Weighting = "edm"
    kinds: ClassVar[frozenset[str]] = frozenset({"learned"})

    def __post_init__(self) -> None:
        """Check the field."""
        base = make_one("weighting", self.base, Weighting, name="base")
        if "learned" in base.kinds:
            raise ConfigError(f"base must be a weighting that is not learned, got {base!r}")
        self._set(base=base)

    def weight(self, sde: LinearSDE, t: Tensor) -> Tensor:
        """The weight of the base [shape of t]."""
        assert isinstance(self.base, Weighting)  # made so in __post_init__
        return self.base.weight(sde, t)

    @classmethod
    def examples(cls) -> list[UncertaintyWeighting]:
        """The paper's, and one on the simple loss."""
        return [cls(), cls(base="simple")]
