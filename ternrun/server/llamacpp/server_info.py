"""What runs here, as llama.cpp's server tells it."""

from __future__ import annotations

from aiohttp import web

from ternrun.server.generation.service import Service
from ternrun.server.http.errors import ApiError
from ternrun.server.llamacpp.completion import default_settings


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


def _slots(service: Service) -> int:
    return service.model.driver.engine.max_batch
