"""The variational bound of a chain: its steps, its last step, and all of it by its definition."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from torch import Tensor

from sdekit.model.parametrization import Eps
from sdekit.model.prediction import Prediction
from sdekit.sde import DDPM
from sdekit.verify.claims import Finding, Skip, agree, claim
from sdekit.verify.probes import draws
from sdekit.verify.strategies import f64

_HO = "arXiv:2006.11239"
_BOUND = ("variance", "hybrid", "decoder", "prior")  # what a bound on a chain has
_CHAINS = (
    DDPM.linear(8, beta_start=0.02, beta_end=0.5),
    DDPM.cosine(6, max_beta=0.9),
    DDPM.linear(100).respaced([3, 20, 60, 100]),
)
_cases = st.fixed_dictionaries(
    {"chain": st.sampled_from(_CHAINS), "seed": st.integers(0, 10**6), "at": st.floats(0, 1)}
)


class _Net:
    """A predictor of the noise, tanh(x) / (1 + t), in one dimension or many."""

    parametrization = Eps()

    def __init__(self, sde: Any) -> None:
        self.sde = sde

    @staticmethod
    def noise(x: Tensor, t: Any) -> Tensor:
        return torch.tanh(x) / (1 + t)

    def __call__(self, x: Tensor, t: Any, **cond: Any) -> Prediction:
        times = torch.as_tensor(t, dtype=torch.float64).reshape(-1, *[1] * (x.ndim - 1))
        return Prediction(x, self.noise(x, times), t, (self.sde, self.parametrization))


class _Table:
    """A chain's numbers by hand, from its betas: index 0 is the data."""

    def __init__(self, chain: DDPM, variance: str) -> None:
        self.n, self.beta = chain.n, torch.cat([f64([0.0]), chain.betas.double()])
        self.bar = (1 - self.beta).cumprod(0)
        self.tilde = torch.zeros_like(self.beta)
        self.tilde[1:] = self.beta[1:] * (1 - self.bar[:-1]) / (1 - self.bar[1:])
        self.var = (self.tilde if variance == "posterior" else self.beta).clone()
        self.var[1] = self.tilde[2]  # the released code's: that of the second step

    def mean(self, i: int, x: Tensor) -> Tensor:
        """Of the model's step back from node i; arXiv:2006.11239, eq. 11."""
        step = self.beta[i] / (1 - self.bar[i]).sqrt() * _Net.noise(x, i / self.n)
        return (x - step) / (1 - self.beta[i]).sqrt()


def _plain(objective: Any) -> None:
    """Skip what is no bound of fixed variances by itself."""
    if objective.hybrid or objective.variance not in ("posterior", "beta"):
        raise Skip(f"it is hybrid, or its variance is {objective.variance!r}")


