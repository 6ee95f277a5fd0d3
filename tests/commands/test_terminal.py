"""Colour and progress on a terminal only; no control characters from models or files."""

from __future__ import annotations

import io

import pytest

from ternrun.commands import terminal
from ternrun.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_where_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.paint("x", terminal.BOLD, Terminal()) == "\x1b[1mx\x1b[0m"
    assert terminal.paint("x", terminal.BOLD, io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.paint("x", terminal.BOLD, Terminal()) == "x"


def test_control_characters_are_made_harmless() -> None:
    assert terminal.safe("a\tb\nc \x1b[31m\x07\r\x9b2J\x7f é漢") == "a\tb\nc \ufffd[31m\ufffd\ufffd\ufffd2J\ufffd é漢"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (98_362_432, "98.4 MB"), (1.2e9, "1.20 GB")]
)
def test_sizes(count: float, text: str) -> None:
    assert terminal.size(count) == text


def test_progress_is_drawn_and_wiped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress("reading", "tokens") as progress:
        progress.update(50, 100)
        progress.update(51, 100)  # too soon to be shown
    text = screen.getvalue()
    assert "reading ██████████·········· 50/100 tokens" in text
    assert "51/100" not in text
    assert text.endswith("\r\x1b[K")


def test_progress_is_silent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress("reading") as progress:
        progress.update(1, 2)
    assert screen.getvalue() == ""


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (200, "reading all of it ██████████·········· 50/100 tokens, 9 s left"),
        (50, "reading all of it 50/100 tokens, 9 s left"),
        (30, "50/100 tokens, 9 s left"),
        (10, "50/100 to"),
    ],
)
def test_progress_keeps_to_one_line(columns: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("ternrun.progress.room", lambda: columns - 1)
    with Progress("reading all of it", "tokens") as progress:
        progress.start -= 9
        progress.update(50, 100)
        drawn = screen.getvalue().removeprefix("\r\x1b[K")
    assert drawn == line
    assert len(drawn) < columns


@pytest.mark.parametrize(
    ("done", "total", "spent", "line"),
    [
        (0, 0, 9.0, "reading 0 tokens"),  # how many there will be is not known yet
        (7, 0, 9.0, "reading 7 tokens"),
        (1, 10, 9.0, "reading ██·················· 1/10 tokens"),  # a tenth says too little
        (5, 10, 2.0, "reading ██████████·········· 5/10 tokens"),  # so do two seconds
        (5, 10, 4.0, "reading ██████████·········· 5/10 tokens, 4 s left"),
    ],
)
def test_time_is_estimated_when_there_is_something_to_go_by(done: int, total: int, spent: float, line: str) -> None:
    progress = Progress("reading", "tokens")
    progress.start -= spent
    assert progress.line(done, total, "") == line


def test_work_that_is_told_has_a_line_at_each_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress("reading", "tokens", told=True) as progress:
        progress.update(0, 2)
        assert screen.getvalue() == "ternrun: reading ...\n"
        progress.update(1, 2)
        progress.update(2, 2)
    assert screen.getvalue() == "ternrun: reading ...\nternrun: reading: 2 tokens in 0 s\n"


def test_long_work_has_a_line_at_each_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress("reading", "tokens") as progress:
        progress.update(0, 2)
        assert screen.getvalue() == ""
        progress.start -= 6
        progress.update(1, 2)
        progress.update(2, 2)
    assert screen.getvalue() == "ternrun: reading ...\nternrun: reading: 2 tokens in 6 s\n"


def test_work_that_is_told_says_nothing_where_none_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress("reading", "tokens", told=True):
        pass
    assert screen.getvalue() == ""
