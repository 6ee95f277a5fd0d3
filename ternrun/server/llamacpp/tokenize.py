"""Routes that turn text into tokens and back: llama.cpp's and vLLM's."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from aiohttp import web

from ternrun.server.conversation.render import render
from ternrun.server.conversation.tools import read_tools
from ternrun.server.fields.reading import FieldTable, any_value, any_value_like, boolean, json_object, string, token_ids
from ternrun.server.fields.sampling import MESSAGES, TURN, needed
from ternrun.server.fields.sampling_params import Fields
from ternrun.server.fields.unsupported import MODEL, TEMPLATE_CONSTRAINTS
from ternrun.server.generation.prompts import encode
from ternrun.server.generation.request_fields import read_fields
from ternrun.server.generation.service import Service
from ternrun.server.http.errors import wrong

MAX_LENGTH = 1 << 18  # of what is tokenized, some seconds' work at the worst

_CONVERSATION: Fields = {
    "messages": (any_value_like(MESSAGES), None),
    **TURN,
    "chat_template_kwargs": (json_object, None),
    "tools": (any_value, None),
    "tool_choice": (any_value, "auto"),
    "parallel_tool_calls": (boolean, True),
}
TOKENIZE = FieldTable(
    read={
        "content": (string, None),
        "add_special": (boolean, False),
        "prompt": (string, None),  # vLLM's names for these two
        "add_special_tokens": (boolean, True),
        "parse_special": (boolean, True),
        "with_pieces": (boolean, False),
        "return_token_strs": (boolean, False),
        **_CONVERSATION,
    },
    hints=MODEL,
    constraints=TEMPLATE_CONSTRAINTS,
)
DETOKENIZE = FieldTable(read={"tokens": (token_ids(MAX_LENGTH), None)}, hints=MODEL)
APPLY = FieldTable(read=_CONVERSATION, hints=MODEL, constraints=TEMPLATE_CONSTRAINTS)


async def tokenize(request: web.Request, service: Service) -> web.Response:
    """Ids of a text or a conversation; with their text where `with_pieces` or `return_token_strs` is set."""
    values, tokenizer = await read_fields(request, service, TOKENIZE), service.model.tokenizer
    name = next((name for name in ("messages", "prompt", "content") if values[name] is not None), "content")
    ids_of = _of_messages if name == "messages" else partial(_of_text, name)

    def work() -> str:
        ids = ids_of(service, values)
        pieces = [{"id": i, "piece": _piece(tokenizer.token_bytes(i))} for i in ids] if values["with_pieces"] else ids
        told: dict[str, Any] = {"tokens": pieces}
        if name != "content":
            told |= {"count": len(ids), "max_model_len": service.model.context}
        if values["return_token_strs"]:
            told["token_strs"] = [tokenizer.token_bytes(i).decode(errors="replace") for i in ids]
        return json.dumps(told)

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
    prompt = await service.read(request, partial(_written, service, values))
    return web.json_response({"prompt": prompt})


def _written(service: Service, values: dict[str, Any]) -> str:
    return render(
        service.model,
        needed(values, "messages"),
        begin=values["add_generation_prompt"],
        go_on=values["continue_final_message"],
        variables=values["chat_template_kwargs"],
        tools=read_tools(values),
    )


def _of_messages(service: Service, values: dict[str, Any]) -> list[int]:
    return encode(service.model, _written(service, values), bos=service.model.chat_bos)


def _of_text(name: str, service: Service, values: dict[str, Any]) -> list[int]:
    content = needed(values, name)
    if len(content) > MAX_LENGTH:
        raise wrong(name, f"at most {MAX_LENGTH} characters may be asked at once")
    bos = values["add_special" if name == "content" else "add_special_tokens"]
    return service.model.tokenizer.encode(content, special=values["parse_special"], bos=bos, eos=bos)


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)
