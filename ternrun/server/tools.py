"""Routes that tell of the server and its model, or turn text into tokens: OpenAI's /v1/models and llama.cpp's."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from aiohttp import web

from ternrun.server.fields import Table, anything, flag, read_fields, shaped, text, token_ids
from ternrun.server.functions import read_tools
from ternrun.server.kinds import MODEL
from ternrun.server.llama import default_settings
from ternrun.server.metrics import CONTENT_TYPE
from ternrun.server.models import SERVICES
from ternrun.server.problems import ApiError
from ternrun.server.prompts import render
from ternrun.server.schema import MESSAGES, TURN, needed
from ternrun.server.service import Service

MAX_LENGTH = 1 << 18  # of what is tokenized, some seconds' work at the worst

TOKENIZE = Table(
    read={
        "content": (text, None),
        "add_special": (flag, False),
        "prompt": (text, None),  # vLLM's names for these two
        "add_special_tokens": (flag, True),
        "parse_special": (flag, True),
        "with_pieces": (flag, False),
    },
    hints=MODEL,
)
DETOKENIZE = Table(read={"tokens": (token_ids(MAX_LENGTH), None)}, hints=MODEL)
APPLY = Table(
    read={
        "messages": (shaped(MESSAGES), None),
        **TURN,
        "chat_template_kwargs": (shaped({"type": "object"}), None),
        "tools": (anything, None),
        "tool_choice": (anything, "auto"),
        "parallel_tool_calls": (flag, True),
    },
    hints=MODEL,
)


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


async def tokenize(request: web.Request, service: Service) -> web.Response:
    """Ids of a text; with their text where `with_pieces` is set, as bytes where that is not whole characters."""
    values, tokenizer = await read_fields(request, service, TOKENIZE), service.model.tokenizer
    name, bos = ("content", "add_special") if values["prompt"] is None else ("prompt", "add_special_tokens")
    content = needed(values, name)
    if len(content) > MAX_LENGTH:
        raise ApiError(f"{name}: at most {MAX_LENGTH} characters may be asked at once", param=name)

    def work() -> str:
        ids = tokenizer.encode(content, special=values["parse_special"], bos=values[bos])
        pieces = [{"id": i, "piece": _piece(tokenizer.token_bytes(i))} for i in ids] if values["with_pieces"] else ids
        more = {"count": len(ids), "max_model_len": service.model.context} if name == "prompt" else {}
        return json.dumps({"tokens": pieces, **more})

    return web.Response(text=await service.aside(work), content_type="application/json")


async def detokenize(request: web.Request, service: Service) -> web.Response:
    """Text of `tokens`, control tokens by their names; under llama.cpp's name and vLLM's."""
    values = await read_fields(request, service, DETOKENIZE)
    content = await service.aside(partial(service.model.tokenizer.decode, needed(values, "tokens"), special=True))
    return web.json_response({"content": content, "prompt": content})


async def tokenizer_info(_request: web.Request, service: Service) -> web.Response:
    """vLLM's: what a client must know to write prompts out itself."""
    tokenizer, template = service.model.tokenizer, service.model.chat_template
    info = {"tokenizer_class": "ternrun", "bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
    return web.json_response(info | {"chat_template": template.source if template else None})


async def apply_template(request: web.Request, service: Service) -> web.Response:
    """The prompt that a conversation becomes."""
    values = await read_fields(request, service, APPLY)
    written = partial(
        render,
        service.model,
        needed(values, "messages"),
        begin=values["add_generation_prompt"],
        go_on=values["continue_final_message"],
        variables=values["chat_template_kwargs"],
        tools=read_tools(values),
    )
    prompt = await service.read(request, written)
    return web.json_response({"prompt": prompt})


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


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)
