"""What single commands show of released libraries: `python -m sdekit.verify.conformance NAME`.

Each function yields the lines that it prints, numbers first: what was called with what, and what
came back. The tests of this package ask for the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import NonFiniteError
from sdekit.exact import bures_wasserstein, output_law, probe_callable
from sdekit.exact.order import fit_slope
from sdekit.model import ExactScore
from sdekit.sde import DDPM, VPSDE
from sdekit.targets import Gaussian
from sdekit.verify.conformance.libraries import CHAIN, SINGLE, Refused, azula_sampler, quiet, walk
from sdekit.verify.conformance.rows import named
from sdekit.verify.conformance.table import errors_of
from sdekit.verify.front import check
from sdekit.verify.probes import inner_grid
from sdekit.verify.probes import spectrum as dense

__all__ = ["SHOWN", "Shown", "outcome"]


@dataclass(frozen=True)
class Shown:
    """One thing to show.

    Attributes:
        library: that it is about.
        says: what the lines show, in a sentence.
        lines: what makes them.
    """

    library: str
    says: str
    lines: Callable[[], Iterator[str]]


SHOWN: dict[str, Shown] = {}


def _shows(name: str, library: str, says: str) -> Callable[..., Callable[[], Iterator[str]]]:
    def enter(lines: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
        SHOWN[name] = Shown(library, says, lines)
        return lines

    return enter


def _scheduler(cls: str, **options: Any) -> Any:
    import diffusers

    with quiet():
        return getattr(diffusers, cls)(**{**CHAIN, **options})


def outcome(made: Any, steps: int) -> str:
    """What becomes of a run on N(0, 1/4) with the exact model: a size, or what was raised."""
    model = ExactScore(Gaussian([0.0], 0.25), DDPM(torch.as_tensor(made.betas).double()))
    start = torch.randn(256, 1, generator=torch.Generator().manual_seed(0))
    try:
        out = walk(made, lambda x, t: model(x, t).eps, start, steps)
    except NonFiniteError:
        return "NaN or infinity"
    except Refused as refusal:
        return str(refusal).partition(" as ")[0]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"std {float(out.std()):.3g}" if out.isfinite().all() else "NaN or infinity"


@_shows(
    "step-target", "diffusers",
    "DDIMScheduler steps from t to t - 1000 // n, with trailing and linspace spacing too. Where n "
    "does not divide 1000 that is not the next time of its own list, and the model is asked about "
    "a state of another time. EulerDiscreteScheduler is the same method",
)  # fmt: skip
def _step_target() -> Iterator[str]:
    for spacing in ("trailing", "linspace", "leading"):
        row = named(f"ddim-{spacing}").function()
        (seen,) = check(row, kind="sampler", only="state_lies_at_its_time", max_examples=16)
        yield f"{spacing}: {seen.status}" + f"; {seen.says} ({seen.example})" * (not seen.ok)
    yield "exact W2 at n = 20, 40, 80, 160, trailing:"
    for name in ("ddim-trailing", "euler-trailing", "sdekit-ddim"):
        errors = errors_of(named(name), (20, 40, 80, 160))
        yield f"  {name:15}" + "".join(f" {e:.2e}" for e in errors)


@_shows(
    "pndm-uneven", "diffusers",
    "PNDMScheduler's error where n divides 1000, and where it does not",
)  # fmt: skip
def _pndm_uneven() -> Iterator[str]:
    counts = (40, 50, 80, 100, 160, 200)
    for n, error in zip(counts, errors_of(named("pndm-trailing"), counts), strict=True):
        yield f"n = {n:3}  1000 % n = {1000 % n:2}  exact W2 {error:.2e}"


@_shows(
    "thousand-steps", "diffusers",
    "With linspace, the default spacing of these, 1000 steps of a chain of 1000 hold one time "
    "twice. 999 steps are finite, and so are 1000 steps with trailing spacing",
)  # fmt: skip
def _thousand_steps() -> Iterator[str]:
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("DPMSolverMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("UniPCMultistepScheduler", {}), ("DEISMultistepScheduler", {}), ("SASolverScheduler", {}),
        ("DDIMScheduler", {"clip_sample": False}),
    )  # fmt: skip
    for cls, options in cases:
        for steps, spacing in ((999, "linspace"), (1000, "linspace"), (1000, "trailing")):
            made = _scheduler(cls, timestep_spacing=spacing, **options)
            found = outcome(made, steps)
            times = len(set(made.timesteps.tolist()))
            note = f", {options['algorithm_type']}" if "algorithm_type" in options else ""
            yield f"{cls}{note}, {spacing}, {steps} steps: {times} different times, {found}"


@_shows(
    "cosine-karras", "diffusers",
    "DPMSolverMultistepScheduler with squaredcos_cap_v2 and use_karras_sigmas places 20 steps",
)  # fmt: skip
def _cosine_karras() -> Iterator[str]:
    options = {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}
    made = _scheduler("DPMSolverMultistepScheduler", **options)
    found = outcome(made, 20)
    times = made.timesteps.tolist()
    yield f"times {times}"
    yield f"{len(set(times))} of 20 are different; a run: {found}"


@_shows(
    "fixed-large-log", "diffusers",
    'DDPMScheduler with variance_type="fixed_large_log"',
)  # fmt: skip
def _fixed_large_log() -> Iterator[str]:
    for variance in ("fixed_large_log", "fixed_large", "fixed_small_log", "fixed_small"):
        made = _scheduler("DDPMScheduler", variance_type=variance, clip_sample=False)
        yield f"{variance}: 20 steps, {outcome(made, 20)}"


@_shows(
    "beyond-the-chain", "diffusers",
    "3000 steps of a chain of 1000, trailing, on data of std 0.5",
)  # fmt: skip
def _beyond_the_chain() -> Iterator[str]:
    for cls, options in (
        ("DDIMScheduler", {"clip_sample": False}), ("DDPMScheduler", {"clip_sample": False}),
        ("EulerDiscreteScheduler", {}), ("DPMSolverMultistepScheduler", {}),
        ("UniPCMultistepScheduler", {}), ("PNDMScheduler", {}),
    ):  # fmt: skip
        yield f"{cls}: {outcome(_scheduler(cls, timestep_spacing='trailing', **options), 3000)}"


def inner_errors(cls: str, counts: tuple[int, ...], **options: Any) -> list[float]:
    """Exact W2 at the last time of a list of times given to a scheduler.

    The chain is VP's with 20,000 steps, so that times uniform in the log-SNR on [0.05, 0.95] can
    be nodes; the state is read as the model is asked about it the last time.
    """
    nodes, sde = 20_000, VPSDE()
    betas = sde.discretize(nodes).betas
    made = _scheduler(cls, num_train_timesteps=nodes, trained_betas=betas.tolist(), **options)
    data = Gaussian.from_spectrum(dense().mean, dense().cov.diagonal())
    model = ExactScore(data, DDPM(torch.as_tensor(made.betas).double()))
    errors = []
    for n in counts:
        listed = (inner_grid(sde, n) * nodes).round().long() - 1
        ends = [model.at((float(listed[k]) + 1) / nodes) for k in (0, -1)]

        def f(x: Tensor, listed: Tensor = listed) -> Tensor:
            with quiet():
                made.set_timesteps(timesteps=listed.tolist())
                for i in listed[:-1]:
                    x = made.step(model(x, (float(i) + 1) / nodes).eps, i, x).prev_sample
            return x

        start, end = ends
        assert isinstance(start, Gaussian)
        assert isinstance(end, Gaussian)
        law = probe_callable(f, start, tolerance=SINGLE)
        errors.append(float(bures_wasserstein(law, end)))
    return errors


@_shows(
    "third-order", "diffusers",
    "The order of DPMSolverMultistepScheduler inside the interval, where it can be seen: on times "
    "uniform in the log-SNR between 0.05 and 0.95 of VP",
)  # fmt: skip
def _third_order() -> Iterator[str]:
    counts = (10, 20, 40, 80)
    for order in (1, 2, 3):
        errors = inner_errors("DPMSolverMultistepScheduler", counts, solver_order=order)
        slope = fit_slope(counts, errors)
        printed = " ".join(f"{e:.2e}" for e in errors)
        yield (
            f"solver_order={order}: exact W2 {printed} at n = {counts}, order {slope.value:.2f} "
            f"({slope.interval[0]:.2f} to {slope.interval[1]:.2f})"
        )


@_shows(
    "azula-order", "azula",
    "The multistep samplers with order=2, on times uniform in the log-SNR between 0.05 and 0.95 "
    "of VP, sub-VP and VE",
)  # fmt: skip
def _azula_order() -> Iterator[str]:
    for name in ("azula-zab", "azula-vab", "azula-zeab", "azula-xeab", "azula-reab"):
        row = named(name)
        (seen,) = check(row.function(), kind="sampler", only="declared_order")
        yield f"{row}: {seen.status}; {seen.says}"


@_shows(
    "azula-eta", "azula",
    "The noise of one DDIM step from t = 0.6 to t = 0.4 of VP. In arXiv:2010.02502, eq. 16, its "
    "standard deviation is eta times that of the posterior; azula's docstring has sqrt(eta tau), "
    "as its code: the same at 0 and 1, another scale between",
)  # fmt: skip
def _azula_eta() -> Iterator[str]:
    model = ExactScore(Gaussian([0.0], 1.0), VPSDE())
    grid = torch.tensor([0.6, 0.4], dtype=torch.float64)
    for eta in (0.25, 0.5, 1.0):
        function = azula_sampler(named("azula-ddim").load(), {"eta": eta}, noisy=True)
        still = Gaussian([0.0], 1e-30)  # no spread at the start: what is left is the noise

        def f(x: Tensor, function: Any = function) -> Any:
            return function(model, x, grid, torch.randn_like)

        stds = [
            float(law.spectrum[0].sqrt())
            for law in (
                probe_callable(f, still),
                output_law(f"ddim(eta={eta})", model, grid=grid, prior=still),
            )
        ]
        yield (
            f"eta = {eta}: azula {stds[0]:.6f}, sdekit {stds[1]:.6f}, ratio "
            f"{stds[0] / stds[1]:.6f}; eta^-1/2 = {eta**-0.5:.6f}"
        )
