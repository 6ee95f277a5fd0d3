"""GET /openapi.json: an OpenAPI 3.1 document made from the tables that requests are read by, so that it is true."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ternrun.server.anthropic import messages
from ternrun.server.fields import sampling, sampling_params
from ternrun.server.fields.reading import NO_DEFAULTS, FieldTable, Schema, schema_of
from ternrun.server.fields.unsupported import ELSEWHERE, HARMLESS
from ternrun.server.generation.service import Service
from ternrun.server.llamacpp import completion, slot_persistence, tokenize
from ternrun.server.llamacpp import embeddings as llamacpp_embeddings
from ternrun.server.ollama import embeddings as ollama_embeddings
from ternrun.server.ollama import generate as ollama_generate
from ternrun.server.ollama import library
from ternrun.server.openai import embeddings, responses
from ternrun.server.tgi import generate as tgi_generate
from ternrun.server.version import server_version

EVENTS, LINES = "text/event-stream", "application/x-ndjson"
NONE: Mapping[str, FieldTable] = {}
NULL: Schema = {"type": "null"}


@dataclass(frozen=True, slots=True)
class Body:
    """What a route reads. `stream`: the type of its answer where `stream` is true."""

    table: FieldTable
    needed: Sequence[str] = ()
    stream: str = ""
    more: Mapping[str, FieldTable] = field(default_factory=dict)  # fields that have a table of their own


def fields(
    table: FieldTable,
    needed: Sequence[str] = (),
    more: Mapping[str, FieldTable] = NONE,
    defaults: Mapping[str, Any] = NO_DEFAULTS,
    strict: bool = False,
) -> Schema:
    """A table as JSON Schema. Everywhere null is the same as an absent field; fields that are not listed have no
    effect, and are refused by a `strict` server."""
    read = {name: _field(reader, defaults.get(name, default)) for name, (reader, default) in table.read.items()}
    known = {name: _hint(idle, strict) for name, idle in table.hints.items()}
    known |= {name: _constraint(idle) for name, idle in table.constraints.items()}
    known |= read
    inner = {name: fields(table, defaults=defaults, strict=strict) for name, table in more.items()}
    known |= {name: {"anyOf": [one, NULL]} for name, one in inner.items()}
    known |= {name: schema_of(table.read[name][0]) for name in needed}
    return {
        "type": "object",
        "properties": known,
        "required": list(needed),
        **({"additionalProperties": NULL} if strict else {}),
    }


BODIES = {
    "/v1/completions": Body(sampling.COMPLETION, ("prompt",), EVENTS),
    "/v1/chat/completions": Body(sampling.CHAT, ("messages",), EVENTS),
    "/v1/chat/completions/input_tokens": Body(sampling.CHAT, ("messages",)),
    "/chat/completions/input_tokens": Body(sampling.CHAT, ("messages",)),
    "/v1/embeddings": Body(embeddings.EMBEDDINGS, ("input",)),
    "/v1/responses": Body(responses.RESPONSES, ("input",), EVENTS),
    "/v1/responses/input_tokens": Body(responses.RESPONSES, ("input",)),
    "/v1/messages": Body(messages.MESSAGES, ("messages", "max_tokens"), EVENTS),
    "/v1/messages/count_tokens": Body(messages.COUNT, ("messages",)),
    "/embedding": Body(llamacpp_embeddings.EMBEDDINGS),
    "/embeddings": Body(llamacpp_embeddings.EMBEDDINGS),
    "/api/embed": Body(ollama_embeddings.EMBED, ("input",)),
    "/completion": Body(completion.COMPLETION, ("prompt",), EVENTS),
    "/completions": Body(completion.COMPLETION, ("prompt",), EVENTS),
    "/chat/completions": Body(sampling.CHAT, ("messages",), EVENTS),
    "/infill": Body(completion.INFILL, ("input_prefix", "input_suffix"), EVENTS),
    "/tokenize": Body(tokenize.TOKENIZE),
    "/detokenize": Body(tokenize.DETOKENIZE, ("tokens",)),
    "/apply-template": Body(tokenize.APPLY, ("messages",)),
    "/slots/{id}": Body(slot_persistence.SLOT),
    "/generate": Body(tgi_generate.GENERATE, ("inputs",)),
    "/generate_stream": Body(tgi_generate.GENERATE, ("inputs",), EVENTS),
    "/": Body(tgi_generate.GENERATE, ("inputs",), EVENTS),
    "/api/embeddings": Body(ollama_embeddings.EMBEDDINGS, ("prompt",)),
    "/api/show": Body(library.SHOW),
    "/api/generate": Body(ollama_generate.GENERATE, (), LINES, {"options": ollama_generate.OPTIONS}),
    "/api/chat": Body(ollama_generate.CHAT, (), LINES, {"options": ollama_generate.OPTIONS}),
}
REFUSALS = {
    "400": "the request cannot be; the message says why", "401": "no valid API key", "403": "a page that may not ask",
    "404": "there is no such model", "408": "the body came too slowly", "413": "the body is too large",
    "429": "the queue is full; Retry-After says when to try again", "503": "loading, or shutting down",
    "504": "it took too long",
}  # fmt: skip
QUERIES: dict[str, dict[str, Schema]] = {"/slots/{id}": {"action": {"enum": ["save", "restore", "erase"]}}}
TYPES = {"/metrics": "text/plain"}
ERROR: Schema = {
    "type": "object",
    "properties": {"error": {"type": ["object", "string"], "properties": {"message": {"type": "string"}}}},
    "required": ["error"],
}


def document(
    routes: Iterable[web.AbstractRoute], defaults: Mapping[str, Any] = NO_DEFAULTS, *, strict: bool = False
) -> dict[str, Any]:
    """The whole of it. What GET has, HEAD has, too: that goes without saying."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = route.resource.canonical if route.resource else ""
        if route.method != "HEAD":
            paths.setdefault(path, {})[route.method.lower()] = _operation(
                route.method, path, route.handler, defaults, strict
            )
    keys = {"bearer": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ternrun", "version": server_version(), "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}, "securitySchemes": keys},
        "security": [{}, {"bearer": []}],
    }


