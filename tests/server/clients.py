"""Clients that misbehave, over raw sockets, and one that does not."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
JSON = "Content-Type: application/json\r\n"


def head(path: str, length: int | str, more: str = JSON) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def post(path: str, body: Any) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(path, len(data)) + data


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def send(port: int, data: bytes, *, end: bool = False, seconds: float = 60) -> bytes:
    """All that comes back until the server closes. `end`: close our half first."""
    async with connected(port) as (reader, writer):
        with suppress(OSError):
            writer.write(data)
            await writer.drain()
            if end:
                writer.write_eof()
        async with asyncio.timeout(seconds):
            return await _rest(reader)


async def ask(port: int, path: str, body: Any, seconds: float = 60) -> tuple[int, bytes]:
    """Status and body, as a client that behaves."""
    data = post(path, body).replace(b"Host: localhost", b"Host: localhost\r\nConnection: close", 1)
    answer, _, rest = (await send(port, data, seconds=seconds)).partition(b"\r\n\r\n")
    return int(answer[9:12]), _unchunked(rest) if b"chunked" in answer.lower() else rest


async def vanish(port: int, body: dict[str, Any], after: int, reset: bool) -> None:
    """Ask, read `after` bytes of the answer, and be gone: politely, or as if the power had failed."""
    async with connected(port) as (reader, writer):
        writer.write(post("/v1/completions", body))
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(after)
        if reset:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def crawl(port: int, body: dict[str, Any], seconds: float) -> bytes:
    """Read a few bytes now and then; give up after some time."""
    got = b""
    async with connected(port) as (reader, writer):
        writer.write(post("/v1/completions", body))
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                while chunk := await reader.read(64):
                    got += chunk
                    await asyncio.sleep(0.01)
    return got


async def _rest(reader: asyncio.StreamReader) -> bytes:
    got = b""
    with suppress(ConnectionResetError):
        while chunk := await reader.read(1 << 16):
            got += chunk
    return got


def _unchunked(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        whole += data[:count]
        data = data[count + 2 :]
    return whole
