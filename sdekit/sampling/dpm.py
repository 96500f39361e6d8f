r"""DPM-Solver and DPM-Solver++, for the probability flow and for the reverse SDE.

With l = log(alpha / sigma) and h = l_s - l_t, both solve the semi-linear equations (3) and (4) of
`sdekit.sampling.integrals` exactly but for the prediction, which a polynomial in l replaces:

- multistep: through the predictions of this row and of earlier ones, one call a row;
- singlestep: through predictions at l_t + r h inside the row, `order` calls a row.

The papers' formulas differ from the exact integrals mu_k in two places:

    order 2, "midpoint":   mu_1 = mu_0 / 2        (the variant "heun", also "taylor", is exact) (1)
    order 3, multistep:    mu_2 is halved                                                       (2)

(2) multiplies a divided difference, which is half of the second derivative, by the coefficient of
the whole one: as published and as released everywhere the method converges at order 2.
`corrected=True` has the exact integral, and order 3 on the flow. With noise neither form goes
beyond order 2, in distribution, since predictions along a rough path are no polynomial; the
singlestep form of order 2 with noise, released as "DPM++ SDE", measures order 1.

References: Lu et al., arXiv:2206.00927 (DPM-Solver: algorithms 1 and 2, appendix B); Lu et al.,
arXiv:2211.01095 (DPM-Solver++: algorithms 1 and 2, appendix B; section 5 for the SDE).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sdekit._catalogue import register
from sdekit._check import choice, flag, number, shown
from sdekit.errors import ConfigError
from sdekit.sampling.integrals import Levels, Semilinear, with_pair
from sdekit.sampling.multistep import Multistep
from sdekit.sampling.plan import Array, Mix
from sdekit.sde.base import LinearSDE

__all__ = ["DPMSolver", "DPMSolverPP", "DPMSolverPP3M", "SDEDPMSolverPP"]


@dataclass(frozen=True, kw_only=True)
class _Exponential(Multistep):
    """What the three have in common; `prediction` and `eta` tell them apart.

    Args:
        order: 1, 2 or 3.
        multistep: whether predictions come from earlier rows, or from calls inside the row.
        variant: "midpoint" as published or "heun", eq. (1).
        corrected: whether order 3, multistep, has its full coefficient, eq. (2).
        warmup: None is "rising", as published, and "heun" where corrected.
        final_order: of the last row, to which the orders fall one by one; None is 1 in runs of
            fewer than 15 steps, where the authors advise it, and `order` in longer ones.
        fractions: r of the inner calls of a singlestep row; None: 1/2, or 1/3 and 2/3.
    """

    multistep: bool = True
    variant: str = "midpoint"
    corrected: bool = False
    warmup: str | None = None
    fractions: tuple[float, ...] | None = None
    prediction: ClassVar[str]
    most: ClassVar[int] = 3
    few: ClassVar[int] = 15
    quiet_fields: ClassVar[tuple[str, ...]] = (
        "multistep", "variant", "corrected", "warmup", "final_order", "fractions", "eta",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the fields."""
        for name in ("multistep", "corrected"):
            flag(name, getattr(self, name))
        choice("variant", self.variant, ("midpoint", "heun"))
        super().__post_init__()
        stochastic = bool(self._eta)
        if stochastic and self.start == "heun":
            raise ConfigError("warmup='heun' repeats a row, which noise does not allow: eta > 0")
        if stochastic and self.order > 2 and not self.multistep:
            raise ConfigError("order must be 1 or 2 for a stochastic singlestep method, got 3")
        if self.fractions is not None:
            if not isinstance(self.fractions, tuple | list):
                raise ConfigError(f"fractions must be a tuple, got {shown(self.fractions)}")
            r = tuple(number("fractions", v, gt=0, lt=1) for v in self.fractions)
            if len(r) != self.order - 1 or list(r) != sorted(set(r)):
                raise ConfigError(
                    f"fractions must be {self.order - 1} increasing numbers between 0 and 1 for "
                    f"order {self.order}, got {self.fractions!r}"
                )
            self._set(fractions=r)

    @property
    def _eta(self) -> float:
        return getattr(self, "eta", 0.0)

    @property
    def start(self) -> str:
        """As published, but for the corrected form, of which a rising one would cap the order."""
        if self.warmup is not None:
            return self.warmup
        return "heun" if self.corrected and not self._eta else "rising"

    @property
    def weak_order(self) -> int:
        """`order`, with the exceptions that this module's text gives."""
        if not self.multistep:
            return 1 if self._eta else self.order
        return super().weak_order if self.corrected and not self._eta else min(self.order, 2)

    @property
    def nfe_per_step(self) -> int:
        """1, or `order` for a singlestep method."""
        return 1 if self.multistep else self.order

    @property
    def exact_on(self) -> frozenset[str]:
        """A point, whose x_0 is the same everywhere; and its eps along the flow, not off it."""
        same = self.prediction == "x0" or not self._eta
        return frozenset({"point"} if same else ())

    @property
    def needs(self) -> frozenset[str]:
        """Noise, unless eta = 0."""
        return frozenset({"linear", "noise"} if self._eta else {"linear"})

    @property
    def memory(self) -> int:
        """The earlier predictions of a multistep row."""
        return self.order - 1 if self.multistep else 0

    def what(self, t: Array) -> Mix:
        """Of x_0 or eps."""
        return Mix(t, **{self.prediction: 1.0})

    def variable(self, level: Levels) -> Array:
        """log(alpha / sigma)."""
        return level.l

    def integral(
        self, sde: LinearSDE, at: Levels, to: Levels, nodes: Array, order: Array
    ) -> dict[str, Array]:
        """Eqs. (3) and (4) of `sdekit.sampling.integrals`, with (1) and (2)."""

        def published(mu: Array, c: Array) -> Array:
            mu = self._halved(mu, order)
            return mu if self.corrected or mu.shape[1] < 3 else mu * [1.0, 1.0, 0.5]

        return Semilinear(self.prediction, self._eta).row(at, to, nodes, order, published)

    def _halved(self, mu: Array, order: Array) -> Array:
        """Eq. (1), where the variant has it."""
        return with_pair(mu, order, 0.5 * mu[..., 0]) if self.variant == "midpoint" else mu

    def coefficients(self, sde: LinearSDE, grid: Tensor) -> dict[str, Any]:
        """The rows of a multistep method, or the stages of a singlestep one."""
        if self.multistep or self.order == 1:
            return super().coefficients(sde, grid)
        if "ddpm" in sde.kinds:
            raise ConfigError(
                f"{self!r} calls the model between the nodes of a chain, which has no such times; "
                "use multistep=True on a DDPM"
            )
        return {"stages": self._stages(sde, Levels(sde, grid))}

    def _stages(self, sde: LinearSDE, level: Levels) -> list[dict[str, Any]]:
        """The stages of a singlestep row: one integral, from t to each inner time and to s."""
        at, to = level[:-1], level[1:]
        inside = (to.sigma > 0) & (at.sigma > 0)  # a row that lands is one call
        published = (1 / 2,) if self.order == 2 else (1 / 3, 2 / 3)
        r = np.array(self.fractions or published)[:, None]
        h = np.where(inside, to.l - at.l, 0.0)
        times = sde.t_from_log_snr(torch.from_numpy(2 * (at.l + r * h))).numpy()
        inner = Levels(sde, np.where(inside, np.maximum(times, sde.t_min), to.t))
        # r h of the calls, which is not that where a time is held at t_min
        place = np.concatenate([0 * h[None], np.where(inside, inner.l - at.l, r)])
        use = [[*range(k + 1)] for k in range(self.order)]
        if self.variant == "midpoint":  # DPM-Solver-3 drops its first inner prediction at the end
            use[-1] = [0, self.order - 1]
        # all of the stages in one solve: rows (stage, K)
        ends = inner.mapped(lambda value, last: np.concatenate([value, last[None]]), to)
        order = np.array([[len(u)] for u in use])
        chosen = [[*u, *[0] * (self.order - len(u))] for u in use]
        reach = np.where(inside, ends.l - at.l, 1.0)
        nodes = (place[chosen] / reach[:, None]).swapaxes(1, 2)
        halved = (lambda mu, c: self._halved(mu, order)) if self.order == 2 else None
        row = Semilinear(self.prediction, self._eta).row(at, ends, nodes, order, halved)
        stages = []
        for k, taken in enumerate(use):
            w = np.zeros((len(h), k + 1))
            w[:, taken] = row["w"][k, :, : len(taken)]
            call = np.where(inside, inner.t[k - 1], at.t) if k else at.t
            there = {"present": inside} if k else {}
            stages.append({
                "t": call, "what": self.what(call),
                "x": row["x"][k], "w": w, "std": row["std"][k], **there,
            })  # fmt: skip
        return stages


