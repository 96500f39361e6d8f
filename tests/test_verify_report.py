"""Claim: a failure says what, how much, where, and how to see it again; nothing is hidden.

Reports never stop early; skips carry a reason; an expected failure turns red when it passes; a
counterexample is the smallest; the line that is printed repeats it; strangers are understood.
"""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from sdekit import DDIM, VPSDE
from sdekit.cli import main
from sdekit.errors import ConfigError, DtypeError
from sdekit.sde import LinearSDE
from sdekit.verify import (
    CHECKS,
    Check,
    Finding,
    Report,
    check,
    check_sampler,
    check_sde,
    parametrize_with_checks,
)
from sdekit.verify.claims import Skip, agree
from sdekit.verify.mutants import MUTANTS, altered
from sdekit.verify.runner import Asked, run
from sdekit.verify.strategies import f64, times
from sdekit.verify.wording import relation


class Twice:
    """A factor 2 too much in g^2."""

    t_max = 1.0

    def beta(self, t):
        return 0.1 + 19.9 * t

    def drift(self, x, t):
        return -0.5 * self.beta(t)[:, None] * x

    def diffusion(self, t):
        return (2 * self.beta(t)).sqrt()

    def log_alpha(self, t):
        return -0.5 * (0.1 * t + 9.95 * t**2)

    def var(self, t):
        return -torch.expm1(2 * self.log_alpha(t))


def test_the_sentence_names_the_fault():
    report = check_sde(Twice())
    assert not report.ok
    first = report.failures[0]
    assert first.name == "variance_equation"
    assert "g^2 is twice what the marginal variance implies" in first.says
    assert "2 x beta against 1 x beta" in first.says
    assert first.measured > first.threshold == 1e-7
    assert first.example == "t = 1"  # one time, not a list of them
    assert {"fokker_planck", "time_change"} <= {f.name for f in report.failures}
    text = str(report)
    for words in ("claim", "seen", "measured", "allowed 1e-07", "repeat", "seed=0"):
        assert words in text


def test_the_line_that_is_printed_repeats_the_failure():
    first = check_sde(Twice(), seed=3).failures[0]
    line = first.reproduce.replace("sdekit.verify.check(OBJECT", "check(thing")
    again = eval(line, {"check": check, "thing": Twice()})  # the line under test
    assert again.failures[0].says == first.says


def test_a_line_of_the_shell_repeats_it_for_what_has_a_spelling(capsys):
    wrong = altered(DDIM(), needs=frozenset({"linear", "noise"}))
    failure = check(wrong, only="noise_as_declared").failures[0]
    assert failure.reproduce.startswith("sdekit.verify.check(OBJECT")  # a mutant has none
    report = check_sampler("langevin(rule='batch_norm', snr=0.2)", only="batches_do_not_mix")
    line = report.failures[0].reproduce
    assert line.startswith("sdekit verify 'langevin(")
    import shlex

    assert main(shlex.split(line)[1:]) == 1
    assert "batches_do_not_mix" in capsys.readouterr().out


def test_no_failure_stops_the_others_and_an_error_is_a_failure():
    class Broken(Twice):
        def var(self, t):
            raise RuntimeError("no variance today")

    report = check_sde(Broken())
    assert len(report.results) == len(check_sde(Twice()).results)
    assert any("RuntimeError: no variance today" in f.says for f in report.failures)


def test_expected_failures():
    reason = {"variance_equation": "a factor 2 is meant"}
    report = check_sde(Twice(), only="variance_equation", expected_failures=reason)
    assert report.ok
    assert report.results[0].status == "expected"
    assert "a factor 2 is meant" in str(report)
    report = check_sde(VPSDE(), only="variance_equation", expected_failures=reason)
    assert not report.ok
    assert report.results[0].status == "passed unexpectedly"


def test_skips_are_listed_with_why():
    skipped = [r for r in check_sde(Twice()).results if r.status == "skipped"]
    assert skipped
    assert all(r.reason for r in skipped)
    assert "it has no transition" in {r.reason for r in skipped}


def test_json_is_json():
    found = json.loads(check_sde(Twice()).to_json())
    assert not found["ok"]
    assert {"name", "status", "claim", "measured", "threshold", "example", "reproduce"} <= set(
        found["results"][0]
    )


def test_seeds_repeat_and_differ():
    reports = [check_sde(Twice(), only="variance_equation", seed=s) for s in (1, 1, 2)]
    says = [r.failures[0].says for r in reports]
    assert says[0] == says[1]


def test_only_drift_and_diffusion():
    """The marginals are integrated, and the prior, where there is one, is held against them."""

    class Bare:
        def drift(self, x, t):
            return -3.0 * x

        def diffusion(self, t):
            return math.sqrt(6.0)

    assert check_sde(Bare()).ok

    class WithPrior(Bare):
        def prior_std(self):
            return math.sqrt(2.0)  # twice the variance that these coefficients reach

    failed = check_sde(WithPrior()).failures
    assert [f.name for f in failed] == ["prior_gap"]
    assert "prior_std^2 = 2, var = 0.99" in failed[0].says


