"""From a sampler's coefficients to rows of plain floats: everything that needs no network.

A sampler states its coefficients for the whole grid at once, in float64. A `Mix` among them stands
for a combination of the sample and the prediction at one time; here it becomes two weights, of the
sample and of the model's raw output, by the table of `sdekit.model.parametrization`. A plan
depends on (sampler, sde, grid, parametrisation) only, and is cached on them.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sdekit._cache import cached
from sdekit._check import shown
from sdekit._times import as_time
from sdekit.errors import ConfigError, DtypeError, ShapeError
from sdekit.model.parametrization import Parametrization
from sdekit.sde.base import LinearSDE

if TYPE_CHECKING:
    from sdekit.sampling.base import Sampler

__all__ = ["Mix", "Plan", "plan_for", "some_rows"]

Array = np.ndarray  # of float64, where it holds coefficients

_CACHED_PLANS = 64
_COEFFICIENTS = ("x", "x0", "eps", "score")


@dataclass(frozen=True)
class Mix:
    """x x + x0 x_0 + eps eps + score s of the prediction at time `at`, for every row of a grid.

    Args:
        at: the times of the model calls [(K,)].
        x: the coefficient of the sample [float or (K,)].
        x0: of the predicted clean sample [float or (K,)].
        eps: of the predicted noise [float or (K,)].
        score: of the predicted score [float or (K,)].

    Arrays and lists of numbers may be given, and become tensors.

    Raises:
        DtypeError: a field is none of these.
    """

    at: Any  # a Tensor once made
    x: Any = 0.0  # numbers, or Tensors once made
    x0: Any = 0.0
    eps: Any = 0.0
    score: Any = 0.0

    def __post_init__(self) -> None:
        """Tensors for what is neither a number nor one."""
        for name, value in vars(self).items():
            if not isinstance(value, Tensor | float | int):
                object.__setattr__(self, name, _tensor(name, value))

    def rows(self, which: slice) -> Mix:
        """The same combination in some of the rows."""
        parts = (getattr(self, name) for name in _COEFFICIENTS)
        chosen = (v[which] if isinstance(v, Tensor) and v.ndim else v for v in parts)
        return Mix(self.at[which], *chosen)

    @classmethod
    def joined(cls, mixes: Sequence[Mix]) -> Mix:
        """The rows of several, one below the other; a number that all have stays one."""

        def column(name: str) -> Any:
            parts = [getattr(mix, name) for mix in mixes]
            if all(not isinstance(part, Tensor) and part == parts[0] for part in parts):
                return parts[0]
            return torch.cat([
                torch.as_tensor(part, dtype=torch.float64).expand(len(mix.at))
                for part, mix in zip(parts, mixes, strict=True)
            ])  # fmt: skip

        return cls(torch.cat([mix.at for mix in mixes]), *map(column, _COEFFICIENTS))

    def resolve(self, sde: LinearSDE, parametrization: Parametrization) -> Tensor:
        """The weights of the sample and of the raw output [(K, 2)], float64."""
        sde = sde.reaching(float(self.at.max())) if self.at.numel() else sde
        at, _ = as_time(self.at, sde.t_max)
        weights = parametrization.weights(
            sde, at, x=self.x, x0=self.x0, eps=self.eps, score=self.score
        )
        return torch.stack(weights, dim=1)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run does, row by row.

    Attributes:
        grid: the times at which states are reported: the start, and the end of each row [(K +
            1,)].
        rows: one object a row, with floats `t`, `s` and an attribute for every coefficient: a
            float, a tuple for a column (K, m), the two weights for a `Mix`, a row for a nested
            dict, a tuple of rows for a list of dicts (without those that are not `present`).
        calls: the times at which the model is called, without repetition.
    """

    grid: Tensor
    rows: Sequence[Any]
    calls: Sequence[float]


Columns = Mapping[str, Any]


def some_rows(columns: Any, which: slice) -> Any:
    """Columns, or a part of them, in some of the rows."""
    if isinstance(columns, Mapping):
        return {name: some_rows(column, which) for name, column in columns.items()}
    if isinstance(columns, list):
        return [some_rows(part, which) for part in columns]
    return columns.rows(which) if isinstance(columns, Mix) else columns[which]


