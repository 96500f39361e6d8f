r"""One number from several seeds.

The seeds are independent runs against independent true samples. With values T_s, s = 1 .. S, and
floors F_s of the same true samples,

    value = mean T_s,    stderr = sd(T_s) / sqrt(S),    S - 1 degrees of freedom,               (1)

which holds whatever the metric. The interval is that of a gamma mean of the distances of T_s from
the end of the metric's range on the better side (`sdekit.metrics.intervals`): of distances from 0,
of precision and recall from 1; without such an end it is Student's. With one seed the metric's own
standard error is taken. The p-value is that of the hypothesis that the samples are true: where the
metric has a test, Fisher's combination of the seeds' p-values,

    -2 sum_s log p_s  ~  chi^2 with 2 S degrees of freedom,                                     (2)

else the one-sided paired t-test of T_s against F_s.

Reference: Fisher, Statistical Methods for Research Workers (1932), section 21.1, for (2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from sdekit.metrics import Estimate

__all__ = ["pooled"]


def pooled(parts: Sequence[Estimate], floors: Sequence[float | None], better: str) -> Estimate:
    """The estimate of all seeds together, eq. (1).

    Args:
        parts: T_s, one a seed.
        floors: F_s, None where there was no second true set.
        better: "smaller" or "larger": on which side of the floor the truth lies not.

    Example:
        >>> parts = [Estimate(value, stderr=0.5, lo=0.0) for value in (1.0, 2.0, 3.0)]
        >>> found = pooled(parts, [0.9, 1.1, 1.0], "smaller")
        >>> float(found), round(found.stderr, 4), found.df, found.floor
        (2.0, 0.5774, 2.0, 1.0)
        >>> [round(end, 2) for end in found.interval()]
        [0.74, 8.8]
    """
    first, s = parts[0], len(parts)
    values = np.array([float(part) for part in parts])
    known = [f for f in floors if f is not None]
    whole = len(known) == s
    floor = float(np.mean(known)) if whole else None
    floor_stderr = float(np.std(known, ddof=1)) / math.sqrt(s) if whole and s > 1 else None
    several = s > 1 and not first.exact
    stderr, df = first.stderr, first.df
    if several:
        stderr, df = float(np.std(values, ddof=1)) / math.sqrt(s), float(s - 1)
    best = first.lo if better == "smaller" else first.hi
    return Estimate(
        float(values.mean()), stderr=stderr, df=df, floor=floor,
        floor_stderr=0.0 if first.exact else floor_stderr,
        p_value=_p_value(parts, values - np.array(known) if whole else None, better),
        n=first.n, exact=first.exact, detail=_detail([part.detail for part in parts]),
        lo=first.lo, hi=first.hi, draws=values.tolist() if several else (),
        best=best if math.isfinite(best) else None,
    )  # fmt: skip


def _p_value(parts: Sequence[Estimate], above: Any, better: str) -> float | None:
    given = [part.p_value for part in parts if part.p_value is not None]
    if len(given) == len(parts):
        found = stats.combine_pvalues(np.maximum(given, np.finfo(float).tiny), method="fisher")
        return float(found.pvalue)
    if above is None or len(above) < 2 or parts[0].exact:
        return None
    if np.ptp(above) == 0:  # all seeds agree: the test has no scale
        return None
    side = "greater" if better == "smaller" else "less"
    return float(stats.ttest_1samp(above, 0.0, alternative=side).pvalue)


def _detail(details: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Weights are averaged, their standard errors in quadrature; the rest is the first's."""
    found = dict(details[0])
    s = len(details)
    if s > 1 and "weights" in found:
        found["weights"] = np.mean([d["weights"] for d in details], axis=0).tolist()
        if found.get("stderr") is not None:
            errors = np.array([d["stderr"] for d in details])
            found["stderr"] = (np.sqrt((errors**2).sum(axis=0)) / s).tolist()
    return found
