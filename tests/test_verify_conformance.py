"""Claim: docs/conformance.md holds what the commands show, and a planted fault shows as well.

The numbers of the page are read and measured again: a few rows and what is quick here, all of
them in the slow tests. Faults planted in fake schedulers must be caught and right ones pass, so
that neither a fault nor its absence is a property of the measuring.
"""

from __future__ import annotations

import re

import pytest
import torch
from support import REPOSITORY

from sdekit.targets import Gaussian
from sdekit.verify import check
from sdekit.verify.conformance.__main__ import main
from sdekit.verify.conformance.page import shown_lines
from sdekit.verify.conformance.rows import ROWS, named, version
from sdekit.verify.conformance.shown import SHOWN, outcome
from sdekit.verify.conformance.table import COUNTS, errors_of, scheduler_error
from sdekit.verify.mutants import scheduler as fakes

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

PAGE = (REPOSITORY / "docs" / "conformance.md").read_text(encoding="utf-8")
NUMBER = r"\d\.\d\de[+-]\d\d"


def region(name):
    found = re.search(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", PAGE, re.DOTALL)
    return found[1]


def printed(name):
    """The errors of a row of the page, and the names of the checks that fail."""
    where = region("azula" if ROWS[name].library == "azula" else "diffusers")
    (line,) = re.findall(rf"^\| `{name}` .*$", where, re.MULTILINE)
    last = line.split("|")[-2]
    return [float(e) for e in re.findall(NUMBER, line)], re.findall(r"`(\w+)`", last)


def library(name):
    """The library; skipped, with the reason, where absent or not the page's release."""
    pytest.importorskip(name, reason=f"{name} is absent")
    stated = re.match(rf"{name} ([\d.]+):", region(name))[1]
    if version(name) != stated:
        pytest.skip(f"the page is about {name} {stated}, here is {version(name)}")


def agrees(name, counts):
    """Whether the page's errors are measured again, to the digits that float32 leaves."""
    errors, _ = printed(name)
    wanted = [errors[COUNTS.index(n)] for n in counts]
    seen = errors_of(ROWS[name], counts)
    assert seen == pytest.approx(wanted, rel=0.01, abs=2e-5), name


def test_every_row_and_every_command_is_on_the_page():
    for name, row in ROWS.items():
        errors, _ = printed(name)
        assert len(errors) == len(COUNTS), name
        assert str(row) in PAGE
    for name, one in SHOWN.items():
        assert f"python -m sdekit.verify.conformance {name}\n" in region(f"{one.library}-shown")


@pytest.mark.parametrize("name", ["ddim-trailing", "euler-trailing", "heun-trailing"])
def test_errors_of_diffusers(name):
    library("diffusers")
    agrees(name, (10, 20))


def test_errors_of_ours_beside_them():
    for name, row in ROWS.items():
        if row.library == "sdekit":
            agrees(name, (10, 20))


def test_a_target_that_is_not_the_next_time_is_shown():
    """DDIM and Euler are one method; at n = 80 DDIM's error is three times larger."""
    library("diffusers")
    (seen,) = check(named("ddim-trailing").function(), kind="sampler",
                    only="state_lies_at_its_time", max_examples=6)  # fmt: skip
    assert not seen.ok
    assert seen.example.endswith("steps = 3")
    (ddim,), (euler,) = (errors_of(ROWS[n], (80,)) for n in ("ddim-trailing", "euler-trailing"))
    (ours,) = errors_of(ROWS["sdekit-ddim"], (80,))
    assert ddim > 3 * euler
    assert ours == pytest.approx(euler, rel=5e-3)


QUICK = {
    "thousand-steps": {"1000 steps: 999 different times, NaN or infinity": 5, "999 steps": 6},
    "cosine-karras": {"12 of 20 are different": 1},
    "fixed-large-log": {"fixed_large_log: 20 steps, NaN or infinity": 1, "NaN": 1},
}


@pytest.mark.parametrize("name", QUICK)
def test_what_a_command_shows(name, monkeypatch):
    library("diffusers")
    if name == "thousand-steps":  # the whole is for the slow test
        from sdekit.verify.conformance import shown

        made = shown._scheduler("UniPCMultistepScheduler")
        assert outcome(made, 1000) == "NaN or infinity"
        text = region("diffusers-shown")
    else:
        text = "\n".join(shown_lines(name))
        assert text in PAGE
    for words, count in QUICK[name].items():
        assert text.count(words) >= count, words


class Fake:
    """diffusers' interface, DDIM: what a library would hand over, right or with a fault."""

    init_noise_sigma = 1.0

    def __init__(self, fault=""):
        self.betas = torch.linspace(1e-4, 0.02, 1000)
        self.kept = torch.cat([torch.ones(1), (1 - self.betas).cumprod(0)]).double()
        self.fault = fault

    def set_timesteps(self, steps):
        self.timesteps = torch.arange(1000, 0, -1000 / steps).round().long() - 1
        self.targets = [*(self.timesteps[1:] + 1).tolist(), 0]

    def scale_model_input(self, x, i):
        return x

    def step(self, eps, i, x):
        at = self.timesteps.tolist().index(int(i))
        s = self.targets[at]
        if self.fault == "ratio":
            s = max(int(i) + 1 - 1000 // len(self.timesteps), 0)
        a, b = self.kept[int(i) + 1], self.kept[s]
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        return type("Out", (), {"prev_sample": b.sqrt() * x0 + (1 - b).sqrt() * eps})


def test_a_right_scheduler_has_our_error_and_a_wrong_one_has_not():
    data = Gaussian.from_spectrum(torch.zeros(3), torch.tensor([0.01, 1.0, 6.0]))
    for n in (10, 30):
        right, wrong = (scheduler_error(Fake(fault), n, data) for fault in ("", "ratio"))
        (ours,) = errors_of(ROWS["sdekit-ddim"], (n,), data)
        assert right == pytest.approx(ours, rel=1e-4)
        assert (abs(wrong / ours - 1) > 0.1) == bool(1000 % n)


@pytest.mark.parametrize("row", fakes.ROWS, ids=lambda row: row.name)
def test_a_planted_fault_is_caught_and_the_right_one_passes(row):
    for name in row.caught_by:
        (right,) = check(row.right, kind="sampler", only=name, max_examples=4)
        (wrong,) = check(row.wrong, kind="sampler", only=name, max_examples=24)
        assert right.status == "passed", right
        assert wrong.status == "failed", name


def test_the_command_names_what_it_does_not_know(capsys):
    assert main(["euler-trailin"]) == 2
    assert "euler-trailing" in capsys.readouterr().err


def test_the_command_without_a_name_lists_all(capsys):
    assert main([]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [*ROWS, *SHOWN]


# the whole page ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_page(name):
    row = ROWS[name]
    if row.library != "sdekit":
        library(row.library)
    agrees(name, COUNTS)
    if row.library != "sdekit":
        report = check(row.function(), kind="sampler", max_examples=6)
        assert [r.name for r in report if r.status == "failed"] == printed(name)[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_command_of_the_page(name):
    library(SHOWN[name].library)
    blank = re.compile(rf"{NUMBER}|\d+\.\d+|\d\.\d+e-\d+")
    text = "\n".join(shown_lines(name))
    assert blank.sub("#", text) in blank.sub("#", region(f"{SHOWN[name].library}-shown"))
