r"""What `sdekit demo` computes: the weight of a mixture's large mode, by seven ways of sampling.

A tutorial's chain of T = 100 steps ends where x_T = sqrt(abar) x_0 + sqrt(1 - abar) eps with
abar = 0.36, and starts to sample from N(0, I). Each run below changes one thing: the network for
the exact score, N(0, I) for the true law of x_T, 100 steps for 1000, the chain for its limit. The
share w of samples nearer to the large mode has the standard error sqrt(w (1 - w) / n).

Before any of them, the exact score's numbers are known without a sample: what the chain returns is
a law on the line through both modes, and its error has exact causes.

Reference: Ho et al., arXiv:2006.11239, algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdekit._catalogue import make
from sdekit.cli.terminal import Terminal
from sdekit.exact import ErrorBudget, attribute_error
from sdekit.model import MLP, ExactScore, Predictor, ScoreModel
from sdekit.sampling import sample
from sdekit.sde import DDPM, VPSDE
from sdekit.targets import GaussianMixture
from sdekit.training import Trainer

if TYPE_CHECKING:
    from sdekit.sde import LinearSDE

__all__ = ["EXACT_RUNS", "PRIOR", "TRUE", "Exact", "Outcome", "Size", "Story", "sentence"]

PRIOR, TRUE = "N(0, I)", "true x_T"
_SHORT, _LONG, _FLOW = "T = 100", "T = 1000", "VP SDE, ODE"
_EXACT, _TRAINED = "exact score", "trained network"
# the runs whose exact weights are known
EXACT_RUNS = {
    "exact_100": f"{_SHORT}, {_EXACT}, from {PRIOR}",
    "exact_100_true": f"{_SHORT}, {_EXACT}, from {TRUE}",
}
_KEPT = 41  # states of a run that are kept for the pictures
_WATCHED = 2000  # samples of which they are kept


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is computed.

    Args:
        width: of the network's three hidden layers.
        training: steps of training, for each of the two networks.
        batch: samples a training step.
        n: samples of a run with the exact score.
        n_network: samples of a run of a network.
        n_long: samples of the run of a network through 1000 steps.
    """

    width: int
    training: int
    batch: int
    n: int
    n_network: int
    n_long: int


FULL = Size(width=96, training=2000, batch=1024, n=40_000, n_network=20_000, n_long=8_000)
QUICK = Size(width=48, training=800, batch=1024, n=16_000, n_network=8_000, n_long=3_000)


@dataclass(frozen=True, eq=False)
class Outcome:
    """One way of sampling and what came of it.

    Attributes:
        key: a short name.
        process: "T = 100", "T = 1000" or "VP SDE, ODE".
        model: "exact score" or "trained network".
        start: `PRIOR` or `TRUE`.
        sampler: how.
        x: the samples [(n, 2)].
        weight: the share of samples nearer to the large mode.
        stderr: its standard error.
        probability: the mean probability of the large mode given the sample.
        nfe: network calls a sample.
        seconds: wall time.
        path: kept states of some samples [(m, k, 2)], or None.
        path_t: their times [(m,)], or None.
    """

    key: str
    process: str
    model: str
    start: str
    sampler: str
    x: Tensor
    weight: float
    stderr: float
    probability: float
    nfe: int
    seconds: float
    path: Tensor | None
    path_t: Tensor | None

    @property
    def label(self) -> str:
        """A line for people."""
        return f"{self.process}, {self.model}, from {self.start}"


@dataclass(frozen=True, eq=False)
class Exact:
    """What is known without a sample, of ancestral sampling with the exact score.

    Attributes:
        budget: the error of T = 100 from N(0, I), by causes.
        weights: the weight of the large mode by the key of the run that samples it.
    """

    budget: ErrorBudget
    weights: dict[str, float]


