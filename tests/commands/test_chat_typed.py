"""`ternrun chat`: messages of several lines, other programs' commands, going on, and the history."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.commands.chat.history import History
from ternrun.commands.chat.message import read_message
from ternrun.server.settings import ServerConfig
from tests.commands.conftest import TEMPLATE
from tests.commands.test_chat import Terminal
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import running

Run = Callable[..., Any]
GREEDY = ("--temperature", "0", "--ignore-eos")


@pytest.fixture
def talk(ternrun: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `ternrun chat` with these lines on standard input."""

    def run(lines: list[str], *argv: str | Path) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
        return ternrun("chat", *argv)

    return run


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], "one"),
        (["one\\", "two"], "one\ntwo"),
        (["one\\"], "one"),
        (['"""one', "", 'two"""'], "one\n\ntwo"),
        (['"""', "  one", "two", '"""'], "  one\ntwo"),
        (['"""one"""'], "one"),
        (['"""', "the end of input"], "the end of input"),
        (['"""', "a\\", '"""'], "a\\"),
        (['/set system """You are', 'terse."""'], "/set system You are\nterse."),
        (['say """no block'], 'say """no block'),
    ],
)
def test_a_message_of_several_lines(lines: list[str], message: str) -> None:
    left = iter(lines)
    begun: list[bool] = []

    def ask(more: bool) -> str:
        begun.append(more)
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    assert read_message(ask) == message
    assert begun == [False, *[True] * (len(begun) - 1)]
    with pytest.raises(EOFError):
        read_message(ask)


@pytest.mark.parametrize("word", ["/bye", "/exit", "/quit", "/q", "/BYE", " /bye".strip()])
def test_every_way_to_leave(talk: Run, tiny: str, word: str) -> None:
    done = talk([word, "never said"], "-m", tiny)
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("word", ["/?", "/help", "/h"])
def test_every_way_to_help(talk: Run, tiny: str, word: str) -> None:
    done = talk([word], "-m", tiny)
    assert done.code == 0
    for name in ("/regen", "/bye", "/set", "/save", "/undo", "/more", '"""', "Ctrl-C"):
        assert name in done.err


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("/set parameter temperature 0.2", {"temperature": 0.2}),
        ("/set temp 0.2", {"temperature": 0.2}),
        ("/set --temperature 0.2", {"temperature": 0.2}),
        ("/set parameter num_predict 7", {"max_tokens": 7}),
        ("/set n 7", {"max_tokens": 7}),
        ("/set parameter stop END", {"stop": ["END"]}),
        ("/set top-k 3", {"top_k": 3}),
    ],
)
def test_settings_by_any_name(talk: Run, tiny: str, line: str, kept: dict[str, Any]) -> None:
    assert json.loads(talk([line, "/show parameters"], "-m", tiny).err) == kept


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/regenrate", "did you mean /regenerate?"),
        ("/hlep", "did you mean /help?"),
        ("/set temprature 1", "did you mean 'temperature'?"),
        ("/set parameter num_ctx 4096", "num_ctx is decided at the start: ternrun chat -c N"),
        ("/more", "there is no answer yet that could go on"),
        ("/show nothing", "/show info | parameters | system"),
    ],
)
def test_what_is_meant_is_said(talk: Run, tiny: str, line: str, says: str) -> None:
    done = talk([line], "-m", tiny)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert says in done.err


def test_system_by_set_and_verbose(talk: Run, tiny: str) -> None:
    done = talk(["/set system be brief", "/show system", "/set verbose", "hello", "/show info"], "-m", tiny, "-n", "2")
    assert "be brief\n" in done.err
    assert "first text after" in done.err


