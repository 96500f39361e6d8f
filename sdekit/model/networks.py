"""Networks for data without structure: a multilayer perceptron that is told the time.

The time enters by Fourier features, cos and sin of 2 pi w t with fixed random w, as in
arXiv:2006.10739 and the score networks of arXiv:2011.13456.
"""

from __future__ import annotations

import inspect
import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sdekit._catalogue import register
from sdekit._check import integer, number

__all__ = ["MLP"]


@register("network", "mlp", paper="arXiv:2006.10739 (Fourier features)")
class MLP(nn.Module):
    """A multilayer perceptron on (x, time) for vectors, with SiLU between its layers.

    Args:
        dim: the dimension of x, >= 1.
        width: units of each hidden layer.
        depth: the number of hidden layers.
        frequencies: the number of Fourier features of the time.
        bandwidth: the standard deviation of their frequencies.
        seed: of the initial weights and the frequencies; the global generator is not used.
        outputs: the number of outputs; None: dim. `2 * dim` for a model with learned variances.

    Raises:
        ConfigError, DtypeError: a size that is no int >= 1, or bandwidth <= 0.

    Example:
        >>> MLP(2, seed=0)(torch.zeros(3, 2), torch.full((3,), 0.5)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        dim: int = 2,
        *,
        width: int = 128,
        depth: int = 3,
        frequencies: int = 16,
        bandwidth: float = 1.0,
        seed: int = 0,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.dim = integer("dim", dim, ge=1)
        self.config: dict[str, Any] = dict(
            dim=self.dim, width=width, depth=depth, frequencies=frequencies, bandwidth=bandwidth,
            seed=seed,
        )  # fmt: skip
        if outputs is not None:  # where it is not given, the config is as in older checkpoints
            self.config["outputs"] = integer("outputs", outputs, ge=1)
        number("bandwidth", bandwidth, gt=0)
        for name in ("width", "depth", "frequencies"):
            integer(name, self.config[name], ge=1)
        generator = torch.Generator().manual_seed(integer("seed", seed))
        self.w: Tensor
        self.register_buffer("w", bandwidth * torch.randn(frequencies, generator=generator))
        widths = self._widths(dim, width, depth, frequencies, outputs)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [_linear(fan_in, fan_out, generator), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The output [(batch, outputs)] for x [(batch, dim)] and time [(batch,)]."""
        time = time[:, None]
        angle = (2 * math.pi) * time * self.w
        return self.layers(torch.cat([x, time, angle.cos(), angle.sin()], dim=1))

    @staticmethod
    def _widths(
        dim: int, width: int, depth: int, frequencies: int, outputs: int | None
    ) -> list[int]:
        """Of the layers' inputs, and of the output."""
        return [dim + 1 + 2 * frequencies, *[width] * depth, dim if outputs is None else outputs]

    @classmethod
    def shapes(cls, stored: int, **config: Any) -> dict[str, tuple[int, ...]]:
        """The shapes of the weights that the constructor would make of `config`.

        Nothing is built, and not many more than `stored` shapes are listed: what a checkpoint asks
        for can be compared with what it holds, whatever the size.
        """
        given = inspect.signature(cls).bind(**config)
        given.apply_defaults()
        dim, width, depth, count, outputs = (
            given.arguments[name] for name in ("dim", "width", "depth", "frequencies", "outputs")
        )
        shapes: dict[str, tuple[int, ...]] = {"w": (count,)}
        widths = cls._widths(
            dim, width, min(integer("depth", depth, ge=1), stored), count, outputs
        )
        for k, (fan_in, fan_out) in enumerate(pairwise(widths)):
            shapes[f"layers.{2 * k}.weight"] = (fan_out, fan_in)
            shapes[f"layers.{2 * k}.bias"] = (fan_out,)
        return shapes

    @classmethod
    def examples(cls) -> list[MLP]:
        """A small one."""
        return [cls(2, width=16, depth=1)]


def _linear(fan_in: int, fan_out: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's default initial law, drawn from the given generator."""
    layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
    bound = 1 / math.sqrt(fan_in)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
