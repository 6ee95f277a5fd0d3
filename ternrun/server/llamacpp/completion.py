"""llama.cpp's POST /completion and /infill."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.engine.context_shift import ContextShift
from ternrun.runtime.engine.request import Request
from ternrun.runtime.sampling.logprobs import Logprob, TokenLogprobs
from ternrun.server.fields import response_format
from ternrun.server.fields.llamacpp_sampling import SAMPLING
from ternrun.server.fields.reading import FieldTable, any_value_like, boolean, integer, optional, string
from ternrun.server.fields.sampling import MAX_CHOICES, MAX_LOGPROBS, SLOT, length, needed, seeded
from ternrun.server.fields.sampling_params import UNLIMITED
from ternrun.server.fields.unsupported import LLAMA_CONSTRAINTS, LLAMA_HINTS
from ternrun.server.generation.answer import Answer, Token, Update
from ternrun.server.generation.prompts import ProjectFile, fill_in
from ternrun.server.generation.request_fields import constraint, parsed, read_fields
from ternrun.server.generation.sampling_settings import settings
from ternrun.server.generation.service import Service
from ternrun.server.generation.submission import TOKEN_COUNTS, Answers, submit_requests
from ternrun.server.generation.timings import progress, timings
from ternrun.server.generation.token_text import bounded, data, spell
from ternrun.server.http.errors import ApiError
from ternrun.server.http.stream import UNENDED, Items, in_one_piece, stream
from ternrun.server.llamacpp.prompts import llama_prompts

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

MAX_FIELDS, MAX_SNIPPETS = 64, 1024
_ABSENT = object()
ReadPrompts = Callable[["Model", dict[str, Any], int], list[list[int]]]


def _fields(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_FIELDS or not all(isinstance(v, str) for v in value):
        raise ValueError(f"must be a list of at most {MAX_FIELDS} names")
    return tuple(value)


def _snippets(value: Any) -> tuple[ProjectFile, ...]:
    listed: list[Any] = value if isinstance(value, list) and len(value) <= MAX_SNIPPETS else [None]
    if not all(isinstance(v, dict) and isinstance(v.get("text"), str) and _named(v) for v in listed):
        raise ValueError(
            f'must be a list of at most {MAX_SNIPPETS} objects such as {{"text": "...", "filename": "..."}}'
        )
    return tuple(ProjectFile(v.get("filename", "tmp"), v["text"]) for v in listed)


def _named(snippet: dict[str, Any]) -> bool:
    return isinstance(snippet.get("filename", ""), str)


COMPLETION = FieldTable(
    read={
        **SAMPLING,
        "prompt": (any_value_like({"type": ["string", "array", "object"]}), None),
        "n_predict": (length, None),
        "max_tokens": (length, None),
        "n_probs": (integer(0, MAX_LOGPROBS), 0),
        "post_sampling_probs": (boolean, False),
        "stream": (boolean, False),
        "return_progress": (boolean, False),
        "id_slot": SLOT,
        "return_tokens": (boolean, False),
        "n_keep": (integer(-1, UNLIMITED), 0),
        "n_discard": (integer(0, UNLIMITED), 0),
        "n_cmpl": (integer(1, MAX_CHOICES), 1),
        "t_max_predict_ms": (optional(integer(0, UNLIMITED), -1, 0), 0),
        "response_fields": (_fields, ()),
        **response_format.LLAMA,
    },
    hints=LLAMA_HINTS,
    constraints=LLAMA_CONSTRAINTS,
)


INFILL = replace(
    COMPLETION,
    read={
        **COMPLETION.read,
        "prompt": (string, ""),
        "input_prefix": (string, None),
        "input_suffix": (string, None),
        "input_extra": (_snippets, ()),
    },
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request: `requests[i]` and `prompts[i]`, its text, belong to answer i."""

    service: Service
    requests: list[Request]
    prompts: list[str]
    values: dict[str, Any]


async def completion(request: web.Request, service: Service) -> web.StreamResponse:
    """Continue a text, as llama.cpp does."""
    return await _answer(request, service, COMPLETION, _prompts)


