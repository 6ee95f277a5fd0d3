"""Who is let in, what happens when clients leave, when too many come, and when the server ends."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.errors import ConfigError, UsageError
from ternrun.server.app.run import listening
from ternrun.server.generation.models import ModelServices
from ternrun.server.generation.submission import Answers
from ternrun.server.http.unix_socket import UnixSocket
from ternrun.server.settings import ServerConfig, read_keys
from tests.server.serving import Server, running

CERTIFICATE = Path(__file__).parent / "localhost.pem"  # and its key, both for tests only
LONG: dict[str, Any] = {"prompt": "a", "max_tokens": 450, "ignore_eos": True, "stream": True}


def wait_for(what: Any) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def idle(server: Server) -> bool:
    return server.model.driver.engine.load == (0, 0) and not server.service.sequences


def send(server: Server, body: dict[str, Any], path: str = "/v1/completions") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    data = json.dumps(body).encode()
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    )
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_leave_give_their_places_back(
    server: Server, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    blocks, totals = server.model.driver.engine.cache.available, server.service.metrics.totals
    before = totals.generated
    for _ in range(20):
        connections = [send(server, LONG | {"stream": stream}) for _ in range(3)]
        if stream:
            assert connections[0].recv(1)
        for connection in connections:
            connection.close()
    wait_for(lambda: idle(server))
    assert server.model.driver.engine.cache.available == blocks
    assert server.service.answers == set()
    assert totals.generated - before < 20 * 3 * LONG["max_tokens"] / 2  # not run to their end for nobody
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_many_at_once_get_what_each_gets_alone(server: Server) -> None:
    prompts = [f"prompt number {i}" for i in range(12)]
    alone = [server.complete(p, max_tokens=20)["choices"][0]["text"] for p in prompts]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda p: server.complete(p, max_tokens=20)["choices"][0]["text"], prompts))
    assert together == alone


def test_a_full_queue_says_when_to_try_again(path: Path) -> None:
    with running(ServerConfig(port=0, queue=0), lambda: load(path, threads=1, max_batch=1)) as server:
        connection = send(server, LONG)
        wait_for(lambda: server.service.sequences)
        answer = server.ask("/v1/completions", {"prompt": "a"})
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert answer.json["error"]["code"] == "queue_full"
        assert server.ask("/slots?fail_on_no_slot=1").status == 503
        connection.close()
        wait_for(lambda: idle(server))
        assert len(server.complete(["a", "b"], max_tokens=1)["choices"]) == 2  # alone, it may be larger


@pytest.mark.cpu_backend  # the stream has to begin within 20 ms
def test_a_request_that_takes_too_long_is_ended(path: Path) -> None:
    with running(ServerConfig(port=0, timeout=0.02), lambda: load(path, threads=1)) as server:
        many = LONG | {"prompt": ["a", "b", "c", "d"]}
        answer = server.ask("/v1/completions", many | {"stream": False})
        assert (answer.status, answer.json["error"]["code"]) == (504, "timeout")
        assert server.ask("/v1/completions", many).events[-1]["error"]["code"] == "timeout"
        wait_for(lambda: idle(server))


def test_a_body_that_never_comes_is_given_up(path: Path) -> None:
    with (
        running(ServerConfig(port=0, stall=1), lambda: load(path, threads=1)) as server,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
    ):
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        assert b" 408 " in connection.recv(100)


def test_a_client_that_does_not_read_is_given_up(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(ServerConfig(port=0, stall=1), lambda: load(path, threads=1)) as server, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        data = json.dumps(LONG | {"n": 16, "logprobs": 100}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        slow.sendall(head.encode() + data)
        wait_for(lambda: server.service.answers)
        wait_for(lambda: idle(server))
        slow.settimeout(20)
        got = b""
        with suppress(ConnectionResetError):
            while chunk := slow.recv(1 << 20):
                got += chunk
        assert b"[DONE]" not in got
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_what_outlasts_the_drain_is_told(path: Path) -> None:
    with running(ServerConfig(port=0, drain=0), lambda: load(path, threads=1)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/v1/completions", json.dumps(LONG | {"n": 16, "logprobs": 20}))
        response = connection.getresponse()
        first = response.read(10)
    events = (first + response.read()).decode().split("\n\n")
    connection.close()
    assert events[-2:] == ["data: [DONE]", ""]
    assert json.loads(events[-3].removeprefix("data: "))["error"]["message"] == "the server is shutting down"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("route", "more"),
    [
        ("/v1/completions", {"prompt": "a", "logprobs": 1}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "verbose": True}),
        ("/v1/responses", {"input": "a"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "a"}]}),
        ("/completion", {"prompt": "a", "n_probs": 1}),
        ("/api/generate", {"prompt": "a"}),
    ],
)
def test_what_runs_when_the_server_ends_comes_to_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch, route: str, more: dict[str, Any], stream: bool
) -> None:
    submit = Answers.submit

    def last(answers: Answers) -> None:
        submit(answers)
        monkeypatch.setattr(server.service, "draining", True)

    monkeypatch.setattr(Answers, "submit", last)
    limit = {"/v1/responses": "max_output_tokens", "/v1/messages": "max_tokens"}.get(route, "n_predict")
    limited = {"options": {"num_predict": 5}} if route.startswith("/api/") else {limit: 5}
    answer = server.ask(route, more | limited | {"stream": stream})
    assert answer.status == 200
    assert b"shutting down" not in answer.body
    assert server.ask("/v1/completions", {"prompt": "a"}).status == 503


def test_it_listens_before_it_has_loaded(path: Path) -> None:
    with running(ServerConfig(port=0), lambda: load(path, threads=1), load=False) as server:
        answer = server.ask("/health")
        assert answer.status == 503
        error = answer.json["error"]
        assert (error["code"], error["message"], error["type"]) == (503, "Loading model", "unavailable_error")
        assert server.ask("/v1/completions", {"prompt": "a"}).status == 503


def test_keys(path: Path) -> None:
    config = ServerConfig(port=0, api_keys=("first-key", "second-key"))
    with running(config, lambda: load(path, threads=1)) as server:
        assert server.ask("/health").status == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "first-key"}, {"X_Api_Key": ""}):
            answer = server.ask("/v1/models", **headers)
            assert answer.status == 401
            assert answer.json["error"]["code"] == "invalid_api_key"
            assert b"first" not in answer.body
        for headers in ({"Authorization": "Bearer second-key"}, {"X_Api_Key": "first-key"}):
            assert server.ask("/v1/models", **headers).status == 200
        assert server.ask("/metrics").status == 401


def test_pages_of_other_origins_may_not_ask(path: Path, server: Server) -> None:
    body = {"prompt": "a", "max_tokens": 1}
    assert server.ask("/v1/completions", body, Origin="https://evil.example").status == 403
    assert server.ask("/v1/completions", body, Origin=server.url).status == 200
    assert server.ask("/v1/completions", body, Host="evil.example").status == 403
    assert "Access-Control-Allow-Origin" not in server.ask("/health").headers
    config = ServerConfig(port=0, cors=("https://good.example",), allow_hosts=("box.lan",))
    with running(config, lambda: load(path, threads=1)) as open_one:
        asked = {"Access_Control_Request_Headers": "authorization", "Origin": "https://good.example"}
        preflight = open_one.ask("/v1/completions", method="OPTIONS", **asked)
        assert preflight.status == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://good.example"
        assert preflight.headers["Access-Control-Allow-Headers"] == "authorization"
        answer = open_one.ask("/v1/completions", body | {"stream": True}, Origin="https://good.example")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://good.example"
        assert open_one.ask("/health", Origin="https://evil.example").status == 403
        assert open_one.ask("/health", Host="box.lan:1").status == 200


def test_a_unix_socket(path: Path, tmp_path: Path) -> None:
    place = tmp_path / "s"

    async def ask() -> bytes:
        async with listening(ModelServices(ServerConfig(unix_socket=str(place)), lambda: load(path, threads=1))) as (
            s,
            _,
        ):
            await s.load()
            reader, writer = await asyncio.open_unix_connection(str(place))
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer

    assert b"200 OK" in asyncio.run(ask())
    assert not place.exists()


def test_tls(path: Path) -> None:
    config = ServerConfig(port=0, certificate=str(CERTIFICATE))
    with running(config, lambda: load(path, threads=1)) as server:
        assert server.url.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=str(CERTIFICATE))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=trust, timeout=30)
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status": "ok"}'
        connection.close()


def test_a_certificate_that_is_none(path: Path) -> None:
    with Process(path, "--certificate", str(path)) as process:
        assert process.popen.wait(60) == 2
        process.reader.join()
        assert process.lines[-1].startswith(f"ternrun: error: {path} cannot be used as a certificate: ")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"port": 65536}, "port must be from 0 to 65535"),
        ({"api_keys": ("short",)}, "at least 8"),
        ({"api_keys": ("with space key",)}, "no space"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"private_key": "k.pem"}, "needs a certificate"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ServerConfig(**fields)


def test_key_files(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nkey-number-1\n\n key-number-2 \n")
    assert read_keys(str(file)) == ("key-number-1", "key-number-2")
    file.write_text("# none\n")
    with pytest.raises(UsageError, match="holds no API key"):
        read_keys(str(file))
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(str(tmp_path / "absent"))


@pytest.fixture(autouse=True)
def _hangups_are_heard() -> Iterator[None]:
    """Processes inherit which signals are ignored, as SIGHUP is where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Process:
    """`ternrun serve` as a user starts it."""

    def __init__(self, path: Path, *flags: str, **env: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "ternrun", "serve", "-m", str(path), "--port", "0", *flags]
        self.lines: list[str] = []
        self.popen = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | env)
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.popen.stderr or ()))
        self.reader.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.wait()
        self.reader.join()
        assert self.popen.stderr
        self.popen.stderr.close()

    def ready(self) -> http.client.HTTPConnection:
        wait_for(lambda: any("ready: " in line for line in self.lines))
        port = int(next(line for line in self.lines if "ready: " in line).rpartition(":")[2])
        return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_other_signals_let_a_stream_come_to_its_end_too(path: Path, number: signal.Signals) -> None:
    with Process(path, "--threads", "1") as process:
        connection = process.ready()
        connection.request("POST", "/v1/completions", json.dumps(LONG))
        response = connection.getresponse()
        first = response.read(1)
        process.popen.send_signal(number)
        if number == signal.SIGHUP:  # a terminal that closes may send it twice
            process.popen.send_signal(number)
        assert (first + response.read()).endswith(b"data: [DONE]\n\n")
        assert process.popen.wait(20) == 0
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_second_sigterm_ends_at_once(path: Path, number: signal.Signals) -> None:
    with Process(path, "--threads", "1", "--context-shift") as process:
        connection = process.ready()
        connection.request("POST", "/v1/completions", json.dumps(LONG | {"max_tokens": 100_000, "ignore_eos": True}))
        assert connection.getresponse().read(1)
        process.popen.send_signal(number)
        wait_for(lambda: any("shutting down" in line for line in process.lines))
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(5) == -signal.SIGTERM
        connection.close()


