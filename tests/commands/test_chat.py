"""`ternrun chat`: what is asked of the model, what is printed where, and what the user's commands do."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.commands.conftest import TEMPLATE
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import Server, running

Talk = Callable[..., Any]
N = ("-n", "8", "--temp", "0", "--ignore-eos")


@pytest.fixture
def talk(ternrun: Talk, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Run `ternrun chat` with these lines on standard input."""

    def run(lines: list[str], *argv: str | Path) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
        return ternrun("chat", *argv)

    return run


@pytest.fixture(scope="module")
def server(tiny: str) -> Iterator[Server]:
    config = ServerConfig(port=0, api_keys=("the-right-key",))
    with running(config, lambda: load(tiny, threads=1)) as it:
        yield it


def expected(tiny: str, lines: list[str], **sampling: Any) -> list[str]:
    """The same conversation through the Python API."""
    messages: list[dict[str, str]] = []
    answers = []
    with load(tiny, threads=1) as model:
        for line in lines:
            messages.append({"role": "user", "content": line})
            answers.append(model.chat(messages, ignore_eos=True, **sampling).text)
            messages.append({"role": "assistant", "content": answers[-1]})
    return answers


def ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def test_a_pipe_gets_the_answers_alone(talk: Talk, tiny: str) -> None:
    answers = expected(tiny, ["hello", "and now?"], max_tokens=8)
    done = talk(["hello", "", "and now?"], "-m", tiny, *N)
    assert (done.code, done.err) == (0, "")
    assert done.out == "".join(map(ended, answers))


def test_lines_may_go_on(talk: Talk, tiny: str) -> None:
    (answer,) = expected(tiny, ["one\ntwo"], max_tokens=8)
    assert talk(["one\\", "two"], "-m", tiny, *N).out == ended(answer)


def test_a_server_answers_as_the_file_does(
    talk: Talk, tiny: str, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = ["hello", "and now?", "/retry"]
    alone = talk(lines, "-m", tiny, *N)
    keys = tmp_path / "keys"
    keys.write_text("the-right-key\n")
    assert talk(lines, "--url", server.url, "--api-key-file", keys, *N).out == alone.out
    monkeypatch.setenv("TERNRUN_API_KEY", "the-right-key")
    assert talk(lines, "--url", server.url + "/v1/", "-m", "any", *N).out == alone.out
    plain = ["a text", "goes on"]
    assert talk(plain, "--url", server.url, "--plain", *N).out == talk(plain, "-m", tiny, "--plain", *N).out


def test_what_a_server_refuses_is_told_on_one_line(talk: Talk, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    done = talk(["hello"], "--url", server.url)
    assert (done.code, done.out) == (2, "")
    assert (
        done.err == f"ternrun: error: {server.url}/v1 answers: a valid API key is needed: Authorization: Bearer KEY\n"
    )
    monkeypatch.setenv("TERNRUN_API_KEY", "the-right-key")
    done = talk(["x" * 600], "--url", server.url)
    assert done.code == 2
    assert "answers: the prompt has" in done.err


def test_settings_and_stats(talk: Talk, tiny: str) -> None:
    lines = ["/set max-tokens 3", "/set ignore_eos true", "/set temperature 0", "/set", "hello", "/stats"]
    done = talk(lines, "-m", tiny)
    (answer,) = expected(tiny, ["hello"], max_tokens=3)
    assert done.out == ended(answer)
    assert '{"max_tokens": 3, "ignore_eos": true, "temperature": 0.0}\n' in done.err
    assert "answer: 3 tokens" in done.err
    assert talk([*lines[:4], "/set max_tokens", "/set"], "-m", tiny).err.endswith(
        '{"ignore_eos": true, "temperature": 0.0}\n'
    )


def test_system_undo_save_and_load(talk: Talk, tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    lines = ["hello", "again", "/undo", "/system be brief", f"/save {file}"]
    answer = talk(lines, "-m", tiny, *N).out[:1]
    kept = json.loads(file.read_text())["messages"]
    assert [m["role"] for m in kept] == ["system", "user", "assistant"]
    assert kept[0]["content"] == "be brief"
    assert kept[2]["content"].startswith(answer)
    with load(tiny, threads=1) as model:
        more = [*kept, {"role": "user", "content": "more"}]
        follows = model.chat(more, max_tokens=8, ignore_eos=True).text
    assert talk([f"/load {file}", "more"], "-m", tiny, *N).out == ended(follows)
    assert talk(["more"], "-m", tiny, "--load", file, *N).out == ended(follows)
    shown = talk(["/show", "/clear", "/show", "/system -", "/system", "/exit", "never"], "-m", tiny, "--load", file)
    assert shown.err.count("system: be brief") == 2
    assert "there is no system message" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["/what"], "there is no command /what"),
        (["/retry"], "nothing to answer"),
        (["/undo"], "nothing to take back"),
        (["/stats"], "nothing was answered"),
        (["/set wisdom 1"], "there is no setting 'wisdom'"),
        (["/set temperature -1"], "temperature must be"),
        (["/set ignore_eos 1"], "true or false"),
        (["/save"], "where to?"),
        (["/load"], "from where?"),
        (["/load nowhere.json"], "No such file"),
        (["x" * 600], "/undo takes the last message back"),
    ],
)
def test_mistakes_are_one_sentence(talk: Talk, tiny: str, lines: list[str], says: str) -> None:
    done = talk(lines, "-m", tiny)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["[", "{}", "[1]", '[{"role": "user"}]', '[{"role": "tool", "content": ""}]', "[" * 100000]
)
def test_files_that_hold_no_conversation(talk: Talk, tiny: str, tmp_path: Path, text: str) -> None:
    file = tmp_path / "talk.json"
    file.write_text(text)
    done = talk(["a"], "-m", tiny, "--load", file)
    assert (done.code, done.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--plain", "--system", "a"), "--system belongs to a chat"),
        (("--url", "ftp://x"), "is no address of a server"),
        (("--url", "http://127.0.0.1:1"), "cannot be reached"),
        (("--url", "http://a", "--threads", "1"), "takes no flags of the engine"),
        (("--url", "http://a", "--chat-template", "chatml"), "has the chat template of its model"),
        (("--chat-template-file", "/nowhere"), "the chat template in /nowhere cannot be read"),
        (("--api-key-file", "k"), "needs --url"),
    ],
)
def test_flags_that_cannot_be(talk: Talk, argv: tuple[str, ...], says: str) -> None:
    done = talk([], *argv)
    assert done.code == 2
    assert says in done.err


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(fake_gguf(tmp_path_factory.mktemp("model") / "plain.gguf", fake_weights()))


