"""What a trained network may have of each defect; the names are those of the checks.

A trained network is never exact. The tolerances are in units of the noise (`measures`), or those
that are said; three thousand steps of a small MLP on a mixture leave about half of them or less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sdekit._check import nearest, number
from sdekit.errors import ConfigError

__all__ = ["REASONS", "TOLERANCES", "tolerances"]


class _Allowed(NamedTuple):
    value: float
    reason: str


_TABLE = {
    "stein_identity": _Allowed(
        0.1, "an error of a tenth of the noise, which adds 0.01 to the loss a coordinate"
    ),
    "noise_calibration": _Allowed(
        0.05,
        "five per cent of the norm where the noise is all of the sample: an average over all "
        "draws, in which errors of either sign cancel",
    ),
    "gaussian_floor": _Allowed(
        0.01, "the square of 0.1; the loss is that of the noise, 1 a coordinate"
    ),
    "tweedie_martingale": _Allowed(
        0.05, "half of Stein's: the errors at two times near each other cancel in part"
    ),
    "jacobian_symmetry": _Allowed(
        0.1, "of the Jacobian's norm, or of the noise's where that is larger"
    ),
    "score_fokker_planck": _Allowed(
        0.2, "no loss looks at two derivatives, so that training leaves more of it"
    ),
}

TOLERANCES: Mapping[str, float] = {name: allowed.value for name, allowed in _TABLE.items()}
REASONS: Mapping[str, str] = {name: allowed.reason for name, allowed in _TABLE.items()}


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
