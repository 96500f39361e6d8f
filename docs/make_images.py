"""The picture of the README, drawn anew: python docs/make_images.py [FOLDER].

Four runs of DDPM's ancestral sampler with the exact score of the mixture
0.2 N((3, 3), I) + 0.8 N((-3, -3), I), over the contours of its density.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from sdekit import DDPM, ExactScore, catalogue, sample
from sdekit.plots import Panel, density_contours_with_samples, png
from sdekit.targets import ExactTarget

SAMPLES = 20_000  # for the share of the large mode, which each panel names
DRAWN = 2000


def panels() -> tuple[list[Panel], ExactTarget]:
    """The samples of every run, each with what it is, and their law."""
    data = catalogue("target")["tutorial"].make()
    found = []
    for steps in (100, 200, 1000):
        model = ExactScore(data, DDPM.linear(steps, beta_start=1e-4, beta_end=0.02))
        found.append((f"{steps} steps from N(0, I)", model, "standard"))
    short = found[0][1]
    found.insert(1, ("100 steps from the true x_T", short, short.at(1.0)))
    shown = []
    for title, model, prior in found:
        x = sample(model, (SAMPLES, 2), sampler="ancestral", prior=prior, seed=0).x
        mode = data.component(x)
        note = f"{100 * (mode == 1).double().mean():.0f} %"
        shown.append(Panel(title, x[:DRAWN], mode[:DRAWN], note))
    return shown, data


def main() -> int:
    """Write demo.png into the folder, docs/images by default."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    shown, data = panels()

    def density(points: np.ndarray) -> np.ndarray:
        return data.log_prob(torch.as_tensor(points)).exp().numpy()

    figure = density_contours_with_samples(shown, density, span=7.0)
    (folder / "demo.png").write_bytes(png(figure, dpi=130))
    print(f"{folder / 'demo.png'}: {'; '.join(f'{panel.title}: {panel.note}' for panel in shown)}")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
