"""One answer to a conversation, for routes that word questions and answers in ways of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.request import Request
from ternrun.server.access import TOLD
from ternrun.server.answers import Answers, asking
from ternrun.server.calls import markers
from ternrun.server.chat import Calling, Choice, calling_of, constraint
from ternrun.server.functions import read_tools
from ternrun.server.prompts import encode, render
from ternrun.server.service import Service
from ternrun.server.structure import Start


@dataclass(frozen=True, slots=True)
class Talk:
    """A checked question."""

    request: Request
    calling: Calling | None


async def read_talk(
    service: Service,
    messages: Sequence[Mapping[str, Any]],
    tools: Mapping[str, Any],
    params: SamplingParams,
    start: Start | None = None,
) -> Talk:
    """`messages` as in OpenAI's chat; `tools`: its tools, tool_choice and parallel_tool_calls. Raises ApiError."""
    model = service.model
    calling = await asyncio.to_thread(calling_of, model, read_tools(tools))
    if calling:
        start = await constraint(service, calling, start)
    asked = calling.tools if calling else None
    ids = await asyncio.to_thread(lambda: encode(model, render(model, list(messages), tools=asked)))
    return Talk(Request(ids, params, constraint=start), calling)


@contextmanager
def talking(service: Service, talk: Talk, request: web.Request) -> Iterator[tuple[Answers, Choice]]:
    """Ask it: iterate over the updates of the answers, and give each to the choice."""
    tokenizer = service.model.tokenizer
    shown = markers(talk.calling.family, tokenizer) if talk.calling else {}
    with asking(service, [talk.request], request[TOLD], shown) as answers:
        yield answers, Choice(tokenizer, 0, talk.calling, logprobs=False)
