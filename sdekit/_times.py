"""Times and the tensors that schedules make of them: validation, float64, broadcasting.

Schedules are evaluated in float64 whatever they are given, and cast once: to the dtype of `t`
(float32 where `t` is a half type or an integer), or to that of the sample they multiply.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sdekit._check import floating, readable, same_device, shown
from sdekit.errors import DtypeError, ShapeError, TimeError

# A float or a tensor where a schedule is called, a float64 tensor inside: `schedule` makes it so
# and one annotation serves both sides.
Time = Any
F = TypeVar("F", bound=Callable[..., Any])


def as_time(t: object, t_max: float, name: str = "t") -> tuple[Tensor, torch.dtype]:
    """The time as a float64 tensor, and the dtype in which schedules of it are returned.

    The tensor is marked: schedules up to this t_max do not check it again.

    Raises:
        DtypeError: neither a number nor a real tensor.
        TimeError: NaN, infinite, negative or beyond `t_max`; the message holds the first such
            value.
    """
    limit = t_max
    if isinstance(t, Tensor):
        if t.dtype is torch.float64:
            kept, wide = t.dtype, t.view_as(t)  # an alias, to be marked
        else:
            if t.dtype == torch.bool or t.dtype.is_complex or t.layout != torch.strided:
                raise DtypeError(f"{name} must be a dense real tensor, got {t.dtype}, {t.layout}")
            kept = t.dtype if t.dtype == torch.float32 else torch.float32
            if t.dtype.is_floating_point:
                # float32(0.999) is a little above 0.999 and still means it
                limit = max(limit, float(torch.tensor(t_max, dtype=t.dtype)))
            wide = t.to(torch.float64)
    elif isinstance(t, numbers.Real) and not isinstance(t, bool):
        kept, wide = torch.float64, torch.tensor(float(t), dtype=torch.float64)
    else:
        raise DtypeError(f"{name} must be a float or a torch.Tensor, got {shown(t)}")
    if readable(wide) and wide.numel():
        low, high = torch.aminmax(wide.detach())
        # NaN, which aminmax propagates, is neither; Python compares numbers faster than torch
        if not (low.item() >= 0 and high.item() <= limit):
            values = wide.detach().reshape(-1)
            bad = values[~((values >= 0) & (values <= limit))][0].item()
            raise TimeError(
                f"{name} must lie in [0, {t_max:g}] (0 = data, t_max = noise), got {bad!r}"
            )
    if limit > t_max:  # back to t_max, without a change of slope
        wide = wide - (wide.detach() - t_max).clamp_min(0)
    wide.checked_until = t_max  # type: ignore[attr-defined]
    return wide, kept


def schedule(method: F) -> F:
    """Decorate a method of times only: float64 inside, shape checked, cast once on the way out.

    The method sees float64 tensors that are marked as checked, so that the schedules it calls in
    turn do not check them again; what it returns is cast to the dtype that the caller's times
    imply.
    """
    names = method.__code__.co_varnames[1 : method.__code__.co_argcount]

    @functools.wraps(method)
    def wrapped(self: Any, *times: Time, **named: Time) -> Any:
        if named:
            times = (*times, *(named.pop(name) for name in names[len(times) :] if name in named))
        if len(times) != len(names) or named:
            raise TypeError(f"{type(self).__name__}.{method.__name__} takes {', '.join(names)}")
        if all(getattr(t, "checked_until", None) == self.t_max for t in times):
            return _shaped(method(self, *times), method, self, times)
        wide, kept = [], torch.float32
        for name, t in zip(names, times, strict=True):
            tensor, dtype = as_time(t, self.t_max, name)
            wide.append(tensor)
            kept = torch.promote_types(kept, dtype)
        return _cast(_shaped(method(self, *wide), method, self, wide), kept)

    wrapped.is_schedule = True  # type: ignore[attr-defined]
    return wrapped  # type: ignore[return-value]


def _cast(result: Any, kept: torch.dtype) -> Any:
    """Every tensor of a nest of tuples in the dtype `kept`."""
    if isinstance(result, tuple):
        cast = [_cast(part, kept) for part in result]
        return type(result)(*cast) if hasattr(result, "_fields") else tuple(cast)
    return result.to(kept)


def _shaped(result: Any, method: Callable[..., Any], owner: Any, times: Sequence[Any]) -> Any:
    """The result, each tensor of which must have the (broadcast) shape of the times."""
    for part in result if isinstance(result, tuple) else (result,):
        if not isinstance(part, Tensor):
            raise DtypeError(
                f"{type(owner).__name__}.{method.__name__} must return a tensor of the shape "
                f"of t, got {type(part).__name__}; a constant is torch.full_like(t, value)"
            )
        if len(times) > 1 or part.shape != times[0].shape:
            expected = np.broadcast_shapes(*(t.shape for t in times))  # torch's brings sympy
            if part.shape != expected:
                raise ShapeError(
                    f"{type(owner).__name__}.{method.__name__} must return shape "
                    f"{tuple(expected)}, the shape of t, got {tuple(part.shape)}"
                )
    return result


def entries(table: Tensor, i: Tensor) -> Tensor:
    """The entries of a 1-d table at these indices [shape of i], on their device.

    Not table[i], which reads a single index back from the device.
    """
    return table.to(i.device).index_select(0, i.reshape(-1)).reshape(i.shape)


def expand_like(c: Tensor, x: Tensor, name: str = "t") -> Tensor:
    """A coefficient of shape `()`, `(batch,)` or `(batch, 1, ..., 1)`, ready to multiply `x`.

    Args:
        c: one value, or one value a sample [() or (batch,) or (batch, 1, ..., 1)].
        x: the samples [(batch, *dims)].
        name: the name of the time behind `c`, for messages.

    Returns:
        `c` in the dtype of `x`, shaped `(batch, 1, ..., 1)` or `()`.

    Raises:
        ShapeError: `c` has another shape; a row `(1, batch)` is refused even where batch == dims.
            Or `x` has no batch dimension.
        DeviceError: `c` and `x` are on different devices (one value on the CPU goes anywhere).
    """
    if x.ndim == 0:
        raise ShapeError("x must have shape (batch, *dims), got a 0-d tensor")
    same_device("x", x, name, c)
    if c.ndim == 0:
        return c.to(x.dtype)
    trailing = (1,) * (x.ndim - 1)
    if c.shape[0] not in (1, x.shape[0]) or tuple(c.shape[1:]) not in ((), trailing):
        raise ShapeError(
            f"{name} must have shape (), ({x.shape[0]},) or ({x.shape[0]}, 1, ..., 1) for a batch "
            f"of {x.shape[0]}, got {tuple(c.shape)}"
        )
    return c.to(x.dtype).reshape(c.shape[0], *trailing)


def scaled(x: Tensor, c: Tensor) -> Tensor:
    """The samples x [(batch, *dims)] times a coefficient of their times, in the dtype of x."""
    return floating("x", x) * expand_like(c, x)


def check_order(s: Tensor, t: Tensor) -> None:
    """Raise a TimeError where s > t: a transition goes from s, nearer to the data, to t."""
    if readable(s) and readable(t) and bool((s > t).any()):
        at = (s > t).nonzero()[0].tolist()
        s_bad, t_bad = (each[tuple(at)].item() for each in (s + 0 * t, t + 0 * s))
        raise TimeError(
            f"s <= t is needed (s is nearer to the data), got s = {s_bad!r}, t = {t_bad!r}"
        )


def derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """d function / dt, elementwise; differentiable in t again where t is."""
    if not readable(t):  # inside vmap or a trace: this composes, but costs more
        return torch.func.vjp(function, t)[1](torch.ones_like(t))[0]
    tracked = t.requires_grad and torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        point = t if tracked else t.detach().clone().requires_grad_()
        point.checked_until = getattr(t, "checked_until", None)  # type: ignore[attr-defined]
        value = function(point)
        if not value.requires_grad:  # a constant
            return torch.zeros_like(t)
        return torch.autograd.grad(value.sum(), point, create_graph=tracked)[0]
