r"""Laws of known smoothness on a line, their distance to what a score model returns, and slopes.

**Smoothness.** The laws of Beta(s, s) on [-1, 1],

    p_s(x) = (1 - x^2)^(s - 1) / Z,    s = 1/2, 1, 3/2, 2, 3,                                   (1)

are smooth but for their two ends, where p_s behaves as u(x) = x_+^(s - 1). By scaling, for any
m > s the m-th difference with step h has the norm

    ||Delta_h^m u||_1 = h^s ||Delta_1^m u||_1,                                                  (2)

finite, as Delta_1^m u falls off as x^(s - 1 - m): p_s is in the Besov space B^s_{1,inf} and in no
smoother one of that scale, and the distance is the one in which total variation is measured. So
s = 1/2 is the arcsine law (unbounded), 1 the uniform one (jumps), 3/2 the semicircle, 2 a parabola
(kinks), 3 the biweight. A mixture of Gaussians has s = inf.

**The distance.** Total variation is the largest over all partitions of the line into cells,

    TV(P, Q) = sup 1/2 sum_k |P(I_k) - Q(I_k)|,                                                 (3)

reached where no density difference changes its sign inside a cell: two distribution functions are
enough, whatever the densities do, and what cells cost is of second order in their size. Nothing is
sampled. The law Q of S(z), z ~ F, has for a rising map S

    Q((S(a), S(b)]) = F((a, b]).                                                                (4)

**The process.** Variance preserving with a log-SNR that falls linearly in t: uniform times are
uniform in log-SNR, and by Kingma et al. the law at the end of the flow does not see the schedule.

**Slopes.** Each replicate has its own data set at every n; the slope of its log TV on log n by
least squares is one number, and the replicates are independent. Their mean is the slope of the
mean log TV, with a t-interval; it covers the chance of the data and not the curvature of the line.

References: DeVore and Lorentz, Constructive Approximation, chapter 2, for moduli of smoothness;
Devroye and Gyoerfi, Nonparametric Density Estimation: The L1 View, for (3) and kernels in L1;
Kingma et al., arXiv:2107.00630 (the invariance to the schedule).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from sdekit.sde import LinearSDE

Array = NDArray[np.float64]
Distribution = Callable[[Array], Array]

REACH = 8.5  # standard deviations beyond which a Gaussian has less than 1e-16
_CHUNK = 64  # points of a distribution function that share their window of the data
_PER_WIDTH = 8  # cells in a width of the kernel
_LEVELS = 2048  # cells of equal mass under the target


# targets ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edges:
    """Beta(s, s) on [-1, 1], eq. (1).

    Attributes:
        name: in the table.
        s: the smoothness in B^s_{1,inf}, eq. (2).
    """

    name: str
    s: float

    @property
    def std(self) -> float:
        """The standard deviation, 1 / sqrt(2 s + 1)."""
        return 1 / math.sqrt(2 * self.s + 1)

    def density(self, x: Array) -> Array:
        """p_s inside (-1, 1), eq. (1)."""
        inside = np.abs(x) < 1
        u = np.where(inside, 1 - x * x, 1.0)
        scale = 2 ** (2 * self.s - 1) * special.beta(self.s, self.s)
        return np.where(inside, u ** (self.s - 1) / scale, 0.0)

    def cdf(self, x: Array) -> Array:
        """The regularised incomplete beta function."""
        return special.betainc(self.s, self.s, 0.5 * (1 + np.clip(x, -1.0, 1.0)))

    def quantile(self, u: Array) -> Array:
        """Its inverse."""
        return 2 * special.betaincinv(self.s, self.s, u) - 1

    def sample(self, n: int, seed: int) -> Array:
        """Quantiles of uniform draws [(n,)]."""
        return self.quantile(_uniform(n, seed))


@dataclass(frozen=True)
class Smooth:
    """0.3 N(-0.7, 0.3^2) + 0.7 N(0.3, 0.35^2): no finite s."""

    name: str = "mixture"
    s: float = math.inf
    weights: tuple[float, float] = (0.3, 0.7)
    means: tuple[float, float] = (-0.7, 0.3)
    stds: tuple[float, float] = (0.3, 0.35)

    @property
    def std(self) -> float:
        """The standard deviation of the whole."""
        w, m, s = map(np.array, (self.weights, self.means, self.stds))
        return float(np.sqrt((w * (m**2 + s**2)).sum() - (w * m).sum() ** 2))

    def density(self, x: Array) -> Array:
        """Closed form."""
        parts = zip(self.weights, self.means, self.stds, strict=True)
        root = math.sqrt(2 * math.pi)
        return sum(w / (s * root) * np.exp(-0.5 * ((x - m) / s) ** 2) for w, m, s in parts)

    def cdf(self, x: Array) -> Array:
        """Closed form."""
        parts = zip(self.weights, self.means, self.stds, strict=True)
        return sum(w * special.ndtr((x - m) / s) for w, m, s in parts)

    def quantile(self, u: Array) -> Array:
        """The inverse of the distribution function, by bisection on [-4, 4]."""
        low, high = np.full_like(u, -4.0), np.full_like(u, 4.0)
        for _ in range(60):  # 8 / 2^60: to rounding
            middle = 0.5 * (low + high)
            below = self.cdf(middle) < u
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return 0.5 * (low + high)

    def sample(self, n: int, seed: int) -> Array:
        """Quantiles of uniform draws [(n,)]."""
        return self.quantile(_uniform(n, seed))


Law = Edges | Smooth
LAWS: Sequence[Law] = (
    Edges("arcsine", 0.5),
    Edges("uniform", 1.0),
    Edges("semicircle", 1.5),
    Edges("parabola", 2.0),
    Edges("biweight", 3.0),
    Smooth(),
)


def _uniform(n: int, seed: int) -> Array:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=generator, dtype=torch.float64).numpy()


# the process, and where it stops ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LinearLogSNR(LinearSDE):
    """alpha^2 = sigmoid(l), sigma^2 = sigmoid(-l), l(t) from `most` down to `least`, linear in t.

    Attributes:
        t_min: where it stops.
        most: the log-SNR at t = 0; by default sigma = 1e-4 there.
        least: at t = 1; by default alpha = 1e-2 there.
    """

    t_min: float = 0.0
    most: float = 8 * math.log(10)
    least: float = -4 * math.log(10)

    def log_snr(self, t: Tensor | float) -> Tensor:
        """The line."""
        t = torch.as_tensor(t, dtype=torch.float64)
        return self.most + (self.least - self.most) * t

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """-softplus(-l) / 2."""
        return -0.5 * torch.nn.functional.softplus(-self.log_snr(t))

    def var(self, t: Tensor | float) -> Tensor:
        """sigmoid(-l)."""
        return torch.sigmoid(-self.log_snr(t))

    @classmethod
    def stopped(cls, sigma: float) -> LinearLogSNR:
        """The process that stops where the noise has this standard deviation, sigma(t_min)."""
        whole = cls()
        wanted = math.log1p(-(sigma**2)) - 2 * math.log(sigma)
        return cls(t_min=(whole.most - wanted) / (whole.most - whole.least))

    @classmethod
    def examples(cls) -> list[LinearLogSNR]:
        """The default."""
        return [cls()]


def stopping_sigma(law: Law, n: int) -> float:
    """sigma(t_0) = std(p) n^(-1 / (2 min(s, 2) + 1)): bias h^min(s,2) against (n h)^(-1/2)."""
    return law.std * n ** (-1 / (2 * min(law.s, 2.0) + 1))


# distances --------------------------------------------------------------------------------------


def smoothed_cdf(x: Array, centres: Array, width: float) -> Array:
    """mean_i Phi((x - c_i) / width) [shape of x] for sorted x and sorted centres."""
    points, far = torch.from_numpy(np.ascontiguousarray(centres)), REACH * width
    parts = []
    for chunk in torch.from_numpy(np.ascontiguousarray(x)).split(_CHUNK):
        ends = torch.stack([chunk[0] - far, chunk[-1] + far])
        low, high = torch.searchsorted(points, ends).tolist()
        z = (chunk[:, None] - points[low:high]) * (1 / (width * math.sqrt(2)))
        parts.append((low + 0.5 * (1 + torch.erf(z)).sum(1)) / len(points))
    return torch.cat(parts).numpy()


def total_variation(x: Array, q: Array, cdf: Distribution) -> float:
    """Eq. (3) on the cells between sorted nodes x [(m,)], where Q has the values q [(m,)].

    The cells at both ends are half-lines.
    """
    p = cdf(x)
    inner = np.abs(np.diff(q) - np.diff(p)).sum()
    return 0.5 * float(inner + abs(q[0] - p[0]) + abs(q[-1] - p[-1]))


def nodes_for(law: Law, width: float, fineness: float = 1.0) -> Array:
    """Cells of a fraction of the kernel's width and of equal mass under the target, together."""
    ends = law.quantile(np.array([1e-9, 1 - 1e-9]))
    low, high = ends[0] - REACH * width, ends[1] + REACH * width
    count = math.ceil((high - low) / width * _PER_WIDTH * fineness)
    levels = np.linspace(0.0, 1.0, int(_LEVELS * fineness) + 1)[1:-1]
    edges = [] if math.isinf(law.s) else [-1.0, 1.0]
    return np.unique(np.concatenate([np.linspace(low, high, count), law.quantile(levels), edges]))


