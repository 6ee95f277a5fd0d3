"""Clients that lie, stall or vanish: each gets what it deserves, and the others notice nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp.http_parser import DeflateBuffer

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.server.clients import JSON, ask, connected, crawl, head, post, send, vanish
from tests.server.serving import Server, running
from tests.server.test_serving import LONG, Process, idle, wait_for

PATH = "/v1/completions"
BODY = json.dumps({"prompt": "hello", "max_tokens": 1}).encode()
CHUNKED = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{JSON}\r\n".encode()


@pytest.fixture(scope="module")
def hasty(path: Path) -> Any:
    """A server that waits a second for nobody."""
    with running(ServerConfig(port=0, stall=1), lambda: load(path, threads=1)) as it:
        yield it


def test_two_hundred_clients_vanish(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    blocks = server.model.driver.engine.cache.available
    rng = random.Random(1)

    async def crowd() -> None:
        for _ in range(5):
            await asyncio.gather(
                *(vanish(server.port, LONG, rng.randrange(0, 2000), rng.random() < 0.5) for _ in range(40))
            )

    asyncio.run(crowd())
    wait_for(lambda: idle(server))
    assert server.model.driver.engine.cache.available == blocks
    assert server.service.answers == set()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert server.complete("hello", max_tokens=3)["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(PATH, len(BODY) + 9) + BODY, None),  # ends before what it promised
        (head(PATH, len(BODY) - 9) + BODY, 400),  # goes on after it
        (head(PATH, "-1") + BODY, 400),
        (head(PATH, "1e3") + BODY, 400),
        (head(PATH, 10**15) + BODY, 413),
        (head(PATH, len(BODY), f"Content-Length: 1\r\n{JSON}") + BODY, 400),
        (head(PATH, len(BODY), f"Transfer-Encoding: chunked\r\n{JSON}") + BODY, 400),
        (CHUNKED + b"zz\r\n" + BODY, 400),
        (CHUNKED + b"ffffffffffffffff\r\n" + BODY, None),
        (head(PATH, len(BODY), f"Content-Encoding: gzip\r\n{JSON}") + BODY, 415),
        (post(PATH, b'{"prompt": "\xff\xfe"}'), 400),
        (post(PATH, b"\xed\xa0\x80"), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60), 400),  # a TLS client
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", None),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
def test_requests_that_lie(hasty: Server, data: bytes, status: int | None, caplog: pytest.LogCaptureFixture) -> None:
    answer = asyncio.run(send(hasty.port, data, end=status is None, seconds=20))
    if status is None:
        assert answer == b"" or answer[9:12] in (b"400", b"408")
    else:
        assert int(answer.rpartition(b"HTTP/1.")[2][2:5]) == status
    assert b"Traceback" not in answer
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert hasty.ask("/health").status == 200


def test_compressed_bodies_are_not_unpacked_for_anybody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[bytes] = []
    monkeypatch.setattr(DeflateBuffer, "feed_data", lambda _, data, *__: unpacked.append(data))
    config, zipped = ServerConfig(port=0, api_keys=("first-key",)), gzip.compress(BODY)
    with running(config, lambda: load(path, threads=1)) as server:
        assert server.ask(PATH, zipped, Content_Encoding="gzip").status == 401
        refused = server.ask(PATH, zipped, Content_Encoding="gzip", X_Api_Key="first-key")
        assert (refused.status, refused.headers["Accept-Encoding"]) == (415, "identity")
        assert "takes it plain only" in refused.json["error"]["message"]
        assert server.ask(PATH, BODY, Content_Encoding="Identity", X_Api_Key="first-key").status == 200
    assert not unpacked


def test_connections_that_say_nothing_are_closed(hasty: Server) -> None:
    async def silent() -> None:
        beginnings = (b"", b"GET", b"POST /v1/completions HTTP/1.1\r\nHost: local")
        started = time.monotonic()
        answers = await asyncio.gather(*(send(hasty.port, data, seconds=20) for data in beginnings * 5))
        assert 0.5 < time.monotonic() - started < 15
        assert all(not answer or answer[9:12] in (b"400", b"408") for answer in answers)

    asyncio.run(silent())


def test_a_slow_reader_does_not_slow_others(server: Server) -> None:
    async def both() -> None:
        slow = [asyncio.create_task(crawl(server.port, LONG | {"logprobs": 5}, 3)) for _ in range(4)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        status, body = await ask(server.port, PATH, {"prompt": "hello", "max_tokens": 5, "temperature": 0})
        assert status == 200
        assert json.loads(body)["usage"]["completion_tokens"] == 5
        assert time.monotonic() - began < 2.5
        for got in await asyncio.gather(*slow):
            assert b"data: " in got

    asyncio.run(both())
    wait_for(lambda: idle(server))


def test_a_whole_answer_that_nobody_reads_is_given_up(hasty: Server, caplog: pytest.LogCaptureFixture) -> None:
    body, given_up = (
        post("/tokenize", {"content": "ab " * 80_000, "with_pieces": True}),
        b'route="/tokenize",status="499"',
    )
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", hasty.port))
        slow.sendall(body)
        wait_for(lambda: given_up in hasty.ask("/metrics").body)
        slow.settimeout(20)
        while slow.recv(1 << 20):  # what the system had taken, and then the end
            pass
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    status, data = asyncio.run(send_whole(hasty, body))  # who does read has it all, though it takes many parts
    assert (status, len(json.loads(data)["tokens"])) == (200, 240_000)


async def send_whole(server: Server, request: bytes) -> tuple[int, bytes]:
    async with connected(server.port) as (reader, writer):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = [line.split()[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return int(head[9:12]), await reader.readexactly(int(length))


def test_a_half_closed_connection_still_gets_its_answer(server: Server) -> None:
    async def half() -> bytes:
        async with connected(server.port) as (reader, writer):
            writer.write(post(PATH, {"prompt": "hello", "max_tokens": 2}))
            await writer.drain()
            return await reader.readuntil(b"\r\n")

    assert asyncio.run(half()).startswith(b"HTTP/1.1 200")


def test_sigterm_under_load_ends_every_stream_well(path: Path) -> None:
    """Some come to their end, some are told that the server shuts down; none just breaks off."""
    with Process(path, "--threads", "1", "--drain", "0.5", "--queue", "64") as process:
        port = process.ready().port
        answers: list[tuple[int, bytes]] = []

        async def crowd() -> None:
            body = LONG | {"max_tokens": 200}
            asked = [asyncio.create_task(ask(port, PATH, body | {"seed": i})) for i in range(32)]
            await asyncio.sleep(0.3)
            process.popen.send_signal(signal.SIGTERM)
            answers.extend(await asyncio.gather(*asked))

        thread = threading.Thread(target=asyncio.run, args=[crowd()])
        thread.start()
        thread.join(60)
        assert process.popen.wait(20) == 0
        assert len(answers) == 32
        for status, body in answers:
            assert status in (200, 503)
            if status == 200:
                assert body.endswith(b"data: [DONE]\n\n")
                last = body.split(b"\n\n")[-3]
                assert b'"finish_reason":"length"' in last or b"shutting down" in last
            else:
                assert b"shutting down" in body
        process.reader.join()
        assert "Traceback" not in "".join(process.lines)
