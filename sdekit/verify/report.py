"""What checks found: one `Result` a check, and the `Report` of them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["RED", "Report", "Result"]

# the states of a result; red ones make a report fail
RED = ("failed", "passed unexpectedly")
_MARKS = {
    "passed": "ok", "failed": "FAILED", "skipped": "skip", "expected": "expected failure",
    "passed unexpectedly": "PASSED, though a failure was expected",
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """The outcome of one check on one subject.

    Attributes:
        name: of the check.
        status: passed, failed, skipped, expected (a failure with a reason) or passed
            unexpectedly.
        subject: what was checked.
        claim: the check's sentence.
        source: the claim's.
        measured: the worst defect seen, or the p-value; NaN where nothing was measured.
        threshold: what is allowed.
        says: what was seen in the worst case.
        example: the smallest counterexample, or "".
        seed: of the cases and draws.
        reproduce: one line that repeats a failure, or "".
        reason: why it was skipped, or expected to fail.
        examples: how many cases were asked.
        seconds: how long it took.
    """

    name: str
    status: str
    subject: str
    claim: str
    source: str
    measured: float = math.nan
    threshold: float = math.nan
    says: str = ""
    example: str = ""
    seed: int = 0
    reproduce: str = ""
    reason: str = ""
    examples: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it is not red."""
        return self.status not in RED

    def __str__(self) -> str:
        """A line, or a paragraph for a failure."""
        head = f"{_MARKS[self.status]:6} {self.name}"
        if self.status == "passed":
            return f"{head}: {self.claim}"
        if self.status != "failed":
            return f"{head}: {self.reason}"
        lines = [
            f"{head} of {self.subject}",
            f"  claim      {self.claim}  [{self.source}]",
            f"  seen       {self.says}",
            f"  measured   {self.measured:.3g}, allowed {self.threshold:.3g}",
            f"  example    {self.example}" if self.example else "",
            f"  repeat     {self.reproduce}",
        ]
        return "\n".join(line for line in lines if line)


@dataclass(frozen=True)
class Report:
    """The results of checks, in the order in which they were asked.

    Attributes:
        results: one `Result` a check and subject.
    """

    results: tuple[Result, ...] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether something was asked, and nothing is red: no failure, none that was expected."""
        asked = any(result.status != "skipped" for result in self.results)
        return asked and all(result.ok for result in self.results)

    @property
    def failures(self) -> tuple[Result, ...]:
        """The red results."""
        return tuple(result for result in self.results if not result.ok)

    def __iter__(self) -> Iterator[Result]:
        """The results."""
        return iter(self.results)

    def __add__(self, other: Report) -> Report:
        """Both, one after the other."""
        return Report(self.results + other.results)

    @property
    def summary(self) -> str:
        """The counts, in one line."""
        states = Counter(result.status for result in self.results)
        counted = [f"{states[s]} {s}" for s in _MARKS if states[s]]
        subjects = len({result.subject for result in self.results})
        examples = sum(result.examples for result in self.results)
        seconds = sum(result.seconds for result in self.results)
        return (
            f"{len(self.results)} checks of {subjects} {'object' if subjects == 1 else 'objects'}:"
            f" {', '.join(counted) or 'none'}; {examples} examples, {seconds:.1f} s"
        )

    def __str__(self) -> str:
        """A table: a line a check, a paragraph a failure, the counts."""
        lines: list[str] = []
        for subject in dict.fromkeys(result.subject for result in self.results):
            lines.append(subject)
            lines += [
                "  " + line
                for result in self.results
                if result.subject == subject
                for line in str(result).splitlines()
            ]
        return "\n".join([*lines, self.summary])

    def to_json(self) -> str:
        """Every result as JSON; numbers that are not finite become null."""

        def plain(value: Any) -> Any:
            return None if isinstance(value, float) and not math.isfinite(value) else value

        rows = [{k: plain(v) for k, v in asdict(result).items()} for result in self.results]
        return json.dumps({"ok": self.ok, "summary": self.summary, "results": rows}, indent=1)