def test_a_stranger_in_the_style_of_the_score_sde_code():
    class Published:
        T = 1

        def sde(self, x, t):
            raise AssertionError

        def drift(self, x, t):
            return -0.5 * (0.1 + 19.9 * t).reshape(-1, 1) * x

        def diffusion(self, t):
            return torch.sqrt(0.1 + 19.9 * t)

        def marginal_prob(self, x, t):
            log_mean = -0.25 * t**2 * 19.9 - 0.5 * t * 0.1
            return torch.exp(log_mean)[:, None] * x, torch.sqrt(1.0 - torch.exp(2.0 * log_mean))

    report = check_sde(Published())
    # right but for the digits that 1 - exp(-small) loses: fault 12
    assert "small_times" in {f.name for f in report.failures}


def test_a_drift_that_is_not_linear_is_said_to_be():
    class Well:
        def drift(self, x, t):
            return x - x**3

        def diffusion(self, t):
            return 1.0

    report = check_sde(Well())
    assert all(r.status == "skipped" for r in report.results)
    assert not report.ok  # nothing was asked
    assert any("drift of the form f(t) x" in r.reason for r in report.results)


def test_a_plain_function_as_a_sampler():
    def wrong(model, x, grid, noise):
        for t, s in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
            seen = model(x, t)
            x = float(model.sde.alpha(s)) * seen.x0 + float(model.sde.sigma(t)) * seen.eps
        return x

    found = check_sampler(wrong, only=["limit_law", "declared_order"])
    assert {f.name for f in found.failures} == {"declared_order", "limit_law"}


def test_a_failing_test_of_pytest_carries_the_report():
    @parametrize_with_checks({"mine": Twice()})
    def test_it(check):
        check()

    cases = {case.id: case.values[0] for case in test_it.pytestmark[0].args[1]}
    assert len(cases) == len(check_sde(Twice()).results)
    cases["mine-mean_equation"]()
    with pytest.raises(AssertionError, match="g\\^2 is twice"):
        cases["mine-variance_equation"]()
    with pytest.raises(pytest.skip.Exception, match="it has no"):
        cases["mine-semigroup"]()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: check_sde(3.0), DtypeError, "no checks for 3.0"),
        (lambda: check_sde(VPSDE), DtypeError, "not its class"),
        (lambda: check_sampler("ddimm"), ConfigError, "did you mean 'ddim'"),
        (lambda: check_sde(VPSDE(), only="variance_equatio"), ConfigError, "did you mean"),
        (lambda: check_sde(VPSDE(), expected_failures={"no": "why"}), ConfigError, "no check"),
        (lambda: check_sde(VPSDE(), max_examples=0), ConfigError, "max_examples"),
        (lambda: check_sde(VPSDE(), seed=-1), ConfigError, "seed"),
        (
            lambda: parametrize_with_checks([VPSDE()], expected_failures={"point_data": "why"}),
            ConfigError, "point_data",
        ),
    ],
)  # fmt: skip
def test_wrong_use(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("seen", "expected", "words"),
    [(2.0, 1.0, "twice"), (-0.3, 0.3, "minus"), (0.09, 0.3, "the square of"),
     (1.01, 1.0, "above"),
     (math.nan, 1.0, "not finite"), (5.0, 1.0, "5 times"), (0.3, 0.0, "not")],
)  # fmt: skip
def test_relations_in_words(seen, expected, words):
    assert words in relation(seen, expected)


def test_agree_finds_the_worst_entry_and_no_nan_passes():
    found = agree(
        "a",
        f64([1.0, 2.1, 3.0]),
        "b",
        f64([1.0, 2.0, 3.0]),
        tol=1e-3,
        at={"t": f64([0.1, 0.2, 0.3])},
    )
    assert not found.ok
    assert "at t = 0.2" in found.says
    assert abs(found.measured - 0.05) < 1e-12  # the worst, not a mean
    assert not agree("a", f64([[1.0, 2.0]]), "b", f64([[1.0], [2.0]]), tol=1e9).ok
    for bad in (math.nan, math.inf):
        assert not agree("a", f64([1.0, bad]), "b", f64([1.0, 2.0]), tol=1e9).ok
    assert not agree("a", f64([1.0]), "b", f64([1.0, 2.0]), tol=1e9).ok
    assert agree("a", f64([0.0, 1.0]), "b", f64([0.0, 1.0]), tol=0.0).ok


def fake(measure, cases=None):
    none = frozenset()
    said = ("fake", "sde", "a claim", "a source")
    return Check(*said, none, none, "instant", measure, cases, False, 1.0)


def test_the_runner_asks_as_often_as_it_says_and_keeps_the_worst():
    seen = []

    def measure(sde, t):
        seen.append(float(t[0]))
        return Finding(float(t[0]), 10.0, f"t = {float(t[0])}")

    asked = Asked(examples=20)
    result = run(fake(measure, lambda sde: times(sde, 1)), VPSDE(), "it", asked, "line")
    assert result.status == "passed"
    assert result.examples == len(seen) == 20
    assert result.measured == max(seen)

    def refuses(sde, t):
        raise Skip("never")

    result = run(fake(refuses, lambda sde: times(sde, 1)), VPSDE(), "it", asked, "line")
    assert (result.status, result.reason) == ("skipped", "never")


