r"""The plane figures on which generative models are drawn: laws that can only be sampled.

Each is a figure of the literature, a field `scale` (or `radius`, `half_width`) away from its
original size, centred, with a standard deviation between 1 and 2 in each direction.

References: Grathwohl et al., arXiv:1810.01367, `toy_data.py` (moons, swiss roll, rings,
checkerboard, after scikit-learn's `make_moons`, `make_swiss_roll` and `make_circles`); Johnson et
al., arXiv:1603.06277, `make_pinwheel_data`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import integer, number
from sdekit.errors import ConfigError
from sdekit.targets.base import Draws, Target

__all__ = ["Checkerboard", "Moons", "Pinwheel", "Rings", "SwissRoll"]


def _polar(angle: Tensor, radius: Tensor | float = 1.0) -> Tensor:
    """The points [(n, 2)] at these angles and radii."""
    return torch.stack([angle.cos(), angle.sin()], dim=1) * torch.as_tensor(radius)[..., None]


@dataclass(frozen=True, kw_only=True)
class _Figure(Target):
    """A law on the plane; a subclass gives `_draw`."""

    shape: ClassVar[tuple[int, ...]] = (2,)  # type: ignore[misc]  # the same for every figure

    @abstractmethod
    def _draw(self, draws: Draws) -> Tensor:
        """The points [(n, 2)] in float64."""

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Independent draws [(n, 2)]; see `Target.sample`."""
        draws = Draws(n, generator, dtype, device)
        return draws.cast(self._draw(draws))

    @classmethod
    def examples(cls) -> list[Any]:
        """The figure with its standard parameters."""
        return [cls()]


@register("target", "moons", paper="arXiv:1810.01367, figure 2")
@dataclass(frozen=True, kw_only=True)
class Moons(_Figure):
    """Two interleaved half circles of radius 1 with Gaussian noise, times `scale`.

    (cos a, sin a) or (1 - cos a, 1/2 - sin a), a uniform on [0, pi], minus the centre (1/2, 1/4).

    Args:
        noise: the standard deviation of the noise before scaling, >= 0.
        scale: the radius, > 0.

    Raises:
        ConfigError: a field outside its range.
        DtypeError: a field that is no real number.

    Example:
        >>> Moons(noise=0.05).sample(3).shape
        torch.Size([3, 2])
    """

    noise: float = 0.1
    scale: float = 2.0

    def __post_init__(self) -> None:
        """Check the fields."""
        noise, scale = number("noise", self.noise, ge=0), number("scale", self.scale, gt=0)
        self._set(noise=noise, scale=scale)

    def _draw(self, draws: Draws) -> Tensor:
        angle, moon, noise = math.pi * draws.uniform(), draws.index(2), draws.normal(2)
        # the second moon is the first one turned by pi about the centre (1/2, 1/4)
        first = _polar(angle) - torch.tensor([0.5, 0.25], dtype=torch.float64, device=draws.device)
        return self.scale * ((1 - 2 * moon[:, None]) * first + self.noise * noise)


@register("target", "swiss_roll", paper="arXiv:1810.01367, figure 2")
@dataclass(frozen=True, kw_only=True)
class SwissRoll(_Figure):
    """A spiral a (cos a, sin a), a from 3 pi / 2 on, with noise, times `scale`.

    Args:
        noise: the standard deviation of the noise before scaling, >= 0.
        turns: how far the spiral winds, > 0; scikit-learn's has 1.5.
        scale: the size, > 0.

    Raises:
        ConfigError: a field outside its range.
        DtypeError: a field that is no real number.

    Example:
        >>> SwissRoll().sample(0).shape
        torch.Size([0, 2])
    """

    noise: float = 1.0
    turns: float = 1.5
    scale: float = 0.2

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(
            noise=number("noise", self.noise, ge=0),
            turns=number("turns", self.turns, gt=0),
            scale=number("scale", self.scale, gt=0),
        )

    def _draw(self, draws: Draws) -> Tensor:
        angle = math.pi * (1.5 + 2 * self.turns * draws.uniform())
        return self.scale * (_polar(angle, angle) + self.noise * draws.normal(2))


