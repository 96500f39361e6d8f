r"""A classifier asked which set a sample is from: the two-sample test of its accuracy.

Both sets are halved. A k-nearest-neighbour rule learns the labels of the first halves and is asked
those of the second,

    accuracy = 1/t sum_i 1[guess_i = label_i],      t the samples that it has not seen.         (1)

Where both sets have one law, t accuracy is binomial with probability 1/2, and the p-value is the
exact tail of that law. Its standard error is the binomial one at (t accuracy + 1) / (t + 2), which
is not 0 where all guesses are right.

References: Lopez-Paz and Oquab, arXiv:1610.06545, eq. 2 for (1), section 3.1 for its law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import stats
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import integer
from sdekit.metrics.base import Estimate, SampleMetric
from sdekit.metrics.sets import Array, Found, checked_points, compared, generator, neighbours
from sdekit.targets import Target

__all__ = ["ClassifierTwoSample", "classifier_two_sample"]


def _odd_root(count: int) -> int:
    """The root of a count, rounded to an odd number: no vote is a tie."""
    return 2 * (math.isqrt(count) // 2) + 1


@register("metric", "classifier", paper="arXiv:1610.06545, eq. 2")
@dataclass(frozen=True, kw_only=True)
class ClassifierTwoSample(SampleMetric):
    """The accuracy of a nearest-neighbour classifier of x against y, eq. (1): 1/2 is perfect.

    As many samples of each set are used as the smaller one has.

    Args:
        k: the neighbours that vote, odd; None for the root of the number learnt from.
        points: how many samples of each set are used at most, the first ones; None for all.

    Raises:
        ConfigError: k is even or < 1, or points < 4.
        DtypeError: a field is neither an int nor None.

    Reference: arXiv:1610.06545, eq. 2.

    Example:
        >>> import torch
        >>> x = torch.randn(800, 2, generator=torch.Generator().manual_seed(0))
        >>> far = ClassifierTwoSample().measure(x[:400], x[400:] + 9)
        >>> float(far), far.p_value < 1e-9
        (1.0, True)
    """

    title: ClassVar[str] = "accuracy of a classifier"
    unit: ClassVar[str] = "probability"

    k: int | None = None
    points: int | None = 2000

    def __post_init__(self) -> None:
        if self.k is not None:
            k = integer("k", self.k, ge=1)
            self._set(k=integer("k, which must be odd,", k, ge=k + 1 - k % 2))
        self._set(points=checked_points(self.points, ge=4))

    def measure(
        self,
        x: Tensor,
        y: Tensor,
        *,
        floor: Tensor | None = None,
        target: Target | None = None,
        seed: int = 0,
    ) -> Estimate:
        """Eq. (1), with its exact p-value; see `SampleMetric.measure`."""

        def find(a: Array, b: Array, tested: bool) -> Found:
            size = min(len(a), len(b))
            rng, half = generator(seed, 1), size // 2
            mine, its = (one[rng.permutation(len(one))[:size]] for one in (a, b))
            learnt = np.concatenate([mine[:half], its[:half]])
            asked = np.concatenate([mine[half:], its[half:]])
            k = min(self.k or _odd_root(2 * half), 2 * half - 1)
            votes = (neighbours(learnt, asked, k)[1] < half).mean(axis=1)
            is_mine = np.arange(len(asked)) < size - half
            right = int(((votes > 0.5) == is_mine).sum())
            t = len(asked)
            share = (right + 1) / (t + 2)
            p = float(stats.binomtest(right, t, 0.5, "greater").pvalue) if tested else None
            stderr = math.sqrt(share * (1 - share) / t)
            return Found(right / t, stderr, math.inf, p, {"k": k, "asked": t})

        return compared(find, x, y, floor, points=self.points, hi=1.0)

    @classmethod
    def examples(cls) -> list[ClassifierTwoSample]:
        """With many neighbours and with one."""
        return [cls(), cls(k=1, points=500)]


def classifier_two_sample(
    x: Tensor,
    y: Tensor,
    *,
    floor: Tensor | None = None,
    k: int | None = None,
    points: int | None = None,
    seed: int = 0,
) -> Estimate:
    """The accuracy of a classifier, eq. (1); arguments and errors of `ClassifierTwoSample`.

    Example:
        >>> import torch
        >>> x = torch.randn(800, 2, generator=torch.Generator().manual_seed(0))
        >>> near = classifier_two_sample(x[:400], x[400:])
        >>> abs(near - 0.5) < 4 * near.stderr
        True
    """
    return ClassifierTwoSample(k=k, points=points).measure(x, y, floor=floor, seed=seed)
