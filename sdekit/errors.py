"""What sdekit raises: one small hierarchy, each class also the built-in that fits.

A message names the argument, the value received and what is allowed, and where a name was expected
the nearest valid one. `except SdekitError` catches everything that sdekit raises on purpose.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DtypeError",
    "ModelError",
    "NonFiniteError",
    "NotAffine",
    "RunLockedError",
    "SdekitError",
    "ShapeError",
    "SolverError",
    "TimeError",
]


class SdekitError(Exception):
    """The root of every error that sdekit raises on purpose."""


class ConfigError(SdekitError, ValueError):
    """A setting has a value that is not allowed, or an unknown name."""


class TimeError(SdekitError, ValueError):
    """A time lies outside `[0, t_max]`, or a time grid is not strictly decreasing."""


class ShapeError(SdekitError, ValueError):
    """A tensor has the wrong shape."""


class DtypeError(SdekitError, TypeError):
    """A value or a tensor has the wrong type."""


class DeviceError(SdekitError, ValueError):
    """Two tensors, or a tensor and a generator, live on different devices."""


class NonFiniteError(SdekitError, ArithmeticError):
    """A tensor holds NaN or infinity where only finite values make sense."""


class SolverError(SdekitError, RuntimeError):
    """A numerical solve did not reach its end: tolerance, step size or budget of calls."""


class ModelError(SdekitError, TypeError):
    """A network or model returned something that is not a usable prediction."""


class DataError(SdekitError, ValueError):
    """Training or evaluation data that cannot be used: empty, ragged, not finite."""


class NotAffine(SdekitError, ValueError):
    """A sampler is not an affine map of its noise, so its exact law is not available."""


class CheckpointError(SdekitError, RuntimeError):
    """A checkpoint could not be written or read.

    Args:
        message: what happened, in a line.
        kind: `"corrupt"` (the bytes are not those that were written), `"unsafe"` (it could execute
            code or reach outside its folder), `"incompatible"` (it is not there, or belongs to
            another configuration) or `"version"` (a newer format).
    """

    def __init__(
        self,
        message: str,
        *,
        kind: Literal["corrupt", "unsafe", "incompatible", "version"] = "corrupt",
    ) -> None:
        super().__init__(message)
        self.kind = kind


class RunLockedError(SdekitError, RuntimeError):
    """Another live process is writing to the same run folder."""
