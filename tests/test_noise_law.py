"""Claim: sources of neighbouring seeds are independent; the law of one is a check of the kit."""

from __future__ import annotations

import torch
from support import mean_test

from sdekit.sampling.noise import KeyedNoise

N, DRAWS = 4000, 25  # 100,000 values a coordinate


def test_neighbouring_seeds_are_independent(alpha_budget):
    like = torch.empty(50_000, 2)
    product = (KeyedNoise(1)(like) * KeyedNoise(2)(like)).flatten()
    level = alpha_budget.spend("noise independence: seeds")
    assert mean_test(product, mean=0.0, std=1.0, skewness=0.0, alpha=level)
