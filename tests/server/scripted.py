"""A server that answers the page's requests with texts that a test has written: what a model says by chance is no test.

It serves the page's own files, under a path of its own, as behind a reverse proxy.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ternrun.server.app.page import _HEADERS, _files

PREFIX = "/models/tern/"


@dataclass
class Script:
    """What the next answers are. `pieces` are streamed, then the answer ends as `reason` says."""

    pieces: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    reason: str | None = "stop"  # None: the connection breaks off
    status: int = 200
    message: str = ""
    pause: float = 0.0  # seconds before each piece
    hold: threading.Event = field(default_factory=threading.Event)  # waited for at the end, if it is not set
    template: str = "a template"
    models: tuple[str, ...] = ("scripted",)
    defaults: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.35, "top_k": 17})
    used: int = 50
    asked: list[Any] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self.hold.set()


class _Handler(BaseHTTPRequestHandler):
    script: Script

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def send(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, value: Any, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode())

    def do_GET(self) -> None:
        path, script = self.path.partition("?")[0].removeprefix(PREFIX), self.script
        names = {name: {"default": value} for name, value in script.defaults.items()}
        schema = {"requestBody": {"content": {"application/json": {"schema": {"properties": names}}}}}
        answers = {
            "health": {"status": "ok"},
            "v1/models": {"data": [{"id": name} for name in script.models]},
            "props": {"default_generation_settings": {"n_ctx": 2048}, "chat_template": script.template},
            "openapi.json": {"paths": {"/v1/chat/completions": {"post": schema}}},
        }
        file = _files().get("index.html" if path == "" else path.removeprefix("page/"))
        if path in answers:
            self.json(answers[path])
        elif file and self.path.startswith(PREFIX):
            self.send(200, file.body, file.type, **_HEADERS)
        else:
            self.json({}, 404)

    def do_POST(self) -> None:
        script = self.script
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script.asked.append(body)
        if script.status != 200:
            self.json({"error": {"message": script.message}}, script.status)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        chat = "messages" in body
        for kind, text in [
            *(("reasoning_content", t) for t in script.thoughts),
            *(("content", t) for t in script.pieces),
        ]:
            time.sleep(script.pause)
            self.event([{"delta": {kind: text}} if chat else {"text": text}])
        script.hold.wait(30)
        if script.reason:
            self.event([{"delta": {}, "text": "", "finish_reason": script.reason}])
            self.event([], usage={"completion_tokens": len(script.pieces), "total_tokens": script.used})
            self.wfile.write(b"data: [DONE]\n\n")

    def event(self, choices: list[Any], **more: Any) -> None:
        self.wfile.write(f"data: {json.dumps({'choices': choices, **more})}\n\n".encode())


@contextmanager
def scripted(port: int = 0) -> Iterator[Script]:
    """Such a server on loopback; `port` 0 is any that is free."""
    script = Script()
    handler = type("Handler", (_Handler,), {"script": script})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        script.url = f"http://127.0.0.1:{server.server_port}{PREFIX}"
        thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
        thread.start()
        try:
            yield script
        finally:
            script.hold.set()
            server.shutdown()
            thread.join()
