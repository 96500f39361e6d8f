"""The likelihoods that `sdekit likelihood` asks for, sample by sample, in pieces that fit memory.

Whole numbers are dequantised K times. The mean of the K log-densities plus the log of a cell's
size is a bound on the log-probability of the whole numbers; the mean of the K budgets is its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdekit.cli.subject import Data, Subject
from sdekit.cli.terminal import Advance, Terminal
from sdekit.likelihood import LogProb, elbo, log_prob

if TYPE_CHECKING:
    from sdekit.likelihood import ELBO

__all__ = ["LINES", "Bound", "Flowed", "bounded", "flowed"]

LINES = ("probes", "solver", "prior", "truncation", "change", "total")
_NUMBERS = 2**16  # of a piece, where nobody says how large it is


@dataclass(frozen=True, eq=False)
class Flowed:
    """Log-densities by the probability flow, float64 on the CPU.

    Attributes:
        nats: log p(x) [(n,)], a mean over the draws of dequantisation.
        stderr: their standard errors from the probes [(n,)].
        corrected: with the law of the latents for the prior [(n,)], where that is known.
        lines: of the budget, by name [(n,)].
        nfe: model calls of the largest piece.
        budget_nfe: and for its budget.
        t_min: at which x was taken.
        t_max: of the latents.
    """

    nats: Tensor
    stderr: Tensor
    corrected: Tensor | None
    lines: dict[str, Tensor]
    nfe: int
    budget_nfe: int
    t_min: float
    t_max: float


@dataclass(frozen=True, eq=False)
class Bound:
    """Bounds on log p by the variational bound, float64 on the CPU.

    Attributes:
        nats: the bound, -total [(n,)].
        stderr: its standard errors from the noise and the times [(n,)].
        parts: what the total is made of, by name [(n,)].
        times_stderr: what drawn times, the same for all samples, may have moved them all by.
        of_levels: whether p is the probability of the levels, by the discretised decoder.
        nfe: model calls a sample.
    """

    nats: Tensor
    stderr: Tensor
    parts: dict[str, Tensor]
    times_stderr: float
    of_levels: bool
    nfe: int


def flowed(subject: Subject, options: Any, terminal: Terminal) -> Flowed:
    """By the probability flow, and with its budget where the options ask for it."""
    data = subject.data
    count = options.dequantizations if _noisy(options, data) else 1
    size = options.chunk or max(1, _NUMBERS // data.x[0].numel())
    rows: list[dict[str, Tensor]] = []
    nfe = budget_nfe = 0
    seed = options.seed
    with _progress(subject, terminal, "likelihoods by the flow", len(data.x) * count) as done:
        for _ in range(count):
            x = data.dequantized() if _noisy(options, data) else data.x
            pieces = []
            for start in range(0, len(x), size):
                found = log_prob(
                    subject.model, x[start : start + size], divergence=options.divergence,
                    probes=options.probes, solver=options.solver, rtol=options.rtol,
                    atol=options.atol, max_nfe=options.max_nfe, seed=seed,
                )  # fmt: skip
                pieces.append(_columns(found, options.budget))
                nfe = max(nfe, found.nfe)
                budget_nfe = max(budget_nfe, found.budget.nfe if options.budget else 0)
                seed += 1  # the probes of every piece are its own
                done(min(size, len(x) - start))
            rows.append(_joined(pieces))
    mean = {name: torch.stack([row[name] for row in rows]).mean(0) for name in rows[0]}
    if options.budget:
        mean["total"] = (
            (mean["prior"] + mean["truncation"]).abs()
            + mean["change"] + mean["solver"] + mean["probes"]
        )  # fmt: skip
    return Flowed(
        mean["nats"],
        torch.stack([row["stderr"] for row in rows]).square().sum(0).sqrt() / count,
        mean.get("corrected"),
        {name: mean[name] for name in LINES if options.budget},
        nfe, budget_nfe, found.t_min, found.t_max,
    )  # fmt: skip


def bounded(subject: Subject, options: Any, terminal: Terminal) -> Bound:
    """By the variational bound; of the density of dequantised data, or of the whole numbers."""
    data, discrete = subject.data, options.decoder == "discretized"
    count = 1 if discrete or not _noisy(options, data) else options.dequantizations
    extra: dict[str, Any] = {}
    if discrete:
        how = data.levels
        assert how is not None  # checked with the options
        ends = (how.low + 0.5 * how.width, how.high - 0.5 * how.width)
        extra = {"levels": how.levels, "data_range": ends}
    draws = [
        data.middles if discrete else data.dequantized() if _noisy(options, data) else data.x
        for _ in range(count)
    ]
    x = torch.cat(draws)
    size = options.chunk or max(1, _NUMBERS // x[0].numel())
    with _progress(subject, terminal, "variational bound", None):
        found = elbo(
            subject.model, x, decoder=options.decoder, times=options.times, draws=options.draws,
            seed=options.seed, chunk=size, **extra,
        )  # fmt: skip

    def mean(values: Tensor) -> Tensor:
        return values.cpu().reshape(count, -1).mean(0)

    steps = (found.weights.to(found.terms.device)[:, None] * found.terms).sum(0)
    parts = {"prior": found.prior, "steps": steps, "decoder": found.decoder}
    nats = -mean(found.total)
    stderr = (mean(found.stderr.square()) / count).sqrt()
    return Bound(
        nats, stderr, {name: mean(part) for name, part in parts.items()},
        _times_stderr(found), discrete, found.nfe,
    )  # fmt: skip


def _times_stderr(found: ELBO) -> float:
    """What is left of the standard error of the mean without the spread of the samples."""
    n = len(found.prior)
    if n < 2 or not found.sampled:
        return 0.0
    return math.sqrt(max(found.mean_stderr**2 - float(found.total.var()) / n, 0.0))


def _noisy(options: Any, data: Data) -> bool:
    """Whether noise is added inside the cells."""
    return data.cells is not None and options.dequantize == "uniform"


def _columns(found: LogProb, budget: bool) -> dict[str, Tensor]:
    columns = {"nats": found.nats, "stderr": found.stderr}
    if found.prior_gap is not None:
        columns["corrected"] = found.corrected()
    if budget:
        columns |= {name: getattr(found.budget, name) for name in LINES}
    return {name: value.cpu() for name, value in columns.items()}


def _joined(pieces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


@contextmanager
def _progress(
    subject: Subject, terminal: Terminal, label: str, total: int | None
) -> Iterator[Callable[[int], None]]:
    """Progress by samples, and by calls of the network where there is one to count."""
    state = {"done": 0, "calls": 0}
    with terminal.progress(label, total) as advance:
        network = getattr(subject.model, "network", None)
        hook = _counted(network, state, advance)

        def done(samples: int) -> None:
            state["done"] += samples
            advance(state["done"])

        try:
            yield done
        finally:
            if hook is not None:
                hook.remove()


def _counted(network: object, state: dict[str, int], advance: Advance) -> Any:
    """A hook that tells the progress of every call."""
    if not isinstance(network, nn.Module):
        return None

    def called(*_: object) -> None:
        state["calls"] += 1
        advance(state["done"], f"{state['calls']} network calls")

    return network.register_forward_hook(called)
