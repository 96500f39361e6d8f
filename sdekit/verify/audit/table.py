"""The measures of an audit by the names of their checks, and what a check says of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sdekit.verify.audit import derivatives, measures
from sdekit.verify.audit.intervals import Curve, stretch
from sdekit.verify.audit.subject import Audited
from sdekit.verify.claims import Finding

__all__ = ["MEASURES", "Measure", "curve", "finding"]


class Measure(NamedTuple):
    """One measure.

    Attributes:
        of: the function, of an audited model and a tolerance.
        words: what a value is, in a sentence.
    """

    of: Callable[[Audited, float], Curve]
    words: str


MEASURES: Mapping[str, Measure] = {
    "stein_identity": Measure(measures.stein, "sigma |E[h . s + div h]|, h of size 1,"),
    "noise_calibration": Measure(measures.calibration, "E[eps . eps_hat - |eps_hat|^2]/d"),
    "gaussian_floor": Measure(
        measures.gaussian_floor, "the loss beyond that of the best linear denoiser"
    ),
    "tweedie_martingale": Measure(
        measures.martingale, "alpha/sigma |E[(D(x_s, s) - D(x_t, t)) phi(x_t)]|, phi of size 1,"
    ),
    "jacobian_symmetry": Measure(derivatives.asymmetry, "|J - J^T| / |J|"),
    "score_fokker_planck": Measure(
        derivatives.fokker_planck, "the residual of the score's Fokker-Planck equation"
    ),
}


def curve(audited: Audited, name: str) -> Curve:
    """The measure over time, found when it is first asked for.

    Raises:
        Skip: it cannot be asked of this model.
    """
    key = f"curve {name}"
    if key not in audited.cache:
        audited.cache[key] = MEASURES[name].of(audited, audited.tolerances[name])
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
    return Finding(found.sure[k], found.tolerance, says)
