"""Wrong schedulers: samplers that place their own times on a chain, and keep things between steps.

They need no other library: each is a DDIM or ancestral step along integer times, with the fault of
a released scheduler in the times, the targets, the history or the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit.sde import DDPM
from sdekit.verify.mutants._make import Table

_TABLE = Table("sampler")
ROWS = _TABLE.rows

_CHAIN = DDPM.linear(1000)
_N = _CHAIN.n


def _trailing(steps: int) -> list[int]:
    """Nodes N, N - N/n, ..., rounded."""
    return [max(round(_N - k * _N / steps), 1) for k in range(steps)]


def _next(times: Sequence[int], k: int) -> int:
    """The target of step k: the next time, the data at the end."""
    return times[k + 1] if k + 1 < len(times) else 0


def _scheduler(
    *,
    times: Callable[[int], list[int]] = _trailing,
    target: Callable[[Sequence[int], int], int] = _next,
    asked: Callable[[int], int] = lambda i: i,
    noisy: bool = False,
    draw: Callable[[Any, Tensor], Tensor] = lambda noise, x: noise(x),
    last_draws: float = 0.0,
    second: bool = False,
    forget: bool = True,
) -> Callable[..., Tensor]:
    """A scheduler as a function; the arguments are where the faults go."""
    history: list[Tensor] = []

    def scheduler(model: Any, x: Tensor, grid: Tensor, noise: Any) -> Tensor:
        if forget:
            history.clear()
        listed = times(len(grid) - 1)
        for k, i in enumerate(listed):
            s, t = (torch.tensor(j / _N, dtype=torch.float64) for j in (target(listed, k), i))
            seen = model(x, asked(i) / _N)
            a, b = _CHAIN.alpha(s).to(x.dtype), _CHAIN.sigma(s).to(x.dtype)
            x0, eps = seen.x0, seen.eps
            if second:
                x0 = 1.5 * x0 - 0.5 * history[-1] if history else x0
                history[:] = [seen.x0]
            std = 0.0 * b
            if noisy:
                std = (b / _CHAIN.sigma(t) * _CHAIN.transition(s, t)[1]).to(x.dtype)
                std = torch.where(s > 0, std, last_draws)
            x = a * x0 + (b.square() - std.square()).clamp_min(0).sqrt() * eps
            if std > 0:
                x = x + std * draw(noise, x)
        return x

    vars(scheduler).update(
        processes=(_CHAIN,), own_times=True, nfe_per_step=1, stochastic=noisy,
        exact_on=("point",),
    )  # fmt: skip
    return scheduler


_PLAIN, _NOISY, _SECOND = (
    _scheduler(), _scheduler(noisy=True), _scheduler(second=True),
)  # fmt: skip


def _add(name: str, right: Any, caught_by: str, fault: str, wrong: Any, peer: int | None) -> None:
    _TABLE.add(name, right, caught_by, fault, wrong=wrong, peer=peer)


_add(
    "scheduler_target_by_ratio",
    _PLAIN,
    "state_lies_at_its_time",
    "the target is t - N // n, not the next time of the list",
    _scheduler(target=lambda times, k: max(times[k] - _N // len(times), 0)),
    22,
)
_add(
    "scheduler_asked_one_off",
    _PLAIN,
    "state_lies_at_its_time",
    "the model is asked at index i, not at node i + 1",
    _scheduler(asked=lambda i: max(i - 1, 1)),
    6,
)
_add(
    "scheduler_time_twice",
    _PLAIN,
    "times_go_down",
    "the first time is in the list twice",
    _scheduler(times=lambda n: [_N, *_trailing(n)[: n - 1]] if n > 1 else _trailing(n)),
    22,
)
_add(
    "scheduler_ends_above_the_data",
    _PLAIN,
    "state_lies_at_its_time",
    "the last step goes to the first node, and its noise stays",
    _scheduler(target=lambda times, k: max(_next(times, k), 1)),
    30,
)
_add(
    "scheduler_history_kept",
    _SECOND,
    "runs_are_independent",
    "a second run takes up the history of the first",
    _scheduler(second=True, forget=False),
    None,
)
_add(
    "scheduler_generator_dropped",
    _NOISY,
    "noise_as_declared seeds_decide",
    "noise comes from torch's global source",
    _scheduler(
        noisy=True, draw=lambda noise, x: torch.randn(x.shape, generator=None, dtype=x.dtype)
    ),
    31,
)
_add(
    "scheduler_noise_of_the_batch",
    _NOISY,
    "noise_as_declared",
    "one draw serves the whole batch",
    _scheduler(noisy=True, draw=lambda noise, x: noise(x[:1]).expand_as(x)),
    31,
)
_add(
    "scheduler_last_step_noisy",
    _NOISY,
    "state_lies_at_its_time",
    "the step to the data adds noise",
    _scheduler(noisy=True, last_draws=0.01),
    19,
)