def test_a_cut_answer_goes_on_in_a_file_and_on_a_server(talk: Run, tiny: str, tmp_path: Path) -> None:
    near, far = tmp_path / "near.json", tmp_path / "far.json"
    lines = ["hello", "/more", "/continue"]
    assert talk([*lines, f"/save {near}"], "-m", tiny, "-n", "2", *GREEDY).code == 0
    with load(tiny, threads=1) as model:
        assert model.chat_template is not None
        prompt, said = model.chat_template.render([{"role": "user", "content": "hello"}]), ""
        for _ in lines:
            said += model.complete(prompt + said, max_tokens=2, temperature=0, ignore_eos=True).text
    assert [message["content"] for message in json.loads(near.read_text())["messages"]] == ["hello", said]
    with running(ServerConfig(port=0), lambda: load(tiny, threads=1)) as server:
        assert talk([*lines, f"/save {far}"], "--url", server.url, "-n", "2", *GREEDY).code == 0
    assert far.read_text() == near.read_text()


def test_an_answer_is_as_long_as_the_context(talk: Run, tiny: str) -> None:
    short = talk(["hello"], "-m", tiny, "-n", "200", *GREEDY).out
    assert len(talk(["hello"], "-m", tiny, *GREEDY).out) > len(short)


@contextmanager
def conversation(model: Path, **environment: str) -> Iterator[Terminal]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        terminal = Terminal("-m", str(model), "--ignore-eos", "--temperature", "0", "--threads", "1", "-n", "3")
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        terminal.wait("/help lists the commands")
        terminal.wait("> ")
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


def test_a_terminal_keeps_its_lines_and_says_why_an_answer_ended(tmp_path: Path) -> None:
    model = fake_gguf(tmp_path / "tiny.gguf", fake_weights(), tokenizer__chat_template=TEMPLATE)
    with conversation(model, XDG_STATE_HOME=str(tmp_path / "state")) as terminal:
        terminal.type('"""first\nsecond"""\n')
        terminal.wait("(cut at 3 tokens: /more goes on")
        terminal.wait("> ")
        terminal.interrupt("Ctrl-C again, Ctrl-D or /exit leaves")
        terminal.wait("> ")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(20) == 0
    kept = tmp_path / "state/ternrun/chat_history"
    assert kept.read_text().splitlines() == ['"""first', 'second"""']
    assert kept.stat().st_mode & 0o77 == 0
    with conversation(model, XDG_STATE_HOME=str(tmp_path / "state")) as terminal:
        terminal.type("/set nohistory\n")
        terminal.wait("> ")
        terminal.type("a secret\n")
        terminal.wait("> ")
        terminal.type("\x1b[A")  # the arrow up
        terminal.wait("/set nohistory")
        terminal.type("\x15/bye\n")
        assert terminal.process.wait(20) == 0
    assert "a secret" not in kept.read_text()
    assert kept.read_text().splitlines()[:2] == ['"""first', 'second"""']


def test_lines_that_are_pasted_together_are_one_message(tmp_path: Path) -> None:
    model = fake_gguf(tmp_path / "tiny.gguf", fake_weights(), tokenizer__chat_template=TEMPLATE)
    file = tmp_path / "talk.json"
    with conversation(model, TERNRUN_HISTORY="") as terminal:
        terminal.type("\x1b[200~one\ntwo\x1b[201~\n")
        terminal.wait("(cut at 3 tokens")
        terminal.wait("> ")
        terminal.type(f"/save {file}\n")
        terminal.wait("2 messages written")
    assert json.loads(file.read_text())["messages"][0]["content"] == "one\ntwo"


def test_where_the_history_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("TERNRUN_HISTORY", raising=False)
    assert History().file == tmp_path / "ternrun/chat_history"
    assert History(str(tmp_path / "mine")).file == tmp_path / "mine"
    monkeypatch.setenv("TERNRUN_HISTORY", str(tmp_path / "named"))
    assert History().file == tmp_path / "named"
    monkeypatch.setenv("TERNRUN_HISTORY", "")
    assert History().file is None
    monkeypatch.delenv("TERNRUN_HISTORY")
    (tmp_path / "ternrun").write_text("no folder")  # the default cannot be written: nothing is kept, nothing is said
    History().write()
