r"""Sources of standard normal noise: callables noise(x) -> a tensor like x.

`KeyedNoise` is what `sample` uses. A draw is a pure function of (seed, block of sample indices,
number of the draw), so sample i gets bitwise the same noise whatever the batch size, the chunks or
the processes, a run can be repeated from any row, and there is no state but a counter.

The blocks are fixed. The first is one lane: as many samples as fill 16 values, which torch's CPU
generator fills at a time, in order; a key would cost more than its noise, so a window of draws has
one. The second goes on to a fixed size and the others have that size; a draw has a key of its own,
and on the CPU only the beginning that is needed is drawn, elsewhere whole blocks.

Keys of one seed never collide: block and window are numbered by Cantor's pairing, and the number
goes through a bijection of 32-bit integers that the seed selects (torch's CPU generator uses 32
bits of a seed). Draws are float32 and cast: the noise does not depend on the samples' dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit._check import floating, integer, shown
from sdekit.errors import ConfigError, DeviceError, DtypeError, ShapeError

__all__ = [
    "Antithetic",
    "Impulse",
    "KeyedNoise",
    "Noise",
    "Recorded",
    "Replay",
    "Zero",
    "checked",
    "from_sample",
    "seed_from",
]

Noise = Callable[[Tensor], Tensor]

_FILL = 16  # values that torch's CPU generator fills at a time
_BLOCK_VALUES = 8192  # of one draw of a block, about: so large that a key costs little
_WINDOW_VALUES = 1024  # of the draws of the first block that share a key
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


def checked(noise: object) -> Noise:
    """A source of the user's own, each draw of which is compared with what it is asked for.

    Raises:
        DtypeError: no callable, or a draw that is no floating tensor.
        ShapeError, DeviceError: a draw of another shape or on another device.
    """
    if not callable(noise):
        raise DtypeError(f"noise must be a callable noise(x), got {shown(noise)}")
    if hasattr(noise, "at"):  # the sources of this module, which cannot go wrong
        return noise

    def draw(x: Tensor) -> Tensor:
        z = floating("noise(x)", noise(x))
        if z.shape != x.shape:
            raise ShapeError(f"noise(x) must have shape {tuple(x.shape)}, got {tuple(z.shape)}")
        if z.device != x.device:
            raise DeviceError(f"noise(x) is on {z.device}, x on {x.device}")
        return z

    return draw


def from_sample(noise: Noise, first: int) -> Noise:
    """A source for the samples from number `first` on: its own, if it tells samples apart."""
    return noise.shifted(first) if hasattr(noise, "shifted") else noise


def _mixed(value: int) -> int:
    """A bijection of 32-bit integers that spreads every bit (the finaliser of MurmurHash3)."""
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


@dataclass
class _Block:
    """The part of a block that a batch needs: n samples from `low` on, at `at` in the batch."""

    number: int
    rows: int  # samples to draw, those before `low` included
    low: int
    n: int
    at: int
    window: int  # draws that share a key
    made: int = -1  # the window that `draws` holds
    draws: Sequence[Tensor] = ()


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
            high = _mixed(high + low + 0x9E3779B9 & _MASK)  # mixed(low) alone makes key(0) = 0
        self._words = low, high
        self._blocks: list[_Block] = []
        # what the blocks were laid out for
        self._shape: torch.Size | None = None
        self._dtype: torch.dtype | None = None
        self._generator = torch.Generator()

    def __call__(self, x: Tensor) -> Tensor:
        """The next draw [shape, dtype and device of x]; it must not be changed in place."""
        draw = self._next(x)
        if len(self._blocks) == 1:
            return self._rows(self._blocks[0], draw, x)
        out = torch.empty_like(x)
        for block in self._blocks:
            self._fill(out[block.at : block.at + block.n], block, draw)
        return out

    def add_to(self, y: Tensor, std: float) -> Tensor:
        """y + std * the next draw, in place and block by block: without a tensor like y."""
        draw = self._next(y)
        for block in self._blocks:
            part = y[block.at : block.at + block.n]
            part.add_(self._rows(block, draw, part), alpha=std)
        return y

    def _next(self, x: Tensor) -> int:
        """The number of a draw like x, once its blocks are laid out."""
        if not (
            x.shape == self._shape
            and x.dtype is self._dtype
            and x.device == self._generator.device
        ):
            self._lay_out(x)
        draw = self.draw
        self.draw = draw + 1
        return draw

    def _lay_out(self, x: Tensor) -> None:
        """Find the blocks that hold the samples of x."""
        self._shape, self._dtype = x.shape, x.dtype
        self._generator = torch.Generator(device=x.device)
        numel = max(math.prod(x.shape[1:]), 1)
        lane = _FILL // math.gcd(_FILL, numel)
        large = lane * max(2, _BLOCK_VALUES // (lane * numel))
        first, end = self.first, self.first + x.shape[0]
        self._blocks = []
        # block 0 is [0, lane), block 1 [lane, large), from then on b is [(b - 1) large, b large)
        for number in range(min(first // lane, 1) + first // large, 2 + max(end - 1, 0) // large):
            start = lane * (number > 0) if number < 2 else (number - 1) * large
            size = (lane if number == 0 else number * large) - start
            low, high = max(first - start, 0), min(end - start, size)
            if low < high:
                window = max(1, _WINDOW_VALUES // (lane * numel)) if number == 0 else 1
                rows = -(-high // lane) * lane if number and x.device.type == "cpu" else size
                self._blocks.append(
                    _Block(number, rows, low, high - low, start + low - first, window)
                )

    def _fill(self, out: Tensor, block: _Block, draw: int) -> None:
        """One draw of one block's samples, written where it belongs."""
        if block.window == 1 and block.rows == block.n and out.dtype is torch.float32:
            out.normal_(generator=self._generator.manual_seed(self._key(block.number, draw)))
        else:
            out.copy_(self._rows(block, draw, out))

    def _rows(self, block: _Block, draw: int, x: Tensor) -> Tensor:
        """One draw of one block's samples."""
        window, position = divmod(draw, block.window)
        if window != block.made:
            generator = self._generator.manual_seed(self._key(block.number, window))
            shape = (block.window, block.rows, *x.shape[1:])
            draws = torch.randn(shape, generator=generator, dtype=torch.float32, device=x.device)
            draws = draws.narrow(1, block.low, block.n)
            draws = draws if x.dtype is torch.float32 else draws.to(x.dtype)
            if block.window == 1:
                return draws[0]
            block.draws, block.made = draws.unbind(), window
        return block.draws[position]

    def _key(self, block: int, window: int) -> int:
        total = block + window
        number = (total * (total + 1) // 2 + window) & _MASK
        return _mixed(_mixed(number ^ self._words[0]) ^ self._words[1])

    def at(self, draw: int) -> KeyedNoise:
        """The same source, about to make its draw number `draw`: runs can be repeated."""
        other = KeyedNoise(self.seed, first=self.first)
        other.draw = draw
        return other

    def shifted(self, first: int) -> KeyedNoise:
        """The same source, about to make its next draw, for the samples from number `first` on."""
        other = KeyedNoise(self.seed, first=self.first + first)
        other.draw = self.draw
        return other


class Antithetic:
    """Noise in pairs: sample 2i + 1 gets minus the noise of sample 2i.

    Each sample's noise is standard normal, keyed like `KeyedNoise` by (seed, pair, draw). The mean
    over a pair loses what is odd in the noise: all the noise of an affine sampler.

    Args:
        seed: any int.
        first: the index of the first sample of the batches it will see.

    Raises:
        ConfigError: first < 0.

    Reference: Hammersley and Morton, Math. Proc. Cambridge Philos. Soc. 52 (1956).

    Example:
        >>> import torch
        >>> z = Antithetic(7)(torch.empty(4, 2))
        >>> bool((z[1::2] == -z[::2]).all())
        True
    """

    def __init__(self, seed: int, *, first: int = 0) -> None:
        self.seed = seed_from(seed)
        self.first = integer("first", first, ge=0)
        self._pairs = KeyedNoise(self.seed, first=self.first // 2)

    @property
    def draw(self) -> int:
        """The number of the next draw."""
        return self._pairs.draw

    def __call__(self, x: Tensor) -> Tensor:
        """The next draw [shape, dtype and device of x]."""
        odd = self.first % 2
        z = self._pairs(x.new_empty(((odd + len(x) + 1) // 2, *x.shape[1:])))
        return torch.stack([z, -z], dim=1).flatten(0, 1)[odd : odd + len(x)]

    def at(self, draw: int) -> Antithetic:
        """The same source, about to make its draw number `draw`: runs can be repeated."""
        other = Antithetic(self.seed, first=self.first)
        other._pairs.draw = draw
        return other

    def shifted(self, first: int) -> Antithetic:
        """The same source, about to make its next draw, for the samples from number `first` on."""
        other = Antithetic(self.seed, first=self.first + first)
        other._pairs.draw = self.draw
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
