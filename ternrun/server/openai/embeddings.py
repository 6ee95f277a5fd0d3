"""Embeddings: OpenAI's /v1/embeddings, llama.cpp's /embedding and /embeddings, Ollama's /api/embed."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from ternrun.runtime.config import Pooling, SamplingParams
from ternrun.runtime.engine.request import Request
from ternrun.server.app.log import TOLD
from ternrun.server.fields.reading import Table, anything, flag, read_fields, text, whole
from ternrun.server.fields.sampling import needed
from ternrun.server.fields.unsupported import OLLAMA_EMBED_HINTS, OPENAI_HINTS
from ternrun.server.generation.answers import Answers, asking
from ternrun.server.generation.prompts import encode, openai_prompts, shortened
from ternrun.server.generation.service import Service
from ternrun.server.http.errors import ApiError

if TYPE_CHECKING:
    from ternrun.api import Model

MAX_INPUTS = 2048
MAX_NUMBERS = 1 << 22  # of an answer without pooling
Vector = NDArray[np.float32]
Write = Callable[[Vector], str]  # a vector as JSON


def _format(value: Any) -> str:
    if value not in ("float", "base64"):
        raise ValueError("must be float or base64")
    return str(value)


OPENAI = Table(
    read={
        "input": (anything, None),
        "model": (text, ""),
        "encoding_format": (_format, "float"),
        "dimensions": (whole(1, 2**24), None),
    },
    hints=OPENAI_HINTS,
)
LLAMA = Table(
    read={
        "content": (anything, None),
        "input": (anything, None),
        "model": (text, ""),
        "encoding_format": (_format, "float"),
        "embd_normalize": (whole(-1, 100), 2),
    },
    hints=OPENAI_HINTS,
)
OLLAMA = Table(
    read={
        "input": (anything, None),
        "model": (text, ""),
        "truncate": (flag, True),
        "dimensions": (whole(1, 2**24), None),
    },
    hints=OLLAMA_EMBED_HINTS,
)

OLLAMA_ONE = Table(
    read={"prompt": (text, None), "model": (text, "")},
    hints=OLLAMA_EMBED_HINTS,
)


async def openai(request: web.Request, service: Service) -> web.Response:
    """A vector of length 1 for each input."""
    values = await read_fields(request, service, OPENAI)
    _check_dimensions(service, values)
    answers = await _ask(request, service, needed(values, "input"), _pooling(service))
    listed = await asyncio.to_thread(_each, _units(answers, 2), _writer(values))
    data = [f'{{"object":"embedding","index":{i},"embedding":{one}}}' for i, one in enumerate(listed)]
    prompt = answers.usage[0]
    tail = {"model": service.name, "usage": {"prompt_tokens": prompt, "total_tokens": prompt}}
    return _json(f'{{"object":"list","data":[{",".join(data)}],{json.dumps(tail)[1:]}')


async def llama(request: web.Request, service: Service) -> web.Response:
    """A list of vectors for each input: one, or without pooling one a token, which are not normalized."""
    values = await read_fields(request, service, LLAMA)
    name = "input" if values["content"] is None else "content"
    pooling = _pooling(service, none=True)
    answers = await _ask(request, service, needed(values, name), pooling, name)
    norm = -1 if pooling == "none" else values["embd_normalize"]
    listed = []
    for i, vectors in enumerate(_vectors(answers)):
        units = [unit(vector, norm) for vector in np.atleast_2d(vectors)]
        written = await asyncio.to_thread(_each, units, _writer(values))
        listed.append(f'{{"index":{i},"embedding":[{",".join(written)}]}}')
    return _json(f"[{','.join(listed)}]")


async def ollama(request: web.Request, service: Service) -> web.Response:
    """A vector of length 1 for each input; one that is too long is cut, unless `truncate` is false."""
    began = time.perf_counter()
    values = await read_fields(request, service, OLLAMA)
    _check_dimensions(service, values)
    answers = await _ask(request, service, needed(values, "input"), _pooling(service), cut=values["truncate"])
    listed = await asyncio.to_thread(_each, _units(answers, 2), _floats)
    times = {"total_duration": int((time.perf_counter() - began) * 1e9), "load_duration": 0}
    tail = times | {"prompt_eval_count": answers.usage[0]}
    return _json(f'{{"model":{json.dumps(service.name)},"embeddings":[{",".join(listed)}],{json.dumps(tail)[1:]}')


async def ollama_one(request: web.Request, service: Service) -> web.Response:
    """The vector of one text, as it is (Ollama's older route)."""
    values = await read_fields(request, service, OLLAMA_ONE)
    answers = await _ask(request, service, needed(values, "prompt"), _pooling(service), "prompt", cut=True)
    (written,) = await asyncio.to_thread(_each, _vectors(answers), _floats)
    return _json(f'{{"embedding":{written}}}')


def unit(vector: Vector, norm: int) -> Vector:
    """Divided by its p-norm, p being `norm`; -1: as it is; 0: so that the largest is 32760 (llama.cpp)."""
    if norm < 0:
        return vector
    wide = vector.astype(np.float64)
    largest = float(np.abs(wide).max())
    if not largest:
        return vector
    size = largest / 32760 if norm == 0 else largest * float(((np.abs(wide) / largest) ** norm).sum()) ** (1 / norm)
    return (wide / size).astype(np.float32)


async def _ask(
    request: web.Request, service: Service, given: Any, pooling: Pooling, name: str = "input", *, cut: bool = False
) -> Answers:
    """Run it to its end. Raises ApiError."""
    requests = await service.read(request, partial(_read, service.model, given, pooling, name, cut))
    with asking(service, requests, request[TOLD]) as answers:
        async for _ in answers.updates():
            pass
    return answers


def _read(model: Model, given: Any, pooling: Pooling, name: str, cut: bool) -> list[Request]:
    prompts = openai_prompts(given, MAX_INPUTS, name)
    ids_of = shortened if cut else partial(encode, eos=True)
    requests = [Request(ids_of(model, prompt), SamplingParams(max_tokens=0), pooling=pooling) for prompt in prompts]
    if pooling == "none" and sum(len(r.ids) for r in requests) * model.config.dim > MAX_NUMBERS:
        raise ApiError(f"{name}: without pooling, an answer may hold {MAX_NUMBERS} numbers at most", param=name)
    return requests


def _pooling(service: Service, *, none: bool = False) -> Pooling:
    """Raises ApiError where one vector is wanted, and nobody says which."""
    pooling: Pooling = service.config.pooling or service.model.config.pooling  # type: ignore[assignment]
    if pooling == "none" and not none:
        raise ApiError(
            "this model's file names no pooling; start the server with --pooling mean, cls or last", code="unsupported"
        )
    return pooling


def _check_dimensions(service: Service, values: dict[str, Any]) -> None:
    dim = service.model.config.dim
    if values["dimensions"] not in (None, dim):
        raise ApiError(f"dimensions: this model's vectors have {dim}", param="dimensions", code="unsupported")


def _vectors(answers: Answers) -> list[Vector]:
    return [answer.embedding for answer in answers.all if answer.embedding is not None]


def _units(answers: Answers, norm: int) -> list[Vector]:
    return [unit(vector, norm) for vector in _vectors(answers)]


def _each(vectors: list[Vector], write: Write) -> list[str]:
    """One by one: to write many at once would keep all other threads waiting."""
    return [write(vector) for vector in vectors]


def _writer(values: dict[str, Any]) -> Write:
    return _base64 if values["encoding_format"] == "base64" else _floats


def _floats(vector: Vector) -> str:
    return json.dumps(vector.tolist(), separators=(",", ":"), allow_nan=False)


def _base64(vector: Vector) -> str:
    return json.dumps(base64.b64encode(vector.astype("<f4").tobytes()).decode())


def _json(body: str) -> web.Response:
    return web.Response(text=body, content_type="application/json")
