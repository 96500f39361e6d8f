r"""Tests of a law with a known probability of a false alarm.

Every p-value here is valid at any number of draws:

    mean        z = sqrt(n) (m - mu) / sigma, exact for normal draws                        (1)
    variance    (n - 1) s^2 / sigma^2 ~ chi^2_{n-1}, exact for normal draws                 (2)
    whole law   P(sup |F_n - F| > D) <= 2 exp(-2 n D^2): Dvoretzky, Kiefer, Wolfowitz,      (3)
                with Massart's constant
    several     p = m min_i p_i, Bonferroni                                                 (4)

and a check fails only if its p-value is below `LEVEL` in each of `STAGES` stages of independent
draws, four times as many in each later one: a right implementation fails with probability at most
LEVEL^STAGES = 1e-12, and a suite of `TESTS` such checks with 2e-10, inside `BUDGET`. What the
retest accepts early costs power only: a law that is wrong enough for stage 1 is wrong enough for
the larger stages after it. At the 100,000 draws of stage 1 it surely sees a mean that is 0.02
standard deviations off, a standard deviation 1.5 % off, or a distribution function 0.01 off.

References: Massart, Ann. Probab. 18 (1990), for (3); Gandy and Scott, arXiv:2001.06465, for
sequential retests.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy import special
from torch import Tensor

from sdekit.verify.claims import Finding

__all__ = ["BUDGET", "LEVEL", "STAGES", "TESTS", "bonferroni", "normal", "retested", "uniform"]

BUDGET = 1e-9  # false alarms of a suite
TESTS = 200  # statistical checks that a suite may hold
LEVEL = 1e-3  # of a stage
STAGES = 4
FIRST = 100_000  # draws of the first stage; four times as many in each later one
assert TESTS * LEVEL**STAGES <= BUDGET


def bonferroni(*p: float) -> float:
    """Eq. (4); NaN counts as 0."""
    return min(1.0, len(p) * min(0.0 if math.isnan(q) else q for q in p))


def uniform(u: Tensor) -> float:
    """Eq. (3) for draws that should be uniform on [0, 1] [(n,)]."""
    n = u.numel()
    ordered = u.double().reshape(-1).sort().values
    if not bool(torch.isfinite(ordered).all()):
        return 0.0
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    apart = max(float((steps[1:] - ordered).max()), float((ordered - steps[:-1]).max()))
    return min(1.0, 2 * math.exp(-2 * n * apart**2))


def normal(z: Tensor) -> float:
    """The p-value of z [(n,)] as independent standard normal draws, by eqs. (1) to (4)."""
    z = z.double().reshape(-1)
    n = z.numel()
    if not bool(torch.isfinite(z).all()):
        return 0.0
    mean = 2 * float(special.ndtr(-abs(float(z.mean())) * math.sqrt(n)))
    squares = float(z.var()) * (n - 1)
    spread = 2 * min(float(special.chdtr(n - 1, squares)), float(special.chdtrc(n - 1, squares)))
    return bonferroni(mean, spread, uniform(torch.special.ndtr(z)))


def retested(p_value: Callable[[int, int], float], *, seed: int, first: int = FIRST) -> Finding:
    """The verdict of the stages.

    Args:
        p_value: from a number of draws and a seed to the p-value of fresh draws.
        seed: of the first stage; later ones take the next.
        first: the draws of the first stage.
    """
    seen: list[str] = []
    p = 0.0
    for stage in range(STAGES):
        p = p_value(first * (4 if stage else 1), seed + stage)
        seen.append(f"stage {stage + 1}: p = {p:.3g}")
        if p >= LEVEL:
            break
    what = f"{'; '.join(seen)}; seed {seed}"
    return Finding(p, LEVEL, what, at_least=True)
