"""Checks of arguments, each one line at the place of use.

Every function takes the argument's name first, returns the value in its canonical type, and raises
an error that names the argument, the value received and what is allowed.
"""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import ConfigError, DeviceError, DtypeError, NonFiniteError, ShapeError


def shown(value: object, limit: int = 80) -> str:
    """The value as it appears in a message: its repr, cut to `limit` characters."""
    if isinstance(value, Tensor) and value.numel() > 8:
        return f"a tensor of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(name: object, allowed: Iterable[str]) -> str:
    """The end of a message: the nearest allowed name, and all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}"


MOST_STEPS = 1_000_000  # of a run or a chain: a plan of this size takes about 1 GB


def choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """One of a set of names."""
    names = tuple(allowed)
    if not isinstance(value, str):
        raise DtypeError(f"{name} must be a string, got {shown(value)}. {nearest('', names)}")
    if value not in names:
        raise ConfigError(f"{name}={shown(value)} is not known; {nearest(value, names)}")
    return value


def _outside(
    value: float, ge: float | None, gt: float | None, le: float | None, lt: float | None
) -> str:
    """The range in words where `value` lies outside it, else an empty string."""
    if not (
        (ge is not None and value < ge)
        or (gt is not None and value <= gt)
        or (le is not None and value > le)
        or (lt is not None and value >= lt)
    ):
        return ""
    limits = {">=": ge, ">": gt, "<=": le, "<": lt}
    return " and ".join(f"{sign} {limit}" for sign, limit in limits.items() if limit is not None)


def number(
    name: str,
    value: object,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> float:
    """A finite real number: int, float, NumPy scalar or 0-d tensor without gradient."""
    if isinstance(value, Tensor):
        if value.ndim or value.requires_grad or value.is_complex() or value.dtype == torch.bool:
            raise DtypeError(
                f"{name} must be a real number; a tensor is accepted only with 0 dimensions and "
                f"without gradient, got {shown(value)}"
            )
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise DtypeError(f"{name} must be a real number, got {shown(value)}")
    try:
        result = float(value)
    except OverflowError:  # an int beyond 1e308
        result = math.inf
    if not math.isfinite(result):
        raise ConfigError(f"{name} must be finite, got {result}")
    allowed = _outside(result, ge, gt, le, lt)
    if allowed:
        raise ConfigError(f"{name} must be {allowed}, got {result:g}")
    return result


def integer(
    name: str,
    value: object,
    *,
    ge: int | None = None,
    le: int | None = None,
    error: type[Exception] = DtypeError,
) -> int:
    """An integer (never a bool or a float); `error` is raised for the wrong type."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        limit = f" >= {ge}" if ge is not None else ""
        raise error(f"{name} must be an int{limit}, got {shown(value)}")
    result = int(value)
    allowed = _outside(result, ge, None, le, None)
    if allowed:
        raise ConfigError(f"{name} must be an int {allowed}, got {result}")
    return result


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise DtypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def floating(name: str, x: object) -> Tensor:
    """A dense real floating tensor."""
    if not isinstance(x, Tensor):
        hint = (
            "; wrap it: torch.as_tensor(...)" if isinstance(x, np.ndarray | list | tuple) else ""
        )
        raise DtypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}{hint}")
    if not x.dtype.is_floating_point:
        raise DtypeError(f"{name} must be a real floating tensor, got {x.dtype}; cast to float")
    if x.layout != torch.strided:
        raise DtypeError(f"{name} must be a dense tensor, got {x.layout}; use .to_dense()")
    return x


def samples(name: str, x: object, shape: tuple[int, ...] | None = None) -> Tensor:
    """A finite floating tensor `(batch, *dims)`; with `shape`, `dims` must equal it."""
    tensor = floating(name, x)
    if tensor.ndim == 0:
        raise ShapeError(f"{name} must have shape (batch, *dims), got a 0-d tensor")
    if shape is not None and tuple(tensor.shape[1:]) != shape:
        raise ShapeError(
            f"{name} must have shape (batch, {', '.join(map(str, shape))}), "
            f"got {tuple(tensor.shape)}"
        )
    return finite(name, tensor)


def readable(x: Tensor) -> bool:
    """Whether values may be looked at: not on the meta device, traced, or inside vmap."""
    return not (
        x.is_meta
        or torch.compiler.is_compiling()
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def transformed() -> bool:
    """Whether this runs inside a transform of torch.func, to which new tensors then belong."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def finite(name: str, x: Tensor) -> Tensor:
    """A tensor `(batch, ...)` without NaN or infinity; the message names the first bad row."""
    if readable(x) and not bool(torch.isfinite(x).all()):
        bad = ~torch.isfinite(x).reshape(x.shape[0] if x.ndim else 1, -1).all(dim=1)
        rows = bad.nonzero().flatten()[:5].tolist()
        raise NonFiniteError(
            f"{name} holds NaN or infinity in {int(bad.sum())} of {len(bad)} rows, first: {rows}"
        )
    return x


def same_device(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Both tensors on one device (a 0-d CPU tensor goes anywhere)."""
    if x.device != other.device and not (other.ndim == 0 and other.device.type == "cpu"):
        raise DeviceError(
            f"{name} is on {x.device} and {other_name} on {other.device}; move one of them"
        )


def keywords(cls: type, given: Iterable[str]) -> None:
    """Reject keyword arguments that the constructor of `cls` lacks, naming the nearest."""
    if is_dataclass(cls):
        allowed = {field.name for field in fields(cls) if field.init}
    else:
        start = cls.__init__  # type: ignore[misc]  # this class's own, `cls` is no instance
        parameters = inspect.signature(start).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return
        allowed = {p.name for p in parameters} - {"self"}
    for name in given:
        if name not in allowed:
            hint = nearest(name, allowed) if allowed else "it has none"
            raise TypeError(f"{cls.__name__} has no field {name!r}; {hint}")


def like(name: str, x: object, other_name: str, other: Tensor) -> Tensor:
    """A floating tensor of the other one's shape, on its device."""
    tensor = floating(name, x)
    if tensor.shape != other.shape:
        raise ShapeError(
            f"{name} must have {other_name}'s shape {tuple(other.shape)}, "
            f"got {tuple(tensor.shape)}"
        )
    same_device(name, tensor, other_name, other)
    return tensor


class Checked:
    """A base whose constructors name the nearest field when a keyword is misspelt."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Check the keywords before `__init__` sees them."""
        keywords(cls, kwargs)
        return super().__new__(cls)

    def _set(self, **values: object) -> None:
        """Store the canonical value of a field of a frozen dataclass, in `__post_init__`."""
        for name, value in values.items():
            object.__setattr__(self, name, value)
