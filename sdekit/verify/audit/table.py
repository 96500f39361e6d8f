"""The measures of an audit: what each tells, and what a trained network may have of it.

A trained network is never exact. The tolerances are in units of the noise (`measures`), except
where said, and are about twice what three thousand steps of a small MLP leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sdekit._check import nearest, number
from sdekit.errors import ConfigError
from sdekit.verify.audit import derivatives, measures
from sdekit.verify.audit.intervals import Curve, stretch
from sdekit.verify.audit.subject import Audited
from sdekit.verify.claims import Finding

__all__ = ["MEASURES", "TOLERANCES", "Measure", "curve", "finding"]


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        of: the function, of an audited model and a tolerance.
        tolerance: the default.
        reason: for it.
        words: what a value is, in a sentence.
    """

    of: Callable[[Audited, float], Curve]
    tolerance: float
    reason: str
    words: str


MEASURES: Mapping[str, Measure] = {
    "stein_identity": Measure(
        measures.stein,
        0.1,
        "an error of a tenth of the noise, which adds 0.01 to the loss a coordinate",
        "sigma |E[h . s + div h]|, h of size 1,",
    ),
    "noise_calibration": Measure(
        measures.calibration,
        0.05,
        "five per cent of the norm where the noise is all of the sample: an average over all "
        "draws, in which errors of either sign cancel",
        "E[eps . eps_hat - |eps_hat|^2]/d",
    ),
    "gaussian_floor": Measure(
        measures.gaussian_floor,
        0.01,
        "the square of 0.1: the loss is that of the noise, which is 1 a coordinate",
        "the loss beyond that of the best linear denoiser",
    ),
    "tweedie_martingale": Measure(
        measures.martingale,
        0.05,
        "half of Stein's: the errors at two times near each other cancel in part",
        "alpha/sigma |E[(D(x_s, s) - D(x_t, t)) phi(x_t)]|, phi of size 1,",
    ),
    "jacobian_symmetry": Measure(
        derivatives.asymmetry,
        0.1,
        "relative to the Jacobian, or where that is smaller to that of noise",
        "|J - J^T| / |J|",
    ),
    "score_fokker_planck": Measure(
        derivatives.fokker_planck,
        0.2,
        "no loss looks at two derivatives: trained networks have more of it than of the others",
        "the residual of the score's Fokker-Planck equation",
    ),
}

TOLERANCES: Mapping[str, float] = {name: m.tolerance for name, m in MEASURES.items()}


def tolerances(given: Mapping[str, float] | None) -> dict[str, float]:
    """The table with some of its entries replaced.

    Raises:
        ConfigError: a name that is not in the table, or a tolerance that is not positive.
    """
    found = dict(TOLERANCES)
    for name, value in (given or {}).items():
        if name not in found:
            raise ConfigError(f"tolerances: no measure {name!r}; {nearest(name, found)}")
        found[name] = number(f"tolerances[{name!r}]", value, gt=0)
    return found


def curve(audited: Audited, name: str) -> Curve:
    """The measure over time, found when it is first asked for.

    Raises:
        Skip: it cannot be asked of this model.
    """
    key = f"curve {name}"
    if key not in audited.cache:
        allowed = tolerances(audited.tolerances)[name]
        audited.cache[key] = MEASURES[name].of(audited, allowed)
    return audited.cache[key]


def finding(audited: Audited, name: str) -> Finding:
    """What a check says of it: the time at which the defect is surely largest."""
    found = curve(audited, name)
    k = found.worst()
    point, t = found.points[k], found.times[k]
    says = (
        f"{MEASURES[name].words} is {point.value:.3g}, in [{point.low:.3g}, {point.high:.3g}], at "
        f"t = {t:.3g} (log-SNR {float(audited.sde.log_snr(t)):.2g})"
    )
    beyond = found.beyond
    if beyond:
        says += f"; beyond the tolerance at {len(beyond)} of {len(found.times)} times, "
        says += stretch(found.times, beyond)
    sure = found.sure[k]
    return Finding(sure if math.isfinite(sure) else math.inf, found.tolerance, says)
