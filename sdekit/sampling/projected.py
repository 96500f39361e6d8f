r"""A model given some entries of the clean sample, by projection on two moments.

With x_0hat = E[x_0 | x_t], Tweedie's second moment

    C = Cov(x_0 | x_t) = (sigma^2 / alpha) J,    J = d x_0hat / d x_t,                          (1)

and H the rows of the identity that select the known entries, the prediction given them is

    x_0hat + C H^T (H C H^T)^{-1} (known - H x_0hat),                                           (2)
    score + J^T H^T (H C H^T)^{-1} (known - H x_0hat).                                          (3)

For Gaussian data (2) is E[x_0 | x_t, known] and (3) the score of the conditional law at every t.
For other data x_0 | x_t is replaced by the Gaussian of its moments, which is the better the less
noise there is.

Reference: Boys et al., arXiv:2310.06721, eqs. 6 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit._check import finite, floating, integer, same_device, shown
from sdekit._times import Time, expand_like
from sdekit.errors import ConfigError, DtypeError, ModelError, ShapeError
from sdekit.model.parametrization import Score
from sdekit.model.prediction import Prediction, Predictor, RawCall, bind, parametrization_of
from sdekit.sampling.setup import sde_of
from sdekit.targets._batchwise import tree_sum

__all__ = ["KNOWN", "Carrying", "Projected", "clean_part"]

KNOWN = "the known entries"  # a condition, so that chunks cut it; no network has such a keyword
LIMIT = 256  # known entries, each of which costs a backward pass at every call
_ROUNDING = 8.0  # units in the last place of J, below which a variance is not seen


def clean_part(known: object, mask: object) -> tuple[Tensor, Tensor]:
    """The known entries, zeros where nothing is known, and the mask.

    Args:
        known: [(*dims) or (n, *dims)], floating.
        mask: [(*dims)], boolean.

    Raises:
        DtypeError, ShapeError, DeviceError: of an argument, naming it.
        NonFiniteError: an entry that the mask calls known is not finite.
    """
    given = floating("known", known)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else shown(mask)
        raise DtypeError(f"mask must be a boolean tensor, True where known holds, got {got}")
    if mask.ndim == 0 or tuple(mask.shape) not in (tuple(given.shape), tuple(given.shape[1:])):
        raise ShapeError(
            f"known must have the mask's shape {tuple(mask.shape)} or (n, *that), "
            f"got {tuple(given.shape)}"
        )
    same_device("known", given, "mask", mask)
    rows = given.reshape(-1, *mask.shape)
    rows = finite("known", torch.where(mask, rows, 0.0))
    return rows.reshape(given.shape), mask


class Carrying:
    """A model that is handed the known entries among its conditions, and does not look at them."""

    def __init__(self, model: Predictor) -> None:
        self.sde = sde_of(model)
        self.model = model
        self.parametrization = parametrization_of(model)

    @property
    def moments(self) -> Any:
        """Those of the model."""
        return getattr(self.model, "moments", None)

    def __call__(self, x: Tensor, t: Time, **cond: Any) -> Prediction:
        """The model's own prediction."""
        cond.pop(KNOWN, None)
        return self.model(x, t, **cond)

    def bind(self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> RawCall:
        """The model's own raw output."""
        return bind(self.model, x, times, {k: v for k, v in cond.items() if k != KNOWN})


class Projected(Carrying):
    """A predictor given known entries, eq. (3): exact for Gaussian data.

    A call is one call of the model and one backward pass through it for each known entry. An
    eigenvalue of H J H^T no larger than its rounding, or a negative one, which no exact model has,
    stands for no variance: the known values say nothing along it.

    Args:
        model: the predictor, differentiable in x.
        known: the clean sample [(*dims)], or one for each sample [(n, *dims)]; entries outside the
            mask are not looked at.
        mask: True where `known` holds [(*dims)], boolean.
        limit: the most known entries.

    Raises:
        ConfigError: more known entries than `limit`, or none.
        DtypeError: known is not floating, mask not boolean, or limit no int.
        ShapeError, DeviceError: known and mask do not fit together.
        NonFiniteError: a known entry is not finite.
        ModelError: when called, where autograd finds that the output does not depend on x.

    Reference: Boys et al., arXiv:2310.06721, eqs. 6 and 8.

    Example:
        >>> import torch
        >>> from sdekit import ExactScore, FlowSDE, Gaussian
        >>> model = ExactScore(Gaussian([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]]), FlowSDE())
        >>> given = Projected(model, torch.tensor([2.0, 0.0]), torch.tensor([True, False]))
        >>> x = torch.tensor([[0.0, 0.5]])  # alpha = sigma: E[u | u_t, k] = (1 + 1.5 * 0.5) / 1.75
        >>> given(x, 0.5).x0.tolist()
        [[2.0, 1.0]]
    """

    def __init__(
        self, model: Predictor, known: Tensor, mask: Tensor, *, limit: int = LIMIT
    ) -> None:
        super().__init__(model)
        self._inner = self.parametrization  # of what the model's own `bind` returns
        self.parametrization = Score()
        self.known, self.mask = clean_part(known, mask)
        self.entries = self.mask.reshape(-1).nonzero().flatten()
        count = len(self.entries)
        if count == 0:
            raise ConfigError("mask must be True somewhere, got one of which nothing is known")
        if count > integer("limit", limit, ge=1):
            raise ConfigError(
                f"{count} known entries take {count} backward passes through the model at every "
                f"call, about {2 * count + 1} times the cost of plain sampling, and "
                f"limit={limit}: raise limit, or take inpaint(..., method='replace')"
            )

    def __repr__(self) -> str:
        """The model and the number of known entries."""
        return f"Projected({shown(self.model)}, {len(self.entries)} known)"

    def __call__(self, x: Tensor, t: Time, **cond: Any) -> Prediction:
        """The prediction given the known entries at x [(batch, *dims)] and t."""
        known = cond.pop(KNOWN, self.known)
        raw = self._score(x, t, known, lambda y: self.model(y, t, **cond))
        return Prediction(x, raw, t, (self.sde, self.parametrization))

    def bind(self, x: Tensor, times: Sequence[float], cond: Mapping[str, Any]) -> RawCall:
        """Eq. (3) as a function of (x, float)."""
        known = cond.get(KNOWN, self.known)
        long = self.sde.reaching(max(times, default=0.0))  # a run may churn above t_max
        origin = (long, self._inner)
        if not hasattr(self.model, "bind"):  # its own raw output tells whether it has a derivative
            return lambda x, t: self(x, t, **cond).raw
        with torch.inference_mode(False):  # a tensor made there could not be used by autograd
            raw = super().bind(x, times, cond)
        return lambda x, t: self._score(x, t, known, lambda y: Prediction(y, raw(y, t), t, origin))

    def _score(
        self, x: Tensor, t: Time, known: Tensor, call: Callable[[Tensor], Prediction]
    ) -> Tensor:
        """Eq. (3)."""
        further = torch.is_grad_enabled() and x.requires_grad  # the caller differentiates too
        with torch.inference_mode(False), torch.enable_grad():
            y = x if further else x.detach().clone().requires_grad_()
            seen = call(y)
            if not seen.raw.requires_grad:
                raise ModelError(
                    "method='projected' needs the model's derivative, and autograd finds that its "
                    "output does not depend on x (a detached or compiled network, or no_grad "
                    "inside it?); take method='replace'"
                )
            denoised = seen.x0.reshape(len(x), -1)
            # a scalar for each entry: its gradient has the row of every sample
            rows = [
                torch.autograd.grad(denoised[:, k].sum(), y, retain_graph=True,
                                    create_graph=further)[0].reshape(len(x), -1)
                for k in self.entries.tolist()
            ]  # fmt: skip
        jacobian = torch.stack(rows)  # (k, n, d)
        score = seen.score.reshape(len(x), -1)
        given = known.to(x.dtype).reshape(-1, denoised.shape[1])[:, self.entries]
        error = given - denoised[:, self.entries]
        if not further:
            score, error = score.detach(), error.detach()
        time = torch.as_tensor(t, dtype=torch.float64)
        sde = self.sde.reaching(float(time.max()))  # a run may churn above t_max
        alpha = expand_like(sde.alpha(time), score)
        weights = _solve(jacobian[..., self.entries].movedim(1, 0), error, alpha)
        weights = weights * expand_like(sde.alpha(time) / sde.var(time), score)
        return (score + tree_sum(jacobian * weights.t()[..., None], 0)).reshape(x.shape)


def _solve(matrix: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
    """(H J H^T)^{-1} y [(n, k)] for matrices [(n, k, k)], on the directions with a variance."""
    wide = torch.promote_types(y.dtype, torch.float32)  # no half in LAPACK
    matrix, y, kind = (matrix + matrix.mT).to(wide) / 2, y.to(wide), y.dtype
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(matrix)
        rounding = _ROUNDING * torch.finfo(kind).eps
        seen = values > rounding * torch.maximum(values[:, -1:], 1 / alpha.to(wide))
        inverse = torch.where(seen, 1 / values, 0.0)

    def solved(z: Tensor) -> Tensor:
        inside = inverse * tree_sum(vectors * z[..., None], 1)
        return tree_sum(vectors * inside[:, None], 2)

    # a step of refinement, which carries the derivative in the matrix: eigenvectors that belong
    # to equal eigenvalues have none
    rest = y - tree_sum(matrix * solved(y)[:, None], 2)
    return (solved(y) + solved(rest)).to(kind)