async def infill(request: web.Request, service: Service) -> web.StreamResponse:
    """Write the text between two others, where the model has the tokens for that."""
    return await _answer(request, service, INFILL, _holes)


async def _answer(request: web.Request, service: Service, table: FieldTable, ids_of: ReadPrompts) -> web.StreamResponse:
    values = await read_fields(request, service, table)
    start = await constraint(service, values, response_format.LLAMA)
    asked = await service.read(request, partial(_read, service, values, start, ids_of))
    if values["stream"]:
        return await stream(request, _chunks(asked, request), service.config.stall, UNENDED)
    with submit_requests(service, asked.requests, request[TOKEN_COUNTS], slot=values["id_slot"]) as answers:
        texts = [""] * len(asked.requests)
        tokens: list[list[Token]] = [[] for _ in asked.requests]
        async for i, update in _timely(answers, values["t_max_predict_ms"] / 1000):
            texts[i] += update.text
            tokens[i] += _told(update.tokens, answers.all[i])

        def whole() -> Any:
            listed = [_last(asked, answers, i, texts[i], tokens[i]) for i in range(len(asked.requests))]
            return listed[0] if len(listed) == 1 else listed

        return await in_one_piece(whole, answers.numbers)


async def _chunks(asked: Asked, request: web.Request) -> Items:
    with submit_requests(asked.service, asked.requests, request[TOKEN_COUNTS], slot=asked.values["id_slot"]) as answers:
        async for i, update in _timely(answers, asked.values["t_max_predict_ms"] / 1000):
            piece = {"index": i, "content": "", "tokens": [], "stop": False}
            for report in progress(answers, answers.all[i], update):
                yield piece | report
            told = _told(update.tokens, answers.all[i])
            if update.text or told:
                piece |= {"content": update.text, "tokens": [t.id for t in told]}
                yield piece | _probabilities(answers.model.tokenizer, asked.values, told)
            if update.reason:
                yield _last(asked, answers, i, "", [])


async def _timely(answers: Answers, limit: float) -> AsyncIterator[tuple[int, Update]]:
    """The updates; a sequence that has a line break ends `limit` seconds after its first token; 0: it does not."""
    async for i, update in answers.updates():
        yield i, update
        answer = answers.all[i]
        if limit and answer.multiline and not answer.ended and time.perf_counter() - answer.first > limit:
            yield i, answers.cut(i)


