r"""What a network's raw output is, told from its loss: every reading of it is tried.

A reading is a parametrisation of the catalogue, a sign, and a direction of time (the network told
the time input of t, or that of t_max - t). Each turns the raw output into eps_hat, whose loss
E|eps_hat - eps|^2 / d is least for the right one. With the least of all readings and of the
Gaussian floor as L(t), a reading misses by

    F = max over t of [its loss at t - L(t)],                                                   (1)

and another than the declared one is named where it fits, F <= `FITS`, and the declared one's loss
is surely more than `MISFIT` above it at some time. Readings that fit equally well are named
together: for data N(0, I) on a variance-preserving process v and the flow are both 0 everywhere,
and no loss tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.model import TIME_INPUTS, Parametrization, Predictor, ScoreModel
from sdekit.model.parametrization import EDMPrecond
from sdekit.sde import LinearSDE
from sdekit.verify.audit.intervals import mean_and_error, quantile
from sdekit.verify.audit.measures import halves, linear_denoiser
from sdekit.verify.audit.subject import Audited, Seen

__all__ = ["FITS", "MISFIT", "Reading", "Recognition", "recognise"]

FITS = 0.02  # of the loss, a coordinate: what the right reading of a trained network may miss by
MISFIT = 0.03  # by how much the declared one must miss for another to be named
_DRAWS = 4096  # at each time: there are many readings
_EQUAL = 2e-3  # in F: readings that no loss tells apart


class Reading(NamedTuple):
    """One way of reading the raw output.

    Attributes:
        parametrization: what it predicts.
        sign: 1, or -1 where it predicts the negative of it.
        backwards: whether the network is told t_max - t.
    """

    parametrization: Parametrization
    sign: int = 1
    backwards: bool = False

    def __str__(self) -> str:
        """`v`, `-eps`, `x0 with the time backwards, t_max - t`."""
        name = repr(self.parametrization).removesuffix("()")
        turned = " with the time backwards, t_max - t" if self.backwards else ""
        return ("-" if self.sign < 0 else "") + name + turned

    def noise(self, sde: LinearSDE, x: Tensor, raw: Tensor, t: float) -> Tensor:
        """The predicted noise at x [(rows, d)] from the raw output [(rows, d)]."""
        time = torch.tensor(t, dtype=torch.float64)
        on_x, on_raw = (float(w) for w in self.parametrization.weights(sde, time, eps=1.0))
        return on_x * x + self.sign * on_raw * raw


class Recognition(NamedTuple):
    """What was found.

    Attributes:
        declared: how the output is declared to be read.
        best: how it is best read.
        equal: other readings that fit as well.
        fits: F of the best one, eq. (1).
        misses: F of the declared one.
        worst: the time at which the declared one is furthest above the best one.
        sure: by how much it is at least, at that time.
        losses: of every reading, at every time [(k,)].
    """

    declared: Reading
    best: Reading
    equal: tuple[Reading, ...]
    fits: float
    misses: float
    worst: float
    sure: float
    losses: dict[Reading, Tensor]

    @property
    def right(self) -> bool:
        """Whether no other reading is clearly better."""
        return self.best == self.declared or self.fits > FITS or not self.sure > MISFIT

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        if self.best == self.declared or self.right:
            fit = f"its loss is at most {self.misses:.3g} above the least known"
            return f"declared {self.declared}, and no other reading is clearly better: {fit}"
        also = f" (or {', or '.join(map(str, self.equal))})" if self.equal else ""
        return (
            f"declared {self.declared}, but the output fits {self.best}{also}: its loss is at "
            f"most {max(self.fits, 0.0):.3g} above the least, that of {self.declared} "
            f"{self.misses:.3g}, and surely {self.sure:.3g} above at t = {self.worst:.3g}"
        )


def recognise(audited: Audited) -> Recognition:
    """The best reading of the model's output, and how the declared one compares with it."""
    if "recognition" not in audited.cache:
        audited.cache["recognition"] = _recognised(audited)
    return audited.cache["recognition"]


