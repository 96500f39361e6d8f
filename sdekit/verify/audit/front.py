"""What a user calls: the audit of a model, its report, its picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sdekit.model import Parametrization
from sdekit.sde import LinearSDE
from sdekit.verify.audit.intervals import Curve
from sdekit.verify.audit.recognition import Recognition, recognise
from sdekit.verify.audit.subject import DRAWS, TIMES, Audited, adapted
from sdekit.verify.audit.table import MEASURES, curve
from sdekit.verify.claims import Skip
from sdekit.verify.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Audit", "check_model", "picture"]


@dataclass(frozen=True)
class Audit(Report):
    """The results of the checks of a model, and the measures that they were made from.

    Attributes:
        results: one `Result` a check.
        audited: the model and its data.
    """

    audited: Audited | None = None

    @property
    def curves(self) -> dict[str, Curve]:
        """Every measure over time, by the name of its check, but for those that were skipped."""
        assert self.audited is not None  # only `Report` has a default before it
        return _curves(self.audited)

    @property
    def recognition(self) -> Recognition:
        """How the raw output is best read."""
        assert self.audited is not None
        return recognise(self.audited)

    def plot(self) -> Figure:
        """As `picture`."""
        assert self.audited is not None
        return picture(self.audited)


def check_model(
    model: Any,
    data: Tensor | None = None,
    *,
    sde: LinearSDE | None = None,
    parametrization: str | Parametrization | None = None,
    expected_failures: Mapping[str, str] | None = None,
    max_examples: int = DRAWS,
    seed: int = 0,
    only: str | Iterable[str] | None = None,
    times: int | Tensor = TIMES,
    tolerances: Mapping[str, float] | None = None,
) -> Audit:
    """Audit a network without the true score, time by time, on data that it was not trained on.

    Stein's identity, the symmetry of the Jacobian, the Fokker-Planck equation of the score, the
    martingale of the denoiser, the calibration of the noise's norm, and the loss against that of
    the best linear denoiser; and whether another parametrisation, sign or direction of time than
    the declared one fits the output, which is then named.

    Args:
        model: a `ScoreModel`, an `ExactScore`, or a plain network(x, t) with t [(batch,)], which
            needs `sde` and `parametrization`.
        data: clean held-out samples [(n, *dims)], n >= 100; None: draws from the target of an
            `ExactScore`. Some thousand make the intervals short.
        sde: of a plain network.
        parametrization: what a plain network's output is declared to be: eps, x0, score, v, flow
            or edm(sigma_data=...).
        expected_failures: as for `check`.
        max_examples: noisy samples at each time, at most, >= 200, two of each clean one; few data
            are noised more often.
        seed: of the noise.
        only: as for `check`.
        times: how many, equally spaced in the log-SNR, or the times themselves [(k,)].
        tolerances: other ones than `TOLERANCES`, by the names of the checks.

    Returns:
        An `Audit`: a `Report` with `curves` and `plot()`.

    Raises:
        ConfigError: a plain network without sde or parametrization, a model without a target and
            without data, an unknown name or a tolerance <= 0.
        DataError: fewer than 100 samples.
        ShapeError: data that is not (n, *dims), or not of the target's shape.
        NonFiniteError: data that is not finite.
        DtypeError: data that is no floating tensor, a network that cannot be called.
        TimeError: a time outside (0, t_max].

    Reference: arXiv:2210.04296 (Fokker-Planck); arXiv:1602.03253 (Stein);
    doi:10.1198/jasa.2011.tm11181 (Tweedie).

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> from sdekit.verify import check_model
        >>> exact = ExactScore(Gaussian([1.0, -1.0], 0.5), VPSDE())
        >>> network = lambda x, t: exact(x, t).v  # which predicts v
        >>> data = exact.target.sample(4000, generator=torch.Generator().manual_seed(0))
        >>> audit = check_model(
        ...     network, data, sde=VPSDE(), parametrization="eps", only="declared_reading"
        ... )
        >>> print(audit.failures[0].says.partition(":")[0])
        declared eps, but the output fits v
    """
    from sdekit.verify.front import check  # which imports the checks, and they the measures

    predictor = adapted(model, sde, parametrization)
    audited = Audited(
        predictor, data, times=times, draws=max_examples, seed=seed, tolerances=tolerances
    )
    report = check(
        audited, expected_failures=expected_failures, seed=seed, only=only, kind="model"
    )
    return Audit(report.results, audited)


def _curves(audited: Audited) -> dict[str, Curve]:
    found = {}
    for name in MEASURES:
        try:
            found[name] = curve(audited, name)
        except Skip:
            continue
    return found


def picture(audit: Audit | Audited) -> Figure:
    """Every measure over time, with its interval and its tolerance: where the model is wrong.

    A dot is the value, its dark bar two standard errors, the pale band the interval that the check
    goes by, the grey band the tolerance. Orange dots are surely beyond it; a triangle lies below
    the panel, where nothing is wrong.

    Args:
        audit: what `check_model` returned, or an `Audited`.
    """
    from sdekit.plots import Track, tracks

    audited = audit if isinstance(audit, Audited) else audit.audited
    assert audited is not None
    rows = []
    for found in _curves(audited).values():
        places = [-float(audited.sde.log_snr(t)) for t in found.times]
        value, stderr, low, high = zip(*found.points, strict=True)
        beyond = [t in found.beyond for t in found.times]
        rows.append(
            Track(
                found.axis, places, value, stderr, low, high, beyond, found.tolerance,
                found.sides == 2,
            )
        )  # fmt: skip
    every = audited.times.tolist()
    marks = [(-float(audited.sde.log_snr(t)), f"{t:.2g}") for t in every]
    return tracks(rows, marks=marks, axis="t, from data to noise")