def test_sighup_stays_ignored_where_it_was(path: Path) -> None:
    """As by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Process(path, "--threads", "1") as process:
            connection = process.ready()
            process.popen.send_signal(signal.SIGHUP)
            connection.request("GET", "/health")
            assert connection.getresponse().status == 200
            connection.close()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_closes_cuts_no_answer(path: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "ternrun", "serve", "-m", str(path), "--port", "0", "--threads", "1"]
    popen = subprocess.Popen(command, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        shown = b""
        while b"ready: " not in shown:
            shown += os.read(ours, 1000)
        connection = http.client.HTTPConnection("127.0.0.1", int(shown.rpartition(b":")[2]), timeout=30)
        connection.request("POST", "/v1/completions", json.dumps(LONG))
        response = connection.getresponse()
        first = response.read(1)
        os.close(ours)  # what it writes from here on is an error
        popen.send_signal(signal.SIGHUP)
        assert (first + response.read()).endswith(b"data: [DONE]\n\n")
        connection.close()
        assert popen.wait(20) == 0
    finally:
        popen.kill()
        popen.wait()


def test_a_unix_socket_in_use_is_left_alone(path: Path, tmp_path: Path) -> None:
    place = tmp_path / "s"
    with Process(path, "--unix-socket", str(place)) as first:
        wait_for(lambda: any("ready: " in line for line in first.lines))
        with Process(path, "--unix-socket", str(place)) as second:
            assert second.popen.wait(60) == 2
            second.reader.join()
            says = f"{place} is in use by another server: stop that one, or choose another --unix-socket"
            assert second.lines == [f"ternrun: error: {says}\n"]
        assert b"200 OK" in over(place)
        first.popen.kill()
        first.popen.wait()
        assert place.is_socket()
    with Process(path, "--unix-socket", str(place)) as third:  # in place of what the first left
        wait_for(lambda: any("ready: " in line for line in third.lines))
        assert b"200 OK" in over(place)
        third.popen.terminate()
        assert third.popen.wait(20) == 0
        assert not place.exists()


def over(place: Path) -> bytes:
    """What a server on a unix socket says of its health."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place))
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(1000), b""))


