r"""Where training batches come from, in an order that depends on the seed and the step alone.

A source gives the rows of whole blocks of steps. Every block has a generator of its own, keyed by
(seed, what it is for, number of the block): a run that is resumed inside a block draws what an
uninterrupted run draws, and nothing of the order has to be stored.

A tensor is passed through in epochs: the rows of step k are places k B to (k + 1) B of a stream of
permutations, so that no row is left out. A target is sampled anew at each step.

Some rows of a tensor may be held out: they are never seen here, neither by the batches nor by the
moments. The description stays that of the whole tensor, so that whoever has it finds them again.

A source also knows the mean and covariance of its data. An iterable of batches may not be read
twice: there they are those of the first batches that training took, 2^14 samples or 2^24 numbers.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit._check import shown
from sdekit.errors import ConfigError, DataError, DtypeError
from sdekit.model import Moments
from sdekit.targets import Target
from sdekit.targets._split import split_rows

__all__ = ["Source", "described", "keyed", "source"]

_BLOCK = 2**17  # numbers drawn at once: enough to hide what a call costs, 1 MB in float64
_MOST = 64  # steps in a block at most
_FIRST = 2**14  # samples of a stream that give its moments,
_FIRST_NUMBERS = 2**24  # or fewer: 64 MB in float32


def keyed(
    seed: int, purpose: str, index: int, device: torch.device | None = None
) -> torch.Generator:
    """A generator that depends on these three alone."""
    digest = hashlib.sha256(f"sdekit/{seed}/{purpose}/{index}".encode()).digest()
    generator = torch.Generator(device=device or "cpu")
    return generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Source(ABC):
    """Blocks of batches.

    Args:
        batch_size: rows a step.
        seed: of the order.
    """

    batch_size: int
    block: int  # steps in a block
    exact: bool = True  # whether a resumed run sees the same batches
    description: Any  # JSON, compared when a run is resumed
    holdout: Any = None  # JSON: the fraction, seed and number of the rows held out, if any

    @abstractmethod
    def rows(self, index: int) -> Tensor:
        """The rows of the steps of block `index` [(block batch_size, *dims)], on the CPU."""

    @abstractmethod
    def moments(self) -> Moments | None:
        """The mean and covariance of the data; None as long as nothing is known of them."""

    def _sized(self, numbers_a_row: int) -> int:
        return max(1, min(_MOST, _BLOCK // max(1, self.batch_size * numbers_a_row)))


class _Rows(Source):
    """A tensor of samples, shuffled."""

    def __init__(
        self, x: Tensor, batch_size: int | None, seed: int, holdout: float, holdout_seed: int
    ) -> None:
        if not x.is_floating_point() or x.layout != torch.strided:
            raise DtypeError(
                f"data must be a dense real floating tensor, got {x.dtype}, {x.layout}"
            )
        if x.ndim == 0 or x.numel() == 0:
            raise DataError(f"data holds no sample (shape {tuple(x.shape)}): 0 batches")
        kept, held = split_rows(len(x), holdout, holdout_seed)
        self.batch_size = min(512, len(kept)) if batch_size is None else batch_size
        if self.batch_size > len(kept):
            rest = f", {len(held)} being held out" if len(held) else ""
            raise DataError(
                f"batch_size={batch_size} > {len(kept)} samples of data{rest}: 0 batches"
            )
        bad = ~x.detach().isfinite().reshape(len(x), -1).all(dim=1)
        if bad.any():
            rows = bad.nonzero().flatten()[:5].tolist()
            raise DataError(f"data holds NaN or infinity in {int(bad.sum())} rows, first: {rows}")
        if len(x) == 1 or bool((x == x[:1]).all()):
            warnings.warn(
                f"all {len(x)} samples of data are the same: the law to learn is a point",
                UserWarning,
                stacklevel=4,
            )
        self.x, self.seed = x.detach().cpu(), seed
        self.block = self._sized(x[0].numel())
        self.description = described(self.x)
        if len(held):
            self.x = self.x[kept]
            self.holdout = {"fraction": holdout, "seed": holdout_seed, "rows": len(held)}
        # a permutation covers whole blocks, however few samples there are
        self._epoch = len(kept) * -(-self.block * self.batch_size // len(kept))
        self._kept: tuple[int, Tensor] = (-1, torch.empty(0))

    def _permutation(self, epoch: int) -> Tensor:
        if self._kept[0] != epoch:
            order = torch.randperm(self._epoch, generator=keyed(self.seed, "order", epoch))
            self._kept = (epoch, order % len(self.x))
        return self._kept[1]

    def rows(self, index: int) -> Tensor:
        count = self.block * self.batch_size
        epoch, at = divmod(index * count, self._epoch)
        order = self._permutation(epoch)[at : at + count]
        if len(order) < count:
            order = torch.cat([order, self._permutation(epoch + 1)[: count - len(order)]])
        return self.x[order]

    def moments(self) -> Moments:
        return Moments.of(self.x)


class _Fresh(Source):
    """New samples of a target at every step."""

    def __init__(self, target: Target, batch_size: int | None, seed: int) -> None:
        self.target, self.seed = target, seed
        self.batch_size = 512 if batch_size is None else batch_size
        self.block = self._sized(int(np.prod(target.shape)))
        self.description = {"target": repr(target)}

    def rows(self, index: int) -> Tensor:
        return self.target.sample(
            self.block * self.batch_size, generator=keyed(self.seed, "data", index)
        )

    def moments(self) -> Moments:
        return Moments.of(self.target)


class _Batches(Source):
    """Whatever yields batches; begun again when it ends."""

    block = 1
    exact = False

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches, self.batch_size = batches, 0
        self.description = {"iterable": type(batches).__qualname__}
        self._iterator: Iterator[Any] | None = None
        self._dims: tuple[int, ...] | None = None
        self._first: list[Tensor] = []  # copies: whoever yields a batch may use its memory again
        self._wanted = _FIRST  # samples still to come
        self._moments: Moments | None = None

    def rows(self, index: int) -> Tensor:
        try:
            batch = self._next(index)
        except (DataError, DtypeError):
            raise
        except Exception as error:  # whatever a dataset or a worker process raises
            raise DataError(f"reading batch {index} of data failed: {error!r}") from error
        if not isinstance(batch, Tensor) or not batch.is_floating_point() or batch.ndim == 0:
            what = str(batch.dtype) if isinstance(batch, Tensor) else type(batch).__name__
            inside = ""
            if isinstance(batch, tuple | list | dict):
                parts = list(batch.values()) if isinstance(batch, dict) else list(batch)
                inside = f" of {', '.join(type(part).__name__ for part in parts[:4])}"
            raise DataError(
                f"batch {index} of data must be a floating tensor (batch, *dims), got "
                f"{what}{inside}; yield the tensor itself"
            )
        batch = batch.detach()
        if batch.numel() == 0:
            raise DataError(f"batch {index} of data is empty: shape {tuple(batch.shape)}")
        dims = tuple(batch.shape[1:])
        if self._dims is not None and dims != self._dims:
            raise DataError(f"batch {index} of data has samples {dims}, earlier ones {self._dims}")
        if self._dims is None:
            self._wanted = max(1, min(_FIRST, _FIRST_NUMBERS * len(batch) // batch.numel()))
        self._dims = dims
        if not bool(batch.isfinite().all()):
            bad = ~batch.isfinite().reshape(len(batch), -1).all(dim=1)
            rows = bad.nonzero().flatten()[:5].tolist()
            raise DataError(f"batch {index} of data holds NaN or infinity, first rows: {rows}")
        self.batch_size = len(batch)
        if self._wanted:
            self._first.append(batch[: self._wanted].to("cpu", copy=True))
            self._wanted -= len(self._first[-1])
            self._moments = None
        return batch

    def moments(self) -> Moments | None:
        if self._moments is None and self._first:
            self._moments = Moments.of(torch.cat(self._first))
            if not self._wanted:
                self._first.clear()
        return self._moments

    def _next(self, index: int) -> Any:
        end = object()
        if self._iterator is not None and (batch := next(self._iterator, end)) is not end:
            return batch
        again = iter(self.batches)
        if again is self._iterator:
            raise DataError(f"data ended after {index} batches and cannot be read again")
        self._iterator = again
        if (batch := next(again, end)) is end:
            raise DataError("data yields 0 batches")
        return batch


def described(x: Tensor) -> dict[str, Any]:
    """What identifies a tensor of samples: shape, dtype and the digest of its bytes."""
    content: Any = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return {
        "tensor": list(x.shape),
        "dtype": str(x.dtype),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def source(
    data: object,
    *,
    batch_size: int | None,
    seed: int,
    holdout: float = 0.0,
    holdout_seed: int = 0,
) -> Source:
    """The source for what a user calls data: a tensor, a target, or an iterable of batches.

    Raises:
        ConfigError: rows to hold out of something that is no tensor.
        DataError: no sample, fewer samples than a batch, values that are not finite.
        DtypeError: something that is none of the three.
    """
    if isinstance(data, Tensor):
        return _Rows(data, batch_size, seed, holdout, holdout_seed)
    if holdout:
        raise ConfigError(
            f"holdout={holdout!r} takes rows of a tensor; {shown(data)} has none to hold out"
        )
    if isinstance(data, Target):
        return _Fresh(data, batch_size, seed)
    if isinstance(data, np.ndarray):
        raise DtypeError(
            "data must be a torch.Tensor, got a NumPy array; use torch.as_tensor(...)"
        )
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | dict):
        return _Batches(data)
    raise DtypeError(
        f"data must be a tensor (n, *dims), a Target or an iterable of batches, got {shown(data)}"
    )
