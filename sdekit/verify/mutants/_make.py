"""How a mutant is made: a copy of a right object with one or a few methods replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Mutant", "Table", "altered", "changed"]


@dataclass(frozen=True)
class Mutant:
    """A deliberately wrong implementation.

    Attributes:
        name: of the mutant, unique.
        kind: of object that it is.
        right: the right object that it was made from.
        wrong: the wrong one.
        caught_by: the checks that must catch it.
        fault: what is wrong with it, in a line.
        peer: the number of the fault of a released library that it repeats, or None.
    """

    name: str
    kind: str
    right: Any = field(repr=False)
    wrong: Any = field(repr=False)
    caught_by: tuple[str, ...]
    fault: str
    peer: int | None = None


def altered(right: Any, _fields: Mapping[str, Any] | None = None, **methods: Any) -> Any:
    """A copy of `right` whose class has these methods instead of its own.

    Args:
        right: the object.
        _fields: attributes of the copy that differ too.
        methods: functions or properties by name.
    """
    cls: Any = type(right)
    made = type(cls)(f"Wrong{cls.__name__}", (cls,), {"__module__": __name__, **methods})
    wrong = object.__new__(made)
    wrong.__dict__.update(right.__dict__, **(_fields or {}))
    return wrong


def changed(cls: type, **columns: Callable[[Any], Any]) -> Callable[..., dict[str, Any]]:
    """`coefficients` of a sampler class with some of its columns changed.

    Args:
        cls: the sampler's class.
        columns: from a right column to the wrong one; for a `Mix`, the fields that change.
    """

    def coefficients(self: Any, sde: Any, grid: Any) -> dict[str, Any]:
        found = cls.coefficients(self, sde, grid)  # type: ignore[attr-defined]
        for name, change in columns.items():
            made = change(found[name])
            found[name] = replace(found[name], **made) if isinstance(made, dict) else made
        return found

    return coefficients


class Table:
    """The mutants of one kind, in the order of their making."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rows: list[Mutant] = []

    def add(
        self,
        name: str,
        right: Any,
        caught_by: str,
        fault: str,
        *,
        peer: int | None = None,
        wrong: Any = None,
        fields: Mapping[str, Any] | None = None,
        **methods: Any,
    ) -> None:
        """One row; `caught_by` holds names of checks with spaces between."""
        made = altered(right, fields, **methods) if wrong is None else wrong
        names = tuple(caught_by.split())
        self.rows.append(Mutant(name, self.kind, right, made, names, fault, peer))
