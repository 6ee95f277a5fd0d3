"""POST /v1/completions: text goes on. With echo and logprobs it tells how likely the given text was."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.engine.request import Request
from ternrun.runtime.sampling.logprobs import TokenLogprobs
from ternrun.server.fields import response_format
from ternrun.server.fields.sampling import COMPLETION, limited, needed, sampling, seeded
from ternrun.server.generation.answer import Answer, Token, Update, openai_finish_reason
from ternrun.server.generation.prompts import Prompt, encode, fill_in, openai_prompts
from ternrun.server.generation.request_fields import constraint, read_fields
from ternrun.server.generation.service import Service
from ternrun.server.generation.submission import TOKEN_COUNTS, Answers, submit_requests
from ternrun.server.generation.timings import progress
from ternrun.server.http.errors import ApiError
from ternrun.server.http.stream import EVENTS, Items, in_one_piece, stream
from ternrun.server.openai import answer_format, vllm_fields

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.loader.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request: `requests[i]` belongs to choice i."""

    requests: list[Request]
    echoes: list[str]  # the text to put in front of each choice
    values: dict[str, Any]

    @property
    def logprobs(self) -> int | None:
        """How many of the likeliest tokens to tell at each place; None: no log-probabilities at all."""
        return self.values["logprobs"]  # type: ignore[no-any-return]


async def completions(request: web.Request, service: Service) -> web.StreamResponse:
    """Continue a text."""
    model = service.model
    values = await read_fields(request, service, COMPLETION)
    start = await constraint(service, values, response_format.OPENAI)
    asked = await service.read(request, partial(_read, model, values, service.config.max_prompts, start))
    if values["stream"]:
        return await stream(request, _chunks(service, asked, request), service.config.stall, EVENTS)
    with _asking(service, asked, request) as answers:
        choices = [_Choice(answers.model.tokenizer, asked, i) for i in range(len(asked.requests))]
        texts = [""] * len(choices)
        tokens: list[list[Token]] = [[] for _ in choices]
        scores = [_Score() for _ in choices]
        async for i, update in answers.updates():
            text, told = choices[i].add(update)
            texts[i] += text
            tokens[i] += told
            scores[i].add(update)

        def whole() -> dict[str, Any]:
            kept = _best(scores, values["best_of"] or values["n"], values["n"])
            listed = [
                choices[i].whole(texts[i], tokens[i], answers.all[i]) | {"index": at} for at, i in enumerate(kept)
            ]
            answer = answer_format.head("text_completion", "cmpl", service.name)
            return answer | {"choices": listed, "usage": answer_format.usage(answers)}

        return await in_one_piece(whole, answers.numbers)


def _asking(service: Service, asked: Asked, request: web.Request) -> AbstractContextManager[Answers]:
    shown = vllm_fields.shown(service.model.tokenizer, asked.values)
    return submit_requests(service, asked.requests, request[TOKEN_COUNTS], shown, asked.values["id_slot"])


async def _chunks(service: Service, asked: Asked, request: web.Request) -> Items:
    options, ids = asked.values["stream_options"], asked.values["return_token_ids"]
    with_usage = options["include_usage"]
    with _asking(service, asked, request) as answers:
        chunk = answer_format.head("text_completion", "cmpl", service.name) | ({"usage": None} if with_usage else {})
        choices = [_Choice(answers.model.tokenizer, asked, i) for i in range(len(asked.requests))]
        async for i, update in answers.updates():
            for report in progress(answers, answers.all[i], update):
                yield chunk | {"choices": [choices[i].written("", [])]} | report
            text, told = choices[i].add(update)
            if text or told or update.reason:
                shown = choices[i].ids(update.tokens, answers.all[i]) if ids else {}
                counts = {"usage": answer_format.usage(answers)} if options["continuous_usage_stats"] else {}
                yield chunk | {"choices": [choices[i].written(text, told) | shown]} | counts
        if with_usage:
            yield chunk | {"choices": [], "usage": answer_format.usage(answers)}


