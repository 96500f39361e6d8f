"""Formulas written from the papers, for what a law alone does not tell apart.

A sampler with eta for eta^2 is a right sampler of another paper; a network that predicts -v is a
right network of another name. Here stands what each name means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.sde import DDPM, VPSDE

__all__ = ["MEANINGS", "SPACINGS", "STEPS", "WEIGHTS", "Step"]


class Step(NamedTuple):
    """x_s = x x_t + score s(x_t) + std z."""

    x: float
    score: float
    std: float


class Published(NamedTuple):
    """A method's source, the steps (sde, t, s) it is compared on, and its formula.

    The formula gets (sampler, sde, t, s) and may return None where the paper has none.
    """

    source: str
    steps: tuple[tuple[Any, float, float], ...]
    formula: Callable[[Any, Any, float, float], Step | None]
    at_end: bool = False  # the score is that of s, where a corrector works


_VP = VPSDE(beta_min=0.1, beta_max=20.0)
_CHAIN = DDPM.linear(20, beta_start=0.005, beta_end=0.5)
_ON_VP = ((_VP, 0.7, 0.5), (_VP, 0.2, 0.15))
_ON_CHAIN = ((_CHAIN, 0.6, 0.55), (_CHAIN, 0.25, 0.2))


def _beta(t: float) -> float:
    return 0.1 + 19.9 * t


def _integral(s: float, t: float) -> float:
    """Of beta from s to t."""
    return 0.1 * (t - s) + 19.9 * (t**2 - s**2) / 2


def _bar(t: float) -> float:
    """alpha^2 of VP."""
    return math.exp(-_integral(0.0, t))


def _ddim(sampler: Any, sde: Any, t: float, s: float) -> Step:
    """Eqs. 12 and 16, with the score for -eps/sqrt(1 - alpha_bar)."""
    bar_t, bar_s = _bar(t), _bar(s)
    var = sampler.eta**2 * (1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s)
    rest = 1 - bar_t
    # x_0 = (x + rest score)/sqrt(bar_t), eps = -sqrt(rest) score
    on_x = math.sqrt(bar_s / bar_t)
    on_score = on_x * rest - math.sqrt(1 - bar_s - var) * math.sqrt(rest)
    return Step(on_x, on_score, math.sqrt(var))


def _euler(sampler: Any, sde: Any, t: float, s: float) -> Step:
    """The reverse SDE dx = [-beta x/2 - (1 + eta^2)/2 beta score] dt + eta sqrt(beta) dW."""
    h, beta = t - s, _beta(t)
    eta = sampler.eta
    return Step(1 + 0.5 * beta * h, 0.5 * (1 + eta**2) * beta * h, eta * math.sqrt(beta * h))


def _reverse_diffusion(sampler: Any, sde: Any, t: float, s: float) -> Step:
    """Algorithm 3's predictor: (2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z."""
    beta = float(sde.betas[round(t * sde.n) - 1])
    return Step(2 - math.sqrt(1 - beta), beta, math.sqrt(beta))


def _ancestral(sampler: Any, sde: Any, t: float, s: float) -> Step:
    """(x + beta score)/sqrt(1 - beta); the variance between beta_tilde and beta in logarithms."""
    i = round(t * sde.n)
    beta = float(sde.betas[i - 1])
    bar = math.prod(1 - b for b in sde.betas[:i].tolist())
    tilde = beta * (1 - bar / (1 - beta)) / (1 - bar)
    part = {"posterior": 0.0, "beta": 1.0}.get(sampler.variance, sampler.variance)
    var = math.exp(part * math.log(beta) + (1 - part) * math.log(tilde))
    return Step(1 / math.sqrt(1 - beta), beta / math.sqrt(1 - beta), math.sqrt(var))


def _exponential(sampler: Any, sde: Any, t: float, s: float) -> Step:
    """dx = [-beta x/2 - beta score] dt + sqrt(beta) dW with the score frozen, solved exactly."""
    whole = _integral(s, t)
    growth = math.exp(whole / 2)
    return Step(growth, 2 * (growth - 1), math.sqrt(math.expm1(whole)))


def _langevin(sampler: Any, sde: Any, t: float, s: float) -> Step | None:
    """x + h score + sqrt(2 h) z, h = 2 (snr sigma_s)^2; the last level has none below it."""
    if getattr(sampler, "rule", "sigma") != "sigma" or sampler.repeats != 1:
        return None
    h = 2 * sampler.snr**2 * (1 - _bar(s))
    return Step(1.0, h, math.sqrt(2 * h))


def _held_eps(sampler: Any, sde: Any, t: float, s: float) -> Step | None:
    """The flow with eps held over a first row of one call: the step of DDIM with eta = 0."""
    if sampler.nfe_per_step != 1 or sampler.warmup_nfe or getattr(sampler, "eta", 0.0):
        return None
    bar_t, bar_s = _bar(t), _bar(s)
    on_x = math.sqrt(bar_s / bar_t)
    return Step(on_x, on_x * (1 - bar_t) - math.sqrt((1 - bar_s) * (1 - bar_t)), 0.0)


