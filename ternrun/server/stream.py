"""Answers that come piece by piece: server-sent events, or JSON lines as Ollama has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from ternrun.server.problems import explain

Items = AsyncGenerator[dict[str, Any], None]

DONE = b"data: [DONE]\n\n"
_COMPACT = (",", ":")


async def events(request: web.Request, items: Items, stall: float, done: bytes = DONE) -> web.StreamResponse:
    """Send each item as an event, then `done`. An error before the first becomes an answer of its own."""
    return await _send(request, items, stall, "text/event-stream", b"data: ", b"\n\n", done)


async def named(request: web.Request, items: Items, stall: float) -> web.StreamResponse:
    """Send each item as an event that is named by its `type`; an error, too."""
    return await _send(request, items, stall, "text/event-stream", b"event: ", b"\n\n", b"")


async def lines(request: web.Request, items: Items, stall: float) -> web.StreamResponse:
    """Send each item as a line of JSON."""
    return await _send(request, items, stall, "application/x-ndjson", b"", b"\n", b"")


async def _send(request: web.Request, items: Items, stall: float, kind: str, *frame: bytes) -> web.StreamResponse:
    """A client that does not read for `stall` seconds is given up."""
    before, after, done = frame
    written = _named if before == b"event: " else encode
    response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    response.content_type = kind
    response.charset = "utf-8"

    async def send(data: bytes) -> None:
        try:
            async with asyncio.timeout(stall):
                await response.write(data)
        except TimeoutError:
            if request.transport:
                request.transport.abort()
            raise ConnectionResetError("the client does not read") from None

    try:
        async with aclosing(items):
            async for item in items:
                if not response.prepared:
                    await response.prepare(request)
                await send(before + written(item) + after)
    except ConnectionError:
        raise
    except Exception as error:
        if not response.prepared:
            raise
        problem = explain(error)
        body = {"type": "error", **problem.body} if written is _named else problem.body
        await send(before + written(body if before else {"error": problem.message}) + after)
    if not response.prepared:
        await response.prepare(request)
    await send(done)
    await response.write_eof()
    return response


def _named(item: dict[str, Any]) -> bytes:
    return f"{item['type']}\ndata: ".encode() + encode(item)


def encode(item: dict[str, Any]) -> bytes:
    """Compact JSON, in ASCII so that half characters cannot break it."""
    return json.dumps(item, separators=_COMPACT, allow_nan=False).encode()
