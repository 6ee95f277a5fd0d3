"""POST /v1/chat/completions: the model's own template writes the conversation out, and the text goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.request import Request
from ternrun.server import shapes, structure
from ternrun.server.access import TOLD
from ternrun.server.answers import Token, asking
from ternrun.server.completions import seeded
from ternrun.server.fields import read_json
from ternrun.server.problems import ApiError
from ternrun.server.prompts import encode, render
from ternrun.server.schema import CHAT, needed, sampling
from ternrun.server.service import Service
from ternrun.server.stream import Items, events

if TYPE_CHECKING:
    from ternrun.api import Model


async def chat_completions(request: web.Request, service: Service) -> web.StreamResponse:
    """The route."""
    model = service.model
    body = await read_json(request, service.config.stall)
    values = CHAT.parse(body, ignore_unknown=service.config.ignore_unknown_fields)
    start = await structure.constraint(service, values, structure.OPENAI)
    requests = await asyncio.to_thread(_read, model, values, service.config.max_prompts, start)
    if values["stream"]:
        return await events(request, _chunks(service, values, requests, request), service.config.stall)
    with asking(service, requests, request[TOLD]) as answers:
        texts = [""] * len(requests)
        tokens: list[list[Token]] = [[] for _ in requests]
        reasons: list[str | None] = [None] * len(requests)
        async for i, update in answers.updates():
            texts[i] += update.text
            tokens[i] += update.tokens
            reasons[i] = shapes.finish(update.reason)
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": texts[i], "refusal": None},
                "logprobs": shapes.chat(model.tokenizer, tokens[i]) if values["logprobs"] else None,
                "finish_reason": reasons[i],
            }
            for i in range(len(requests))
        ]
        answer = shapes.head("chat.completion", "chatcmpl", service.name)
        return web.json_response(answer | {"choices": choices, "usage": shapes.usage(answers)})


async def _chunks(service: Service, values: dict[str, Any], requests: list[Request], request: web.Request) -> Items:
    tokenizer, with_usage = service.model.tokenizer, values["stream_options"]
    with asking(service, requests, request[TOLD]) as answers:
        chunk = shapes.head("chat.completion.chunk", "chatcmpl", service.name)
        chunk |= {"usage": None} if with_usage else {}
        begun: set[int] = set()
        async for i, update in answers.updates():
            if i not in begun:
                begun.add(i)
                yield chunk | {"choices": [_choice(i, {"role": "assistant", "content": ""})]}
            if update.text or update.tokens:
                logprobs = shapes.chat(tokenizer, update.tokens) if values["logprobs"] else None
                yield chunk | {"choices": [_choice(i, {"content": update.text}, logprobs)]}
            if update.reason:
                yield chunk | {"choices": [_choice(i, {}) | {"finish_reason": shapes.finish(update.reason)}]}
        if with_usage:
            yield chunk | {"choices": [], "usage": shapes.usage(answers)}


def _choice(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _read(model: Model, values: dict[str, Any], most: int, start: structure.Start | None) -> list[Request]:
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
    )
    ids = encode(model, prompt)
    return [Request(ids, seeded(params, i), constraint=start) for i in range(values["n"])]
