r"""The law of what anybody's sampler returns on Gaussian data: a function, read from outside.

With Gaussian data the exact score is affine, so a sampler of fixed steps is an affine function of
its start x_T and of its draws of noise,

    f(x_T, z_1 .. z_K) = f(m, 0) + A (x_T - m) + sum_k B_k z_k,                                 (1)

and for x_T ~ N(m, R R^T) the law of its output is

    N(f(m, 0), A R (A R)^T + sum_k B_k B_k^T).                                                  (2)

The columns of A R and B_k are differences of outputs: rows of one batch get m plus a column of R,
or one draw that is a unit vector where the others are 0. Where the coordinates never meet, a row
for x_T and a row for every draw do, with all coordinates at once; else each has a row.

The draws are answered by a mode of torch's dispatcher, which sees every operator below Python that
torch itself marks as random: `out=`, `generator=`, methods in place, distributions, initialisers
and inference mode alike, and lives in this thread for the length of a call. Whether (1) holds is
measured on random inputs b, u and v, with random draws, before and after (at 0, a step scaled by a
norm has no value, or looks affine):

    f(b + u + v) - f(b + u) - f(b + v) + f(b) = 0,                                              (3)
    f(b) and f(b + u) as (1) has them.                                                          (4)

Reference: Pierret and Galerne, arXiv:2405.14250, section 4, for (2) along a sampler's steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # where torch documents it

from sdekit._check import finite, floating, integer, number, shown
from sdekit.errors import DtypeError, NotAffine, ShapeError
from sdekit.targets import Gaussian

__all__ = ["probe_callable"]

_BATCH = 2**20  # numbers in a batch where nobody says how many rows
_ROUNDING = 2.0**-46  # of the start's size: what a sampler that shrinks it may leave
_KEY = 2024  # of the random inputs
_START = -1  # the number of x_T among the inputs; the draws count from 0
_NORMAL = {"randn", "randn_like", "normal", "normal_", "normal_functional"}
# a random operator with one of these arguments at 0 or off draws nothing: attention, and layers
# in evaluation mode
_OFF = ("dropout_p", "dropout", "p", "train", "training")


class _Impulse(NamedTuple):
    """One row: a unit vector in one input (x_T or a draw), or ones where element is None."""

    source: int
    element: int | None


def _random(source: int, size: int) -> Tensor:
    """b, b + u, b + v and b + u + v of eq. (3) in one input [(4, size)].

    By NumPy, so that no mode of torch is asked, and of so few bits that the sums are exact in
    every dtype that a draw may have.
    """
    stream = np.random.default_rng((_KEY, source + 1))
    b, u, v = torch.from_numpy(np.round(stream.standard_normal((3, size)) * 2**7) / 2**7)
    return torch.stack([b, b + u, b + v, b + u + v])


class _Answering(TorchDispatchMode):
    """Answers every draw of a call with `rows` rows; notes the shapes of the draws, by row.

    Args:
        rows: the size of the batch.
        impulses: those of the last rows; all rows before get zeros.
        superposed: the rows are those of eq. (3), after a second one of b.
    """

    def __init__(
        self, rows: int, impulses: Sequence[_Impulse] = (), *, superposed: bool = False
    ) -> None:
        super().__init__()
        self.rows = rows
        self.superposed = superposed
        self.shapes: list[tuple[int, ...]] = []
        self.by_source: dict[int, list[tuple[int, int | None]]] = {}
        for row, impulse in enumerate(impulses, rows - len(impulses)):
            self.by_source.setdefault(impulse.source, []).append((row, impulse.element))

    def answer(self, source: int, size: int) -> Tensor:
        """What one input is in this call, in units of its standard deviation [(rows, size)]."""
        z = torch.zeros(self.rows, size, dtype=torch.float64)
        if self.superposed:
            z[1:] = _random(source, size)
            z[0] = z[1]
        for row, element in self.by_source.get(source, ()):
            if element is None:
                z[row] = 1
            elif element < size:  # else the number of draws has changed, and that is said later
                z[row, element] = 1
        return z

    def draw(self, shape: Sequence[int]) -> Tensor:
        """The next draw [shape], float64."""
        shape = tuple(shape)
        if not shape or shape[0] != self.rows:
            raise ShapeError(
                f"draw {len(self.shapes) + 1} of f must have a row for each of the {self.rows} "
                f"samples of the batch, got shape {shape}; noise that is shared by samples or "
                "drawn one sample at a time gives no law of one sample"
            )
        self.shapes.append(shape[1:])
        size = math.prod(shape[1:])
        return self.answer(len(self.shapes) - 1, size).reshape(shape)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator that is not random; answer a normal one; refuse any other."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        given = _arguments(func, args, kwargs)
        name = func.overloadpacket.__name__
        if name in _NORMAL:
            return self._normal(given, given["self"] if name == "normal_" else given.get("out"))
        if any(isinstance(given.get(key), int | float) and not given[key] for key in _OFF):
            return func(*args, **kwargs)
        raise NotAffine(
            f"f draws by torch's {name}, and its law follows only where all noise is normal: "
            "torch.randn, randn_like, normal or Tensor.normal_ (a network in training mode? "
            "then .eval())"
        )

    def _normal(self, given: dict[str, Any], out: Tensor | None) -> Tensor:
        """mean + std z, in the shape, dtype and place that the operator would give it."""
        mean, std = given.get("mean", 0.0), given.get("std", 1.0)
        like = [t for t in (given.get("self"), mean, std) if isinstance(t, Tensor)]
        size = given.get("size")
        shape = np.broadcast_shapes(*(t.shape for t in like)) if size is None else tuple(size)
        like += [] if out is None else [out]
        # where nobody names a dtype it is float64, whatever torch's default: f runs in float64
        dtype = given.get("dtype") or (like[0].dtype if like else torch.float64)
        device = given.get("device") or (like[0].device if like else None)
        if dtype.is_complex:
            raise NotAffine(f"f draws complex noise, {dtype}; only real noise is followed")
        value = mean + std * self.draw(shape).to(dtype=dtype, device=device)
        if out is None:
            return value
        return (out if out.shape == shape else out.resize_(shape)).copy_(value)


def _arguments(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of an operator by their names, defaults included."""
    declared = func._schema.arguments
    given = {a.name: a.default_value for a in declared if a.has_default_value()}
    return {**given, **{a.name: v for a, v in zip(declared, args, strict=False)}, **kwargs}


