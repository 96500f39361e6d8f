r"""The marginals of a linear SDE: x_t = alpha(t) x_0 + sqrt(var(t)) eps for dx = f x dt + g dW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdekit.sde import LinearSDE
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.density import PLANE, slope
from sdekit.verify.strategies import f64, times

SONG = "arXiv:2011.13456"
SARKKA = "Sarkka and Solin, Applied Stochastic Differential Equations (2019)"
_TIGHT = 1e-7  # of a derivative, relative to the terms of its equation


def _times(sde: Any) -> Any:
    return times(sde, 6)


def _in_beta(sde: Any, t: Tensor, *values: Tensor) -> Callable[[int], str] | None:
    """A note that gives two values as multiples of beta, where the process has one."""
    beta = getattr(sde, "beta", None)
    if not callable(beta):
        return None

    def note(k: int) -> str:
        try:
            unit = float(beta(t[k : k + 1]))
        except (TypeError, ValueError):  # a beta of other arguments
            return ""
        parts = " against ".join(f"{float(v.reshape(-1)[k]) / unit:.4g} x beta" for v in values)
        return f", that is {parts}"

    return note


@claim(
    "sde",
    "alpha(0) = 1, and var goes to var(0) >= 0 as t goes to 0",
    f"{SONG}, eq. 29",
    needs=("log_alpha", "var"),
)
def starts_at_the_data(sde: Any) -> Finding:
    """At t = 0 itself, and by continuity at 1e-12 t_max."""
    t = f64([0.0, 1e-12 * sde.t_max])
    log_alpha, var = sde.log_alpha(t), sde.var(t)
    if not bool((var >= 0).all()):
        return no_more_than(-float(var.min()), 0.0, f"var(0) = {float(var[0]):.6g}")
    size = float(sde.var(f64([sde.t_max])))
    jump = float((var[1] - var[0]).abs()) / size
    off = max(float(log_alpha.abs().max()), jump)
    says = f"log alpha(0) = {float(log_alpha[0]):.6g}, var(0) = {float(var[0]):.6g}, "
    return no_more_than(off, 1e-8, says + f"var(1e-12 t_max) = {float(var[1]):.6g}")


@claim(
    "sde",
    "the mean obeys d log_alpha / dt = f",
    f"{SARKKA}, eq. 6.2",
    needs=("log_alpha", "f"),
    cases=_times,
)
def mean_equation(sde: Any, t: Tensor) -> Finding:
    """By autograd, or five points."""
    expected, f = slope(sde.log_alpha, t), sde.f(t)
    return agree(
        "f",
        f,
        "d log_alpha / dt",
        expected,
        tol=_TIGHT,
        at={"t": t},
        scale=torch.maximum(f.abs(), expected.abs()),
    )


@claim(
    "sde",
    "the variance obeys d var / dt = 2 f var + g^2",
    f"{SARKKA}, eq. 6.2",
    needs=("var", "f", "g2"),
    cases=_times,
)
def variance_equation(sde: Any, t: Tensor) -> Finding:
    """What the marginal variance implies for g^2."""
    rate, pulled, g2 = slope(sde.var, t), 2 * sde.f(t) * sde.var(t), sde.g2(t)
    return agree(
        "g^2",
        g2,
        "what the marginal variance implies, d var/dt - 2 f var",
        rate - pulled,
        tol=_TIGHT,
        scale=rate.abs() + pulled.abs() + g2.abs(),
        at={"t": t},
        unit=_in_beta(sde, t, g2, rate - pulled),
    )


@claim(
    "sde",
    "drift(x, t) = f(t) x and diffusion(t)^2 = g^2(t)",
    f"{SONG}, eq. 5",
    needs=("drift", "diffusion", "f", "g2"),
    cases=_times,
)
def drift_and_diffusion(sde: Any, t: Tensor) -> Finding:
    """The written-out coefficients against f and g2, the drift at several x."""
    x = torch.linspace(-2, 3, 4, dtype=torch.float64).repeat(len(t), 1)
    f = sde.f(t)
    drifts = agree(
        "drift(x, t)",
        sde.drift(x, t),
        "f x",
        f[:, None] * x,
        tol=1e-9,
        scale=(f[:, None] * x).abs(),
        at={"t": t[:, None].expand_as(x), "x": x},
    )
    if not drifts.ok:
        return drifts
    squared, g2 = sde.diffusion(t).double().square(), sde.g2(t)
    pulled = (2 * f * sde.var(t)).abs() if hasattr(sde, "var") else g2  # g2 may come from it
    return agree(
        "diffusion^2",
        squared,
        "g^2",
        g2,
        tol=1e-9,
        at={"t": t},
        scale=g2.abs() + pulled,
        unit=_in_beta(sde, t, squared, g2),
    )


@claim(
    "sde",
    "alpha = exp(log_alpha) and sigma^2 = var",
    f"{SONG}, eq. 29",
    needs=("alpha", "sigma", "log_alpha", "var"),
    cases=_times,
)
def standard_deviation(sde: Any, t: Tensor) -> Finding:
    """The two views of each."""
    alphas = agree(
        "alpha", sde.alpha(t), "exp(log_alpha)", sde.log_alpha(t).exp(), tol=1e-14, at={"t": t}
    )
    if not alphas.ok:
        return alphas
    return agree("sigma^2", sde.sigma(t).square(), "var", sde.var(t), tol=1e-14, at={"t": t})


@claim(
    "sde",
    "var >= 0 and g^2 >= 0, and every coefficient is finite on (0, t_max]",
    f"{SONG}, section 3",
    needs=("log_alpha", "var"),
    cases=_times,
)
def positive_and_finite(sde: Any, t: Tensor) -> Finding:
    """Of all times up to both ends."""
    t = torch.cat([t, f64([sde.t_max])])
    rows = {"log_alpha": sde.log_alpha(t), "var": sde.var(t)}
    rows |= {name: getattr(sde, name)(t) for name in ("f", "g2") if hasattr(sde, name)}
    for name, values in rows.items():
        bad = ~torch.isfinite(values)
        if name in ("var", "g2"):
            bad |= values < -1e-12 * float(values.abs().max())
        if bool(bad.any()):
            k = int(bad.nonzero()[0])
            says = f"{name} = {float(values[k]):.6g} at t = {float(t[k]):.6g}"
            return no_more_than(1.0, 0.0, says)
    return no_more_than(0.0, 0.0, "all finite and of the right sign")


@claim(
    "sde",
    "log_snr = 2 log_alpha - log var falls strictly with t",
    "arXiv:2107.00630, eq. 3",
    needs=("log_snr", "log_alpha", "var"),
    cases=_times,
)
def log_snr_falls(sde: Any, t: Tensor) -> Finding:
    """Its definition, and its order at times that differ."""
    expected = 2 * sde.log_alpha(t) - sde.var(t).log()
    same = agree(
        "log_snr",
        sde.log_snr(t),
        "2 log_alpha - log var",
        expected,
        tol=1e-12,
        scale=expected.abs().clamp_min(1.0),
        at={"t": t},
    )
    if not same.ok:
        return same
    ordered = torch.cat([t, f64([sde.t_max])]).unique()
    apart = ordered[1:] > (1 + 1e-6) * ordered[:-1]
    rise = sde.log_snr(ordered).diff()[apart]
    if not rise.numel():
        return same
    k = int(rise.argmax())
    says = f"from t = {float(ordered[:-1][apart][k]):.6g} to {float(ordered[1:][apart][k]):.6g} "
    # where var(0) > 0 it falls by less than an ulp at the smallest times
    allowed = 1e-13 * float(expected.abs().max().clamp_min(1.0))
    return no_more_than(float(rise[k]), allowed, says + f"log_snr changes by {float(rise[k]):.6g}")


@claim(
    "sde", "alpha^2 + var = 1", f"{SONG}, eq. 11", of=("vp",), needs=("alpha", "var"), cases=_times
)
def variance_preserved(sde: Any, t: Tensor) -> Finding:
    """To four ulp."""
    total = sde.alpha(t).square() + sde.var(t)
    return agree("alpha^2 + var", total, "1", torch.ones_like(total), tol=4 * 2.3e-16, at={"t": t})


@claim(
    "sde",
    "the density of x_t obeys the Fokker-Planck equation of drift and diffusion: "
    "dp/dt = -div(drift p) + g^2/2 Laplacian p",
    "Risken, The Fokker-Planck Equation, eq. 4.45",
    needs=("drift", "diffusion", "log_alpha", "var", "linear"),
    cases=_times,
)
def fokker_planck(sde: Any, t: Tensor) -> Finding:
    """At points of a mixture in two dimensions, with its closed form at every noise level."""
    alpha, var = sde.log_alpha(t).exp(), sde.var(t)
    alpha_rate, var_rate = slope(sde.log_alpha, t) * alpha, slope(sde.var, t)
    x = PLANE.points(alpha, var)
    rate = PLANE.rate(x, alpha, var, alpha_rate, var_rate)
    drift, unit = sde.drift(x, t), torch.ones_like(x)
    spread = PLANE.d * sde.drift(unit, t)[:, 0]  # linear: its divergence is d times f
    carried = (drift * PLANE.score(x, alpha, var)).sum(1)
    noise = 0.5 * sde.diffusion(t).double().square() * PLANE.curvature(x, alpha, var)
    terms = torch.stack([rate, spread, carried, noise])
    return agree(
        "d log p/dt",
        rate,
        "-div drift - drift . score + g^2/2 (Laplacian p)/p",
        noise - spread - carried,
        tol=_TIGHT,
        scale=terms.abs().sum(0),
        at={"t": t},
    )


@claim(
    "sde",
    "x / alpha is a variance-exploding process: d(var / alpha^2)/dt = g^2 / alpha^2",
    "arXiv:2206.00364, appendix B.2",
    needs=("log_alpha", "var", "g2", "f"),
    cases=_times,
)
def exploding_form(sde: Any, t: Tensor) -> Finding:
    """At times at which alpha^2 has not underflowed."""
    t = t[sde.log_alpha(t) > -300]
    if not len(t):
        raise Skip("alpha underflows at all of these times")
    alpha2 = (2 * sde.log_alpha(t)).exp()
    level = slope(lambda u: sde.var(u) * (-2 * sde.log_alpha(u)).exp(), t)
    size = level.abs() + (2 * sde.f(t) * sde.var(t)).abs() / alpha2
    return agree(
        "g^2 / alpha^2",
        sde.g2(t) / alpha2,
        "d(var / alpha^2)/dt",
        level,
        tol=_TIGHT,
        scale=size,
        at={"t": t},
    )


@claim(
    "sde",
    "on the clock tau = t^2 the law is the same and g^2(tau) = g^2(t) dt/dtau",
    "Oksendal, Stochastic Differential Equations, theorem 8.5.7",
    needs=("log_alpha", "var", "g2"),
    cases=lambda sde: times(sde, 4, least=1e-5),
)
def time_change(sde: Any, t: Tensor) -> Finding:
    """The coefficients of the process on the other clock, derived from its marginals alone."""
    tau = t.square()
    f = slope(lambda u: sde.log_alpha(u.sqrt().clamp_max(sde.t_max)), tau)
    rate = slope(lambda u: sde.var(u.sqrt().clamp_max(sde.t_max)), tau)
    pulled = 2 * f * sde.var(t)
    expected = sde.g2(t) / (2 * t)
    return agree(
        "g^2 on the clock t^2",
        rate - pulled,
        "g^2 dt/dtau",
        expected,
        tol=_TIGHT,
        scale=rate.abs() + pulled.abs() + expected.abs(),
        at={"t": t},
    )


@claim(
    "sde",
    "integrating f and g^2 from 0 gives log_alpha and var: "
    "var = int g^2 exp(2 (log_alpha(t) - log_alpha(u))) du + alpha^2 var(0)",
    f"{SARKKA}, eq. 6.7",
    needs=("log_alpha", "var", "f", "g2", "linear"),
    cost="fast",
)
def marginals_integrated(sde: Any) -> Finding:
    """By adaptive quadrature, at sixteen times: another way than derivatives."""
    if "ddpm" in sde.kinds:
        raise Skip("a chain's integral is the sum of its table, which is checked as such")
    if getattr(sde, "integrated", False):
        raise Skip("it states no marginals: those that all checks use are integrated")
    whole = LinearSDE.from_coefficients(
        sde.f, sde.g2, var0=float(sde.var(f64([0.0]))), t_min=sde.t_min or 1e-3 * sde.t_max,
        t_max=sde.t_max,
    )  # fmt: skip
    t = sde.t_max * torch.cat([torch.logspace(-8, -1, 8), torch.linspace(0.15, 1.0, 8)]).double()
    variances = agree(
        "var", sde.var(t), "the integral of g^2", whole.var(t), tol=1e-7, at={"t": t}
    )
    if not variances.ok:
        return variances
    log_alpha = whole.log_alpha(t)
    return agree(
        "log_alpha",
        sde.log_alpha(t),
        "the integral of f",
        log_alpha,
        tol=1e-7,
        at={"t": t},
        scale=log_alpha.abs().clamp_min(1e-12),
    )
