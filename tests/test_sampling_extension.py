"""Claim: a sampler of one's own, two short methods, is at once a sampler like the others.

Registered here and removed afterwards (`scratch_catalogue`): it works by name, in compositions,
with keywords checked, planned once for any parametrisation; and what it gets wrong is said in its
terms.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pytest
import torch
from sampling_support import Wrapped, draws, inner_grid, law_error, spectrum, two_modes
from strategies import f64
from support import assert_close

import sdekit
from sdekit.errors import ConfigError, DtypeError, ShapeError
from sdekit.model import ExactScore
from sdekit.model.parametrization import Eps
from sdekit.sampling import (
    Frame,
    Mix,
    PredictorCorrector,
    Sampler,
    iterate,
    kick,
    plan_for,
    sample,
)
from sdekit.sde import VESDE, VPSDE

pytestmark = pytest.mark.usefixtures("scratch_catalogue")


def make_exponential():
    """DDIM in its textbook form for VP, eta = 0, and a noise column: eighteen lines."""

    @sdekit.register("sampler", "my_ddim", paper="a test")
    @dataclass(frozen=True, kw_only=True)
    class MyDDIM(Sampler):
        extra: float = 0.0

        def coefficients(self, sde, grid):
            t, s = self.times(sde, grid)
            ratio = sde.alpha(s) / sde.alpha(t)
            return {
                "mean": Mix(t, x=ratio, eps=sde.sigma(s) - ratio * sde.sigma(t)),
                "std": self.extra * sde.sigma(s),
            }

        def step(self, x, c, model, state, noise):
            return kick(model(x, c.t).mix(c.mean), c.std, noise), (state or 0) + 1

    return MyDDIM


def test_it_is_one_of_them():
    cls = make_exponential()
    model, x = ExactScore(two_modes(), VPSDE()), draws(1, (4, 2))[0]
    how = dict(steps=10, x_init=x)
    found = sample(model, (4, 2), sampler="my_ddim", **how)
    expected = sample(model, (4, 2), sampler="ddim", **how)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-11, atol=1e-11)
    assert found.nfe == 10
    assert sdekit.catalogue("sampler")["my_ddim"].cls is cls
    assert repr(cls(extra=0.5)) == "my_ddim(extra=0.5)"
    both = PredictorCorrector(predictor="my_ddim(extra=0.1)", corrector="langevin")
    assert sample(model, (4, 2), sampler=both, steps=3, seed=0).nfe == 6
    with pytest.raises(ConfigError, match=r"extr.*extra"):
        sample(model, (4, 2), sampler="my_ddim(extr=1)")
    states = [f.state for f in iterate(model, x, sampler=cls(), grid="uniform", steps=3)]
    assert states == [None, 1, 2, 3]


def test_its_order_is_measured():
    sampler = make_exponential()()
    model = ExactScore(spectrum(), VESDE())
    errors = [law_error(sampler, model, inner_grid(model.sde, n)) for n in (160, 320)]
    assert errors[0] / errors[1] > 2**0.9


def test_a_name_is_taken_once():
    """E20."""
    make_exponential()
    with pytest.raises(ConfigError, match="my_ddim"):
        make_exponential()
    with pytest.raises(ConfigError, match="step"):

        @sdekit.register("sampler", "bad_one")
        class Bad(Sampler):
            def coefficients(self, sde, grid):
                return {}

            def step(self, x):
                return x


def one_row(columns, needs=frozenset(), name="broken"):
    """A sampler with these columns."""

    class Broken(Sampler):
        def coefficients(self, sde, grid):
            return columns(*self.times(sde, grid))

        def step(self, x, c, model, state, noise):
            return model(x, c.t).mix(c.mean), state

    Broken.needs = needs
    Broken.__name__ = name
    return Broken()


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        (
            lambda t, s: {"mean": Mix(t, x=1 / (s - s))},
            ConfigError,
            ["mean", "not finite", "row 0"],
        ),
        (lambda t, s: {"a": torch.where(t < 0.5, torch.nan, t)}, ConfigError, ["'a'", "row 2"]),
        (lambda t, s: {"a": t[:-1]}, ShapeError, ["'a'", "(3,)", "(2,)"]),
        (lambda t, s: {"a": 3.0}, DtypeError, ["'a'", "3.0"]),
        (lambda t, s: {"a": np.array(["x"] * 3)}, DtypeError, ["'a'", "real numbers", "<U1"]),
        (lambda t, s: {"a": np.full(3, None)}, DtypeError, ["'a'", "real numbers", "object"]),
        (lambda t, s: {"a": t + 0j}, DtypeError, ["'a'", "real numbers", "complex128"]),
        (lambda t, s: {"mean": Mix(t, x=s[1:])}, ShapeError, ["'mean'", "x must be", "(2,)"]),
        (lambda t, s: {"mean": Mix(t[0])}, ShapeError, ["'mean'", "at must have shape (K,)"]),
        (lambda t, s: {"mean": Mix(t, eps="one")}, DtypeError, ["eps of a Mix", "'one'"]),
        (lambda t, s: {"mean": Mix(t, eps=t.numpy() + 0j)}, DtypeError, ["eps of a Mix"]),
        (lambda t, s: {"a": t[None, :, None]}, ShapeError, ["'a'"]),
        (lambda t, s: {"part": {"b": t[:1]}}, ShapeError, ["'b'"]),
    ],
)
def test_columns_that_are_wrong(columns, error, words):
    model = Wrapped(ExactScore(two_modes(), VPSDE()))
    with pytest.raises(error) as caught:
        sample(model, (4, 2), sampler=one_row(columns), grid=f64([0.9, 0.6, 0.4, 0.2]), seed=0)
    assert model.calls == 0
    for word in words:
        assert word in str(caught.value)


def test_an_sde_of_another_kind_is_refused():
    sampler = one_row(lambda t, s: {"mean": Mix(t, x=1.0)}, needs=frozenset({"linear", "ve"}))
    with pytest.raises(ConfigError, match=r"ve.*vp\("):
        sample(ExactScore(two_modes(), VPSDE()), (4, 2), sampler=sampler, steps=2)
    assert (
        sample(ExactScore(two_modes(), VESDE()), (4, 2), sampler=sampler, steps=2, seed=0).nfe == 2
    )


def test_columns_reach_the_step_as_floats():
    seen = []

    class Listening(Sampler):
        def coefficients(self, sde, grid):
            t, s = self.times(sde, grid)
            return {
                "one": t - s, "two": torch.stack([t, s], dim=1), "mean": Mix(t, x=2.0, score=0.0),
                "part": {"t": s, "inner": t * 2, "deep": {"u": s}},
            }  # fmt: skip

        def step(self, x, c, model, state, noise):
            seen.append(c)
            return x + 0, state

    run = sample(
        ExactScore(two_modes(), VPSDE()),
        (4, 2),
        sampler=Listening(),
        grid=f64([0.9, 0.6, 0.2]),
        seed=0,
    )
    assert [(c.t, c.s) for c in seen] == [(0.9, 0.6), (0.6, 0.2)]
    assert [c.one for c in seen] == pytest.approx([0.3, 0.4])
    assert seen[0].two == (0.9, 0.6)
    assert tuple(seen[0].mean) == (2.0, 0.0)
    assert (seen[1].part.t, seen[1].part.inner, seen[1].part.deep.u) == (0.2, 1.2, 0.2)
    assert run.nfe == 0


def test_any_combination_of_a_prediction():
    """`Mix` resolves to what `Prediction.linear` gives, for every parametrisation."""
    from sampling_support import entries

    sde = VPSDE()
    t, s = f64([0.8, 0.5]), f64([0.5, 0.3])
    x, raw = draws(2, (4, 2))
    for kind in entries("parametrization").values():
        mix = Mix(t, x=s, x0=2.0, eps=-s, score=0.3)
        rows = mix.resolve(sde, kind)
        assert rows.dtype == torch.float64
        for k in range(2):
            from sdekit.model import Prediction

            seen = Prediction(x, raw, float(t[k]), (sde, kind))
            expected = seen.linear(x=float(s[k]), x0=2.0, eps=-float(s[k]), score=0.3)
            torch.testing.assert_close(
                seen.mix(rows[k].tolist()), expected, rtol=1e-12, atol=1e-12
            )
            y = torch.ones_like(x)
            moved = seen.add_to(y, rows[k].tolist())
            torch.testing.assert_close(moved, 1 + expected, rtol=1e-12, atol=1e-12)
            assert moved is y


def test_rows_need_not_be_those_of_the_grid():
    """As Restart will: more rows than steps, some of them upwards."""

    class Back(Sampler):
        def times(self, sde, grid):
            return grid[[0, 1, 0]], grid[[1, 0, 1]]

        def coefficients(self, sde, grid):
            t, s = self.times(sde, grid)
            return {"mean": Mix(t, x0=sde.alpha(s), eps=sde.sigma(s))}

        def step(self, x, c, model, state, noise):
            return model(x, c.t).mix(c.mean), state

    model = ExactScore(two_modes(), VPSDE())
    run = sample(model, (4, 2), sampler=Back(), grid=f64([0.9, 0.5]), seed=0, keep="all")
    assert run.nfe == 3
    assert run.trajectory_t.tolist() == [0.9, 0.5, 0.9, 0.5]


def test_a_plan_is_made_once():
    calls = []

    @dataclass(frozen=True, kw_only=True)
    class Counting(Sampler):
        mark: int = 0

        def coefficients(self, sde, grid):
            calls.append(self.mark)
            return {}

        def step(self, x, c, model, state, noise):
            return x + 0, state

    model = ExactScore(two_modes(), VPSDE())
    for _ in range(3):
        sample(model, (2, 2), sampler=Counting(mark=1), steps=3)
    sample(model, (2, 2), sampler=Counting(mark=2), steps=3)
    sample(ExactScore(two_modes(), VESDE()), (2, 2), sampler=Counting(mark=1), steps=3)
    sample(model, (2, 2), sampler=Counting(mark=1), steps=4)
    assert calls == [1, 2, 1, 1]

    @dataclass(frozen=True, kw_only=True)
    class Unhashable(Counting):
        table: list = field(default_factory=list)

    sample(model, (2, 2), sampler=Unhashable(), steps=3)
    plan = plan_for(Counting(mark=1), model.sde, model.parametrization, f64([0.9, 0.1]))
    assert plan.grid.tolist() == [0.9, 0.1]
    assert list(plan.calls) == []


def test_a_frame_is_a_plain_record():
    frame = Frame(torch.zeros(1), 0.5, 3, 7, None)
    assert (frame.t, frame.step, frame.nfe, frame.state) == (0.5, 3, 7, None)
    with pytest.raises(AttributeError):
        frame.other = 1


def test_plans_are_made_under_inference_mode_too():
    """A plan that is cached there must serve autograd later."""
    code = (
        "import torch\nfrom sdekit import *\n"
        "model = ExactScore(Gaussian([0.0], 1.0), VPSDE())\n"
        "with torch.inference_mode():\n    sample(model, (2, 1), steps=3, seed=0)\n"
        "x = torch.zeros(2, 1, requires_grad=True)\n"
        "frames = list(iterate(model, x, sampler='ddim', grid='uniform', steps=3))\n"
        "frames[-1].x.sum().backward()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_inference_tensors_inside_and_outside_of_their_mode():
    """They have no version counter; the loop must not ask for it."""
    model, plain = ExactScore(two_modes(), VPSDE()), draws(1, (3, 2))[0]
    how = dict(sampler="ancestral", grid="uniform", steps=3, noise=torch.zeros_like)
    expected = list(iterate(model, plain, **how))[-1].x
    with torch.inference_mode():
        strange = plain.clone()
        for x in (plain, strange):
            assert torch.equal(list(iterate(model, x, **how))[-1].x, expected)
            assert torch.equal(sample(model, (3, 2), x_init=x, **how).x, expected)
    assert torch.equal(list(iterate(model, strange, **how))[-1].x, expected)
    assert torch.equal(sample(model, (3, 2), x_init=strange, **how).x, expected)


COLUMNS = {
    "tensor": lambda v: v,
    "array": lambda v: v.numpy(),
    "backwards": lambda v: v.flip(0).numpy()[::-1],
    "other byte order": lambda v: v.numpy().astype(">f8"),
    "read-only": lambda v: np.broadcast_to(v.numpy(), v.shape),
    "bfloat16": lambda v: v.bfloat16(),
}


@pytest.mark.parametrize("form", COLUMNS.values(), ids=COLUMNS)
def test_columns_of_any_form(form):
    def columns(t, s):
        inner = MappingProxyType({"half": form(0.5 * torch.ones_like(t))})
        return {"mean": Mix(form(t), eps=form(torch.ones_like(t))), "inner": inner}

    grid = f64([1.0, 0.75, 0.5, 0.25])
    plan = plan_for(one_row(columns), VPSDE(), Eps(), grid)
    assert [row.mean for row in plan.rows] == [(0.0, 1.0)] * 3
    assert [row.inner.half for row in plan.rows] == [0.5] * 3
    assert plan.calls == (1.0, 0.75, 0.5)


def test_a_mix_takes_a_list():
    assert torch.equal(Mix([1.0, 0.5], eps=[2, 3]).eps, f64([2.0, 3.0]))


def test_mixes_are_resolved_each_by_its_own_coefficients():
    """Together, since that is faster: numbers that differ, times apart."""

    def columns(t, s):
        return {
            "one": Mix(t, x0=1.0), "two": Mix(s, eps=1.0, x=0.5), "three": Mix(t, eps=s, x0=-2.0)
        }  # fmt: skip

    sde, grid = VPSDE(), f64([1.0, 0.7, 0.4, 0.1])
    plan = plan_for(one_row(columns), sde, Eps(), grid)
    for name, mix in columns(grid[:-1], grid[1:]).items():
        alone = mix.resolve(sde, Eps())
        assert_close(f64([getattr(row, name) for row in plan.rows]), alone, tol=1e-15)
