"""Routes that tell of the server and its model: OpenAI's /v1/models, and llama.cpp's."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ternrun.server.generation.models import SERVICES
from ternrun.server.generation.service import Service
from ternrun.server.http.errors import ApiError


async def models(request: web.Request, _service: Service) -> web.Response:
    """The models served, in OpenAI's list."""
    return web.json_response({"object": "list", "data": [describe(one) for one in request.app[SERVICES].all]})


async def one_model(request: web.Request, _service: Service) -> web.Response:
    """One of them, by its name."""
    name = request.match_info["name"]
    service = request.app[SERVICES].pick(name)
    if name != service.name and len(request.app[SERVICES].all) == 1:
        raise ApiError("there is no such model; /v1/models lists them", status=404, code="model_not_found")
    return web.json_response(describe(service))


def describe(service: Service) -> dict[str, Any]:
    """OpenAI's object, with llama.cpp's `meta`."""
    config = service.model.config
    meta = {
        "n_vocab": config.vocab_size,
        "n_ctx": service.model.context,
        "n_ctx_train": config.context_length,
        "n_embd": config.dim,
    }
    head = {"id": service.name, "object": "model", "created": service.started, "owned_by": "ternrun"}
    return head | {"meta": meta}
