r"""Log-likelihoods under the probability flow of a model, with what they may be off by.

With the flow in its frame (`flow.py`), a sample x taken at the first time a, its latent x_b at the
last time b, and the prior pi,

    log p(x) = log pi(x_b) + 1/2 sum log(v_b / v_a) + int_a^b r (div s + sum 1/v) du.          (1)

The divergence is exact, or the mean of estimates by probes w that stay the same along the solve,

    div s  ~  w . (J_s w) + w . (V^{-1} w) - sum 1/v,   V^{-1} = Q diag(1/v) Q^T,               (2)

in which the part of the Gaussian of the frame has no variance left: only what the data's own score
adds is estimated.

References: Chen et al., arXiv:1806.07366, theorem 1; Grathwohl et al., arXiv:1810.01367, section
3.1; Song et al., arXiv:2011.13456, eqs. 39 and 40.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from sdekit._check import floating, samples
from sdekit.errors import ConfigError, DataError, DtypeError, NonFiniteError
from sdekit.likelihood.budget import Budget, budget_of
from sdekit.likelihood.divergence import Divergence, Probed, divergence_of
from sdekit.likelihood.flow import Flow, Level
from sdekit.likelihood.solvers import carried, checked_solve
from sdekit.model import Predictor
from sdekit.sampling.setup import conditions, quiet, sde_of

__all__ = ["LogProb", "log_prob"]


@dataclass(frozen=True, eq=False)
class LogProb:
    """Log-likelihoods of a batch, and what they are made of; all in float64.

    Attributes:
        nats: log p(x) of eq. (1), with the model's prior [(batch,)].
        stderr: the standard error of `nats` from the probes [(batch,)]: 0 where the divergence is
            exact, NaN with one probe.
        nfe: calls of the model.
        latent: x at the last time [(batch, *dims)].
        prior_gap: log p_b(x_b) - log pi(x_b), where the law p_b of x_b is known; else None.
        t_min: the time at which x was taken.
        t_max: the time of the latent.
    """

    nats: Tensor
    stderr: Tensor
    nfe: int
    latent: Tensor = field(repr=False)
    prior_gap: Tensor | None
    t_min: float
    t_max: float
    _budget: Callable[[LogProb], Budget] = field(repr=False)

    def corrected(self) -> Tensor:
        """Nats with the law of x_b in place of the prior: nats + prior_gap [(batch,)].

        Raises:
            ConfigError: that law is not known; it is for an exact score.
        """
        if self.prior_gap is None:
            raise ConfigError(
                "the law of the latents is not known, so that the prior's gap cannot be "
                "corrected: that takes an exact score"
            )
        return self.nats + self.prior_gap

    @cached_property
    def budget(self) -> Budget:
        """What `nats` may be off by, line by line; found when it is first asked for.

        It takes a second solve at a tighter tolerance.

        Raises:
            SolverError: that solve did not reach its end: max_nfe counts its calls anew.
        """
        return self._budget(self)


def log_prob(
    model: Predictor,
    x: Tensor,
    *,
    divergence: str = "exact",
    probes: int = 1,
    solver: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    seed: int | torch.Generator | None = None,
    cond: Mapping[str, Any] | None = None,
    max_nfe: int | None = None,
) -> LogProb:
    """The log-likelihood of samples under the probability flow of a model, eq. (1).

    Args:
        model: the predictor. A network is put into evaluation mode and back.
        x: samples [(batch, *dims)], taken at t_min (on a DDPM, at its first node).
        divergence: exact, or estimated by probes: rademacher or gaussian.
        probes: how many; two or more give a standard error.
        solver: dopri5, which solves the path and then integrates the divergence along it, by
            sdekit; or both at once by a library: torchdiffeq:dopri5, torchdiffeq:dopri8,
            torchdiffeq:bosh3, torchdiffeq:fehlberg2, torchdiffeq:adaptive_heun, scipy:RK45,
            scipy:RK23, scipy:DOP853, scipy:Radau, scipy:BDF, scipy:LSODA.
        rtol: relative tolerance, > 0.
        atol: absolute tolerance, > 0.
        seed: of the probes: an int, a generator, or None for fresh ones. Probes depend on the seed
            and the number of the sample, not on the batch.
        cond: conditions for the model, passed to every call.
        max_nfe: calls after which the solve fails.

    Returns:
        A `LogProb`, in nats per sample.

    Raises:
        ConfigError: an unknown name, a tolerance or a number of probes out of range, an exact
            divergence of too many dimensions.
        DtypeError: x is no floating tensor; images are dequantised first.
        DataError: x holds NaN or infinity; the rows are named.
        ShapeError: x has not the shape of the model's data.
        ModelError: the model's output has no gradient, or is not like x.
        SolverError: the solve did not reach its end: tolerance, max_nfe or a model that is not
            finite; the time is named.

    Reference: arXiv:2011.13456, eqs. 39 and 40; arXiv:1810.01367, section 3.1.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE
        >>> model = ExactScore(Gaussian([0.0, 0.0], 1.0), VPSDE())
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
        >>> log_prob(model, x).nats  # -log(2 pi) - |x|^2 / 2
        tensor([-1.8379, -4.3379], dtype=torch.float64)
    """
    sde_of(model)
    x = data(x)
    rtol, atol = checked_solve(solver, rtol, atol, max_nfe)
    by = divergence_of(divergence, probes, x, seed)
    return Question(model, x, by, solver, conditions(cond), max_nfe).answer(rtol, atol)


_WHOLE = "integers have no density: sdekit.likelihood.dequantize makes one of them"


def data(x: object, name: str = "x", whole: str = _WHOLE) -> Tensor:
    """Samples or latents [(batch, *dims)].

    Args:
        x: the samples.
        name: of the argument.
        whole: what is said of whole numbers.

    Raises:
        DtypeError: no floating tensor.
        ShapeError: a 0-d tensor.
        DataError: NaN or infinity; the rows are named.
    """
    if isinstance(x, Tensor) and not (x.dtype.is_floating_point or x.dtype.is_complex):
        raise DtypeError(f"{name} must be a real floating tensor, got {x.dtype}; {whole}")
    try:
        return samples(name, floating(name, x)).detach()
    except NonFiniteError as error:
        raise DataError(str(error)) from None


@dataclass(frozen=True, eq=False)
class Question:
    """What `log_prob` was asked, but for the tolerances: a budget asks it again."""

    model: Predictor
    x: Tensor
    by: Divergence
    solver: str
    cond: Mapping[str, Any]
    max_nfe: int | None

    def flow(self) -> tuple[Flow, Change]:
        """The flow, with no call made yet, and what changes the density along it."""
        flow = Flow(self.model, self.x, cond=self.cond, max_nfe=self.max_nfe)
        return flow, Change(flow, self.by)

    def answer(self, rtol: float, atol: float) -> LogProb:
        """One solve of eq. (1)."""
        with quiet(self.model):
            return self._answer(rtol, atol)

    def _answer(self, rtol: float, atol: float) -> LogProb:
        flow, change = self.flow()
        z = flow.coordinates(self.x, flow.levels([flow.start])[0])
        change.check(z)
        z, gain = carried(flow, z, self.solver, rtol, atol, change=change)
        latent = flow.placed(z, flow.levels([flow.end])[0])
        prior = flow.sde.prior_log_prob(latent)
        each = prior[:, None] + flow.log_volume() + gain
        spread = torch.zeros_like(prior)
        if self.by.probes is not None:
            some = self.by.columns > 1 and len(each) > 0
            spread = each.std(1) / self.by.columns**0.5 if some else spread.fill_(torch.nan)
        known = getattr(self.model, "at", None)
        gap = None if known is None else known(flow.t_max).log_prob(latent) - prior
        return LogProb(
            each.mean(1), spread, flow.nfe, latent.to(self.x.dtype), gap, flow.t_min, flow.t_max,
            partial(budget_of, question=self, rtol=rtol, atol=atol),
        )  # fmt: skip


class Change:
    """The rate of change of the log-density along the flow, eqs. (1) and (2).

    Args:
        flow: the flow.
        by: how the divergence is found.
    """

    def __init__(self, flow: Flow, by: Divergence) -> None:
        self.flow, self.by = flow, by
        self._squares: Tensor | None = None
        if by.probes is not None:
            v = by.probes.reshape(*by.probes.shape[:2], flow.dim)
            axes = flow.frame.axes
            self._norms = v.square().sum(2).T
            self._squares = (v if axes is None else v @ axes).square()

    def check(self, z: Tensor) -> None:
        """Refuse a model of which autograd does not see all, at coordinates z [(batch, d)].

        Where signal and noise are alike the output changes over lengths like the data's own.
        """
        if not len(z) or (self.by.probes is None and hasattr(self.flow.model, "bind_trace")):
            return  # nothing is asked of autograd
        middle = min(max(math.pi / 4, self.flow.start), self.flow.end)
        at = self.flow.levels([middle])[0]
        x = self.flow.placed(z.clamp(-3.0, 3.0), at)
        self.by.check(self._counted, x, at.t, float(at.std.mean()))

    def _counted(self, x: Tensor, t: float) -> Tensor:
        return self.flow.counted.ask(self.flow.raw, x, t)

    def rates(self, places: Sequence[float], states: Sequence[Tensor]) -> list[Tensor]:
        """r (div s + sum 1/v) at these places and coordinates, each [(batch, columns)]."""
        return [
            self.rate(self.flow.placed(z, at), at)[1]
            for z, at in zip(states, self.flow.levels(places, trace=True), strict=True)
        ]

    def rate(self, x: Tensor, at: Level) -> tuple[Tensor, Tensor]:
        """The raw output at x, and the rate [(batch, columns)]."""
        raw, divergence = self.probed(x, at)
        return raw, (divergence + at.total) * at.rate

    def probed(self, x: Tensor, at: Level) -> Probed:
        """The raw output at x and the divergence of the score, eq. (2) [(batch, columns)]."""
        found: list[Probed] = []

        def call(x: Tensor, t: float) -> Tensor:
            found[:] = [self._call(x, t)]
            return found[0].raw

        self.flow.counted.ask(call, x, at.t)
        on_x, on_raw = at.score
        raw, divergence = found[0]
        if self._squares is None:
            return Probed(raw, on_raw * divergence + on_x * self.flow.dim)
        of_frame = (self._squares @ at.precision).T - at.total  # of mean 0
        return Probed(raw, on_raw * divergence + on_x * self._norms + of_frame)

    def _call(self, x: Tensor, t: float) -> Probed:
        if self.by.probes is None and self.flow.trace is not None:
            raw, trace = self.flow.trace(x, t)
            return Probed(raw, trace[:, None])
        return self.by(self.flow.raw, x, t)
