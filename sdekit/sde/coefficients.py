r"""A linear SDE from its coefficients: kernels by adaptive Gauss-Legendre quadrature.

    log_alpha(t) = log_alpha(a) + int_a^t f(u) du                                          (1)
    var(t) = e^{2 (la(t) - la(a))} var(a) + int_a^t g2(u) e^{2 (la(t) - la(u))} du         (2)

[0, t_max] is cut once, where it is needed, into panels [a, b] on which a rule with 16 nodes and
the same rule on both halves agree. A later t costs one rule on [a, t]: its error is relative to
the integral itself, so var(1e-12) is as accurate as var(1/2), and derivatives in t flow through
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sdekit._check import number, readable, shown
from sdekit._times import Time, entries
from sdekit.errors import ConfigError, DtypeError, ShapeError
from sdekit.sde.base import LinearSDE

__all__ = ["CoefficientSDE"]

_NODES, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(16))
_UNIT = 0.5 * (_NODES + 1)  # the nodes on [0, 1]
_AGREE = 1e-13  # of a panel's integral, relative to the integral up to there
_MOST_PANELS = 4096
_OPEN = 1e-8  # of the integral: more than that in the narrowest panels is no jump but a pole
_NARROWEST = 2.0**-44  # of t_max: a jump of f or g2 is enclosed to this width, then accepted


@dataclass(frozen=True, kw_only=True)
class CoefficientSDE(LinearSDE):
    """dx = f(t) x dt + g(t) dW from two functions; see `LinearSDE.from_coefficients`."""

    f_of_t: Callable[[Tensor], Tensor]
    g2_of_t: Callable[[Tensor], Tensor]
    var0: float = 0.0
    _starts: Tensor = field(init=False, repr=False, compare=False)
    _log_alphas: Tensor = field(init=False, repr=False, compare=False)
    _vars: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields and cut the panels."""
        super().__post_init__()
        self._set(var0=number("var0", self.var0, ge=0))
        for name, function in (("f", self.f_of_t), ("g2", self.g2_of_t)):
            if not callable(function):
                raise DtypeError(f"{name} must be a function of t, got {shown(function)}")
        panels = self._cut()
        edges, integrals, gains = zip(*panels, strict=True)
        log_alphas, variances = [0.0], [self.var0]
        for integral, gain in zip(integrals, gains, strict=True):
            log_alphas.append(log_alphas[-1] + integral)
            variances.append(float(np.exp(2 * integral)) * variances[-1] + gain)
        self._set(
            _starts=torch.tensor([0.0, *edges[:-1]], dtype=torch.float64),
            _log_alphas=torch.tensor(log_alphas[:-1], dtype=torch.float64),
            _vars=torch.tensor(variances[:-1], dtype=torch.float64),
        )
        if variances[-1] == 0:
            raise ConfigError("g2 must not be 0 everywhere: degenerate, no noise")
        self._check_start()

    def _cut(self) -> list[tuple[float, float, float]]:
        """Accepted panels from left to right: their right end and their two integrals."""
        panels: list[tuple[float, float, float]] = []
        rough, g_rough = 0.0, 0.0  # what the panels accepted for their narrowness leave open
        waiting = [(0.0, self.t_max)]
        while waiting:
            a, b = waiting.pop()
            middle = 0.5 * (a + b)
            starts = torch.tensor([a, a, middle], dtype=torch.float64)
            ends = torch.tensor([b, middle, b], dtype=torch.float64)
            (whole, left, right), (g_whole, g_left, g_right) = (
                column.tolist() for column in self._integrals(starts, ends)
            )
            halves, g_halves = left + right, float(np.exp(2 * right)) * g_left + g_right
            agree = abs(whole - halves) <= _AGREE * (abs(left) + abs(right))
            if agree and abs(g_whole - g_halves) <= _AGREE * g_halves:
                panels.append((b, halves, g_halves))
            elif b - a < _NARROWEST * self.t_max:
                panels.append((b, halves, g_halves))
                rough, g_rough = rough + abs(whole - halves), g_rough + abs(g_whole - g_halves)
            else:
                waiting += [(middle, b), (a, middle)]
            if len(panels) + len(waiting) > _MOST_PANELS:
                raise ConfigError(
                    f"f and g2 cannot be integrated on [0, {self.t_max:g}]: more than "
                    f"{_MOST_PANELS} panels, the last near t = {middle:.6g}"
                )
        for name, left_open, parts in (("f", rough, 1), ("g2", g_rough, 2)):
            if left_open > _OPEN * sum(abs(panel[parts]) for panel in panels):
                raise ConfigError(
                    f"{name} cannot be integrated on [0, {self.t_max:g}]: it is singular"
                )
        return panels

    def _integrals(self, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The integrals of eqs. (1) and (2) over [a, t], elementwise [shape of t]."""
        unit = _UNIT.to(t.device)
        u = a[..., None] + (t - a)[..., None] * unit
        inner = u[..., None] + (t[..., None] - u)[..., None] * unit
        log_gain = 0.5 * (t[..., None] - u) * _weighted(self._value("f", inner))
        integral = 0.5 * (t - a) * _weighted(self._value("f", u))
        g2 = self._value("g2", u)
        if readable(g2) and bool((g2 < 0).any()):
            raise ConfigError(
                f"g2 must be >= 0, got {g2.min().item():.6g} at t = {_worst(u, g2):.6g}"
            )
        return integral, 0.5 * (t - a) * _weighted(g2 * (2 * log_gain).exp())

    def _value(self, name: str, u: Tensor) -> Tensor:
        value = (self.f_of_t if name == "f" else self.g2_of_t)(u)
        if not isinstance(value, Tensor):
            value = torch.full_like(u, number(name, value))
        if value.shape != u.shape:
            raise ShapeError(
                f"{name}(t) must have the shape of t {tuple(u.shape)}, got {value.shape}"
            )
        value = value.to(torch.float64)
        if readable(value) and not bool(torch.isfinite(value).all()):
            bad = u[~torch.isfinite(value)].flatten()[0].item()
            raise ConfigError(
                f"{name}(t) must be finite inside [0, t_max], it is not at t = {bad:.6g}"
            )
        return value

    def _panel(self, t: Tensor) -> list[Tensor]:
        """Of the panel that holds t: its start, log_alpha there and var there [shape of t]."""
        starts = self._starts.to(t.device)
        at = (torch.searchsorted(starts, t.detach().contiguous(), right=True) - 1).clamp_min(0)
        return [entries(column, at) for column in (starts, self._log_alphas, self._vars)]

    def log_alpha(self, t: Time) -> Tensor:
        """Eq. (1) [shape of t]."""
        start, log_alpha, _ = self._panel(t)
        return log_alpha + self._integrals(start, t)[0]

    def var(self, t: Time) -> Tensor:
        """Eq. (2) [shape of t]."""
        start, _, var = self._panel(t)
        log_gain, fresh = self._integrals(start, t)
        return (2 * log_gain).exp() * var + fresh

    def f(self, t: Time) -> Tensor:
        """The function that was given [shape of t]."""
        return self._value("f", t)

    def g2(self, t: Time) -> Tensor:
        """The function that was given [shape of t]."""
        return self._value("g2", t)

    @classmethod
    def examples(cls) -> list[CoefficientSDE]:
        """A constant rate with its stationary variance 1, and a VE with var(0) > 0."""
        return [
            cls(
                f_of_t=lambda t: torch.full_like(t, -3.0),
                g2_of_t=lambda t: torch.full_like(t, 6.0),
            ),
            cls(f_of_t=torch.zeros_like, g2_of_t=lambda t: 50.0 * t, var0=1e-4),
        ]


def _weighted(values: Tensor) -> Tensor:
    """The rule's sum over the last axis; not a matrix product, which depends on the batch."""
    return (values * _WEIGHTS.to(values.device)).sum(-1)


def _worst(u: Tensor, value: Tensor) -> float:
    return float(u.flatten()[value.argmin()])
