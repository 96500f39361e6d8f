r"""The theory's rate: total variation against the number n of training samples.

    python benchmarks/rate.py [--quick] [--json FILE]

A density of smoothness s in D dimensions is estimated from n samples at the rate

    TV ~ n^(-s / (2 s + D)),                                                                    (1)

by a diffusion model that stops early, at a t_0(n) > 0 (Oko et al., arXiv:2303.01861; Zhang et al.,
arXiv:2402.15602, for s <= 2). Here D = 1 and s is known, and (1) is measured twice,

- with the exact score of the n samples: the flow from the true p_T returns the smoothed sample
  mean_i N(alpha y_i, sigma^2) at t_0, so that its law is known (that the sampler does this is
  measured too, in `checks`);
- with a network that `Trainer` has trained on the n samples down to t_0, by the law of what Heun's
  method returns from N(0, 1).

sigma(t_0) = std n^(-1 / (2 min(s, 2) + 1)), the same for both. Distances are exact: nothing is
sampled but the data. The targets, the quadrature and the slopes are those of `_rate.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _rate import (
    LAWS,
    Array,
    Law,
    LinearLogSNR,
    kernel_variation,
    slope,
    smoothed_cdf,
    smoothing_variation,
    stopping_sigma,
    total_variation,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sdekit import Empirical, ExactScore, ScoreModel, Trainer, sample
from sdekit.model import MLP, Predictor

Z = np.linspace(-5.5, 5.5, 4097)  # the starts of the flow: 4e-8 lies outside
FINER = (1, 4, 16)  # times the steps


@dataclass(frozen=True)
class Settings:
    """What a run does.

    Attributes:
        exact: the targets of the exact score.
        trained: those of the network.
        exact_n: their numbers of samples.
        trained_n: likewise.
        exact_sets: data sets at each n.
        trained_sets: likewise.
        steps: of training.
        batch_size: samples a step.
        lr: the learning rate; it falls to 0 along a cosine.
        ema: the decay of the moving average of the weights.
        width: of the network's layers.
        depth: its hidden layers.
        gain: of the weights of x in its first layer, before training.
        bandwidth: of its features of the time, which it is told as log-SNR.
        solver_steps: of Heun's method, equal in log-SNR.
    """

    exact: list[str] = field(default_factory=lambda: [law.name for law in LAWS])
    trained: list[str] = field(
        default_factory=lambda: [law.name for law in LAWS if law.name != "biweight"]
    )
    exact_n: list[int] = field(default_factory=lambda: [2**k for k in range(6, 17)])
    trained_n: list[int] = field(default_factory=lambda: [2**k for k in range(6, 15, 2)])
    exact_sets: int = 20
    trained_sets: int = 5
    steps: int = 2000
    batch_size: int = 512
    lr: float = 5e-3
    ema: float = 0.99
    width: int = 64
    depth: int = 3
    gain: float = 10.0
    bandwidth: float = 0.05
    solver_steps: int = 64

    @classmethod
    def quick(cls) -> Settings:
        """A few seconds."""
        return cls(
            exact=["uniform", "parabola"],
            trained=["uniform"],
            exact_n=[64, 256, 1024],
            trained_n=[64, 256],
            exact_sets=4,
            trained_sets=2,
            steps=150,
            solver_steps=32,
        )


def seed_of(law: Law, n: int, replicate: int) -> int:
    """One for each data set."""
    return 10_000_019 * [other.name for other in LAWS].index(law.name) + 101 * n + replicate


def data_of(law: Law, n: int, replicate: int) -> Array:
    """A data set [(n,)]."""
    return law.sample(n, seed_of(law, n, replicate))


def train(law: Law, data: Array, sde: LinearLogSNR, seed: int, of: Settings) -> ScoreModel:
    """A network trained on the data down to t_min, in float64."""
    net = MLP(1, width=of.width, depth=of.depth, bandwidth=of.bandwidth, seed=seed)
    with torch.no_grad():
        net.layers[0].weight[:, 0] *= of.gain  # so that it can bend on the scale of sigma(t_0)
    model = ScoreModel(net, sde, parametrization="v", time_input="log_snr")
    trainer = Trainer(model, "dsm", lr=of.lr, ema=of.ema, batch_size=of.batch_size, seed=seed)
    # drawn with replacement, so that a batch may be larger than the data
    drawn = Empirical(torch.from_numpy(data)[:, None].float())
    return trainer.fit(drawn, steps=of.steps).model.double()


def flow(model: Predictor, steps: int) -> Array:
    """Where Heun's method takes the starts Z [(m,)]; with more steps where these fold the map.

    Raises:
        ArithmeticError: it folds with any number of them, and eq. (4) of `_rate.py` does not hold.
    """
    start = torch.from_numpy(Z)[:, None]
    for more in FINER:
        run = sample(model, tuple(start.shape), sampler="heun", steps=more * steps, x_init=start)
        x = run.x[:, 0].numpy()
        if (np.diff(x) >= 0).all():
            return x
    raise ArithmeticError(f"the map of {FINER[-1] * steps} steps folds: its law is not eq. (4)'s")


def trained_rows(of: Settings) -> Iterator[dict[str, Any]]:
    """One row a target and n: TV of each data set's network."""
    work = [(law, n) for law in LAWS if law.name in of.trained for n in of.trained_n]
    start = torch.special.ndtr(torch.from_numpy(Z)).numpy()
    for law, n in track(work, description="networks", console=Console(stderr=True)):
        sde = LinearLogSNR.stopped(stopping_sigma(law, n))
        found = []
        for k in range(of.trained_sets):
            model = train(law, data_of(law, n, k), sde, seed_of(law, n, k), of)
            found.append(total_variation(flow(model, of.solver_steps), start, law.cdf))
        yield row("network", law, n, sde, found)


