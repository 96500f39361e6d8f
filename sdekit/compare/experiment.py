"""What is compared: a table of targets, processes, samplers, grids and step counts, as TOML.

An `Experiment` is a value. Everything in it has a spelling (`sdekit list`), so that it can be
written to a file, sent to another machine, and run again years later: `experiment.toml` in a
comparison's folder is the experiment with every default filled in.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sdekit._catalogue import make, make_one
from sdekit._check import Checked, choice, flag, integer, nearest, shown
from sdekit.compare.cell import Cell, imported
from sdekit.compare.subjects import Source
from sdekit.errors import ConfigError, DtypeError, SdekitError
from sdekit.metrics import Metric
from sdekit.sampling import Sampler
from sdekit.sampling.grid import Grid
from sdekit.sde import LinearSDE
from sdekit.targets import ExactTarget

__all__ = ["Experiment", "read_file"]

_LONGEST = 100_000  # bytes of a TOML file: a real one has a few hundred
_DEEPEST = 8  # nested brackets: a real one has two
_MOST_CELLS = 100_000
_MOST_SAMPLES = 10_000_000  # of a run: all are held at once
_KINDS = {
    "target": ("target", ExactTarget), "sdes": ("sde", LinearSDE),
    "samplers": ("sampler", Sampler), "grids": ("grid", Grid), "metrics": ("metric", Metric),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Experiment(Checked):
    """A comparison: every sampler, on every grid, with every budget, on every model.

    The models are the exact scores of the targets under each of the SDEs, and the checkpoints,
    each under its own SDE. Every argument that is a list may also be a single value.

    Args:
        target: laws in closed form, or their spellings; their exact score is what is sampled from.
        checkpoints: trained models: paths of files or run folders of sdekit, or of folders of
            diffusers' pipelines; or tables {"path": ..., "target": spelling} and
            {"path": ..., "data": FILE}, which say what the samples are compared with: by default
            the law that the checkpoint was trained on.
        sdes: the processes of the exact scores.
        samplers: with their options.
        grids: where the steps are.
        steps: how many steps; not together with `calls`.
        calls: how many network calls: each sampler takes the most steps that stay within them, by
            the calls a step that it declares.
        seeds: one run of each cell a seed, or how many: k is 0, 1, ..., k - 1. Every sampler
            starts from the same noise and is compared with the same true samples: common random
            numbers, so that differences are sharper than either value.
        n: samples a run.
        metrics: what is measured.
        prior: what a run starts from, as for `sample`: "standard" or "matched".
        denoise: end with the noiseless step to x_0, as for `sample`.
        device: where to sample.
        modules: modules of your own that register targets, samplers, metrics, ...; every process
            imports them. In a file they are code that the file makes run: know where it is from.
        name: the title.

    Raises:
        ConfigError: a value out of range, an unknown name (the nearest is named), nothing to
            compare, or an object that its spelling does not make again.
        DtypeError: a value of another type.

    Example:
        >>> e = Experiment(target="tutorial", sdes="vp", samplers=["ddim", "heun"], calls=[8, 16])
        >>> len(e.cells), Experiment.from_toml(e.to_toml()) == e
        (4, True)
    """

    name: str = "comparison"
    target: Any = ()
    checkpoints: Any = ()
    sdes: Any = ("vp",)
    samplers: Any = ("ddim",)
    grids: Any = ("uniform",)
    steps: Any = ()
    calls: Any = ()
    seeds: Any = 4
    n: int = 2000
    metrics: Any = ("sliced_wasserstein",)
    prior: str = "standard"
    denoise: bool = False
    device: str = "cpu"
    modules: Any = ()
    cells: tuple[Cell, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields and spell everything out."""
        if not isinstance(self.name, str) or not isinstance(self.device, str):
            raise DtypeError(f"name and device must be strings, got {shown(self.name)}, "
                             f"{shown(self.device)}")  # fmt: skip
        self._set(modules=_each("modules", _listed("modules", self.modules), imported))
        for name, (kind, base) in _KINDS.items():
            self._set(**{name: _spelled(name, kind, base, getattr(self, name))})
        self._set(checkpoints=_each("checkpoints", _listed("checkpoints", self.checkpoints),
                                    Source.parse))  # fmt: skip
        for name in ("steps", "calls"):
            given = _listed(name, getattr(self, name))
            self._set(**{name: tuple(integer(f"{name}[{i}]", value, ge=1)
                                     for i, value in enumerate(given))})  # fmt: skip
        self._set(seeds=_seeds(self.seeds), n=integer("n", self.n, ge=2, le=_MOST_SAMPLES))
        choice("prior", self.prior, ("standard", "matched"))
        flag("denoise", self.denoise)
        if not self.target and not self.checkpoints:
            raise ConfigError("target: name a law to sample from, or checkpoints; got neither")
        if bool(self.steps) == bool(self.calls):
            what = "both" if self.steps else "neither"
            raise ConfigError(f"give steps or calls, how long the runs are; got {what}")
        for name in ("samplers", "grids", "metrics", *(("sdes",) if self.target else ())):
            if not getattr(self, name):
                raise ConfigError(f"{name}: name at least one, got none")
        for name in ("target", "checkpoints", "sdes", "samplers", "grids", "steps", "calls",
                     "seeds", "metrics"):  # fmt: skip
            _once(name, getattr(self, name))
        self._set(cells=tuple(self._cells()))

    def _cells(self) -> Iterator[Cell]:
        models = [Source(target=law, sde=sde) for law in self.target for sde in self.sdes]
        models += list(self.checkpoints)
        budgets = [{"steps": k} for k in self.steps] + [{"calls": k} for k in self.calls]
        count = len(models) * len(self.grids) * len(self.samplers) * len(budgets)
        if count > _MOST_CELLS:
            raise ConfigError(f"an experiment has at most {_MOST_CELLS} cells, got {count}")
        for model in models:
            for sampler in self.samplers:
                # who chooses its own steps has one budget, and uses only the ends of a grid
                free = "adaptive" in make("sampler", sampler).needs
                for grid in self.grids[:1] if free else self.grids:
                    for budget in [{}] if free else budgets:
                        yield Cell(
                            source=model, sampler=sampler, grid=grid, **budget,
                            seeds=self.seeds, n=self.n, metrics=self.metrics, prior=self.prior,
                            denoise=self.denoise, device=self.device, modules=self.modules,
                        )  # fmt: skip

    # TOML ---------------------------------------------------------------------------------------

    @classmethod
    def from_toml(cls, text: str) -> Experiment:
        r"""The experiment that a TOML text describes.

        Raises:
            ConfigError: the text is no TOML (the line is named), a key is unknown (the nearest is
                named), or as for the class.

        Example:
            >>> Experiment.from_toml('target = "tutorial"\nsteps = 10').steps
            (10,)
        """
        values = _read(text)
        known = [f.name for f in fields(cls) if f.init]
        for key in values:
            if key not in known:
                raise ConfigError(
                    f"{_line(text, key)}{shown(key)} is no key of an experiment; "
                    f"{nearest(key, known)}"
                )
        return cls(**values)

    def to_toml(self) -> str:
        """The experiment as TOML, every default filled in.

        Example:
            >>> print(Experiment(target="tutorial", steps=10).to_toml().splitlines()[1])
            target = ["tutorial()"]
        """
        lines = [
            f"{f.name} = {_toml(getattr(self, f.name))}"
            for f in fields(self)
            if f.init and getattr(self, f.name) != ()
        ]
        return "\n".join(lines) + "\n"

    def moved(self, seed: int) -> Experiment:
        """The same experiment with every seed moved on by so many."""
        return replace(self, seeds=tuple(s + seed for s in self.seeds))


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    """A list, or a single value as a list of one."""
    if isinstance(value, list | tuple | range):
        return tuple(value)
    if isinstance(value, set | frozenset):
        raise DtypeError(f"{name} must be a list, whose order stays, got {shown(value)}")
    return (value,)


