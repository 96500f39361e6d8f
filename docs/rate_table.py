"""Put measured rates into docs/rate.md and docs/images/rate.png: python docs/rate_table.py [FILE].

FILE is what `python benchmarks/rate.py --json FILE` wrote; by default docs/rate.json, the run that
the page shows.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tables import fill, table

ROOT = Path(__file__).resolve().parent
PAGE, DATA, PICTURE = ROOT / "rate.md", ROOT / "rate.json", ROOT / "images" / "rate.png"
if str(ROOT.parent / "benchmarks") not in sys.path:
    sys.path.append(str(ROOT.parent / "benchmarks"))

from _rate import Slope, slope, t_half  # noqa: E402  # a script beside the benchmarks

# Okabe and Ito's colours, told apart without colour vision; a marker each
LOOKS = {
    "arcsine": ("#D55E00", "o"), "uniform": ("#0072B2", "s"), "semicircle": ("#009E73", "^"),
    "parabola": ("#CC79A7", "D"), "biweight": ("#56B4E9", "v"), "mixture": ("#000000", "P"),
}  # fmt: skip
TITLES = {"exact": "exact score of the sample", "network": "trained network"}
Found = Mapping[str, Any]


def series(found: Found, score: str, target: str) -> tuple[list[int], np.ndarray, list[dict]]:
    """The numbers of samples, TV [(sets, len(n))], and the rows."""
    rows = [r for r in found["rows"] if (r["score"], r["target"]) == (score, target)]
    return [r["n"] for r in rows], np.array([r["tv"] for r in rows]).T, rows


def targets(found: Found, score: str) -> dict[str, float]:
    """The names of the targets and their smoothness."""
    rows = [r for r in found["rows"] if r["score"] == score]
    return {r["target"]: math.inf if r["s"] is None else r["s"] for r in rows}


def theory(s: float) -> float:
    """-s / (2 s + 1)."""
    return -0.5 if math.isinf(s) else -s / (2 * s + 1)


def upper(n: list[int], tv: np.ndarray) -> Slope:
    """The slope over the larger half of the numbers of samples, the middle one included."""
    first = len(n) // 2
    return slope(n[first:], tv[:, first:])


def slopes_table(found: Found, score: str) -> str:
    """One line a target."""
    header = ["target", "s", "-s/(2s+1)", "kernel of order 2", "slope, all n", "larger half",
              "data sets a n", "TV, least n", "TV, most n"]  # fmt: skip
    lines = []
    for name, s in targets(found, score).items():
        n, tv, _ = series(found, score, name)
        mean = np.exp(np.log(tv).mean(0))
        whole, late, kernel = slope(n, tv), upper(n, tv), theory(min(s, 2.0))
        mark = "" if abs(whole.value - kernel) <= whole.half else " *"
        lines.append([
            name, "inf" if math.isinf(s) else f"{s:g}", f"{theory(s):.3f}", f"{kernel:.3f}",
            f"{whole}{mark}", str(late), str(len(tv)), f"{mean[0]:.4f}", f"{mean[-1]:.4f}",
        ])  # fmt: skip
    return table(header, lines)


def parts_table(found: Found) -> str:
    """The bias of smoothing, and the slopes of the two parts of the error of the exact score."""
    header = ["target", "sigma(t_0), least n", "most n", "bias / TV, least n", "most n",
              "slope of the bias, all n", "larger half", "predicted, larger half"]  # fmt: skip
    lines = []
    for name, s in targets(found, "exact").items():
        n, tv, rows = series(found, "exact", name)
        bias = np.array([r["smoothing"] for r in rows])
        share = bias / np.exp(np.log(tv).mean(0))
        first = len(n) // 2
        lines.append([
            name, f"{rows[0]['sigma']:.3f}", f"{rows[-1]['sigma']:.4f}", f"{share[0]:.2f}",
            f"{share[-1]:.2f}", f"{line(n, bias):.3f}", f"{line(n[first:], bias[first:]):.3f}",
            f"{theory(min(s, 2.0)):.3f}",
        ])  # fmt: skip
    return table(header, lines)


def line(n: list[int], values: np.ndarray) -> float:
    """The slope of one line, by least squares."""
    return float(np.polyfit(np.log(n), np.log(values), 1)[0])


def beside_table(found: Found) -> str:
    """The network's TV over that of the exact score of the same data, means of logs with 95 %."""
    numbers = found["settings"]["trained_n"]
    lines = []
    for name in targets(found, "network"):
        n, tv, _ = series(found, "network", name)
        n_exact, tv_exact, _ = series(found, "exact", name)
        cells = []
        for k, count in enumerate(n):
            # the first data sets of the exact score are those of the networks: pairs
            ratio = np.log(tv[:, k] / tv_exact[: len(tv), n_exact.index(count)])
            mean, half = float(ratio.mean()), float(t_half(ratio))
            low, high = math.exp(mean - half), math.exp(mean + half)
            cells.append(f"{math.exp(mean):.2f} ({low:.2f} to {high:.2f})")
        lines.append([name, *cells])
    return table(["target", *(f"n = {n}" for n in numbers)], lines)