def exact_rows(of: Settings) -> Iterator[dict[str, Any]]:
    """One row a target and n: TV of each smoothed sample."""
    work = [(law, n) for law in LAWS if law.name in of.exact for n in of.exact_n]
    for law, n in track(work, description="exact score", console=Console(stderr=True)):
        sde = LinearLogSNR.stopped(stopping_sigma(law, n))
        found = [kernel_variation(law, data_of(law, n, k), sde) for k in range(of.exact_sets)]
        yield row("exact", law, n, sde, found, smoothing=smoothing_variation(law, sde))


def row(
    score: str, law: Law, n: int, sde: LinearLogSNR, tv: Sequence[float], **more: float
) -> dict[str, Any]:
    """A row of the file."""
    s = None if math.isinf(law.s) else law.s
    return {
        "score": score, "target": law.name, "s": s, "n": n, "t_0": sde.t_min,
        "sigma": float(sde.sigma(sde.t_min)), "tv": list(tv), **more,
    }  # fmt: skip


def checks(of: Settings, n: int = 64) -> dict[str, float]:
    """What the distances are worth, the larger value of the roughest and the smoothest target.

    - heun, heun x 4: TV between the real sampler's law on the exact score of n samples from
      N(0, 1), with the steps of the networks and with four times as many, and the smoothed sample;
    - cells: what twice as many cells change, as a share;
    - solver: what four times the steps change in the TV of a network to the target;
    - starts: what half as many starts of its flow change, as a share;
    - longer NAME: the TV after three times the steps of training, as a share of the usual.
    """
    found: dict[str, float] = {}
    start = torch.special.ndtr(torch.from_numpy(Z)).numpy()

    def keep(name: str, value: float) -> None:
        found[name] = max(found.get(name, 0.0), value)

    def ends(names: Sequence[str]) -> Sequence[Law]:
        laws = [law for law in LAWS if law.name in names]
        return [laws[0], laws[-1]] if len(laws) > 1 else laws

    for law in ends(of.exact):
        sde = LinearLogSNR.stopped(stopping_sigma(law, n))
        data = data_of(law, n, 0)
        model = ExactScore(Empirical(torch.from_numpy(data)[:, None]), sde)
        centres = np.sort(float(sde.alpha(sde.t_min)) * data)
        smoothed = partial(smoothed_cdf, centres=centres, width=float(sde.sigma(sde.t_min)))
        for name, steps in (("heun", of.solver_steps), ("heun x 4", 4 * of.solver_steps)):
            keep(name, total_variation(flow(model, steps), start, smoothed))
        coarse, fine = (kernel_variation(law, data, sde, f) for f in (1.0, 2.0))
        keep("cells", abs(fine / coarse - 1))
    most = max(of.trained_n)
    for law in ends(of.trained):
        sde = LinearLogSNR.stopped(stopping_sigma(law, most))
        data, seed = data_of(law, most, 0), seed_of(law, most, 0)
        model = train(law, data, sde, seed, of)
        x = flow(model, of.solver_steps)
        usual = total_variation(x, start, law.cdf)
        finer = total_variation(flow(model, 4 * of.solver_steps), start, law.cdf)
        keep("solver", abs(finer - usual))
        keep("starts", abs(total_variation(x[::2], start[::2], law.cdf) / usual - 1))
        model = train(law, data, sde, seed, replace(of, steps=3 * of.steps))
        longer = total_variation(flow(model, of.solver_steps), start, law.cdf)
        keep(f"longer {law.name}", longer / usual)
    return found


def main() -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer targets, samples and steps")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    args = parser.parse_args()
    of = Settings.quick() if args.quick else Settings()
    started = time.process_time()
    rows = [*exact_rows(of), *trained_rows(of)]
    worth = checks(of)
    seconds = time.process_time() - started
    table = Table(title=f"TV against n, {torch.get_num_threads()} threads, {seconds:.0f} s of CPU")
    for heading in ("score", "target", "s", "theory", "slope, 95 %", "TV, least n", "TV, most n"):
        table.add_column(heading, justify="left" if heading in ("score", "target") else "right")
    for score in ("exact", "network"):
        for law in LAWS:
            own = [r for r in rows if (r["score"], r["target"]) == (score, law.name)]
            if own:
                tv = np.array([r["tv"] for r in own]).T
                theory = -0.5 if math.isinf(law.s) else -law.s / (2 * law.s + 1)
                table.add_row(
                    score, law.name, f"{law.s:g}", f"{theory:.3f}",
                    str(slope([r["n"] for r in own], tv)),
                    f"{tv[:, 0].mean():.4f}", f"{tv[:, -1].mean():.4f}",
                )  # fmt: skip
    Console().print(table)
    Console().print({name: f"{value:.1e}" for name, value in worth.items()})
    if args.json:
        found = {"settings": asdict(of), "seconds": seconds, "checks": worth, "rows": rows}
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
