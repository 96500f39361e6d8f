"""`sdekit verify`: check the mathematics of anything, the catalogue's or a stranger's."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sdekit.cli.folders import write
from sdekit.cli.options import Int
from sdekit.cli.terminal import Terminal
from sdekit.errors import ConfigError

if TYPE_CHECKING:
    from sdekit.verify.claims import Check
    from sdekit.verify.front import Subject
    from sdekit.verify.report import Result

__all__ = ["OPTIONS", "run"]

# where a bare name is looked for, in this order
_KINDS = ("sde", "sampler", "target", "objective", "weighting", "time", "parametrization", "grid")


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check the mathematics of SDEs, samplers, models and losses.

    Without a name everything in the catalogue is checked. A name is a spelling of the catalogue
    or module:object, looked for in the working folder too; an object may be of nobody's class.
    The exit code is 1 when a check fails.

    Examples:
      sdekit verify
      sdekit verify vp
      sdekit verify "ddim(eta=0.5)" --only point_data
      sdekit verify my_package.processes:my_sde --json report.json
      sdekit verify --mutants
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """what to check: names of `sdekit list`, or module:object; by default the whole catalogue"""
    only: tuple[str, ...] = ()
    """names of checks; by default all of a kind"""
    kind: str | None = None
    """check the object as this: sde, sampler, target, objective, ..."""
    seed: Int = 0
    """of the cases and draws: the same seed, the same results"""
    examples: Int = 24
    """cases a check; costly checks take a share of them"""
    checks: bool = False
    """list the checks: claim, source, cost"""
    mutants: bool = False
    """check the kit itself: which check catches which wrong implementation"""
    whole: bool = False
    """with --mutants: ask every check of every mutant, not only those that it names"""
    json: Path | None = None
    """write the results to this file"""
    overwrite: bool = False
    """replace the file of --json"""
    verbose: bool = False
    """a line for every check, not only for failures"""
    debug: bool = False
    """after a failure, show where in the code it happened"""


OPTIONS = Verify


def run(options: Verify, terminal: Terminal) -> int:
    """Verify; returns the exit code."""
    if options.json is not None and options.json.exists() and not options.overwrite:
        raise ConfigError(f"--json {options.json} exists; replace it with --overwrite")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {options.json}: there is no folder {options.json.parent}")
    for name, least in (("examples", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name} must be >= {least}, got {getattr(options, name)}")
    if options.checks:
        return _list(options, terminal)
    if options.mutants:
        return _mutants(options, terminal)
    from sdekit._check import choice
    from sdekit.verify.front import CHECKS, ask, everything
    from sdekit.verify.report import Report
    from sdekit.verify.runner import Asked

    for name in options.only:
        choice("--only", name, CHECKS)

    named = [subject for name in options.names for subject in _named(name, options.kind)]
    subjects = named or everything()
    jobs = [(s, one) for s in subjects for one in _chosen(s, options)]
    if not jobs:
        raise ConfigError(
            f"none of --only {', '.join(options.only)} is a check of "
            f"{', '.join(options.names) or 'the catalogue'}"
        )
    asked = Asked(options.examples, options.seed)
    results: list[Result] = []
    with terminal.progress("verifying", len(jobs)) as advance:
        for subject, one in jobs:
            advance(len(results), f"{subject.label}: {one.name}")
            results.append(ask(one, subject, asked, {}))
    report = Report(tuple(results))
    _say(report, options, terminal)
    terminal.say(f"different checks: {len({one.name for _, one in jobs})}; seed {options.seed}")
    _store(options, report.to_json(), terminal)
    return 0 if report.ok else 1


def _chosen(subject: Subject, options: Verify) -> Iterator[Check]:
    """The checks to ask; of a named object also one that does not concern it, which says why."""
    from sdekit.verify.front import CHECKS, checks_for

    if not options.only:
        yield from checks_for(subject)
    for name in options.only:
        one = CHECKS[name]
        if one.kind == subject.kind and (options.names or one.concerns(subject.thing)):
            yield one


def _say(report: Any, options: Verify, terminal: Terminal) -> None:
    """A line an object (or a check), every failure in full, every reason for a skip once."""
    from collections import Counter

    width = max(len(_short(result.subject)) for result in report)
    for subject in dict.fromkeys(result.subject for result in report):
        mine = [result for result in report if result.subject == subject]
        counts = Counter(result.status for result in mine)
        seconds = sum(result.seconds for result in mine)
        told = ", ".join(f"{counts[s]} {s}" for s in counts)
        terminal.say(f"{_short(subject):{width}}  {told}  ({seconds:.1f} s)")
        for result in mine:
            if not result.ok or result.status == "expected" or options.verbose:
                for line in str(result).splitlines():
                    terminal.say(f"    {line}")
    skips = Counter((r.name, r.reason) for r in report if r.status == "skipped")
    if skips and not options.verbose:
        by_name: dict[str, int] = Counter()
        for (name, _), count in skips.items():
            by_name[name] += count
        told = ", ".join(f"{name} {count}" for name, count in by_name.items())
        terminal.say()
        terminal.wrap(f"skipped, with reasons under --verbose: {told}", indent="  ")
    terminal.say()
    terminal.say(report.summary)


def _short(label: str) -> str:
    return label if len(label) <= 60 else label[:57] + "..."


def _named(name: str, kind: str | None) -> list[Subject]:
    """The objects that a word names: one, or one of each kind that has it."""
    from dataclasses import replace

    from sdekit._catalogue import catalogue, make
    from sdekit._check import choice, nearest
    from sdekit.verify.front import subject_of

    if kind is not None:
        choice("--kind", kind, (*_KINDS, "predictor", "likelihood", "noise", "average", "model"))
    if ":" in name and "(" not in name.partition(":")[0]:
        # its name on the command line is what repeats a failure
        return [replace(subject_of(_imported(name), kind), label=name, spelled=True)]
    head = name.partition("(")[0].strip()
    kinds = [of for of in ((kind,) if kind in _KINDS else _KINDS) if head in catalogue(of)]
    if not kinds:
        known = {entry for of in _KINDS for entry in catalogue(of)}
        raise ConfigError(f"nothing is called {name!r}; {nearest(head, known)}; or module:object")
    if "(" in name:  # fields decide which of them is meant
        kinds = kinds[:1]
    return [subject_of(make(of, name), of) for of in kinds]


def _imported(name: str) -> Any:
    """The object `module:attribute.attribute`; a class is made with its defaults."""
    import inspect

    module, _, path = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        thing: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{name}: no module {error.name!r}") from error
    except Exception as error:
        raise ConfigError(
            f"{name}: importing {module} raised {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    for part in path.split("."):
        if not hasattr(thing, part):
            raise ConfigError(f"{name}: {module} has no {path!r}")
        thing = getattr(thing, part)
    if inspect.isclass(thing) and thing.__name__ != "Average":
        try:
            return thing()
        except Exception as error:
            raise ConfigError(f"{name} cannot be made without arguments: {error}") from error
    return thing


def _list(options: Verify, terminal: Terminal) -> int:
    """The catalogue of checks."""
    from sdekit.verify import front  # noqa: F401  # it enters the checks
    from sdekit.verify.claims import CHECKS

    kinds = dict.fromkeys(check.kind for check in CHECKS.values())
    for kind in kinds:
        mine = [check for check in CHECKS.values() if check.kind == kind]
        terminal.say(f"{kind}: {len(mine)} checks")
        for check in mine:
            terminal.wrap(
                f"{check.name}: {check.claim}  [{check.source}; {check.cost}]", indent="    "
            )
    terminal.say(f"{len(CHECKS)} checks")
    return 0


def _mutants(options: Verify, terminal: Terminal) -> int:
    """The kill matrix."""
    import json

    from sdekit.verify.matrix import Row, kill_matrix
    from sdekit.verify.mutants import MUTANTS

    chosen = [m for m in MUTANTS if not options.names or m.name in options.names]
    if not chosen:
        raise ConfigError(f"no mutant is called {', '.join(options.names)}")
    with terminal.progress("killing mutants", len(chosen)) as advance:
        done = [0]

        def told(row: Row) -> None:
            done[0] += 1
            advance(done[0], row.mutant.name)

        matrix = kill_matrix(chosen, whole=options.whole, callback=told)
    text = str(matrix)
    if options.names:  # some mutants only: that checks kill none of them says nothing
        text = "\n".join(
            line for line in text.splitlines() if not line.endswith("kills no mutant")
        )
    for line in text.splitlines():
        terminal.say(line)
    rows = [
        {"mutant": r.mutant.name, "fault": r.mutant.fault, "peer": r.mutant.peer,
         "killed_by": r.killed_by, "missed_by": r.missed_by, "unsound": r.unsound, "says": r.says}
        for r in matrix.rows
    ]  # fmt: skip
    _store(options, json.dumps({"ok": matrix.ok, "rows": rows}, indent=1), terminal)
    return 0 if (all(row.ok for row in matrix.rows) if options.names else matrix.ok) else 1


def _store(options: Verify, text: str, terminal: Terminal) -> None:
    if options.json is not None:
        write(options.json, (text + "\n").encode())
        terminal.say(f"wrote {options.json}")
