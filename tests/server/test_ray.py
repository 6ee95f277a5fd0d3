"""The example that scales out, with two replicas on this machine. Left out where Ray is not installed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from tests.server.serving import Answer

pytestmark = pytest.mark.skipif(not find_spec("ray"), reason="ray is missing: pip install 'ternrun[ray]'")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def port(path: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "examples/ray_serve.py"), str(path), "2", str(port)]
    paths = os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, start_new_session=True)
    try:
        for _ in range(600):
            assert process.poll() is None
            with suppress(OSError):
                if ask(port, "/health").status == 200:
                    break
            time.sleep(0.2)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def ask(port: int, path: str, body: Any = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body))
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def test_two_replicas_give_the_same_answers(port: int, path: Path) -> None:
    asked = {"prompt": "hello", "max_tokens": 8, "temperature": 0}
    with load(path, threads=1) as model:
        text = model.complete("hello", max_tokens=8).text
    answers = [ask(port, "/v1/completions", asked) for _ in range(16)]
    assert [answer.json["choices"][0]["text"] for answer in answers] == [text] * 16
    assert len({{**{k.lower(): v for k, v in a.headers.items()}}["x-replica"] for a in answers}) == 2
    streamed = ask(port, "/v1/completions", asked | {"stream": True})
    assert "".join(event["choices"][0]["text"] for event in streamed.events) == text
    refused = ask(port, "/v1/completions", {"prompt": "a", "use_beam_search": True})
    assert (refused.status, refused.json["error"]["param"]) == (400, "use_beam_search")
    assert ask(port, "/v1/models").json["data"][0]["id"] == "tiny"