def _last(asked: Asked, answers: Answers, i: int, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
    """llama.cpp's whole answer, with which a stream ends, too."""
    answer, model, values = answers.all[i], answers.model, asked.values
    length = len(answer.request.ids) + answer.generated
    cut_off = length == model.context and answer.generated < answer.request.params.max_tokens
    whole = {
        "index": i,
        "content": text,
        "tokens": [t.id for t in tokens] if values["return_tokens"] else [],
        "id_slot": answer.slot,
        "stop": True,
        "model": asked.service.name,
        "tokens_predicted": answer.generated,
        "tokens_evaluated": len(answer.request.ids),
        "tokens_cached": answer.cached,
        "prompt": asked.prompts[i],
        "has_new_line": answer.multiline,
        "truncated": length > model.context or cut_off,
        "stop_type": _stop_type(answer),
        "stopping_word": answer.stopping_word,
        "generation_settings": settings(model, answer.request.params),
        "timings": timings(answers, answer),
        **_probabilities(model.tokenizer, values, tokens),
    }
    return _only(whole, values["response_fields"]) if values["response_fields"] else whole


def _only(whole: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The fields at these paths ("timings/prompt_n"), under the paths as names; what is not there is left out."""
    found = {}
    for path in paths:
        at: Any = whole
        for key in path.split("/"):
            at = at.get(key, _ABSENT) if isinstance(at, dict) else _ABSENT
        if at is not _ABSENT:
            found[path] = at
    return found


def _stop_type(answer: Answer) -> str:
    if answer.stopping_word:
        return "word"
    return "eos" if answer.reason == "stop" else "limit"


def _told(tokens: Sequence[Token], answer: Answer) -> list[Token]:
    """llama.cpp does not list the end token."""
    return [t for t in tokens if t is not answer.end]


def _probabilities(tokenizer: Tokenizer, values: dict[str, Any], tokens: Sequence[Token]) -> dict[str, Any]:
    """Of the model, as logarithms; or of what was drawn from, where tokens that could not be drawn are left out."""
    if not values["n_probs"]:
        return {}
    drawn = values["post_sampling_probs"]
    name = "top_probs" if drawn else "top_logprobs"

    def one(entry: Logprob | TokenLogprobs) -> dict[str, Any]:
        raw = list(data(tokenizer, entry.id))
        likely = {"prob": math.exp(entry.logprob)} if drawn else {"logprob": bounded(entry.logprob)}
        return {"id": entry.id, "token": spell(tokenizer, entry.id), "bytes": raw} | likely

    listed = []
    for entry in (t.logprobs for t in tokens):
        if entry is not None:
            top = [one(best) for best in entry.top if not drawn or math.exp(best.logprob)]
            listed.append(one(entry) | {name: top})
    return {"completion_probabilities": listed}


def _read(service: Service, values: dict[str, Any], start: response_format.Start | None, ids_of: ReadPrompts) -> Asked:
    """Beside the event loop: tokenizing takes a while."""
    model, most, n = service.model, service.config.max_prompts, values["n_cmpl"]
    params = _params(model, values)
    found = ids_of(model, values, most)
    if len(found) * n > most:
        raise ApiError(f"n_cmpl: {len(found)} prompts times {n} are more than {most}", param="n_cmpl")
    shown = values["stream"] and values["return_progress"]
    requests = [
        Request(ids, seeded(params, i), constraint=start, progress=shown, shift=_shift(model, values, ids))
        for ids in found
        for i in range(n)
    ]
    for request in requests[::n]:  # before ids are looked up that are none
        model.driver.engine.check(request)
    prompts = [model.tokenizer.decode(ids, special=True) for ids in found]
    return Asked(service, requests, [prompt for prompt in prompts for _ in range(n)], values)


def _shift(model: Model, values: dict[str, Any], ids: list[int]) -> ContextShift:
    """A begin token is kept beside the tokens that are counted."""
    keep = values["n_keep"]
    begins = keep >= 0 and model.tokenizer.add_bos and ids[:1] == [model.tokenizer.bos_id]
    return ContextShift(keep + begins, values["n_discard"])


def _params(model: Model, values: dict[str, Any]) -> SamplingParams:
    limits = [values[name] for name in ("n_predict", "max_tokens") if values[name] is not None]
    named = {name: values[name] for name in SAMPLING} | {"logit_bias": _bias(model, values["logit_bias"])}
    return SamplingParams(
        max_tokens=limits[0] if limits else UNLIMITED,
        logprobs=values["n_probs"] or None,
        sampled_logprobs=values["post_sampling_probs"],
        **named,
    )


def default_settings(service: Service) -> dict[str, Any]:
    """`settings` of a request to /completion that says nothing."""
    return settings(service.model, _params(service.model, parsed(service, COMPLETION, {})))


def _bias(model: Model, given: Sequence[tuple[int | str, float]]) -> tuple[tuple[int, float], ...]:
    """By ids; a text means each of its tokens."""
    listed = [
        ([key] if isinstance(key, int) else model.tokenizer.encode(key, bos=False), value) for key, value in given
    ]
    return tuple((token, value) for ids, value in listed for token in ids)


def _prompts(model: Model, values: dict[str, Any], most: int) -> list[list[int]]:
    return llama_prompts(model, needed(values, "prompt"), most)


def _holes(model: Model, values: dict[str, Any], _: int) -> list[list[int]]:
    before, after = needed(values, "input_prefix"), needed(values, "input_suffix")
    files, answer = values["input_extra"], _params(model, values).max_tokens
    return [fill_in(model, before, after, files=files, answer=answer, more=values["prompt"], name="input_suffix")]
