"""Shared by the tests of the metrics: sets of samples, replays, catalogue entries."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from scipy import stats

from sdekit import DDPM, ExactScore, GaussianMixture, catalogue, make
from sdekit.exact import attribute_error
from sdekit.metrics import LawMetric, SampleMetric

NEAR = GaussianMixture([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.0]], 1.0)  # modes that overlap
APART = GaussianMixture([0.3, 0.7], [[6.0, 0.0], [-6.0, 0.0]], 1.0)

EXAMPLES = [one for entry in catalogue("metric").values() for one in entry.examples()]
OF_SAMPLES = [one for one in EXAMPLES if isinstance(one, SampleMetric)]
OF_LAWS = [one for one in EXAMPLES if isinstance(one, LawMetric)]
DISTANCES = ["sliced_wasserstein", "wasserstein", "energy_distance", "mmd", "frechet"]


def normal(n, d, seed, *, mean=0.0, std=1.0):
    """Standard normal samples [(n, d)], moved and scaled, float64."""
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(n, d, generator=generator, dtype=torch.float64)


@cache
def budget(steps=100):
    """The exact error budget of the tutorial's sampler."""
    model = ExactScore(make("target", "tutorial"), DDPM.linear(steps))
    return attribute_error("ancestral", model, method="exact")


def cheap(metric):
    """The metric without permutations, for replays that look at intervals alone."""
    return replace(metric, permutations=0) if hasattr(metric, "permutations") else metric


def coverage(metric, *, n, replays, change, seed, law=NEAR):
    """How many of the replays' 95 % intervals hold the mean of all values.

    Both sets are drawn anew in each replay. The mean of the replays stands for the true one: its
    own error is 1/sqrt(replays) of what the interval allows for.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(replays):
        x, y = (law.sample(n, generator=generator, dtype=torch.float64) for _ in range(2))
        found.append(metric.measure(change(x), y, target=law))
    mean = np.mean(found)
    return sum(low <= mean <= high for low, high in (one.interval() for one in found))


def band(replays, *, low=0.92, high=0.98, level=0.001):
    """The counts that a coverage of low to high explains at this level."""
    return (
        stats.binom(replays, low).ppf(level / 2),
        stats.binom(replays, high).isf(level / 2),
    )
