"""POST /v1/chat/completions: the model's own template writes the conversation out, and the text goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.sampling.logprobs import TokenLogprobs
from ternrun.server.conversation.conversation import (
    AssistantMessage,
    Conversation,
    generate_messages,
    read_conversation,
)
from ternrun.server.fields import response_format
from ternrun.server.fields.sampling import CHAT, limited, needed, sampling
from ternrun.server.generation.answer import Answer, Token, Update
from ternrun.server.generation.request_fields import constraint, read_fields
from ternrun.server.generation.sampling_settings import settings
from ternrun.server.generation.service import Service
from ternrun.server.generation.submission import Answers
from ternrun.server.generation.timings import progress, timings
from ternrun.server.http.errors import ApiError
from ternrun.server.http.stream import EVENTS, Items, in_one_piece, stream
from ternrun.server.openai import answer_format, vllm_fields

if TYPE_CHECKING:
    from ternrun.api import Model


async def chat_completions(request: web.Request, service: Service) -> web.StreamResponse:
    """Answer a conversation."""
    values = await read_fields(request, service, CHAT)
    talk = await _read(request, service, values)
    if values["stream"]:
        return await stream(request, _chunks(service, values, talk, request), service.config.stall, EVENTS)
    with generate_messages(service, talk, request) as (answers, said):
        choices = _choices(answers, values, said)
        async for i, update in answers.updates():
            choices[i].add(update)
        found = vllm_fields.of_prompt(answers.model.tokenizer, values, talk.requests[0], choices[0].prompt)
        if values["return_token_ids"]:
            found["prompt_token_ids"] = list(talk.requests[0].ids)
        answer = answer_format.head("chat.completion", "chatcmpl", service.name)
        return await in_one_piece(
            lambda: answer | {"choices": [c.whole for c in choices]} | _figures(values, answers) | found,
            answers.numbers,
        )


async def input_tokens(request: web.Request, service: Service) -> web.Response:
    """Tell how many tokens a conversation has."""
    talk = await _read(request, service, await read_fields(request, service, CHAT))
    return web.json_response(answer_format.input_tokens(talk.requests[0]))


async def _read(request: web.Request, service: Service, values: dict[str, Any]) -> Conversation:
    params = _params(values, service.config.max_prompts)
    banned = vllm_fields.banned(service.model, values["bad_words"])
    start = await constraint(service, values, response_format.OPENAI)
    return await read_conversation(
        request,
        service,
        partial(needed, values, "messages"),
        values,
        dataclasses.replace(params, logit_bias=params.logit_bias + banned),
        start,
        n=values["n"],
        begin=values["add_generation_prompt"],
        go_on=values["continue_final_message"],
        variables=values["chat_template_kwargs"],
        progress=values["stream"] and values["return_progress"],
        slot=values["id_slot"],
        scored=vllm_fields.scored(values),
        shown=vllm_fields.shown(service.model.tokenizer, values),
    )


async def _chunks(service: Service, values: dict[str, Any], talk: Conversation, request: web.Request) -> Items:
    options = values["stream_options"]
    with_usage = options["include_usage"]
    with generate_messages(service, talk, request) as (answers, said):
        chunk = answer_format.head("chat.completion.chunk", "chatcmpl", service.name)
        chunk |= {"usage": None} if with_usage else {}
        choices = _choices(answers, values, said)
        async for i, update in answers.updates():
            for report in progress(answers, answers.all[i], update):
                yield chunk | {"choices": choices[i].begin() or [choices[i].piece({})]} | report
            for piece in choices[i].pieces(update):
                counts = {"usage": answer_format.usage(answers)} if options["continuous_usage_stats"] else {}
                yield chunk | {"choices": [piece]} | counts
        if with_usage:
            yield chunk | {"choices": []} | _figures(values, answers)


class _Choice:
    """One choice as it grows, in OpenAI's shapes."""

    def __init__(self, said: AssistantMessage, index: int, answers: Answers, values: Mapping[str, Any]) -> None:
        self._said, self._index, self._tokenizer = said, index, answers.model.tokenizer
        self._answer, self._logprobs, self._ids = answers.all[index], values["logprobs"], values["return_token_ids"]
        self._spelled = vllm_fields.speller(self._tokenizer, values)
        self.prompt: list[TokenLogprobs] = []  # of its tokens but the first, where they are scored
        self._tokens: list[Token] = []
        self._begun = False

    def add(self, update: Update) -> None:
        """What came, for `whole`."""
        self._said.add(update)
        self._tokens += update.tokens
        self.prompt += update.prompt

    def pieces(self, update: Update) -> list[dict[str, Any]]:
        """What of OpenAI's chunks this update makes."""
        before = len(self._said.calls)
        content, found = self._said.add(update)
        made = self.begin()
        if content or ((self._logprobs or self._ids) and update.tokens):
            made.append(self.piece({"content": content}) | {"logprobs": self._told(update.tokens)})
            if self._ids:
                made[-1]["token_ids"] = [t.id for t in update.tokens if t is not self._answer.end]
        for i, call in enumerate(found):
            made.append(self.piece({"tool_calls": [{"index": before + i, **call}]}))
        if self._said.reason:
            made.append(self.piece({}) | {"finish_reason": self._said.reason})
        return made

    def begin(self) -> list[dict[str, Any]]:
        """The first chunk, if it was not made yet."""
        begun, self._begun = self._begun, True
        return [] if begun else [self.piece({"role": "assistant", "content": ""})]

    @property
    def whole(self) -> dict[str, Any]:
        """OpenAI's object, at the end."""
        said = self._said
        message: dict[str, Any] = {"role": "assistant", "content": said.content, "refusal": None}
        if said.calls:
            message |= {"content": said.content or None, "tool_calls": said.calls}
        head = {"index": self._index, "message": message} | ({"token_ids": self._answer.said} if self._ids else {})
        return head | {"logprobs": self._told(self._tokens), "finish_reason": said.reason}

    def _told(self, tokens: list[Token]) -> dict[str, Any] | None:
        return answer_format.chat(self._tokenizer, self._spelled, tokens) if self._logprobs else None

    def piece(self, delta: dict[str, Any]) -> dict[str, Any]:
        """One chunk's choice."""
        return {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": None}


def _choices(answers: Answers, values: Mapping[str, Any], said: list[AssistantMessage]) -> list[_Choice]:
    return [_Choice(one, i, answers, values) for i, one in enumerate(said)]


def _figures(values: Mapping[str, Any], answers: Answers) -> dict[str, Any]:
    """OpenAI's token counts, and llama.cpp's times of the first answer; with `verbose`, what the model was given."""
    figures = {"usage": answer_format.usage(answers), "timings": timings(answers, answers.all[0])}
    return figures | ({"__verbose": _given(answers.model, answers.all[0])} if values["verbose"] else {})


def _given(model: Model, answer: Answer) -> dict[str, Any]:
    """What of llama.cpp's `__verbose` says more than the answer does."""
    request = answer.request
    return {
        "prompt": model.tokenizer.decode(request.ids, special=True),
        "generation_settings": settings(model, request.params),
        "tokens_evaluated": len(request.ids),
        "tokens_cached": answer.cached,
        "tokens_predicted": answer.generated,
    }


def _params(values: dict[str, Any], most: int) -> SamplingParams:
    if values["top_logprobs"] and not values["logprobs"]:
        raise ApiError("top_logprobs: it needs logprobs to be true", param="top_logprobs")
    if values["n"] > most:
        raise ApiError(f"n: at most {most} may be asked at once", param="n")
    return sampling(
        values,
        max_tokens=limited(values, "max_completion_tokens", "n_predict"),
        logprobs=values["top_logprobs"] if values["logprobs"] else None,
    )
