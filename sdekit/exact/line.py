r"""Laws on a line by their distribution functions, and the distances between them.

A law is a table of nodes x_i with F(x_i) and p(x_i); between nodes F is the cubic that has these
values and slopes. With Q = F^{-1} and densities p and q,

    W2^2  = int_0^1 (Q_p(u) - Q_q(u))^2 du                                                      (1)
    KL    = int p log(p / q) dx                                                                 (2)
    TV    = 1/2 int |p - q| dx                                                                  (3)

(1) is integrated over the levels u of both tables together: between two of them both quantiles
move by less than a step of their nodes, however empty the gap between two modes may be.

A law may have other coordinates besides, independent of the line and Gaussian: then W2^2 and KL
are sums, and (3) is an integral over the line for every value of q / p across it.

References: Villani, Topics in Optimal Transportation, theorem 2.18, for (1); Cover and Thomas,
Elements of Information Theory, theorem 8.6.1 and section 11.6, for (2) and (3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import interpolate, special
from torch import Tensor

from sdekit._check import shown
from sdekit.errors import DtypeError, NotAffine, ShapeError
from sdekit.exact.collinear import line_of, split
from sdekit.exact.distances import bures_wasserstein, kl_divergence
from sdekit.exact.modes import Array, mixture_parts, territories
from sdekit.targets import Gaussian, GaussianMixture, Target

__all__ = ["Array", "Law1D"]


_REACH = 9.0  # standard deviations of a component that its nodes span: 1e-19 lies outside
_NODES = 2401  # of a component
_FEWEST = 1500  # nodes below which a table is not thinned
_CDF_LOST, _PDF_LOST = 1e-11, 1e-6  # what thinning may change, the density as a share of its peak
_NEWTON = 8  # iterations that invert a cubic to rounding
_GAUSS_X, _GAUSS_W = np.polynomial.legendre.leggauss(3)
_EMPTY = 1e-13  # of the largest density: below it a quadrature has only rounding
_BEYOND = 1e-18  # of mass, at either end of a law of lengths
_SHARES = 1000  # points across the line: the total variation has kinks there


@dataclass(frozen=True, eq=False)
class Law1D:
    """A law on a line, and perhaps a Gaussian across it.

    Attributes:
        x: the nodes [(n,)], strictly increasing, float64.
        cdf: F there [(n,)], from 0 to 1.
        pdf: p there [(n,)].
        narrowest: the deviation of the narrowest feature that p may have.
        error: the error of the quadrature that made it, as a W2; 0 for a closed form.
        across: the law of the coordinates beside the line, or None.
        path: the laws on the way to it with their times, where they were kept.

    Example:
        >>> from sdekit import GaussianMixture
        >>> law = Law1D.of(GaussianMixture([0.2, 0.8], [[3.0], [-3.0]], 1.0))
        >>> round(law.mean, 9), round(law.probability(0.0, 20.0), 6)
        (-1.8, 0.20081)
    """

    x: Array
    cdf: Array
    pdf: Array
    narrowest: float
    error: float = 0.0
    across: Gaussian | None = None
    path: Sequence[tuple[float, Law1D]] = ()

    @classmethod
    def of(cls, law: Target, *, along: Target | None = None) -> Law1D:
        """The table of a Gaussian or a mixture, closed form at the nodes.

        Args:
            law: in one dimension, or in d along a line; `.across` is then the law beside it.
            along: the law whose line it is; `law` itself by default.

        Raises:
            NotAffine: it does not lie along a line, or is no product along and across it.
        """
        line = line_of(law if along is None else along)
        if line is not None:
            inside, across = split(law, line)
            return replace(cls.of(inside), across=across)
        weights, means, stds = mixture_parts(law)
        there = weights > 0
        weights, means, stds = weights[there], means[there], stds[there]
        if not (stds > 0).all():
            raise NotAffine(f"{shown(law)} has an atom, and no density on its line")
        spans = [
            m + s * np.linspace(-_REACH, _REACH, _NODES) for m, s in zip(means, stds, strict=True)
        ]
        x = np.unique(np.concatenate(spans))
        x = x[np.append(True, np.diff(x) > 4 * np.finfo(float).eps * np.abs(x).max())]
        z = (x[:, None] - means) / stds
        return cls(
            x,
            (special.ndtr(z) * weights).sum(axis=1),
            (np.exp(-0.5 * z**2) / stds * weights).sum(axis=1) / math.sqrt(2 * math.pi),
            float(stds.min()),
        )

    def thinned(self) -> Law1D:
        """The same law on fewer nodes: every second one goes while the others interpolate it."""
        law = self
        while len(law.x) > _FEWEST:
            kept = np.arange(len(law.x)) % 2 == 0
            kept[-1] = True
            half = replace(law, x=law.x[kept], cdf=law.cdf[kept], pdf=law.pdf[kept])
            lost = law.x[~kept]
            off = np.abs(half.distribution(lost) - law.cdf[~kept]).max()
            away = np.abs(half.density(lost) - law.pdf[~kept]).max() / law.pdf.max()
            if off > _CDF_LOST or away > _PDF_LOST:
                break
            law = half
        return law

    # what is seen of it -------------------------------------------------------------------------

    @property
    def mean(self) -> float:
        """The mean along the line."""
        return float(self._moments()[0])

    @property
    def var(self) -> float:
        """The variance along the line."""
        return float(self._moments()[1])

    def _moments(self) -> tuple[float, float]:
        u, w = _levels(self.cdf)
        q = self.quantile(u)
        mean = float((w * q).sum())
        return mean, float((w * (q - mean) ** 2).sum())

    def probability(self, low: float, high: float) -> float:
        """The mass between two points of the line."""
        at = self.distribution(np.array([low, high], dtype=np.float64))
        return float(at[1] - at[0])

    def distribution(self, x: Array) -> Array:
        """F [shape of x]."""
        k = np.clip(np.searchsorted(self.x, x, side="right") - 1, 0, len(self.x) - 2)
        h = self.x[k + 1] - self.x[k]
        value = _cubic(np.clip((x - self.x[k]) / h, 0.0, 1.0), *self._cell(k))[0]
        return np.where(x < self.x[0], 0.0, np.where(x > self.x[-1], 1.0, value))

    def quantile(self, u: Array) -> Array:
        """Q(u) [shape of u], the inverse of F."""
        k = np.clip(np.searchsorted(self.cdf, u, side="right") - 1, 0, len(self.x) - 2)
        start, end, left, right = self._cell(k)
        rise = end - start
        s = np.clip((u - start) / np.where(rise > 0, rise, 1.0), 0.0, 1.0)
        low, high = np.zeros_like(s), np.ones_like(s)
        for _ in range(_NEWTON):  # kept inside a bracket: the cubic may be flat at an end
            value, slope = _cubic(s, start, end, left, right)
            low, high = np.where(value < u, s, low), np.where(value < u, high, s)
            step = s - (value - u) / np.where(slope > 0, slope, np.inf)
            inside = (step > low) & (step < high) & (slope > 0)
            s = np.where(inside, step, np.where(value == u, s, 0.5 * (low + high)))
        return self.x[k] + s * (self.x[k + 1] - self.x[k])

    def density(self, x: Array) -> Array:
        """p [shape of x], 0 outside the nodes."""
        inside = (x >= self.x[0]) & (x <= self.x[-1])
        return np.where(inside, interpolate.pchip_interpolate(self.x, self.pdf, x), 0.0)

    def _cell(self, k: NDArray[np.intp]) -> tuple[Array, Array, Array, Array]:
        """F and h p at both ends of cells, the slopes limited so that F rises."""
        h = self.x[k + 1] - self.x[k]
        start, end = self.cdf[k], self.cdf[k + 1]
        most = 3 * np.maximum(end - start, 0.0)  # Fritsch and Carlson 1980
        return start, end, np.minimum(h * self.pdf[k], most), np.minimum(h * self.pdf[k + 1], most)

    def weights(self, target: GaussianMixture) -> Tensor:
        """The mass where each component of a mixture along the line is the likeliest [(k,)]."""
        line = line_of(target)
        parts = mixture_parts(target if line is None else split(target, line)[0])
        owner, edges = territories(*parts)
        at = np.concatenate([[0.0], self.distribution(edges), [1.0]])
        mass = np.zeros(len(parts[0]))
        np.add.at(mass, owner, np.diff(at))
        return torch.from_numpy(mass)

    # distances ----------------------------------------------------------------------------------

    def wasserstein(self, other: Law1D) -> float:
        """The 2-Wasserstein distance, eq. (1)."""
        beside = self._beside(other)
        u, w = _levels(np.concatenate([self.cdf, other.cdf]))
        squared = float((w * (self.quantile(u) - other.quantile(u)) ** 2).sum())
        if beside is not None:
            squared += bures_wasserstein(*beside) ** 2
        return math.sqrt(squared)

    def kl(self, other: Law1D) -> float:
        """KL(self, other) in nats, eq. (2); tails beyond the nodes go on as Gaussians."""
        beside = self._beside(other)
        x = _merged(self, other)
        p = self.density(x)
        seen = p > _EMPTY * p.max()
        log_q = other.log_density(x)
        q = np.exp(log_q)
        gain = p * (np.log(np.where(seen, p, 1.0)) - log_q) - p + q  # >= 0, and 0 where p = q
        total = _integral(x, np.where(seen, gain, q))
        if beside is not None:
            total += kl_divergence(*beside)
        return max(total, 0.0)

    def total_variation(self, other: Law1D) -> float | None:
        """Eq. (3); None where what lies across differs in a way that has no such integral."""
        beside = self._beside(other)
        shares = [(1.0, 1.0)] if beside is None else _across(*beside)
        if shares is None:
            return None
        x = _merged(self, other)
        p, q = self.density(x), other.density(x)
        return 0.5 * sum(w * _absolute(x, p - ratio * q) for w, ratio in shares)

    def log_density(self, x: Array) -> Array:
        """log p [shape of x]; beyond the nodes the parabola that its ends follow."""
        level = self.pdf > _EMPTY * self.pdf.max()
        first, last = int(level.argmax()), len(level) - 1 - int(level[::-1].argmax())
        p = self.density(x)
        inside = (x >= self.x[first]) & (x <= self.x[last]) & (p > 0)
        log_p = np.where(inside, np.log(np.where(inside, p, 1.0)), -np.inf)
        for end, inwards in ((first, 1), (last, -1)):
            beyond = (x - self.x[end]) * inwards < 0
            log_p = np.where(beyond, self._tail(x, end, inwards), log_p)
        return log_p

    def _tail(self, x: Array, end: int, inwards: int) -> Array:
        """The parabola through log p at a node and at two further in, where p is 1e4 larger."""
        here = self.pdf[end]
        places = [end]
        for factor in (1e2, 1e4):
            found = np.flatnonzero(self.pdf[end::inwards] > factor * here)
            places.append(end + inwards * int(found[0]) if len(found) else places[-1] + inwards)
        at, level = self.x[places], np.log(np.maximum(self.pdf[places], 1e-300))
        a, b, c = np.polyfit(at - at[0], level, 2)
        z = x - at[0]
        return min(a, 0.0) * z**2 + b * z + c

    def _beside(self, other: Law1D) -> tuple[Gaussian, Gaussian] | None:
        """The laws across the line, of both; None where there is nothing beside it."""
        if not isinstance(other, Law1D):
            raise DtypeError(f"a distance needs another Law1D, got {shown(other)}")
        mine, its = self.across, other.across
        if mine is None and its is None:
            return None
        if mine is None or its is None or mine.shape != its.shape:
            shapes = [law and law.shape for law in (mine, its)]
            raise ShapeError(f"the laws differ in the coordinates across: {shapes}")
        return mine, its


def _cubic(s: Array, start: Array, end: Array, left: Array, right: Array) -> tuple[Array, Array]:
    """The cubic with these ends and slopes on [0, 1], and its derivative, at s."""
    rise = end - start
    a, b = left + right - 2 * rise, 3 * rise - 2 * left - right
    return start + s * (left + s * (b + s * a)), left + s * (2 * b + 3 * s * a)


def _levels(cdf: Array) -> tuple[Array, Array]:
    """Gauss points [(m,)] between the levels of tables, and their weights."""
    u = np.unique(np.clip(cdf, 0.0, 1.0))
    u = np.unique(np.concatenate([[0.0], u, [1.0]]))
    width = np.diff(u)
    keep = width > 0
    middle, half = 0.5 * (u[1:] + u[:-1])[keep], 0.5 * width[keep]
    return (
        (middle[:, None] + half[:, None] * _GAUSS_X).ravel(),
        (half[:, None] * _GAUSS_W).ravel(),
    )


def _merged(p: Law1D, q: Law1D) -> Array:
    """The nodes of both tables and the points between them."""
    x = np.unique(np.concatenate([p.x, q.x]))
    return np.sort(np.concatenate([x, 0.5 * (x[:-1] + x[1:])]))


def _integral(x: Array, y: Array) -> float:
    """The trapezoid rule: nodes are dense, and the integrands vanish at both ends."""
    return float(np.trapezoid(y, x))


def _absolute(x: Array, y: Array) -> float:
    """The integral of |y|, y linear between the nodes: a cell in which it changes sign has two."""
    low, high = np.abs(y[:-1]), np.abs(y[1:])
    total = low + high
    crossed = (y[:-1] * y[1:] < 0) & (total > 0)
    split = (low**2 + high**2) / np.where(crossed, total, 1.0)
    return float((np.where(crossed, split, total) * np.diff(x)).sum()) / 2


@cache
def _gauss() -> tuple[Array, Array]:
    """Gauss's points and weights on [-1, 1]; they take an eigenvalue problem."""
    return np.polynomial.legendre.leggauss(_SHARES)