class _Response(NamedTuple):
    """What eq. (2) needs, and what eq. (1) makes of b and b + u [(2, d)]."""

    variances: Tensor
    cov: Tensor | None
    predicted: Tensor


class _Probe:
    """f as a function of x_T and its draws, each in units of its standard deviation."""

    def __init__(
        self, f: Callable[..., Tensor], start: Gaussian | None, share: float, limit: int | None
    ) -> None:
        self.f = f
        self.start = start
        self.share = share
        self.shapes: list[tuple[int, ...]] | None = None
        again, b, b_u, b_v, b_u_v = rows = self(_Answering(5, superposed=True))
        self.of = torch.stack([b, b_u])
        self.dim = len(b)
        self.limit = limit or max(1, _BATCH // self.dim)
        self.size = float(rows.abs().max())
        self.require(
            again, b,
            "two samples of f with the same x_T and the same draws differ: noise that is not "
            "torch's (NumPy's, compiled code's), or a batch that is not treated alike",
        )  # fmt: skip
        self.require(
            b_u_v + b, b_u + b_v,
            "f is not affine in x_T and its draws: superposition fails",
        )  # fmt: skip
        self.zero = self(_Answering(2))[0]

    def __call__(self, answering: _Answering) -> Tensor:
        """The outputs [(rows, d)] of one call, float64."""
        rows, x = answering.rows, None
        if self.start is not None:
            variances, vectors = self.start.spectrum
            away = answering.answer(_START, len(variances)) * variances.sqrt()
            x = self.start.mean + (away if vectors is None else away @ vectors.T)
        # f may seed torch's global generators; afterwards they are as they were
        cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices=cuda), answering:
            out = self.f(rows if x is None else x)
        out = floating("f(x)", out).detach().to("cpu", torch.float64)
        shape = (rows, out.shape[-1] if out.ndim else 0) if x is None else tuple(x.shape)
        if tuple(out.shape) != shape:
            wanted = f"({rows}, d)" if x is None else str(shape)
            raise ShapeError(f"f(x) must have shape {wanted}, got {tuple(out.shape)}")
        self.shapes = answering.shapes if self.shapes is None else self.shapes
        if len(self.shapes) != len(answering.shapes):
            raise NotAffine(
                f"f made {len(self.shapes)} draws in one call and {len(answering.shapes)} in "
                "another; an affine function takes the same draws always"
            )
        if self.shapes != answering.shapes:
            raise NotAffine("f made draws of other shapes in one call than in another")
        return finite("f(x)", out)

    def defect(self, a: Tensor, b: Tensor) -> float:
        """How far two results differ, as a share of the output; what rounding leaves is 0."""
        peak = 1.0
        if self.start is not None:
            peak += float(self.start.mean.abs().max() + self.start.spectrum[0].max().sqrt())
        away = float((a - b).abs().max())
        return 0.0 if away <= _ROUNDING * peak else away / (self.size or 1.0)

    def require(self, a: Tensor, b: Tensor, why: str) -> None:
        """Refuse where two results differ.

        Raises:
            NotAffine: they do; with the defect.
        """
        defect = self.defect(a, b)
        if not defect <= self.share:
            hint = "; is there a cast to float32 inside? Then tolerance=1e-4" * (defect < 1e-4)
            raise NotAffine(
                f"{why}, by {defect:.2g} of the output (allowed: {self.share:g}){hint}"
            )

    def separate(self) -> bool:
        """Whether each draw has as many numbers as a sample, so that coordinates may not meet."""
        return all(math.prod(shape) == self.dim for shape in self.shapes or ())

    def impulses(self, separate: bool) -> Iterator[list[_Impulse]]:
        """The rows to run: in parts of at most `limit`, each of one kind."""
        axes = self.start is not None and self.start.spectrum[1] is None
        inputs = [] if self.start is None else [(_START, self.dim, separate and axes)]
        inputs += [(k, math.prod(s), separate) for k, s in enumerate(self.shapes or ())]
        for together in (True, False):
            rows = (
                _Impulse(source, element)
                for source, size, whole in inputs
                if whole == together
                for element in ([None] if whole else range(size))
            )
            while part := list(islice(rows, self.limit)):
                yield part

    def respond(self, separate: bool) -> _Response:
        """The columns of eq. (1), summed up as they come: memory does not grow with them."""
        variances, cov = torch.zeros(self.dim, dtype=torch.float64), None
        predicted = self.zero.expand(2, -1).clone()
        for part in self.impulses(separate):
            out = self(_Answering(len(part) + 1, part))
            self.require(
                out[0], self.zero,
                "f returns two values for one x_T and the same draws: its samples depend on their "
                "batch or on earlier calls, or there is noise that is not torch's",
            )  # fmt: skip
            responses = out[1:] - out[0]
            sizes = {k: math.prod(shape) for k, shape in enumerate(self.shapes or ())}
            if part[0].element is None:
                variances += responses.square().sum(0)
            else:
                cov = responses.T @ responses + (0.0 if cov is None else cov)
            for (source, element), response in zip(part, responses, strict=True):
                z = _random(source, sizes.get(source, self.dim))[:2]
                predicted += response * (z if element is None else z[:, element, None])
        return _Response(variances, cov, predicted)


