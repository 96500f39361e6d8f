"""Samplers of other libraries as functions f(model, x, grid, noise) that the kit can ask.

A scheduler of diffusers holds a chain of its own and places its own times: of the grid only the
number of steps is used, and the process is the chain that its betas make, whose index i (from 0)
is node i + 1. It is driven as its pipelines do it: `set_timesteps`, `init_noise_sigma`,
`scale_model_input`, `step`, and the noise prediction at the time that it names. One object serves
every run, so that what a run leaves behind in it is seen.

A sampler of azula takes any schedule and here any times, so it is walked along any grid of an SDE.

Both draw by torch's functions. What they draw is replaced by the source that is passed. A
scheduler gets a generator, and draws that do not use it move torch's global source, which the
kit watches; azula's samplers take none, and that they draw from the global source is let pass.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # where torch documents it

from sdekit.errors import ConfigError
from sdekit.sde import DDPM, VESDE, VPSDE, SubVPSDE
from sdekit.verify.claims import Skip

__all__ = ["CHAIN", "SINGLE", "Refused", "azula_sampler", "quiet", "scheduler", "walk"]

# what "linear" means to a scheduler, as in arXiv:2006.11239
CHAIN = {
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
}  # fmt: skip
SINGLE = 1e-4  # of the result's size: what a scheduler that casts to float32 inside leaves
AMPLIFIED = 1e-6  # what dividing by alpha_t leaves of float64 where alpha_t is small
_NORMAL = ("randn", "randn_like", "normal", "normal_")


class Refused(Skip, ConfigError):
    """A scheduler's refusal of a number of steps: that case cannot be asked, and is no failure."""


class _Drawn(TorchDispatchMode):
    """Every normal draw is one of `noise`; its generator advances as it would."""

    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator; overwrite what a normal one gave."""
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in _NORMAL:
            return out
        return out.copy_(self.noise(torch.empty(out.shape, dtype=torch.float64)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that diffusers 0.42 causes itself under NumPy 2."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array", DeprecationWarning)
        yield


def scheduler(
    cls: type,
    options: Mapping[str, Any],
    *,
    order: int | None = 1,
    calls: int | None = 1,
    noisy: bool = False,
    point: bool = True,
    last: int = 0,
) -> Callable[..., Tensor]:
    """A scheduler with diffusers' interface as a function of (model, x, grid, noise).

    Args:
        cls: its class.
        options: of the class.
        order: that it is named after; None: its bias does not vanish.
        calls: of the model in a step, where that is fixed.
        noisy: whether it draws.
        point: whether it is right on a single data point, at any number of steps.
        last: the node at which it ends: 0, the data, unless it is made to stop above.

    Returns:
        The function, with the attributes that `sdekit.verify.strangers` reads.
    """
    with quiet():
        made: Any = cls(**options)
    # its own table, which is float32: a chain from exact betas would differ by rounding
    betas = torch.as_tensor(made.betas).double()
    chain = DDPM(betas, t_min=last / len(betas))

    def run(model: Any, x: Tensor, grid: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
        with _Drawn(noise):
            return walk(made, lambda seen, t: model(seen, t).eps, x, len(grid) - 1)

    run.__name__ = cls.__name__
    declared = {
        "made": made, "processes": (chain,), "own_times": True, "order": order,
        "stochastic": noisy, "nfe_per_step": calls, "rounding": SINGLE,
        "exact_on": ("point",) if point else (),
    }  # fmt: skip
    vars(run).update(declared)
    return run


def walk(made: Any, eps: Callable[[Tensor, float], Tensor], x: Tensor, steps: int) -> Tensor:
    """Run a scheduler from x_T [(n, d)] to its result [(n, d)].

    Args:
        made: the scheduler.
        eps: the noise prediction at x and a node t = (i + 1)/N.
        x: the start, as the process has it.
        steps: how many are asked for.

    Raises:
        Refused: the scheduler raises ValueError at this number of steps.
    """
    with quiet():
        try:
            made.set_timesteps(steps)
        except ValueError as error:
            raise Refused(f"steps={steps} is refused: {error}") from error
        more = {}
        if "generator" in inspect.signature(made.step).parameters:
            more["generator"] = torch.Generator().manual_seed(0)
        x = x * made.init_noise_sigma
        for i in made.timesteps:
            seen = made.scale_model_input(x, i)
            t = (float(i) + 1) / len(made.betas)
            x = made.step(eps(seen, t), i, x, **more).prev_sample
    return x


def azula_sampler(
    cls: type,
    options: Mapping[str, Any],
    *,
    order: int = 1,
    noisy: bool = False,
    point: bool = True,
    memory: bool = False,
) -> Callable[..., Tensor]:
    """A sampler of azula as a function of (model, x, grid, noise), on the grid's own times.

    Args:
        cls: its class.
        options: of the class.
        order: that it is named after, or that its options ask for.
        noisy: whether it draws.
        point: whether it is right on a single data point, at any number of steps.
        memory: whether it keeps a history over its steps.
    """
    base: Any = cls

    def run(model: Any, x: Tensor, grid: Tensor, noise: Callable[[Tensor], Tensor]) -> Any:
        class OnGrid(base):
            timesteps = property(lambda self: grid.to(torch.float64))

        class Denoiser:
            schedule = staticmethod(lambda t: (model.sde.alpha(t), model.sde.sigma(t)))

            def __call__(self, x: Tensor, t: Tensor) -> Any:
                return type("Posterior", (), {"mean": model(x, float(t)).x0})()

        made = OnGrid(Denoiser(), steps=len(grid) - 1, silent=True, dtype=torch.float64, **options)
        with torch.random.fork_rng(devices=[]), _Drawn(noise):
            return made(x)

    run.__name__ = cls.__name__
    # its schedules keep sigma > 0: the end of a chain is not theirs
    processes = (VPSDE(), SubVPSDE(), VESDE())
    declared = {"order": order, "stochastic": noisy, "processes": processes, "memory": memory}
    vars(run).update(declared, exact_on=("point",) if point else (), rounding=AMPLIFIED)
    return run