def test_a_model_that_cannot_chat_says_so(talk: Talk, untaught: str) -> None:
    done = talk(["a"], "-m", untaught)
    assert done.code == 2
    assert done.err.endswith("has no chat template: it can only continue a text; --plain lets it do that\n")
    with load(untaught, threads=1) as model:
        first = model.complete("a", max_tokens=8, ignore_eos=True).text
        second = model.complete(
            f"a{first}" + ("" if first.endswith("\n") else "\n") + "b", max_tokens=8, ignore_eos=True
        )
    assert talk(["a", "b"], "-m", untaught, "--plain", *N).out == ended(first) + ended(second.text)


class Liar(BaseHTTPRequestHandler):
    """A server that sends what it was told to."""

    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def lying(answer: bytes) -> Iterator[str]:
    handler = type("Handler", (Liar,), {"answer": answer})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


OK = b"HTTP/1.0 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "cannot be reached"),
        (b"what\r\n\r\n", "cannot be reached"),
        (b"HTTP/1.0 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", "302"),
        (b"HTTP/1.0 500 Oh\r\n\r\n<html>", "500 Oh"),
        (b'HTTP/1.0 400 No\r\n\r\n{"error": {"message": "not\\nso"}}', "answers: not so"),
        (OK, "broke off"),
        (OK + b"data: {}\n\n", "broke off"),
        (OK + b"data: [\n\n", "no event of a completion"),
        (OK + b"data: []\n\n", "no event of a completion"),
        (OK + b'data: {"choices": [1]}\n\n', "no event of a completion"),
        (OK + b"data: " + b"[" * 100000 + b"\n\n", "no event of a completion"),
        (OK + b'data: {"error": {"message": "out of luck"}}\n\n', "answers: out of luck"),
    ],
)
def test_servers_that_lie(talk: Talk, answer: bytes, says: str) -> None:
    with lying(answer) as url:
        done = talk(["hello"], "--url", url, "-m", "any")
    assert (done.code, done.out.strip()) == (2, "")
    assert says in done.err
    assert done.err.count("\n") == 1


class Terminal:
    """`ternrun chat` on a pseudo terminal."""

    def __init__(self, *argv: str) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "ternrun", "chat", *argv]
        environment = os.environ | {"TERM": "xterm", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def wait(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_on(self, length: int) -> None:
        """Until so much more was written."""
        while len(self.seen) < length:
            self.seen += os.read(self.master, 4096).decode(errors="replace")

    def interrupt(self, text: str) -> None:
        """Ctrl-C until it is answered: readline misses one that comes just before it waits for a key."""
        for _ in range(60):
            self.process.send_signal(signal.SIGINT)
            with suppress(AssertionError):
                return self.wait(text, seconds=1)
        raise AssertionError(self.seen)


def test_a_terminal(tmp_path: Path) -> None:
    weights = fake_weights("llama", context_length=100_000)  # longer than any machine needs to hear a signal
    model = fake_gguf(tmp_path / "long.gguf", weights, tokenizer__chat_template=TEMPLATE)
    file, history = tmp_path / "talk.json", tmp_path / "history"
    terminal = Terminal(
        "-m", str(model), "-c", "100000", "--ignore-eos", "--temp", "0", "--threads", "1", "--history", str(history)
    )
    try:
        terminal.wait("/help lists the commands")
        terminal.wait("> ")
        terminal.type("hello\n")
        terminal.wait("hello")
        terminal.read_on(40)
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait("(stopped; Ctrl-C again, Ctrl-D or /exit leaves)")
        terminal.wait("> ")
        terminal.type("/what\n")
        terminal.wait("there is no command /what")
        terminal.wait("> ")
        terminal.interrupt("Ctrl-C again, Ctrl-D or /exit leaves")
        terminal.wait("> ")
        terminal.type(f"/sav\t{file}\n")  # completed by the tab key
        terminal.wait("2 messages written")
        terminal.wait("> ")  # only then is Ctrl-D a key
        terminal.type("\x04")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)
    said = json.loads(file.read_text())["messages"]
    assert [m["role"] for m in said] == ["user", "assistant"]
    assert 0 < len(said[1]["content"]) < 100_000
    assert history.read_text().splitlines()[:2] == ["hello", "/what"]
    assert history.stat().st_mode & 0o77 == 0