def _across(p: Gaussian, q: Gaussian) -> list[tuple[float, float]] | None:
    """Shares of p and the ratio q / p in them, for eq. (3); None where they are not one number."""
    if p == q or bures_wasserstein(p, q) <= 1e-12 * float(q.spectrum[0].max()) ** 0.5:
        return [(1.0, 1.0)]
    (a, left), (b, right) = p.spectrum, q.spectrum
    d = len(a)
    shift = p.mean - q.mean
    flat = bool((a == a[0]).all()) and bool((b == b[0]).all())
    if float(min(a.min(), b.min())) <= 0 or not (flat or d == 1) or left is not right:
        return None
    va, vb = float(a[0]), float(b[0])
    nodes, weights = _gauss()
    z = _REACH * nodes
    share = _REACH * weights * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    along = math.sqrt(float(shift.square().sum()))
    if d == 1:  # the ratio depends on the one coordinate
        log_ratio = 0.5 * math.log(va / vb) + 0.5 * z**2 - 0.5 * (z * va**0.5 + along) ** 2 / vb
        return list(zip(share.tolist(), np.exp(log_ratio).tolist(), strict=True))
    if along == 0:  # on the length alone
        ends = special.gammaincinv(d / 2, _BEYOND), special.gammainccinv(d / 2, _BEYOND)
        low, high = 2 * ends[0], 2 * ends[1]  # of the chi-square law
        r2 = 0.5 * (high - low) * nodes + 0.5 * (high + low)
        density = np.exp((d / 2 - 1) * np.log(r2 / 2) - r2 / 2 - special.gammaln(d / 2)) / 2
        share = 0.5 * (high - low) * weights * density
        ratio = np.exp(0.5 * d * math.log(va / vb) + 0.5 * r2 * (1 - va / vb))
        return list(zip(share.tolist(), ratio.tolist(), strict=True))
    return None