@register("target", "checkerboard", paper="arXiv:1810.01367, figure 2")
@dataclass(frozen=True, kw_only=True)
class Checkerboard(_Figure):
    """Uniform on the black fields of a board of cells x cells fields over a square about 0.

    A field is black where the sum of its column and row, counted from the lower left, is even.

    Args:
        cells: fields along a side, even, >= 2.
        half_width: half the side, > 0.

    Raises:
        ConfigError: a field outside its range, or cells odd.
        DtypeError: cells is no int, or half_width no real number.

    Example:
        >>> Checkerboard(cells=2, half_width=1.0).sample(5).abs().max() <= 1
        tensor(True)
    """

    cells: int = 4
    half_width: float = 2.0

    def __post_init__(self) -> None:
        """Check the fields."""
        cells = integer("cells", self.cells, ge=2)
        if cells % 2:
            raise ConfigError(f"cells must be even, so that every column is alike, got {cells}")
        self._set(cells=cells, half_width=number("half_width", self.half_width, gt=0))

    def _draw(self, draws: Draws) -> Tensor:
        column, pair = draws.index(self.cells), draws.index(self.cells // 2)
        corner = torch.stack([column, 2 * pair + column % 2], dim=1)
        return self.half_width * (2 * (corner + draws.uniform(2)) / self.cells - 1)


@register("target", "rings", paper="arXiv:1810.01367, figure 2")
@dataclass(frozen=True, kw_only=True)
class Rings(_Figure):
    """Concentric circles of equal weight and equally spaced radii, with Gaussian noise.

    Args:
        rings: how many, >= 1.
        radius: of the largest, > 0; the smallest has radius / rings.
        noise: the standard deviation of the noise, >= 0.

    Raises:
        ConfigError: a field outside its range.
        DtypeError: rings is no int, or another field no real number.

    Example:
        >>> x = Rings(rings=1, radius=1.0, noise=0.0).sample(4)
        >>> bool((x.norm(dim=1) - 1).abs().max() < 1e-6)
        True
    """

    rings: int = 4
    radius: float = 3.0
    noise: float = 0.08

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(
            rings=integer("rings", self.rings, ge=1),
            radius=number("radius", self.radius, gt=0),
            noise=number("noise", self.noise, ge=0),
        )

    def _draw(self, draws: Draws) -> Tensor:
        radius = self.radius * (draws.index(self.rings).double() + 1) / self.rings
        return _polar(2 * math.pi * draws.uniform(), radius) + self.noise * draws.normal(2)


@register("target", "pinwheel", paper="arXiv:1603.06277, figure 1")
@dataclass(frozen=True, kw_only=True)
class Pinwheel(_Figure):
    """Gaussian blades that a rotation growing with the radius bends, times `scale`.

    A blade's point (r, s) = (1 + radial_std z_1, tangential_std z_2) is turned by its blade's
    angle plus rate exp(r).

    Args:
        blades: how many, >= 1.
        radial_std: the spread along a blade, >= 0.
        tangential_std: the spread across it, >= 0.
        rate: how strongly the blades are bent; any real number.
        scale: the size, > 0.

    Raises:
        ConfigError: a field outside its range.
        DtypeError: blades is no int, or another field no real number.

    Example:
        >>> Pinwheel(blades=3)
        pinwheel(blades=3, radial_std=0.3, tangential_std=0.1, rate=0.25, scale=2.0)
    """

    blades: int = 5
    radial_std: float = 0.3
    tangential_std: float = 0.1
    rate: float = 0.25
    scale: float = 2.0

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(
            blades=integer("blades", self.blades, ge=1),
            radial_std=number("radial_std", self.radial_std, ge=0),
            tangential_std=number("tangential_std", self.tangential_std, ge=0),
            rate=number("rate", self.rate),
            scale=number("scale", self.scale, gt=0),
        )

    def _draw(self, draws: Draws) -> Tensor:
        blade, noise = draws.index(self.blades), draws.normal(2)
        r, s = 1 + self.radial_std * noise[:, 0], self.tangential_std * noise[:, 1]
        angle = 2 * math.pi * blade.double() / self.blades + self.rate * r.exp()
        # (r, s) as r along the turned axis and s along its normal
        return self.scale * (_polar(angle, r) + _polar(angle + math.pi / 2, s))
