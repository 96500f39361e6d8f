r"""What can be said of a score s_hat without knowing the true one, time by time.

With x_t ~ p_t, x_t = alpha x_0 + sigma eps, s the true score, eps_hat = -sigma s_hat and
D = (x - sigma eps_hat)/alpha, for every p_t

    E[h . s + div h] = 0                                    Stein's identity                    (1)
    E[(eps - eps_hat) . eps_hat] = 0 at the optimum         the error is orthogonal             (2)
    E|eps_hat - eps|^2 <= that of the best linear denoiser  the Gaussian floor                  (3)
    E[D(x_s, s) | x_t] = D(x_t, t) for s < t                Tweedie's martingale                (4)

each of which is an expectation over held-out data. All are given in units of the noise, in which
the error of the score at a time is e = (E|eps_hat - eps*|^2 / d)^(1/2), eps* the right one: by
Cauchy's inequality (1), divided by the size of the test function, and (2), divided by that of
eps_hat, are lower bounds of e, and (3), where it is positive, one of e^2. They mean the same at
every noise level, and no more than the loss that a network is trained by.

In (1) and (4) test functions are h = u f(z), z the standardised projection of x_t on a direction
u, f in {1, z, tanh z}. As the noise is known, so are quantities of mean 0,

    f(z) eps.u - (sigma/S) f'(z),                                                           (5)

S the spread of the projection, and whatever is linear in them is taken out of what is averaged:
it makes the intervals shorter and changes no mean.

References: Liu, Lee and Jordan, arXiv:1602.03253, eq. 4, for (1); Vincent, doi:10.1162/
NECO_a_00142, section 4.3, for (2): the minimiser is a conditional mean; Efron,
doi:10.1198/jasa.2011.tm11181, eq. 1.4 and the tower property, for (4).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdekit.model import Moments
from sdekit.verify.audit.intervals import (
    Curve,
    Point,
    quantile,
    reduced,
    worst,
)
from sdekit.verify.audit.subject import Audited, Seen

__all__ = ["calibration", "gaussian_floor", "martingale", "stein"]

DIRECTIONS = 8  # of test functions: the axes of fewer dimensions, else random ones


def directions(audited: Audited) -> Tensor:
    """Unit vectors [(d, m)]."""
    d = audited.d
    if d <= DIRECTIONS:
        return torch.eye(d, dtype=torch.float64, device=audited.data.device)
    draw = torch.randn(d, DIRECTIONS, generator=audited.generator(-1), dtype=torch.float64)
    return (draw / draw.norm(dim=0)).to(audited.data.device)


def fields(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """F and f'/S along every direction, [(rows, 3 m)] each: 1, z and tanh z."""
    along = x @ u
    spread = along.std(0).clamp_min(1e-12 * float(along.abs().max()) + 1e-300)
    z = (along - along.mean(0)) / spread
    tanh = torch.tanh(z)
    values = torch.cat([torch.ones_like(z), z, tanh], 1)
    slopes = torch.cat([torch.zeros_like(z), torch.ones_like(z), 1 - tanh**2], 1)
    return values, slopes / spread.repeat(3)


def known(seen: Seen, u: Tensor) -> Tensor:
    """Eq. (5) [(rows, 3 m)]."""
    values, slopes = fields(seen.x, u)
    return values * (seen.noise @ u).repeat(1, 3) - seen.sigma * slopes


def stein(audited: Audited, tolerance: float) -> Curve:
    """Eq. (1), in units of the noise."""
    u = directions(audited)
    q = quantile(audited.n, 3 * u.shape[1] * len(audited.times))

    def point(seen: Seen) -> Point:
        values, slopes = fields(seen.x, u)
        score = -(seen.eps @ u).repeat(1, 3)  # times sigma
        identity = (values * score + seen.sigma * slopes) / values.square().mean(0).sqrt()
        return worst(*reduced(identity, known(seen, u), audited.each), q)

    return _over_time(
        audited, "stein_identity", r"Stein: $\sigma\,|E[h\cdot s + \mathrm{div}\,h]|$", point,
        tolerance,
    )  # fmt: skip


def calibration(audited: Audited, tolerance: float) -> Curve:
    """Eq. (2), a coordinate: positive where eps_hat is too small.

    It is half the slope of the loss of c eps_hat by c at c = 1, with its sign turned.
    """
    u = directions(audited)
    q = quantile(audited.n, len(audited.times))

    def point(seen: Seen) -> Point:
        left = ((seen.noise - seen.eps) * seen.eps).mean(1)
        return _signed(left, known(seen, u), audited, q)

    axis = r"calibration: $E[(\epsilon - \hat\epsilon)\cdot\hat\epsilon]/d$"
    return _over_time(audited, "noise_calibration", axis, point, tolerance, sides=2)


