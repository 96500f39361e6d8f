"""What a user calls: the subjects of checks, the checks of a subject, and their reports."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdekit._catalogue import catalogue, make
from sdekit._check import choice, integer, nearest, shown
from sdekit.errors import ConfigError, DtypeError, SdekitError
from sdekit.model import Parametrization
from sdekit.objectives import TimeLaw, Weighting
from sdekit.objectives.base import Objective
from sdekit.sampling import Sampler
from sdekit.sampling.grid import Grid
from sdekit.sde import LinearSDE
from sdekit.targets import Target
from sdekit.training.average import Average
from sdekit.verify import checks as _checks  # which enter themselves in CHECKS
from sdekit.verify.audit.subject import Audited
from sdekit.verify.claims import CHECKS, Check
from sdekit.verify.densities import Likelihood
from sdekit.verify.known import KNOWN
from sdekit.verify.report import Report, Result
from sdekit.verify.runner import EXAMPLES, Asked, run
from sdekit.verify.strangers import Method, Process

__all__ = [
    "Subject", "ask", "check", "check_likelihood", "check_objective", "check_sampler", "check_sde",
    "checks_for", "everything", "subject_of",
]  # fmt: skip

assert _checks


@dataclass(frozen=True)
class Subject:
    """An object as checks see it.

    Attributes:
        kind: of its checks.
        thing: the object, adapted where it is a stranger.
        label: how reports call it.
        spelled: whether the label is a spelling of the catalogue.
    """

    kind: str
    thing: Any
    label: str
    spelled: bool = False


def _function(thing: Any) -> bool:
    return callable(thing) and not inspect.isclass(thing)


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda thing: all(hasattr(thing, name) for name in names)


def _is(cls: type) -> Callable[[Any], bool]:
    return lambda thing: isinstance(thing, cls)


# kind, what belongs to it, how it is adapted: the first row that fits
_KINDS: tuple[tuple[str, Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    ("sde", _is(LinearSDE), lambda thing: thing),
    ("model", _is(Audited), lambda thing: thing),
    ("sampler", _is(Sampler), lambda thing: thing),
    ("parametrization", _is(Parametrization), lambda thing: thing),
    ("predictor", _has("target", "sde", "parametrization"), lambda thing: thing),
    ("target", _is(Target), lambda thing: thing),
    ("objective", _is(Objective), lambda thing: thing),
    ("weighting", _is(Weighting), lambda thing: thing),
    ("time", _is(TimeLaw), lambda thing: thing),
    ("grid", _is(Grid), lambda thing: thing),
    ("noise", _has("at", "seed", "first"), lambda thing: thing),
    ("average", lambda thing: inspect.isclass(thing) and issubclass(thing, Average), lambda t: t),
    ("sde", _has("drift", "diffusion"), Process),
    ("likelihood", _is(Likelihood), lambda thing: thing),
    ("sampler", _function, Method),
    ("likelihood", _function, Likelihood.of),
)


def subject_of(thing: Any, kind: str | None = None) -> Subject:
    """The object as checks see it.

    Raises:
        DtypeError: it is nothing that there are checks for, or not of this kind.
    """
    if isinstance(thing, Subject):
        return thing
    for of, belongs, adapt in _KINDS:
        if kind in (None, of) and inspect.isclass(thing) == (of == "average") and belongs(thing):
            name = getattr(thing, "catalogue_name", None)
            entry = catalogue(of).get(name) if isinstance(name, str) and of != "noise" else None
            spelled = entry is not None and entry.cls is type(thing) and "<" not in repr(thing)
            label = repr(thing) if spelled else _named(thing)
            try:
                return Subject(of, adapt(thing), label, spelled)
            except SdekitError:
                raise
            except Exception as error:
                raise DtypeError(
                    f"{label} cannot be asked as a {of}: it raised {type(error).__name__}: {error}"
                ) from error
    wanted = kind or ", ".join(dict.fromkeys(of for of, _, _ in _KINDS))
    hint = "; give an object, not its class" if inspect.isclass(thing) else ""
    raise DtypeError(f"no checks for {shown(thing)}: it is no {wanted}{hint}")


def _named(thing: Any) -> str:
    """A name for a report: the repr without addresses."""
    if hasattr(thing, "__name__"):
        return str(thing.__name__)
    text = repr(thing)
    return type(thing).__name__ if " at 0x" in text else " ".join(text.split())


def checks_for(thing: Any, *, only: str | Iterable[str] | None = None) -> Iterator[Check]:
    """The checks of an object, in order: the one list that everything else is made from.

    Args:
        thing: an object of any kind.
        only: names of checks; None: all of its kind.

    Raises:
        ConfigError: a name that no check has; the nearest is named.

    Example:
        >>> from sdekit import VPSDE
        >>> from sdekit.verify import checks_for
        >>> [check.name for check in checks_for(VPSDE())][:3]
        ['starts_at_the_data', 'mean_equation', 'variance_equation']
    """
    subject = subject_of(thing)
    names = None if only is None else {only} if isinstance(only, str) else set(only)
    for name in names or ():
        choice("only", name, CHECKS)
    mine = [one for one in CHECKS.values() if one.kind == subject.kind]
    if names is None:
        yield from (one for one in mine if one.concerns(subject.thing))
        return
    if not names & {one.name for one in mine}:
        raise ConfigError(
            f"only={shown(only)} names no check of {subject.kind} objects; "
            f"{nearest('', [one.name for one in mine])}"
        )
    yield from (one for one in mine if one.name in names)


def judged(result: Result, expected: Mapping[str, str]) -> Result:
    """The result where a failure is expected: with its reason, and red once it passes."""
    reason = expected.get(result.name)
    if reason is None or result.status not in ("passed", "failed"):
        return result
    status = "expected" if result.status == "failed" else "passed unexpectedly"
    return replace(result, status=status, reason=reason)


def ask(one: Check, subject: Subject, asked: Asked, expected: Mapping[str, str]) -> Result:
    """One check of one subject; failures that are meant are those of `KNOWN` and `expected`."""
    word = shlex.quote(subject.label)
    how = f"--only {one.name} --seed {asked.seed}"
    if asked.examples != EXAMPLES:
        how += f" --examples {asked.examples}"
    repeat = (
        f"sdekit verify {word} {how}"
        if subject.spelled
        else f"sdekit.verify.check(OBJECT, only={one.name!r}, max_examples={asked.examples}, "
        f"seed={asked.seed})"
    )
    meant = {**KNOWN.get(subject.label, {}), **expected}
    return judged(run(one, subject.thing, subject.label, asked, repeat), meant)


def check(
    thing: Any,
    *,
    expected_failures: Mapping[str, str] | None = None,
    max_examples: int = EXAMPLES,
    seed: int = 0,
    only: str | Iterable[str] | None = None,
    kind: str | None = None,
    callback: Callable[[Result], Any] | None = None,
) -> Report:
    """Ask every check of an object's kind; no failure stops the others.

    Args:
        thing: an SDE, sampler, parametrisation, exact predictor, target, objective, weighting,
            law of times, grid or noise source, of sdekit's classes or a stranger's
            (`sdekit.verify.strangers`).
        expected_failures: names of checks that are known to fail, and why: they turn red when
            they pass.
        max_examples: cases a check; costly checks take a share of them.
        seed: of the cases and of the draws.
        only: names of checks; None: all.
        kind: what the object is to be checked as; None: what it is.
        callback: called with every result as it comes.

    Returns:
        A `Report`.

    Raises:
        ConfigError: an unknown name of a check (the nearest is named), max_examples < 1.
        DtypeError: an object that there are no checks for.

    Example:
        >>> from sdekit import VPSDE
        >>> from sdekit.verify import check
        >>> check(VPSDE(), only="variance_preserved").ok
        True
    """
    expected = dict(expected_failures or {})
    for name in expected:
        if name not in CHECKS:
            raise ConfigError(f"expected_failures: no check {name!r}; {nearest(name, CHECKS)}")
    examples = integer("max_examples", max_examples, ge=1, error=ConfigError)
    asked = Asked(examples, integer("seed", seed, ge=0, error=ConfigError))
    subject = subject_of(thing, kind)
    results = []
    for one in checks_for(subject, only=only):
        results.append(ask(one, subject, asked, expected))
        if callback is not None:
            callback(results[-1])
    return Report(tuple(results))


def check_sde(
    sde: Any,
    *,
    expected_failures: Mapping[str, str] | None = None,
    max_examples: int = EXAMPLES,
    seed: int = 0,
    only: str | Iterable[str] | None = None,
) -> Report:
    """Check the mathematics of an SDE: coefficients, marginals, kernels, prior, reversal.

    Args:
        sde: a `LinearSDE`, or any object with `drift(x, t)` and `diffusion(t)`; what it has
            beside them is checked against them, and where it has no marginals they are integrated.
        expected_failures: as for `check`.
        max_examples: as for `check`.
        seed: as for `check`.
        only: as for `check`.

    Returns:
        A `Report`; it never stops early.

    Raises:
        DtypeError: an object without drift and diffusion.

    Example:
        >>> import torch
        >>> class Stranger:
        ...     def drift(self, x, t): return -x
        ...     def diffusion(self, t): return 2.0
        ...     def log_alpha(self, t): return -t
        ...     def var(self, t): return -torch.expm1(-2 * t)
        >>> print(check_sde(Stranger(), only="variance_equation").failures[0].says)
        g^2 is twice what the marginal variance implies, d var/dt - 2 f var: 4 against 2 at t = 1
    """
    return check(
        sde, expected_failures=expected_failures, max_examples=max_examples, seed=seed, only=only,
        kind="sde",
    )  # fmt: skip


def check_sampler(
    sampler: Any,
    *,
    expected_failures: Mapping[str, str] | None = None,
    max_examples: int = EXAMPLES,
    seed: int = 0,
    only: str | Iterable[str] | None = None,
) -> Report:
    """Check a sampler: its order and limit by exact laws, its noise, calls, seeds and state.

    Args:
        sampler: a `Sampler`, the spelling of one, or a function f(model, x, grid, noise) that
            returns samples; see `sdekit.verify.strangers`.
        expected_failures: as for `check`.
        max_examples: as for `check`.
        seed: as for `check`.
        only: as for `check`.

    Returns:
        A `Report`; it never stops early.

    Raises:
        DtypeError: an object that is no sampler.
    """
    return check(
        make("sampler", sampler), expected_failures=expected_failures, max_examples=max_examples,
        seed=seed, only=only, kind="sampler",
    )  # fmt: skip


def check_objective(
    objective: Any,
    *,
    expected_failures: Mapping[str, str] | None = None,
    max_examples: int = EXAMPLES,
    seed: int = 0,
    only: str | Iterable[str] | None = None,
) -> Report:
    """Check a training loss: its minimiser, weights, gradients, times and noise.

    Args:
        objective: an `Objective`, or the spelling of one.
        expected_failures: as for `check`.
        max_examples: as for `check`.
        seed: as for `check`.
        only: as for `check`.

    Returns:
        A `Report`; it never stops early.

    Raises:
        DtypeError: an object that is no objective.
    """
    return check(
        make("objective", objective), expected_failures=expected_failures,
        max_examples=max_examples, seed=seed, only=only, kind="objective",
    )  # fmt: skip


def check_likelihood(
    likelihood: Any = Likelihood(),  # noqa: B008  # it is frozen
    *,
    expected_failures: Mapping[str, str] | None = None,
    max_examples: int = EXAMPLES,
    seed: int = 0,
    only: str | Iterable[str] | None = None,
) -> Report:
    """Check a log-likelihood: closed forms, total mass, changes of variables, rank, batches.

    Args:
        likelihood: a function f(model, x) -> nats [(batch,)], or one that returns an object with
            them; by default `sdekit.log_prob`. See `sdekit.verify.densities`.
        expected_failures: as for `check`.
        max_examples: as for `check`.
        seed: as for `check`.
        only: as for `check`.

    Returns:
        A `Report`; it never stops early.

    Raises:
        DtypeError: an object that cannot be called.
    """
    return check(
        likelihood, expected_failures=expected_failures, max_examples=max_examples, seed=seed,
        only=only, kind="likelihood",
    )  # fmt: skip


def everything() -> list[Subject]:
    """Every example of the catalogue that has checks, and what the trainer averages by."""
    from sdekit.model import ExactScore
    from sdekit.sampling.noise import KeyedNoise
    from sdekit.sde import VPSDE
    from sdekit.targets import ExactTarget

    found = []
    for kind in (
        "sde", "target", "parametrization", "sampler", "grid", "objective", "weighting", "time",
    ):  # fmt: skip
        things = [thing for entry in catalogue(kind).values() for thing in entry.examples()]
        if kind == "target":
            things = [thing for thing in things if isinstance(thing, ExactTarget)]
        found += [subject_of(thing, kind) for thing in things]
    exact = [
        thing.thing for thing in found if thing.kind == "target" and len(thing.thing.shape) == 1
    ]
    found += [subject_of(ExactScore(target, VPSDE())) for target in exact]
    return [*found, subject_of(Likelihood()), subject_of(KeyedNoise(0)), subject_of(Average)]