@register("sampler", "dpm_solver", paper="arXiv:2206.00927, algorithms 1 and 2")
@dataclass(frozen=True, kw_only=True)
class DPMSolver(_Exponential):
    """DPM-Solver: exponential integrators in the predicted noise.

    x_s = (alpha_s / alpha_t) x_t + (1 + eta^2) sigma_s int mu(k) eps
          + eta sigma_s (e^(2h) - 1)^1/2 z,   k = -h

    Args:
        order: 1, 2 or 3; order 1 is DDIM.
        multistep: one call a row and memory, or `order` calls a row.
        variant: "midpoint" as published, or "heun", the exact integral ("taylor" in the paper's
            code).
        corrected: order 3, multistep, with its full coefficient.
        warmup: None is "rising" orders, as published; "heun" where corrected, since the order
            would be 2 otherwise.
        final_order: of the last row; None is 1 in runs of fewer than 15 steps, else `order`.
        fractions: r of the inner calls of a singlestep row.
        eta: 0 is the probability flow; 1 the reverse SDE, "SDE-DPM-Solver".

    Raises:
        ConfigError: a field out of range; at planning, a singlestep method on a DDPM chain.

    Reference: arXiv:2206.00927, algorithms 1, 2, 4 and 5; arXiv:2211.01095, eq. 18 for eta = 1.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (4, 2), sampler="dpm_solver(order=3)", steps=20, seed=0).nfe
        20
        >>> sample(model, (4, 2), sampler=DPMSolver(multistep=False), steps=10, seed=0).nfe
        20
    """

    eta: float = 0.0
    prediction: ClassVar[str] = "eps"

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(eta=number("eta", self.eta, ge=0))
        super().__post_init__()

    @property
    def weak_order(self) -> int:
        """Corrected, 3 in the limit; less up to 320 steps on VE, where its error has a zero."""
        return min(super().weak_order, 2) if self.multistep else super().weak_order

    @classmethod
    def examples(cls) -> list[DPMSolver]:
        """Every order, multistep and singlestep, as published and corrected; the SDE's."""
        return [
            cls(), cls(order=1), cls(order=3), cls(order=3, corrected=True), cls(variant="heun"),
            cls(multistep=False), cls(order=3, multistep=False), cls(eta=1.0),
        ]  # fmt: skip


