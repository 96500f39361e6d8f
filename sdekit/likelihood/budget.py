r"""What a log-likelihood may be off by, line by line.

`LogProb.nats` differs from the log-density of the data at x for four reasons:

    probes       the divergence was estimated: Student's quantile times the standard error,
                 whose square borrows four degrees of freedom from the rest of the batch        (1)
    solver       finite tolerances: 1.5 |nats - nats at a thirtieth of them|, and the median
                 of that difference over the batch                                              (2)
    prior        the latents are not quite of the prior's law: log p_b(x_b) - log pi(x_b)       (3)
    truncation   x is taken at t_min, where it carries some noise: log p_0(x) - log p_a(x)      (4)

(3) is exact where the law p_b is known. A network's own density *is* the prior's, pushed through
its flow: there it is 0, by definition, and p_0 below is the model's own; how far that is from the
data's no budget can say. In (4) the law at t_min is that of x_0 with noise of
variance tau = sigma^2 / alpha^2, shrunk by alpha:

    log p_a(x) = log p_a(alpha x) + (1 - alpha) x . s,   s at (1 + alpha) x / 2,
    log p_a(alpha x) = log p_0(x) - d log alpha + 1/2 int_0^tau B,                              (5)

with B = alpha^2 (div s + |s|^2) at alpha x (the heat equation), taken in the middle of the
interval, on the straight line through its values at tau and 2 tau. What the middle changes is what
(4) itself may be off by.

The two with a sign are added before the bounds are: the statement of 99 % is

    |log p_0(x) - nats| <= |prior + truncation| + change + solver + probes.                     (6)

References: Richardson 1911, doi:10.1098/rsta.1911.0009, for (2); Song et al., arXiv:2101.09258,
appendix A, for (5) along the flow; Smyth 2004, doi:10.2202/1544-6115.1027, eq. 1 (moderated
variances: few probes may agree by chance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.special import stdtrit
from torch import Tensor

from sdekit.sampling.setup import quiet

if TYPE_CHECKING:
    from sdekit.likelihood.density import LogProb, Question
    from sdekit.likelihood.divergence import Divergence
    from sdekit.likelihood.flow import Level

__all__ = ["Budget", "budget_of"]

_TIGHTER = 30.0
_SURE = 1.5  # times the difference, in which the error of the tighter solve may be hidden
_LEVEL = 0.99
_BORROWED = 4
_LEAST, _ROUNDING = 1e-13, 1e-12


@dataclass(frozen=True, eq=False)
class Budget:
    """What `LogProb.nats` may be off by, in nats [(batch,)] each, as a statement of 99 %.

    Attributes:
        probes: from the probes of the divergence, >= 0; infinite with one probe.
        solver: from the tolerances, >= 0.
        prior: log p_b - log pi at the latent; 0 for a model that defines its density by the prior.
        truncation: log p_0 - log p_{t_min} at x, estimated.
        change: what that estimate itself may be off by, >= 0.
        nfe: the model calls that finding it took.
    """

    probes: Tensor
    solver: Tensor
    prior: Tensor
    truncation: Tensor
    change: Tensor
    nfe: int

    @property
    def corrected(self) -> Tensor:
        """For the density at t_min and `LogProb.corrected()`: solver + probes [(batch,)]."""
        return self.solver + self.probes

    @property
    def total(self) -> Tensor:
        """For the density at t = 0, of the data or of a network's own: eq. (6) [(batch,)]."""
        return (self.prior + self.truncation).abs() + self.change + self.solver + self.probes

    def __str__(self) -> str:
        """The lines, by their means and largest values."""
        names = ("probes", "solver", "prior", "truncation", "change", "total")
        rows = [f"{'nats':<12}{'mean':>12}{'largest':>12}"]
        for name in names:
            value = getattr(self, name)
            mean, most = (value.mean(), value.abs().max()) if len(value) else (value.sum(),) * 2
            rows.append(f"{name:<12}{float(mean):>12.2e}{float(most):>12.2e}")
        return "\n".join(rows)


