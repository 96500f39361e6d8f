"""Checks as tests of pytest: one test for every check of every object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sdekit._check import integer
from sdekit.errors import ConfigError
from sdekit.verify.front import ask, checks_for, subject_of
from sdekit.verify.runner import EXAMPLES, Asked

__all__ = ["parametrize_with_checks"]


def parametrize_with_checks(
    objects: Iterable[Any] | Mapping[str, Any],
    *,
    expected_failures: Mapping[str, str] | Callable[[Any], Mapping[str, str]] | None = None,
    max_examples: int = EXAMPLES,
    seed: int = 0,
    marks: Callable[[Any, Any], Any] | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that calls a test with `check` once for every check of every object.

    `check()` raises an AssertionError with the report of a failure, skips where the object cannot
    be asked, and fails where an expected failure passes. An object's checks carry its name, so
    that `pytest -k` selects them.

    Args:
        objects: what to check; a mapping names them.
        expected_failures: names of checks that are known to fail, and why; or a function that
            gives them for an object.
        max_examples: cases a check.
        seed: of the cases and draws.
        marks: a function of an object and a check that gives the test's pytest marks, () for none.

    Raises:
        ConfigError: an expected failure that is no check of any of the objects.
        ModuleNotFoundError: pytest is not installed: pip install pytest.

    Example:
        >>> from sdekit import VPSDE
        >>> @parametrize_with_checks([VPSDE()])
        ... def test_the_mathematics(check):
        ...     check()
    """
    import pytest

    integer("max_examples", max_examples, ge=1, error=ConfigError)
    named = objects.items() if isinstance(objects, Mapping) else ((None, o) for o in objects)
    asked = Asked(max_examples, seed)
    cases, seen, wanted = [], set(), set()
    for name, thing in named:
        subject = subject_of(thing)
        given = expected_failures(thing) if callable(expected_failures) else expected_failures
        expected = dict(given or {})
        wanted |= set(expected)
        for one in checks_for(subject):
            seen.add(one.name)

            def call(one: Any = one, subject: Any = subject, expected: Any = expected) -> None:
                result = ask(one, subject, asked, expected)
                if result.status == "skipped":
                    pytest.skip(result.reason)
                if result.status == "expected":
                    pytest.xfail(result.reason)
                if not result.ok:
                    raise AssertionError(str(result))

            given_marks = marks(subject.thing, one) if marks else ()
            case = pytest.param(call, id=f"{name or subject.label}-{one.name}", marks=given_marks)
            cases.append(case)
    if wanted - seen:
        raise ConfigError(
            f"expected_failures: no check of these objects is {sorted(wanted - seen)}"
        )
    return pytest.mark.parametrize("check", cases)
