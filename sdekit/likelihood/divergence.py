r"""The divergence of a model's output: exact, or estimated along probes.

    div u = sum_i e_i . (J e_i)                      exactly, d products with the Jacobian      (1)
          = E v . (J v),   E v v^T = I               by probes v                                (2)

v is uniform on {-1, 1}^d (Rademacher) or standard normal (Gaussian); the mean of (2) over all 2^d
sign vectors is (1). A probe stays the same along a solve, so that the estimate is the integral of
one smooth function, and it depends on the seed and the sample alone.

Products with the transposed Jacobian come from one graph of one call, all of them at once by vmap,
or one after another where the batch is so large that nothing is gained, and for a network that
vmap refuses. (Forward mode was never more than a sixth faster, and mostly slower, on MLPs of 2 to
784 inputs: `benchmarks/likelihood.py`.) An exact score knows its Laplacian and needs none of them.

References: Hutchinson 1990, doi:10.1080/03610919008812866; Grathwohl et al., arXiv:1810.01367,
section 3.1 (one probe along a solve).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit._check import choice, integer
from sdekit.errors import ConfigError, ModelError
from sdekit.sampling.noise import KeyedNoise, seed_from

__all__ = ["DIVERGENCES", "Divergence", "Probed", "divergence_of", "refuse_unless_constant"]

DIVERGENCES = ("exact", "rademacher", "gaussian")
_LARGEST = 10_000  # dimensions of an exact divergence
_FEW, _MANY = 4, 1024  # dimensions up to which, samples from which, vmap gains nothing
_PROBES = 2**30  # numbers of all probes: 8 GB
_NUMBERS = 2**24  # of the rows that are pulled back at once

RawCall = Callable[[Tensor, Any], Tensor]


class Probed(NamedTuple):
    """Raw output [(batch, *dims)] and its divergence by every probe [(batch, probes)]."""

    raw: Tensor
    divergence: Tensor


class Divergence:
    """v . (J v) of a model's raw output for given probes, or the exact trace.

    Args:
        probes: v [(probes, batch, *dims)]; None: the exact trace.
    """

    def __init__(self, probes: Tensor | None) -> None:
        self.probes = probes
        self._differentiable = False  # whether a gradient has been seen
        self._by_vmap = True

    @property
    def columns(self) -> int:
        """How many estimates there are."""
        return 1 if self.probes is None else len(self.probes)

    def __call__(self, call: RawCall, x: Tensor, t: float) -> Probed:
        """The raw output at x [(batch, *dims)] and its divergence."""
        if not len(x):
            return Probed(x, x.new_zeros(0, self.columns))
        with torch.inference_mode(False), torch.enable_grad():
            point = x.detach().clone().requires_grad_()
            raw = call(point, t)
            if not self._differentiable:
                self._differentiable = _slope(raw, raw.sum(), point) is not None
            if not (self._differentiable and raw.requires_grad):
                refuse_unless_constant(call, point, raw, t)
                return Probed(raw.detach(), x.new_zeros(len(x), self.columns))
            found = self._pulled(point, raw)
        return Probed(raw.detach(), found.detach())

    def check(self, call: RawCall, x: Tensor, t: float, size: float) -> None:
        """Compare autograd along one direction with a difference, at samples where both are tame.

        Args:
            call: the model's raw output.
            x: samples [(batch, *dims)].
            t: their time, one at which the output is smooth.
            size: over which lengths x changes there.

        Raises:
            ModelError: half of the samples or more have another derivative than autograd says: a
                part of the model is detached; or the output has none and is not constant.
        """
        with torch.inference_mode(False), torch.enable_grad():
            point = x.detach().clone().requires_grad_()
            raw = call(point, t)
            eps = torch.finfo(raw.dtype).eps
            v = torch.arange(x[0].numel(), device=x.device).cos().sign().to(raw.dtype)
            v = v.reshape(x.shape[1:]).expand(x.shape)
            slope = _slope(raw, (raw * v).sum(), point)
            if slope is None or not bool(slope.any()):
                refuse_unless_constant(call, point, raw, t)
                return
        step = size * eps ** (1 / 3)
        with torch.no_grad():
            moved = call(x + step * v.to(x.dtype), t) - call(x - step * v.to(x.dtype), t)
            change = (moved / (2 * step)).reshape(len(x), -1).double()
            flat = v.reshape(len(x), -1).double()
            seen, true = (slope.reshape(len(x), -1) * flat).sum(1), (change * flat).sum(1)
            noise = eps / step * raw.reshape(len(x), -1).abs().sum(1)
            allowed = 0.1 * (seen.abs() + true.abs()) + 8 * noise
            allowed = allowed + 0.05 * change.norm(dim=1) * flat.norm(dim=1)
            if float(((seen - true).abs() > allowed).double().mean()) >= 0.5:
                worst = int(((seen - true).abs() - allowed).argmax())
                raise ModelError(
                    "the divergence needs autograd, and the model's output changes by "
                    f"{float(true[worst]):.4g} along a direction in which autograd says "
                    f"{float(seen[worst]):.4g} (t = {t:.6g}): a part of it is detached, rounded "
                    "or random"
                )

    def _pulled(self, point: Tensor, raw: Tensor) -> Tensor:
        """v . (J^T v) [(batch, columns)]."""
        batch, dim = len(point), point[0].numel() if len(point) else 0
        count = dim if self.probes is None else len(self.probes)

        def along(i: Tensor, batched: bool = False) -> Tensor:
            v = self._probe(i, raw)
            # grad_outputs takes half a second of imports, once: only where vmap needs it
            (slope,) = (
                torch.autograd.grad(raw, point, v, retain_graph=True)
                if batched
                else torch.autograd.grad((raw * v).sum(), point, retain_graph=True)
            )
            return (slope * v).reshape(batch, -1).sum(1)

        numbers = torch.arange(count, device=point.device)
        if self._by_vmap and count > _FEW and batch < _MANY:
            try:
                size = max(1, _NUMBERS // max(1, batch * dim))
                rows = torch.func.vmap(partial(along, batched=True), chunk_size=size)(numbers)
            except RuntimeError:  # an operation of the network that vmap does not know
                self._by_vmap = False
                return self._pulled(point, raw)
        else:
            rows = torch.stack([along(i) for i in numbers]) if count else raw.new_zeros(0, batch)
        return (rows.sum(0)[:, None] if self.probes is None else rows.T).to(torch.float64)

    def _probe(self, i: Tensor, raw: Tensor) -> Tensor:
        """Probe i like the output, or the i-th unit vector for every sample."""
        if self.probes is not None:
            return self.probes.index_select(0, i.reshape(1))[0].to(raw.dtype)
        flat = torch.arange(raw[0].numel(), device=raw.device) == i
        return flat.to(raw.dtype).reshape(raw.shape[1:]).expand(raw.shape)


def _slope(raw: Tensor, value: Tensor, point: Tensor) -> Tensor | None:
    """d value / d point; None where the output has no graph that leads there."""
    if not raw.requires_grad:
        return None
    return torch.autograd.grad(value, point, retain_graph=True, allow_unused=True)[0]


def refuse_unless_constant(call: RawCall, point: Tensor, raw: Tensor, t: float) -> None:
    """No derivative in x is right for a constant alone.

    Raises:
        ModelError: the output has none, and depends on x.
    """
    with torch.no_grad():
        x = point.detach()
        # far away, in an order turned round: also what is constant in pieces shows there
        ramp = torch.linspace(-3, 3, x.numel(), dtype=x.dtype, device=x.device)
        others = (-2 * x - 1, ramp.reshape(x.shape) - x)
        if any(bool((call(other, t) != raw).any()) for other in others):
            raise ModelError(
                "the divergence needs autograd, and the model's output has no gradient in x at "
                f"t = {t:.6g} though it depends on x: it is detached, rounded, computed under "
                "no_grad or by another library"
            )


def divergence_of(name: str, probes: object, x: Tensor, seed: object) -> Divergence:
    """The divergence of this name for samples like x.

    Args:
        name: exact, rademacher or gaussian.
        probes: how many; 1 where it is exact.
        x: the samples [(batch, *dims)].
        seed: of the probes.

    Raises:
        ConfigError: an unknown name, probes < 1, several probes of an exact divergence, or more
            dimensions than an exact one can be had for.
        DtypeError: probes is no int, or seed no int, generator or None.
    """
    choice("divergence", name, DIVERGENCES)
    count, dim = integer("probes", probes, ge=1), x[0].numel() if len(x) else 0
    if name == "exact":
        if count != 1:
            raise ConfigError(f"probes={count} belong to divergence='rademacher' or 'gaussian'; "
                              "an exact divergence has none")  # fmt: skip
        if dim > _LARGEST:
            raise ConfigError(
                f"divergence='exact' of {dim} dimensions takes {dim} products with the Jacobian "
                f"at every call; above {_LARGEST} use divergence='rademacher' (Hutchinson) with "
                "several probes"
            )
        return Divergence(None)
    if count * x.numel() > _PROBES:
        memory = f"{8e-9 * count * x.numel():.3g} GB"
        raise ConfigError(
            f"probes={count} of {len(x)} samples of {dim} numbers take {memory}; allowed are "
            f"{_PROBES // max(1, x.numel())}, or fewer samples at a time"
        )
    noise, like = KeyedNoise(seed_from(seed)), torch.empty_like(x, dtype=torch.float64)
    drawn = torch.stack([noise(like).clone() for _ in range(count)])
    return Divergence(
        torch.where(drawn < 0, -1.0, 1.0).to(drawn) if name == "rademacher" else drawn
    )