def _column(name: str, column: object, count: int) -> list[Any]:
    """A column as Python values, checked for shape and finiteness."""
    if not isinstance(column, Tensor | np.ndarray):
        raise DtypeError(
            f"coefficient {name!r} must be a tensor, an array, a Mix or a dict, got "
            f"{shown(column)}"
        )
    if column.ndim not in (1, 2) or column.shape[0] != count:
        raise ShapeError(
            f"coefficient {name!r} must have shape ({count},) or ({count}, m), "
            f"got {tuple(column.shape)}"
        )
    if isinstance(column, Tensor):
        column = column.float() if column.dtype == torch.bfloat16 else column  # NumPy has none
        array = column.detach().numpy()
    else:
        array = column
    if array.dtype.kind not in "biuf":
        raise DtypeError(f"coefficient {name!r} must be real numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).reshape(count, -1).all(axis=1)))
        raise ConfigError(f"coefficient {name!r} is not finite at row {row} of {count}")
    values = array.tolist()
    return values if array.ndim == 1 else list(map(tuple, values))


def _tensor(name: str, value: object) -> Tensor:
    """An array or a list of numbers as a float64 tensor of its own."""
    try:
        array = np.array(value, order="C")  # a copy: what is given may be read-only
        if array.dtype.kind in "biuf":
            return torch.from_numpy(array.astype(np.float64, copy=False))
    except ValueError:  # a ragged list
        pass
    raise DtypeError(f"{name} of a Mix must be numbers, a tensor or an array, got {shown(value)}")


def _mixes(columns: Any, name: str = "") -> Iterator[tuple[str, Mix]]:
    """Every `Mix` among columns, with its name."""
    if isinstance(columns, Mapping):
        for key, column in columns.items():
            yield from _mixes(column, key)
    elif isinstance(columns, list):
        for part in columns:
            yield from _mixes(part)
    elif isinstance(columns, Mix):
        yield name, columns


def _resolved(
    columns: Columns, sde: LinearSDE, parametrization: Parametrization
) -> dict[int, Tensor]:
    """The weights of every `Mix`, by its id: found together, since a call costs more than rows."""
    found = list(_mixes(columns))
    for name, mix in found:
        _refuse_shapes(name, mix)
        _refuse_singular(name, mix.at, sde)
    mixes = [mix for _, mix in found]
    if len(mixes) < 2:
        return {id(mix): mix.resolve(sde, parametrization) for mix in mixes}
    whole = Mix.joined(mixes).resolve(sde, parametrization)
    parts = whole.split([len(mix.at) for mix in mixes])
    return {id(mix): part for mix, part in zip(mixes, parts, strict=True)}


def _rows(
    columns: Columns, resolved: Mapping[int, Tensor], count: int, calls: set[float]
) -> list[Any]:
    values: dict[str, list[Any]] = {}
    for name, column in columns.items():
        if isinstance(column, Mapping):
            values[name] = _rows(column, resolved, count, calls)
        elif isinstance(column, list):
            values[name] = _lists(column, resolved, count, calls)
        elif isinstance(column, Mix):
            values[name] = _column(name, resolved[id(column)], count)
            calls.update(column.at.tolist())
        else:
            values[name] = _column(name, column, count)
    return list(map(_row_maker(tuple(values)), zip(*values.values(), strict=True)))


@cache
def _row_maker(names: tuple[str, ...]) -> Callable[[tuple[Any, ...]], Any]:
    """What makes rows with these attributes; the type is made once, and costs more than a plan."""
    row = namedtuple("Row", names)  # type: ignore[misc]  # the names are known at run time only
    return partial(tuple.__new__, row)  # `row._make` without its check of the length


def _lists(
    parts: list[Columns], resolved: Mapping[int, Tensor], count: int, calls: set[float]
) -> list[tuple[Any, ...]]:
    """One tuple a row, of the parts that are present in it."""
    made = []
    for part in parts:
        there = part.get("present")
        present = {name: column for name, column in part.items() if name != "present"}
        made.append(_rows(present, resolved, count, calls))
    rows = list(zip(*made, strict=True))
    there = np.array([np.broadcast_to(part.get("present", True), count) for part in parts])
    for k in np.flatnonzero(~there.all(axis=0)):
        rows[k] = tuple(row for row, here in zip(rows[k], there[:, k], strict=True) if here)
    return rows


def _refuse_shapes(name: str, mix: Mix) -> None:
    shape = tuple(getattr(mix.at, "shape", ()))
    if len(shape) != 1:
        raise ShapeError(f"coefficient {name!r}: at must have shape (K,), got {shape}")
    for field in _COEFFICIENTS:
        value = getattr(mix, field)
        if isinstance(value, Tensor) and value.ndim and value.shape != shape:
            raise ShapeError(
                f"coefficient {name!r}: {field} must be a number or have the shape {shape} of at, "
                f"got {tuple(value.shape)}"
            )


def _refuse_singular(name: str, at: Tensor, sde: LinearSDE) -> None:
    if at.numel() and at.min().item() <= 0 and float(sde.var(0.0)) == 0:
        raise ConfigError(
            f"coefficient {name!r} needs the model at t = 0, where var = 0; end the grid above 0, "
            "or use a sampler that does not call it there"
        )


@cached(_CACHED_PLANS)
def _plan(sampler: Sampler, sde: LinearSDE, parametrization: Parametrization, grid: bytes) -> Plan:
    times = torch.frombuffer(bytearray(grid), dtype=torch.float64)
    # what is not finite is refused below, by the name of its column
    with torch.inference_mode(False), torch.no_grad(), np.errstate(all="ignore"):
        t, s = sampler.times(sde, times)
        columns = {"t": t, "s": s, **sampler.coefficients(sde, times)}
        calls: set[float] = set()
        rows = _rows(columns, _resolved(columns, sde, parametrization), len(t), calls)
    return Plan(
        grid=torch.cat([times[:1], s]), rows=rows, calls=tuple(sorted(calls, reverse=True))
    )


def plan_for(
    sampler: Sampler, sde: LinearSDE, parametrization: Parametrization, grid: Tensor
) -> Plan:
    """The plan of a run; made once for each (sampler, sde, parametrisation, grid).

    Raises:
        ConfigError: the sampler does not serve this SDE, or a coefficient is not finite.
    """
    missing = sorted((sampler.needs & _SDE_KINDS) - sde.kinds)
    if missing:
        raise ConfigError(f"{sampler!r} needs an SDE of kind {', '.join(missing)}; {sde!r} is not")
    times = grid.detach().to("cpu", torch.float64).contiguous()
    return _plan(sampler, sde, parametrization, times.numpy().tobytes())  # bytes hash fast


_SDE_KINDS = frozenset({"linear", "vp", "ve", "ddpm"})
