"""Conversations for every API: the request to the model, and the messages that it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.engine.request import Request
from ternrun.server.conversation import tool_call_formats
from ternrun.server.conversation.render import render
from ternrun.server.conversation.tool_call_parser import ToolCall, parser_for
from ternrun.server.conversation.tools import Tools, read_tools
from ternrun.server.fields.response_format import Start
from ternrun.server.fields.sampling import seeded
from ternrun.server.generation.answer import Update, openai_finish_reason
from ternrun.server.generation.prompts import encode
from ternrun.server.generation.service import Service
from ternrun.server.generation.submission import NOTHING, TOKEN_COUNTS, Answers, submit_requests
from ternrun.server.http.errors import ApiError

if TYPE_CHECKING:
    from ternrun.api import Model


@dataclass(frozen=True, slots=True)
class ToolCalling:
    """The tools of a conversation, and the form in which this model writes calls."""

    tools: Tools
    family: tool_call_formats.ToolCallFormat


@dataclass(frozen=True, slots=True)
class Conversation:
    """A checked conversation, with a request for each answer to it."""

    requests: list[Request]
    calling: ToolCalling | None = None
    slot: int = -1  # see `asking`
    shown: Mapping[int, str] = field(default_factory=dict)  # see `asking`


class AssistantMessage:
    """One answer while it grows: its text, and the tool calls found in it."""

    def __init__(self, calling: ToolCalling | None) -> None:
        self.content = ""
        self.calls: list[ToolCall] = []
        self.reason: str | None = None
        self._reader = parser_for(calling.family, calling.tools) if calling else None

    def add(self, update: Update) -> tuple[str, list[ToolCall]]:
        """The content and the calls that this update completes."""
        content, found = update.text, list[ToolCall]()
        if self._reader:
            content, found = self._reader.push(update.text)
            if update.reason:
                rest, more = self._reader.flush()
                content, found = content + rest, found + more
        self.content += content
        self.calls += found
        if update.reason:
            self.reason = (
                "tool_calls" if self.calls and update.reason == "stop" else openai_finish_reason(update.reason)
            )
        return content, found


async def read_conversation(
    request: web.Request,
    service: Service,
    messages: Callable[[], Any],
    tools: Mapping[str, Any],
    params: SamplingParams,
    start: Start | None = None,
    *,
    n: int = 1,
    begin: bool | None = None,
    go_on: bool | None = None,
    variables: Any = None,
    progress: bool = False,
    slot: int = -1,
    scored: int | None = None,
    shown: Mapping[int, str] = NOTHING,
) -> Conversation:
    """Check a conversation and encode its prompt.

    `messages` returns the messages as in OpenAI's chat; it runs beside the event loop. `tools`: the fields tools,
    tool_choice and parallel_tool_calls. `begin`, `go_on`: see `render`. `progress`: see `Request`. `slot`, `shown`: see
    `submit_requests`. `scored`: how many of the likeliest tokens to report at each position of the first request's
    prompt. Raises ApiError.
    """
    model, offered = service.model, read_tools(tools)
    calling = await asyncio.to_thread(_calling, model, offered) if offered else None
    if calling:
        start = await _constraint(service, calling, start)

    def read() -> list[int]:  # beside the event loop: templates and tokenizers take a while
        asked = calling.tools if calling else None
        prompt = render(model, messages(), begin=begin, go_on=go_on, variables=variables, tools=asked)
        return encode(model, prompt, bos=model.chat_bos)

    ids = await service.read(request, read)
    requests = [Request(ids, seeded(params, i), scored if i == 0 else None, start, progress=progress) for i in range(n)]
    return Conversation(requests, calling, slot, shown)


@contextmanager
def generate_messages(
    service: Service, talk: Conversation, request: web.Request
) -> Iterator[tuple[Answers, list[AssistantMessage]]]:
    """Submit the conversation. Iterate over the updates of the answers and add each to its message."""
    shown = tool_call_formats.markers(talk.calling.family, service.model.tokenizer) if talk.calling else {}
    with submit_requests(service, talk.requests, request[TOKEN_COUNTS], {**talk.shown, **shown}, talk.slot) as answers:
        yield answers, [AssistantMessage(talk.calling) for _ in talk.requests]


def _calling(model: Model, tools: Tools) -> ToolCalling | None:
    """How the model writes calls, or None. Runs beside the event loop, because it may compile the template."""
    template = model.chat_template
    return ToolCalling(tools, tool_call_formats.format_of(template.source)) if template else None


async def _constraint(service: Service, calling: ToolCalling, start: Start | None) -> Start | None:
    """The constraint that makes an answer a tool call, if it must be one. Raises ApiError."""
    if start:
        raise ApiError(
            "tools: they cannot be combined with an answer of a given form", param="tools", code="unsupported"
        )
    source = tool_call_formats.grammar(calling.family, calling.tools, service.model.tokenizer)
    return await service.compile(source.kind, source.text, "tools") if source else None
