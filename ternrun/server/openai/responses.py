"""OpenAI's POST /v1/responses: text and functions. Nothing is stored, so no response can follow another by its id."""

from __future__ import annotations

import json
import time
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
from ternrun.server.conversation.messages import ROLES, counted, plain_text
from ternrun.server.conversation.tools import read_calls
from ternrun.server.fields import response_format
from ternrun.server.fields.ignored import current, pass_over
from ternrun.server.fields.reading import FieldTable, any_value, any_value_like, boolean, integer, string
from ternrun.server.fields.response_format import Source
from ternrun.server.fields.sampling import needed
from ternrun.server.fields.sampling_params import UNLIMITED, sampling_fields
from ternrun.server.fields.unsupported import RESPONSES_CONSTRAINTS, RESPONSES_HINTS
from ternrun.server.generation.request_fields import constraint, read_fields
from ternrun.server.generation.service import Service
from ternrun.server.generation.submission import Answers
from ternrun.server.http.errors import wrong
from ternrun.server.http.json_body import read_json
from ternrun.server.http.stream import NAMED, Items, stream
from ternrun.server.openai import answer_format

#: Items that hold what a tool answered.
OUTPUTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output", "shell_call_output")
#: Items that only the server that made them can use: what its model thought, and calls of tools that it ran itself.
PASSED_OVER = (
    "reasoning", "compaction", "web_search_call", "file_search_call", "computer_call", "computer_call_output",
    "image_generation_call", "code_interpreter_call", "local_shell_call", "shell_call", "mcp_call", "mcp_list_tools",
    "mcp_approval_request", "mcp_approval_response",
)  # fmt: skip

PARTS = ("text", "output_text", "refusal", "input_text")
MESSAGE = ("type", "role", "content", "id", "status")


def _format(value: Any) -> Source | None:
    """`text`: {"format": {"type": "text" | "json_object" | "json_schema", "schema": ...}}."""
    if not isinstance(value, dict):
        raise ValueError('must be an object such as {"format": {"type": "text"}}')  # noqa: TRY004
    if value.get("verbosity") not in (None, "medium"):
        current().hint("text.verbosity")
    pass_over(value, ("format", "verbosity"), "text")
    return response_format.response_format(value.get("format") or {"type": "text"}, ".format", "text.format")


FORM: response_format.Fields = {"text": (_format, None)}
RESPONSES = FieldTable(
    read={
        **FORM,
        "input": (any_value_like({"type": ["string", "array"]}), None),
        "instructions": (string, ""),
        "model": (string, ""),
        "max_output_tokens": (integer(1, UNLIMITED), UNLIMITED),
        **sampling_fields("top_p", temperature=1.0),
        "stream": (boolean, False),
        "tools": (any_value, None),
        "tool_choice": (any_value, "auto"),
        "parallel_tool_calls": (boolean, True),
    },
    hints=RESPONSES_HINTS,
    constraints=RESPONSES_CONSTRAINTS,
)


async def responses(request: web.Request, service: Service) -> web.StreamResponse:
    """Answer a conversation, in OpenAI's newer form."""
    values = await read_fields(request, service, RESPONSES)
    talk = await _read(request, service, values)
    begun = _begun(service, await read_json(request, service.config.stall), values)
    if values["stream"]:
        return await stream(request, _events(service, talk, begun, request), service.config.stall, NAMED)
    with generate_messages(service, talk, request) as (answers, (answer,)):
        async for _, update in answers.updates():
            answer.add(update)
        items = [_message(_id("msg"), answer.content)] if answer.content or not answer.calls else []
        return web.json_response(begun | _ended(answers, answer, [*items, *map(_called, answer.calls)]))


async def input_tokens(request: web.Request, service: Service) -> web.Response:
    """Tell how many tokens a conversation has."""
    talk = await _read(request, service, await read_fields(request, service, RESPONSES))
    return web.json_response(answer_format.input_tokens(talk.requests[0]))


async def _read(request: web.Request, service: Service, values: dict[str, Any]) -> Conversation:
    start = await constraint(service, values, FORM)
    params = SamplingParams(
        max_tokens=values["max_output_tokens"], temperature=values["temperature"], top_p=values["top_p"]
    )
    return await read_conversation(request, service, partial(_conversation, values), values, params, start)