def _half_log_snr(t: float) -> float:
    return 0.5 * math.log(_bar(t) / (1 - _bar(t)))


def _held_x0(sampler: Any, sde: Any, t: float, s: float) -> Step | None:
    """Eq. 18: the SDE of stochasticity tau with x_0 = (x + sigma^2 score)/alpha held."""
    if sampler.nfe_per_step != 1 or getattr(sampler, "prediction", "x0") != "x0":
        return None
    tau = sampler.tau if hasattr(sampler, "tau") else sampler.eta
    if getattr(sampler, "tau_max", None) is not None:
        return None
    h, bar_t, bar_s = _half_log_snr(s) - _half_log_snr(t), _bar(t), _bar(s)
    old = math.sqrt((1 - bar_s) / (1 - bar_t)) * math.exp(-(tau**2) * h)
    new = math.sqrt(bar_s / bar_t) * -math.expm1(-(1 + tau**2) * h)
    std = math.sqrt((1 - bar_s) * -math.expm1(-2 * tau**2 * h))
    return Step(old + new, new * (1 - bar_t), std)


def _extended(sampler: Any, sde: Any, t: float, s: float) -> Step | None:
    """Proposition 4 with x_0 held; phi by its name."""
    if sampler.warmup_nfe:
        return None
    phi = {
        "er_sde_5": lambda r: r * (math.exp(r**0.3) + 10), "sde": lambda r: r**2,
        "ode": lambda r: r,
    }[sampler.scale]  # fmt: skip
    r_t, r_s = math.exp(-_half_log_snr(t)), math.exp(-_half_log_snr(s))
    part, alpha_s = phi(r_s) / phi(r_t), math.sqrt(_bar(s))
    ratio = math.sqrt(_bar(s) / _bar(t))
    std = alpha_s * math.sqrt(max(r_s**2 - r_t**2 * part**2, 0.0))
    return Step(ratio, ratio * (1 - part) * (1 - _bar(t)), std)


def _renoised(sampler: Any, sde: Any, t: float, s: float) -> Step | None:
    """Around DDIM: eq. 16 of its paper, with the same eta."""
    return _ddim(sampler, sde, t, s) if repr(sampler.sampler).startswith("ddim") else None


STEPS: Mapping[str, Published] = {
    "ddim": Published("arXiv:2010.02502, eqs. 12 and 16", _ON_VP, _ddim),
    "euler_maruyama": Published("arXiv:2011.13456, eq. 6", _ON_VP, _euler),
    "reverse_diffusion": Published("arXiv:2011.13456, eq. 46", _ON_CHAIN, _reverse_diffusion),
    "ancestral": Published(
        "arXiv:2006.11239, eq. 11; arXiv:2102.09672, eq. 15", _ON_CHAIN, _ancestral
    ),
    "exponential_euler": Published("arXiv:2405.14250, section 4", _ON_VP, _exponential),
    "dpm_solver": Published("arXiv:2206.00927, eq. 3.7", _ON_VP, _held_eps),
    "dpmpp_2m": Published("arXiv:2211.01095, eq. 9", _ON_VP, _held_eps),
    "dpmpp_3m": Published("arXiv:2211.01095, eq. 9", _ON_VP, _held_eps),
    "sde_dpmpp_2m": Published("arXiv:2211.01095, eq. 18", _ON_VP, _held_x0),
    "unipc": Published("arXiv:2302.04867, eq. 3", _ON_VP, _held_eps),
    "sa_solver": Published("arXiv:2305.14267, eq. 14", _ON_VP, _held_x0),
    "deis": Published("arXiv:2204.13902, eq. 14", _ON_VP, _held_eps),
    "lms": Published("arXiv:2204.13902, eq. 15", _ON_VP, _held_eps),
    "ipndm": Published("arXiv:2202.09778, eq. 11", _ON_VP, _held_eps),
    "er_sde": Published("arXiv:2309.06169, proposition 4", _ON_VP, _extended),
    "renoised": Published("arXiv:2010.02502, eq. 16", _ON_VP, _renoised),
    "langevin": Published("arXiv:2011.13456, algorithm 5", _ON_VP, _langevin, at_end=True),
}


# what a network predicts ------------------------------------------------------------------------


class Point(NamedTuple):
    """A noisy sample and how it was made, on VP at time t [(n,) each but t, alpha, sigma]."""

    x0: Tensor
    eps: Tensor
    t: Tensor
    sde: Any

    @property
    def alpha(self) -> Tensor:
        """sqrt(alpha_bar) [(n,)]."""
        return self.sde.alpha(self.t)

    @property
    def sigma(self) -> Tensor:
        """sqrt(1 - alpha_bar) [(n,)]."""
        return self.sde.sigma(self.t)


