"""Shared by the tests: tolerances, the reference values, statistics with a known error.

    from support import assert_close, mean_test, reference_cases, tolerance

A statistical test here returns a `Band`, which is true where the measured value lies inside it.
The probability that a right implementation falls outside is at most `alpha`, and that level comes
from the fixture `alpha_budget`, so that the whole suite together stays below a declared 1e-9:

    assert mean_test(x, mean=0.0, std=1.0, alpha=alpha_budget.spend("prior mean, vp"))

Exact checks come first (injected noise, closed forms); a statistical one is the last resort.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent

# tolerances ---------------------------------------------------------------------------------


def tolerance(dtype: torch.dtype, factor: float = 1.0) -> float:
    """`factor` times the root of the dtype's epsilon: 1.5e-8 in float64, 3.5e-4 in float32."""
    return factor * math.sqrt(torch.finfo(dtype).eps)


def ulps(dtype: torch.dtype, count: float) -> float:
    """`count` units in the last place, as a relative error; multiply by the condition number."""
    return count * torch.finfo(dtype).eps


def assert_close(
    actual: Tensor, expected: Tensor, *, tol: float | None = None, scale: float | None = None
) -> None:
    """Same shape, dtype and device, and |actual - expected| <= tol * scale everywhere.

    Args:
        actual: what was computed.
        expected: what it must be.
        tol: relative to `scale`; `tolerance(dtype)` by default.
        scale: the size that errors are compared with; the largest |expected| by default, or 1
            where that is 0.
    """
    if tol is None:
        tol = tolerance(expected.dtype)
    if scale is None:
        scale = float(expected.detach().abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=tol * (scale or 1.0))


# the reference values -----------------------------------------------------------------------


def leaving(things: Iterable[Any] | Mapping[str, Any], slow: Callable[[Any], bool]) -> list[Any]:
    """Parameters of a test; those whose name (or self, without names) is `slow` are marked so."""
    named = things if isinstance(things, Mapping) else None
    return [
        pytest.param(
            thing if named is None else named[thing],
            id=None if named is None else thing,
            marks=[pytest.mark.slow] * bool(slow(thing)),
        )
        for thing in things
    ]


def reference_folder() -> Path:
    """SDEKIT_REFERENCE, else shared/reference beside the checkout."""
    given = os.environ.get("SDEKIT_REFERENCE")
    return Path(given) if given else REPOSITORY.parent / "shared" / "reference"


def reference_absent() -> str:
    """The reason for skipping where there are no reference values, else an empty string."""
    folder = reference_folder()
    return "" if folder.is_dir() else f"reference data absent: {folder}"


class ReferenceFile:
    """One file of reference values: `NAME.json` and the arrays in `NAME.npz`."""

    def __init__(self, folder: Path, name: str) -> None:
        described = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        self.name = name
        self.sources: dict[str, str] = described["sources"]
        self.note: str = described["note"]
        self.cases: list[dict[str, Any]] = described["cases"]
        with np.load(folder / f"{name}.npz") as arrays:
            self._arrays = {key: arrays[key] for key in arrays.files}

    def array(self, case: Mapping[str, Any] | str, key: str) -> Tensor:
        """An array of a case (or of a name such as "noise_bank/gauss") as a float64 tensor."""
        name = case if isinstance(case, str) else case["case"]
        if f"{name}/{key}" not in self._arrays:
            have = [k.removeprefix(f"{name}/") for k in self._arrays if k.startswith(f"{name}/")]
            raise KeyError(f"{self.name} has no array {key!r} in {name!r}; it has {have}")
        return torch.from_numpy(self._arrays[f"{name}/{key}"].astype(np.float64))

    def case(self, name: str) -> dict[str, Any]:
        """The case of this name."""
        return next(case for case in self.cases if case["case"] == name)


@cache
def _load(folder: Path, name: str) -> ReferenceFile:
    return ReferenceFile(folder, name)