class Story:
    """The tutorial's data and chains, the two networks, and the runs.

    Args:
        size: how much to compute.
        seed: of everything.
        device: where.
        terminal: for progress.
    """

    def __init__(self, size: Size, seed: int, device: torch.device, terminal: Terminal) -> None:
        self.size, self.seed, self.device, self.terminal = size, seed, device, terminal
        self.target: GaussianMixture = make("target", "tutorial")
        self.large = int(self.target.weights.argmax())
        self.truth = float(self.target.weights[self.large])
        self.short = DDPM.linear(100, beta_start=1e-4, beta_end=0.02)
        self.long = DDPM.linear(1000, beta_start=1e-4, beta_end=0.02)
        self.losses: dict[str, float] = {}

    def exact(self) -> Exact:
        """The exact law of T = 100, and its error attributed."""
        budget = attribute_error("ancestral", ExactScore(self.target, self.short))
        assert budget.truth is not None
        assert budget.weights is not None
        # from the true x_T only these two causes are left, and shifts of weights add up
        left = [budget.truth, budget.truncation.weights, budget.discretisation.weights]
        true = sum(float(part[self.large]) for part in left if part is not None)
        return Exact(
            budget, {"exact_100": float(budget.weights[self.large]), "exact_100_true": true}
        )

    def run(self) -> Iterator[Outcome]:
        """Every way of sampling, in the order of the story."""
        exact = {chain: ExactScore(self.target, chain) for chain in (self.short, self.long)}
        network = self._train(self.short)
        yield self._sample("trained_100", _SHORT, _TRAINED, network)
        yield self._sample("exact_100", _SHORT, _EXACT, exact[self.short])
        yield self._sample("trained_100_true", _SHORT, _TRAINED, network, true=True)
        yield self._sample("exact_100_true", _SHORT, _EXACT, exact[self.short], true=True)
        network = self._train(self.long)
        yield self._sample("trained_1000", _LONG, _TRAINED, network)
        yield self._sample("exact_1000", _LONG, _EXACT, exact[self.long])
        flow = ExactScore(self.target, VPSDE())
        yield self._sample("exact_vp_ode", _FLOW, _EXACT, flow, sampler="probability_flow")

    def marginal(self, sde: LinearSDE) -> GaussianMixture:
        """The true law of x_T."""
        law = self.target.perturbed(float(sde.alpha(sde.t_max)), float(sde.var(sde.t_max)))
        assert isinstance(law, GaussianMixture)
        return law

    def _train(self, chain: DDPM) -> ScoreModel:
        """An MLP that predicts the noise, by the simple loss."""
        network = MLP(2, width=self.size.width, seed=self.seed)
        model = ScoreModel(network, chain, parametrization="eps", time_input="t").to(self.device)
        trainer = Trainer(
            model, "dsm(weighting='simple')", lr=5e-3, batch_size=self.size.batch, seed=self.seed
        )
        steps = self.size.training
        with self.terminal.progress(f"training, T = {chain.n}", steps) as advance:
            result = trainer.fit(
                self.target,
                steps=steps,
                callback=lambda done, loss: (
                    advance(done, f"loss {loss:.3f}") if done % 20 == 0 else None
                ),
            )
        self.losses[f"T = {chain.n}"] = float(result.losses[-min(100, steps) :].mean())
        return result.model

    def _sample(
        self,
        key: str,
        process: str,
        kind: str,
        model: Predictor,
        *,
        sampler: str = "ancestral",
        true: bool = False,
    ) -> Outcome:
        n = self.size.n
        if kind == _TRAINED:
            n = self.size.n_long if process == _LONG else self.size.n_network
        prior: Any = self.marginal(model.sde) if true else "standard"
        start = TRUE if true else PRIOR
        steps = model.sde.default_steps
        watch = _Watch(steps)
        title = f"sampling, {process}, {kind}"
        total = steps if sampler == "ancestral" else None
        with self.terminal.progress(title, total) as advance, _quiet(watch, advance) as tick:
            result = sample(
                model, (n, 2), sampler=sampler, prior=prior, seed=self.seed, device=self.device,
                callback=tick,
            )  # fmt: skip
        x = result.x.cpu()
        weight = float((self.target.component(x) == self.large).double().mean())
        probability = self.target.responsibilities(x.double())[:, self.large].mean()
        return Outcome(
            key, process, kind, start, sampler, x, weight, (weight * (1 - weight) / n) ** 0.5,
            float(probability), result.nfe, result.seconds, watch.path, watch.path_t,
        )  # fmt: skip


class _Watch:
    """Keeps some states of some samples: all of them would fill the memory."""

    def __init__(self, steps: int) -> None:
        self.wanted = {round(k * steps / (_KEPT - 1)) for k in range(_KEPT)}
        self.states: list[tuple[float, Tensor]] = []

    def see(self, frame: Any) -> None:
        """Keep the state where it is wanted."""
        if frame.step in self.wanted:
            self.states.append((frame.t, frame.x[:_WATCHED].cpu()))

    @property
    def path(self) -> Tensor | None:
        """The kept states [(m, k, 2)]."""
        return torch.stack([x for _, x in self.states]) if self.states else None

    @property
    def path_t(self) -> Tensor | None:
        """Their times [(m,)]."""
        return torch.tensor([t for t, _ in self.states], dtype=torch.float64)


@contextmanager
def _quiet(watch: _Watch, advance: Any) -> Iterator[Any]:
    """A callback that keeps states and moves the bar every few steps."""

    def tick(frame: Any) -> None:
        watch.see(frame)
        if frame.step % 10 == 0:
            advance(frame.step)

    yield tick


def sentence(alpha_bar: float, outcomes: dict[str, Outcome]) -> str:
    """Why, in a sentence."""
    wrong, mended = outcomes["exact_100"].weight, outcomes["exact_100_true"].weight
    return (
        f"At T = 100 the product of the alphas, alpha_bar_T, is still {alpha_bar:.2f}: the chain "
        f"never reaches its prior N(0, I), so that sampling from it gives the large mode "
        f"{100 * wrong:.0f} % even with the exact score, and {100 * mended:.0f} % as soon as it "
        f"starts from the true x_T, or runs long enough to forget the data."
    )
