"""Training losses and their weights."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit._catalogue import catalogue
from sdekit.model.parametrization import Eps
from sdekit.model.prediction import Prediction
from sdekit.sde import DDPM, VESDE, VPSDE, CosineSDE, SubVPSDE
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.laws import LAWS
from sdekit.verify.probes import draws
from sdekit.verify.published import MEANINGS, WEIGHTS, Point
from sdekit.verify.statistics import normal, uniform
from sdekit.verify.strategies import f64

__all__ = ["CASES", "SDES", "Given"]

SDES = (VPSDE(), SubVPSDE(), VESDE(), CosineSDE())
_VINCENT = "Vincent, Neural Computation 23 (2011), eq. 11"
CASES = st.fixed_dictionaries(
    {"sde": st.sampled_from(SDES), "t": st.floats(0.3, 0.9), "seed": st.integers(0, 10**6)}
)


def _believed(c_noise: Tensor) -> Tensor:
    """A log of the error for learned weights, of log(sigma / alpha) / 4."""
    return 0.4 * torch.sin(3 * c_noise)


class Given:
    """A predictor that says eps_hat(x, t), in any parametrisation; it notes what it is asked."""

    def __init__(self, sde: Any, eps: Any, kind: Any = None) -> None:
        self.sde = sde
        self.eps = eps
        self.parametrization = kind or Eps()
        self.asked: list[tuple[Tensor, Tensor]] = []
        self.uncertainty = _believed

    def __call__(self, x: Tensor, t: Any, **cond: Any) -> Prediction:
        """The prediction that says this eps_hat."""
        times = torch.as_tensor(t, dtype=torch.float64).reshape(-1, *[1] * (x.ndim - 1))
        self.asked.append((x, times.reshape(-1)))
        eps = self.eps(x, times)
        alpha, sigma = self.sde.alpha(times), self.sde.sigma(times)
        point = Point((x - sigma * eps) / alpha, eps, times, self.sde)
        raw = MEANINGS[self.parametrization.catalogue_name][0](point, self.parametrization)
        return Prediction(x, raw, t, (self.sde, self.parametrization))


def _two_points(sde: Any) -> Any:
    """The best eps_hat for x_0 = -1 (weight 0.3) or 1 (0.7): from the posterior mean."""

    def eps(x: Tensor, t: Tensor) -> Tensor:
        alpha, var = sde.alpha(t), sde.var(t)
        # P(x_0 = 1 | x) by Bayes' rule
        up = torch.sigmoid(2 * alpha * x / var + torch.log(torch.tensor(0.7 / 0.3)))
        return (x - alpha * (2 * up - 1)) / var.sqrt()

    return eps


def _averaged(objective: Any, model: Given, t: float) -> Tensor:
    """The loss averaged over both points and the noise: the trapezoid rule is exact here."""
    z = torch.linspace(-9, 9, 481, dtype=torch.float64)
    weight = torch.exp(-0.5 * z**2)
    weight = weight / weight.sum()
    x0 = torch.cat([torch.full_like(z, -1.0), torch.full_like(z, 1.0)])[:, None]
    noise = torch.cat([z, z])[:, None]
    losses = objective.loss_at(model, x0, t, noise)
    return (torch.cat([0.3 * weight, 0.7 * weight]) * losses).sum()


@claim(
    "objective",
    "the expected loss is least at the true score: its gradient is 0 there",
    _VINCENT,
    needs=("loss_at",),
    cost="fast",
    share=0.5,
    cases=lambda objective: CASES,
)
def loss_is_least_at_the_score(objective: Any, case: Any) -> Finding:
    """In a scale and a shift of the prediction, for data of two points."""
    sde, t = case["sde"], case["t"] * case["sde"].t_max
    best = _two_points(sde)
    off = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    model = Given(sde, lambda x, t: (1 + off[0]) * best(x, t) + off[1])
    with torch.enable_grad():
        loss = _averaged(objective, model, t)
        slope = torch.autograd.grad(loss, off)[0]
    second = (
        2 * _averaged(objective, Given(sde, lambda x, t: torch.ones_like(x) + 0 * x), t).detach()
    )
    loss = loss.detach()
    size = float(loss.abs() + second.abs())
    k = int(slope.abs().argmax())
    says = (
        f"its slope in the {('scale', 'shift')[k]} of the prediction is {float(slope[k]):.4g} "
        f"of a loss of {float(loss):.4g} at t = {t:.4g} on {sde!r}"
    )
    return no_more_than(float(slope.abs().max()) / size, 1e-8, says)


@claim(
    "objective",
    "the loss of a sample is w(t) times the mean (or sum) of (eps_hat - eps)^2",
    "arXiv:2006.11239, eq. 14; arXiv:2011.13456, eq. 7",
    cases=lambda objective: CASES,
    of=("denoising",),
    needs=("loss_at", "weighting", "reduction"),
)
def loss_is_the_published_one(objective: Any, case: Any) -> Finding:
    """By hand, with the weight of the paper."""
    name: str = getattr(objective.weighting, "catalogue_name", "")
    if name not in WEIGHTS:
        raise Skip(f"no weight is on file for {name}")
    sde, t = case["sde"], f64([case["t"] * case["sde"].t_max] * 3)
    x0, noise = draws(2, (3, 4), case["seed"])
    model = Given(sde, lambda x, t: 0.6 * x - 0.2)
    x = sde.alpha(t)[:, None] * x0 + sde.sigma(t)[:, None] * noise
    weighting = objective.weighting
    errors = WEIGHTS[name][0](weighting, sde, t)[:, None] * (0.6 * x - 0.2 - noise).square()
    if "learned" in weighting.kinds:  # arXiv:2312.02696, eq. 21
        u = _believed(0.25 * torch.log(sde.sigma(t) / sde.alpha(t)))[:, None]
        errors = errors / u.exp() + u
    return agree(
        "the loss",
        objective.loss_at(model, x0, t, noise),
        "w (eps_hat - eps)^2",
        errors.mean(1) if objective.reduction == "mean" else errors.sum(1),
        tol=1e-9,
        at={"t": t},
    )


@claim(
    "objective",
    "the loss does not depend on how the prediction is parametrised",
    "arXiv:2202.00512, section 4",
    needs=("loss_at",),
    cases=lambda objective: CASES,
)
def same_loss_for_every_parametrization(objective: Any, case: Any) -> Finding:
    """One eps_hat, said as every kind of the catalogue."""
    sde, t = case["sde"], case["t"] * case["sde"].t_max
    x0, noise = draws(2, (3, 2), case["seed"])

    def eps(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) / (1 + t)

    plain = objective.loss_at(Given(sde, eps), x0, t, noise)
    for entry in catalogue("parametrization").values():
        seen = objective.loss_at(Given(sde, eps, entry.make()), x0, t, noise)
        found = agree(
            f"the loss by {entry.name}",
            seen,
            "the loss by eps",
            plain,
            tol=1e-5,
            scale=plain.abs().max(),
            at={"t": t},
        )
        if not found.ok:
            return found
    return no_more_than(0.0, 1e-5, "the same")


@claim(
    "objective",
    "the loss of a sample is its own, whatever its batch",
    "conventions of sdekit, 9",
    needs=("loss_at",),
    cases=lambda objective: CASES,
)
def rows_are_independent(objective: Any, case: Any) -> Finding:
    """In a batch of four and of one."""
    sde, t = case["sde"], f64([0.3, 0.5, 0.7, 0.9]) * case["sde"].t_max
    x0, noise = draws(2, (4, 2), case["seed"])
    model = Given(sde, lambda x, t: torch.tanh(x))
    whole = objective.loss_at(model, x0, t, noise)
    alone = torch.cat(
        [objective.loss_at(model, x0[k : k + 1], t[k : k + 1], noise[k : k + 1]) for k in range(4)]
    )
    return agree("the loss alone", alone, "in a batch", whole, tol=1e-12, scale=whole.abs().max())


@claim(
    "objective",
    "autograd gives the gradient of the loss in the network's parameters, and none "
    "flows into the data",
    "a loss's definition",
    needs=("loss_at",),
    cases=lambda objective: CASES,
)
def gradient_of_the_loss(objective: Any, case: Any) -> Finding:
    """Against central differences."""
    sde, t = case["sde"], case["t"] * case["sde"].t_max
    x0, noise = draws(2, (3, 2), case["seed"])
    x0.requires_grad_()

    def loss(theta: Tensor) -> Tensor:
        model = Given(sde, lambda x, t: theta * torch.tanh(x))
        return objective.loss_at(model, x0, t, noise).sum()

    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        slope, into = torch.autograd.grad(loss(theta), (theta, x0), allow_unused=True)
    if into is not None and bool(into.any()):
        return no_more_than(float(into.abs().max()), 0.0, "a gradient flows into the data")
    with torch.no_grad():
        h = 1e-5
        expected = (loss(theta + h) - loss(theta - h)) / (2 * h)
    return agree(
        "the gradient",
        slope[None],
        "the loss's difference",
        expected[None],
        tol=1e-6,
        scale=expected.abs() + loss(theta).detach().abs(),
        at={"t": t},
    )


@claim(
    "objective",
    "the loss stays finite down to t_min, and grows no faster than 1/t there",
    "FAULTS: C4",
    needs=("loss_at",),
)
def finite_to_the_end(objective: Any) -> Finding:
    """At t_min and twice as far from the data, on every kind of process."""
    x0, noise = draws(2, (3, 2))
    worst = Finding(0.0, 100.0)
    sde: Any
    for sde in (*SDES, DDPM.linear(20, beta_start=0.005, beta_end=0.5)):
        low = sde.time(1) if "ddpm" in sde.kinds else sde.t_min or 1e-3 * sde.t_max
        model = Given(sde, lambda x, t: 0.5 * torch.tanh(x))
        near, far = (float(objective.loss_at(model, x0, t, noise).max()) for t in (low, 2 * low))
        ratio = near / far if near < float("inf") else float("inf")
        says = f"{near:.4g} at t = {low:.4g}, {far:.4g} at {2 * low:.4g} on {sde!r}"
        worst = max(worst, no_more_than(ratio, 100.0, says), key=lambda f: f.measured)
    return worst


def _asked(objective: Any, n: int, seed: int) -> tuple[Any, Tensor, Tensor]:
    """A VP process, and what a model is asked for n samples at 0: x_t and t."""
    sde = SDES[0]
    model = Given(sde, lambda x, t: torch.zeros_like(x))
    x0 = torch.zeros(n, 1, dtype=torch.float64)
    with torch.no_grad():
        objective(model, x0, generator=torch.Generator().manual_seed(seed))
    return sde, *model.asked[0]  # whatever a loss asks after it


@claim(
    "objective",
    "times are drawn from the law that is declared, one a sample",
    "arXiv:2011.13456, eq. 7",
    needs=("time",),
    statistical=True,
)
def times_are_drawn_from_their_law(objective: Any, n: int, generator: torch.Generator) -> float:
    """By the distribution function of the law's paper, on VP."""
    law = objective.time
    if getattr(law, "catalogue_name", "") not in LAWS:
        raise Skip(f"no law is on file for time={law!r}")
    sde, _, t = _asked(objective, n, int(torch.randint(2**62, (1,), generator=generator)))
    return uniform(LAWS[law.catalogue_name][0](law, objective.weighting, sde, t))