def _recognised(audited: Audited) -> Recognition:
    declared = Reading(declared_by(audited))
    kinds = candidates(audited, declared.parametrization)
    calls = _calls(audited.model)
    laws = halves(audited)
    rows: dict[Reading, list[float]] = {}
    floor = []
    for seen in audited.all():
        other = linear_denoiser(audited, laws, seen)
        floor.append(float((other - seen.noise)[: _rows(audited)].square().mean()))
        for reading, loss in _losses(audited, seen, kinds, calls).items():
            rows.setdefault(reading, []).append(float(loss.mean()))
    losses = {r: torch.tensor(v).nan_to_num(nan=torch.inf) for r, v in rows.items()}
    least = torch.minimum(torch.tensor(floor), torch.stack(list(losses.values())).amin(0))
    misses = {reading: float((loss - least).max()) for reading, loss in losses.items()}
    # of readings that fit equally well the declared one, then the plainest
    close = [r for r in losses if misses[r] <= min(misses.values()) + _EQUAL]
    best = declared if declared in close else min(close, key=_plainness)
    above = losses[declared] - losses[best]
    k = int(above.argmax())
    if best == declared:
        sure = 0.0
    else:
        at = _losses(audited, audited.at(k), kinds, calls)
        mean, error = mean_and_error((at[declared] - at[best])[:, None], audited.each)
        q = quantile(_rows(audited) // audited.each, len(losses) * len(audited.times))
        sure = float(mean - q * error)
    others = tuple(r for r in sorted(close, key=_plainness) if r not in (best, declared))
    return Recognition(
        declared, best, others, misses[best], misses[declared], float(audited.times[k]), sure,
        losses,
    )  # fmt: skip


def declared_by(audited: Audited) -> Parametrization:
    """What the model says that its output is."""
    own = getattr(audited.model, "parametrization", None)
    if own is not None:
        return own
    seen = audited.at(0)
    return audited.predicted(seen.x[:1], seen.t)._origin[1]


def candidates(audited: Audited, declared: Parametrization) -> list[Parametrization]:
    """The declared parametrisation, those of the catalogue, and EDM's for these data."""
    found = [declared]
    for entry in catalogue("parametrization").values():
        found += entry.examples()
    spread = float(audited.data.std(0).square().mean().sqrt())
    if spread > 0:
        found.append(EDMPrecond(sigma_data=spread))
    return list(dict.fromkeys(found))


def _plainness(reading: Reading) -> tuple[bool, bool]:
    return reading.backwards, reading.sign < 0


Call = tuple[Predictor, bool]  # and whether it is called at t_max - t itself


def _calls(model: Any) -> Callable[[Parametrization, bool], tuple[Any, Call]]:
    """What to call for the raw output of a kind, in either direction of time, with its key."""
    made: dict[Any, Call] = {}

    def call(kind: Parametrization, backwards: bool) -> tuple[Any, Call]:
        if not isinstance(model, ScoreModel):
            return ("", backwards), (model, backwards)
        time = torch.tensor(model.sde.t_max, dtype=torch.float64)
        scaled = kind.input_scale(model.sde, time) is not None
        key = (repr(kind) if scaled else "", backwards)  # the input is x wherever it is unscaled
        if key not in made:
            told = _backwards(model.time_input) if backwards else model.time_input
            inner = ScoreModel(model.network, model.sde, parametrization=kind, time_input=told)
            made[key] = inner.train(model.training), False
        return key, made[key]

    return call


def _backwards(time_input: Any) -> Callable[[Any, Tensor], Tensor]:
    function = TIME_INPUTS[time_input] if isinstance(time_input, str) else time_input
    return lambda sde, t: function(sde, mirrored(sde, t))


def mirrored(sde: LinearSDE, t: Tensor) -> Tensor:
    """t_max - t, where a model is defined."""
    least = sde.t_min if float(sde.var(sde.t_min)) > 0 else 0.0
    first = float(sde.to_model_time(torch.tensor(least, dtype=torch.float64)))
    return sde.to_model_time((sde.t_max - t).clamp(first, sde.t_max))


def _losses(
    audited: Audited, seen: Seen, kinds: list[Parametrization], calls: Any
) -> dict[Reading, Tensor]:
    """The loss of every reading at one time, of each draw [(rows,)]."""
    x, eps = (part[: _rows(audited)] for part in (seen.x, seen.noise))
    raws: dict[Any, Tensor] = {}
    found = {}
    mirror = float(mirrored(audited.sde, torch.tensor(seen.t, dtype=torch.float64)))
    for backwards in (False, True):
        for kind in kinds:
            key, (model, elsewhere) = calls(kind, backwards)
            if key not in raws:
                t = mirror if elsewhere else seen.t
                raws[key] = audited.predicted(x, t, model).raw.reshape(x.shape)
            for sign in (1, -1):
                reading = Reading(kind, sign, backwards)
                noise = reading.noise(audited.sde, x, raws[key], seen.t)
                found[reading] = (noise - eps).square().mean(1)
    return found


def _rows(audited: Audited) -> int:
    """How many draws are looked at: all of some samples."""
    return max(1, min(audited.n, _DRAWS // audited.each)) * audited.each
