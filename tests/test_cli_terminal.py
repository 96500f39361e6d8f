"""Claim: a log shows every ten seconds how far a run is, and about how long the rest takes."""

from __future__ import annotations

import io

import pytest

from sdekit.cli import terminal


@pytest.fixture
def log(monkeypatch):
    """The lines of progress of (seconds, done) pairs of a total."""

    def lines(total, events):
        clock, stream = [0.0], io.StringIO()
        monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(terminal.sys, "stderr", stream)
        with terminal.Terminal().progress("cells", total) as advance:
            for clock[0], done in events:
                advance(done, "a cell")
        return stream.getvalue().splitlines()

    return lines


def test_a_short_part_says_nothing(log):
    assert log(4, [(0, 0), (1, 1), (3, 4)]) == []


def test_a_line_every_ten_seconds_says_what_is_left(log):
    assert log(40, [(0, 0), (2, 1), (11, 10), (15, 15), (22, 16)]) == [
        "cells: 10 of 40, about 0:00:30 left, a cell",
        "cells: 16 of 40, about 0:00:32 left, a cell",
    ]


def test_the_start_is_no_pace(log):
    """The first cell of a run waits for its process, which imports torch."""
    assert log(40, [(0, 0), (12, 1), (24, 3)]) == [
        "cells: 1 of 40, a cell",
        "cells: 3 of 40, about 0:03:42 left, a cell",
    ]


def test_what_was_there_before_is_no_pace(log):
    """A resumed run: thirty of forty cells were finished by another run."""
    assert log(40, [(0, 30), (6, 31), (12, 32)]) == ["cells: 32 of 40, about 0:00:48 left, a cell"]


@pytest.mark.parametrize("events", [[(0, 0), (11, 0)], [(0, 0), (5, 1), (11, 7)]])
def test_no_pace_and_no_total_say_no_time(log, events):
    assert "left" not in log(None, events)[0]
    assert log(7, events) == [f"cells: {events[-1][1]} of 7, a cell"]