@claim(
    "objective",
    "the noise that is added is standard normal",
    "arXiv:2011.13456, eq. 7",
    needs=("time",),
    statistical=True,
)
def noise_is_standard(objective: Any, n: int, generator: torch.Generator) -> float:
    """(x_t - alpha x_0)/sigma for data at 0."""
    sde, x, t = _asked(objective, n, int(torch.randint(2**62, (1,), generator=generator)))
    return normal(x[:, 0] / sde.sigma(t))


@claim(
    "objective",
    "the same generator gives the same loss, another one another, and torch's global "
    "source is not touched",
    "conventions of sdekit, 9",
    cases=lambda objective: st.integers(0, 10**6),
)
def seed_decides_the_loss(objective: Any, seed: int) -> Finding:
    """Bit by bit."""
    model = Given(SDES[0], lambda x, t: torch.tanh(x))
    x0 = draws(1, (5, 2), seed)[0]

    def loss(of: int) -> Tensor:
        return objective(model, x0, generator=torch.Generator().manual_seed(of))

    before = torch.get_rng_state()
    one, same, other = loss(seed), loss(seed), loss(seed + 1)
    if not torch.equal(before, torch.get_rng_state()):
        return no_more_than(1.0, 0.0, "torch's global source was used")
    if torch.equal(one, other):
        return no_more_than(1.0, 0.0, "the generator that is passed does not matter")
    return no_more_than(float((one - same).abs().max()), 0.0, "one generator, two losses")
