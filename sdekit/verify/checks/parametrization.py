"""What a network's output stands for: the table of parametrisations and its 2x2 solve."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.model import convert
from sdekit.sde import VESDE, VPSDE, CosineSDE, SubVPSDE
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.probes import draws
from sdekit.verify.published import MEANINGS, Point
from sdekit.verify.strategies import f64

_SDES = (VPSDE(), SubVPSDE(), VESDE(), CosineSDE())
_SALIMANS = "arXiv:2202.00512, appendix D"
_cases = st.fixed_dictionaries(
    {"sde": st.sampled_from(_SDES), "t": st.floats(0.02, 0.95), "seed": st.integers(0, 10**6)}
)


def _point(case: Any) -> Point:
    """Four noisy samples of one dimension."""
    x0, eps = draws(2, (4,), case["seed"])
    return Point(1.5 * x0, eps, f64([case["t"]] * 4), case["sde"])


def _solved(kind: Any, point: Point, x: Tensor, raw: Tensor, **of: float) -> Tensor:
    """One view of (x, raw)."""
    on_x, on_raw = kind.weights(point.sde, point.t, **of)
    return on_x * x + on_raw * raw


def _condition(kind: Any, point: Point) -> Tensor:
    """How many times a rounding of raw or x is larger in x_0 or eps."""
    a, b = kind.row(point.sde, point.t)
    det = (point.alpha * b - point.sigma * a).abs()
    return (b.abs() + a.abs() + point.alpha + point.sigma) / det + 1


@claim(
    "parametrization",
    "the raw output is what its name says: eps, x_0, -eps/sigma, "
    "alpha eps - sigma x_0, dx/dt or F of EDM",
    "the paper of each name",
    needs=("catalogue_name",),
    cases=lambda kind: _cases,
)
def published_meaning(kind: Any, case: Any) -> Finding:
    """Formulas from the papers, for perfect predictions."""
    if kind.catalogue_name not in MEANINGS:
        raise Skip(f"no formula is on file for {kind.catalogue_name}")
    meaning, source = MEANINGS[kind.catalogue_name]
    point = _point(case)
    a, b = kind.row(point.sde, point.t)
    expected = meaning(point, kind)
    size = (a * point.x0).abs() + (b * point.eps).abs() + expected.abs()
    return agree(
        "a x_0 + b eps",
        a * point.x0 + b * point.eps,
        f"what {source} predicts",
        expected,
        tol=1e-6,
        scale=size,
        at={"t": point.t},
    )


@claim(
    "parametrization",
    "raw = a x_0 + b eps gives back x_0 and eps, and every conversion to "
    "another parametrisation and back is the identity",
    _SALIMANS,
    cases=lambda kind: _cases,
)
def round_trip(kind: Any, case: Any) -> Finding:
    """To every other of the catalogue."""
    point = _point(case)
    a, b = kind.row(point.sde, point.t)
    x, raw = point.alpha * point.x0 + point.sigma * point.eps, a * point.x0 + b * point.eps
    bound = 1e-14 * _condition(kind, point)
    for name, truth, of in (("x_0", point.x0, {"x0": 1.0}), ("eps", point.eps, {"eps": 1.0})):
        seen = _solved(kind, point, x, raw, **of)
        size = (x.abs() + raw.abs() + truth.abs()) * bound / 1e-9
        found = agree(
            f"the {name} that comes back",
            seen,
            name,
            truth,
            tol=1e-9,
            scale=size,
            at={"t": point.t},
        )
        if not found.ok:
            return found
    for entry in catalogue("parametrization").values():
        other = entry.make()
        there = convert(raw, x, case["t"], point.sde, source=kind, target=other)
        back = convert(there, x, case["t"], point.sde, source=other, target=kind)
        size = (
            (raw.abs() + x.abs() + 1)
            * bound
            * _condition(other, point)
            / 1e-9
            * (a.abs() + b.abs() + 1)
        )
        found = agree(
            f"raw by way of {entry.name}",
            back,
            "raw",
            raw,
            tol=1e-9,
            scale=size,
            at={"t": point.t},
        )
        if not found.ok:
            return found
    return no_more_than(0.0, 1e-9, "identities")


@claim(
    "parametrization",
    "for any raw output alpha x_0 + sigma eps = x and score = -eps/sigma",
    "arXiv:2011.13456, eq. 29",
    cases=lambda kind: _cases,
)
def predictions_are_consistent(kind: Any, case: Any) -> Finding:
    """Views of a network that is wrong still belong together."""
    point = _point(case)
    x, raw = draws(2, (4,), case["seed"] + 1)
    x0, eps, score = (_solved(kind, point, x, raw, **{of: 1.0}) for of in ("x0", "eps", "score"))
    size = point.alpha * x0.abs() + point.sigma * eps.abs() + x.abs()
    whole = agree(
        "alpha x_0 + sigma eps",
        point.alpha * x0 + point.sigma * eps,
        "x",
        x,
        tol=1e-10,
        scale=size,
        at={"t": point.t},
    )
    if not whole.ok:
        return whole
    return agree(
        "-sigma score",
        -point.sigma * score,
        "eps",
        eps,
        tol=1e-10,
        scale=eps.abs() + x.abs(),
        at={"t": point.t},
    )


@claim(
    "parametrization",
    "views are linear: the weights of c x + a x_0 + b eps are c (1, 0) plus a "
    "and b times those of x_0 and eps",
    "linearity of eq. (2) in sdekit.model.parametrization",
    cases=lambda kind: st.tuples(_cases, st.floats(-3, 3), st.floats(-3, 3)),
)
def conversions_are_linear(kind: Any, drawn: Any) -> Finding:
    """So scaling and rotating x and raw scales and rotates every view."""
    case, a, b = drawn
    point = _point(case)
    of = [
        torch.stack(kind.weights(point.sde, point.t, **views))
        for views in ({"x": 0.7, "x0": a, "eps": b}, {"x0": 1.0}, {"eps": 1.0}, {"x": 1.0})
    ]
    expected = 0.7 * torch.tensor([[1.0], [0.0]], dtype=torch.float64) + a * of[1] + b * of[2]
    size = 1 + (a * of[1]).abs() + (b * of[2]).abs()
    return agree(
        "the weights of a sum",
        of[0],
        "the sum of weights",
        expected,
        tol=1e-12,
        scale=size,
        at={"t": case["t"]},
    )


@claim(
    "parametrization",
    "x and raw determine x_0 and eps: det = alpha b - sigma a is not 0 inside",
    _SALIMANS,
    cases=lambda kind: _cases,
)
def well_posed(kind: Any, case: Any) -> Finding:
    """Relative to its two terms."""
    point = _point(case)
    a, b = kind.row(point.sde, point.t)
    size = (point.alpha * b).abs() + (point.sigma * a).abs()
    part = float(((point.alpha * b - point.sigma * a).abs() / size)[0])
    says = f"det is {part:.2g} of its terms at t = {case['t']:.4g} on {case['sde']!r}"
    return Finding(part, 1e-9, says, at_least=True)


@claim(
    "parametrization",
    "the network's input has unit variance: c_in^2 (alpha^2 sigma_data^2 + sigma^2) = 1",
    "arXiv:2206.00364, appendix B.6",
    of=("sigma_data",),
    cases=lambda kind: _cases,
)
def input_scale(kind: Any, case: Any) -> Finding:
    """For data of the declared standard deviation."""
    point = _point(case)
    total = (point.alpha * kind.sigma_data) ** 2 + point.sigma**2
    seen = kind.input_scale(point.sde, point.t) ** 2 * total
    return agree(
        "the input's variance", seen, "1", torch.ones_like(seen), tol=1e-12, at={"t": point.t}
    )
