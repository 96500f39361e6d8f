r"""Scikit-learn's handwritten digits: 1797 images of 8 x 8 pixels, as vectors.

A pixel counts the strokes of a 4 x 4 block, k = 0, ..., 16: 17 levels, scaled to

    x = -1 + k / 8   in [-1, 1].                                                                (1)

A fifth of the images, chosen by a seed of their own, is the test split.

References: Kaynak 1995 (the recording); Alpaydin and Kaynak, Optical Recognition of Handwritten
Digits, UCI Machine Learning Repository 1998; the copy is that of `sklearn.datasets.load_digits`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, integer, number
from sdekit._extras import needed
from sdekit.errors import ConfigError
from sdekit.targets._split import split_rows
from sdekit.targets.base import Draws, Target

__all__ = ["Digits"]

SPLITS = ("train", "test", "all")


@cache
def _images() -> Tensor:
    """All images [(1797, 64)], eq. (1), float64."""
    datasets = needed(
        "sklearn.datasets", extra="images", by="the target digits", package="scikit-learn"
    )
    return torch.from_numpy(datasets.load_digits().data) / 8 - 1


@register("target", "digits", paper="UCI Optical Recognition of Handwritten Digits")
@dataclass(frozen=True, kw_only=True)
class Digits(Target):
    """Handwritten digits of 64 pixels with 17 levels on [-1, 1], eq. (1), drawn with replacement.

    Samples are vectors (64,), row by row of the 8 x 8 image, so that an `MLP` takes them.

    Args:
        split: train, test, or all.
        seed: which images are the test split.
        fraction: how many, as a share of the 1797, in (0, 1).

    Attributes:
        levels: the values that a pixel takes, equally spaced from `low` to `high`.

    Raises:
        ConfigError: an unknown split, or a fraction outside (0, 1).
        DtypeError: a field of another type.
        ModuleNotFoundError: scikit-learn is missing (pip install 'sdekit[images]'); at first use.

    Example:
        >>> law = Digits(split="test")
        >>> len(law.data), law.sample(3).shape, law.levels
        (359, torch.Size([3, 64]), 17)
    """

    shape: ClassVar[tuple[int, ...]] = (64,)  # type: ignore[misc]  # the same for every split
    levels: ClassVar[int] = 17
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0

    split: str = "train"
    seed: int = 0
    fraction: float = 0.2

    def __post_init__(self) -> None:
        """Check the fields."""
        choice("split", self.split, SPLITS)
        integer("seed", self.seed)
        self._set(fraction=number("fraction", self.fraction, gt=0, lt=1))

    @property
    def data(self) -> Tensor:
        """The images of the split [(m, 64)] in float64, in the order of the data set."""
        images = _images()
        if self.split == "all":
            return images
        kept, held = split_rows(len(images), self.fraction, self.seed, name="fraction")
        return images[held if self.split == "test" else kept]

    def test(self) -> Digits:
        """The images that this law never draws.

        Raises:
            ConfigError: it draws all, or is the test split itself.
        """
        if self.split != "train":
            raise ConfigError(f"split={self.split!r} leaves no test split; take split='train'")
        return replace(self, split="test")

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Images drawn with replacement [(n, 64)]; see `Target.sample`."""
        draws = Draws(n, generator, dtype, device)
        data = self.data
        rows = draws.index(len(data))
        return draws.cast(data[rows.cpu()].to(draws.device))

    @classmethod
    def examples(cls) -> list[Digits]:
        """The images to train on, and those to test with."""
        return [cls(), cls(split="test")]
