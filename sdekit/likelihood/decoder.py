r"""The last term of the bound: how many nats the data cost once the least noisy state is known.

The model says x_0 ~ N(m, s^2), element by element. For real data the cost is that of the density,

    -log p = 1/2 log 2 pi + log s + (x - m)^2 / (2 s^2);                                        (1)

for data on L levels evenly spread over [low, high] it is that of the level's bin, of half-width
h = (high - low) / (2 (L - 1)), the first and the last bin being open to the outside,

    -log P = -log [Phi((x + h - m) / s) - Phi((x - h - m) / s)].                                (2)

(2) is a probability, so that the bound built on it is in nats (and bits) of the data themselves;
(1) is a density, which may be negative nats. The difference in (2) is taken where nothing is lost:
far from the mean both numbers are 1e-1000 and their ratio is a difference of squares, so that the
logarithm is right there too, and has a gradient. Ho et al.'s code puts

    Phi(u) ~ (1 + tanh(sqrt(2 / pi) (u + 0.044715 u^3))) / 2                                    (3)

and a floor of 1e-12 under the probability, which cuts the tails off (and their gradient): the
option `tanh`, for comparison with numbers that were made so.

References: Ho et al., arXiv:2006.11239, eq. 13; (3) Page, Applied Statistics 26 (1977), 75.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit._check import Checked, choice, flag, integer, number, readable, shown
from sdekit.errors import ConfigError, DataError, DtypeError

__all__ = ["DECODERS", "Decoder"]

DECODERS = ("gaussian", "discretized")
_LOG_2PI = math.log(2 * math.pi)
_NARROW = 0.05  # h (1 + |c|) below which the first term left out of the series is below 1e-16
_FLOOR = math.log(1e-12)  # of eq. (3)'s probabilities, in the released code


@dataclass(frozen=True, kw_only=True)
class Decoder(Checked):
    """-log p(x_0 | x_t) of independent Gaussians, as a density or of bins.

    Args:
        kind: "gaussian", eq. (1), or "discretized", eq. (2).
        levels: L, the number of levels of the data, >= 2; of discretized only.
        data_range: (low, high), the first and the last level.
        tanh: eq. (3) for Phi, with its floor; of discretized only.

    Raises:
        ConfigError: an unknown kind, levels < 2, a range that does not rise.
        DtypeError: a field of the wrong type.

    Reference: arXiv:2006.11239, eq. 13.

    Example:
        >>> import torch
        >>> decoder = Decoder(kind="discretized", levels=3)
        >>> x, mean = torch.tensor([-1.0, 0.0, 1.0]).double(), torch.zeros(3).double()
        >>> nats = decoder.nats(x, mean, mean)  # of three bins that fill the line
        >>> round(float((-nats).exp().sum()), 12)
        1.0
    """

    kind: str = "gaussian"
    levels: int = 256
    data_range: Sequence[float] = (-1.0, 1.0)
    tanh: bool = False

    def __post_init__(self) -> None:
        """Check the fields."""
        choice("decoder", self.kind, DECODERS)
        ends = self.data_range
        if isinstance(ends, str) or not isinstance(ends, Sequence) or len(ends) != 2:
            raise DtypeError(f"data_range must be (low, high), got {shown(ends)}")
        low = number("data_range[0]", ends[0])
        high = number("data_range[1]", ends[1])
        if not low < high:
            raise ConfigError(f"data_range must rise, got ({low:g}, {high:g})")
        self._set(
            levels=integer("levels", self.levels, ge=2, error=ConfigError),
            data_range=(low, high),
            tanh=flag("tanh", self.tanh),
        )

    @property
    def half_bin(self) -> float:
        """The half-width h of eq. (2)."""
        low, high = self.data_range
        return (high - low) / (2 * (self.levels - 1))

    def check(self, x0: Tensor) -> None:
        """Refuse data off the levels, where bins are asked for.

        Raises:
            DataError: a value that is no level; the first is named.
        """
        if self.kind != "discretized" or not readable(x0):
            return
        low, _ = self.data_range
        place = (x0.double() - low) / (2 * self.half_bin)
        # a level that came through a narrower type is still that level
        slack = max(1e-3, 8 * torch.finfo(x0.dtype).eps * self.levels)
        off = ((place - place.round()).abs() > min(slack, 0.25)) | (
            (place.round() < 0) | (place.round() > self.levels - 1)
        )
        if bool(off.any()):
            at = tuple(off.nonzero()[0].tolist())
            raise DataError(
                f"decoder='discretized' needs data on {self.levels} levels of "
                f"[{low:g}, {self.data_range[1]:g}], got x[{', '.join(map(str, at))}] = "
                f"{x0[at].item():.9g}; quantise the data, or take decoder='gaussian'"
            )

    def nats(self, x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """-log p of each element [shape of x0], in float64 and differentiable.

        Args:
            x0: the data [any shape].
            mean: m [the same shape].
            log_var: 2 log s [broadcasts to it].
        """
        x0, mean, log_var = (each.to(torch.float64) for each in (x0, mean, log_var))
        scale = torch.exp(-0.5 * log_var)
        away = (x0 - mean) * scale
        if self.kind == "gaussian":
            return 0.5 * (_LOG_2PI + log_var + away.square())
        half = self.half_bin * scale
        low, high = self.data_range
        first, last = x0 < low + self.half_bin, x0 > high - self.half_bin
        between = _log_between_tanh if self.tanh else _log_between
        below = _log_sigmoid if self.tanh else torch.special.log_ndtr
        inside = between(away, half)
        value = torch.where(first, below(away + half), inside)
        value = torch.where(last, below(half - away), value)
        return -(value.clamp_min(_FLOOR) if self.tanh else value)


def _log_between(c: Tensor, h: Tensor) -> Tensor:
    """log(Phi(c + h) - Phi(c - h)) for h > 0, to near rounding wherever the bin is.

    Mirrored so that c <= 0, with a = c - h, b = c + h. Where h (1 + |c|) is small, Phi's Taylor
    series about c; else, where b > 0, the error function's two values have two signs; else

        Phi(b) - Phi(a) = e^{-b^2/2} [E(-b) - e^{(b^2 - a^2)/2} E(-a)] / 2,  E(u) = erfcx(u/sqrt 2)

    with (b^2 - a^2)/2 = 2 c h. Each branch gets arguments of its own kind, so that the gradient of
    those not taken is finite.
    """
    c = -c.abs()
    narrow, straddles = h * (1 - c) < _NARROW, c + h > 0
    root = math.sqrt(0.5)

    h_n, c_n = torch.where(narrow, h, 0.5 * _NARROW), torch.where(narrow, c, 0.0)
    c2, h2 = c_n.square(), h_n.square()
    he4, he6 = (c2 - 6) * c2 + 3, ((c2 - 15) * c2 + 45) * c2 - 15
    series = h2 * ((c2 - 1) / 6 + h2 * (he4 / 120 + h2 * (he6 / 5040)))
    narrow_log = torch.log1p(series) - 0.5 * (c2 + _LOG_2PI) + (2 * h_n).log()

    tail = ~(narrow | straddles)
    h_t, c_t = torch.where(tail, h, 0.5), torch.where(tail, c, -1.0)
    far = torch.exp(2 * c_t * h_t) * torch.special.erfcx(root * (h_t - c_t))
    near = torch.special.erfcx(-root * (h_t + c_t))
    tail_log = (0.5 * (near - far)).log() - 0.5 * (c_t + h_t).square()

    middle = straddles & ~narrow
    h_m, c_m = torch.where(middle, h, 1.0), torch.where(middle, c, 0.0)
    outside = 0.5 * (torch.erfc(root * (c_m + h_m)) + torch.erfc(root * (h_m - c_m)))
    middle_log = torch.log1p(-outside)
    return torch.where(narrow, narrow_log, torch.where(straddles, middle_log, tail_log))


def _cubic(u: Tensor) -> Tensor:
    """Of eq. (3): Phi(u) = sigmoid(cubic(u))."""
    return 2 * math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)


def _log_sigmoid(u: Tensor) -> Tensor:
    """Log Phi(u) by eq. (3)."""
    return torch.nn.functional.logsigmoid(_cubic(u))


def _log_between_tanh(c: Tensor, h: Tensor) -> Tensor:
    """log(Phi(b) - Phi(a)) by eq. (3): sigmoid(B) sigmoid(-A) (1 - e^{A - B})."""
    a, b = c - h, c + h
    step = _cubic(b) - _cubic(a)
    return _log_sigmoid(b) + _log_sigmoid(-a) + torch.log(-torch.expm1(-step))
