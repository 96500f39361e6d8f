r"""What a network's raw output is, told from its loss: every reading of it is tried.

A reading is a parametrisation of the catalogue, a sign, and a direction of time (the network told
the time input of t, or that of t_max - t). Each turns the raw output into eps_hat, whose loss
E|eps_hat - eps|^2 / d is least for the right one. With the least of all readings and of the
Gaussian floor as L(t), a reading misses by

    F = max over t of [its loss at t - L(t)],                                                   (1)

and another than the declared one is named where it fits, F <= `FITS`, and the declared one misses
by more than `MISFIT` and than five times as much, where its loss is surely the larger: a network
that is only badly trained is not taken for another one, as which it would be nearly as bad.
Readings that fit equally well are named
together: for data N(0, I) on a variance-preserving process v and the flow are both 0 everywhere,
and no loss tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.model import TIME_INPUTS, Parametrization, ScoreModel
from sdekit.model.parametrization import EDMPrecond
from sdekit.sde import LinearSDE
from sdekit.verify.audit.intervals import quantile, reduced
from sdekit.verify.audit.measures import directions, halves, known, linear_denoiser
from sdekit.verify.audit.subject import Audited

__all__ = ["FITS", "MISFIT", "Reading", "Recognition", "recognise"]

FITS = 0.02  # of the loss, a coordinate: what the right reading of a trained network may miss by
MISFIT = 0.01  # what the declared one must miss by for another to be named: the floor's tolerance
_CLEARLY = 5.0  # times as much as the other one misses by
_DRAWS = 4096  # at each time: there are many readings
_LARGE = 1e6  # what a loss counts as that is larger, or infinite
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
        clearly = self.misses > max(MISFIT, _CLEARLY * self.fits) and self.sure > 0
        return self.best == self.declared or self.fits > FITS or not clearly

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
            f"{self.misses:.3g}; at t = {self.worst:.3g} it is surely {self.sure:.3g} larger"
        )


def recognise(audited: Audited, declared: Parametrization | None = None) -> Recognition:
    """The best reading of the model's output, and how the declared one compares with it.

    Args:
        audited: the model and its data.
        declared: what the output is declared to be; None: what the model says.
    """
    if "readings" not in audited.cache:
        audited.cache["readings"] = _Table(audited)
    table: _Table = audited.cache["readings"]
    reading = Reading(table.kinds[0] if declared is None else declared)
    key = f"recognised {reading}"
    if key not in audited.cache:
        audited.cache[key] = _recognised(audited, table, reading)
    return audited.cache[key]


def _recognised(audited: Audited, table: _Table, declared: Reading) -> Recognition:
    table.include(declared.parametrization)
    losses = {r: table.losses(r).reshape(len(audited.times), -1).mean(1) for r in table.readings}
    least = torch.minimum(_floor(audited), torch.stack(list(losses.values())).amin(0))
    misses = {reading: float((loss - least).max()) for reading, loss in losses.items()}
    # of readings that fit equally well the declared one, then the plainest
    close = [r for r in losses if misses[r] <= min(misses.values()) + _EQUAL]
    best = declared if declared in close else min(close, key=_plainness)
    above = losses[declared] - losses[best]
    k = int(above.argmax())
    sure = 0.0
    if best != declared:
        apart = (table.losses(declared) - table.losses(best))[k]
        none = known(audited.at(k), directions(audited))[: len(apart)].cpu()
        mean, error = reduced(apart[:, None], none, audited.each)
        n = len(apart) // audited.each
        sure = float(mean - quantile(n, len(losses) * len(audited.times)) * error)
    others = tuple(r for r in sorted(close, key=_plainness) if r not in (best, declared))
    return Recognition(
        declared, best, others, misses[best], misses[declared], float(audited.times[k]), sure,
        losses,
    )  # fmt: skip


def _plainness(reading: Reading) -> tuple[bool, bool]:
    return reading.backwards, reading.sign < 0


def _rows(audited: Audited) -> int:
    """How many draws are looked at: all of some samples."""
    return max(1, min(audited.n, _DRAWS // audited.each)) * audited.each


def _floor(audited: Audited) -> Tensor:
    """The loss of the best linear denoiser at every time [(k,)]."""
    laws, rows = halves(audited), _rows(audited)
    errors = [linear_denoiser(audited, laws, seen) - seen.noise for seen in audited.all()]
    return torch.stack([error[:rows].square().mean() for error in errors]).cpu()


def candidates(audited: Audited, declared: Parametrization) -> list[Parametrization]:
    """The declared parametrisation, those of the catalogue, and EDM's for these data."""
    found = [declared]
    for entry in catalogue("parametrization").values():
        found += entry.examples()
    spread = float(audited.data.std(0).square().mean().sqrt())
    if spread > 0:
        found.append(EDMPrecond(sigma_data=spread))
    return list(dict.fromkeys(found))


