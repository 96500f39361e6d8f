r"""Whether the predicted score can be a score: a gradient, and a solution of its own equation.

A score is the gradient of log p_t, hence its Jacobian J is symmetric, and p_t obeys the
Fokker-Planck equation, hence

    ds/dt = -grad[div f + f . s - g^2/2 (div s + |s|^2)]                                        (1)

(Lai et al., arXiv:2210.04296, eq. 6). Both are equations for the network alone; data only say
where to look. With f = f(t) x and log-SNR l as the time, dl/dt = -g^2/sigma^2, eq. (1) becomes

    ds/dl = -(sigma^2/g^2) [-f s - f J^T x + g^2/2 (grad div s + 2 J^T s)],                     (2)

whose residual, times sigma, is in units of the noise for a change of the log-SNR by 1. The left
side is a five-point difference in l: a network need not be differentiable in time. In few
dimensions J and div s are whole, in many they are found along random directions:

    |J - J^T|^2 = E (u . J v - v . J u)^2,   |r|^2 = E r_1 . r_2,                               (3)

u, v normal and r_1, r_2 the residual with div s by two independent probes, unbiased either way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.verify.audit.intervals import Curve, mean_and_error, quantile, ratio, root
from sdekit.verify.audit.subject import Audited
from sdekit.verify.claims import Skip

__all__ = ["asymmetry", "fokker_planck"]

POINTS = 512  # looked at, at each time
WHOLE = 8  # dimensions up to which the Jacobian is found whole
PROBES = 4  # of eq. (3)
_STEP = 0.05  # in the log-SNR: the error of the difference is about its fourth power
_NUMBERS = 2**16  # points times dimensions, at most


def _places(audited: Audited, k: int) -> Tensor:
    """Noisy samples to look at [(points, d)], each of another clean one."""
    count = max(16, min(POINTS, audited.n, _NUMBERS // audited.d))
    return audited.at(k).x[:: audited.each][:count]


def _followed(audited: Audited, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """A copy of x with a gradient, and the predicted noise there."""
    point = x.detach().clone().requires_grad_()
    return point, audited.differentiable(point, t)


def _pulled(output: Tensor, point: Tensor, by: Tensor, *, again: bool = False) -> Tensor:
    """J^T by [(points, d)]."""
    (found,) = torch.autograd.grad(
        output, point, by, retain_graph=True, create_graph=again, allow_unused=True
    )
    return torch.zeros_like(point) if found is None else found


def asymmetry(audited: Audited, tolerance: float) -> Curve:
    """|J - J^T| / |J| of the score, in the root mean square over points.

    Where |J| is less than that of noise alone, |I| / sigma^2, that stands for it: a network that
    sees little noise has errors in units of the noise too.
    """
    d = audited.d
    if d == 1:
        raise Skip("in one dimension every function is a gradient")
    points = []
    for k, t in enumerate(audited.times.tolist()):
        x = _places(audited, k)
        q = quantile(len(x), len(audited.times))
        with audited.evaluating():
            point, eps = _followed(audited, x, t)
            if d <= WHOLE:
                eye = torch.eye(d, dtype=x.dtype, device=x.device)
                jacobian = torch.stack([_pulled(eps, point, e.expand_as(eps)) for e in eye], 1)
                apart = (jacobian - jacobian.mT).square().sum((1, 2))
                size = jacobian.square().sum((1, 2))
            else:
                apart, size = _probed(audited, k, eps, point)
        apart, size = apart.detach(), size.detach()
        noise = d / audited.level(t)[1] ** 2  # |J|^2 of eps_hat = x / sigma, pure noise
        if float(size.mean()) < noise:
            size = torch.full_like(size, noise)
        points.append(root(*ratio(apart, size), q))
    times = tuple(audited.times.tolist())
    return Curve(
        "jacobian_symmetry", r"asymmetry: $|J - J^T| / |J|$", times, tuple(points), tolerance
    )


def _probed(audited: Audited, k: int, eps: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased |J - J^T|^2 and |J|^2 at every point, eq. (3)."""
    apart, size = torch.zeros(len(eps)).to(eps), torch.zeros(len(eps)).to(eps)
    for probe in range(PROBES):
        u, v = (audited.plain(len(eps), k, 10 + 2 * probe + i) for i in (0, 1))
        by_u, by_v = _pulled(eps, point, u), _pulled(eps, point, v)
        apart += ((by_u * v).sum(1) - (by_v * u).sum(1)).square() / PROBES
        size += 0.5 * (by_u.square().sum(1) + by_v.square().sum(1)) / PROBES
    return apart, size


def fokker_planck(audited: Audited, tolerance: float) -> Curve:
    """The residual of eq. (2), in the root mean square over points, a coordinate."""
    if "ddpm" in audited.sde.kinds:
        raise Skip("the network of a chain is defined at its nodes: it has no derivative in time")
    low, high = (float(audited.sde.log_snr(t)) for t in (audited.sde.t_max, audited.sde.t_min))
    points, times = [], []
    for k, t in enumerate(audited.times.tolist()):
        log_snr = float(audited.sde.log_snr(t))
        if not low + 2 * _STEP < log_snr < high - 2 * _STEP:
            continue  # the difference needs times on both sides
        x = _places(audited, k)
        with audited.evaluating():
            first, second = _residuals(audited, k, x, t)
        square, error = (
            float(v) for v in mean_and_error((first * second).mean(1, keepdim=True).detach())
        )
        times.append(t)
        points.append(root(square, error, quantile(len(x), len(audited.times))))
    if not points:
        raise Skip("no time has others on both sides within [t_min, t_max]")
    return Curve(
        "score_fokker_planck",
        r"Fokker-Planck: $\sigma|\partial_\lambda s - \ldots|$",
        tuple(times),
        tuple(points),
        tolerance,
    )


def _residuals(audited: Audited, k: int, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Eq. (2) times sigma [(points, d)], twice; independent where the divergence is probed."""
    sde = audited.sde
    _, sigma = audited.level(t)
    f, g2 = float(sde.f(t)), float(sde.g2(t))
    point, eps = _followed(audited, x, t)
    score = -eps / sigma
    along = g2 * score.detach() - f * point.detach()
    known = -f * score.detach() + _pulled(score, point, along)
    rate = _rate(audited, x, t)

    def residual(divergence: Tensor) -> Tensor:
        constant = not divergence.requires_grad  # of a linear network
        bend = 0.0 if constant else _pulled(divergence, point, torch.ones_like(divergence))
        return sigma * rate + sigma**3 / g2 * (known + 0.5 * g2 * bend)

    if audited.d <= WHOLE:
        eye = torch.eye(audited.d, dtype=x.dtype, device=x.device)
        rows = [_pulled(score, point, e.expand_as(x), again=True) @ e for e in eye]
        found = residual(torch.stack(rows).sum(0))
        return found, found
    probes = [audited.plain(len(x), k, 30 + i).sign() for i in (0, 1)]
    first, second = (residual((_pulled(score, point, v, again=True) * v).sum(1)) for v in probes)
    return first, second


def _rate(audited: Audited, x: Tensor, t: float) -> Tensor:
    """ds/dl at fixed x [(points, d)], by five points."""
    log_snr = float(audited.sde.log_snr(t))

    def score(step: float) -> Tensor:
        near = float(audited.sde.t_from_log_snr(log_snr + step))
        return -audited.eps(x, near) / audited.level(near)[1]

    wide, close = (score(k * _STEP) - score(-k * _STEP) for k in (2, 1))
    return (8 * close - wide) / (12 * _STEP)
