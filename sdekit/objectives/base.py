"""What a training objective is: one loss a sample, in two halves.

    terms  = prepare(model, x0, generator)   all that is random or needs no network     (1)
    losses = losses(model, *terms)           the network's call, one loss a sample      (2)

Every term is a tensor with one row a sample, so that a trainer may prepare many batches at once
and cut rows: schedules are then evaluated once for all of them. No gradient flows through (1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from sdekit._check import Checked, samples, shown
from sdekit.errors import DataError, DeviceError, DtypeError
from sdekit.model import Predictor

__all__ = ["Objective", "clean_samples", "same_generator"]


class Objective(Checked, ABC):
    """A loss to train a model by; calling it gives one value a sample.

    A subclass has `prepare` and `losses`.

    Example:
        >>> import torch
        >>> from sdekit import DSM, ExactScore, Gaussian, VPSDE
        >>> model = ExactScore(Gaussian([0.0, 0.0], 1.0), VPSDE())
        >>> generator = torch.Generator().manual_seed(0)
        >>> DSM()(model, torch.zeros(5, 2), generator=generator).shape
        torch.Size([5])
    """

    @abstractmethod
    def prepare(
        self, model: Predictor, x0: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """All terms of the loss that do not need the network, eq. (1).

        Args:
            model: the model that is trained; only its process and parametrisation are used.
            x0: checked clean samples [(batch, *dims)], without gradient.
            generator: the only source of randomness.

        Returns:
            Tensors of one row a sample [(batch, ...)].
        """

    def prepare_batches(
        self, model: Predictor, x0: Tensor, generator: torch.Generator, batch_size: int
    ) -> tuple[Tensor, ...]:
        """As `prepare`, for rows that a trainer will cut into batches of this size.

        An objective whose rows depend on those of their batch draws them batch by batch here.
        """
        return self.prepare(model, x0, generator)

    @abstractmethod
    def losses(self, model: Predictor, *terms: Tensor, **cond: Any) -> Tensor:
        """The loss of each sample [(batch,)] from rows of what `prepare` returned, eq. (2)."""

    def __call__(
        self,
        model: Predictor,
        x0: Tensor,
        *,
        generator: torch.Generator | None = None,
        **cond: Any,
    ) -> Tensor:
        """The loss of each sample [(batch,)] at random times with random noise.

        Args:
            model: the model that is trained.
            x0: clean samples [(batch, *dims)].
            generator: the source of randomness; without one, a fresh stream. The global random
                state is never used.
            cond: what the model is called with besides.

        Raises:
            DataError: an empty batch.
            NonFiniteError: x0 holds NaN or infinity; the rows are named.
            DtypeError: x0 is not a real floating tensor, or generator is not a torch.Generator.
            DeviceError: the generator lives on another device than x0.
        """
        x0 = clean_samples(x0)
        with torch.no_grad():
            terms = self.prepare(model, x0, same_generator(generator, x0.device))
        return self.losses(model, *terms, **cond)


def clean_samples(x0: object) -> Tensor:
    """A finite, non-empty batch of clean samples [(batch, *dims)], without gradient.

    Raises:
        DataError: no sample, or samples without an element.
        DtypeError: not a real floating tensor.
        ShapeError: a 0-d tensor.
        NonFiniteError: NaN or infinity; the rows are named.
    """
    x0 = samples("x0", x0)
    if x0.numel() == 0:
        raise DataError(f"x0 must hold at least one sample, got shape {tuple(x0.shape)}")
    return x0.detach()


def same_generator(generator: object, device: torch.device) -> torch.Generator:
    """The generator, checked to live on the device of the samples; None: a fresh stream there.

    Raises:
        DtypeError: something else than a torch.Generator.
        DeviceError: a generator on another device, or a device that has none.
    """
    if generator is None:
        try:
            generator = torch.Generator(device=device)
        except RuntimeError as error:
            raise DeviceError(f"x0 is on {device}, which has no generator: {error}") from error
        generator.seed()
    if not isinstance(generator, torch.Generator):
        raise DtypeError(f"generator must be a torch.Generator or None, got {shown(generator)}")
    at = generator.device
    if at.type != device.type or (at.index or 0) != (device.index or 0):
        raise DeviceError(f"generator is on {at} and x0 on {device}; move one of them")
    return generator