def checks_table(found: Found) -> str:
    """What the distances are worth."""
    steps, most = found["settings"]["solver_steps"], max(found["settings"]["trained_n"])
    what = {
        "heun": f"TV of the law of {steps} steps of Heun from N(0, 1) to the smoothed sample",
        "heun x 4": f"the same of {4 * steps} steps",
        "cells": "share of TV that twice as many cells change, smoothed sample",
        "solver": f"what {4 * steps} steps change in a network's TV, n = {most}",
        "starts": "share of TV that half as many starts of the flow change, network",
    }
    lines = [[text, f"{found['checks'][name]:.1e}"] for name, text in what.items()]
    for name, value in found["checks"].items():
        if name.startswith("longer "):
            text = f"TV after three times the training as a share, {name[7:]}, n = {most}"
            lines.append([text, f"{value:.2f}"])
    return table(["what, the larger of the roughest and the smoothest target", "value"], lines)


def setting(found: Found) -> str:
    """How the networks are trained, and how long all took."""
    of = found["settings"]
    return (
        f"A network is an `MLP` of {of['depth']} layers of {of['width']} units that predicts v, "
        f"is told the log-SNR and is trained by `dsm` for {of['steps']} steps of "
        f"{of['batch_size']} "
        f"draws (with replacement) from the n samples, learning rate {of['lr']:g} falling along a "
        f"cosine, moving average {of['ema']:g}; the weights of x in its first layer are "
        f"{of['gain']:g} times the usual ones at the start, so that it can bend on the scale of "
        f"sigma(t_0). Nothing depends on n but the data and t_0. The run took "
        f"{found['seconds'] / 60:.1f} minutes of one core's time."
    )


def regions(found: Found) -> dict[str, str]:
    """What fills the page."""
    return {
        "exact": slopes_table(found, "exact"),
        "network": slopes_table(found, "network"),
        "parts": parts_table(found),
        "beside": beside_table(found),
        "checks": checks_table(found),
        "setting": setting(found),
    }


def draw(found: Found, path: Path) -> None:
    """TV against n on both logarithmic axes, one panel a score."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, score in zip(axes, TITLES, strict=True):
        for name, s in targets(found, score).items():
            colour, marker = LOOKS[name]
            n, tv, _ = series(found, score, name)
            logs = np.log(tv)
            mean, half = np.exp(logs.mean(0)), t_half(logs)
            bars = np.stack([mean - mean * np.exp(-half), mean * np.exp(half) - mean])
            axis.errorbar(n, mean, bars, color=colour, marker=marker, markersize=5, linewidth=0,
                          elinewidth=1, capsize=2)  # fmt: skip
            x = np.array([n[0], n[-1]], dtype=float)
            centre = math.exp(np.log(n).mean())
            guide = math.exp(logs.mean()) * (x / centre) ** theory(min(s, 2.0))
            axis.plot(x, guide, color=colour, linewidth=1, linestyle="--")
        sets = len(found["rows"][0]["tv"]) if score == "exact" else len(found["rows"][-1]["tv"])
        axis.set(xscale="log", yscale="log", title=f"{TITLES[score]} ({sets} data sets a point)",
                 xlabel="number n of training samples")  # fmt: skip
        axis.xaxis.set_major_locator(FixedLocator([2**k for k in range(6, 17, 2)]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:.0f}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_locator(FixedLocator([0.005, 0.01, 0.02, 0.05, 0.1, 0.2]))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda tv, _: f"{tv:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.minorticks_off()
    axes[0].set_ylabel("total variation to the target")
    names = targets(found, "exact")
    handles = [
        Line2D([], [], color=LOOKS[name][0], marker=LOOKS[name][1], linewidth=1, linestyle="--",
               label=f"{name}, s = {'inf' if math.isinf(s) else f'{s:g}'}: "
               f"{theory(min(s, 2.0)):.3f}")
        for name, s in names.items()
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False,
                  title="dashed: slope -m/(2m+1), m = min(s, 2)")  # fmt: skip
    figure.savefig(path, dpi=160, metadata={"Software": None})


def main() -> int:
    """Fill the regions of the page and draw its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=DATA)
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    args = parser.parse_args()
    found = json.loads(args.file.read_text(encoding="utf-8"))
    text = args.page.read_text(encoding="utf-8")
    for name, body in regions(found).items():
        text = fill(text, name, body)
    args.page.write_text(text, encoding="utf-8")
    draw(found, args.page.parent / "images" / PICTURE.name)
    print(f"{args.page}: {len(found['rows'])} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
