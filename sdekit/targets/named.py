r"""Laws in closed form with a name of their own, because comparisons keep coming back to them.

- `tutorial`: two modes, 0.2 and 0.8, whose weights a chain of 100 steps gets wrong;
- `ring`: k equal modes on a circle, the plainest law whose modes lie on no line;
- `power_law`: independent coordinates with variances

    Var x_k = top k^(-exponent),   k = 1 .. dim,                                                (1)

  which is how the spectra of natural images fall, with an exponent near 2.

References: Metz et al., arXiv:1611.02163, section 3.1 (the ring of eight Gaussians); van der
Schaaf and van Hateren, Vision Research 36 (1996), doi:10.1016/0042-6989(96)00002-8, eq. 3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from sdekit._catalogue import register
from sdekit._check import integer, number
from sdekit.targets.gaussian import Gaussian
from sdekit.targets.mixture import GaussianMixture

__all__ = ["PowerLaw", "Ring", "Tutorial"]


@register("target", "tutorial", paper="a DDPM tutorial; after arXiv:1907.05600, section 3.2.2")
class Tutorial(GaussianMixture):
    """The mixture 0.2 N((3, 3), I) + 0.8 N((-3, -3), I) of a well-known DDPM tutorial.

    Example:
        >>> Tutorial() == GaussianMixture([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)
        True
        >>> Tutorial().perturbed(0.6, 0.64).means.tolist()
        [[1.7999999999999998, 1.7999999999999998], [-1.7999999999999998, -1.7999999999999998]]
    """

    def __init__(self) -> None:
        super().__init__([0.2, 0.8], [[3.0, 3.0], [-3.0, -3.0]], 1.0)

    @classmethod
    def from_fields(cls, **fields: Any) -> Tutorial:
        """The mixture; it has no fields."""
        return cls(**fields)

    @classmethod
    def examples(cls) -> list[Any]:
        """The mixture."""
        return [cls()]

    def __repr__(self) -> str:
        return "tutorial()"


@register("target", "ring", paper="arXiv:1611.02163, section 3.1")
class Ring(GaussianMixture):
    """Equal Gaussians at equal distances on a circle about the origin.

    Args:
        modes: how many, >= 2.
        radius: of the circle, > 0.
        std: the standard deviation of each, > 0.

    Raises:
        ConfigError: a field outside its range.
        DtypeError: a field of another type.

    Example:
        >>> Ring(modes=4, radius=2.0).means.round(decimals=9).abs().tolist()
        [[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]]
    """

    def __init__(self, *, modes: int = 8, radius: float = 4.0, std: float = 0.5) -> None:
        modes = integer("modes", modes, ge=2)
        radius, std = number("radius", radius, gt=0), number("std", std, gt=0)
        angles = [2 * math.pi * k / modes for k in range(modes)]
        means = [[radius * math.cos(a), radius * math.sin(a)] for a in angles]
        super().__init__([1 / modes] * modes, means, std**2)
        self._set(_spelled=f"ring(modes={modes}, radius={radius}, std={std})")

    _spelled: str

    @classmethod
    def from_fields(cls, **fields: Any) -> Ring:
        """The law with these fields."""
        return cls(**fields)

    @classmethod
    def examples(cls) -> list[Any]:
        """Eight modes apart, and three that overlap."""
        return [cls(), cls(modes=3, radius=1.5, std=0.7)]

    def __repr__(self) -> str:
        return self._spelled


@register("target", "power_law", paper="doi:10.1016/0042-6989(96)00002-8, eq. 3")
class PowerLaw(Gaussian):
    """A centred Gaussian whose variances fall as a power, eq. (1).

    Args:
        dim: the dimension, >= 1.
        exponent: of the fall, >= 0.
        top: the largest variance, > 0.

    Raises:
        ConfigError: a field outside its range.
        DtypeError: a field of another type.

    Example:
        >>> PowerLaw(dim=3).cov.diagonal().tolist()[:2]
        [4.0, 1.0]
    """

    def __init__(self, *, dim: int = 64, exponent: float = 2.0, top: float = 4.0) -> None:
        dim = integer("dim", dim, ge=1)
        exponent, top = number("exponent", exponent, ge=0), number("top", top, gt=0)
        variances = top * np.arange(1.0, dim + 1) ** -exponent
        law = Gaussian.from_spectrum(torch.zeros(dim).double(), torch.from_numpy(variances))
        self._set(_dtype=None, _spelled=f"power_law(dim={dim}, exponent={exponent}, top={top})")
        self._fill(law._mean, law._cov)

    _spelled: str

    @classmethod
    def from_fields(cls, **fields: Any) -> PowerLaw:
        """The law with these fields."""
        return cls(**fields)

    @classmethod
    def examples(cls) -> list[Any]:
        """A steep law, and a flatter one."""
        return [cls(dim=6), cls(dim=3, exponent=1.0, top=1.0)]

    def __repr__(self) -> str:
        return self._spelled
