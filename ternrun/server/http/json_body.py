"""Reads the JSON body of a request."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

from aiohttp import web

from ternrun.server.http.errors import ApiError

SMALL = 1 << 14  # bytes of JSON that are read faster than another thread is woken
PARSED: web.RequestKey[Any] = web.RequestKey("parsed", object)
SIZE: web.RequestKey[int] = web.RequestKey("size", int)  # bytes of the body: its texts have no more characters


async def read_json(request: web.Request, stall: float, *, optional: bool = False) -> Any:
    """The request's body as JSON; {} if it is empty and `optional`.

    Raises ApiError, and aiohttp's errors such as HTTPRequestEntityTooLarge.
    """
    if PARSED in request:  # to see which model it is for
        return request[PARSED]
    if optional and not request.body_exists:
        return {}
    most = request.client_max_size
    if any(kind.strip().lower() != "identity" for kind in request.headers.getall("Content-Encoding", ())):
        raise ApiError(
            "the request's body is compressed, and this server takes it plain only",
            status=415, headers={"Accept-Encoding": "identity"},
        )  # fmt: skip
    if (request.content_length or 0) > most:  # before anything of it is read
        raise web.HTTPRequestEntityTooLarge(most, request.content_length or 0)
    try:
        async with asyncio.timeout(stall):
            data = await request.read()
    except TimeoutError:
        raise ApiError("the request's body did not arrive in time", status=408) from None
    except web.RequestPayloadError:  # cut short
        raise ApiError("the request's body cannot be read") from None
    request[SIZE] = len(data)
    try:
        parse = partial(json.loads, data, parse_constant=_no_constant)
        request[PARSED] = await asyncio.to_thread(parse) if len(data) > SMALL else parse()
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise ApiError(f"the body is not JSON: {why}") from None
    return request[PARSED]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
