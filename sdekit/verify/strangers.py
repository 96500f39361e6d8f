"""Objects of nobody's class, seen as what the checks ask for.

A process needs `drift(x, t)` and `diffusion(t)`. Whatever else it has is taken at its word and
checked: `log_alpha` or `alpha`, `var` or `sigma` or `marginal_prob(x, t) -> mean, std`,
`t_min`, `t_max`, `prior_std` (a function or a number), and, with the arguments of `LinearSDE`'s,
`prior_sample`, `prior_log_prob`, `transition`, `posterior`, `reverse`. Times are handed to it as
float64 tensors; one that cannot take them is called once for each, with a float. It must compute
in float64 then. Where it states no marginals, its own drift and diffusion are integrated.

A sampler is a function f(model, x, grid, noise) -> samples: `model(x, t)` has .x0, .eps and
.score, `grid` is a tensor of decreasing times, `noise(x)` a standard normal draw like x. It may
declare `order`, `nfe_per_step`, `stochastic`, `exact_on` as attributes. One that is made for some
processes only names them, `processes`. One that places its own times, and takes from the grid
only how many steps there are, says `own_times = True`; one that keeps a history over its steps
`memory = True`. One that computes in float32 inside, or amplifies rounding, declares the
`rounding` of its results (1e-9 of their size otherwise).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit._check import number, shown
from sdekit.errors import DtypeError
from sdekit.sampling.base import CountedModel, Frame
from sdekit.sde import LinearSDE

__all__ = ["Method", "Process"]

# what a method raises that does not take times in this form; any other error is its own
_NOT_TAKEN = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, AssertionError)

_PASSED_ON = (
    "alpha", "sigma", "log_snr", "t_from_log_snr", "transition", "posterior", "perturb", "reverse",
    "prior_std", "prior_sample", "prior_log_prob", "beta", "kinks",
)  # fmt: skip


_KEYWORDS = {"reverse": ("eta",), "prior_sample": ("generator", "dtype")}


def _takes(method: Callable[..., Any], keywords: Sequence[str]) -> bool:
    """Whether a method accepts these keywords: one of another shape is not asked."""
    if not keywords:
        return True
    parameters = inspect.signature(method).parameters
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values()) or set(keywords) <= set(
        parameters
    )


class Process:
    """A process from an object with `drift` and `diffusion`.

    Attributes:
        kinds: {"linear"} where drift(x, t) = f(t) x, else empty.
        integrated: whether the marginals are integrals of its own drift and diffusion.
        stated: of log_alpha and var, those that the object computes itself, digit by digit.

    Raises:
        ConfigError: t_max <= 0 or t_min outside [0, t_max).
        DtypeError: t_min or t_max is no number.
    """

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.t_max = number("t_max", getattr(thing, "t_max", 1.0), gt=0)
        t_min = getattr(thing, "t_min", 1e-3 * self.t_max)
        self.t_min = number("t_min", t_min, ge=0, lt=self.t_max)
        self.integrated = False
        self.stated: frozenset[str] = frozenset({"log_alpha", "var"})
        for name in _PASSED_ON:
            method = getattr(thing, name, None)
            if callable(method) and _takes(method, _KEYWORDS.get(name, ())):
                setattr(self, name, method)
        if not callable(getattr(thing, "prior_std", lambda: 0)):  # a plain number
            self.prior_std = lambda: float(thing.prior_std)
        self.kinds = frozenset({"linear"} if self._is_linear() else ())
        if self.kinds:
            self.f, self.g2 = self._f, self._g2
        self._take_marginals()

    def drift(self, x: Tensor, t: Any) -> Tensor:
        """The object's drift [(batch, *dims)]."""
        times = torch.as_tensor(t, dtype=torch.float64).reshape(-1).expand(len(x))
        return _for_each(self.thing.drift, x, times)

    def diffusion(self, t: Any) -> Tensor:
        """The object's diffusion [shape of t]."""
        return _at(self.thing.diffusion, torch.as_tensor(t, dtype=torch.float64))

    def _f(self, t: Tensor) -> Tensor:
        """The drift at x = 1 [shape of t]."""
        flat = t.reshape(-1)
        return self.drift(torch.ones(len(flat), 1, dtype=torch.float64), flat).reshape(t.shape)

    def _g2(self, t: Tensor) -> Tensor:
        return self.diffusion(t).square()

    def _is_linear(self) -> bool:
        """Whether the drift is f(t) x, to rounding, at a few points."""
        t = self.t_max * torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
        x = torch.tensor([[1.0, -0.7, 3.0]], dtype=torch.float64).repeat(len(t), 1)
        seen, of_one = self.drift(x, t), self.drift(torch.ones_like(x), t)
        return bool(((seen - of_one * x).abs() <= 1e-9 * (of_one * x).abs() + 1e-12).all())

    def _mean_and_std(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """What `marginal_prob` makes of x = 1 [shape of t each]."""
        flat = t.reshape(-1)
        ones = torch.ones(len(flat), 1, dtype=torch.float64)
        mean = _for_each(lambda x, t: self.thing.marginal_prob(x, t)[0], ones, flat)
        std = _for_each(lambda x, t: _column(self.thing.marginal_prob(x, t)[1]), ones, flat)
        return mean.reshape(t.shape), std.reshape(t.shape)

    def _take_marginals(self) -> None:
        """log_alpha and var as the object states them, or integrated."""
        thing = self.thing

        def has(name: str) -> bool:
            return callable(getattr(thing, name, None))

        means: dict[str, Callable[[Tensor], Tensor]] = {
            "log_alpha": lambda t: _at(thing.log_alpha, t),
            "alpha": lambda t: _at(thing.alpha, t).log(),
            "marginal_prob": lambda t: self._mean_and_std(t)[0].log(),
        }
        variances: dict[str, Callable[[Tensor], Tensor]] = {
            "var": lambda t: _at(thing.var, t),
            "sigma": lambda t: _at(thing.sigma, t).square(),
            "marginal_prob": lambda t: self._mean_and_std(t)[1].square(),
        }
        mean = next((make for name, make in means.items() if has(name)), None)
        variance = next((make for name, make in variances.items() if has(name)), None)
        if not has("log_alpha"):  # the logarithm of an alpha near 1 has lost its digits
            self.stated = frozenset({"var"})
        if mean and variance:
            self.log_alpha, self.var = mean, variance
            return
        if not self.kinds:
            return
        whole = LinearSDE.from_coefficients(
            self._f, self._g2, t_min=self.t_min or 1e-3 * self.t_max, t_max=self.t_max
        )
        self.log_alpha, self.var = mean or whole.log_alpha, variance or whole.var
        self.integrated = not (mean or variance)


def _column(value: Any) -> Tensor:
    return torch.as_tensor(value).reshape(-1, 1)


def _wide(value: Any) -> Tensor:
    """Numbers as float64; a float32 tensor is refused."""
    if not isinstance(value, Tensor):
        return torch.as_tensor(value, dtype=torch.float64)
    found = value
    if found.dtype in (torch.float32, torch.float16, torch.bfloat16):
        raise DtypeError(
            f"it computes in {found.dtype} where times and samples are float64; claims are "
            "measured to 1e-7: compute in the dtype of the input"
        )
    return found.double()


def _at(method: Callable[[Any], Any], t: Tensor) -> Tensor:
    """A stranger's function of time [shape of t]: of the tensor, or of one float after another."""
    failed: Exception | None = None
    try:
        found = method(t)
        if isinstance(found, Tensor) and found.shape == t.shape:
            return _wide(found)
        if not isinstance(found, Tensor):
            return _wide(found).expand(t.shape)
    except _NOT_TAKEN as error:
        failed = error
    try:
        flat = [_number(method(v)) for v in t.reshape(-1).tolist()]
    except _NOT_TAKEN as error:
        raise failed or error from error
    return torch.stack(flat).reshape(t.shape) if flat else torch.zeros_like(t)


def _number(value: Any) -> Tensor:
    return _wide(value).reshape(())


def _for_each(method: Callable[[Any, Any], Any], x: Tensor, t: Tensor) -> Tensor:
    """A stranger's function of samples and times: at once, as a column, or row by row."""
    failed: Exception | None = None
    for times in (t, t[:, None]):
        try:
            found = _wide(method(x, times))
            if found.shape != x.shape:
                continue
            # (n,) may have been broadcast along the features: a row alone tells
            if len(t) < 2 or _same(found[-1:], method(x[-1:], times[-1:])):
                return found
        except _NOT_TAKEN as error:
            failed = error
    try:
        rows = [method(x[k : k + 1], float(t[k].detach())) for k in range(len(x))]
    except _NOT_TAKEN as error:
        raise failed or error from error
    return torch.cat([_wide(row).reshape(1, -1) for row in rows]).reshape(x.shape)


def _same(a: Tensor, b: Any) -> bool:
    """Whether a row of a batch is what the row alone gives: (n,) may broadcast along features."""
    a, b = a.detach(), torch.as_tensor(b).detach().reshape(a.shape)
    return bool(torch.allclose(a, b.to(a.dtype), rtol=1e-9, atol=1e-12))


class Method:
    """A sampler from a function f(model, x, grid, noise)."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.order = getattr(function, "order", 1)
        self.nfe_per_step = getattr(function, "nfe_per_step", None)
        self.exact_on = frozenset(getattr(function, "exact_on", ()))
        self.home = tuple(getattr(function, "processes", ()))
        self.rounding = float(getattr(function, "rounding", 1e-9))
        flags = {"noise": "stochastic", "own_times": "own_times", "memory": "memory"}
        declared = {need for need, name in flags.items() if getattr(function, name, False)}
        self.needs = frozenset({"linear", *declared})

    def __repr__(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def frames(
        self, model: CountedModel, x: Tensor, grid: Tensor, noise: Any, **_: Any
    ) -> Iterator[Frame]:
        """The start and the end: what happens between is the function's."""
        yield Frame(x, float(grid[0]), 0, model.nfe, None)
        out = self.function(_Plain(model), x, grid, noise)
        if not isinstance(out, Tensor):
            raise DtypeError(f"{self!r} must return a tensor, got {shown(out)}")
        yield Frame(out, float(grid[-1]), len(grid) - 1, model.nfe, None)


class _Plain:
    """A counted model that needs no plan: its calls are not known beforehand."""

    def __init__(self, model: CountedModel) -> None:
        self.counted = model
        self.sde = model.sde

    def __call__(self, x: Tensor, t: Any) -> Any:
        if self.counted.nfe >= self.counted.limit:
            return self.counted(x, float(t))  # which raises
        self.counted.nfe += 1
        return self.counted.model(x, t, **self.counted.cond)