class _Table:
    """The losses of all readings.

    Each is linear in x and the raw output r, eps_hat = a x + b r, so that with the products of x,
    r and eps of every draw its loss is

        |eps_hat - eps|^2 = a^2 x.x + b^2 r.r + eps.eps + 2 a b x.r - 2 a x.eps - 2 b r.eps.    (2)

    Attributes:
        kinds: what the output may be, first what the model says.
    """

    def __init__(self, audited: Audited) -> None:
        self.audited = audited
        self._weights: dict[Parametrization, tuple[Tensor, Tensor]] = {}
        self._products: dict[Any, Tensor] = {}
        self.kinds: list[Parametrization] = []
        for kind in candidates(audited, declared_by(audited)):
            self.include(kind)

    def include(self, kind: Parametrization) -> None:
        """Have one more, unless it is there."""
        if kind not in self._weights:
            on_x, on_raw = kind.weights(self.audited.sde, self.audited.times, eps=1.0)
            self._weights[kind] = on_x[:, None], on_raw[:, None]
            self.kinds.append(kind)

    @property
    def readings(self) -> list[Reading]:
        """Of every kind, in either sign and either direction of time."""
        return [
            Reading(kind, sign, backwards)
            for backwards in (False, True)
            for sign in (1, -1)
            for kind in self.kinds
        ]

    def losses(self, reading: Reading) -> Tensor:
        """Eq. (2) a coordinate, at every time and of every draw [(k, rows)]."""
        a, b = self._weights[reading.parametrization]
        xx, rr, ee, xr, xe, re = self._products_of(reading)
        b = reading.sign * b
        found = a**2 * xx + b**2 * rr + ee + 2 * a * b * xr - 2 * a * xe - 2 * b * re
        return (found / self.audited.d).nan_to_num(nan=_LARGE).clamp(0.0, _LARGE)

    def _products_of(self, reading: Reading) -> Tensor:
        """The six products [(6, k, rows)], of a network that sees this input and this time."""
        kind, model = reading.parametrization, self.audited.model
        scaled = isinstance(model, ScoreModel) and (
            kind.input_scale(model.sde, self.audited.times) is not None
        )
        key = kind if scaled else None, reading.backwards  # the input is x where it is unscaled
        if key not in self._products:
            raw = _raw(model, kind, reading.backwards)
            rows, columns = _rows(self.audited), []
            for seen in self.audited.all():
                x, noise = seen.x[:rows], seen.noise[:rows]
                r = raw(self.audited, x, seen.t).reshape(x.shape)
                pairs = ((x, x), (r, r), (noise, noise), (x, r), (x, noise), (r, noise))
                columns.append(torch.stack([(one * other).sum(1) for one, other in pairs]))
            self._products[key] = torch.stack(columns, 1).cpu()
        return self._products[key]


def declared_by(audited: Audited) -> Parametrization:
    """What the model says that its output is."""
    own = getattr(audited.model, "parametrization", None)
    if own is not None:
        return own
    seen = audited.at(0)
    return audited.predicted(seen.x[:1], seen.t)._origin[1]


def _raw(
    model: Any, kind: Parametrization, backwards: bool
) -> Callable[[Audited, Tensor, float], Tensor]:
    """The raw output at (x, t), with the input of this kind and the time in this direction."""
    if not isinstance(model, ScoreModel):

        def called(audited: Audited, x: Tensor, t: float) -> Tensor:
            time = torch.tensor(t, dtype=torch.float64)
            at = float(mirrored(audited.sde, time)) if backwards else t
            return audited.predicted(x, at).raw

        return called
    told = _backwards(model.time_input) if backwards else model.time_input
    other = ScoreModel(model.network, model.sde, parametrization=kind, time_input=told)
    other.training = model.training  # its modules are the model's, each in its own mode
    return lambda audited, x, t: audited.predicted(x, t, other).raw


def _backwards(time_input: Any) -> Callable[[Any, Tensor], Tensor]:
    function = TIME_INPUTS[time_input] if isinstance(time_input, str) else time_input
    return lambda sde, t: function(sde, mirrored(sde, t))


def mirrored(sde: LinearSDE, t: Tensor) -> Tensor:
    """t_max - t, where a model is defined."""
    least = sde.t_min if float(sde.var(sde.t_min)) > 0 else 0.0
    first = float(sde.to_model_time(torch.tensor(least, dtype=torch.float64)))
    return sde.to_model_time((sde.t_max - t).clamp(first, sde.t_max))
