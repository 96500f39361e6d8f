"""Loops that one would write by hand, a family of samplers each, from the rows of a plan.

Each does the arithmetic of its samplers and nothing else: no counting, no checks, no dispatch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sdekit.sampling import OneKick, Sampler
from sdekit.sampling.multistep import Corrected, Staged
from sdekit.sampling.runge_kutta import TABLEAUS

Loop = Callable[[Tensor, torch.Generator], Tensor]


class Call:
    """A prediction without any of the package around it."""

    def __init__(self, net: nn.Module, told: Tensor, x: Tensor, t: float) -> None:
        self.x, self.raw = x, net(x, told)

    def mix(self, weights: tuple[float, float]) -> Tensor:
        """The two weights' combination."""
        return torch.mul(self.x, weights[0]).add_(self.raw, alpha=weights[1])

    def add_to(self, y: Tensor, weights: tuple[float, float]) -> Tensor:
        """Y + the two weights' combination, in place."""
        return y.add_(self.x, alpha=weights[0]).add_(self.raw, alpha=weights[1])


def bare_loop(sampler: Sampler, rows: list, net: nn.Module, told: Tensor) -> Loop:
    """The loop one would write by hand for this sampler, from the same rows of floats."""
    mul, randn = torch.mul, torch.randn

    def one_step(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            (a, b), std = c.mean, c.std
            x = mul(x, a).add_(net(x, told), alpha=b)
            if std:
                x.add_(randn(x.shape, generator=g), alpha=std)
        return x

    def heun(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            if c.fresh:
                x = mul(x, c.lift).add_(randn(x.shape, generator=g), alpha=c.fresh)
            raw = net(x, told)
            y = mul(x, c.euler[0]).add_(raw, alpha=c.euler[1])
            x = mul(x, c.half[0]).add_(raw, alpha=c.half[1]).add_(net(y, told), alpha=c.rest[1])
        return x

    def corrections(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            for _ in range(sampler.repeats):
                a, b = c.move
                x = (
                    mul(x, a)
                    .add_(net(x, told), alpha=b)
                    .add_(randn(x.shape, generator=g), alpha=c.std)
                )
        return x

    def norm_corrections(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            for _ in range(sampler.repeats):
                a, b = c.score
                score, z = mul(x, a).add_(net(x, told), alpha=b), randn(x.shape, generator=g)
                zn, sn = z.norm(dim=1).mean(), score.norm(dim=1).mean()
                size = 2 * c.k2 * (sampler.snr * zn / sn).square()
                x = x + size * score + (2 * size).sqrt() * z
        return x

    def pair(x: Tensor, g: torch.Generator) -> Tensor:
        for c in rows:
            p, q = c.predict, c.correct
            for (a, b), std in ([q.move, q.std], [p.mean, p.std])[
                :: 1 if sampler.first == "corrector" else -1
            ]:
                x = mul(x, a).add_(net(x, told), alpha=b)
                if std:
                    x.add_(randn(x.shape, generator=g), alpha=std)
        return x

    def runge_kutta(x: Tensor, g: torch.Generator) -> Tensor:
        stages = len(TABLEAUS[sampler.solver].nodes)
        names = [(f"k{i}", f"a{i}") for i in range(stages)]
        for c in rows:
            slopes: list[Tensor] = []
            for k, a in names:
                y = x
                for slope, weight in zip(slopes, getattr(c, a), strict=False):
                    if weight:
                        y = torch.add(y, slope, alpha=weight)
                on_x, on_raw = getattr(c, k)
                slopes.append(mul(y, on_x).add_(net(y, told), alpha=on_raw))
            for slope, weight in zip(slopes, c.b, strict=True):
                if weight:
                    x = torch.add(x, slope, alpha=weight)
        return x

    def single(x: Tensor, g: torch.Generator) -> Tensor:
        past: tuple[Tensor, ...] = ()
        keep = sampler.memory
        for a, b, on_x, weights, std in table:
            seen = (mul(x, a).add_(net(x, told), alpha=b), *past)
            x = mul(x, on_x)
            for value, weight in zip(seen, weights, strict=False):
                x.add_(value, alpha=weight)
            if std:
                x.add_(randn(x.shape, generator=g), alpha=std)
            past = seen[:keep]
        return x

    def several(x: Tensor, g: torch.Generator) -> Tensor:
        past: tuple[Tensor, ...] = ()
        keep = sampler.memory
        for stages in table:
            y, seen = x, ()
            for a, b, on_x, weights, std in stages:
                seen = (*seen, mul(y, a).add_(net(y, told), alpha=b))
                y = mul(x, on_x)
                for value, weight in zip(seen + past, weights, strict=False):
                    if weight:
                        y.add_(value, alpha=weight)
                if std:
                    y.add_(randn(x.shape, generator=g), alpha=std)
            x, past = y, (seen[0], *past)[:keep]
        return x

    def corrected(x: Tensor, g: torch.Generator) -> Tensor:
        past: tuple[Tensor, ...] = ()
        start, z, keep = x, None, sampler.memory
        for a, b, on_x, weights, std, back_x, back, back_std in table:
            seen = (mul(x, a).add_(net(x, told), alpha=b), *past)
            if past and back:
                x = mul(start, back_x)
                for value, weight in zip(seen, back, strict=False):
                    if weight:
                        x.add_(value, alpha=weight)
                if z is not None:
                    x.add_(z, alpha=back_std)
            start, past = x, seen[:keep]
            x = mul(x, on_x)
            for value, weight in zip(seen, weights, strict=False):
                if weight:
                    x.add_(value, alpha=weight)
            if std:
                z = randn(x.shape, generator=g)
                x.add_(z, alpha=std)
        return x

    def own_steps(x: Tensor, g: torch.Generator) -> Tensor:
        state, noise = None, lambda y: randn(y.shape, generator=g)
        model = partial(Call, net, told)
        for c in rows:
            x, state = sampler.step(x, c, model, state, noise)
        return x

    families = {"heun": heun, "predictor_corrector": pair, "probability_flow": runge_kutta}
    families |= {"midpoint": runge_kutta, "rk4": runge_kutta}
    if sampler.catalogue_name == "mala":
        return own_steps
    if hasattr(rows[0], "move"):
        return (
            norm_corrections if getattr(sampler, "rule", "sigma") == "batch_norm" else corrections
        )
    if isinstance(sampler, Staged):
        table = [tuple(_of(stage) for stage in c.stages) for c in rows]
        if all(len(stages) == 1 for stages in table):
            table = [stages[0] for stages in table]
            return single
        return several
    if isinstance(sampler, Corrected):
        table = [(*_of(c), c.correct.x, c.corrects and c.correct.w, c.correct.std) for c in rows]
        return corrected
    # a sampler that is not written out here is measured against its own steps
    return (
        one_step
        if isinstance(sampler, OneKick)
        else families.get(sampler.catalogue_name, own_steps)
    )


def _of(stage: Any) -> tuple[Any, ...]:
    """The floats of a call and of what follows from it."""
    return (*stage.what, stage.x, stage.w, stage.std)
