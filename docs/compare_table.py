"""Put measured comparisons into docs/compare.md.

    python docs/compare_table.py [--ranking FILE] [--grand FOLDER]

FILE is what `python benchmarks/ranking.py --json FILE` wrote, FOLDER what `sdekit compare
docs/compare.toml --out FOLDER` did. Without either, the regions stay as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tables import fill, table

from sdekit import make
from sdekit.compare import winners
from sdekit.compare.store import load

ROOT = Path(__file__).resolve().parent
PAGE, IMAGES = ROOT / "compare.md", ROOT / "images"
# Okabe and Ito's colours, told apart without colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SHOWN = ("exact_wasserstein()", "sliced_wasserstein(directions=128)")  # the first that has values


def short(text: str) -> str:
    """The name of a spelling."""
    return text.partition("(")[0]


# the ranking ------------------------------------------------------------------------------------


def ranking(found: dict[str, Any]) -> str:
    """One line a sampler, the exactly best one first."""
    sampled = np.array([row["sampled"] for row in found["rows"]])
    place = sampled.argsort(axis=0).argsort(axis=0) + 1
    lines = []
    for k, row in enumerate(found["rows"]):
        other = "-" if row["levels"] is None else f"{row['levels']:.4f}"
        mean, spread = sampled[k].mean(), sampled[k].std(ddof=1)
        lines.append([
            str(k + 1), f"`{row['method']}`", f"{row['exact']:.4f}", other,
            f"{mean:.3f} ± {spread:.3f}", f"{sampled[k].min():.3f} to {sampled[k].max():.3f}",
            f"{place[k].min()} to {place[k].max()}",
        ])  # fmt: skip
    heads = ["place", "sampler, grid", "exact W2", "by levels", "20,000 samples", "least to most",
             "its places"]  # fmt: skip
    wrong = np.mean([
        (sampled[i] > sampled[j]).mean()
        for i in range(len(sampled)) for j in range(i + 1, len(sampled))
    ])  # fmt: skip
    firsts = (sampled.argmin(axis=0) == 0).sum()
    return (
        table(heads, lines)
        + f"\n\nOf the pairs of samplers, {wrong:.0%} come out in the wrong order; the best one "
        f"comes out first under {firsts} of {found['seeds']} seeds."
    )


def ranking_picture(found: dict[str, Any], path: Path) -> None:
    """What 20,000 samples say under each seed, and the exact values."""
    import matplotlib.pyplot as plt

    rows = found["rows"]
    figure, ax = plt.subplots(figsize=(7.2, 0.36 * len(rows) + 1.1), layout="constrained")
    for k, row in enumerate(rows):
        at = np.full(len(row["sampled"]), k) + np.linspace(-0.22, 0.22, len(row["sampled"]))
        ax.plot(row["sampled"], at, "o", ms=3.5, mfc="none", mec=COLOURS[0], alpha=0.8,
                label="20,000 samples, a point a seed" if not k else None)  # fmt: skip
        ax.plot([row["exact"]], [k], "D", ms=7, color=COLOURS[1], label=None if k else "exact")
    ax.set_yticks(range(len(rows)), [row["method"] for row in rows])
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlabel("W2 to the data (units of the data)")
    ax.set_xticks(ticks := [0.02, 0.03, 0.05, 0.1, 0.2], [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    figure.legend(frameon=False, loc="outside upper center", ncols=2, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", which="both", color="#e4e6e9", lw=0.6)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# the grand comparison ---------------------------------------------------------------------------


def model_of(row: dict[str, Any]) -> str:
    """A few words for the data and the score."""
    return short(row["data"]) + (", network" if row["score"] == "network" else "")


def process(row: dict[str, Any]) -> str:
    """The name of the SDE."""
    return short(row["sde"])


def asked(rows: list[dict[str, Any]]) -> dict[str, str]:
    """By model: the first metric of `SHOWN` that has values."""
    found: dict[str, str] = {}
    for metric in SHOWN:
        for row in rows:
            if row["metric"] == metric and row["value"] is not None:
                found.setdefault(model_of(row), metric)
    return found


def grand(rows: list[dict[str, Any]]) -> str:
    """The winners: a line a model and SDE, a column a budget."""
    metrics = asked(rows)
    chosen = [r for r in rows if r["metric"] == metrics[model_of(r)]]
    budgets = [6, 12, 24, 48, 96, 192]
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for one in winners(chosen, budgets):
        row = one.row
        tied = 0 if row["exact"] else len(one.equals)
        mark = f" (+{tied})" if tied else ""
        cells.setdefault((model_of(row), process(row)), {})[one.budget] = (
            f"`{short(row['sampler'])}` {row['value']:.3g}{mark}"
        )
    lines = [
        [model, sde, chosen_title(rows, metrics[model]), *(line.get(b, "-") for b in budgets)]
        for (model, sde), line in cells.items()
    ]
    return table(["data", "SDE", "by", *(f"{b} calls" for b in budgets)], lines)


def chosen_title(rows: list[dict[str, Any]], metric: str) -> str:
    """The title of a metric."""
    return next(r["title"] for r in rows if r["metric"] == metric)


def fronts(rows: list[dict[str, Any]], path: Path) -> None:
    """Error against calls: a row of panels a model, a column an SDE, a line a sampler."""
    import matplotlib.pyplot as plt

    metrics = asked(rows)
    models, sdes = list(metrics), list(dict.fromkeys(process(r) for r in rows))
    samplers = list(dict.fromkeys(r["sampler"] for r in rows))
    figure, axes = plt.subplots(
        len(models), len(sdes), figsize=(10.5, 2.7 * len(models) + 1.0), sharex=True,
        sharey="row", layout="constrained", squeeze=False,
    )  # fmt: skip
    for i, model in enumerate(models):
        for j, sde in enumerate(sdes):
            ax = axes[i][j]
            here = [r for r in rows if (model_of(r), process(r), r["metric"])
                    == (model, sde, metrics[model]) and r["value"] is not None]  # fmt: skip
            for k, name in enumerate(samplers):
                line = sorted((r for r in here if r["sampler"] == name), key=lambda r: r["calls"])
                if not line:
                    continue
                x = [r["calls"] for r in line]
                y = np.array([r["value"] for r in line])
                low, high = (np.array([r[end] for r in line]) for end in ("low", "high"))
                noisy = "noise" in make("sampler", name).needs
                ax.errorbar(
                    x, y, yerr=np.maximum(np.stack([y - low, high - y]), 0), lw=1.1, ms=3.6,
                    elinewidth=0.6, color=COLOURS[k % 7], marker="osD^vPX<>*hp"[k % 12],
                    ls="--" if noisy else "-", label=short(name), alpha=0.9,
                )  # fmt: skip
            floors = [r["floor"] for r in here if r["floor"]]
            if floors:
                floor = float(np.mean(floors))
                ax.axhline(floor, color="#5f6368", lw=1.0, ls=":")
                ax.text(0.99, 0.93 * floor, "two true sets", fontsize=7.5, va="top", ha="right",
                        color="#5f6368", transform=ax.get_yaxis_transform())  # fmt: skip
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.set_title(f"{model}, {sde}", fontsize=9.5)
            ax.grid(which="major", color="#e4e6e9", lw=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            if j == 0:
                ax.set_ylabel(chosen_title(rows, metrics[model]), fontsize=9)
            if i == len(models) - 1:
                ax.set_xlabel("network calls", fontsize=9)
                ax.set_xticks([6, 12, 24, 48, 96, 192], ["6", "12", "24", "48", "96", "192"])
                ax.minorticks_off()
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes.flat),
                          key=lambda found: len(found[1]))  # fmt: skip
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> int:
    """Fill what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranking", type=Path)
    parser.add_argument("--grand", type=Path)
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    if options.ranking:
        found = json.loads(options.ranking.read_text(encoding="utf-8"))
        text = fill(text, "ranking", ranking(found))
        ranking_picture(found, IMAGES / "ranking.png")
    if options.grand:
        rows = load(options.grand).rows
        text = fill(text, "grand", grand(rows))
        fronts(rows, IMAGES / "compare.png")
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
