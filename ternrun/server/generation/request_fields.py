"""Reads the fields of a request with the defaults of the server and its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ternrun.server.fields.reading import FieldTable
from ternrun.server.fields.response_format import Fields, Start
from ternrun.server.generation.service import Service
from ternrun.server.http.errors import ApiError
from ternrun.server.http.json_body import read_json


async def read_fields(request: web.Request, service: Service, table: FieldTable) -> dict[str, Any]:
    """The fields of a request. Raises ApiError, before it reads the body if the model is not loaded."""
    _ = service.model
    body = await read_json(request, service.config.stall)
    return parsed(service, table, body)


def parsed(service: Service, table: FieldTable, body: Any, within: str = "") -> dict[str, Any]:
    """The fields of `body`, as `FieldTable.parse`, with the defaults of this server and its model."""
    return table.parse(body, defaults=service.defaults, within=within)


async def constraint(service: Service, values: Mapping[str, Any], fields: Fields) -> Start | None:
    """The start of the constraint that a request asks for, or None. Raises ApiError."""
    asked = {name: values[name] for name in fields if values[name] is not None}
    if not asked:
        return None
    if len(asked) > 1:
        raise ApiError(f"only one of {', '.join(asked)} can be asked for at once", param=list(asked)[1])
    ((name, source),) = asked.items()
    return await service.compile(source.kind, source.text, name + source.at)
