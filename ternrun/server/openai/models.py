"""Routes that tell of the server and its model: OpenAI's /v1/models, and llama.cpp's."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ternrun.server.generation.metrics import CONTENT_TYPE
from ternrun.server.generation.models import SERVICES
from ternrun.server.generation.service import Service
from ternrun.server.http.errors import ApiError
from ternrun.server.llamacpp.completion import default_settings
from ternrun.server.openai import logprobs


async def health(request: web.Request, _service: Service) -> web.Response:
    """503 while the model loads and while the server shuts down, 200 in between. Needs no key."""
    for service in request.app[SERVICES].all:
        _ = service.model
    return web.json_response({"status": "ok"})


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


async def version(_request: web.Request, _service: Service) -> web.Response:
    """This server's version, where vLLM tells its own."""
    return web.json_response({"version": logprobs.version()})


async def props(_request: web.Request, service: Service) -> web.Response:
    """What runs here. The model's path is not told, its name is."""
    model = service.model
    template = model.chat_template
    tokenizer = model.tokenizer
    return web.json_response(
        {
            "default_generation_settings": {"n_ctx": model.context, "params": default_settings(service)},
            "total_slots": _slots(service),
            "model_alias": service.name,
            "chat_template": template.source if template else "",
            "bos_token": tokenizer.bos_token,
            "eos_token": tokenizer.eos_token,
            "modalities": {"vision": False, "audio": False},
            "backend": f"{model.backend}: {model.backend_reason}",
        }
    )


async def slots(request: web.Request, service: Service) -> web.Response:
    """One entry a place in the batch; nobody's prompt. `?fail_on_no_slot=1`: 503 where all are taken."""
    total, (running, _) = _slots(service), service.model.driver.engine.load
    if request.query.get("fail_on_no_slot", "") not in ("", "0") and running >= total:
        raise ApiError("no slot is free", status=503, code=503)
    context = service.model.context
    return web.json_response([{"id": i, "n_ctx": context, "is_processing": i < running} for i in range(total)])


async def metrics(_request: web.Request, service: Service) -> web.Response:
    """Prometheus' text format."""
    return web.Response(body=service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _slots(service: Service) -> int:
    return service.model.driver.engine.model.engine.max_batch