def _log_normal(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return -0.5 * ((x - mean).square() / var + (2 * math.pi * var).log())


@claim(
    "objective",
    "a step's loss is N KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)): its weight of the error of "
    "the noise is beta^2 / (2 sigma^2 alpha (1 - alpha_bar))",
    f"{_HO}, eqs. 5 and 12",
    of=_BOUND,
    needs=("loss_at",),
    cases=lambda objective: _cases,
)
def bound_step_is_a_kl(objective: Any, case: Any) -> Finding:
    """By the weight of the paper and the variances' own part."""
    _plain(objective)
    chain = case["chain"]
    table = _Table(chain, objective.variance)
    i = 2 + min(int(case["at"] * (chain.n - 1)), chain.n - 2)
    x0, noise = draws(2, (3, 2), case["seed"])
    beta, bar, var = table.beta[i], table.bar[i], table.var[i]
    x = bar.sqrt() * x0 + (1 - bar).sqrt() * noise
    weight = beta**2 / (2 * var * (1 - beta) * (1 - bar))
    ratio = table.tilde[i] / var
    error = (_Net.noise(x, i / chain.n) - noise).square()
    expected = (weight * error + 0.5 * (ratio - 1 - ratio.log())).sum(1)
    return agree(
        "the loss of a step",
        objective.loss_at(_Net(chain), x0, chain.time(i), noise),
        "N KL",
        chain.n * expected,
        tol=1e-9,
        at={"i": float(i)},
    )


@claim(
    "objective",
    "the last step's loss is -N log p(x_0 | x_1), as a density, or of bins that are open at the "
    "ends of the range",
    f"{_HO}, eq. 13",
    of=_BOUND,
    needs=("loss_at",),
    cases=lambda objective: _cases,
)
def bound_last_step_decodes(objective: Any, case: Any) -> Finding:
    """With the Gaussian's density, and with five levels of [-1, 1]."""
    _plain(objective)
    chain = case["chain"]
    table = _Table(chain, objective.variance)
    generator = torch.Generator().manual_seed(case["seed"])
    x0 = torch.randint(0, 5, (3, 2), generator=generator).double() / 2 - 1
    noise = draws(1, (3, 2), case["seed"])[0]
    x = table.bar[1].sqrt() * x0 + (1 - table.bar[1]).sqrt() * noise
    mean, std = table.mean(1, x), table.var[1].sqrt()
    low = torch.where(x0 > -1, (x0 - 0.25 - mean) / std, -math.inf)
    high = torch.where(x0 < 1, (x0 + 0.25 - mean) / std, math.inf)
    inside = torch.special.ndtr(-low) - torch.special.ndtr(-high)
    each = torch.where(low + high > 0, inside, torch.special.ndtr(high) - torch.special.ndtr(low))
    wanted = {
        "gaussian": -_log_normal(x0, mean, table.var[1]).sum(1),
        "discretized": -each.log().sum(1),
    }
    for kind, nats in wanted.items():
        made = replace(objective, decoder=kind, levels=5)
        found = agree(
            f"the loss of the {kind} decoder",
            made.loss_at(_Net(chain), x0, chain.time(1), noise),
            "-N log p",
            chain.n * nats,
            tol=1e-8,
            scale=chain.n * nats.abs().max().clamp_min(1.0),  # a probability may be near 1
        )
        if not found.ok:
            return found
    return found


@claim(
    "objective",
    "the prior's part and the mean of the losses over the steps are together "
    "E_q[log q(x_1:T | x_0) - log p(x_0:T)], which is -log p(x_0) + KL(q(x_1:T | x_0) || "
    "p(x_1:T | x_0))",
    f"{_HO}, eq. 3",
    of=_BOUND,
    needs=("loss_at",),
)
def bound_is_its_definition(objective: Any) -> Finding:
    """By Gauss-Hermite sums over the paths of a chain of three steps, in one dimension."""
    _plain(objective)
    chain = DDPM(f64([0.2, 0.3, 0.5]))
    table = _Table(chain, objective.variance)
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    z, p = f64(nodes), f64(weights / weights.sum())
    model, x0 = _Net(chain), f64([[0.4]])
    total = objective.prior(model, x0)
    for i in (1, 2, 3):
        at = objective.loss_at(model, x0.expand(20, 1), chain.time(i), z[:, None])
        total = total + (p * at).sum() / chain.n
    path = [x0[0].expand(20**3)]
    value = torch.zeros(20**3, dtype=torch.float64)
    for i, step in enumerate(torch.cartesian_prod(z, z, z).unbind(1), start=1):
        mean, var = (1 - table.beta[i]).sqrt() * path[-1], table.beta[i]
        path.append(mean + var.sqrt() * step)
        value = value + _log_normal(path[-1], mean, var)
        value = value - _log_normal(path[-2], table.mean(i, path[-1]), table.var[i])
    value = value - _log_normal(path[-1], f64(0.0), f64(1.0))
    expected = (torch.cartesian_prod(p, p, p).prod(1) * value).sum()[None]
    return agree("the bound", total, "its definition", expected, tol=1e-6)
