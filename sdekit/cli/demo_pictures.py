"""The pictures of `sdekit demo`, by file name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sdekit import plots
from sdekit.cli.story import PRIOR, Exact, Outcome, Story
from sdekit.cli.waterfall import waterfall

if TYPE_CHECKING:
    from sdekit.sde import LinearSDE
    from sdekit.targets import GaussianMixture

__all__ = ["pictures"]

_SPAN = 7.0  # the pictures show [-7, 7]^2
_DRAWN = 2500  # points of a panel
_PATHS = 70  # paths of a panel


def pictures(
    story: Story, known: Exact, outcomes: dict[str, Outcome]
) -> dict[str, Callable[[], bytes]]:
    """What makes each picture, in the order of the page."""
    return {
        "waterfall.png": lambda: plots.png(waterfall(known.budget)),
        "weights.png": lambda: plots.png(_bars(story, outcomes)),
        "forward.png": lambda: plots.png(_forward(story)),
        "trajectories.png": lambda: plots.png(_trajectories(story, outcomes)),
        "samples.png": lambda: plots.png(_samples(story, outcomes)),
        "reverse.gif": lambda: _animation(story, outcomes["trained_100"]),
    }


def _density(law: GaussianMixture) -> Callable[[np.ndarray], Any]:
    return lambda points: law.log_prob(torch.from_numpy(points)).exp()


def _colours(story: Story, x: torch.Tensor) -> torch.Tensor:
    """0 for samples of the large mode, 1 for the others."""
    return (story.target.component(x) != story.large).long()


def _bars(story: Story, outcomes: dict[str, Outcome]) -> Any:
    rows = [
        plots.Bar(f"{o.process}, from {o.start}", o.weight, o.stderr, o.model)
        for o in outcomes.values()
    ]
    return plots.weight_bars(rows, truth=story.truth, axis="weight of the large mode")


def _forward(story: Story) -> Any:
    generator = torch.Generator().manual_seed(story.seed)
    x0 = story.target.sample(_DRAWN, generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    labels = _colours(story, x0)
    panels = []
    for i in (0, 25, 50, 75, 100):
        x = story.short.perturb(x0, story.short.time(i), noise) if i else x0
        panels.append(plots.Panel(f"x at step {i}" + (" = T" if i == 100 else ""), x, labels))
    start = torch.randn(x0.shape, generator=generator)
    panels.append(plots.Panel("N(0, I), the start", start, torch.full_like(labels, 2)))
    return plots.forward_strip(panels, span=_SPAN)


def _trajectories(story: Story, outcomes: dict[str, Outcome]) -> Any:
    panels = []
    for key, chain in (("exact_100", story.short), ("exact_1000", story.long)):
        outcome = outcomes[key]
        assert outcome.path is not None
        assert outcome.path_t is not None
        path = outcome.path[:, :_PATHS]
        grid = np.linspace(-_SPAN, _SPAN, 281)
        panels.append(
            plots.Fan(
                f"{outcome.process}, exact score from N(0, I): {outcome.weight:.2f} end below 0",
                outcome.path_t * chain.n,
                path.sum(dim=2) / math.sqrt(2),
                _colours(story, path[-1]),
                grid,
                np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi),
                _diagonal_density(story, chain, grid),
            )
        )
    return plots.trajectories(
        panels,
        axes=("step of the chain, from T to 0", "u = (x1 + x2) / \N{SQUARE ROOT}2"),
        legend=("N(0, 1), where sampling starts", "true law of u at step T"),
    )


def _diagonal_density(story: Story, sde: LinearSDE, u: np.ndarray) -> np.ndarray:
    """The density of (x1 + x2) / sqrt(2) at t_max: a mixture of N(alpha m, 1) on the line."""
    law = story.marginal(sde)
    means = law.means.sum(dim=1).numpy() / math.sqrt(2)
    variances = law.covs.sum(dim=(1, 2)).numpy() / 2
    bells = np.exp(-0.5 * (u[:, None] - means) ** 2 / variances) / np.sqrt(2 * np.pi * variances)
    return np.asarray(bells @ law.weights.numpy())


def _samples(story: Story, outcomes: dict[str, Outcome]) -> Any:
    panels = []
    for key in ("trained_100", "trained_100_true", "trained_1000", "exact_vp_ode"):
        o = outcomes[key]
        x = o.x[:_DRAWN]
        how = "network" if o.model.startswith("trained") else "exact"
        start = "" if o.start == PRIOR else f", {o.start}"
        title = f"{o.process}, {how}{start}"
        panels.append(plots.Panel(title, x, _colours(story, x), f"{o.weight:.2f} below"))
    return plots.density_contours_with_samples(panels, _density(story.target), span=_SPAN)


def _animation(story: Story, outcome: Outcome) -> bytes:
    assert outcome.path is not None
    assert outcome.path_t is not None
    steps = (outcome.path_t * story.short.n).round().long().tolist()
    shares = [float((_colours(story, x) == 0).double().mean()) for x in outcome.path]
    captions = [f"step {i:3}   large mode {s:.2f}" for i, s in zip(steps, shares, strict=True)]
    return plots.animate_samples(
        outcome.path, captions, labels=_colours(story, outcome.path[-1]),
        density=_density(story.target), span=_SPAN,
    )  # fmt: skip
