r"""Sources of standard normal noise: callables noise(x) -> a tensor like x.

`KeyedNoise` is what `sample` uses. A draw is a pure function of (seed, block of sample indices, number
of the draw): samples are cut into blocks of fixed size, and each block of each draw has its own key.
So sample i gets bitwise the same noise whatever the batch size, the chunks or the processes, a run can
be repeated from any row, and there is no state but a counter.

Keys of one seed never collide: block and draw are numbered by Cantor's pairing, and the number goes
through a bijection of 32-bit integers that the seed selects (torch's CPU generator uses 32 bits of a
seed). On the CPU a block may be cut short, because its generator fills 16 values at a time in order;
elsewhere whole blocks are drawn. Draws are float32 and cast, so the noise does not depend on the dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from sdekit._check import integer, shown
from sdekit.errors import ConfigError, DeviceError, DtypeError, ShapeError

__all__ = ["Impulse", "KeyedNoise", "Noise", "Recorded", "Replay", "Zero", "seed_from"]

Noise = Callable[[Tensor], Tensor]

_LANE = 16  # values that torch's CPU generator fills at a time
_BLOCK_VALUES = 8192  # of a block: large enough that a key costs little, small enough to slice
_MASK = 0xFFFFFFFF


def seed_from(seed: object) -> int:
    """The key of a run: an int as it is, one draw from a generator, or a fresh one for None.

    Raises:
        DtypeError: anything else.
    """
    if seed is None:
        return torch.Generator().seed()
    if isinstance(seed, torch.Generator):
        return int(torch.randint(2**62, (), generator=seed, device=seed.device))
    try:
        return integer("seed", seed)
    except DtypeError:
        raise DtypeError(
            f"seed must be an int, a torch.Generator or None, got {shown(seed)}"
        ) from None


def _mixed(value: int, word: int) -> int:
    """A bijection of 32-bit integers for every `word` (the finaliser of MurmurHash3)."""
    value = (value ^ word) & _MASK
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


class KeyedNoise:
    """Noise keyed by (seed, block of sample indices, draw).

    Args:
        seed: any int.
        first: the index of the first sample of the batches it will see.

    Example:
        >>> import torch
        >>> whole = KeyedNoise(7)(torch.empty(64, 2))
        >>> part = KeyedNoise(7, first=40)(torch.empty(10, 2))
        >>> bool((whole[40:50] == part).all())
        True
    """

    def __init__(self, seed: int, *, first: int = 0) -> None:
        self.seed = seed_from(seed)
        self.first = integer("first", first, ge=0)
        self.draw = 0
        # an int of any size and sign, 32 bits at a time, with its sign and length folded in
        words = [self.seed >> shift & _MASK for shift in range(0, max(64, self.seed.bit_length()), 32)]
        self._words = [*words, 2 * len(words) + (self.seed < 0)]
        self._generator: torch.Generator | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The next draw [shape, dtype and device of x]."""
        generator = self._generator
        if generator is None or generator.device != x.device:
            generator = self._generator = torch.Generator(device=x.device)
        n, numel = x.shape[0], x[:1].numel()
        block = _LANE * max(1, _BLOCK_VALUES // (_LANE * max(numel, 1)))
        start, end = self.first // block, -(-(self.first + n) // block)
        short = x.device.type == "cpu"
        needed = self.first + n - start * block
        rows = -(-needed // _LANE) * _LANE if short else (end - start) * block
        out = torch.empty((rows, *x.shape[1:]), dtype=torch.float32, device=x.device)
        if end - start == 1:
            out.normal_(generator=generator.manual_seed(self._key(start)))
        else:
            for b in range(start, end):
                low = (b - start) * block
                out[low : low + block].normal_(generator=generator.manual_seed(self._key(b)))
        self.draw += 1
        offset = self.first - start * block
        if rows != n:
            out = out[offset : offset + n]
        return out if x.dtype is torch.float32 else out.to(x.dtype)

    def _key(self, block: int) -> int:
        total = block + self.draw
        value = (total * (total + 1) // 2 + self.draw) & _MASK
        for word in self._words:
            value = _mixed(value, word)
        return value

    def at(self, draw: int) -> KeyedNoise:
        """The same source, about to make its draw number `draw`: runs can be repeated."""
        other = KeyedNoise(self.seed, first=self.first)
        other.draw = draw
        return other


class Replay:
    """Stored draws, returned in order.

    Args:
        draws: tensors, each of the shape that will be asked for; a stacked tensor will do.

    Raises:
        ConfigError: on the call after the last draw.
        ShapeError: a draw has another shape than the sample.
    """

    def __init__(self, draws: Iterable[Tensor]) -> None:
        self.draws: Sequence[Tensor] = list(draws)
        self.draw = 0

    def __call__(self, x: Tensor) -> Tensor:
        """The next stored draw in the dtype of x."""
        if self.draw >= len(self.draws):
            raise ConfigError(f"noise=Replay holds {len(self.draws)} draws, and one more was asked for")
        z = self.draws[self.draw]
        if z.shape != x.shape:
            raise ShapeError(
                f"noise=Replay: draw {self.draw} has shape {tuple(z.shape)}, needed {tuple(x.shape)}"
            )
        if z.device != x.device:
            raise DeviceError(f"noise=Replay: draw {self.draw} is on {z.device}, x on {x.device}")
        self.draw += 1
        return z.to(x.dtype)

    def at(self, draw: int) -> Replay:
        """The same source, about to return draw number `draw`."""
        other = Replay(self.draws)
        other.draw = draw
        return other


class Recorded:
    """A source that keeps what another one returns, in `draws`, ready for `Replay`."""

    def __init__(self, source: Noise) -> None:
        self.source = source
        self.draws: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """The next draw of the source."""
        z = self.source(x)
        self.draws.append(z.clone())
        return z


class Zero:
    """No noise: the mean path of a stochastic sampler."""

    draw = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Zeros like x."""
        return torch.zeros_like(x)

    def at(self, draw: int) -> Zero:
        """Itself."""
        return self


class Impulse:
    """Zero but in one draw, which is one everywhere: the response of a sampler to that draw.

    Args:
        draw: the number of the draw that is not zero, from 0.
    """

    def __init__(self, draw: int) -> None:
        self.impulse = integer("draw", draw, ge=0)
        self.draw = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Ones at the chosen draw, zeros at any other."""
        self.draw += 1
        return torch.ones_like(x) if self.draw - 1 == self.impulse else torch.zeros_like(x)

    def at(self, draw: int) -> Impulse:
        """The same source, about to make its draw number `draw`."""
        other = Impulse(self.impulse)
        other.draw = draw
        return other