def gaussian_floor(audited: Audited, tolerance: float) -> Curve:
    """What eq. (3) lacks: the loss beyond that of the best linear denoiser, per coordinate.

    The denoiser of each half of the data is made of the other half's mean and covariance: its loss
    is that of a denoiser, hence above the least.
    """
    q = quantile(audited.n, len(audited.times))
    u, laws = directions(audited), halves(audited)

    def point(seen: Seen) -> Point:
        other = linear_denoiser(audited, laws, seen)
        losses = [(e - seen.noise).square().mean(1) for e in (seen.eps, other)]
        return _signed(losses[0] - losses[1], known(seen, u), audited, q)

    return _over_time(audited, "gaussian_floor", "loss beyond the floor", point, tolerance)


def martingale(audited: Audited, tolerance: float) -> Curve:
    """Eq. (4) from each time to the next one, in units of the noise at the later time."""
    u = directions(audited)
    pairs = len(audited.times) - 1
    q = quantile(audited.n, 3 * u.shape[1] * pairs)
    points = []
    for k in range(pairs):
        before, t = audited.at(k), float(audited.times[k + 1])
        alpha, sigma = audited.level(t)
        scale, std = (float(v) for v in audited.sde.transition(before.t, t))
        fresh = audited.normal(k, 1)
        x = scale * before.x + std * fresh
        clean = (before.x - before.sigma * before.eps) * (alpha / before.alpha)
        moved = (clean - x) / sigma + audited.eps(x, t)  # alpha/sigma (D(x_s, s) - D(x_t, t))
        values, slopes = fields(x, u)
        product = (moved @ u).repeat(1, 3) * values / values.square().mean(0).sqrt()
        noises = ((before.noise, scale * before.sigma), (fresh, std))  # eq. (5) for both
        none = [values * (z @ u).repeat(1, 3) - size * slopes for z, size in noises]
        points.append(worst(*reduced(product, torch.cat(none, 1), audited.each), q))
    return Curve(
        "tweedie_martingale",
        r"martingale: $|E[(D_s - D_t)\varphi]|\,\alpha/\sigma$",
        tuple(audited.times[1:].tolist()),
        tuple(points),
        tolerance,
    )


def halves(audited: Audited) -> tuple[Moments, Moments]:
    """The moments of the second half of the samples and of the first."""
    if "halves" not in audited.cache:
        half = audited.n // 2
        audited.cache["halves"] = (
            Moments.of(audited.data[half:]),
            Moments.of(audited.data[:half]),
        )
    return audited.cache["halves"]


def linear_denoiser(audited: Audited, laws: tuple[Moments, Moments], seen: Seen) -> Tensor:
    """The noise that the Gaussian of the other half's moments predicts [(rows, d)]."""
    cut = (audited.n // 2) * audited.each
    parts = (seen.x[:cut], seen.x[cut:])
    return torch.cat([_whitened(law, x, seen) for law, x in zip(laws, parts, strict=True)])


def _whitened(law: Moments, x: Tensor, seen: Seen) -> Tensor:
    """Sigma (alpha^2 C + sigma^2 I)^{-1} (x - alpha m)."""
    noised = law.perturbed(seen.alpha, seen.sigma**2)
    y = x - noised.mean.to(x)
    values = noised.values.to(x)
    if noised.vectors is None:
        return seen.sigma * y / values
    vectors = noised.vectors.to(x)
    if vectors.shape[0] == vectors.shape[1]:
        return seen.sigma * ((y @ vectors) / values) @ vectors.T
    gain = 1 / values - 1 / noised.rest
    return seen.sigma * (y / noised.rest + ((y @ vectors) * gain) @ vectors.T)


def _signed(values: Tensor, none: Tensor, audited: Audited, q: float) -> Point:
    """The mean of values [(rows,)] with its interval; eq. (5) is `none`."""
    mean, error = (float(v) for v in reduced(values[:, None], none, audited.each))
    return Point(mean, error, mean - q * error, mean + q * error)


def _over_time(
    audited: Audited,
    name: str,
    axis: str,
    point: Callable[[Seen], Point],
    tolerance: float,
    sides: int = 1,
) -> Curve:
    """The curve of a point at every time."""
    points = tuple(point(seen) for seen in audited.all())
    return Curve(name, axis, tuple(audited.times.tolist()), points, tolerance, sides)
