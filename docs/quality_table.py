"""Put measured quality into docs/quality.md: python docs/quality_table.py FILE [PAGE].

FILE is what `python benchmarks/sampler_quality.py --json FILE` wrote.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tables import fill, table

PAGE = Path(__file__).resolve().parent / "quality.md"
TOP = 12  # methods of each side in the table of all laws
NEAR = 0.01  # relative: two methods that differ by less are the same one

# a method of theirs, with its place -> the one of ours that shares its name, with its place
SAME = {
    ("ddim", "trailing"): ("ddim(", "trailing"),
    ("ddpm-small", "trailing"): ("ancestral(", "trailing"),
    ("ddpm-large", "trailing"): ("ancestral(variance='beta'", "trailing"),
    ("heun", "trailing"): ("heun(", "trailing"),
    ("dpmpp-2m", "trailing"): ("dpmpp_2m(", "trailing"),
    ("dpmpp-3m", "trailing"): ("dpmpp_3m(", "trailing"),
    ("sde-dpmpp-2m", "trailing"): ("sde_dpmpp_2m(", "trailing"),
    ("unipc", "trailing"): ("unipc(", "trailing"),
    ("deis", "trailing"): ("deis(", "trailing"),
    ("sa-solver", "trailing"): ("sa_solver(", "trailing"),
    ("azula-ddim", "linspace to 1e-3"): ("ddim(", "vp uniform"),
    ("azula-heun", "linspace to 1e-3"): ("heun(", "vp uniform"),
    ("azula-ddpm", "linspace to 1e-3"): ("ancestral(", "vp uniform"),
}

_DENOISED = "ours keeps one call of the budget for the noiseless step to x_0, theirs ends at 1e-3"
# why the two differ, by the name of theirs
_FIRST_LEVEL = "its last step ends at the chain's first noise level, 0.01, and not at the data"
REASONS = {
    "ddim": "where 1000 is no multiple of the steps, its steps end at t - 1000 // n and not at "
    "the next of its own times",
    "ddpm-large": "it adds the noise of its last step, which lands on the data; ours adds none "
    "where the variance is 0",
    "deis": _FIRST_LEVEL,
    "sa-solver": _FIRST_LEVEL,
    "azula-ddim": _DENOISED,
    "azula-heun": _DENOISED,
    "azula-ddpm": _DENOISED,
}

Rows = Sequence[dict[str, Any]]


def number(row: dict[str, Any] | None) -> float | None:
    """The W2 of a row, where it has a finite one."""
    value = None if row is None else row["w2"]
    return value if value is not None and math.isfinite(value) else None


def best(rows: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the smallest error."""
    fit = [row for row in rows if number(row) is not None]
    return min(fit, key=lambda row: row["w2"], default=None)


def named(row: dict[str, Any]) -> str:
    """The method and its place."""
    return f"`{row['method']}`, {row['place']}"


def off(row: dict[str, Any]) -> str:
    """The error of the modes' weights, in per cent."""
    return "" if row["modes"] is None else f"{100 * row['modes']:.2f} %"


