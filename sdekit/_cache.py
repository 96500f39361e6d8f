"""A bounded cache for pure functions whose arguments are usually, but not always, hashable."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["cached"]


def cached(size: int) -> Callable[[F], F]:
    """Decorate a function to remember its last `size` results, for hashable arguments."""

    def decorate(function: F) -> F:
        remembered = lru_cache(maxsize=size)(function)

        @wraps(function)
        def call(*args: Any) -> Any:
            try:
                hash(args)
            except TypeError:  # an object of a user's own that cannot be hashed
                return function(*args)
            return remembered(*args)

        call.cache_clear = remembered.cache_clear  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate
