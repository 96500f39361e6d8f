r"""The divergence of a predicted noise along slices, for losses that never see the noise itself.

For a field e(x) and slices v_1 .. v_M of a sample,

    D_k = v_k . grad_x (v_k . e(x)) = v_k^T J v_k,   J = de/dx,                               (1)

and with v_k = sqrt(d) unit vector k, M = d, the mean of D_k over k is div e exactly, as the mean
of (v_k . e)^2 is |e|^2. All slices of all samples are one batch: one call of the model and one
backward pass, whose graph is kept where the loss itself is to be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sdekit._check import shown
from sdekit.errors import ModelError
from sdekit.likelihood.divergence import refuse_unless_constant
from sdekit.model import Prediction, Predictor

__all__ = ["along_slices", "coordinate_slices"]


def coordinate_slices(x: Tensor) -> Tensor:
    """sqrt(d) times each unit vector, for each sample [(batch, d, d)]."""
    d = x[0].numel()
    return (d**0.5 * torch.eye(d, dtype=x.dtype, device=x.device)).expand(x.shape[0], d, d)


def along_slices(
    model: Predictor, x: Tensor, t: Tensor, slices: Tensor, cond: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """The predicted noise, and eq. (1) for it.

    Args:
        model: the model.
        x: noisy samples [(batch, *dims)].
        t: their times [(batch,)].
        slices: of each sample [(batch, M, d)], d the elements of a sample.
        cond: what the model is called with besides; tensors of one row a sample go along.

    Returns:
        The noise once a slice [(batch, M, d)], and D_k [(batch, M)].
    """
    n, m, _ = slices.shape
    keep = torch.is_grad_enabled()

    def repeated(value: Any) -> Any:
        rows = isinstance(value, Tensor) and value.ndim and value.shape[0] == n
        return value.repeat_interleave(m, dim=0) if rows else value

    with torch.inference_mode(False), torch.enable_grad():
        point = repeated(x).detach().clone().requires_grad_()
        if slices.is_inference():  # autograd cannot keep it
            slices = slices.clone()
        times = repeated(t)
        times.checked_until = getattr(t, "checked_until", None)
        given = {name: repeated(value) for name, value in cond.items()}
        seen = model(point, times, **given)
        if not isinstance(seen, Prediction):
            raise ModelError(f"the model must return a Prediction, got {shown(seen)}")
        eps = seen.eps.reshape(n, m, -1)
        value = (eps * slices).sum()
        slope = None
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value, point, create_graph=keep, allow_unused=True)
        if slope is None or not bool(slope.any()):
            _refuse_detached(seen, point, lambda x, at: model(x, times, **given).eps)
            slope = torch.zeros_like(point) if slope is None else slope
        curvature = (slope.reshape(n, m, -1) * slices).sum(-1)
    return (eps, curvature) if keep else (eps.detach(), curvature.detach())


def _refuse_detached(seen: Prediction, point: Tensor, call: Callable[..., Tensor]) -> None:
    """A raw output without a graph that leads to x is one that does not depend on x, or an error.

    Raises:
        ModelError: it does depend on x.
    """
    raw, slope = seen.raw, None
    if raw.requires_grad:
        (slope,) = torch.autograd.grad(raw.sum(), point, retain_graph=True, allow_unused=True)
    if slope is None:  # a slope of 0 is right where the output is flat
        refuse_unless_constant(call, point, seen.eps, float(torch.as_tensor(seen.t).max()))
