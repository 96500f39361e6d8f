"""What a run costs: network calls, backward passes through the network, time inside it, memory.

Calls are counted by the loop (`SampleResult.nfe`), never declared. A `Metered` model stands
between the loop and the model and adds the clock and the count of vector-Jacobian products, which
samplers that differentiate the network make. Memory is the largest number of bytes that tensors
held at one moment of a run, counted as tensors are made and dropped: it does not depend on the
allocator, on what ran before, or on the machine.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # where torch documents it
from torch.utils._pytree import tree_leaves

from sdekit.model import Predictor
from sdekit.model.prediction import RawCall

__all__ = ["Metered", "PeakMemory", "metered"]


class Metered:
    """A model with a clock; everything else about it is the model's own.

    Attributes:
        seconds: inside the model's calls, so far.
        vjps: backward passes through a call's output, so far.
    """

    def __init__(self, model: Predictor) -> None:
        self._model: Any = model
        self.seconds = 0.0
        self.vjps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, x: Tensor, t: Any, **cond: Any) -> Any:
        """One call, timed."""
        began = time.perf_counter()
        seen = self._model(x, t, **cond)
        self._note(x, seen.raw, began)
        return seen

    def _note(self, x: Tensor, raw: Any, began: float) -> None:
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        self.seconds += time.perf_counter() - began
        if getattr(raw, "requires_grad", False):
            raw.register_hook(self._pulled)

    def _pulled(self, gradient: Tensor) -> None:
        del gradient
        self.vjps += 1


class _Bound(Metered):
    """One that can be prepared for the times of a plan, as its model can."""

    def bind(self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> RawCall:
        """The model's own function, timed."""
        inner = self._model.bind(x, times, cond)

        def call(x: Tensor, t: float) -> Tensor:
            began = time.perf_counter()
            raw: Tensor = inner(x, t)
            self._note(x, raw, began)
            return raw

        return call


def metered(model: Predictor) -> Metered:
    """The model with a clock; it has `bind` where the model has."""
    return (_Bound if hasattr(model, "bind") else Metered)(model)


class PeakMemory(TorchDispatchMode):
    """The bytes of the tensors that are made inside it.

    Attributes:
        live: now.
        peak: the most at one moment.

    Example:
        >>> with PeakMemory() as seen:
        ...     x = torch.ones(1000, dtype=torch.float64)
        ...     for _ in range(5):
        ...         x = x + 1
        >>> seen.peak  # two at a time
        16000
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and note the storages that are new."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self._hold(leaf.untyped_storage())
        return out

    def _hold(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return
        self.live += size
        self.peak = max(self.peak, self.live)

        def drop(_: Any) -> None:
            self._held.pop(key, None)
            self.live -= size

        self._held[key] = weakref.ref(storage, drop)
