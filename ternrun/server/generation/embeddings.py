"""Computes embeddings of texts and writes the vectors as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from ternrun.runtime.config import Pooling, SamplingParams
from ternrun.runtime.engine.request import Request
from ternrun.server.generation.prompts import encode, encode_truncated, openai_prompts
from ternrun.server.generation.service import Service
from ternrun.server.generation.submission import TOKEN_COUNTS, Answers, submit_requests
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


def unit(vector: Vector, norm: int) -> Vector:
    """The vector divided by its p-norm, p = `norm`; -1: unchanged; 0: with a largest value of 32760 (llama.cpp)."""
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
    """Run the texts to their end. Raises ApiError."""
    requests = await service.read(request, partial(_read, service.model, given, pooling, name, cut))
    with submit_requests(service, requests, request[TOKEN_COUNTS]) as answers:
        async for _ in answers.updates():
            pass
    return answers


def _read(model: Model, given: Any, pooling: Pooling, name: str, cut: bool) -> list[Request]:
    prompts = openai_prompts(given, MAX_INPUTS, name)
    ids_of = encode_truncated if cut else partial(encode, eos=True)
    requests = [Request(ids_of(model, prompt), SamplingParams(max_tokens=0), pooling=pooling) for prompt in prompts]
    if pooling == "none" and sum(len(r.ids) for r in requests) * model.config.dim > MAX_NUMBERS:
        raise ApiError(f"{name}: without pooling, an answer may hold {MAX_NUMBERS} numbers at most", param=name)
    return requests


def _pooling(service: Service, *, none: bool = False) -> Pooling:
    """The pooling of the server or the model. Raises ApiError if neither states one."""
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
    """Write vectors one by one, because writing many at once would block all other threads."""
    return [write(vector) for vector in vectors]


def _writer(values: dict[str, Any]) -> Write:
    return _base64 if values["encoding_format"] == "base64" else _floats


def _floats(vector: Vector) -> str:
    return json.dumps(vector.tolist(), separators=(",", ":"), allow_nan=False)


def _base64(vector: Vector) -> str:
    return json.dumps(base64.b64encode(vector.astype("<f4").tobytes()).decode())


def _json(body: str) -> web.Response:
    return web.Response(text=body, content_type="application/json")
