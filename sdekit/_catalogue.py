"""One catalogue of everything that has a name: SDEs, targets, samplers, grids, weightings, ...

An entry is a class with `examples()`, registered under a kind and a name together with its source:

    @register("sampler", "ddim", paper="arXiv:2010.02502, eq. 12")
    class DDIM(Sampler): ...

From then on it is in the command line, the tests, the benchmarks and the tables of the docs. The
*spelling* of an object is `NAME` or `NAME(field=value, ...)` with literal values; it is the same
on the command line, in TOML files, in checkpoints and in `repr`. Packages outside sdekit register
by an entry point of the group `sdekit.plugins` that names a module to import.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from sdekit._check import choice, nearest, shown
from sdekit.errors import ConfigError, DtypeError

__all__ = ["KINDS", "Entry", "catalogue", "make", "make_one", "register", "spelling"]

# kind -> the module whose import registers sdekit's own entries of that kind
KINDS: Mapping[str, str] = {
    "sde": "sdekit.sde",
    "target": "sdekit.targets",
    "parametrization": "sdekit.model",
    "network": "sdekit.model",
    "sampler": "sdekit.sampling",
    "grid": "sdekit.sampling",
    "objective": "sdekit.objectives",
    "weighting": "sdekit.objectives",
    "time": "sdekit.objectives",
    "metric": "sdekit.metrics",
}
_PLUGINS = "sdekit.plugins"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# of the module that defines the class: of no use beside its name alone
_OWN_EQUATION = re.compile(r", eqs?\. \(\d+\)(?: (?:to|and) \(\d+\))?")

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Entry:
    """One named thing.

    Attributes:
        kind: the kind it belongs to, one of `KINDS`.
        name: its name in the catalogue.
        cls: the class.
        paper: where it comes from: arXiv id and equation, or "" for a convention of sdekit.
    """

    kind: str
    name: str
    cls: type
    paper: str

    @property
    def doc(self) -> str:
        """The first line of the class's docstring, without the equations of its own module."""
        return _OWN_EQUATION.sub("", (inspect.getdoc(self.cls) or "").partition("\n")[0])

    def examples(self) -> list[Any]:
        """Objects that show what the class can be; tests and benchmarks run over them."""
        return list(self.cls.examples())  # type: ignore[attr-defined]  # checked at registration

    def make(self, **values: Any) -> Any:
        """The object with these field values; a class may build itself from other fields."""
        return getattr(self.cls, "from_fields", self.cls)(**values)


_ENTRIES: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}


class _View(Mapping[str, Entry]):
    """A live, read-only view of one kind."""

    def __init__(self, kind: str) -> None:
        self._entries = _ENTRIES[kind]
        self._kind = kind

    def __getitem__(self, name: str) -> Entry:
        return self._entries[choice(self._kind, name, self._entries)]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or the default where there is none."""
        return self._entries.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@cache
def _load_plugins() -> None:
    for point in entry_points(group=_PLUGINS):
        point.load()


def catalogue(kind: str) -> Mapping[str, Entry]:
    """The entries of one kind by name, in the order of registration.

    Args:
        kind: one of `KINDS`; a plural ("samplers") is accepted.

    Raises:
        ConfigError: an unknown kind.

    Example:
        >>> "vp" in catalogue("sde")
        True
    """
    if isinstance(kind, str) and kind not in KINDS and kind.removesuffix("s") in KINDS:
        kind = kind.removesuffix("s")
    kind = choice("kind", kind, KINDS)
    try:
        importlib.import_module(KINDS[kind])
    except ModuleNotFoundError as error:  # a room of the house that is not built yet is empty
        if error.name != KINDS[kind]:
            raise
    _load_plugins()
    return _View(kind)


def _check_signature(cls: type, name: str) -> None:
    """Every method that overrides an abstract one must accept the arguments it is called with."""
    for base in cls.__mro__[1:]:
        for method in getattr(base, "__abstractmethods__", ()):
            override, declared = getattr(cls, method), getattr(base, method)
            if isinstance(declared, property) and override is not declared:
                continue
            if not callable(override) or getattr(override, "__isabstractmethod__", False):
                raise ConfigError(f"{name}: {cls.__name__}.{method} is not implemented")
            positional = [
                p
                for p in inspect.signature(declared).parameters.values()
                if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
            ]
            try:
                inspect.signature(override).bind(*positional)
            except TypeError:
                raise ConfigError(
                    f"{name}: {cls.__name__}.{method}{inspect.signature(override)} does not "
                    f"accept the arguments ({', '.join(p.name for p in positional)})"
                ) from None


def register(kind: str, name: str, *, paper: str = "") -> Callable[[T], T]:
    """Class decorator that puts a class in the catalogue and gives its instances their spelling.

    Args:
        kind: one of `KINDS`.
        name: lower-case letters, digits and underscores; unique within the kind.
        paper: arXiv id and equation.

    Raises:
        ConfigError: the kind is unknown, the name is taken or malformed, `examples` is missing,
            or a method does not accept the arguments it will be called with.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from sdekit import LinearSDE
        >>> @register("sde", "plain_ou_example")
        ... @dataclass(frozen=True, kw_only=True)
        ... class PlainOU(LinearSDE):
        ...     rate: float = 4.0
        ...     def log_alpha(self, t):
        ...         return -self.rate * t
        ...     def var(self, t):
        ...         return -torch.expm1(-2 * self.rate * t)
        ...     @classmethod
        ...     def examples(cls):
        ...         return [cls()]
        >>> make("sde", "plain_ou_example(rate=3)").rate
        3
    """
    choice("kind", kind, KINDS)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"name must match {_NAME.pattern}, got {shown(name)}")

    def decorate(cls: T) -> T:
        taken = _ENTRIES[kind].get(name)
        if taken is not None:
            raise ConfigError(
                f"{kind} {name!r} is registered already, by {taken.cls.__qualname__}"
            )
        if not callable(getattr(cls, "examples", None)):
            raise ConfigError(f"{name}: {cls.__name__} needs a classmethod examples()")
        _check_signature(cls, name)
        cls.catalogue_name = name  # type: ignore[attr-defined]
        if is_dataclass(cls) and cls.__dataclass_params__.repr:  # type: ignore[attr-defined]
            cls.__repr__ = spelling  # type: ignore[method-assign]
        _ENTRIES[kind][name] = Entry(kind, name, cls, paper)
        return cls

    return decorate


def _literal(value: object) -> str:
    """A field's value as a literal; a catalogue object becomes the string of its spelling."""
    return repr(repr(value)) if hasattr(value, "catalogue_name") else repr(value)


