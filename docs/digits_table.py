"""Put measured bits into docs/digits.md and docs/images/digits.png: docs/digits_table.py [FILE].

FILE is what `python benchmarks/digits.py --json FILE` wrote; by default docs/digits.json, the run
that the page shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tables import fill, table

ROOT = Path(__file__).resolve().parent
PAGE, DATA, PICTURE = ROOT / "digits.md", ROOT / "digits.json", ROOT / "images" / "digits.png"
TITLES = {
    "data": "test images", "Gaussian": "Gaussian", "mixture": "mixture of Gaussians",
    "MLP, VP": "MLP on VP", "MLP, chain": "MLP on the chain",
}  # fmt: skip
Found = Mapping[str, Any]


def bits_table(found: Found) -> str:
    """One line a law and method."""
    header = ["law", "by", "dequantisation", "bits/dim", "less the Gaussian's log p"]
    rows = []
    for r in found["rows"]:
        less = f"{r['less']:+.3f} ± {r['less_half']:.3f}" if r is not found["rows"][0] else "0"
        rows.append([r["law"], r["by"], r["noise"], f"{r['bits']:.3f} ± {r['half']:.3f}", less])
    return table(header, rows)


def exact_table(found: Found) -> str:
    """The bound and what it bounds."""
    rows = [
        [
            r["law"],
            f"{r['t_min']:g}",
            str(r["n"]),
            f"{r['gap']:+.3f}",
            f"{r['stderr']:.3f}",
            "" if r["expected"] is None else f"{r['expected']:.3f}",
        ]
        for r in found["exact"]
    ]
    header = ["exact score of", "t_min", "images", "mean ELBO + log p, nats", "standard error",
              "closed form"]  # fmt: skip
    return table(header, rows)


def settings(found: Found) -> str:
    """How the networks were trained, what the validation split chose, and how long all took."""
    of, chosen = found["settings"], found["chosen"]
    vp, chain = chosen["MLP, VP"], chosen["MLP, chain"]
    return (
        f"{of['fit']} images to fit, {of['validation']} to choose, {of['test']} to test. The "
        f"networks: {of['depth']} layers of {of['width']} units, {of['steps']} steps of "
        f"{of['batch_size']} images, AdamW with learning rate {of['lr']:g} (cosine) and weight "
        f"decay {of['weight_decay']:g}, moving average 0.999, seed 0; chosen were the weights of "
        f"step {vp['stopped at']} on VP and of step {chain['stopped at']} on the chain, after "
        f"{vp['seconds']:.0f} and {chain['seconds']:.0f} s. Shrinkage "
        f"{chosen['Gaussian']['shrinkage']:g}; {chosen['mixture']['components']} components with "
        f"{chosen['mixture']['floor']:g} added to their variances. The chain: 1000 betas, linear "
        f"from {of['beta_start']:g} to 0.02. Bounds on VP: {of['times']} times, {of['draws']} "
        f"draws of noise each; on the chain every step, one draw. The whole run took "
        f"{found['seconds'] / 60:.0f} minutes of one thread on a machine shared with others."
    )


def solver(found: Found) -> str:
    """What the ODE's tolerance costs, and whether it was right where the answer is known."""
    known = max(r["off"] for r in found["rows"] if "off" in r)
    most = max(r["solver"] for r in found["rows"] if "solver" in r)
    gaussian = [r for r in found["rows"] if r["law"] == "Gaussian"]
    mean = next(abs(r["less"]) for r in gaussian if r["by"] == "ODE")
    calls = max(r["nfe"] for r in found["rows"] if "nfe" in r)
    return (
        f"The ODE is solved to 1e-3 with the exact divergence, in {calls} calls at most: the "
        f"solver's line of the budget is at most {most:.0e} bits per dimension on the first 16 "
        f"images. Where log p is known the ODE, which gives the density at t_min, is within "
        f"{known:.1f} nats of it for every image, and {mean:.1e} bits per dimension on average."
    )


def regions(found: Found) -> dict[str, str]:
    """What fills the page."""
    return {
        "bits": bits_table(found), "exact": exact_table(found), "settings": settings(found),
        "solver": solver(found),
    }  # fmt: skip


def draw(found: Found, path: Path) -> None:
    """A row of images a law."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(TITLES), 1)
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        images = np.array(found["shown"][name]).reshape(-1, 8, 8)
        framed = np.pad(images.astype(float), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
        strip = np.concatenate(list(framed), axis=1)
        axis.imshow(strip, cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
        axis.set(xticks=[], yticks=[])
        for side in axis.spines.values():
            side.set_visible(False)
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
