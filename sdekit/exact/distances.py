r"""Distances between Gaussians in closed form, over a whole spectrum of variances.

For p = N(m, A) and q = N(n, B),

    W2^2      = |m - n|^2 + min_U |A^{1/2} - B^{1/2} U|_F^2, U orthogonal                       (1)
    KL(p, q)  = 1/2 [sum_i (r_i - 1 - log r_i) + (m - n)^T B^{-1} (m - n)]                      (2)
    TV(p, q)  = 1/2 int |p - q|                                                                 (3)

with r_i the eigenvalues of B^{-1} A. (1) is the Bures-Wasserstein distance, usually written with
the trace of (A^{1/2} B A^{1/2})^{1/2}: a difference of traces, which loses half of the digits
where p and q are close. The minimum is at the polar factor of B^{1/2} A^{1/2}, and (1) is then a
sum of squares. Where A and B commute, with eigenvalues a_i and b_i in one basis,

    W2^2 = |m - n|^2 + sum_i (sqrt(a_i) - sqrt(b_i))^2,        r_i = a_i / b_i.                 (4)

(3) has a closed form where p and q differ along one line, differ in their means alone, or are both
isotropic about one mean.

References: Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X, eq. 4, and Bhatia, Jain and
Lim, arXiv:1712.01504, theorem 1, for (1); Pierret and Galerne, arXiv:2405.14250, eq. 30, for (4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy import special
from torch import Tensor

from sdekit._check import shown
from sdekit.errors import DtypeError, ShapeError
from sdekit.targets import Gaussian

__all__ = [
    "Comparison",
    "Worst",
    "bures_wasserstein",
    "compare",
    "kl_divergence",
    "total_variation",
]

_SINGULAR = 1e-13  # of the largest eigenvalue: what rounding makes of 0


class _Pair(NamedTuple):
    """Two Gaussians in a basis: their variances [(d,)] where they commute, else None."""

    shift: Tensor  # the difference of the means [(d,)], in that basis
    a: Tensor | None
    b: Tensor | None


def _checked(p: Gaussian, q: Gaussian) -> None:
    for name, law in (("p", p), ("q", q)):
        if not isinstance(law, Gaussian):
            raise DtypeError(f"{name} must be a Gaussian, got {shown(law)}")
    if p.shape != q.shape:
        raise ShapeError(f"p and q must have one dimension, got {p.shape} and {q.shape}")


def _pair(p: Gaussian, q: Gaussian) -> _Pair:
    (a, left), (b, right) = p.spectrum, q.spectrum
    shift = p.mean - q.mean
    if left is None and right is None:
        return _Pair(shift, a, b)
    basis = left if left is not None and not _flat(a) else right
    assert basis is not None  # one of the two has one, and a flat one does not need its own
    inner = [_diagonal(basis, law) for law in (p, q)]
    if inner[0] is None or inner[1] is None:
        return _Pair(shift, None, None)
    return _Pair(basis.T @ shift, inner[0], inner[1])


def _flat(variances: Tensor) -> bool:
    return bool((variances == variances[0]).all())


def _diagonal(basis: Tensor, law: Gaussian) -> Tensor | None:
    """The variances along the columns of the basis, None where they are not its axes."""
    values, vectors = law.spectrum
    if _flat(values) or (vectors is not None and torch.equal(vectors, basis)):
        return values
    inner = basis.T @ law.cov @ basis
    variances = inner.diagonal()
    off = (inner - variances.diag()).abs().max()
    return variances.clamp_min(0) if off <= 1e-12 * variances.abs().max() else None


def bures_wasserstein(p: Gaussian, q: Gaussian) -> float:
    """The 2-Wasserstein distance of two Gaussians, eq. (1).

    Raises:
        DtypeError: an argument is no Gaussian.
        ShapeError: their dimensions differ.

    Reference: arXiv:1712.01504, theorem 1.

    Example:
        >>> bures_wasserstein(Gaussian([0.0, 0.0], 1.0), Gaussian([3.0, 4.0], 1.0))
        5.0
    """
    _checked(p, q)
    pair = _pair(p, q)
    squared = pair.shift.square().sum()
    if pair.a is not None and pair.b is not None:
        squared = squared + (pair.a.sqrt() - pair.b.sqrt()).square().sum()
    else:
        roots = [_root(law) for law in (p, q)]
        u, _, v = torch.linalg.svd(roots[1] @ roots[0])
        squared = squared + (roots[0] - roots[1] @ u @ v).square().sum()
    return math.sqrt(float(squared))


def _root(law: Gaussian) -> Tensor:
    values, vectors = law.spectrum
    root = values.sqrt()
    return root.diag() if vectors is None else (vectors * root) @ vectors.T


def kl_divergence(p: Gaussian, q: Gaussian) -> float:
    """KL(p, q) in nats, eq. (2); infinite where p has a part that q has not.

    Raises:
        DtypeError: an argument is no Gaussian.
        ShapeError: their dimensions differ.

    Reference: Cover and Thomas, Elements of Information Theory, section 8.5.

    Example:
        >>> round(kl_divergence(Gaussian([0.0], 1.0), Gaussian([1.0], 1.0)), 12)
        0.5
    """
    _checked(p, q)
    pair = _pair(p, q)
    if pair.a is None or pair.b is None:
        return _kl_of_matrices(p, q)
    point = (pair.a == 0) & (pair.b == 0)
    if bool(((pair.a == 0) != (pair.b == 0)).any()) or bool((pair.shift[point] != 0).any()):
        return math.inf
    a, b, shift = pair.a[~point], pair.b[~point], pair.shift[~point]
    return 0.5 * float((_excess(a, b) + shift.square() / b).sum())


def _excess(a: Tensor, b: Tensor) -> Tensor:
    """r - 1 - log r of r = a / b, to the last digits both where r is 1 and where it is tiny."""
    gap = (a - b) / b
    return torch.where(gap.abs() < 0.5, gap - gap.log1p(), gap - a.log() + b.log())


def _kl_of_matrices(p: Gaussian, q: Gaussian) -> float:
    """Eq. (2) where the covariances do not commute, on the support that the two share."""
    a, (b, right) = p.spectrum[0], q.spectrum
    kept = b > _SINGULAR * b.max()
    basis = torch.eye(len(b), dtype=b.dtype) if right is None else right
    inside, outside = basis[:, kept], basis[:, ~kept]
    rank = int((a > _SINGULAR * a.max()).sum())
    shift = p.mean - q.mean
    lost = max(float((outside.T @ p.cov @ outside).abs().max()) / float(a.max()),
               float((outside.T @ shift).square().max()) / float(b.max())
               ) if outside.shape[1] else 0.0  # fmt: skip
    if rank < int(kept.sum()) or lost > _SINGULAR:
        return math.inf
    whiten = b[kept].rsqrt()[:, None] * inside.T
    away = (whiten @ shift).square().sum()
    near = torch.linalg.eigvalsh(whiten @ (p.cov - q.cov) @ whiten.T)  # r - 1, near 1 the better
    ratio = torch.linalg.eigvalsh(whiten @ p.cov @ whiten.T).clamp_min(1e-300)
    one = torch.ones_like(ratio)
    each = torch.where(near.abs() < 0.5, near - near.clamp_min(-0.5).log1p(), _excess(ratio, one))
    return 0.5 * float(each.sum() + away)


def total_variation(p: Gaussian, q: Gaussian) -> float | None:
    """The total variation distance, eq. (3), in [0, 1]; None where it has no closed form.

    Raises:
        DtypeError: an argument is no Gaussian.
        ShapeError: their dimensions differ.

    Reference: Devroye, Mehrabian and Reddad, arXiv:1810.08693, section 2.

    Example:
        >>> round(total_variation(Gaussian([0.0], 1.0), Gaussian([1.0], 1.0)), 6)
        0.382925
    """
    _checked(p, q)
    pair = _pair(p, q)
    if pair.a is None or pair.b is None:
        return None
    a, b, shift = pair.a, pair.b, pair.shift
    if bool((a == b).all()):  # the means alone
        if bool((shift[b == 0] != 0).any()):
            return 1.0
        away = float((shift[b > 0].square() / b[b > 0]).sum()) ** 0.5
        return math.erf(away / math.sqrt(8))
    differ = (a != b) | (shift != 0)
    if int(differ.sum()) == 1:
        i = int(differ.nonzero()[0])
        return _on_a_line(float(shift[i]), float(a[i]), float(b[i]))
    if _flat(a) and _flat(b) and not bool(shift.any()):
        small, large = sorted((float(a[0]), float(b[0])))
        if small == 0:
            return 1.0
        gain = math.log(large / small) / (1 / small - 1 / large)  # |x|^2 / d where p = q
        within, beyond = (special.chdtr(len(a), len(a) * gain / v) for v in (small, large))
        return float(within - beyond)
    return None


def _on_a_line(shift: float, a: float, b: float) -> float:
    """Eq. (3) for N(shift, a) and N(0, b) in one dimension, from where the densities cross."""
    if a == 0 or b == 0:
        return 1.0
    # (x - shift)^2 / a + log a = x^2 / b + log b
    square, slope, level = 1 / a - 1 / b, -2 * shift / a, shift**2 / a + math.log(a / b)
    root = math.sqrt(max(slope**2 - 4 * square * level, 0.0))
    far = -0.5 * (slope + math.copysign(root, slope))  # the form that does not cancel
    ends = [far / square] + ([level / far] if far else [-far / square])
    if not slope:
        ends = [root / (2 * square), -root / (2 * square)]
    total = [
        special.ndtr((x - shift) / math.sqrt(a)) - special.ndtr(x / math.sqrt(b)) for x in ends
    ]
    return float(abs(total[0] - total[1]))


@dataclass(frozen=True)
class Worst:
    """The direction of a spectrum in which two laws differ most.

    Attributes:
        variance: that of the second law along it.
        w2: the part of W2 that lies along it.
        relative: w2 over the standard deviation of the second law.
    """

    variance: float
    w2: float
    relative: float

    def __str__(self) -> str:
        share = "" if math.isinf(self.relative) else f", {self.relative:.2%} of its deviation"
        return f"variance {self.variance:.6g}: W2 {self.w2:.3g}{share}"


@dataclass(frozen=True)
class Comparison:
    """How far one Gaussian is from another.

    Attributes:
        w2: the Bures-Wasserstein distance.
        kl: KL(p, q), nats.
        reverse_kl: KL(q, p), nats.
        tv: the total variation, or None where it has no closed form.
        commute: whether the covariances have one basis; without it there is no spectrum.
        variances: those of q along that basis [(d,)], or None.
        spectrum: the part of W2 along each [(d,)], or None.
        worst: where it is largest relative to q's standard deviation, or None.
    """

    w2: float
    kl: float
    reverse_kl: float
    tv: float | None
    commute: bool
    variances: Tensor | None
    spectrum: Tensor | None
    worst: Worst | None

    def __str__(self) -> str:
        tv = "no closed form" if self.tv is None else f"{self.tv:.6g}"
        text = f"W2 {self.w2:.6g}, KL {self.kl:.6g} and {self.reverse_kl:.6g} nats, TV {tv}"
        if self.worst is None:
            return f"{text}; the covariances do not commute: no spectrum"
        return f"{text}; worst at {self.worst}"


def compare(p: Gaussian, q: Gaussian) -> Comparison:
    """Every distance of p from q, and the worst variance of q's spectrum.

    Args:
        p: what a sampler returns, say.
        q: what it should.

    Raises:
        DtypeError: an argument is no Gaussian.
        ShapeError: their dimensions differ.

    Example:
        >>> import torch
        >>> p = Gaussian.from_spectrum(torch.zeros(2), torch.tensor([1.21, 4.0]))
        >>> q = Gaussian.from_spectrum(torch.zeros(2), torch.tensor([1.0, 4.0]))
        >>> found = compare(p, q)
        >>> round(found.w2, 6), round(found.worst.variance, 6), round(found.worst.relative, 6)
        (0.1, 1.0, 0.1)
    """
    _checked(p, q)
    pair = _pair(p, q)
    spectrum = worst = None
    if pair.a is not None and pair.b is not None:
        gap = pair.a.sqrt() - pair.b.sqrt()
        spectrum = (gap.square() + pair.shift.square()).sqrt()
        relative = torch.where(spectrum == 0, 0.0, spectrum / pair.b.sqrt())
        i = int(relative.argmax())
        worst = Worst(float(pair.b[i]), float(spectrum[i]), float(relative[i]))
    return Comparison(
        w2=bures_wasserstein(p, q),
        kl=kl_divergence(p, q),
        reverse_kl=kl_divergence(q, p),
        tv=total_variation(p, q),
        commute=spectrum is not None,
        variances=pair.b if spectrum is not None else None,
        spectrum=spectrum,
        worst=worst,
    )