def test_only_the_own_socket_is_removed(path: Path, tmp_path: Path) -> None:
    place = tmp_path / "s"
    with Process(path, "--unix-socket", str(place)) as first:
        wait_for(lambda: any("ready: " in line for line in first.lines))
        place.unlink()
        with Process(path, "--unix-socket", str(place)) as second:
            wait_for(lambda: any("ready: " in line for line in second.lines))
            first.popen.terminate()
            assert first.popen.wait(20) == 0
            assert b"200 OK" in over(place)


def test_a_socket_that_never_answers_is_in_use_and_a_file_is_no_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(tmp_path / "busy"))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(tmp_path / "busy"))  # its queue is full
            with pytest.raises(UsageError, match="in use by another server"):
                UnixSocket(str(tmp_path / "busy"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "datagrams"))
        with pytest.raises(UsageError, match="in use by another server"):
            UnixSocket(str(tmp_path / "datagrams"))
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="exists and is no socket"):
        UnixSocket(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("place", "says"), [("absent/s", os.strerror(errno.ENOENT)), ("x" * 200, "AF_UNIX path too long")]
)
def test_a_unix_socket_that_cannot_be(path: Path, tmp_path: Path, place: str, says: str) -> None:
    with Process(path, "--unix-socket", str(tmp_path / place)) as process:
        assert process.popen.wait(60) == 2
        process.reader.join()
        assert process.lines == [f"ternrun: error: {tmp_path / place} cannot be listened on: {says}\n"]