def kernel_variation(law: Law, data: Array, sde: LinearSDE, fineness: float = 1.0) -> float:
    """TV between the law and the smoothed sample at t_min, mean_i N(alpha y_i, sigma^2)."""
    alpha, width = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
    x = nodes_for(law, width, fineness)
    return total_variation(x, smoothed_cdf(x, np.sort(alpha * data), width), law.cdf)


def smoothing_variation(law: Law, sde: LinearSDE, points: int = 2**15) -> float:
    """The same for infinitely many samples: the data are the law's quantiles."""
    return kernel_variation(law, law.quantile((np.arange(points) + 0.5) / points), sde)


# slopes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slope:
    """A slope with its interval.

    Attributes:
        value: the mean over replicates.
        half: half the width of the 95 % t-interval.
    """

    value: float
    half: float

    def __str__(self) -> str:
        """Value +- half."""
        return f"{self.value:.3f} +- {self.half:.3f}"


def t_half(values: Array, level: float = 0.95) -> Array:
    """Half the width of the t-interval of the mean over the first axis [(sets, ...)]."""
    sets = len(values)
    spread = values.std(axis=0, ddof=1) / math.sqrt(sets)
    return special.stdtrit(sets - 1, 0.5 + level / 2) * spread


def slope(n: Sequence[int], tv: Array, level: float = 0.95) -> Slope:
    """The slope of log TV [(sets, len(n))] on log n, least squares for each row."""
    x = np.log(np.asarray(n, dtype=float))
    x -= x.mean()
    each = np.log(tv) @ x / (x @ x)
    return Slope(float(each.mean()), float(t_half(each, level)))
