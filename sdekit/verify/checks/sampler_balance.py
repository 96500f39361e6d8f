"""What an adjusted corrector leaves at rest: detailed balance, read off its real step."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit.model import ExactScore
from sdekit.targets import Gaussian
from sdekit.verify.checks.sampler_law import _CHAIN, STAGES
from sdekit.verify.claims import Finding, Skip, agree, claim
from sdekit.verify.probes import draws, replay, run_of
from sdekit.verify.strategies import f64

_CERTAIN = 8.0  # a normal number that is as good as never exceeded
_HALVINGS = 40
_PAIRS = 24
_DATA = Gaussian(f64([0.7, -0.2]), f64([[1.0, 0.5], [0.5, 0.6]]))


class _Step:
    """One step of the corrector at a level, with the draws given: of the proposal, of its fate."""

    def __init__(self, sampler: Any, model: ExactScore, t: float) -> None:
        self.sampler, self.model = sampler, model
        self.grid = f64([min(1.05 * t, model.sde.t_max), t])

    def __call__(self, x: Tensor, z: Tensor, fate: Tensor) -> Tensor:
        decision = fate[:, None].expand_as(x)
        return run_of(self.sampler, self.model, x, self.grid, replay(torch.stack([z, decision]))).x

    def proposal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean at x [(n, d)] and the root R of the covariance R R^T [(d, d)]."""
        n, d = x.shape
        surely = torch.full((n,), -40.0, dtype=torch.float64)
        mean = self(x, torch.zeros_like(x), surely)
        units = torch.eye(d, dtype=torch.float64)
        return mean, torch.stack(
            [(self(x, u.expand(n, d), surely) - mean)[0] for u in units], dim=1
        )

    def log_acceptance(self, x: Tensor, z: Tensor) -> Tensor:
        """log A [(n,)]: the least number at which the proposal of z is refused, by bisection."""
        low = torch.full((len(x),), -40.0, dtype=torch.float64)
        high = torch.full((len(x),), _CERTAIN, dtype=torch.float64)
        always = (self(x, z, high) != x).any(dim=1)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            moved = (self(x, z, middle) != x).any(dim=1)
            low, high = torch.where(moved, middle, low), torch.where(moved, high, middle)
        return torch.where(always, 0.0, torch.special.log_ndtr(low))


@claim(
    "sampler",
    "an adjusted corrector leaves p_t at rest: p(x) q(y | x) A(x, y) = p(y) q(x | y) A(y, x)",
    "Roberts and Tweedie, Bernoulli 2 (1996), section 1.4",
    of=("corrections", "acceptance"),
    cost="fast",
    share=0.2,
    cases=lambda sampler: st.fixed_dictionaries(
        {
            "sde": st.sampled_from([sde for sde in STAGES if "ddpm" not in sde.kinds] + [_CHAIN]),
            "t": st.floats(0.1, 0.9),
            "seed": st.integers(0, 10**6),
        }
    ),
)
def adjusted_corrector_is_reversible(sampler: Any, case: Any) -> Finding:
    """The proposal and the acceptance are those of the real step; p is a correlated Gaussian."""
    if sampler.repeats != 1:
        raise Skip("a row of it is several steps; its other examples take one")
    sde = case["sde"]
    t = sde.time(max(1, round(case["t"] * (sde.n - 1)))) if "ddpm" in sde.kinds else (
        case["t"] * sde.t_max
    )  # fmt: skip
    model = ExactScore(_DATA, sde)
    step, law = _Step(sampler, model, t), model.at(t)
    centre, spread = law.mean, law.cov.diagonal().sqrt()  # type: ignore[attr-defined]
    x = centre + 1.5 * spread * draws(1, (_PAIRS, 2), case["seed"])[0]
    z = 1.5 * draws(1, (_PAIRS, 2), case["seed"] + 1)[0]
    mean, root = step.proposal(x)
    y = mean + z @ root.T
    back_mean, back_root = step.proposal(y)
    back = torch.linalg.solve(back_root, (x - back_mean).T).T
    # q but for its constant, which is that of both if the roots are one
    there = law.log_prob(x) - 0.5 * z.square().sum(1) + step.log_acceptance(x, z)
    again = law.log_prob(y) - 0.5 * back.square().sum(1) + step.log_acceptance(y, back)
    there = there - torch.linalg.slogdet(root)[1]
    again = again - torch.linalg.slogdet(back_root)[1]
    return agree(
        "log p(x) q(y | x) A(x, y)", there, "log p(y) q(x | y) A(y, x)", again,
        tol=1e-7, scale=1.0, at={"t": t},
    )  # fmt: skip
