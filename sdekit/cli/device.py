"""The device that a command computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdekit.errors import DeviceError

if TYPE_CHECKING:
    import torch

__all__ = ["device_of"]


def device_of(name: str) -> torch.device:
    """The device of this name, tried.

    Raises:
        DeviceError: no such device, or it is not there.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device).add_(1).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).partition("\n")[0].partition(". ")[0]
        raise DeviceError(f"--device {name} cannot be used: {first}") from None
    return device
