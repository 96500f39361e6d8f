"""The first paragraph of the report: who wins at which budget on what, how sure, what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdekit.compare.analysis import Fit, Front, Question, Winner, front, slopes, winners
from sdekit.compare.naming import Shown
from sdekit.compare.tables import Name, Sentence, Words, figures, plain_pieces, sure, valued, who

__all__ = ["Findings", "find"]

_MOST = 8  # sentences about winners
_FAILURES = 12


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the rows say, computed once for all files of the report."""

    winners: list[Winner]
    fronts: list[Front]
    fits: list[Fit]
    summary: Sentence
    wins: list[Sentence]
    failures: list[Sentence]
    absent: list[Sentence]


def find(stored: Shown) -> Findings:
    """Analyse the rows and put the answer into words."""
    won = winners(stored.rows)
    return Findings(
        winners=won, fronts=front(stored.rows), fits=slopes(stored.rows),
        summary=_summary(stored), wins=_wins(stored, won), failures=_failures(stored),
        absent=_absent(stored),
    )  # fmt: skip


def count(number: int, one: str, many: str = "") -> str:
    """The number and its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def _summary(stored: Shown) -> Sentence:
    """What was compared, with how many samples and seeds."""
    specs = [cell["spec"] for cell in stored.cells]
    if not specs:
        return [f"Nothing has run yet: {count(stored.missing, 'cell')} to come."]
    distinct = {key: len({s[key] for s in specs}) for key in ("sampler", "grid", "sde")}
    done = sum(cell["status"] == "ok" for cell in stored.cells)
    seeds = len(stored.experiment.seeds)
    missing = f"; {count(stored.missing, 'cell')} not run yet" if stored.missing else ""
    models = plain_pieces(dict.fromkeys(s["model"] for s in specs))
    return [
        f"{count(distinct['sampler'], 'sampler')} on {count(distinct['grid'], 'grid')} and "
        f"{count(distinct['sde'], 'SDE')}, model: ", *models, ". "
        f"{done} of {count(len(stored.cells), 'cell')} ran to the end{missing}. Sampled metrics: "
        f"n = {stored.experiment.n} samples under each of {count(seeds, 'seed')}, the same noise "
        "for every sampler; brackets are 95 % intervals.",
    ]  # fmt: skip


def _wins(stored: Shown, won: Sequence[Winner]) -> list[Sentence]:
    """For data and SDEs in turn: the winners by the first metric at three budgets."""
    if not won:
        return [["No cell has a value and a count of calls: nothing can be ranked."]]
    first: dict[tuple[str, str], str] = {}
    for row in stored.rows:
        first.setdefault((row["data"], row["model"]), row["metric"])
    groups: dict[Question, list[Winner]] = {}
    for one in won:
        question = one.question
        if question.metric == first[question.data, question.model]:
            groups.setdefault(question, []).append(one)
    datas = len({data for data, _ in first})
    several = (datas > 1, len(first) > datas)
    grid = len({row["grid"] for row in stored.rows}) > 1
    found = [_win(group, several, grid) for group in groups.values()]
    rest = len(found) - _MOST
    more: list[Sentence] = [[f"{count(rest, 'more question')} in the table of winners."]]
    return found[:_MOST] + (more if rest > 0 else [])


def _win(group: Sequence[Winner], several: tuple[bool, bool], grid: bool) -> Sentence:
    """The winners of one question: within the smallest, a middle and the largest budget."""
    question, row = group[0].question, group[0].row
    chosen = dict.fromkeys((0, (len(group) - 1) // 2, len(group) - 1))
    found: list[str | Name] = [Name(question.sde), ", "]
    for name, told in zip((question.data, question.model), several, strict=True):
        found += [Name(name), ", "] if told else []
    found += [Words(row["title"]), ": "]
    for k, index in enumerate(chosen):
        one = group[index]
        found += ["; "] if k else []
        found += [f"up to {count(one.budget, 'call')} ", *who(one.row, grid=grid)]
        found += [f" {valued(one.row)}, ", *sure(one, grid=grid, most=2)]
    return [*found, "."]


def _failures(stored: Shown) -> list[Sentence]:
    """Cells that failed, with their reasons."""
    found: list[Sentence] = []
    failed: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in stored.cells:
        if cell["status"] == "FAILED":
            key = cell["spec"]["sampler"], cell["reason"] or "no reason given"
            failed.setdefault(key, []).append(cell["spec"])
    for (sampler, reason), specs in list(failed.items())[:_FAILURES]:
        steps = ", ".join(dict.fromkeys(figures(s["steps"]) for s in specs))
        found.append([
            f"FAILED in {count(len(specs), 'cell')}: ", Name(sampler), f" ({steps} steps; ",
            *plain_pieces(dict.fromkeys(s["sde"] for s in specs)), "): ", Words(reason), ".",
        ])  # fmt: skip
    if len(failed) > _FAILURES:
        found.append([f"FAILED: {len(failed) - _FAILURES} more, in the table of rows."])
    return found


def _absent(stored: Shown) -> list[Sentence]:
    """Metrics that do not apply, with their reasons."""
    found: list[Sentence] = []
    absent: dict[str, dict[str, set[str]]] = {}  # reason -> title -> cells
    for row in stored.rows:
        if row["status"] == "n/a":
            titles = absent.setdefault(row["reason"] or "no reason given", {})
            titles.setdefault(row["title"], set()).add(row["cell"])
    for reason, titles in list(absent.items())[:_FAILURES]:
        cells = count(len(set().union(*titles.values())), "cell")
        found.append(["n/a: ", Words(", ".join(titles)), f" in {cells}: ", Words(reason), "."])
    return found