@register("sampler", "dpmpp_2m", paper="arXiv:2211.01095, algorithm 2")
@dataclass(frozen=True, kw_only=True)
class DPMSolverPP(_Exponential):
    """DPM-Solver++: exponential integrators in the predicted clean sample.

    x_s = (sigma_s / sigma_t) x_t + alpha_s int mu(k) x_0,  k = h = l_s - l_t

    Args:
        order: 1, 2 (2M, or 2S) or 3; order 1 is DDIM.
        multistep: one call a row and memory, or `order` calls a row.
        variant: "midpoint" as published, or "heun", the exact integral ("taylor" in the paper's
            code).
        corrected: 3M with its full coefficient: order 3; as published it converges at order 2.
        warmup: None is "rising" orders, as published; "heun" where corrected, since the order
            would be 2 otherwise.
        final_order: of the last row; None is 1 in runs of fewer than 15 steps, else `order`.
        fractions: r of the inner calls of a singlestep row.

    Raises:
        ConfigError: a field out of range; at planning, a singlestep method on a DDPM chain.

    Reference: arXiv:2211.01095, algorithms 1 and 2, appendix B.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VESDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VESDE())
        >>> sample(model, (4, 2), sampler="dpmpp_2m", steps=20, seed=0, grid="karras").nfe
        20
    """

    prediction: ClassVar[str] = "x0"

    @classmethod
    def examples(cls) -> list[DPMSolverPP]:
        """Every order, multistep and singlestep, as published and corrected."""
        return [
            cls(), cls(order=1), cls(order=3), cls(order=3, corrected=True), cls(variant="heun"),
            cls(multistep=False), cls(order=3, multistep=False),
        ]  # fmt: skip