def test_nothing_asked_is_not_green():
    assert not Report().ok
    with pytest.raises(ConfigError, match="names no check of sde objects"):
        check(VPSDE(), only="limit_law")
    with pytest.raises(ConfigError, match="names no check"):
        check(VPSDE(), only=[])


def test_the_list_of_checks_is_full_for_whoever_imports_it_first():
    code = "from sdekit.verify import CHECKS; print(len(CHECKS))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(CHECKS) >= 40


class Floats:
    """Of floats alone, on its own interval, and no further."""

    t_max = 2.0

    def drift(self, x, t):
        return -x

    def diffusion(self, t):
        return math.sqrt(2.0)

    def log_alpha(self, t):
        assert float(t) <= 2.0
        return -1.0 * float(t)

    def var(self, t):
        assert float(t) <= 2.0
        return -math.expm1(-2 * float(t))


class Columns:
    """Times as a column, marginals as a pair."""

    def drift(self, x, t):
        assert t.shape[1:] == (1,)
        return -x + 0 * t

    def diffusion(self, t):
        return 0 * t + math.sqrt(2.0)

    def marginal_prob(self, x, t):
        assert t.shape[1:] == (1,)
        return x * torch.exp(-t), torch.sqrt(-torch.expm1(-2 * t))


class Arrays:
    """NumPy inside."""

    def drift(self, x, t):
        return -np.asarray(x)

    def diffusion(self, t):
        return np.sqrt(2.0) + 0 * np.asarray(t)


@pytest.mark.parametrize("thing", [Floats(), Columns(), Arrays()], ids=lambda t: type(t).__name__)
def test_right_strangers_of_any_form_pass(thing):
    report = check_sde(thing)
    assert report.ok, str(report)


def test_a_stranger_that_cannot_be_asked_says_why():
    class Raises(Floats):
        def drift(self, x, t):
            raise KeyError("boo")

    class Single(Floats):
        def drift(self, x, t):
            return -x.float()

    with pytest.raises(DtypeError, match="Raises cannot be asked as a sde: it raised KeyError"):
        check_sde(Raises())
    with pytest.raises(DtypeError, match=r"computes in torch\.float32"):
        check_sde(Single())


def test_noise_that_is_multiplied_by_zero_is_no_noise():
    def ancestral(model, x, grid, noise):
        for t, s in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
            w = model.sde.posterior(s, t)
            mean = float(w.x_t) * x + float(w.x_0) * model(x, t).x0
            x = mean + float(w.var) ** 0.5 * noise(x)
        return x

    ancestral.stochastic = True
    assert check_sampler(functools.partial(ancestral), only="data_end_is_noiseless").ok


def test_the_catalogue_of_checks_is_whole():
    for name, one in CHECKS.items():
        assert one.claim, name
        assert one.source, name
        assert one.measure.__doc__, name
    assert {"sde", "sampler", "parametrization", "objective"} <= {c.kind for c in CHECKS.values()}


# the command ------------------------------------------------------------------------------------


def test_the_command_exits_one_where_a_check_fails(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_process.py").write_text(
        "import torch\nclass Mine:\n    def drift(self, x, t): return -x\n"
        "    def diffusion(self, t): return 2.0\n    def log_alpha(self, t): return -1.0 * t\n"
        "    def var(self, t): return 1 - torch.exp(-2.0 * t)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["verify", "my_process:Mine", "--json", "out.json"]) == 1
    heard = capsys.readouterr().out
    assert "g^2 is twice what the marginal variance implies" in heard
    assert not json.loads((tmp_path / "out.json").read_text())["ok"]
    assert main(["verify", "vp", "--only", "variance_preserved"]) == 0
    assert "1 passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["vpp"], "did you mean 'vp'"), (["nowhere:thing"], "no module 'nowhere'"),
     (["sdekit.sde:Nothing"], "has no 'Nothing'"), (["vp", "--only", "point_data"], "none of"),
     (["vp", "--kind", "smapler"], "did you mean 'sampler'"),
     (["--mutants", "nobody"], "no mutant")],
)  # fmt: skip
def test_wrong_words(words, hint, capsys):
    assert main(["verify", *words]) == 2
    assert hint in capsys.readouterr().err


def test_mutants_and_checks_are_listed(capsys):
    name = MUTANTS[0].name
    assert main(["verify", "--mutants", name]) == 0
    heard = capsys.readouterr().out
    assert f"{name}  killed by variance_equation" in heard
    assert main(["verify", "--checks"]) == 0
    assert f"{len(CHECKS)} checks" in capsys.readouterr().out


def test_a_report_on_a_process_of_two_functions():
    sde = LinearSDE.from_coefficients(lambda t: 0 * t - 1.0, lambda t: 0 * t + 2.0)
    assert check_sde(sde, max_examples=3).ok
