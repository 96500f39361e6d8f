r"""Where the error of a sampler comes from: one cause switched at a time.

Samples are wrong for four reasons: they start from a prior that is not the law of x_T, they stop
at t_min, they take finitely many steps, and the network is not the score. With P the law of what
the sampler really returns, by (start, score), and p_t the true marginals, the effects are the
distances

    truncation        p_0            to  p_{t_min}                                              (1)
    discretisation    p_{t_min}      to  P(true x_T, exact score)                               (2)
    initialisation    P(true, exact) to  P(prior, exact)                                        (3)
    score             P(true, exact) to  P(true, network)                                       (4)
    total             p_0            to  P(prior, network)                                      (5)

and the interaction is what the total is more, or less, than the sum of the four. Each of the pairs
differs in one switch; with a perfect start, score and last time, what is left is the steps' alone.
The shifts of the modes' weights have the same five differences, with their signs.

With denoise=True both p_{t_min} and P are those of the denoised samples.

Reference: Chen et al., arXiv:2209.11215, theorem 2, which bounds the total by three of the terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdekit._check import choice, integer, shown
from sdekit.errors import DtypeError, NotAffine
from sdekit.exact.laws import Effect, Laws, laws_for
from sdekit.model import ExactScore, Predictor
from sdekit.sampling.base import Sampler
from sdekit.sampling.grid import Grid
from sdekit.targets import ExactTarget, Target

__all__ = ["CAUSES", "ErrorBudget", "attribute_error"]

_TIE = 1e-3  # between the weights of two modes that count as equal

CAUSES = ("initialisation", "truncation", "discretisation", "score")


@dataclass(frozen=True, eq=False)
class ErrorBudget:
    """The effects of eqs. (1) to (5), and what is left.

    Attributes:
        initialisation: the prior instead of the true x_T.
        truncation: t_min instead of 0.
        discretisation: finitely many steps.
        score: the network instead of the exact score; zero for an exact one.
        interaction: the total less the sum of the four, in every measure.
        total: what the sampler returns against the data.
        method: "gaussian" or "line", both exact, or "samples", with standard errors.
        truth: the weights of the data's modes [(k,)], or None.
        weights: those of the samples [(k,)], or None.
        floor: the W2 of two sets of true samples; 0 where the laws are exact.
        error: the largest error of a quadrature in it, as a W2; 0 where there is none.
    """

    initialisation: Effect
    truncation: Effect
    discretisation: Effect
    score: Effect
    interaction: Effect
    total: Effect
    method: str
    truth: Tensor | None
    weights: Tensor | None
    floor: float = 0.0
    error: float = 0.0

    @property
    def mode(self) -> int | None:
        """The heaviest mode of the data, whose weight is told; None for fewer than two modes.

        The first of those that tie, for which a quadrature's rounding is no tie-break.
        """
        if self.truth is None or len(self.truth) < 2:
            return None
        return int((self.truth > self.truth.max() - _TIE).to(torch.int64).argmax())

    @property
    def exact(self) -> bool:
        """Whether no sample was drawn."""
        return self.method != "samples"

    @property
    def parts(self) -> Mapping[str, Effect]:
        """The four causes and the interaction, in the order of a run."""
        return {name: getattr(self, name) for name in (*CAUSES, "interaction")}

    @property
    def cause(self) -> str:
        """The cause of the largest W2."""
        return max(CAUSES, key=lambda name: getattr(self, name).w2)

    def to_json(self) -> dict[str, Any]:
        """Every number, in plain Python."""

        def plain(value: Any) -> Any:
            return value.tolist() if isinstance(value, Tensor) else value

        effects = {
            name: {key: plain(v) for key, v in asdict(effect).items()}
            for name, effect in {**self.parts, "total": self.total}.items()
        }
        return {
            "cause": self.cause,
            "method": self.method,
            "mode": self.mode,
            "exact": self.exact,
            "truth": plain(self.truth),
            "weights": plain(self.weights),
            "floor": self.floor,
            "error": self.error,
            "effects": effects,
        }

    def __str__(self) -> str:
        """A table."""
        mode = self.mode
        heads = ["", "sliced W2" if not self.exact else "W2", "KL", "TV"]
        heads += [] if mode is None else [f"weight {float(self.truth[mode]):.3g}"]  # type: ignore[index]
        lines = [heads]
        for name, effect in {**self.parts, "total": self.total}.items():
            lines.append([name, *effect.cells(mode)])
        if not self.exact:
            lines.append(["two true samples", f"{self.floor:.4f}", *[""] * (len(heads) - 2)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def attribute_error(
    sampler: str | Sampler,
    model: Predictor,
    target: Target | None = None,
    *,
    steps: int | None = None,
    grid: str | Grid | Tensor = "uniform",
    prior: str | Target = "standard",
    denoise: bool = False,
    method: str = "auto",
    n: int = 20_000,
    seed: int = 0,
) -> ErrorBudget:
    """Attribute the error of a sampler's output to its causes, eqs. (1) to (5).

    Exact on Gaussian data with an affine model, on mixtures along a line with their exact score,
    and with any model in one dimension; elsewhere from samples, with standard errors.

    Args:
        sampler: a sampler, or the spelling of one.
        model: what is sampled from: an `ExactScore`, or a network.
        target: the law of the data, in closed form; by default the model's own target.
        steps: as for `sample`.
        grid: as for `sample`.
        prior: as for `sample`.
        denoise: as for `sample`.
        method: "auto", "exact" (an error where no exact law is known) or "samples".
        n: how many samples, where they are drawn.
        seed: of the samples.

    Raises:
        DtypeError: the target is not in closed form.
        NotAffine: method="exact", and no exact law is known.
        ConfigError, ShapeError, TimeError: of an argument, as for `sample`.

    Example:
        >>> from sdekit import DDPM, ExactScore, make
        >>> model = ExactScore(make("target", "tutorial"), DDPM.linear(100))
        >>> budget = attribute_error("ancestral", model)
        >>> budget.cause, [round(float(w), 3) for w in budget.weights]
        ('initialisation', [0.399, 0.601])
    """
    choice("method", method, ("auto", "exact", "samples"))
    integer("n", n, ge=100)
    target = getattr(model, "target", None) if target is None else target
    if not isinstance(target, ExactTarget):
        raise DtypeError(
            "target must be a law in closed form (Gaussian, GaussianMixture, Empirical), got "
            f"{shown(target)}; the data themselves are one: Empirical(data)"
        )
    exact = ExactScore(target, model.sde)
    given = isinstance(model, ExactScore) and model.target == target
    settings: dict[str, Any] = {"steps": steps, "grid": grid, "denoise": denoise}
    for laws in laws_for(method, sampler, exact, settings, n, seed):
        try:
            return _Switches(laws, exact, exact if given else model, prior).budget()
        except NotAffine:
            if method == "exact" and laws.last:
                raise
    raise AssertionError("the last method never refuses")  # pragma: no cover


@dataclass(frozen=True, eq=False)
class _Switches:
    """The five laws of eqs. (1) to (5), each made once."""

    laws: Laws[Any]
    exact: ExactScore
    model: Predictor
    prior: str | Target

    @cached_property
    def ideal(self) -> Any:
        return self.laws.output(self.exact, self.laws.true_start())

    @cached_property
    def started(self) -> Any:
        return self.laws.output(self.exact, self.start)

    @cached_property
    def start(self) -> str | Target:
        return self.laws.start_of(self.model, self.prior)

    def budget(self) -> ErrorBudget:
        """The effects, by their definitions."""
        laws, learned = self.laws, self.model is not self.exact
        data, cut = laws.data(), laws.marginal()
        output = laws.output(self.model, self.start) if learned else self.started
        parts = {
            "initialisation": laws.effect(self.started, self.ideal),
            "truncation": laws.effect(cut, data),
            "discretisation": laws.effect(self.ideal, cut),
            "score": laws.effect(
                laws.output(self.model, laws.true_start()) if learned else self.ideal, self.ideal
            ),
        }
        total = laws.effect(output, data)
        return ErrorBudget(
            **parts,
            interaction=total.less(list(parts.values())),
            total=total,
            method=laws.name,
            truth=laws.weights(data),
            weights=laws.weights(output),
            floor=laws.floor(),
            error=laws.error,
        )