def _path_velocity(point: Point) -> Tensor:
    """d/dt of alpha x_0 + sigma eps, by differences."""
    h = 1e-5

    def at(t: Tensor) -> Tensor:
        return point.sde.alpha(t) * point.x0 + point.sde.sigma(t) * point.eps

    return (at(point.t + h) - at(point.t - h)) / (2 * h)


def _conditional_score(point: Point) -> Tensor:
    """grad_x log N(x; alpha x_0, sigma^2), by autograd."""
    x = (point.alpha * point.x0 + point.sigma * point.eps).requires_grad_()
    density = -0.5 * ((x - point.alpha * point.x0) / point.sigma) ** 2
    # its own slope is asked for by losses that look at the divergence
    return torch.autograd.grad(density.sum(), x, create_graph=torch.is_grad_enabled())[0]


def _edm(point: Point, of: Any) -> Tensor:
    """F with x_0 = c_skip x + c_out F: eq. 7 and table 1, in sigma/alpha and x/alpha."""
    data, level = of.sigma_data, point.sigma / point.alpha
    noisy = point.x0 + level * point.eps
    c_skip = data**2 / (level**2 + data**2)
    c_out = level * data / (level**2 + data**2).sqrt()
    return (point.x0 - c_skip * noisy) / c_out


# name -> (what the raw output is, source)
MEANINGS: Mapping[str, tuple[Callable[[Point, Any], Tensor], str]] = {
    "eps": (lambda p, of: p.eps, "arXiv:2006.11239, eq. 14"),
    "x0": (lambda p, of: p.x0, "arXiv:2202.00512, section 4"),
    "score": (lambda p, of: _conditional_score(p), "arXiv:2011.13456, eq. 7"),
    "v": (lambda p, of: p.alpha * p.eps - p.sigma * p.x0, "arXiv:2202.00512, appendix D"),
    "flow": (lambda p, of: _path_velocity(p), "arXiv:2210.02747, eq. 23"),
    "edm": (_edm, "arXiv:2206.00364, eq. 7"),
}

# name -> (what is equally spaced, source); a function of (grid, process, times)
SPACINGS: Mapping[str, tuple[Callable[[Any, Any, Tensor], Tensor], str]] = {
    "uniform": (lambda grid, sde, t: t, "arXiv:2011.13456, appendix D"),
    "quadratic": (lambda grid, sde, t: t.sqrt(), "arXiv:2010.02502, appendix D.2"),
    "log_snr": (
        lambda grid, sde, t: 2 * sde.log_alpha(t) - sde.var(t).log(),
        "arXiv:2206.00927, section 3.4",
    ),
    "karras": (
        lambda grid, sde, t: (sde.sigma(t) / sde.alpha(t)) ** (1 / grid.rho),
        "arXiv:2206.00364, eq. 5",
    ),
}  # fmt: skip


def _snr(sde: Any, t: Tensor) -> Tensor:
    return sde.alpha(t).square() / sde.sigma(t).square()


def _soft(w: Any, sde: Any, t: Tensor) -> Tensor:
    """1 / (s^2 + 1/gamma) on x_0, which is eps error over the root of the SNR."""
    level = sde.sigma(t) / sde.alpha(t)
    return level.square() / (level.square() + 1 / w.gamma)


def _karras(w: Any, sde: Any, t: Tensor) -> Tensor:
    """(s^2 + d^2) / (s d)^2 on x_0."""
    level = sde.sigma(t) / sde.alpha(t)
    return (level**2 + w.sigma_data**2) / (level * w.sigma_data) ** 2 / _snr(sde, t)


# name -> (the weight of the squared error of the noise by (weighting, process, times), source)
WEIGHTS: Mapping[str, tuple[Callable[[Any, Any, Tensor], Tensor], str]] = {
    "simple": (lambda w, sde, t: torch.ones_like(t), "arXiv:2006.11239, eq. 14"),
    "sigma2": (lambda w, sde, t: torch.ones_like(t), "arXiv:2011.13456, section 3.3"),
    "likelihood": (
        lambda w, sde, t: sde.diffusion(t).square() / sde.sigma(t).square(),
        "arXiv:2101.09258, eq. 7",
    ),
    "min_snr": (
        lambda w, sde, t: torch.minimum(_snr(sde, t), w.gamma + 0 * t) / _snr(sde, t),
        "arXiv:2303.09556",
    ),
    "soft_min_snr": (_soft, "arXiv:2401.11605"),
    "p2": (lambda w, sde, t: (w.k + _snr(sde, t)) ** -w.gamma, "arXiv:2204.00227"),
    "edm": (_karras, "arXiv:2206.00364, table 1"),
    "uncertainty": (
        lambda w, sde, t: WEIGHTS[w.base.catalogue_name][0](w.base, sde, t),
        "arXiv:2312.02696, eq. 21",
    ),
}