@register("sampler", "dpmpp_3m", paper="arXiv:2211.01095, appendix B")
@dataclass(frozen=True, kw_only=True)
class DPMSolverPP3M(DPMSolverPP):
    """`DPMSolverPP` of order 3, by the name that the field gives it.

    Reference: arXiv:2211.01095, appendix B.
    """

    order: int = 3

    @classmethod
    def examples(cls) -> list[DPMSolverPP]:
        """As published."""
        return [cls()]


@register("sampler", "sde_dpmpp_2m", paper="arXiv:2211.01095, section 5")
@dataclass(frozen=True, kw_only=True)
class SDEDPMSolverPP(_Exponential):
    """DPM-Solver++ on the reverse SDE.

    x_s = (sigma_s / sigma_t) e^(-eta^2 h) x_t + alpha_s int mu(k) x_0
          + sigma_s (1 - e^(-2 eta^2 h))^1/2 z,   k = (1 + eta^2) h

    Args:
        order: 1, 2 or 3 (multistep); 1 is ancestral sampling.
        eta: the stochasticity, >= 0; 1 in the paper, 0 is `DPMSolverPP`.
        multistep: one call a row and memory, or `order` (1 or 2) calls a row.
        variant: "midpoint" as published, or "heun", the exact integral.
        corrected: order 3 with its full coefficient.
        warmup: None is "rising" orders, as published; "heun" where corrected, since the order
            would be 2 otherwise.
        final_order: of the last row; None is 1 in runs of fewer than 15 steps, else `order`.
        fractions: r of the inner call of a singlestep row.

    Raises:
        ConfigError: a field out of range; at planning, a singlestep method on a DDPM chain.

    Reference: arXiv:2211.01095, section 5 and appendix B; arXiv:2206.00364, eq. 6 for eta.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, Gaussian, VPSDE, sample
        >>> model = ExactScore(Gaussian(torch.zeros(2), 0.25), VPSDE())
        >>> sample(model, (4, 2), sampler="sde_dpmpp_2m", steps=20, seed=0).nfe
        20
    """

    eta: float = 1.0
    prediction: ClassVar[str] = "x0"

    def __post_init__(self) -> None:
        """Check the fields."""
        self._set(eta=number("eta", self.eta, ge=0))
        super().__post_init__()

    @classmethod
    def examples(cls) -> list[SDEDPMSolverPP]:
        """Every order, multistep and singlestep, as published and corrected; another eta."""
        return [
            cls(), cls(order=1), cls(order=3), cls(order=3, corrected=True), cls(variant="heun"),
            cls(multistep=False), cls(eta=0.5),
        ]  # fmt: skip
