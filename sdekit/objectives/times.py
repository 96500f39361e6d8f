"""Laws of the time at which a loss is taken, each as a map of uniform draws.

    uniform    t = t_min + u (t_max - t_min), u uniform on (0, 1]                               (1)

then moved to the nearest time above at which the model is defined. On a chain of N steps these
are the nodes 1/N .. 1, each with probability 1/N: u in ((i - 1)/N, i/N] gives node i. The node 0
is the data itself and is never drawn.

References: Ho et al., arXiv:2006.11239, algorithm 1; Song et al., arXiv:2011.13456, eq. 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sdekit.sde import LinearSDE

__all__ = ["TIMES", "draw_times"]


def uniform(sde: LinearSDE, u: Tensor) -> Tensor:
    """Eq. (1) [shape of u]."""
    t = sde.t_min + u * (sde.t_max - sde.t_min)
    return t.clamp(sde.t_min, sde.t_max)  # the sum may round past t_max


# name -> the map from (process, uniform draws on (0, 1]) to times
TIMES: Mapping[str, Callable[[LinearSDE, Tensor], Tensor]] = {"uniform": uniform}


def draw_times(name: str, sde: LinearSDE, n: int, generator: torch.Generator) -> Tensor:
    """Times [(n,)] in float64 by the law `name`, at which a model of this process is defined."""
    u = 1 - torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
    return sde.to_model_time(TIMES[name](sde, u))
