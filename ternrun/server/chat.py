"""POST /v1/chat/completions: the model's own template writes the conversation out, and the text goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.request import Request
from ternrun.server import calls, shapes, structure
from ternrun.server.access import TOLD
from ternrun.server.answers import Token, Update, asking
from ternrun.server.completions import seeded
from ternrun.server.fields import read_json
from ternrun.server.functions import Tools, read_tools
from ternrun.server.problems import ApiError
from ternrun.server.prompts import encode, render
from ternrun.server.schema import CHAT, needed, sampling
from ternrun.server.service import Service
from ternrun.server.stream import Items, events

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.loader.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Calling:
    """The tools of a request, and how this model writes calls of them."""

    tools: Tools
    family: calls.Family

    def reader(self) -> calls.CallReader:
        """For one choice."""
        return calls.CallReader(self.family, self.tools.functions, self.tools.most)


async def chat_completions(request: web.Request, service: Service) -> web.StreamResponse:
    """Answer a conversation."""
    model = service.model
    body = await read_json(request, service.config.stall)
    values = CHAT.parse(body, ignore_unknown=service.config.ignore_unknown_fields)
    calling = await asyncio.to_thread(calling_of, model, read_tools(values))
    start = await structure.constraint(service, values, structure.OPENAI)
    if calling:
        start = await constraint(service, calling, start)
    requests = await asyncio.to_thread(_read, model, values, service.config.max_prompts, start, calling)
    shown = calls.markers(calling.family, model.tokenizer) if calling else {}
    if values["stream"]:
        chunks = _chunks(service, values, requests, request, calling, shown)
        return await events(request, chunks, service.config.stall)
    with asking(service, requests, request[TOLD], shown) as answers:
        choices = [Choice(model.tokenizer, i, calling, logprobs=values["logprobs"]) for i in range(len(requests))]
        async for i, update in answers.updates():
            choices[i].add(update)
        answer = shapes.head("chat.completion", "chatcmpl", service.name)
        return web.json_response(answer | {"choices": [c.whole for c in choices], "usage": shapes.usage(answers)})


async def _chunks(
    service: Service,
    values: dict[str, Any],
    requests: list[Request],
    request: web.Request,
    calling: Calling | None,
    shown: dict[int, str],
) -> Items:
    tokenizer, with_usage = service.model.tokenizer, values["stream_options"]
    with asking(service, requests, request[TOLD], shown) as answers:
        chunk = shapes.head("chat.completion.chunk", "chatcmpl", service.name)
        chunk |= {"usage": None} if with_usage else {}
        choices = [Choice(tokenizer, i, calling, logprobs=values["logprobs"]) for i in range(len(requests))]
        async for i, update in answers.updates():
            for piece in choices[i].pieces(update):
                yield chunk | {"choices": [piece]}
        if with_usage:
            yield chunk | {"choices": [], "usage": shapes.usage(answers)}


class Choice:
    """One choice as it grows: text, calls found in it, log-probabilities."""

    def __init__(self, tokenizer: Tokenizer, index: int, calling: Calling | None, *, logprobs: bool) -> None:
        self.content = ""
        self.calls: list[dict[str, Any]] = []
        self.reason: str | None = None
        self._tokenizer, self._index, self._logprobs = tokenizer, index, logprobs
        self._reader = calling.reader() if calling else None
        self._tokens: list[Token] = []
        self._begun = False

    def add(self, update: Update) -> tuple[str, list[dict[str, Any]]]:
        """The content and the calls that this update makes certain."""
        content, found = update.text, list[dict[str, Any]]()
        if self._reader:
            content, found = self._reader.push(update.text)
            if update.reason:
                rest, more = self._reader.flush()
                content, found = content + rest, found + more
        self._tokens += update.tokens
        self.content += content
        self.calls += found
        if update.reason:
            self.reason = "tool_calls" if self.calls and update.reason == "stop" else shapes.finish(update.reason)
        return content, found

    def pieces(self, update: Update) -> list[dict[str, Any]]:
        """What of OpenAI's chunks this update makes."""
        before = len(self.calls)
        content, found = self.add(update)
        made = [] if self._begun else [self._piece({"role": "assistant", "content": ""})]
        self._begun = True
        if content or (self._logprobs and update.tokens):
            logprobs = shapes.chat(self._tokenizer, update.tokens) if self._logprobs else None
            made.append(self._piece({"content": content}) | {"logprobs": logprobs})
        for i, call in enumerate(found):
            made.append(self._piece({"tool_calls": [{"index": before + i, **call}]}))
        if self.reason:
            made.append(self._piece({}) | {"finish_reason": self.reason})
        return made

    @property
    def whole(self) -> dict[str, Any]:
        """OpenAI's object, at the end."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content, "refusal": None}
        if self.calls:
            message |= {"content": self.content or None, "tool_calls": self.calls}
        logprobs = shapes.chat(self._tokenizer, self._tokens) if self._logprobs else None
        return {"index": self._index, "message": message, "logprobs": logprobs, "finish_reason": self.reason}

    def _piece(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": None}


def calling_of(model: Model, tools: Tools | None) -> Calling | None:
    """Beside the event loop: a template is compiled when it is first asked for."""
    template = model.chat_template if tools else None
    return Calling(tools, calls.family_of(template.source)) if tools and template else None


async def constraint(service: Service, calling: Calling, start: structure.Start | None) -> structure.Start | None:
    """What keeps an answer to calls, where it has to be one. Raises ApiError."""
    if start:
        raise ApiError(
            "tools: they cannot be combined with an answer of a given form", param="tools", code="unsupported"
        )
    source = calls.grammar(calling.family, calling.tools, service.model.tokenizer)
    return await service.compile(source.kind, source.text, "tools") if source else None


def _read(
    model: Model, values: dict[str, Any], most: int, start: structure.Start | None, calling: Calling | None
) -> list[Request]:
    """Beside the event loop: templates and tokenizers take a while."""
    if values["top_logprobs"] and not values["logprobs"]:
        raise ApiError("top_logprobs: it needs logprobs to be true", param="top_logprobs")
    if values["n"] > most:
        raise ApiError(f"n: at most {most} may be asked at once", param="n")
    limit = values["max_completion_tokens"]
    params = sampling(
        values,
        max_tokens=values["max_tokens"] if limit is None else limit,
        logprobs=values["top_logprobs"] if values["logprobs"] else None,
    )
    prompt = render(
        model,
        needed(values, "messages"),
        begin=values["add_generation_prompt"],
        variables=values["chat_template_kwargs"],
        tools=calling.tools if calling else None,
    )
    ids = encode(model, prompt)
    return [Request(ids, seeded(params, i), constraint=start) for i in range(values["n"])]
