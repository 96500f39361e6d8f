r"""Reversals: the family b - (1 + eta^2)/2 g^2 score, eta g, and its probability flow, eta = 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from sdekit.verify.claims import Finding, Skip, agree, claim
from sdekit.verify.density import LINE, PLANE, Mixture, mixture, slope
from sdekit.verify.strategies import f64, times

_KARRAS = "arXiv:2206.00364, eq. 6"
_NEEDS = ("reverse", "log_alpha", "var", "linear")


def _score(law: Mixture, sde: Any) -> Callable[[Tensor, Any], Tensor]:
    """The law's score as a reversal asks for it: (x, t)."""

    def score(x: Tensor, t: Any) -> Tensor:
        each = torch.as_tensor(t, dtype=torch.float64).reshape(-1).expand(len(x))
        return law.score(x, sde.log_alpha(each).exp(), sde.var(each))

    return score


def _drift_and_divergence(process: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The drift [(n, d)] and its divergence [(n,)], by autograd."""
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        drift = process.drift(point, t)
        rows = [
            torch.autograd.grad(drift[:, i].sum(), point, retain_graph=True)[0][:, i]
            for i in range(x.shape[1])
        ]
    return drift.detach(), torch.stack(rows).sum(0)


@claim(
    "sde",
    "for every eta the reversal has the marginals p_t: dp/dt = -div(b p) - (eta g)^2/2 "
    "Laplacian p with b = drift - (1 + eta^2)/2 g^2 score",
    f"Anderson (1982); {_KARRAS}",
    needs=_NEEDS,
    cases=lambda sde: st.fixed_dictionaries(
        {
            "t": times(sde, 4, least=1e-6),
            "eta": st.floats(0.0, 2.0),
            "again": st.none() | st.floats(0.0, 2.0),
        }
    ),
)
def reverse_marginals(sde: Any, case: Any) -> Finding:
    """The Fokker-Planck equation of a mixture, backwards or, reversed again, forwards."""
    t, eta = case["t"], case["eta"]
    alpha, var = sde.log_alpha(t).exp(), sde.var(t)
    x = PLANE.points(alpha, var)
    rate = PLANE.rate(x, alpha, var, slope(sde.log_alpha, t) * alpha, slope(sde.var, t))
    process = sde.reverse(_score(PLANE, sde), eta=eta)
    if case["again"] is not None:
        process = process.reverse(_score(PLANE, sde), eta=case["again"])
    direction = -1.0 if case["again"] is None else 1.0
    drift, spread = _drift_and_divergence(process, x, t)
    carried = (drift * PLANE.score(x, alpha, var)).sum(1)
    curvature = PLANE.curvature(x, alpha, var)
    noise = -0.5 * direction * process.diffusion(t).double().square() * curvature
    whole = sde.diffusion(t).double().square() * curvature
    # at rest the parts of b cancel: they are terms of their own
    terms = torch.stack([rate, spread, carried, noise, slope(sde.log_alpha, t), whole])
    return agree(
        "d log p/dt",
        rate,
        "-div b - b . score - (eta g)^2/2 (Laplacian p)/p",
        -spread - carried - noise,
        tol=1e-7,
        scale=terms.abs().sum(0),
        at={"t": t, "eta": eta},
    )


@claim(
    "sde",
    "the reversal of the reversal is the process itself, eta = 1",
    "Anderson (1982)",
    needs=("reverse", "drift", "diffusion"),
    cases=lambda sde: times(sde, 3, least=1e-6),
)
def reverse_twice(sde: Any, t: Tensor) -> Finding:
    """Drift and diffusion, with any score."""
    x = torch.linspace(-2, 2, 2 * len(t), dtype=torch.float64).reshape(len(t), 2)

    def score(x: Tensor, t: Any) -> Tensor:
        return torch.sin(x) - x

    twice = sde.reverse(score).reverse(score)
    drift = sde.drift(x, t)
    size = drift.abs() + sde.diffusion(t).double().square()[:, None] * score(x, t).abs()
    drifts = agree(
        "the drift",
        twice.drift(x, t),
        "the forward drift",
        drift,
        tol=1e-12,
        scale=size,
        at={"t": t[:, None].expand_as(x)},
    )
    if not drifts.ok:
        return drifts
    return agree(
        "the diffusion", twice.diffusion(t), "g", sde.diffusion(t), tol=1e-12, at={"t": t}
    )


@claim(
    "sde",
    "the probability flow of Gaussian data is x - m_t = (x_s - m_s) sqrt(V_t / V_s): "
    "drift m' + (x - m) V'/(2 V)",
    "arXiv:2011.13456, eq. 13",
    needs=_NEEDS,
    cases=lambda sde: st.fixed_dictionaries(
        {"t": times(sde, 3, least=1e-6), "variance": st.sampled_from([0.01, 0.25, 1.0, 6.0])}
    ),
)
def flow_of_a_gaussian(sde: Any, case: Any) -> Finding:
    """The drift of the flow, at three points."""
    t, c = case["t"], case["variance"]
    law = mixture([1.0], [[0.7]], [c])
    flow = sde.reverse(_score(law, sde), eta=0.0)
    alpha, var = sde.log_alpha(t).exp(), sde.var(t)
    alpha_rate = slope(sde.log_alpha, t) * alpha
    total, rate = alpha**2 * c + var, 2 * alpha * alpha_rate * c + slope(sde.var, t)
    worst = Finding(0.0, 1e-7)
    for z in (-1.5, 0.5, 2.0):
        x = (0.7 * alpha + z * total.sqrt())[:, None]
        expected = 0.7 * alpha_rate + z * total.sqrt() * rate / (2 * total)
        size = (
            (2 * slope(sde.log_alpha, t) * x[:, 0]).abs()
            + expected.abs()
            + (sde.diffusion(t).double().square() * abs(z) / total.sqrt())
        )
        found = agree(
            "the flow's drift",
            flow.drift(x, t)[:, 0],
            "m' + (x - m) V'/(2 V)",
            expected,
            tol=1e-7,
            scale=size,
            at={"t": t, "x": x[:, 0]},
        )
        worst = max(worst, found, key=lambda f: f.measured)
    return worst


@claim(
    "sde",
    "the probability flow carries quantiles to quantiles in one dimension: F_t(x_t) = F_s(x_s)",
    "arXiv:2011.13456, appendix D.1",
    needs=_NEEDS,
    cost="fast",
    share=0.1,
    cases=lambda sde: st.fixed_dictionaries(
        {"from": st.floats(0.5, 0.95), "to": st.floats(0.08, 0.4)}
    ),
)
def flow_keeps_quantiles(sde: Any, case: Any) -> Finding:
    """SciPy's solver on the flow of a mixture, between two noise levels."""
    if "ddpm" in sde.kinds:
        raise Skip("the flow of a chain jumps at every node, where no solver is of its order")
    start, end = case["from"] * sde.t_max, case["to"] * sde.t_max
    ends = f64([start, end])
    alpha, var = sde.log_alpha(ends).exp(), sde.var(ends)
    z = torch.linspace(-1.8, 1.8, 5, dtype=torch.float64)
    x = float(alpha[0]) * 0.25 + z * float((alpha[0] ** 2 * 1.5 + var[0]).sqrt())
    flow = sde.reverse(_score(LINE, sde), eta=0.0)

    def drift(t: float, y: np.ndarray) -> np.ndarray:
        points = torch.from_numpy(y.copy())[:, None]
        return flow.drift(points, f64([t]).expand(len(y)).clone())[:, 0].numpy()

    solved = solve_ivp(drift, (start, end), x.numpy(), method="DOP853", rtol=1e-9, atol=1e-10)
    if not solved.success:
        raise Skip(f"SciPy's solver stopped: {solved.message}")
    out = torch.from_numpy(solved.y[:, -1])
    before, after = (
        LINE.cdf(p[:, None], alpha[k].expand(5), var[k].expand(5)) for k, p in ((0, x), (1, out))
    )
    return agree(
        "F_s(x_s)",
        after,
        "F_t(x_t)",
        before,
        tol=2e-6,
        scale=1.0,
        at={"t": start, "s": end, "x_t": x},
    )


@claim(
    "sde",
    "the divergence of the probability flow is d f - g^2/2 Laplacian log p",
    "arXiv:2011.13456, eq. 39",
    needs=(*_NEEDS, "f", "g2"),
    cases=lambda sde: times(sde, 4, least=1e-6),
)
def flow_divergence(sde: Any, t: Tensor) -> Finding:
    """By autograd on the flow, against the closed form of a mixture."""
    alpha, var = sde.log_alpha(t).exp(), sde.var(t)
    x = PLANE.points(alpha, var, seed=1)
    _, found = _drift_and_divergence(sde.reverse(_score(PLANE, sde), eta=0.0), x, t)
    spread, noise = PLANE.d * sde.f(t), 0.5 * sde.g2(t) * PLANE.laplacian(x, alpha, var)
    return agree(
        "the divergence",
        found,
        "d f - g^2/2 Laplacian log p",
        spread - noise,
        tol=1e-7,
        scale=spread.abs() + noise.abs(),
        at={"t": t},
    )