def _each(name: str, values: tuple[Any, ...], read: Any) -> tuple[Any, ...]:
    return tuple(read(f"{name}[{i}]", value) for i, value in enumerate(values))


def _spelled(name: str, kind: str, base: type, values: Any) -> tuple[str, ...]:
    """The full spellings of objects of a kind."""

    def read(where: str, value: Any) -> str:
        thing = make_one(kind, value, base, name=where)
        text = repr(thing)
        try:
            again = make(kind, text)
        except SdekitError as error:
            raise ConfigError(
                f"{where}={shown(value)} has no spelling that makes it again ({error}); register "
                f"a class for it: sdekit.register({kind!r}, NAME)"
            ) from None
        if repr(again) != text:
            raise ConfigError(f"{where}={shown(value)} is spelled {text}, which makes {again!r}")
        return text

    return _each(name, _listed(name, values), read)


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple | range):
        value = range(integer("seeds", value, ge=1, le=10_000))
    if not len(value):
        raise ConfigError("seeds must name at least one, got none")
    return tuple(integer(f"seeds[{i}]", v, ge=0, le=2**62) for i, v in enumerate(value))


def _once(name: str, values: tuple[Any, ...]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"{name} has {shown(value)} twice")
        seen.add(value)


# TOML -------------------------------------------------------------------------------------------


def _read(text: str) -> dict[str, Any]:
    """The keys and values of a TOML text; everything that could be huge is refused unread."""
    if not isinstance(text, str):
        raise DtypeError(f"text must be a string of TOML, got {shown(text)}")
    text = text.removeprefix("\ufeff")  # the mark that some editors put first
    if len(text) > _LONGEST:
        raise ConfigError(f"an experiment has at most {_LONGEST} characters, got {len(text)}")
    if not text.strip():
        raise ConfigError("the experiment is empty: it needs a target and steps, for example")
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        depth += sum(line.count(c) for c in "[{") - sum(line.count(c) for c in "]}")
        if depth > _DEEPEST:
            raise ConfigError(f"line {number}: brackets are nested {depth} deep")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"the experiment is not TOML: {error}") from None


def _line(text: str, key: str) -> str:
    """`line 3: ` where a key is written at the start of a line."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip("[ \t\"'").startswith(key):
            return f"line {number}: "
    return ""


def _toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, Source):
        value = value.as_table()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    short = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    out = "".join(short.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in text)
    return f'"{out}"'


def read_file(path: Path) -> Experiment:
    """The experiment in a file.

    Raises:
        ConfigError: no such file, or as `Experiment.from_toml`; the file is named.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"no such file: {path}")
        if path.stat().st_size > 4 * _LONGEST:
            raise ConfigError(f"{path} is {path.stat().st_size} bytes, no experiment")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        return Experiment.from_toml(text)
    except SdekitError as error:
        raise type(error)(f"{path}: {error}") from None
