"""Claim: `sdekit list` shows all that has a name, complete at any width, with true defaults."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest

from sdekit import catalogue
from sdekit._catalogue import KINDS, make, register
from sdekit.cli import main
from sdekit.cli.listing import ORDERS, measured
from sdekit.cli.terminal import Terminal
from sdekit.sampling import DDIM


def listed(capsys, *words):
    """The output of `sdekit list`."""
    assert main(["list", *words]) == 0
    heard = capsys.readouterr()
    assert heard.err == ""
    return heard.out


def unwrapped(text):
    """The text without the line breaks and the spaces that wrapping adds."""
    return re.sub(r"\s+", "", text)


def test_every_entry_is_listed_whole_in_79_columns(capsys):
    text = listed(capsys)
    assert max(map(len, text.splitlines())) <= 79
    flat = unwrapped(text)
    for kind in KINDS:
        assert f"\n{kind}: {len(catalogue(kind))}\n" in f"\n{text}"
        for entry in catalogue(kind).values():
            assert unwrapped(entry.doc.rstrip(".")) in flat, entry.name
            assert unwrapped(entry.paper) in flat, entry.name


@pytest.mark.parametrize("kind", ["sde", "sdes", "sampler", "grids", "weightings", "metrics"])
def test_a_kind_in_singular_or_plural(kind, capsys):
    text = listed(capsys, kind)
    assert text.startswith(f"{kind.removesuffix('s')}: ")
    assert all(name in text for name in catalogue(kind))


@pytest.mark.parametrize("kind", ["sde", "sampler", "grid", "weighting", "parametrization"])
def test_what_is_listed_is_the_spelling_of_the_default(kind, capsys):
    flat = unwrapped(listed(capsys, kind))
    for entry in catalogue(kind).values():
        assert unwrapped(repr(entry.make())) in flat
        assert repr(make(kind, repr(entry.make()))) == repr(entry.make())


def test_samplers_show_what_they_declare_and_what_was_measured(capsys):
    flat = unwrapped(listed(capsys, "samplers"))
    for entry in catalogue("sampler").values():
        made = entry.make()
        noise = "stochastic" if "noise" in made.needs else "deterministic"
        order = "none" if made.weak_order is None else made.weak_order
        calls = "1callastep" if made.nfe_per_step == 1 else f"{made.nfe_per_step}callsastep"
        if "adaptive" in made.needs:  # neither is fixed
            order, calls = "adaptive", "adaptivecallsastep"
        found = measured(made)
        known = "" if found == "-" else f"declared,{found}measured"
        assert f"Order{order}{known};{calls};{noise};SDEs:all." in flat


def test_the_measured_order_is_the_smallest_of_all_sdes():
    heun = make("sampler", "heun")
    orders = json.loads(ORDERS.read_text())["orders"][repr(heun)]
    assert measured(heun) == f"{min(o['weak'] for o in orders.values()):.2f}"
    assert measured(make("sampler", "langevin")) == "-"  # declares none
    assert measured(make("sampler", "probability_flow")) == "-"  # takes its own steps


def test_a_sampler_for_some_sdes_names_them(capsys, scratch_catalogue):
    @register("sampler", "for_ve", paper="none")
    @dataclass(frozen=True, kw_only=True)
    class ForVE(DDIM):
        """A sampler that only serves VE."""

        needs = frozenset({"linear", "ve"})

    text = unwrapped(listed(capsys, "samplers"))
    entry = text[text.index("for_ve(") :]
    assert "Order1;1callastep;deterministic;SDEs:ve,edm." in entry[: entry.index("]")]


def test_on_a_wide_terminal_the_table_says_the_same(capsys, monkeypatch):
    monkeypatch.setattr(Terminal, "tables", True)
    monkeypatch.setenv("COLUMNS", "200")
    text = listed(capsys, "samplers")
    for heading in ("name", "what", "order", "measured", "calls", "noise", "SDEs", "paper"):
        assert heading in text
    assert all(name in text for name in catalogue("sampler"))


@pytest.mark.usefixtures("scratch_catalogue")
def test_an_entry_of_somebody_else_is_listed_at_once_and_cannot_command_the_terminal(capsys):
    @register("weighting", "visitor", paper="[red]no \x1b[31m markup")
    class Visitor:
        """A [bold]visitor[/bold] that cannot be made without help."""

        def __init__(self, needed):
            self.needed = needed

        @classmethod
        def examples(cls):
            raise RuntimeError("not today")

    Visitor.__doc__ += "\x1b]0;title\x07"
    text = listed(capsys, "weighting")
    assert "visitor(needed)" in text
    assert "[bold]visitor[/bold]" in text
    assert "\x1b" not in text