async def openapi(request: web.Request, service: Service) -> web.Response:
    """This document."""
    return web.json_response(document(request.app.router.routes(), service.defaults, strict=service.config.strict))


def _operation(method: str, path: str, handler: Any, defaults: Mapping[str, Any], strict: bool) -> dict[str, Any]:
    body = BODIES.get(path) if method == "POST" else None
    refusals = {s: _answer(why, {"$ref": "#/components/schemas/Error"}) for s, why in REFUSALS.items()}
    kinds = [
        "text/html" if (method, path) == ("GET", "/") else TYPES.get(path, "application/json"),
        *([body.stream] if body and body.stream else []),
    ]
    told: dict[str, Any] = {
        "summary": " ".join((handler.__doc__ or "").split("\n\n")[0].split()),
        "responses": {"200": {"description": "done", "content": {kind: {} for kind in kinds}}, **refusals},
    }
    names: dict[str, tuple[str, Schema]] = {name: ("path", {"type": "string"}) for name in re.findall(r"{(\w+)", path)}
    names |= {name: ("query", shape) for name, shape in QUERIES.get(path, {}).items()}
    if names:
        told["parameters"] = [{"name": n, "in": i, "required": True, "schema": s} for n, (i, s) in names.items()]
    if body:
        content = {"application/json": {"schema": fields(body.table, body.needed, body.more, defaults, strict)}}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _answer(why: str, shape: Schema) -> dict[str, Any]:
    return {"description": why, "content": {"application/json": {"schema": shape}}}


def _field(read: Any, default: Any) -> Schema:
    one = schema_of(read)
    plain = isinstance(default, (bool, int, float, str)) and default != sampling_params.UNLIMITED
    return ({"anyOf": [one, NULL]} if one else {}) | ({"default": default} if plain else {})


def _hint(nothing: Sequence[Any], strict: bool) -> Schema:
    """Accepted without effect; a strict server accepts values that ask for nothing."""
    if strict and nothing not in (HARMLESS, ELSEWHERE):
        return _constraint(nothing)
    return {} if nothing is ELSEWHERE else {"description": "without effect"}


def _constraint(nothing: Sequence[Any]) -> Schema:
    """Only values that ask for nothing are accepted."""
    return {"enum": [*nothing, None], "description": "not supported"}
