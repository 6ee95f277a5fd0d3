"""No command writes over a file that is there unless --force asks for it; the trainer's stand in tests/train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ternrun.commands.chat.conversation import Conversation
from ternrun.errors import UsageError
from ternrun.loader.hub import download
from tests.fake_hub import fake_hub

Run = Callable[..., Any]
WRITING: dict[str, tuple[str, list[str]]] = {  # what is written, and the command line for it
    "convert": ("out.gguf", ["convert", "MODEL", "out.gguf", "--type", "f32"]),
    "bench": ("plot.svg", ["bench", "-m", "MODEL", "--work", "pp8", "--runs", "1", "--plot", "plot.svg"]),
}


@pytest.mark.parametrize("command", WRITING)
def test_a_file_that_is_there_stays_without_force(
    command: str, ternrun: Run, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, words = WRITING[command]
    words = [tiny if word == "MODEL" else word for word in words]
    (tmp_path / name).write_bytes(b"precious")
    done = ternrun(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"ternrun: error: {name} is there already; --force writes over it\n"
    assert (tmp_path / name).read_bytes() == b"precious"
    assert ternrun(*words, "--force").code == 0
    assert (tmp_path / name).read_bytes() != b"precious"


def test_pull_takes_what_is_right_and_writes_over_another_file_by_force(tmp_path: Path) -> None:
    with fake_hub() as server:
        server.files = {"m.gguf": b"right" * 100}
        (tmp_path / "m.gguf").write_bytes(b"precious")
        with pytest.raises(UsageError, match="is there already, but is not what me/model has; --force writes over it"):
            download.pull("me/model", to=tmp_path, endpoint=server.url)
        assert (tmp_path / "m.gguf").read_bytes() == b"precious"
        download.pull("me/model", to=tmp_path, endpoint=server.url, force=True)
        assert (tmp_path / "m.gguf").read_bytes() == b"right" * 100
        download.pull("me/model", to=tmp_path, endpoint=server.url)  # the identical file is no obstacle


def test_a_conversation_is_saved_over_its_own_file_alone(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.json", tmp_path / "other.json"
    other.write_text("precious")
    talk = Conversation(messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(UsageError, match=r"is there already; /save .*other.json --force writes over it"):
        talk.save(str(other))
    assert other.read_text() == "precious"
    talk.save(str(mine))
    talk.add("assistant", "hello")
    talk.save(str(mine))
    again = Conversation.load(str(mine))
    again.add("user", "more")
    again.save(str(mine))
    assert len(json.loads(mine.read_text())["messages"]) == 3
    talk.save(str(other), force=True)
    assert len(json.loads(other.read_text())["messages"]) == 2


def test_save_with_force_is_a_line_of_the_chat(
    ternrun: Run, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    kept = tmp_path / "kept.json"
    kept.write_text("precious")
    for line, code in ((f"/save {kept}", "precious"), (f"/save {kept} --force", '{"messages"')):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{line}\n".encode()), encoding="utf-8"))
        ternrun("chat", "-m", tiny)
        assert kept.read_text().replace("\n ", "").startswith(code)