async def _events(service: Service, talk: Conversation, begun: dict[str, Any], request: web.Request) -> Items:
    number = 0

    def event(kind: str, **fields: Any) -> dict[str, Any]:
        nonlocal number
        number += 1
        return {"type": f"response.{kind}", "sequence_number": number - 1, **fields}

    with generate_messages(service, talk, request) as (answers, (answer,)):
        yield event("created", response=begun)
        yield event("in_progress", response=begun)
        items: list[dict[str, Any]] = []
        said, identity = "", _id("msg")
        async for _, update in answers.updates():
            content, calls = answer.add(update)
            at = {"item_id": identity, "output_index": len(items), "content_index": 0}
            if content and not said:
                empty = {"type": "message", "id": identity, "status": "in_progress", "role": "assistant", "content": []}
                yield event("output_item.added", output_index=len(items), item=empty)
                yield event("content_part.added", **at, part=_part(""))
            if content:
                said += content
                yield event("output_text.delta", **at, delta=content, logprobs=[])
            if said and (calls or update.reason):
                items.append(_message(identity, said))
                yield event("output_text.done", **at, text=said, logprobs=[])
                yield event("content_part.done", **at, part=_part(said))
                yield event("output_item.done", output_index=len(items) - 1, item=items[-1])
                said, identity = "", _id("msg")
            for call in map(_called, calls):
                for kind, fields in _calling(call, len(items)):
                    yield event(kind, **fields)
                items.append(call)
        whole_one = begun | _ended(answers, answer, items)
        yield event(whole_one["status"], response=whole_one)


def _calling(call: dict[str, Any], index: int) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"item_id": call["id"], "output_index": index}
    yield "output_item.added", {"output_index": index, "item": call | {"arguments": "", "status": "in_progress"}}
    yield "function_call_arguments.delta", {**at, "delta": call["arguments"]}
    yield "function_call_arguments.done", {**at, "arguments": call["arguments"], "name": call["name"]}
    yield "output_item.done", {"output_index": index, "item": call}


def _begun(service: Service, body: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    limit = values["max_output_tokens"]
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": values["instructions"] or None,
        "max_output_tokens": None if limit == UNLIMITED else limit,
        "metadata": body.get("metadata") or {},
        "model": service.name,
        "output": [],
        "parallel_tool_calls": values["parallel_tool_calls"],
        "previous_response_id": None,
        "temperature": values["temperature"],
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": values["tool_choice"],
        "tools": values["tools"] or [],
        "top_p": values["top_p"],
        "truncation": "disabled",
        "usage": None,
    }


def _ended(answers: Answers, answer: AssistantMessage, items: list[dict[str, Any]]) -> dict[str, Any]:
    prompt, generated, cached = answers.usage
    cut = answer.reason == "length"
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + generated,
    }
    status = {"status": "incomplete" if cut else "completed", "output": items, "usage": usage}
    return status | {"incomplete_details": {"reason": "max_output_tokens"} if cut else None}


def _message(identity: str, said: str) -> dict[str, Any]:
    head = {"type": "message", "id": identity, "status": "completed", "role": "assistant"}
    return head | {"content": [_part(said)]}


def _part(said: str) -> dict[str, Any]:
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}


def _called(call: dict[str, Any]) -> dict[str, Any]:
    head = {"type": "function_call", "id": _id("fc"), "call_id": call["id"], "status": "completed"}
    return head | {name: call["function"][name] for name in ("name", "arguments")}


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _conversation(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """In the chat's words. Raises ApiError."""
    given = needed(values, "input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise wrong("input", "must be a string or a list of items")
    told = [{"role": "system", "content": values["instructions"]}] if values["instructions"] else []
    for i, item in enumerate(counted(items, "input")):
        one = _worded(item, f"input[{i}]")
        if "tool_calls" in one and told and told[-1]["role"] == "assistant":  # calls are items of their own here
            told[-1].setdefault("tool_calls", []).extend(one["tool_calls"])
        elif one:
            told.append(one)
    if not told:
        raise wrong("input", "must be a string or a list of items, not empty")
    return told


def _worded(item: Any, where: str) -> dict[str, Any]:
    """Nothing for a hint: an item of PASSED_OVER, which no template here shows again."""
    if not isinstance(item, dict):
        raise wrong(where, "must be an object")
    kind = item.get("type") or "message"
    if kind in PASSED_OVER:
        current().hint(f"{where}.{kind}")
        return {}
    if kind in ("function_call", "custom_tool_call"):
        written = item.get("arguments") if kind == "function_call" else json.dumps({"input": item.get("input")})
        call = {"id": item.get("call_id"), "function": {"name": item.get("name"), "arguments": written}}
        return {"role": "assistant", "content": "", "tool_calls": read_calls([call], where)}
    if kind in OUTPUTS:
        content = plain_text(item.get("output"), f"{where}.output", PARTS)
        return {"role": "tool", "tool_call_id": item.get("call_id") or "", "content": content}
    if kind != "message":
        raise wrong(f"{where}.type", f"an item of type {str(kind)[:40]} is not supported", code="unsupported")
    if item.get("role") not in ROLES:
        raise wrong(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    pass_over(item, MESSAGE, where)
    return {"role": item["role"], "content": plain_text(item.get("content"), f"{where}.content", PARTS)}
