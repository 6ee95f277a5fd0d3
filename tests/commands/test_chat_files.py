"""`ternrun chat`: text that is not UTF-8, and the file that a conversation is kept in."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ternrun.commands.chat.console import Console
from ternrun.commands.chat.conversation import Conversation
from ternrun.commands.chat.session import Session
from ternrun.commands.chat.slash import SLASH_COMMANDS
from ternrun.errors import UsageError

Run = Callable[..., Any]


def stdin(data: bytes, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors=errors)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # as the locale has it
def test_a_line_that_is_not_utf8_is_one_sentence(
    errors: str, ternrun: Run, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(before := json.dumps({"messages": [{"role": "user", "content": "precious"}]}))
    monkeypatch.setattr("sys.stdin", stdin(b"caf\xe9\n/save " + bytes(kept) + b"\n", errors))
    done = ternrun("chat", "-m", tiny, "--plain", "-n", "2", "--load", kept)
    assert (done.code, done.out) == (2, "")
    assert done.err == "ternrun: error: the line is not UTF-8 text (byte 3)\n"
    assert kept.read_text() == before


def at_a_terminal(history: str = "") -> Console:
    """A console that takes its input for a person's."""
    console = Console(history)
    console.interactive = True
    return console


def test_on_a_terminal_the_message_is_asked_for_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", stdin(b"one\\\ncaf\xe9\ncaf\xc3\xa9\n"))
    console = at_a_terminal()
    assert console.read() == "café"
    assert console.read() is None
    assert "the line is not UTF-8" in capsys.readouterr().err


def test_a_history_that_is_no_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("readline")
    console = at_a_terminal(str(tmp_path))
    with pytest.raises(UsageError, match=f"the history in {tmp_path} cannot be read: "), console:
        pass


def test_who_wants_no_plain_text_is_not_told_that_it_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", stdin(b"n\n"))
    console = at_a_terminal()
    partner = SimpleNamespace(name="tiny", can_chat=False)
    assert Session(partner, console, Conversation(), {}, SLASH_COMMANDS, plain=False).run() == 0  # type: ignore[arg-type]
    assert "your text is continued" not in capsys.readouterr().err


def test_a_key_of_several_lines_is_refused_and_not_shown(ternrun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERNRUN_API_KEY", "secret\nkey")
    done = ternrun("chat", "--url", "http://localhost:1", "-m", "any")
    assert (done.code, done.err) == (2, "ternrun: error: the API key must be one line of printable characters\n")


def test_a_system_message_that_is_not_utf8(ternrun: Run, tiny: str) -> None:
    done = ternrun("chat", "-m", tiny, "--system", "caf\udce9")
    assert (done.code, done.out) == (2, "")
    assert "--system is not UTF-8 text" in done.err


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, link = tmp_path / "kept.json", tmp_path / "link.json"
    talk = Conversation(messages=[{"role": "user", "content": "é \ud800"}])
    talk.save(str(kept))
    assert Conversation.load(str(kept)) == talk
    kept.chmod(0o600)
    link.symlink_to(kept)
    talk.messages[0]["content"] = "é"
    talk.save(str(link))
    assert link.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "é" in (before := kept.read_text(encoding="utf-8"))

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        talk.save(str(kept))
    assert kept.read_text(encoding="utf-8") == before
    assert set(tmp_path.iterdir()) == {kept, link}
