"""Hypothesis strategies for SDEs and times, the SDEs that every test runs over, an exact density.

Strategies draw shrink-friendly parameters: one end and a ratio, not two ends and an assumption.
The odd but valid SDEs (`ODD`) must pass whatever the catalogue's own examples pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import torch
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, CosineSDE, FlowSDE, LinearSDE, SubVPSDE

EPS = torch.finfo(torch.float64).eps


def f64(values) -> Tensor:
    """A float64 tensor of these numbers."""
    return torch.tensor(values, dtype=torch.float64)


# odd but valid SDEs, written as a user would ----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PiecewiseBeta(LinearSDE):
    """Variance preserving, beta = low before t = jump and high after it."""

    low: float = 0.5
    high: float = 12.0
    jump: float = 0.3

    @property
    def kinks(self):
        return [self.jump]

    def log_alpha(self, t):
        return -0.5 * (
            self.low * t.clamp_max(self.jump) + self.high * (t - self.jump).clamp_min(0)
        )

    def var(self, t):
        return -torch.expm1(2 * self.log_alpha(t))


@dataclass(frozen=True, kw_only=True)
class PlainOU(LinearSDE):
    """dx = -rate x dt + sqrt(2 rate spread) dW from var(0) = start: not variance preserving."""

    rate: float = 3.0
    spread: float = 1.0
    start: float = 0.0

    def log_alpha(self, t):
        return -self.rate * t

    def var(self, t):
        gone = -torch.expm1(-2 * self.rate * t)
        return self.start * (1 - gone) + self.spread * gone


@dataclass(frozen=True, kw_only=True)
class WarpedVP(LinearSDE):
    """`VPSDE` run on the clock t^power: an SDE that has only `log_alpha` and `var`."""

    power: float = 2.0
    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_alpha(self, t):
        u = t**self.power
        return -0.5 * u * (self.beta_min + 0.5 * u * (self.beta_max - self.beta_min))

    def var(self, t):
        return -torch.expm1(2 * self.log_alpha(t))


def _beta(t):
    return 0.1 + 19.9 * t


def _minus_half_beta(t):
    return -0.5 * _beta(t)


def _step(t):
    return torch.where(t < 0.25, 0.5, 8.0).to(t.dtype)


def _minus_half_step(t):
    return -0.5 * _step(t)


ODD = {
    "piecewise_beta": PiecewiseBeta(),
    "plain_ou": PlainOU(),
    "plain_ou_wide": PlainOU(rate=0.7, spread=4.0, start=0.25, t_min=0.0),
    "t_max_3": PlainOU(rate=1.5, t_max=3.0),
    "t_max_0.4": VPSDE(t_max=0.4),
    "sub_vp_t_max_2.5": SubVPSDE(beta_min=0.5, beta_max=4.0, t_max=2.5),
    "sigma_min_1e-8": VESDE(sigma_min=1e-8, sigma_max=10.0),
    "edm_rho_3": EDM(rho=3.0, sigma_min=0.1, t_max=0.7),
    "warped_vp": WarpedVP(),
    "custom_var0": PlainOU(start=0.09, t_min=0.0),
    "two_lambdas": LinearSDE.from_coefficients(_minus_half_beta, _beta),
    "two_lambdas_jump": LinearSDE.from_coefficients(_minus_half_step, _step, var0=0.04, t_max=1.5),
    "strong_beta": VPSDE(beta_min=0.1, beta_max=200.0),
    "strong_sub_vp": SubVPSDE(beta_min=0.1, beta_max=900.0),
}
_JUMPS = {"two_lambdas_jump": [0.25]}


def catalogue_examples() -> dict[str, LinearSDE]:
    """Every example of every SDE in the catalogue, by a readable id."""
    return {
        f"{name}-{k}": sde
        for name, entry in catalogue("sde").items()
        for k, sde in enumerate(entry.examples())
    }


def own_examples() -> dict[str, LinearSDE]:
    """Those examples whose class belongs to sdekit itself."""
    return {
        key: sde
        for key, sde in catalogue_examples().items()
        if type(sde).__module__.startswith("sdekit.")
    }


EVERY = {**catalogue_examples(), **ODD}

every_sde = pytest.mark.parametrize("sde", EVERY.values(), ids=EVERY)


def kinks(sde) -> list[float]:
    """The times inside (0, t_max) at which f or g jumps."""
    if "ddpm" in sde.kinds:
        return [i / sde.n for i in range(1, sde.n)]
    for key, jumps in _JUMPS.items():
        if sde is ODD[key]:
            return jumps
    return list(getattr(sde, "kinks", []))


def smooth_times(sde, n: int = 24, low: float = 1e-6) -> Tensor:
    """Rising times inside (0, t_max) [(<= n,)], log-spaced then even, away from kinks."""
    t = torch.cat(
        [
            torch.logspace(math.log10(low), -1.2, n // 2, dtype=torch.float64),
            torch.linspace(0.08, 0.985, n - n // 2, dtype=torch.float64),
        ]
    )
    t = t * sde.t_max
    if "ddpm" in sde.kinds:  # into their intervals
        first = (t * sde.n).floor()
        t = torch.where(t * sde.n < 0.8, t, (first + 0.1 + 0.8 * (t * sde.n - first)) / sde.n)
        t = t.sort().values
    return t[room(sde, t) > 1e-3 * t]


def room(sde, t: Tensor) -> Tensor:
    """The distance from each t to the nearest of 0, t_max and the kinks [shape of t]."""
    at = torch.tensor([0.0, sde.t_max, *kinks(sde)], dtype=torch.float64)
    return (t[..., None] - at).abs().amin(-1)


def pairs(sde, n: int = 14) -> tuple[Tensor, Tensor]:
    """Times s < t inside (0, t_max], all pairs of a grid; nodes on a DDPM."""
    if "ddpm" in sde.kinds:
        nodes = torch.linspace(1, sde.n, min(n, sde.n)).round().to(torch.int64).unique()
        grid = torch.cat([torch.zeros(1, dtype=torch.float64), sde.time(nodes)])
    else:
        grid = torch.cat([smooth_times(sde, n), torch.tensor([sde.t_max], dtype=torch.float64)])
    s, t = torch.meshgrid(grid, grid, indexing="ij")
    return s[s < t], t[s < t]


# strategies -------------------------------------------------------------------------------------


def log_uniform(low: float, high: float):
    """Floats whose logarithm is uniform; they shrink towards `high` through powers of ten."""
    return st.floats(math.log10(low), math.log10(high)).map(lambda e: float(10.0**e))


@st.composite
def _betas(draw):
    low = draw(log_uniform(1e-3, 1.0), label="beta_min")
    return {"beta_min": low, "beta_max": low * draw(log_uniform(1.0, 1e3), label="ratio")}


@st.composite
def _sigmas(draw):
    low = draw(log_uniform(1e-4, 1.0), label="sigma_min")
    return {"sigma_min": low, "sigma_max": low * draw(log_uniform(2.0, 1e5), label="ratio")}


t_maxima = st.sampled_from([1.0, 0.5, 2.0])
tables = st.lists(st.floats(1e-4, 0.7), min_size=1, max_size=8)


@st.composite
def sdes(draw):
    """Any SDE: the catalogue's families with drawn parameters, and the odd ones."""
    family = draw(
        st.sampled_from(
            ["vp", "sub_vp", "ve", "edm", "flow", "cosine", "ou", "warped", "piecewise", "ddpm"]
        ),
        label="family",
    )
    if family == "ddpm":
        return DDPM(draw(tables, label="betas"))
    if family == "flow":
        return FlowSDE(t_max=draw(st.floats(0.3, 0.999), label="t_max"))
    if family == "cosine":
        return CosineSDE(
            shift=draw(st.floats(0.0, 0.5), label="shift"),
            t_max=draw(st.floats(0.3, 0.999), label="t_max"),
        )
    t_max = draw(t_maxima, label="t_max")
    if family in ("vp", "sub_vp", "warped"):
        cls = {"vp": VPSDE, "sub_vp": SubVPSDE, "warped": WarpedVP}[family]
        extra = {"power": draw(st.floats(1.0, 3.0), label="power")} if family == "warped" else {}
        betas = draw(_betas())
        if t_max > 1 and betas["beta_max"] > 200:  # alpha underflows: A11, tested apart
            betas = {name: value / 10 for name, value in betas.items()}
        return cls(**betas, **extra, t_max=t_max)
    if family == "ve":
        return VESDE(**draw(_sigmas()), t_max=t_max)
    if family == "edm":
        return EDM(**draw(_sigmas()), rho=draw(st.floats(1.0, 10.0), label="rho"), t_max=t_max)
    if family == "piecewise":
        jump = draw(st.floats(0.2, 0.8), label="jump") * t_max
        return PiecewiseBeta(high=draw(log_uniform(0.1, 50), label="high"), jump=jump, t_max=t_max)
    return PlainOU(
        rate=draw(log_uniform(0.1, 20), label="rate"),
        spread=draw(log_uniform(0.1, 10), label="spread"),
        start=draw(st.sampled_from([0.0, 0.01, 0.5]), label="start"),
        t_max=t_max,
    )


