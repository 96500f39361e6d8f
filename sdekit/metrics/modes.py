r"""Shares of samples in the modes of a mixture, against the weights that they should have.

A sample belongs to the component that is likeliest to have made it. With p_k the share of those of
component k among n samples, and w_k its weight,

    value = 1/2 sum_k |p_k - w_k|,        stderr of p_k = (p_k (1 - p_k) / n)^{1/2},            (1)

the total variation of the labels. Pearson's statistic sum_k (n p_k - n w_k)^2 / (n w_k), with
components whose expected count is below 5 put together, tests whether the shares are the weights.
Where components overlap, the likeliest one is not always the one that made the sample, and true
samples have other shares than w. That is asked of draws from the target itself; where they differ,
the counts are compared with those of the draws instead (a test of two samples), and `floor` shows
what (1) is then for the truth.

References: Cochran 1954, doi:10.2307/3001666 (counts below 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import samples, shown
from sdekit.errors import DataError
from sdekit.metrics.base import Estimate, SampleMetric
from sdekit.metrics.sets import flat, generator, partitions
from sdekit.targets import GaussianMixture, Target

__all__ = ["ModeWeights", "mode_weights"]

_DRAWS = 20_000  # of the target, to see whether its components overlap
_COUNT = 5.0  # the least that a category of Pearson's test expects
_UNLIKE = 1e-4  # the level at which the draws' own shares are not the weights
_WIDTH = 1e-6  # that an atom is given, as a share of the variance of the whole law


def _mixture(target: object) -> GaussianMixture:
    """The law by which samples belong to modes; atoms get a little width for it."""
    if not isinstance(target, GaussianMixture):
        raise DataError(
            f"target={shown(target)} has no modes to weigh; give a GaussianMixture (whose "
            "component() says where a sample belongs), or use sliced_wasserstein"
        )
    if float(torch.linalg.eigvalsh(target.covs).min()) > 0:
        return target
    width = _WIDTH * float(target.cov.diagonal().max()) or 1.0
    wide: GaussianMixture = target.perturbed(1.0, width)  # type: ignore[assignment]  # of a mixture, a mixture
    return wide


def _merged(expected: NDArray[np.float64], *counts: NDArray[np.float64]) -> list[Any]:
    """Categories with the smallest expectations put together until each expects enough."""
    order = np.argsort(expected, kind="stable")
    columns = [list(c[order].astype(float)) for c in (expected, *counts)]
    while len(columns[0]) > 1 and columns[0][0] < _COUNT:
        for column in columns:
            first = column.pop(0)
            column[0] += first
        again = sorted(range(len(columns[0])), key=columns[0].__getitem__)
        columns = [[column[i] for i in again] for column in columns]
    return [np.array(column) for column in columns]


def _p_value(counts: NDArray[np.float64], law: GaussianMixture, seed: int) -> float | None:
    """Pearson's test of the counts; None where there are no two categories to compare."""
    n, weights = counts.sum(), law.weights.numpy()
    draws = law.sample(
        _DRAWS,
        generator=torch.Generator().manual_seed(int(generator(seed, 3).integers(2**62))),
        dtype=torch.float64,
    )
    its = np.bincount(law.component(draws).numpy(), minlength=len(weights)).astype(float)
    expected, seen = _merged(weights * _DRAWS, its)
    if len(expected) > 1 and stats.chisquare(seen, expected).pvalue < _UNLIKE:
        shares = (counts + its) / (n + _DRAWS)
        _, mine, others = _merged(shares * min(n, _DRAWS), counts, its)
        table = np.stack([mine, others])
        return float(stats.chi2_contingency(table).pvalue) if len(mine) > 1 else None
    expected, seen = _merged(weights * n, counts)
    if len(expected) < 2:
        return None
    return float(stats.chisquare(seen, expected).pvalue)


def _value(labels: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Eq. (1)."""
    shares = np.bincount(labels, minlength=len(weights)) / len(labels)
    return 0.5 * float(np.abs(shares - weights).sum())


@register("metric", "mode_weights", paper="Cochran 1954, doi:10.2307/3001666")
@dataclass(frozen=True, kw_only=True)
class ModeWeights(SampleMetric):
    """Half the sum of |share - weight| over the modes of a mixture, eq. (1).

    `detail` has the shares ("weights"), their standard errors and the truth.

    Example:
        >>> import torch
        >>> from sdekit import make
        >>> law = make("target", "tutorial")  # 0.2 N((3, 3), I) + 0.8 N((-3, -3), I)
        >>> x = law.sample(1000, generator=torch.Generator().manual_seed(0))
        >>> found = ModeWeights().measure(x, x, target=law)
        >>> found.detail["truth"], found < 0.03, found.p_value > 0.01
        ([0.2, 0.8], True, True)
    """

    title: ClassVar[str] = "error of the mode weights"
    unit: ClassVar[str] = "probability"
    needs: ClassVar[frozenset[str]] = frozenset({"modes"})

    def measure(
        self,
        x: Tensor,
        y: Tensor,
        *,
        floor: Tensor | None = None,
        target: Target | None = None,
        seed: int = 0,
    ) -> Estimate:
        """Eq. (1) of x and the target; y is not used; see `SampleMetric.measure`.

        Raises:
            DataError: the target has no modes.
        """
        law = _mixture(target)
        weights = law.weights.numpy()

        def labels(name: str, given: Tensor) -> NDArray[np.int64]:
            samples(name, given, law.shape)
            wide = torch.from_numpy(flat(name, given, 4))
            found: NDArray[np.int64] = law.component(wide).numpy()
            return found

        def error(of: NDArray[np.int64]) -> tuple[float, float]:
            parts = partitions(len(of), len(of), generator(seed, 1))
            squares = [_value(of[i], weights) ** 2 for i, _ in parts]
            return parts.stderr_of_root(_value(of, weights), squares), parts.df

        mine = labels("x", x)
        counts = np.bincount(mine, minlength=len(weights)).astype(float)
        shares = counts / len(mine)
        stderr, df = error(mine)
        its = None if floor is None else labels("floor", floor)
        return Estimate(
            _value(mine, weights),
            stderr=stderr,
            df=df,
            floor=None if its is None else _value(its, weights),
            floor_stderr=None if its is None else error(its)[0],
            p_value=_p_value(counts, law, seed),
            n=len(mine),
            detail={
                "weights": shares.tolist(),
                "stderr": [math.sqrt(p * (1 - p) / len(mine)) for p in shares.tolist()],
                "truth": weights.tolist(),
            },
            lo=0.0,
            hi=1.0,
        )


def mode_weights(
    x: Tensor, target: Target, *, floor: Tensor | None = None, seed: int = 0
) -> Estimate:
    """Half the sum of |share - weight|, eq. (1); arguments and errors of `ModeWeights`.

    Example:
        >>> import torch
        >>> from sdekit import GaussianMixture
        >>> law = GaussianMixture([0.5, 0.5], [[-9.0], [9.0]], 1.0)
        >>> x = torch.tensor([[-9.0], [-8.0], [-9.5], [9.0]])
        >>> found = mode_weights(x, law)
        >>> float(found), found.detail["weights"]
        (0.25, [0.75, 0.25])
    """
    return ModeWeights().measure(x, x, floor=floor, target=target, seed=seed)
