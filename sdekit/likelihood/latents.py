r"""Data to latents and back along the probability flow, and the way between two latents.

The flow of `flow.py` takes x at the first time to one latent z at the last time and back; with the
prior as the law of z, `decode` is a sampler without noise. Latents of N(0, I) have lengths near
sqrt(d), and a straight line between two of them passes through lengths that the prior hardly has.
A great circle does not: with theta the angle between a and b,

    slerp(a, b, w) = sin((1 - w) theta) / sin(theta) a + sin(w theta) / sin(theta) b.           (1)

References: Song et al., arXiv:2011.13456, section 4.3; Shoemake 1985, doi:10.1145/325334.325242,
for (1); White, arXiv:1609.04468 (latents).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sdekit._check import finite, floating, like, number
from sdekit.errors import ShapeError
from sdekit.likelihood.density import data
from sdekit.likelihood.flow import Flow
from sdekit.likelihood.solvers import carried, checked_solve
from sdekit.model import Predictor
from sdekit.sampling.setup import conditions, quiet, sde_of

__all__ = ["decode", "encode", "slerp"]

_STRAIGHT = 1e-4  # the angle, or what is left to pi, at which eq. (1) is taken as a straight line


def encode(
    model: Predictor,
    x: Tensor,
    *,
    solver: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    cond: Mapping[str, Any] | None = None,
    max_nfe: int | None = None,
) -> Tensor:
    """The latents of samples: x at the last time of the probability flow [(batch, *dims)].

    Args:
        model: the predictor. A network is put into evaluation mode and back.
        x: samples [(batch, *dims)], taken at t_min (on a DDPM, at its first node).
        solver: as for `log_prob`.
        rtol: relative tolerance of the path, > 0, in units of the data's spread.
        atol: absolute tolerance, > 0, likewise.
        cond: conditions for the model, passed to every call.
        max_nfe: calls after which the solve fails.

    Raises:
        ConfigError: and DtypeError, DataError, ShapeError, ModelError, SolverError, as `log_prob`.

    Reference: arXiv:2011.13456, section 4.3.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> model = ExactScore(Gaussian([3.0, 0.0], 0.25), VPSDE())
        >>> x = torch.tensor([[3.5, 0.5]], dtype=torch.float64)
        >>> z = encode(model, x)
        >>> z.shape, bool((decode(model, z) - x).abs().max() < 1e-9)
        (torch.Size([1, 2]), True)
    """
    return _moved(model, x, False, solver, rtol, atol, cond, max_nfe)


def decode(
    model: Predictor,
    z: Tensor,
    *,
    solver: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    cond: Mapping[str, Any] | None = None,
    max_nfe: int | None = None,
) -> Tensor:
    """The samples of latents: z taken to the first time of the flow [(batch, *dims)].

    Args:
        model: as for `encode`.
        z: latents [(batch, *dims)], at t_max.
        solver: as for `encode`.
        rtol: as for `encode`.
        atol: as for `encode`.
        cond: as for `encode`.
        max_nfe: as for `encode`.

    Raises:
        ConfigError: and DtypeError, DataError, ShapeError, ModelError, SolverError, as `log_prob`.
    """
    return _moved(model, z, True, solver, rtol, atol, cond, max_nfe)


def _moved(
    model: Predictor,
    x: Tensor,
    back: bool,
    solver: str,
    rtol: float,
    atol: float,
    cond: Mapping[str, Any] | None,
    max_nfe: int | None,
) -> Tensor:
    sde_of(model)
    x = data(x, "z" if back else "x")
    rtol, atol = checked_solve(solver, rtol, atol, max_nfe)
    with quiet(model):
        flow = Flow(model, x, cond=conditions(cond), max_nfe=max_nfe)
        ends = flow.end, flow.start
        here, there = ends if back else ends[::-1]
        state = flow.coordinates(x, flow.levels([here])[0])
        state, _ = carried(flow, state, solver, rtol, atol, back=back)
        return flow.placed(state, flow.levels([there])[0]).to(x.dtype)


def slerp(a: Tensor, b: Tensor, weight: float | Tensor) -> Tensor:
    """Spherical interpolation between latents, eq. (1), each sample along its own great circle.

    Args:
        a: latents [(batch, *dims)].
        b: others [(batch, *dims)].
        weight: how far from a to b, one number or several [(k,)].

    Returns:
        [(batch, *dims)], or with several weights [(k, batch, *dims)]. Where a and b point the same
        way or in opposite ones, or one is 0, the line is straight.

    Raises:
        ShapeError: a and b differ in shape, or weight is no number and not (k,).
        DtypeError: and DataError, as `log_prob` for its samples.

    Reference: doi:10.1145/325334.325242, section 3.3.

    Example:
        >>> import torch
        >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
        tensor([[0.7071, 0.7071]])
    """
    a, b = data(a, "a"), data(b, "b")
    like("b", b, "a", a)
    single = not isinstance(weight, Tensor) or weight.ndim == 0
    if single:
        weight = torch.tensor(number("weight", weight), dtype=torch.float64)
    at = finite("weight", floating("weight", weight)).to(a.device, torch.float64)
    if at.ndim > 1:
        raise ShapeError(f"weight must be a number or (k,), got shape {tuple(at.shape)}")
    first, second = (x.to(torch.float64).reshape(len(x), math.prod(x.shape[1:])) for x in (a, b))
    units = [x / x.norm(dim=1, keepdim=True).clamp_min(1e-300) for x in (first, second)]
    # the angle by the chord: acos of the product is blind near 0 and pi
    chord, whole = (units[0] - units[1]).norm(dim=1), (units[0] + units[1]).norm(dim=1)
    theta = 2 * torch.atan2(chord, whole)
    gone = (first == 0).all(1) | (second == 0).all(1)
    straight = gone | (theta < _STRAIGHT) | (theta > torch.pi - _STRAIGHT)
    safe = torch.where(straight, 1.0, theta)
    w = at.reshape(-1, 1)
    of_a = torch.where(straight, 1 - w, ((1 - w) * safe).sin() / safe.sin())
    of_b = torch.where(straight, w, (w * safe).sin() / safe.sin())
    mixed = (of_a[..., None] * first + of_b[..., None] * second).to(a.dtype)
    return mixed.reshape(a.shape) if single else mixed.reshape(-1, *a.shape)
