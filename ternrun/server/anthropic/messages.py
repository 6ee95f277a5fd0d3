"""Anthropic's POST /v1/messages and /v1/messages/count_tokens: text and tools."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from ternrun.runtime.config import SamplingParams
from ternrun.server.conversation.conversation import (
    AssistantMessage,
    Conversation,
    generate_messages,
    read_conversation,
)
from ternrun.server.conversation.messages import counted, part_text, plain_text
from ternrun.server.conversation.tools import offered
from ternrun.server.fields import response_format
from ternrun.server.fields.ignored import current, pass_over
from ternrun.server.fields.reading import (
    FieldTable,
    any_value,
    any_value_like,
    boolean,
    integer,
    stop_strings,
    string,
)
from ternrun.server.fields.sampling import MESSAGES as MESSAGE_LIST
from ternrun.server.fields.sampling import needed
from ternrun.server.fields.sampling_params import UNLIMITED, Fields, sampling_fields
from ternrun.server.fields.unsupported import ANTHROPIC_CONSTRAINTS, ANTHROPIC_HINTS
from ternrun.server.generation.request_fields import constraint, read_fields
from ternrun.server.generation.service import Service
from ternrun.server.generation.submission import Answers
from ternrun.server.http.errors import wrong
from ternrun.server.http.stream import NAMED, Items, stream


def _output(value: Any) -> response_format.Source | None:
    """`output_config`: {"effort": ..., "format": {"type": "json_schema", "schema": ...}}."""
    if not isinstance(value, dict):
        raise ValueError('must be an object such as {"effort": "low"}')  # noqa: TRY004
    if value.get("effort") is not None:
        current().hint("output_config.effort")
    pass_over(value, ("effort", "format"), "output_config")
    form = value.get("format")
    return None if form is None else response_format.response_format(form, ".format", "output_config.format")


def _output_format(value: Any) -> response_format.Source | None:
    """`output_format`: what stood before `output_config.format`."""
    return response_format.response_format(value, field="output_format")


FORM: response_format.Fields = {"output_config": (_output, None), "output_format": (_output_format, None)}
_ASKED: Fields = {
    **FORM,
    "model": (string, ""),
    "messages": (any_value_like(MESSAGE_LIST), None),
    "system": (any_value, None),
    "tools": (any_value, None),
    "tool_choice": (any_value, None),
}
MESSAGES = FieldTable(
    read={
        **_ASKED,
        "max_tokens": (integer(1, UNLIMITED), None),
        **sampling_fields("top_p", "top_k", temperature=1.0),
        "stop_sequences": (stop_strings, ()),
        "stream": (boolean, False),
    },
    hints=ANTHROPIC_HINTS,
    constraints=ANTHROPIC_CONSTRAINTS,
)
COUNT = FieldTable(read=_ASKED, hints=ANTHROPIC_HINTS, constraints=ANTHROPIC_CONSTRAINTS)
CHOICES = {"auto": "auto", "any": "required", "tool": "", "none": "none"}
ROLES = ("user", "assistant", "system")  # the last as OpenAI's clients write it
_TOOL = ("type", "name", "description", "input_schema", "strict")
REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "stop": "end_turn"}


async def messages(request: web.Request, service: Service) -> web.StreamResponse:
    """Answer a conversation, as Anthropic does."""
    values = await read_fields(request, service, MESSAGES)
    params = SamplingParams(
        max_tokens=needed(values, "max_tokens"), temperature=values["temperature"], top_p=values["top_p"],
        top_k=values["top_k"], stop=values["stop_sequences"],
    )  # fmt: skip
    talk = await _read(request, service, values, params)
    if values["stream"]:
        return await stream(request, _events(service, talk, request), service.config.stall, NAMED)
    with generate_messages(service, talk, request) as (answers, (answer,)):
        async for _, update in answers.updates():
            answer.add(update)
        content = [{"type": "text", "text": answer.content}] if answer.content or not answer.calls else []
        content += [_use(call) for call in answer.calls]
        return web.json_response(_message(service) | {"content": content, **_end(answers, answer), **_usage(answers)})


async def count_tokens(request: web.Request, service: Service) -> web.Response:
    """Tell how many tokens a conversation has."""
    values = await read_fields(request, service, COUNT)
    talk = await _read(request, service, values, SamplingParams(max_tokens=1))
    return web.json_response({"input_tokens": len(talk.requests[0].ids)})


async def _read(request: web.Request, service: Service, values: dict[str, Any], params: SamplingParams) -> Conversation:
    start = await constraint(service, values, FORM)
    return await read_conversation(request, service, partial(_conversation, values), _tools(values), params, start)


async def _events(service: Service, talk: Conversation, request: web.Request) -> Items:
    with generate_messages(service, talk, request) as (answers, (answer,)):
        start = {"input_tokens": len(talk.requests[0].ids), "output_tokens": 0}
        yield {"type": "message_start", "message": _message(service) | {"usage": start}}
        blocks, open_text = 0, False
        async for _, update in answers.updates():
            content, calls = answer.add(update)
            if content:
                if not open_text:
                    open_text = True
                    yield _block(blocks, {"type": "text", "text": ""})
                delta = {"type": "text_delta", "text": content}
                yield {"type": "content_block_delta", "index": blocks, "delta": delta}
            if open_text and (calls or update.reason):
                open_text = False
                yield {"type": "content_block_stop", "index": blocks}
                blocks += 1
            for call in calls:
                for event in _used(blocks, call):
                    yield event
                blocks += 1
        end, usage = _end(answers, answer), _usage(answers)
        yield {"type": "message_delta", "delta": end, **usage}
        yield {"type": "message_stop"}


def _used(index: int, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    delta = {"type": "input_json_delta", "partial_json": call["function"]["arguments"]}
    yield _block(index, _use(call) | {"input": {}})
    yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _block(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _use(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {
        "type": "tool_use", "id": call["id"], "name": function["name"], "input": json.loads(function["arguments"])
    }  # fmt: skip


def _message(service: Service) -> dict[str, Any]:
    head = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": service.name}
    return head | {"content": [], "stop_reason": None, "stop_sequence": None}


def _end(answers: Answers, answer: AssistantMessage) -> dict[str, Any]:
    word = answers.all[0].stopping_word
    reason = "stop_sequence" if word else REASONS[answer.reason or "stop"]
    return {"stop_reason": reason, "stop_sequence": word or None}


def _usage(answers: Answers) -> dict[str, Any]:
    """What was in the cache is not counted with the rest."""
    prompt, generated, cached = answers.usage
    counts = {"input_tokens": prompt - cached, "output_tokens": generated}
    return {"usage": counts | {"cache_read_input_tokens": cached, "cache_creation_input_tokens": 0}}


def _tools(values: Mapping[str, Any]) -> dict[str, Any]:
    """In OpenAI's words."""
    given, choice = offered(values["tools"]), values["tool_choice"]
    choice = {"type": "auto"} if choice is None else choice
    kind = choice.get("type") if isinstance(choice, dict) else None
    if not isinstance(kind, str) or kind not in CHOICES:
        raise wrong("tool_choice.type", f"must be one of {', '.join(CHOICES)}")
    for i, tool in given:
        if tool.get("type") in (None, "custom"):
            if not isinstance(tool.get("input_schema") or {}, dict):
                raise wrong(f"tools[{i}].input_schema", "must be a JSON schema, an object")
            pass_over(tool, _TOOL, f"tools[{i}]")
    named_one = {"type": "function", "function": {"name": choice.get("name")}}
    return {
        "tools": [_tool(tool) for _, tool in given] if given else None,
        "tool_choice": CHOICES[kind] or named_one,
        "parallel_tool_calls": not choice.get("disable_parallel_tool_use"),
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Tools that only Anthropic's own server runs keep their type, by which they are passed over."""
    if tool.get("type") not in (None, "custom"):
        return {"type": tool["type"]}
    return {"name": tool.get("name"), "description": tool.get("description"), "parameters": tool.get("input_schema")}


def _conversation(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """In OpenAI's words. Raises ApiError."""
    given = counted(needed(values, "messages"))
    system = "" if values["system"] is None else plain_text(values["system"], "system")
    told = [{"role": "system", "content": system}] if system else []
    return told + [one for i, message in enumerate(given) for one in _worded(message, f"messages[{i}]")]


def _worded(message: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(message, dict):
        raise wrong(where, "must be an object with role and content")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise wrong(f"{where}.role", "must be user or assistant")
    pass_over(message, ("role", "content"), where)
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, list):
        raise wrong(f"{where}.content", "must be a string or a list of blocks")
    said, results, calls = "", [], []
    for i, block in enumerate(blocks):
        at = f"{where}.content[{i}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            said += part_text(block, at)
        elif kind in ("thinking", "redacted_thinking") and role == "assistant":
            current().hint(f"{at}.{kind}")
        elif kind == "tool_use" and role == "assistant":
            function = {"name": block.get("name"), "arguments": block.get("input")}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "tool_result" and role == "user":
            result = plain_text(block.get("content") or "", f"{at}.content")
            results.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": result})
        else:
            raise wrong(f"{at}.type", f"a block of type {str(kind)[:40]} is not supported", code="unsupported")
    spoken: list[dict[str, Any]] = []
    if said or calls or not results:
        spoken = [{"role": role, "content": said}]
    if calls:
        spoken[0]["tool_calls"] = calls
    return results + spoken