def spelling(thing: object) -> str:
    """`name(field=value, ...)`; fields that the class calls quiet only where not default."""
    quiet = getattr(thing, "quiet_fields", ())
    shown_fields = []
    for field in fields(thing):  # type: ignore[arg-type]  # only dataclasses are given this repr
        value = getattr(thing, field.name)
        default = (
            field.default_factory() if field.default_factory is not MISSING else field.default
        )
        if field.repr and field.init and (field.name not in quiet or value != default):
            shown_fields.append(f"{field.name}={_literal(value)}")
    name = getattr(thing, "catalogue_name", type(thing).__name__)
    return f"{name}({', '.join(shown_fields)})"


def make(kind: str, text: object, *, name: str | None = None) -> Any:
    """The object that a spelling describes; an object that is no string is returned as it is.

    Args:
        kind: one of `KINDS`.
        text: `NAME` or `NAME(field=value, ...)`; values are Python literals.
        name: the argument's name for messages; the kind by default.

    Raises:
        ConfigError: an unknown name (the nearest is named), an unknown field, or text that is not
            a spelling. Nothing in the text is executed.

    Example:
        >>> make("sde", "vp(beta_max=10.0)")
        vp(beta_min=0.1, beta_max=10.0)
    """
    return spelled(text, catalogue(kind), name or kind) if isinstance(text, str) else text


def spelled(text: str, entries: Mapping[str, Entry], name: str) -> Any:
    """As `make`, for one of these entries."""
    head, bracket, rest = text.strip().partition("(")
    if not bracket:
        return entries[choice(name, head, entries)].make()
    entry = entries[choice(name, head.strip(), entries)]
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("fields are written name=value")
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("** is not allowed")
        values = {str(word.arg): _value(word) for word in call.keywords}
        if len(values) < len(call.keywords):
            raise ValueError("a field is given twice")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"{name}={shown(text)} is not NAME(field=value, ...) with literal values: {error}"
        ) from None
    try:
        return entry.make(**values)
    except DtypeError:
        raise
    except TypeError as error:  # an unknown field: the constructor's message names the nearest
        raise ConfigError(f"{name}={shown(text)}: {error}") from None


def _value(word: ast.keyword) -> object:
    """The literal of one field."""
    try:
        return ast.literal_eval(word.value)
    except ValueError:
        text = ast.unparse(word.value)
        raise ValueError(
            f"{word.arg}={text} is neither a number nor a quoted text, None, True, False or a list"
        ) from None


def make_one(kind: str, given: object, base: type[Any], *, name: str | None = None) -> Any:
    """As `make`, and the result must be an instance of `base`."""
    thing = make(kind, given, name=name)
    if not isinstance(thing, base):
        raise DtypeError(
            f"{name or kind} must be a {base.__name__} or the name of one, got {shown(given)}; "
            f"{nearest('', catalogue(kind))}"
        )
    return thing