def probe_callable(
    f: Callable[..., Tensor],
    start: Gaussian | None,
    *,
    tolerance: float = 1e-9,
    chunk: int | None = None,
) -> Gaussian:
    """The exact law of what a sampler of anybody's returns, eq. (2); no Monte Carlo.

    f is called a few times, in float64, on batches of various sizes, and all that it draws through
    torch is answered by zeros, unit vectors or fixed random numbers. No generator of torch's
    advances. The draws are taken as independent: noise that f makes a second time from a seed of
    its own (a Brownian tree does) would be counted as new.

    Noise of NumPy's or Python's, or of compiled code, cannot be seen, but it shows: two rows with
    the same input then differ, and f is refused. (The same such noise in every row of every call
    would pass for a constant.) A bend that four random inputs do not reach, as of a clip at ten
    standard deviations, is not noticed.

    Args:
        f: x_T [(n, d)] -> samples [(n, d)], for any n, affine in x_T and in every draw, which has
            a row for each sample: shape (n, *any). Its model, with the exact score of Gaussian
            data, is its own affair.
        start: the law of x_T. None: f is a pipeline that draws its x_T itself, like any other
            draw; it is called as f(n) and returns n samples [(n, d)].
        tolerance: how far eqs. (3) and (4) may fail, as a share of the output's size; 1e-4 for a
            function that casts to float32 inside, whose law is then as good as that.
        chunk: the most impulses to run at a time; by default a batch holds about 2^20 numbers.

    Returns:
        The law, without a matrix where the coordinates never meet.

    Raises:
        NotAffine: f is not affine, its number of draws varies, its samples depend on one another,
            or it draws by another law than the normal one; with the defect, or the name.
        ShapeError: f returns another shape, or a draw has no row for each sample.
        NonFiniteError: f returns NaN or infinity.
        DtypeError: f is no function, start no Gaussian, or f returns no floating tensor.
        ConfigError: tolerance or chunk is not positive.

    Reference: arXiv:2405.14250, section 4.

    Example:
        >>> import torch
        >>> from sdekit import Gaussian
        >>> from sdekit.exact import probe_callable
        >>> def step(x):
        ...     return 0.5 * x + torch.randn_like(x)
        >>> law = probe_callable(step, Gaussian([4.0, 0.0], 4.0))
        >>> law.mean.tolist(), law.spectrum[0].tolist()
        ([2.0, 0.0], [2.0, 2.0])
    """
    if not callable(f):
        raise DtypeError(f"f must be a function of x_T, got {shown(f)}")
    if start is not None and not isinstance(start, Gaussian):
        raise DtypeError(f"start must be a Gaussian or None, got {shown(start)}")
    share = number("tolerance", tolerance, gt=0)
    probe = _Probe(f, start, share, None if chunk is None else integer("chunk", chunk, ge=1))
    found = None
    if probe.separate():
        found = probe.respond(separate=True)
    if found is None or not probe.defect(found.predicted, probe.of) <= share:
        found = probe.respond(separate=False)  # the coordinates do meet
    probe.require(found.predicted, probe.of, "f is not the affine map of its responses")
    if found.cov is None:
        return Gaussian.from_spectrum(probe.zero, found.variances)
    return Gaussian(probe.zero, found.cov + found.variances.diag())
