"""Ollama's POST /api/generate and /api/chat: JSON lines, times in nanoseconds."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.engine.request import Request
from ternrun.server.conversation.conversation import Conversation, generate_messages, read_conversation
from ternrun.server.conversation.messages import counted
from ternrun.server.conversation.render import render
from ternrun.server.conversation.tool_call_parser import ToolCall
from ternrun.server.fields import response_format
from ternrun.server.fields.reading import (
    FieldTable,
    any_value,
    any_value_like,
    boolean,
    integer,
    optional,
    string,
)
from ternrun.server.fields.sampling import MESSAGES, needed
from ternrun.server.fields.sampling_params import UNLIMITED, Fields, sampling_fields
from ternrun.server.fields.unsupported import OLLAMA_CONSTRAINTS, OLLAMA_HINTS, OLLAMA_RUNNER, OLLAMA_TEXT_CONSTRAINTS
from ternrun.server.generation.prompts import encode, fill_in
from ternrun.server.generation.request_fields import constraint, parsed, read_fields
from ternrun.server.generation.service import Service
from ternrun.server.generation.submission import Answers
from ternrun.server.generation.timings import timings
from ternrun.server.http.errors import ApiError
from ternrun.server.http.stream import LINES, Items, stream
from ternrun.server.ollama.library import stamp

if TYPE_CHECKING:
    from ternrun.api import Model

Read = Callable[
    [web.Request, Service, dict[str, Any], SamplingParams, response_format.Start | None], Awaitable[Conversation]
]
Wrap = Callable[[str, list[ToolCall]], dict[str, Any]]  # text and calls, as the route has them

SAMPLING: Fields = sampling_fields(  # with Ollama's defaults
    "min_p", "typical_p", "repeat_last_n", "presence_penalty", "frequency_penalty", "seed", "stop", "mirostat",
    "mirostat_tau", "mirostat_eta", temperature=0.8, top_k=40, top_p=0.9, repeat_penalty=1.1,
)  # fmt: skip
OPTIONS = FieldTable(
    read={**SAMPLING, "num_predict": (integer(-2, UNLIMITED), -1)},
    hints=OLLAMA_RUNNER,
)
_BOTH: Fields = {
    "model": (string, ""),
    "stream": (boolean, True),
    "options": (any_value_like({"type": "object"}), {}),
    **response_format.OLLAMA,
}
_RENAMED = {"tool_name": "name", "thinking": "reasoning_content"}

GENERATE = FieldTable(
    read={
        **_BOTH,
        "prompt": (string, None),
        "system": (optional(string, ""), None),
        "suffix": (optional(string, ""), None),
        "raw": (boolean, False),
    },
    hints=OLLAMA_HINTS,
    constraints=OLLAMA_TEXT_CONSTRAINTS,
)
CHAT = FieldTable(
    read={**_BOTH, "messages": (any_value_like({**MESSAGES, "minItems": 0}), None), "tools": (any_value, None)},
    hints=OLLAMA_HINTS,
    constraints=OLLAMA_CONSTRAINTS,
)


async def generate(request: web.Request, service: Service) -> web.StreamResponse:
    """One message, or, with `raw` and where the model has no template, a text that goes on."""
    return await _answer(request, service, GENERATE, _generate, lambda piece, _: {"response": piece})


async def chat(request: web.Request, service: Service) -> web.StreamResponse:
    """A conversation goes on."""
    return await _answer(request, service, CHAT, _chat, _message)


async def _answer(
    request: web.Request, service: Service, table: FieldTable, read: Read, wrap: Wrap
) -> web.StreamResponse:
    values = await read_fields(request, service, table)
    options = parsed(service, OPTIONS, values["options"], "options")
    if values.get("messages", []) in (None, []) and values.get("prompt", "") in (None, "") and not values.get("suffix"):
        return web.json_response(_head(service) | wrap("", []) | {"done": True, "done_reason": "load"})
    limit = options["num_predict"]
    params = SamplingParams(max_tokens=UNLIMITED if limit < 0 else limit, **{name: options[name] for name in SAMPLING})
    start = await constraint(service, values, response_format.OLLAMA)
    talk = await read(request, service, values, params, start)
    if values["stream"]:
        return await stream(request, _pieces(service, talk, request, wrap), service.config.stall, LINES)
    with generate_messages(service, talk, request) as (answers, (said,)):
        async for _, update in answers.updates():
            said.add(update)
        return web.json_response(_head(service) | wrap(said.content, said.calls) | _last(answers))


async def _pieces(service: Service, talk: Conversation, request: web.Request, wrap: Wrap) -> Items:
    with generate_messages(service, talk, request) as (answers, (said,)):
        async for _, update in answers.updates():
            text, calls = said.add(update)
            if text or calls:
                yield _head(service) | wrap(text, calls) | {"done": False}
        yield _head(service) | wrap("", []) | _last(answers)


def _message(text: str, calls: list[ToolCall]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        functions = [call["function"] for call in calls]
        message["tool_calls"] = [{"function": f | {"arguments": json.loads(f["arguments"])}} for f in functions]
    return {"message": message}


async def _generate(
    request: web.Request,
    service: Service,
    values: dict[str, Any],
    params: SamplingParams,
    start: response_format.Start | None,
) -> Conversation:
    ids = await service.read(request, partial(_ids, service.model, values))
    return Conversation([Request(ids, params, constraint=start)])


def _ids(model: Model, values: dict[str, Any]) -> list[int]:
    prompt = needed(values, "prompt")
    if values["suffix"] is None and not values["raw"] and model.chat_template is not None:
        system = [{"role": "system", "content": values["system"]}] if values["system"] else []
        return encode(model, render(model, [*system, {"role": "user", "content": prompt}]), bos=model.chat_bos)
    if values["system"]:
        raise ApiError(
            "system: this text goes on without a template, which alone has a place for it",
            param="system", code="unsupported",
        )  # fmt: skip
    return encode(model, prompt) if values["suffix"] is None else fill_in(model, prompt, values["suffix"])


async def _chat(
    request: web.Request,
    service: Service,
    values: dict[str, Any],
    params: SamplingParams,
    start: response_format.Start | None,
) -> Conversation:
    tools = {"tools": values["tools"], "tool_choice": "auto", "parallel_tool_calls": True}
    return await read_conversation(request, service, partial(_conversation, values), tools, params, start)


def _conversation(values: dict[str, Any]) -> list[Any]:
    """In OpenAI's words. Raises ApiError."""
    return [_openai(message) for message in counted(needed(values, "messages"))]


def _openai(message: Any) -> Any:
    """Ollama's words for what OpenAI's messages have, too."""
    if not isinstance(message, dict):
        return message
    renamed = {_RENAMED.get(name, name): value for name, value in message.items()}
    return {name: value for name, value in renamed.items() if name != "images" or value}


def _head(service: Service) -> dict[str, Any]:
    return {"model": service.name, "created_at": stamp()}


def _last(answers: Answers) -> dict[str, Any]:
    (answer,) = answers.all
    times = timings(answers, answer)
    prompt, decode = (int(times[name] * 1e6) for name in ("prompt_ms", "predicted_ms"))
    return {
        "done": True,
        "done_reason": answer.reason,
        "total_duration": prompt + decode,
        "load_duration": 0,
        "prompt_eval_count": len(answer.request.ids),
        "prompt_eval_duration": prompt,
        "eval_count": answer.generated,
        "eval_duration": decode,
    }
