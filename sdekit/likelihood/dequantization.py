r"""Variational dequantisation: noise that is learnt, so that its bound on log P(k) is tighter.

Of whole numbers k in d cells of width w (`bits.py`, eq. 1), with x = low + w (k + u) of density p,

    log P(k) = log int p(x) dx over the cells
             >= E_q [log p(x) - log q(u | k)] + d log w,                                        (1)

for any law q(u | k) on (0, 1)^d. What is left open is KL(q(u | k) || p(u | k)), so that uniform
noise, q = 1, is right only where p is flat in each cell. Here q is a normal law behind a sigmoid,
its mean and deviation made of k by a network,

    u = sigmoid(y),   y = mean(k) + exp(log_std(k)) eps,   eps ~ N(0, I),                       (2)
    log q(u | k) = sum_i [-eps_i^2/2 - log_std_i - log(2 pi)/2 - log u_i - log(1 - u_i)],       (3)

with -log u - log(1 - u) = |y| + 2 log(1 + e^{-|y|}), which loses nothing where u is nearly 0 or 1.
The average of K draws inside the logarithm is a bound too, and one that rises with K:

    log P(k) >= E log 1/K sum_j p(x_j) / q(u_j | k) + d log w.                                  (4)

References: Ho et al., arXiv:1902.00275, section 3.1, eqs. 4 to 6 (eq. 1), with a normal law in the
place of their flow; Burda et al., arXiv:1509.00519, eq. 8 and theorem 1 (eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sdekit._check import flag, integer, number, readable, shown
from sdekit.errors import (
    ConfigError,
    DataError,
    DtypeError,
    ModelError,
    NonFiniteError,
    ShapeError,
)
from sdekit.likelihood.bits import Quantization
from sdekit.model import MLP
from sdekit.objectives.base import same_generator

__all__ = ["DequantizedBound", "VariationalDequantizer"]

LogDensity = Callable[[Tensor], Tensor]

_FLAT = 1.75  # the deviation of y at which u is nearest to uniform: KL 0.0095 nats a dimension
_LOG_2PI = math.log(2 * math.pi)


class DequantizedBound(NamedTuple):
    """Lower bounds on log P(k) of each sample, in nats, float64.

    `nats` [(batch,)] and their standard errors over the draws, `stderr` [(batch,)], NaN with one
    draw. In bits per dimension: -nats / (d log 2).
    """

    nats: Tensor
    stderr: Tensor


class VariationalDequantizer(nn.Module):
    """Noise q(u | k) for whole numbers, eq. (2), to be fitted to a density; nearly flat at first.

    Args:
        quantization: how the whole numbers became what a model sees.
        shape: of a sample, (*dims).
        width: units of the network's two hidden layers, >= 1.
        seed: of its initial weights; the global generator is not used.

    Raises:
        DtypeError: quantization is no Quantization, or a size or seed no int.
        ShapeError: shape is no sequence of sizes.
        ConfigError: a size < 1.

    Reference: arXiv:1902.00275, section 3.1.

    Example:
        >>> import torch
        >>> from sdekit import Gaussian
        >>> law = Gaussian([0.0], 0.01)  # narrower than a cell
        >>> noise = VariationalDequantizer(Quantization(levels=4), (1,), width=16)
        >>> k = torch.tensor([[1], [2]])
        >>> before = noise.bound(law.log_prob, k, draws=100, generator=torch.Generator())
        >>> losses = noise.fit(law.log_prob, k, steps=200, lr=0.03)
        >>> after = noise.bound(law.log_prob, k, draws=100, generator=torch.Generator())
        >>> bool((after.nats > before.nats + 1).all()), bool((after.nats < -0.69).all())
        (True, True)
    """

    def __init__(
        self,
        quantization: Quantization,
        shape: Sequence[int],
        *,
        width: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(quantization, Quantization):
            raise DtypeError(f"quantization must be a Quantization, got {shown(quantization)}")
        if not isinstance(shape, Sequence) or isinstance(shape, str):
            raise ShapeError(f"shape must be the sizes (*dims) of a sample, got {shown(shape)}")
        self.quantization = quantization
        self.shape = tuple(integer("shape", size, ge=1) for size in shape)
        self.dim = math.prod(self.shape)
        integer("width", width, ge=1)
        self.network = MLP(
            self.dim, width=width, depth=2, frequencies=1, seed=seed, outputs=2 * self.dim
        )
        for parameter in self.network.layers[-1].parameters():
            nn.init.zeros_(parameter)  # the same noise for every k, until it is fitted

    @property
    def log_volume(self) -> float:
        """Of the cell of a sample: d log w."""
        return self.dim * math.log(self.quantization.width)

    def forward(
        self, values: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """One draw: x in the cells of the values, and log q(u | k), both differentiable.

        Args:
            values: whole numbers 0 .. levels - 1 [(batch, *shape)].
            generator: of eps; without one, a fresh stream.

        Returns:
            x [(batch, *shape)] in the dtype of the parameters, and log q [(batch,)] in float64.

        Raises:
            DataError: a value that is no such number.
            ShapeError: values are not (batch, *shape).
            DtypeError: values or generator of another type.
            DeviceError: a generator on another device.

        Reference: arXiv:1902.00275, section 3.1; eqs. (2) and (3) above.
        """
        mean, log_std = self._law(self._checked(values))
        return self._drawn(values, mean, log_std, same_generator(generator, values.device))

    def bound(
        self,
        log_density: LogDensity,
        values: Tensor,
        *,
        draws: int = 1,
        generator: torch.Generator | None = None,
        importance: bool = False,
    ) -> DequantizedBound:
        """Lower bounds on log P(k), eq. (1), or eq. (4) with K = draws; nothing is recorded.

        Args:
            log_density: log p, (batch, *shape) -> (batch,) nats; of a model, or a bound on it.
            values: whole numbers [(batch, *shape)].
            draws: of the noise for each sample, >= 1.
            generator: of the noise; without one, a fresh stream.
            importance: the average inside the logarithm, eq. (4). Its standard error is that of
                the average, to first order.

        Raises:
            ConfigError: draws < 1.
            ModelError: log_density returns no tensor.
            ShapeError: it returns another shape than (batch,).
            NonFiniteError: it returns NaN or infinity; the rows are named.
            DataError: and the other errors of `forward`.

        Reference: arXiv:1902.00275, eq. 6; arXiv:1509.00519, eq. 8.
        """
        draws, inside = integer("draws", draws, ge=1), flag("importance", importance)
        source = same_generator(generator, self._checked(values).device)
        with torch.no_grad():
            mean, log_std = self._law(values)
            each = torch.stack(
                [self._gains(log_density, values, mean, log_std, source) for _ in range(draws)]
            )
        if not inside:
            spread = each.std(0) if draws > 1 else torch.full_like(each[0], math.nan)
            return DequantizedBound(each.mean(0), spread / draws**0.5)
        nats = torch.logsumexp(each, 0) - math.log(draws)
        ratio = (each - nats).exp()  # of mean 1
        spread = ratio.std(0) if draws > 1 else torch.full_like(nats, math.nan)
        return DequantizedBound(nats, spread / draws**0.5)

    def fit(
        self,
        log_density: LogDensity,
        values: Tensor,
        *,
        steps: int,
        lr: float = 1e-2,
        batch_size: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Raise the bound (1) by Adam, its rate falling to 0 along a cosine.

        The density is left as it is: no gradient is kept for its own parameters.

        Args:
            log_density: log p, differentiable, (batch, *shape) -> (batch,) nats; or a bound on it.
            values: whole numbers to fit to [(n, *shape)].
            steps: how many, >= 0.
            lr: the learning rate, > 0.
            batch_size: values a step, drawn with replacement; None: all of them.
            generator: of the rows and the noise; without one, seed 0.
            progress: show a progress bar.

        Returns:
            The bound's mean over each step's batch, in nats [(steps,)], float64.

        Raises:
            ConfigError: steps < 0, lr <= 0 or batch_size < 1.
            ModelError: log_density has no gradient, or returns no tensor.
            DataError: no values; and the other errors of `bound`.

        Reference: arXiv:1902.00275, eq. 6.
        """
        steps, lr = integer("steps", steps, ge=0, error=ConfigError), number("lr", lr, gt=0)
        n = len(self._checked(values))
        if n == 0:
            raise DataError("values must hold at least one sample to fit to, got none")
        size = None if batch_size is None else integer("batch_size", batch_size, ge=1)
        if generator is None:
            generator = torch.Generator(device=values.device).manual_seed(0)
        source = same_generator(generator, values.device)
        parameters = list(self.parameters())
        optimizer = torch.optim.Adam(parameters, lr=lr)
        history = []
        with torch.enable_grad():
            for k in _counted(steps, progress):
                rows = values
                if size is not None:
                    at = torch.randint(n, (size,), generator=source, device=values.device)
                    rows = values[at]
                gains = self._gains(log_density, rows, *self._law(rows), source)
                optimizer.param_groups[0]["lr"] = 0.5 * lr * (1 + math.cos(math.pi * k / steps))
                # into these parameters alone
                slopes = torch.autograd.grad(-gains.mean(), parameters)
                for parameter, slope in zip(parameters, slopes, strict=True):
                    parameter.grad = slope
                optimizer.step()
                history.append(gains.mean().detach())
        optimizer.zero_grad(set_to_none=True)
        return torch.stack(history) if history else torch.zeros(0, dtype=torch.float64)

    def _checked(self, values: Tensor) -> Tensor:
        """The values, all whole numbers in their range [(batch, *shape)]."""
        if self.quantization.checked(values).shape[1:] != self.shape:
            raise ShapeError(
                f"values must have shape (batch, {', '.join(map(str, self.shape))}), "
                f"got {tuple(values.shape)}"
            )
        return values

    def _law(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log_std of eq. (2) [(batch, *shape)] each, in float64."""
        own = next(self.parameters()).dtype
        seen = (2 * values.to(torch.float64) + 1) / self.quantization.levels - 1
        flat = seen.reshape(len(values), self.dim).to(own)
        raw = self.network(flat, flat.new_zeros(len(flat))).to(torch.float64)
        mean, log_std = (part.reshape(values.shape) for part in raw.chunk(2, dim=1))
        return mean, log_std + math.log(_FLAT)

    def _drawn(
        self, values: Tensor, mean: Tensor, log_std: Tensor, source: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """x of eq. (1) and log q of eq. (3)."""
        eps = torch.randn(mean.shape, generator=source, dtype=torch.float64, device=mean.device)
        y = mean + log_std.exp() * eps
        size = y.abs()
        each = size + 2 * torch.log1p((-size).exp()) - 0.5 * (eps.square() + _LOG_2PI) - log_std
        u = y.sigmoid().to(next(self.parameters()).dtype)
        below = 1 - 0.5 * torch.finfo(u.dtype).eps  # the largest number under 1
        x = self.quantization.placed(values, u.clamp_max(below))
        return x, each.reshape(len(each), self.dim).sum(1)

    def _gains(
        self,
        log_density: LogDensity,
        values: Tensor,
        mean: Tensor,
        log_std: Tensor,
        source: torch.Generator,
    ) -> Tensor:
        """log p(x) - log q(u | k) + d log w of one draw [(batch,)]."""
        x, log_q = self._drawn(values, mean, log_std, source)
        nats = log_density(x)
        if not isinstance(nats, Tensor) or not nats.dtype.is_floating_point:
            raise ModelError(f"log_density must return a floating tensor, got {shown(nats)}")
        if nats.shape != log_q.shape:
            raise ShapeError(
                f"log_density must return shape {tuple(log_q.shape)}, got {tuple(nats.shape)}"
            )
        if readable(nats) and not bool(nats.isfinite().all()):
            rows = (~nats.isfinite()).nonzero().flatten()[:5].tolist()
            raise NonFiniteError(f"log_density returned NaN or infinity, first rows: {rows}")
        if x.requires_grad and not nats.requires_grad:
            raise ModelError(
                "log_density must have a gradient to fit noise to it, got values cut off from x"
            )
        return nats.to(torch.float64) - log_q + self.log_volume


def _counted(steps: int, shown: bool) -> Iterable[int]:
    """0 .. steps - 1, with a bar where it is wanted."""
    if not shown:
        return range(steps)
    from rich import console, progress  # only where it is shown

    return progress.track(range(steps), "fitting the noise", console=console.Console(stderr=True))
