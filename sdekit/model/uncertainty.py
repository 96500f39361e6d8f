r"""How large the error of a prediction is believed to be, as a function of the noise level.

    u(t) = bias + sum_k w_k sqrt(2) cos(f_k c + p_k),    c = -log_snr / 8 = log(sigma / alpha) / 4

with fixed random frequencies f_k and phases p_k, and weights that are trained and begin at 0. It
is what a loss with learned weights is balanced by (`sdekit.objectives`), and plays no part in
sampling.

Reference: Karras et al., arXiv:2312.02696, section 2.1 and appendix B.2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sdekit._check import integer, number

__all__ = ["Uncertainty"]


class Uncertainty(nn.Module):
    """The log of the expected weighted error, a function of c = log(sigma / alpha) / 4.

    Args:
        features: the number of Fourier features, 1 to 4096.
        bandwidth: the standard deviation of their frequencies, in periods a unit of c.
        seed: of frequencies and phases; the global generator is not used.

    Raises:
        DtypeError, ConfigError: a value outside its range.

    Example:
        >>> Uncertainty()(torch.zeros(3)).tolist()
        [0.0, 0.0, 0.0]
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, *, features: int = 64, bandwidth: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        features = integer("features", features, ge=1, le=4096)
        bandwidth = number("bandwidth", bandwidth, gt=0)
        self.config: dict[str, Any] = dict(features=features, bandwidth=bandwidth, seed=seed)
        generator = torch.Generator().manual_seed(integer("seed", seed))
        normal = torch.randn(features, generator=generator, dtype=torch.float64)
        phases = torch.rand(features, generator=generator, dtype=torch.float64)
        dtype = torch.get_default_dtype()
        self.register_buffer("frequencies", (2 * math.pi * bandwidth * normal).to(dtype))
        self.register_buffer("phases", (2 * math.pi * phases).to(dtype))
        self.weight = nn.Parameter(torch.zeros(features))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, c: Tensor) -> Tensor:
        """u [(batch,)] at c [(batch,)], in the dtype of the parameters."""
        c = c.to(self.weight.dtype)
        waves = torch.outer(c, self.frequencies).add_(self.phases).cos_()
        return waves @ (self.weight * math.sqrt(2)) + self.bias
