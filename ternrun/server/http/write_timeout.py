"""Limits how long a client may take to read the next piece of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from aiohttp import web
from aiohttp.typedefs import Middleware

from ternrun.server.http.errors import Handler

PART = 1 << 16  # bytes of a whole answer that must be read within the time


async def send_within(request: web.Request, sending: Awaitable[object], stall: float) -> None:
    """Send something. A client that does not read it within `stall` seconds is disconnected: ConnectionResetError."""
    try:
        async with asyncio.timeout(stall):
            await sending
    except TimeoutError:
        if request.transport:
            request.transport.abort()  # to close it would wait until all was read
        raise ConnectionResetError("the client does not read") from None


def write_timeout(stall: float) -> Middleware:
    """Middleware that sends whole answers with that limit, because aiohttp would wait forever."""

    @web.middleware
    async def deliver(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        body = answer.body if isinstance(answer, web.Response) else None
        if not isinstance(body, bytes) or len(body) <= PART or request.method == "HEAD":
            return answer  # it is sent already, or the system's buffers hold it
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(body)
        await send_within(request, response.prepare(request), stall)
        for start in range(0, len(body), PART):
            await send_within(request, response.write(body[start : start + PART]), stall)
        await send_within(request, response.write_eof(), stall)
        return response

    return deliver
