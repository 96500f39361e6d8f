r"""Sources of standard normal noise: callables noise(x) -> a tensor like x.

`KeyedNoise` is what `sample` uses. A draw is a pure function of (seed, block of sample indices,
number of the draw): samples are cut into blocks of fixed size, draws into windows of four, and
each window of each block is one stream with its own key. So sample i gets bitwise the same noise
whatever the batch size, the chunks or the processes, a run can be repeated from any row, and there
is no state but a counter.

A stream runs over the samples of its block first, in lanes of so many samples that a lane fills 16
values at a time, as torch's CPU generator does in order: a small batch draws only the beginning of
it. Other devices draw whole blocks. Keys of one seed never collide: block and window are numbered
by Cantor's pairing, and the number goes through a bijection of 32-bit integers that the seed selects
(32 bits of a seed are what torch's CPU generator uses). Draws are float32 and cast, so that the
noise does not depend on the dtype of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from sdekit._check import integer, shown
from sdekit.errors import ConfigError, DeviceError, DtypeError, ShapeError

__all__ = ["Impulse", "KeyedNoise", "Noise", "Recorded", "Replay", "Zero", "seed_from"]

Noise = Callable[[Tensor], Tensor]

_FILL = 16  # values that torch's CPU generator fills at a time
_BLOCK_VALUES = 8192  # of one draw of a block: large enough that a key costs little
_WINDOW = 4  # draws of one stream
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


def _mixed(value: int) -> int:
    """A bijection of 32-bit integers that spreads every bit (the finaliser of MurmurHash3)."""
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
        # an int of any size and sign, 32 bits at a time, folded into two words
        low, high = _mixed(2 * self.seed.bit_length() + (self.seed < 0)), 0
        for shift in range(0, self.seed.bit_length() + 1, 32):
            low = _mixed(low ^ (abs(self.seed) >> shift & _MASK))
            high = _mixed(
                high + low + 0x9E3779B9 & _MASK
            )  # never high = _mixed(low): key(0) would be 0
        self._words = low, high
        self._generator: torch.Generator | None = None
        self._ahead: list[Tensor] = []
        # what the draws ahead were made for
        self._shape: torch.Size | None = None
        self._dtype: torch.dtype | None = None
        self._device: torch.device | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The next draw [shape, dtype and device of x]; it must not be changed in place."""
        if not (self._ahead and x.shape == self._shape and x.dtype is self._dtype) or (
            x.device != self._device
        ):
            self._shape, self._dtype, self._device = x.shape, x.dtype, x.device
            window, position = divmod(self.draw, _WINDOW)
            self._ahead = self._stream(x, window)[position:][::-1]
        self.draw += 1
        return self._ahead.pop()

    def _stream(self, x: Tensor, window: int) -> list[Tensor]:
        """The draws of one window for the samples of x, one tensor each."""
        n, numel = x.shape[0], max(math.prod(x.shape[1:]), 1)
        lane = _FILL // math.gcd(_FILL, numel)
        block = lane * max(1, _BLOCK_VALUES // (lane * numel))
        start, end = self.first // block, -(-(self.first + n) // block)
        if end - start <= 1:
            return self._block(x, window, start, self.first - start * block, n, lane, block)
        draws = [torch.empty_like(x) for _ in range(_WINDOW)]
        for b in range(start, end):
            low, high = max(self.first, b * block), min(self.first + n, (b + 1) * block)
            part = self._block(x, window, b, low - b * block, high - low, lane, block)
            for whole, piece in zip(draws, part, strict=True):
                whole[low - self.first : high - self.first] = piece
        return draws

    def _block(
        self, x: Tensor, window: int, b: int, low: int, n: int, lane: int, block: int
    ) -> list[Tensor]:
        """The draws of one window for n samples of block b, from its sample `low` on."""
        generator, dims = self._generator, x.shape[1:]
        if generator is None or generator.device != x.device:
            generator = self._generator = torch.Generator(device=x.device)
        generator.manual_seed(self._key(b, window))
        lanes = -(-(low + n) // lane) if x.device.type == "cpu" else block // lane
        shape = (lanes, _WINDOW, lane, *dims)
        draws = torch.randn(shape, generator=generator, dtype=torch.float32, device=x.device)
        draws = draws[0] if lanes == 1 else draws.transpose(0, 1).reshape(_WINDOW, -1, *dims)
        draws = draws.narrow(1, low, n)
        return list((draws if x.dtype is torch.float32 else draws.to(x.dtype)).unbind())

    def _key(self, block: int, window: int) -> int:
        total = block + window
        number = (total * (total + 1) // 2 + window) & _MASK
        return _mixed(_mixed(number ^ self._words[0]) ^ self._words[1])

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
            raise ConfigError(
                f"noise=Replay holds {len(self.draws)} draws, and one more was asked for"
            )
        z = self.draws[self.draw]
        if z.shape != x.shape:
            raise ShapeError(
                f"noise=Replay: draw {self.draw} has shape {tuple(z.shape)}, "
                f"needed {tuple(x.shape)}"
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