class _Score:
    """The mean log-probability of what was generated, the end token included."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, update: Update) -> None:
        """Tokens that came."""
        told = [token.logprobs.logprob for token in update.tokens if token.logprobs]
        self._sum += sum(told)
        self._count += len(told)

    @property
    def mean(self) -> float:
        """Nothing at all is the least likely."""
        return self._sum / self._count if self._count else -math.inf


def _best(scores: Sequence[_Score], made: int, wanted: int) -> list[int]:
    """Of every `made` choices (those of one prompt) the `wanted` likeliest, best first; all as they are, if so many."""
    if made == wanted:
        return list(range(len(scores)))
    prompts = [range(start, start + made) for start in range(0, len(scores), made)]
    return [i for prompt in prompts for i in sorted(prompt, key=lambda i: -scores[i].mean)[:wanted]]


class _Choice:
    """One choice as it grows: the echoed prompt in front of the first text, offsets that count from its start."""

    def __init__(self, tokenizer: Tokenizer, asked: Asked, index: int) -> None:
        self._tokenizer, self._asked, self._index = tokenizer, asked, index
        self._request = asked.requests[index]
        self._echo = asked.echoes[index]
        self._echoed = not asked.values["echo"]
        self._spelled = vllm_fields.speller(tokenizer, asked.values)
        self._begun = False  # the prompt's ids are told
        self._prompt: list[TokenLogprobs] = []
        self._reason: str | None = None

    def add(self, update: Update) -> tuple[str, list[Token]]:
        """The text and the tokens to tell of; the prompt's come with the first that was generated."""
        self._prompt += update.prompt
        self._reason = openai_finish_reason(update.reason)
        shifted = [dataclasses.replace(t, offset=t.offset + len(self._echo)) for t in update.tokens]
        if self._echoed or not (update.tokens or update.text or update.reason):
            return update.text, shifted
        self._echoed = True
        top = self._asked.logprobs
        told = [] if top is None else [dataclasses.replace(t, top=t.top[:top]) for t in self._prompt]
        prompt = _prompt_tokens(self._tokenizer, self._request, self._echo, told)
        return self._echo + update.text, prompt + shifted

    def written(self, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """OpenAI's object."""
        top = self._asked.logprobs
        logprobs = None if top is None else answer_format.legacy(self._spelled, tokens, top)
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": self._reason}

    def whole(self, text: str, tokens: Sequence[Token], answer: Answer) -> dict[str, Any]:
        """OpenAI's object, at the end, with what vLLM's clients may ask for beside it."""
        values = self._asked.values
        ids = (
            {"prompt_token_ids": list(self._request.ids), "token_ids": answer.said}
            if values["return_token_ids"]
            else {}
        )
        found = vllm_fields.of_prompt(self._tokenizer, values, self._request, self._prompt)
        return self.written(text, tokens) | ids | found

    def ids(self, tokens: Sequence[Token], answer: Answer) -> dict[str, Any]:
        """vLLM's `token_ids` of one chunk, the prompt's in the first."""
        begun, self._begun = self._begun, True
        head = {} if begun else {"prompt_token_ids": list(self._request.ids)}
        return head | {"token_ids": [t.id for t in tokens if t is not answer.end]}


def _prompt_tokens(tokenizer: Tokenizer, request: Request, echo: str, logprobs: Sequence[TokenLogprobs]) -> list[Token]:
    """The prompt's tokens, the first without a probability."""
    if not logprobs and len(request.ids) > 1:  # none are asked for
        return []
    decoder, offset, tokens = tokenizer.stream([]), 0, []
    for token, told in zip(request.ids, [None, *logprobs], strict=True):
        tokens.append(Token(token, min(offset, len(echo)), told))
        offset += len(decoder.push(token))
    return tokens


def _read(model: Model, values: dict[str, Any], most: int, start: response_format.Start | None) -> Asked:
    """Beside the event loop: tokenizing a book takes a while."""
    n, echo, logprobs = values["best_of"] or values["n"], values["echo"], values["logprobs"]
    if n < values["n"]:
        raise ApiError("best_of: it must not be less than n", param="best_of")
    if n > values["n"] and values["stream"]:
        raise ApiError("best_of: the best is known at the end only, so it cannot be streamed", param="best_of")
    prompts = openai_prompts(needed(values, "prompt"), most)
    if len(prompts) * n > most:
        name = "best_of" if n > values["n"] else "n"
        message = f"{name}: {len(prompts)} prompts times {n} are more than the {most} that may be asked at once"
        raise ApiError(message, param=name)
    scores = 0 if logprobs is None and n > values["n"] else logprobs
    params = sampling(values, limited(values, "n_predict"), scores)
    params = dataclasses.replace(params, logit_bias=params.logit_bias + vllm_fields.banned(model, values["bad_words"]))
    scored = vllm_fields.scored(values, echoed=logprobs if echo else None)
    shown = values["stream"] and values["return_progress"]
    requests, echoes = [], []
    for prompt in prompts:
        ids = _ids(model, prompt, values)
        requests += [Request(ids, seeded(params, i), scored, start, progress=shown) for i in range(n)]
        echoes += [_text(model.tokenizer, prompt) if echo else ""] * n
    return Asked(requests, echoes, values)


def _ids(model: Model, prompt: Prompt, values: dict[str, Any]) -> list[int]:
    if values["suffix"] is None:
        return encode(model, prompt, bos=values["add_special_tokens"])
    if values["echo"]:
        raise ApiError("echo: it cannot be combined with suffix", param="echo", code="unsupported")
    return fill_in(model, prompt, values["suffix"])


def _text(tokenizer: Tokenizer, prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else tokenizer.decode(prompt)