def test_sigterm_lets_a_stream_come_to_its_end(path: Path) -> None:
    with Process(path, "--threads", "1", TERNRUN_API_KEYS="secret-key") as process:
        connection = process.ready()
        body = json.dumps(LONG | {"prompt": "nobody's business"})
        connection.request("GET", "/health")  # which the log leaves out
        assert connection.getresponse().read()
        connection.request("POST", "/v1/completions", body, {"Authorization": "Bearer secret-key"})
        response = connection.getresponse()
        first = response.read(1)
        process.popen.send_signal(signal.SIGTERM)
        assert (first + response.read()).endswith(b"data: [DONE]\n\n")
        assert process.popen.wait(20) == 0
        connection.close()
        process.reader.join()
        log = [json.loads(line) for line in process.lines if line.startswith("{")]
        assert [(entry["path"], entry["status"], entry["prompt_tokens"]) for entry in log] == [
            ("/v1/completions", 200, len("nobody's business"))
        ]
        assert "business" not in "".join(process.lines)
        assert "secret" not in "".join(process.lines)


def test_a_model_that_cannot_be_loaded_ends_it(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    with Process(tmp_path / "bad.gguf") as process:
        assert process.popen.wait(60) == 2
        process.reader.join()
        assert len(process.lines) == 1  # not "listening" first
        assert process.lines[-1].startswith("ternrun: error: ")


def test_a_host_without_an_address_is_one_sentence(path: Path) -> None:
    with Process(path, "--port", "0", "--host", "nosuch.invalid") as process:
        assert process.popen.wait(60) == 2
        process.reader.join()
        says = "nosuch.invalid:0 cannot be listened on: no address is known for 'nosuch.invalid'"
        assert process.lines[-1] == f"ternrun: error: {says}\n"


def test_a_port_that_is_taken_is_one_sentence(server: Server, path: Path) -> None:
    with Process(path, "--port", str(server.port)) as process:
        assert process.popen.wait(60) == 2
        process.reader.join()
        says = f"127.0.0.1:{server.port} is in use by another program: choose another --port (0: any that is free)"
        assert process.lines == [f"ternrun: error: {says}\n"]
