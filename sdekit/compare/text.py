"""The report as Markdown: findings, winners, orders, failures; every row is in `rows.csv`."""

from __future__ import annotations

from sdekit.compare.embedded import overheads
from sdekit.compare.escaping import code, markdown, visible
from sdekit.compare.findings import Findings
from sdekit.compare.naming import Shown
from sdekit.compare.tables import figures, order_table, to_markdown, winner_table

__all__ = ["VARIES", "text"]

VARIES = "Times and environment: the only part that differs between two runs"


def text(stored: Shown, found: Findings) -> str:
    """The whole file."""
    titles = {row["metric"]: row["title"] for row in stored.rows}
    winners, orders = winner_table(found.winners), order_table(found.fits, titles)
    toml = visible(stored.experiment.to_toml(), keep="\n").rstrip("\n")
    toml = toml.replace("<", "\\u003c")  # TOML's own spelling: no text here opens markup
    return "\n".join(
        [
            f"# {markdown(stored.experiment.name)}", "",
            to_markdown(found.summary), "",
            *(f"- {to_markdown(one)}" for one in found.wins + found.failures + found.absent), "",
            "## Winners within budgets of network calls", "",
            to_markdown(winners.caption), "", winners.markdown(), "",
            "## Orders of convergence", "",
            to_markdown(orders.caption), "", orders.markdown(), "",
            "Every row, with its values by seed, is in `rows.csv` and `rows.jsonl`; "
            "`sdekit compare --replay OUT --cell CELL` runs one cell again.", "",
            "## The experiment", "",
            *(f"    {line}" for line in toml.split("\n")), "",
            "<!-- varies -->", "",
            f"## {VARIES}", "",
            _times(stored), "",
            *(f"- {markdown(k)}: {code(v)}" for k, v in sorted(stored.environment.items())), "",
            "<!-- /varies -->", "",
        ]
    )  # fmt: skip


def _times(stored: Shown) -> str:
    """Milliseconds by call, as a table."""
    lines = [
        "| sampler | grid | SDE | data | steps | calls | runs | ms a call | outside the network |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in overheads(stored):
        names = " | ".join(code(one[key]) for key in ("sampler", "grid", "sde", "data"))
        numbers = " | ".join(
            figures(v)
            for v in (one["steps"], one["calls"], one["runs"], 1e3 * one["per_call"],
                      1e3 * one["overhead"])
        )  # fmt: skip
        lines.append(f"| {names} | {numbers} |")
    return "\n".join(lines)
