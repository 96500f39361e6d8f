"""Hypothesis strategies for what sdekit is about, valid and invalid.

Parameters are drawn so that they shrink: one end and a ratio, not two ends and an assumption.
Every valid strategy yields objects that must pass the checks of their kind; `invalid_*` yield
calls that must raise the named error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.errors import ConfigError, DtypeError, ShapeError, TimeError
from sdekit.model import ExactScore
from sdekit.sampling.grid import resolve_grid
from sdekit.sde import DDPM, EDM, VESDE, VPSDE, CosineSDE, FlowSDE, LinearSDE, SubVPSDE
from sdekit.targets import Gaussian, GaussianMixture
from sdekit.verify.odd import PiecewiseBeta, PlainOU, WarpedVP

__all__ = [
    "f64", "gaussians", "grids", "invalid_grids", "invalid_sdes", "invalid_times", "log_uniform",
    "mixtures", "models", "nodes", "parametrizations", "sdes", "steps", "time_pairs", "times",
    "unit_times",
]  # fmt: skip


def f64(values: Any) -> Tensor:
    """A float64 tensor of these numbers."""
    return torch.tensor(values, dtype=torch.float64)


def log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    """Floats whose logarithm is uniform; they shrink towards `high` through powers of ten."""
    return st.floats(math.log10(low), math.log10(high)).map(
        lambda e: min(max(float(10.0**e), low), high)
    )


# SDEs -------------------------------------------------------------------------------------------


@st.composite
def _betas(draw: Any) -> dict[str, float]:
    low = draw(log_uniform(1e-3, 1.0), label="beta_min")
    return {"beta_min": low, "beta_max": low * draw(log_uniform(1.0, 1e3), label="ratio")}


@st.composite
def _sigmas(draw: Any) -> dict[str, float]:
    low = draw(log_uniform(1e-4, 1.0), label="sigma_min")
    return {"sigma_min": low, "sigma_max": low * draw(log_uniform(2.0, 1e5), label="ratio")}


t_maxima = st.sampled_from([1.0, 0.5, 2.0])
tables = st.lists(st.floats(1e-4, 0.7), min_size=1, max_size=8)
_FAMILIES = ("vp", "sub_vp", "ve", "edm", "flow", "cosine", "ou", "warped", "piecewise", "ddpm")


@st.composite
def sdes(draw: Any, families: tuple[str, ...] = _FAMILIES) -> LinearSDE:
    """Any linear SDE: the catalogue's families with drawn parameters, and odd ones.

    Args:
        draw: given by Hypothesis.
        families: among vp, sub_vp, ve, edm, flow, cosine, ou, warped, piecewise, ddpm.
    """
    family = draw(st.sampled_from(families), label="family")
    if family == "ddpm":
        return DDPM(draw(tables, label="betas"))
    if family == "flow":
        return FlowSDE(t_max=draw(st.floats(0.3, 0.999), label="t_max"))
    if family == "cosine":
        shift = draw(st.floats(0.0, 0.5), label="shift")
        return CosineSDE(shift=shift, t_max=draw(st.floats(0.3, 0.999), label="t_max"))
    t_max = draw(t_maxima, label="t_max")
    if family in ("vp", "sub_vp", "warped"):
        cls: Any = {"vp": VPSDE, "sub_vp": SubVPSDE, "warped": WarpedVP}[family]
        extra = {"power": draw(st.floats(1.0, 3.0), label="power")} if family == "warped" else {}
        betas = draw(_betas())
        if t_max > 1 and betas["beta_max"] > 200:  # alpha would underflow
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


# times and grids --------------------------------------------------------------------------------

# in units of t_max, the end itself among them
unit_times = st.one_of(log_uniform(1e-12, 1.0), st.floats(1e-3, 1.0), st.just(1.0))


def times(
    sde: Any, size: int = 4, *, least: float = 1e-12, most: float = 1.0
) -> st.SearchStrategy[Tensor]:
    """Times in (0, t_max] [(1 .. size,)], log-mixed; nodes above 0 of a chain.

    Args:
        sde: what has t_max.
        size: the most times.
        least: the smallest, in units of t_max.
        most: the largest, in units of t_max.
    """
    if "ddpm" in getattr(sde, "kinds", ()):
        return st.lists(nodes(sde), min_size=1, max_size=size).map(
            lambda i: sde.time(f64(i).long())
        )
    one = st.one_of(log_uniform(least, most), st.floats(max(least, 1e-3), most), st.just(most))
    return st.lists(one, min_size=1, max_size=size).map(lambda u: f64(u) * sde.t_max)


def nodes(chain: Any, least: int = 1) -> st.SearchStrategy[int]:
    """The indices of a chain from `least` to its t_max."""
    return st.integers(least, chain.index(chain.t_max))


@st.composite
def time_pairs(draw: Any, sde: Any, *, least: float = 1e-9) -> dict[str, Tensor]:
    """Times s < t in (0, t_max] [(1,) each]; nodes of a chain."""
    if "ddpm" in getattr(sde, "kinds", ()):
        last = sde.index(sde.t_max)
        t = draw(st.integers(1, last), label="t")
        s = draw(st.integers(0, t - 1), label="s")
        return {"s": f64([sde.time(s)]), "t": f64([sde.time(t)])}
    t = draw(st.one_of(log_uniform(10 * least, 1.0), st.just(1.0)), label="t")
    part = draw(st.one_of(st.floats(0.01, 0.99), log_uniform(1e-6, 0.5)), label="s / t")
    return {"s": f64([max(t * part, least) * sde.t_max]), "t": f64([t * sde.t_max])}


steps = st.sampled_from([1, 2, 3, 5, 10, 20])


@st.composite
def grids(draw: Any, sde: Any, most: int = 12) -> Tensor:
    """Strictly decreasing times from t_max to t_min [(2 .. most + 1,)], even or ragged."""
    if "ddpm" in sde.kinds:
        high, low = sde.index(sde.t_max), sde.index(sde.t_min)
        inner = draw(st.sets(st.integers(low, high), max_size=most - 1), label="nodes")
        kept = sorted({low, high} | inner, reverse=True)
        return f64([sde.time(i) for i in kept])
    name = draw(st.sampled_from(["uniform", "log_snr", "quadratic", "ragged"]), label="grid")
    if name != "ragged":
        return resolve_grid(name, sde, draw(st.integers(1, most), label="steps"))
    parts = draw(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=most), label="steps")
    gone = f64([0.0, *parts]).cumsum(0)
    grid = sde.t_max + (sde.t_min - sde.t_max) * gone / gone[-1]
    grid[-1] = sde.t_min
    return grid


# laws, parametrisations, models -----------------------------------------------------------------


@st.composite
def gaussians(draw: Any, dim: int = 2) -> Gaussian:
    """Gaussians with variances from 0.01 to 10 in `dim` dimensions, not aligned with the axes."""
    variances = draw(st.lists(log_uniform(1e-2, 10.0), min_size=dim, max_size=dim), label="var")
    mean = draw(st.lists(st.floats(-2, 2), min_size=dim, max_size=dim), label="mean")
    turn = draw(st.integers(0, 7), label="turn")
    generator = torch.Generator().manual_seed(turn)
    q = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q
    return Gaussian(f64(mean), q @ torch.diag(f64(variances)) @ q.T)


@st.composite
def mixtures(draw: Any, dim: int = 2) -> GaussianMixture:
    """Mixtures of 2 to 5 isotropic Gaussians."""
    k = draw(st.integers(2, 5), label="components")
    weights = f64(draw(st.lists(st.floats(0.1, 1.0), min_size=k, max_size=k), label="weights"))
    point = st.lists(st.floats(-3, 3), min_size=dim, max_size=dim)
    means = draw(st.lists(point, min_size=k, max_size=k), label="means")
    spreads = draw(st.lists(log_uniform(0.02, 2.0), min_size=k, max_size=k), label="variances")
    return GaussianMixture(weights / weights.sum(), f64(means), f64(spreads))


def parametrizations() -> st.SearchStrategy[Any]:
    """Every example of every parametrisation of the catalogue."""
    return st.sampled_from(
        [thing for entry in catalogue("parametrization").values() for thing in entry.examples()]
    )


@st.composite
def models(draw: Any, dim: int = 2) -> ExactScore:
    """Exact scores of a Gaussian or a mixture under any SDE: networks that are right."""
    law = draw(st.one_of(gaussians(dim), mixtures(dim)), label="target")
    return ExactScore(law, draw(sdes(), label="sde"))


# what must be refused ---------------------------------------------------------------------------

Call = tuple[Callable[[], Any], type[Exception]]


def invalid_sdes() -> st.SearchStrategy[Call]:
    """Constructions of an SDE and the error that each must raise."""
    bad = st.sampled_from([math.nan, math.inf, -math.inf])
    negative = log_uniform(1e-6, 1e3).map(lambda v: -v)
    above = log_uniform(1.1, 1e3)
    not_a_number: st.SearchStrategy[Any] = st.sampled_from(["1", None, True, 1j, [1.0]])

    def call(cls: Any, **fields: Any) -> Call:
        wrong = any(
            isinstance(v, str | bool | complex | list) or v is None for v in fields.values()
        )
        return (lambda: cls(**fields)), (DtypeError if wrong else ConfigError)

    return st.one_of(
        st.one_of(bad, negative, not_a_number).map(lambda v: call(VPSDE, beta_min=v)),
        above.map(lambda r: call(SubVPSDE, beta_min=2.0 * r, beta_max=2.0)),
        st.one_of(bad, negative, st.just(0.0)).map(lambda v: call(VESDE, sigma_min=v)),
        above.map(lambda r: call(EDM, sigma_min=2.0 * r, sigma_max=2.0)),
        st.one_of(bad, negative, st.just(0.0)).map(lambda v: call(PlainOU, t_max=v)),
        above.map(lambda r: call(CosineSDE, t_max=r)),
        st.one_of(bad, above, negative, st.just(0.0)).map(
            lambda v: ((lambda: DDPM(f64([0.1, v]))), ConfigError)
        ),
        st.sampled_from([0, -3, 2.5, True, "10"]).map(
            lambda n: ((lambda: DDPM.linear(n)), ConfigError)  # type: ignore[arg-type]
        ),
    )


def invalid_times(sde: LinearSDE) -> st.SearchStrategy[Call]:
    """Calls of a schedule of `sde` at a time that it must refuse, and the error."""
    outside = st.one_of(
        st.sampled_from([math.nan, math.inf, -math.inf]),
        log_uniform(1e-9, 1e3).map(lambda v: -v),
        log_uniform(1.001, 1e6).map(lambda r: r * sde.t_max),
    )
    wrong: st.SearchStrategy[Any] = st.sampled_from(["0.5", None, True, 1j])
    return st.one_of(
        outside.map(lambda t: ((lambda: sde.var(t)), TimeError)),
        outside.map(lambda t: ((lambda: sde.log_alpha(f64([t]))), TimeError)),
        wrong.map(lambda t: ((lambda: sde.var(t)), DtypeError)),
    )


def invalid_grids(sde: LinearSDE) -> st.SearchStrategy[Call]:
    """Grids and numbers of steps that a run must refuse, and the error."""
    a, b = sde.t_max, sde.t_min
    bad: Mapping[str, tuple[Any, type[Exception]]] = {
        "ascending": (f64([b, a]), TimeError),
        "repeated": (f64([a, a, b]), TimeError),
        "nan": (f64([a, math.nan, b]), TimeError),
        "outside": (f64([2 * a, b]), TimeError),
        "empty": (f64([]), TimeError),
        "a table": (f64([[a, b]]), ShapeError),
        "integers": (torch.tensor([1, 0]), DtypeError),
        "a typo": ("unifrom", ConfigError),
        "a number": (3, DtypeError),
    }
    counts: Mapping[Any, type[Exception]] = {
        0: ConfigError, -1: ConfigError, 2.5: DtypeError, "10": DtypeError, True: DtypeError,
        10**9: ConfigError,
    }  # fmt: skip
    return st.one_of(
        st.sampled_from(sorted(bad)).map(
            lambda name: ((lambda: resolve_grid(bad[name][0], sde)), bad[name][1])
        ),
        st.sampled_from(list(counts)).map(
            lambda n: ((lambda: resolve_grid("uniform", sde, n)), counts[n])
        ),
    )
