"""Sends answers in pieces (server-sent events, or Ollama's JSON lines) or in one piece."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from ternrun.server.http.errors import ApiError, explain
from ternrun.server.http.write_timeout import send_within

Item = dict[str, Any]
Items = AsyncGenerator[Item, None]


@dataclass(frozen=True, slots=True)
class Framing:
    """How items are framed in a stream. `wrong` frames an error; `done` ends the stream."""

    content_type: str
    frame: Callable[[Item], bytes]
    wrong: Callable[[ApiError], Item]
    done: bytes = b""


MANY = 4096
_SLOW = json.JSONEncoder(separators=(",", ":"))


def encode(item: Item) -> bytes:
    """Compact ASCII JSON, so that no item ends within a character."""
    return json.dumps(item, separators=(",", ":"), allow_nan=False).encode()


LINES = Framing("application/x-ndjson", lambda item: encode(item) + b"\n", lambda problem: {"error": problem.message})
UNENDED = Framing("text/event-stream", lambda item: b"data: " + encode(item) + b"\n\n", lambda problem: problem.body)
EVENTS = replace(UNENDED, done=b"data: [DONE]\n\n")
NAMED = Framing(  # by the `type` of each item
    "text/event-stream",
    lambda item: f"event: {item['type']}\ndata: ".encode() + encode(item) + b"\n\n",
    lambda problem: {"type": "error", **problem.body},
)


async def in_one_piece(build: Callable[[], Any], numbers: int) -> web.Response:
    """The answer as one JSON response.

    A response with many numbers is built beside the event loop by json's Python encoder, which lets other threads run.
    """
    if numbers < MANY:
        return web.json_response(build())
    text = await asyncio.to_thread(lambda: "".join(_SLOW.iterencode(build())))
    return web.Response(text=text, content_type="application/json")


async def stream(request: web.Request, items: Items, stall: float, framing: Framing) -> web.StreamResponse:
    """Send each item. An error before the first item becomes a response of its own.

    A client that does not read for `stall` seconds is disconnected.
    """
    response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    response.content_type = framing.content_type
    response.charset = "utf-8"

    async def send(data: bytes) -> None:
        await send_within(request, response.write(data), stall)

    try:
        async with aclosing(items):
            async for item in items:
                if not response.prepared:
                    await response.prepare(request)
                await send(framing.frame(item))
    except ConnectionError:
        raise
    except Exception as error:
        if not response.prepared:
            raise
        await send(framing.frame(framing.wrong(explain(error))))
    if not response.prepared:
        await response.prepare(request)
    await send(framing.done)
    await send_within(request, response.write_eof(), stall)
    return response