def budget_of(found: LogProb, question: Question, rtol: float, atol: float) -> Budget:
    """The budget of a likelihood: one more solve, and two calls at the data.

    Args:
        found: the likelihood.
        question: what was asked.
        rtol: at which relative
        atol: and absolute tolerance.
    """
    tight = question.answer(max(rtol / _TIGHTER, _LEAST), max(atol / _TIGHTER, _LEAST))
    off = (found.nats - tight.nats).abs()
    # beside the solver's error there is rounding, in units of what is added up
    rounding = _ROUNDING * found.nats.abs().clamp_min(1.0)
    zero = torch.zeros_like(found.nats)
    spread = _Spread(question.by)
    with quiet(question.model):
        truncation, change, calls = _truncated(question, spread)
    return Budget(
        probes=spread(found.stderr),
        solver=_SURE * off + (off.median() if len(off) else 0.0) + rounding,
        prior=zero if found.prior_gap is None else found.prior_gap,
        truncation=truncation,
        change=change,
        nfe=tight.nfe + calls,
    )


class _Spread:
    """From standard errors of probes to half-widths of 99 %, eq. (1)."""

    def __init__(self, by: Divergence) -> None:
        self.exact, self.columns = by.probes is None, by.columns

    def __call__(self, stderr: Tensor) -> Tensor:
        """Half-widths [(batch,)]."""
        if self.exact:
            return torch.zeros_like(stderr)
        if self.columns == 1:
            return torch.full_like(stderr, math.inf)
        own, others = self.columns - 1, _BORROWED if len(stderr) >= _BORROWED else 0
        var = stderr.square()
        moderated = (own * var + others * var.mean()) / (own + others)
        return float(stdtrit(own + others, (1 + _LEVEL) / 2)) * moderated.sqrt()


def _truncated(question: Question, spread: _Spread) -> tuple[Tensor, Tensor, int]:
    """log p_0 - log p_a at x by eq. (5), what it may be off by [(batch,)] each, and the calls."""
    flow, change = question.flow()
    x, sde = question.x.to(torch.float64), flow.sde
    first = torch.tensor(flow.t_min, dtype=torch.float64)
    log_snr = float(sde.log_snr(first))
    twice = max(log_snr - math.log(2), sde.log_snr_range[0])  # tau twice as large
    times = torch.stack([first, sde.t_from_log_snr(torch.tensor(twice, dtype=torch.float64))])
    near, far = flow.levels(flow.places(times), trace=True)
    (alpha, alpha_far), gap = sde.alpha(times).tolist(), -math.expm1(float(sde.log_alpha(first)))

    def pulled(at: float) -> Tensor:
        """x . s at a multiple of x [(batch,)]."""
        point = at * x
        score = flow.score_of(point, flow.counted.ask(flow.raw, point, near.t), near)
        return (x * score).reshape(len(x), flow.dim).sum(1)

    def bent(at: float, level: Level) -> tuple[Tensor, Tensor]:
        """B of eq. (5), and what its probes may have it off by [(batch,)]."""
        point = at * x
        raw, divergence = change.probed(point, level)
        score = flow.score_of(point, raw, level).reshape(len(x), flow.dim)
        bend, columns = at**2 * (divergence.mean(1) + score.square().sum(1)), divergence.shape[1]
        stderr = divergence.std(1) / columns**0.5 if columns > 1 and len(bend) else 0 * bend
        return bend, at**2 * spread(stderr)

    half_tau = 0.5 * math.exp(-log_snr)
    middle, end = pulled((1 + alpha) / 2), pulled(1.0)
    (at_tau, noise), (at_twice, _) = bent(alpha, near), bent(alpha_far, far)
    scaled = flow.dim * float(sde.log_alpha(first)) - gap * middle
    noised = -half_tau * (1.5 * at_tau - 0.5 * at_twice)
    moved = gap * (middle - end).abs() + 0.5 * half_tau * (at_tau - at_twice).abs()
    return scaled + noised, moved + half_tau * noise, flow.nfe
