"""`ternrun list` and `ps`: what is on this machine, and what a server has."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ternrun.loader.hub.local_models import Download, downloads, models_folder, remember
from tests.commands.conftest import Done
from tests.fakes import fake_gguf, fake_weights

Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TERNRUN_MODELS", str(tmp_path / "models"))


def test_models_are_listed_once_with_what_runs_them(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    fake_gguf(Path("plain.gguf"), fake_weights("qwen2", "TQ1_0"))
    Path("broken.gguf").write_text("nothing")
    remember(Download("me/chat", "c.gguf", tiny))
    remember(Download("me/gone", "g.gguf", str(tmp_path / "gone.gguf")))
    found = {one["name"]: one for one in json.loads(ternrun("list", "--json").out)}
    assert list(found) == ["code-9m", "broken.gguf", "plain.gguf", "hf:me/chat/c.gguf"]
    assert found["plain.gguf"]["runs"] == ["complete", "serve"]
    assert (found["plain.gguf"]["type"], found["plain.gguf"]["architecture"]) == ("TQ1_0", "qwen2")
    assert found["plain.gguf"]["bytes"] == Path("plain.gguf").stat().st_size
    assert found["hf:me/chat/c.gguf"]["runs"] == ["complete", "chat", "serve"]
    assert found["broken.gguf"]["runs"] == []
    assert "broken.gguf" in found["broken.gguf"]["refusal"]
    lines = ternrun("list").out.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "TYPE", "ARCHITECTURE", "RUNS", "WITH"]
    assert [line.split()[0] for line in lines[1:]] == list(found)
    for name in found:
        assert ternrun("inspect", name).code == (2 if name == "broken.gguf" else 0)


def test_a_damaged_list_of_downloads_is_no_fault(ternrun: Run, tiny: str) -> None:
    remember(Download("me/chat", "c.gguf", tiny))
    with (models_folder() / "downloads.jsonl").open("a") as file:
        file.write('{"repo": 1}\nnonsense\n[]\n')
    assert [one.repo for one in downloads()] == ["me/chat"]
    assert ternrun("list").code == 0


def test_a_list_that_cannot_be_written_is_no_fault(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERNRUN_MODELS", "/dev/null/models")
    remember(Download("me/chat", "c.gguf", tiny))
    assert downloads() == []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {"/api/ps": b'{"models": [{"name": "tiny", "size": 4000}]}', "/odd/api/ps": b"[]"}
        body = answers.get(self.path, b"")
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_ps_asks_a_server(ternrun: Run, server: str) -> None:
    assert ternrun("ps", "--url", server).out == "MODEL  SIZE\ntiny   4.0 kB\n"
    assert json.loads(ternrun("ps", "--url", f"{server}/", "--json").out)["models"][0]["name"] == "tiny"
    assert "answered 404" in ternrun("ps", "--url", f"{server}/none").err
    assert "something other than a list" in ternrun("ps", "--url", f"{server}/odd").err
