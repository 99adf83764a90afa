import io
import sys

import pytest

from chainer_mmix import progress
from chainer_mmix.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def work(clock, durations, total=None, quiet=False):
    with Progress(total or len(durations), quiet) as tell:
        for i, duration in enumerate(durations):
            tell(f"step {i}")
            clock.now += duration


def test_plain_lines_with_an_estimate(clock, capsys):
    work(clock, [10, 20, 15, 1], total=6)
    assert capsys.readouterr().err.splitlines() == [
        "2 of 6: step 1, about 50 s left",
        "3 of 6: step 2, about 60 s left",
        "4 of 6: step 3, about 45 s left",
    ]


def test_short_work_goes_without(clock, capsys):
    work(clock, [0.2] * 10)
    assert capsys.readouterr().err == ""


def test_steps_that_were_done_before_do_not_count(clock, capsys):
    work(clock, [0.001] * 8 + [60, 120])
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "10 of 10: step 9, about 60 s left"
    # A stall is a step as the others.
    work(clock, [0.001] * 4 + [1, 60, 2, 1])
    *_, line = capsys.readouterr().err.splitlines()
    assert line == "7 of 8: step 6, about 61 s left"


def test_long_estimates_are_in_minutes(clock, capsys):
    work(clock, [600, 1], total=3)
    assert capsys.readouterr().err == "2 of 3: step 1, about 20 min left\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_has_one_line_unless_quiet(clock, monkeypatch, quiet):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    work(clock, [5, 5], quiet=quiet)
    text = terminal.getvalue()
    if quiet:
        assert text == "2 of 2: step 1, about 5 s left\n"
    else:
        first, second, end = text.split("\r\033[K")[1:]
        assert (first, end) == ("1 of 2: step 0", "")
        assert second == "2 of 2: step 1, about 5 s left"