class Reference:
    """The folder of reference values; a file that is missing from it is an error, never a skip."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, name: str) -> ReferenceFile:
        """The file `name`, read once."""
        return _load(self.folder, name)


def reference_cases(name: str, select: Callable[[dict[str, Any]], bool] = bool) -> list[Any]:
    """Parameters for `pytest.mark.parametrize("case", ...)`: the selected cases of a file.

    Where the reference values are absent, one parameter that is skipped with that reason.
    """
    absent = reference_absent()
    if absent:
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=absent))]
    described = json.loads((reference_folder() / f"{name}.json").read_text(encoding="utf-8"))
    chosen = [case for case in described["cases"] if select(case)]
    if not chosen:
        raise ValueError(f"no case of {name} is selected")
    return [pytest.param(case, id=case["case"]) for case in chosen]


# statistics ---------------------------------------------------------------------------------


class AlphaBudget:
    """Hands out significance levels: `total` split evenly into `parts`, each name served once.

    By Bonferroni's inequality the whole suite raises a false alarm with probability <= `total`,
    whatever the dependence between its tests.
    """

    def __init__(self, total: float = 1e-9, parts: int = 1000) -> None:
        self.part = total / parts
        self.left = parts
        self.spent: dict[str, int] = {}

    def spend(self, name: str, parts: int = 1) -> float:
        """The level for the test `name`: `parts` shares, for as many comparisons."""
        if name in self.spent:
            raise AssertionError(f"the significance of {name!r} is spent already")
        if not 1 <= parts <= self.left:
            raise AssertionError(f"{name!r} asks for {parts} shares, {self.left} are left")
        self.spent[name] = parts
        self.left -= parts
        return parts * self.part


@dataclass(frozen=True)
class Band:
    """A measured value and the interval it leaves with probability <= alpha; true if inside."""

    claim: str
    measured: float
    low: float
    high: float
    alpha: float

    def __bool__(self) -> bool:
        return self.low <= self.measured <= self.high  # NaN is outside


def _values(x: Tensor) -> np.ndarray:
    """A one-dimensional sample as float64."""
    if x.ndim != 1:
        raise ValueError(f"a one-dimensional sample is needed, got shape {tuple(x.shape)}")
    return x.detach().cpu().to(torch.float64).numpy()


def mean_test(
    x: Tensor, *, mean: float, std: float, alpha: float, skewness: float | None = None
) -> Band:
    """The mean of n independent draws lies within z std / sqrt(n) of `mean`.

    Exact for Gaussian draws. For others give (a bound on) the skewness: the sample must then hold
    1e5 draws, and z is widened by the leading term of Cramér's expansion of the tail,
    exp(|skewness| z^3 / (6 sqrt(n))).
    """
    values = _values(x)
    n = len(values)
    z = float(stats.norm.isf(alpha / 2))
    if skewness is not None:
        if n < 100_000:
            raise ValueError(f"not Gaussian: at least 100000 draws are needed, got {n}")
        z = float(stats.norm.isf(alpha / 2 * math.exp(-abs(skewness) * z**3 / (6 * math.sqrt(n)))))
    half = z * std / math.sqrt(n)
    return Band(f"mean of {n} draws", float(values.mean()), mean - half, mean + half, alpha)


def variance_test(x: Tensor, *, var: float, alpha: float) -> Band:
    """(n - 1) s^2 / var of n independent Gaussian draws follows chi-squared with n - 1 degrees."""
    values = _values(x)
    law = stats.chi2(len(values) - 1)
    low, high = (
        var * float(q) / (len(values) - 1) for q in (law.ppf(alpha / 2), law.isf(alpha / 2))
    )
    return Band(f"variance of {len(values)} draws", float(values.var(ddof=1)), low, high, alpha)


def law_test(x: Tensor, *, cdf: Callable[[np.ndarray], np.ndarray], alpha: float) -> Band:
    """The largest distance of the empirical from the true distribution function.

    The Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant, at any n:
    P(D > d) <= 2 exp(-2 n d^2).
    """
    u = np.sort(np.asarray(cdf(_values(x))))
    n = len(u)
    ranks = np.arange(n + 1) / n
    distance = float(max((ranks[1:] - u).max(), (u - ranks[:-1]).max()))
    bound = math.sqrt(math.log(2 / alpha) / (2 * n))
    return Band(f"distribution of {n} draws", distance, 0.0, bound, alpha)


def proportion_test(hits: int, n: int, *, p: float, alpha: float) -> Band:
    """The number of hits in n independent trials of probability p: the exact binomial law."""
    law = stats.binom(n, p)
    low, high = (float(q) for q in (law.ppf(alpha / 2), law.isf(alpha / 2)))
    return Band(f"hits in {n} trials", float(hits), low, high, alpha)