def best_table(rows: Rows, laws: Sequence[str], budgets: Sequence[int]) -> str:
    """The best of ours and of theirs, a line a law and budget."""
    cells: dict[tuple[str, int, bool], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[row["law"], row["budget"], row["side"] == "sdekit"].append(row)
    lines, won, asked = [], 0, 0
    for law in laws:
        for budget in budgets:
            ours, theirs = (best(cells[law, budget, side]) for side in (True, False))
            if ours is None or theirs is None:
                continue
            asked += 1
            won += ours["w2"] <= theirs["w2"]
            lines.append(
                [law, str(budget), named(ours), f"{ours['w2']:.3g}", off(ours),
                 f"{theirs['side']} {named(theirs)}", f"{theirs['w2']:.3g}", off(theirs),
                 f"{theirs['w2'] / ours['w2']:.2f}"]
            )  # fmt: skip
    header = ["law", "calls", "best of sdekit", "W2", "modes off by", "best of theirs", "W2",
              "modes off by", "theirs / sdekit"]  # fmt: skip
    verdict = f"In {won} of {asked} lines the best of sdekit is at least as good."
    return f"{table(header, lines)}\n\n{verdict} {_by_modes(cells)}"


def _by_modes(cells: Mapping[tuple[str, int, bool], list[dict[str, Any]]]) -> str:
    """The same count where each side is at its best by the weights of modes, not by W2."""
    pairs = []
    for law, budget in dict.fromkeys(key[:2] for key in list(cells)):
        ours, theirs = (
            [row["modes"] for row in cells[law, budget, side] if row["modes"] is not None]
            for side in (True, False)
        )
        if ours and theirs:
            pairs.append((min(ours), min(theirs), f"{law} at {budget} calls"))
    if not pairs:
        return "No law has modes."
    lost = [
        f"{name} ({100 * ours:.2f} against {100 * theirs:.2f} %)"
        for ours, theirs, name in pairs
        if ours > theirs
    ]
    but = f", but for {', '.join(lost)}" if lost else ""
    return (
        "With each side at its own best by the weights of modes, sdekit is at least as good in "
        f"{len(pairs) - len(lost)} of {len(pairs)} lines{but}."
    )


def score_table(rows: Rows, laws: Sequence[str], budgets: Sequence[int]) -> str:
    """Each method at its best place: how far from the best of all, in the mean over the laws."""
    least: dict[tuple[str, int], float] = {}
    found: dict[tuple[str, str], dict[tuple[str, str, int], float]] = defaultdict(dict)
    for row in rows:
        value = number(row)
        if value is None:
            continue
        key = (row["law"], row["budget"])
        least[key] = min(value, least.get(key, math.inf))
        found[row["side"], row["method"]][row["place"], *key] = value
    scores = {}
    for method, values in found.items():
        line = []
        for budget in budgets:
            means = []
            for place in {place for place, _, _ in values}:
                there = [values.get((place, law, budget)) for law in laws]
                logs = [
                    math.log(value / least[law, budget])
                    for law, value in zip(laws, there, strict=True)
                    if value and least.get((law, budget))
                ]
                # on the Gaussians alone where mixtures have no law: that is said by a star
                if logs:
                    means.append((len(logs) < len(laws), sum(logs) / len(logs), place))
            line.append(min(means, default=None))
        scores[method] = line
    lines = []
    for side in ("sdekit", "diffusers", "azula"):
        own = [(m, line) for m, line in scores.items() if m[0] == side]
        own.sort(key=lambda item: sum(cell[1] if cell else 9.0 for cell in item[1]))
        for (_, name), line in own[:TOP]:
            cells = [
                ""
                if cell is None
                else f"{math.exp(cell[1]):.2f}{'*' if cell[0] else ''} ({cell[2]})"
                for cell in line
            ]
            lines.append([side, f"`{name}`", *cells])
    return table(["library", "method", *(f"{b} calls" for b in budgets)], lines)


def same_table(rows: Rows, budgets: Sequence[int], law: str = "wide") -> str:
    """Methods that share a name: both errors, and why they differ."""
    lines = []
    for (theirs, spacing), (ours, place) in SAME.items():
        left = {
            r["budget"]: r for r in rows
            if r["side"] != "sdekit" and (r["method"], r["place"], r["law"])
            == (theirs, spacing, law)
        }  # fmt: skip
        spelled = next((r["method"] for r in rows if r["method"].startswith(ours)), None)
        right = {
            r["budget"]: r for r in rows
            if (r["method"], r["place"], r["law"]) == (spelled, place, law)
        }  # fmt: skip
        if not left or not right:
            continue
        cells, apart = [], False
        for budget in budgets:
            a, b = number(right.get(budget)), number(left.get(budget))
            cells.append("" if a is None or b is None else f"{a:.3g} / {b:.3g}")
            apart |= a is not None and b is not None and abs(a - b) > NEAR * b
        why = REASONS.get(theirs, "to be stated") if apart else "the same"
        lines.append([f"`{spelled}`, {place}", f"`{theirs}`, {spacing}", *cells, why])
    header = ["sdekit", "theirs", *(f"{b} calls" for b in budgets), "why"]
    return table(header, lines)


def notes(rows: Rows) -> str:
    """Why cells are empty, once for each reason."""
    why: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row["note"]:
            why[row["side"], row["note"].partition(": superposition")[0]].add(row["method"])
    lines = []
    for (side, note), names in why.items():
        some = ", ".join(f"`{name}`" for name in sorted(names)[:6])
        lines.append([side, note, some + (f" and {len(names) - 6} more" * (len(names) > 6))])
    return table(["library", "why there is no number", "methods"], lines)


def main() -> int:
    """Fill the regions of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the benchmark's --json file")
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    args = parser.parse_args()
    found = json.loads(args.file.read_text(encoding="utf-8"))
    rows, laws, budgets = found["rows"], found["laws"], found["budgets"]
    regions = {
        "best": best_table(rows, laws, budgets),
        "scores": score_table(rows, laws, budgets),
        "same": same_table(rows, budgets),
        "notes": notes(rows),
        "versions": ", ".join(f"{name} {text}" for name, text in found["versions"].items()) + ".",
    }
    text = args.page.read_text(encoding="utf-8")
    for name, body in regions.items():
        text = fill(text, name, body)
    args.page.write_text(text, encoding="utf-8")
    print(f"{args.page}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