unit_times = st.one_of(log_uniform(1e-12, 1.0), st.floats(1e-3, 1.0))


def times(sde, size: int = 4):
    """Times in (0, t_max] [(size,)], log-mixed."""
    return st.lists(unit_times, min_size=size, max_size=size).map(
        lambda u: torch.tensor(u, dtype=torch.float64) * sde.t_max
    )


# an exact density -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """sum_k w_k N(m_k, c_k I): its law at every noise level, written out by hand.

    At x_t = alpha x_0 + sqrt(v) eps the components are N(alpha m_k, alpha^2 c_k + v).
    """

    weights: Tensor
    means: Tensor  # (k, d)
    spreads: Tensor  # (k,)

    @property
    def d(self) -> int:
        return self.means.shape[1]

    def _parts(self, x: Tensor, alpha: Tensor, var: Tensor):
        alpha, var = alpha[:, None], var[:, None]
        total = alpha**2 * self.spreads + var  # (n, k)
        away = x[:, None, :] - alpha[..., None] * self.means  # (n, k, d)
        log_parts = (
            self.weights.log()
            - 0.5 * self.d * torch.log(2 * math.pi * total)
            - 0.5 * away.square().sum(-1) / total
        )
        return log_parts, -away / total[..., None], total

    def log_prob(self, x: Tensor, alpha: Tensor, var: Tensor) -> Tensor:
        return self._parts(x, alpha, var)[0].logsumexp(1)

    def score(self, x: Tensor, alpha: Tensor, var: Tensor) -> Tensor:
        log_parts, pull, _ = self._parts(x, alpha, var)
        return (log_parts.softmax(1)[..., None] * pull).sum(1)

    def curvature(self, x: Tensor, alpha: Tensor, var: Tensor) -> Tensor:
        """(Laplacian of p) / p = Laplacian of log p + |score|^2."""
        log_parts, pull, total = self._parts(x, alpha, var)
        return (log_parts.softmax(1) * (pull.square().sum(-1) - self.d / total)).sum(1)

    def laplacian(self, x: Tensor, alpha: Tensor, var: Tensor) -> Tensor:
        """Laplacian of log p = divergence of the score."""
        return self.curvature(x, alpha, var) - self.score(x, alpha, var).square().sum(-1)

    def points(self, alpha: Tensor, var: Tensor, seed: int = 0) -> Tensor:
        """Plausible points, one for each noise level [(n, d)]."""
        generator = torch.Generator().manual_seed(seed)
        n = len(alpha)
        which = torch.randint(len(self.weights), (n,), generator=generator)
        z = torch.randn(n, self.d, generator=generator, dtype=torch.float64)
        spread = (alpha**2 * self.spreads[which] + var).sqrt()
        return alpha[:, None] * self.means[which] + spread[:, None] * z


MIXTURES = {
    "1d": Mixture(f64([0.3, 0.7]), f64([[-1.5], [1.0]]), f64([0.3, 0.05])),
    "2d": Mixture(
        f64([0.2, 0.5, 0.3]),
        f64([[1.5, 1.0], [-1.0, 0.2], [0.3, -2.0]]),
        f64([0.5, 0.1, 0.9]),
    ),
}
every_mixture = pytest.mark.parametrize("law", MIXTURES.values(), ids=MIXTURES)
