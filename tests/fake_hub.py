"""A Hugging Face hub on loopback that can cut a download short, lie, and refuse."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """Serves `files`; after `cut` bytes a response ends early, and later requests are answered with `down`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.digests: dict[str, str] = {}
        self.cut: int | None = None
        self.down: int | None = None
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/me/model"):
            siblings = [
                {"rfilename": name, "size": len(data), "blobId": "b" * 40,
                 "lfs": {"sha256": self.server.digests.get(name) or hashlib.sha256(data).hexdigest(),
                         "size": len(data), "pointerSize": 130}}
                for name, data in self.server.files.items()
            ]  # fmt: skip
            self.answer(200, json.dumps({"id": "me/model", "sha": COMMIT, "siblings": siblings}).encode())
        elif match := re.fullmatch(rf"/me/model/resolve/{COMMIT}/(.+)", self.path):
            self.send_file(self.server.files[unquote(match[1])])
        else:
            self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def send_file(self, data: bytes) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        if self.server.down:
            self.answer(self.server.down, b"busy")
            return
        start = int(m[1]) if (m := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.server.cut is not None:
            self.wfile.write(data[start : start + self.server.cut])
            self.server.down, self.server.cut = 503, None
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(data[start:])

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that runs until the block ends."""
    with FakeHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
