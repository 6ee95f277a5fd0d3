"""llama.cpp's POST /completion and /infill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.request import Request
from ternrun.server import structure
from ternrun.server.access import TOLD
from ternrun.server.answers import Answer, Answers, Token, Update, asking
from ternrun.server.fields import Table, flag, logit_bias, number, optional, read_fields, shaped, stops, text, whole
from ternrun.server.problems import ApiError
from ternrun.server.prompts import encode, fill_in
from ternrun.server.schema import MAX_CHOICES, MAX_LOGPROBS, UNLIMITED, Fields, length, needed, seeded
from ternrun.server.service import Service
from ternrun.server.shapes import bounded, data, spell
from ternrun.server.stream import UNENDED, Items, stream

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.loader.tokenizer import Tokenizer

SAMPLING: Fields = {  # llama.cpp's defaults
    "temperature": (number(0, 100), 0.8),
    "top_k": (optional(whole(0, UNLIMITED), -1, 0), 40),
    "top_p": (number(0, 1), 0.95),
    "min_p": (number(0, 1), 0.05),
    "typical_p": (number(0, 1), 1.0),
    "repeat_penalty": (number(0.01, 100), 1.0),
    "repeat_last_n": (whole(-1, UNLIMITED), 64),
    "presence_penalty": (number(-100, 100), 0.0),
    "frequency_penalty": (number(-100, 100), 0.0),
    "seed": (optional(whole(0, 2**64 - 1), -1), None),
    "stop": (stops, ()),
    "ignore_eos": (flag, False),
    "logit_bias": (logit_bias, ()),
}

MAX_FIELDS, MAX_SNIPPETS = 64, 1024
_ABSENT = object()
ReadPrompts = Callable[["Model", dict[str, Any], int], list[list[int]]]


def _fields(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_FIELDS or not all(isinstance(v, str) for v in value):
        raise ValueError(f"must be a list of at most {MAX_FIELDS} names")
    return tuple(value)


def _snippets(value: Any) -> tuple[str, ...]:
    listed: list[Any] = value if isinstance(value, list) and len(value) <= MAX_SNIPPETS else [None]
    if not all(isinstance(v, dict) and isinstance(v.get("text"), str) for v in listed):
        raise ValueError(
            f'must be a list of at most {MAX_SNIPPETS} objects such as {{"text": "...", "filename": "..."}}'
        )
    return tuple(v["text"] for v in listed)


COMPLETION = Table(
    read={
        **SAMPLING,
        "prompt": (shaped({"type": ["string", "array"]}), None),
        "n_predict": (length, None),
        "max_tokens": (length, None),
        "n_probs": (whole(0, MAX_LOGPROBS), 0),
        "stream": (flag, False),
        "return_tokens": (flag, False),
        "n_cmpl": (whole(1, MAX_CHOICES), 1),
        "t_max_predict_ms": (optional(whole(0, UNLIMITED), -1, 0), 0),
        "response_fields": (_fields, ()),
        **structure.LLAMA,
    },
    ignored=frozenset(("cache_prompt", "id_slot", "timings_per_token", "return_progress", "model", "user")),
    refused={  # beside values that turn it off
        "dynatemp_range": (0, 0.0), "dynatemp_exponent": (1, 1.0), "xtc_probability": (0, 0.0),
        "xtc_threshold": (0.1,), "dry_multiplier": (0, 0.0), "dry_base": (1.75,), "dry_allowed_length": (2,),
        "dry_penalty_last_n": (-1,), "dry_sequence_breakers": (), "mirostat": (0,), "mirostat_tau": (5, 5.0),
        "mirostat_eta": (0.1,), "top_n_sigma": (-1, -1.0), "min_keep": (0,), "n_keep": (0,), "n_discard": (0,),
        "n_indent": (0,), "samplers": (), "post_sampling_probs": (False,),
        "lora": ([],), "image_data": ([],),
    },
)  # fmt: skip


INFILL = replace(
    COMPLETION,
    read={
        **COMPLETION.read,
        "prompt": (text, ""),
        "input_prefix": (text, None),
        "input_suffix": (text, None),
        "input_extra": (_snippets, ()),
    },
)


async def completion(request: web.Request, service: Service) -> web.StreamResponse:
    """Continue a text, as llama.cpp does."""
    return await _answer(request, service, COMPLETION, _prompts)


async def infill(request: web.Request, service: Service) -> web.StreamResponse:
    """Write the text between two others, where the model has the tokens for that."""
    return await _answer(request, service, INFILL, _holes)


async def _answer(request: web.Request, service: Service, table: Table, ids_of: ReadPrompts) -> web.StreamResponse:
    model = service.model
    values = await read_fields(request, service, table)
    start = await structure.constraint(service, values, structure.LLAMA)
    requests = await asyncio.to_thread(_read, model, values, service.config.max_prompts, start, ids_of)
    if values["stream"]:
        return await stream(request, _chunks(service, values, requests, request), service.config.stall, UNENDED)
    with asking(service, requests, request[TOLD]) as answers:
        texts = [""] * len(requests)
        tokens: list[list[Token]] = [[] for _ in requests]
        async for i, update in _timely(answers, values["t_max_predict_ms"] / 1000):
            texts[i] += update.text
            tokens[i] += _told(update.tokens, answers.all[i])
        listed = [_last(service, model, answers, i, values, texts[i], tokens[i]) for i in range(len(requests))]
    if len(listed) == 1:
        return web.json_response(listed[0])
    return web.json_response(listed)


async def _chunks(service: Service, values: dict[str, Any], requests: list[Request], request: web.Request) -> Items:
    model = service.model
    with asking(service, requests, request[TOLD]) as answers:
        async for i, update in _timely(answers, values["t_max_predict_ms"] / 1000):
            told = _told(update.tokens, answers.all[i])
            if update.text or told:
                piece = {"index": i, "content": update.text, "tokens": [t.id for t in told], "stop": False}
                yield piece | _probabilities(model.tokenizer, values, told)
            if update.reason:
                yield _last(service, model, answers, i, values, "", [])


async def _timely(answers: Answers, limit: float) -> AsyncIterator[tuple[int, Update]]:
    """The updates; a sequence that has a line break ends `limit` seconds after its first token; 0: it does not."""
    lines: set[int] = set()  # those that have a line break
    async for i, update in answers.updates():
        yield i, update
        lines |= {i} if limit and "\n" in update.text else set()
        answer = answers.all[i]
        if i in lines and not answer.ended and time.perf_counter() - answer.first > limit:
            yield i, answers.cut(i)


def _last(
    service: Service, model: Model, answers: Answers, i: int, values: dict[str, Any], text: str, tokens: Sequence[Token]
) -> dict[str, Any]:
    """llama.cpp's whole answer, with which a stream ends, too."""
    answer = answers.all[i]
    whole = {
        "index": i,
        "content": text,
        "tokens": [t.id for t in tokens] if values["return_tokens"] else [],
        "id_slot": -1,
        "stop": True,
        "model": service.name,
        "tokens_predicted": answer.generated,
        "tokens_evaluated": len(answer.request.ids),
        "tokens_cached": answer.cached,
        "truncated": False,
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


def settings(model: Model, params: SamplingParams) -> dict[str, Any]:
    """The sampling of a request, under llama.cpp's names."""
    named = {name: value for name, value in asdict(params).items() if name in SAMPLING}
    bias = [{"id": i, "bias": value if value > -1e9 else False} for i, value in params.logit_bias]
    limit = -1 if params.max_tokens == UNLIMITED else params.max_tokens
    return named | {"n_predict": limit, "n_ctx": model.context, "logit_bias": bias, "n_probs": params.logprobs or 0}


def timings(answers: Answers, answer: Answer) -> dict[str, Any]:
    """Milliseconds and tokens a second; the wait in the queue counts for the prompt."""
    prompt_n, n = len(answer.request.ids) - answer.cached, answer.generated
    prompt_s = (answer.first or time.perf_counter()) - answers.began
    decode_s = answer.last - answer.first
    return {
        "cache_n": answer.cached,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_s * 1000,
        "prompt_per_second": prompt_n / prompt_s if prompt_s else 0.0,
        "predicted_n": n,
        "predicted_ms": decode_s * 1000,
        "predicted_per_second": (n - 1) / decode_s if decode_s > 0 else 0.0,
    }


def _stop_type(answer: Answer) -> str:
    if answer.stopping_word:
        return "word"
    return "eos" if answer.reason == "stop" else "limit"


def _told(tokens: Sequence[Token], answer: Answer) -> list[Token]:
    """llama.cpp does not list the end token."""
    return [t for t in tokens if t is not answer.end]


def _probabilities(tokenizer: Tokenizer, values: dict[str, Any], tokens: Sequence[Token]) -> dict[str, Any]:
    if not values["n_probs"]:
        return {}
    listed = []
    for entry in (t.logprobs for t in tokens):
        if entry is not None:
            top = [_one(tokenizer, best.id, best.logprob) for best in entry.top]
            listed.append(_one(tokenizer, entry.id, entry.logprob) | {"top_logprobs": top})
    return {"completion_probabilities": listed}


def _one(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    raw = list(data(tokenizer, token))
    return {"id": token, "token": spell(tokenizer, token), "bytes": raw, "logprob": bounded(logprob)}


def _read(
    model: Model, values: dict[str, Any], most: int, start: structure.Start | None, ids_of: ReadPrompts
) -> list[Request]:
    limits = [values[name] for name in ("n_predict", "max_tokens") if values[name] is not None]
    named = {name: values[name] for name in SAMPLING}
    limit = limits[0] if limits else UNLIMITED
    params = SamplingParams(max_tokens=limit, logprobs=values["n_probs"] or None, **named)
    prompts, n = ids_of(model, values, most), values["n_cmpl"]
    if len(prompts) * n > most:
        raise ApiError(f"n_cmpl: {len(prompts)} prompts times {n} are more than {most}", param="n_cmpl")
    return [Request(ids, seeded(params, i), constraint=start) for ids in prompts for i in range(n)]


def _holes(model: Model, values: dict[str, Any], _: int) -> list[list[int]]:
    """Snippets of other files come first, as llama.cpp writes them for models without tokens of their own for that."""
    before, after = needed(values, "input_prefix"), needed(values, "input_suffix")
    context = "".join(f"\n\n--- snippet ---\n\n{snippet}" for snippet in values["input_extra"])
    return [fill_in(model, before, after, context=context, more=values["prompt"], name="input_suffix")]


def _prompts(model: Model, values: dict[str, Any], most: int) -> list[list[int]]:
    """llama.cpp's forms: a string, a list of ids, ids and strings mixed, or a list of any of these."""
    prompt = needed(values, "prompt")
    if isinstance(prompt, list) and not any(type(part) is int for part in prompt):
        if not 0 < len(prompt) <= most:
            raise ApiError(f"prompt: from 1 to {most} prompts may be asked at once", param="prompt")
        return [_ids(model, one) for one in prompt]
    return [_ids(model, prompt)]


def _ids(model: Model, prompt: Any) -> list[int]:
    if isinstance(prompt, str):
        return encode(model, prompt)
    if not isinstance(prompt, list) or not all(isinstance(p, str) or type(p) is int for p in prompt):
        raise ApiError("prompt: must be a string, a list of token ids and strings, or a list of these", param="prompt")
    ids: list[int] = []
    for i, part in enumerate(prompt):
        ids += [part] if isinstance(part, int) else encode(model, part, bos=i == 0)
    return ids
