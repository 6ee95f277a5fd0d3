"""Ollama's POST /api/embed and /api/embeddings."""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import web

from ternrun.server.fields.reading import FieldTable, any_value, boolean, integer, string
from ternrun.server.fields.sampling import needed
from ternrun.server.fields.unsupported import OLLAMA_EMBED_HINTS
from ternrun.server.generation.embeddings import (
    _ask,
    _check_dimensions,
    _each,
    _floats,
    _json,
    _pooling,
    _units,
    _vectors,
)
from ternrun.server.generation.request_fields import read_fields
from ternrun.server.generation.service import Service

EMBED = FieldTable(
    read={
        "input": (any_value, None),
        "model": (string, ""),
        "truncate": (boolean, True),
        "dimensions": (integer(1, 2**24), None),
    },
    hints=OLLAMA_EMBED_HINTS,
)


EMBEDDINGS = FieldTable(
    read={"prompt": (string, None), "model": (string, "")},
    hints=OLLAMA_EMBED_HINTS,
)


async def embed(request: web.Request, service: Service) -> web.Response:
    """A vector of length 1 for each input; one that is too long is cut, unless `truncate` is false."""
    began = time.perf_counter()
    values = await read_fields(request, service, EMBED)
    _check_dimensions(service, values)
    answers = await _ask(request, service, needed(values, "input"), _pooling(service), cut=values["truncate"])
    listed = await asyncio.to_thread(_each, _units(answers, 2), _floats)
    times = {"total_duration": int((time.perf_counter() - began) * 1e9), "load_duration": 0}
    tail = times | {"prompt_eval_count": answers.usage[0]}
    return _json(f'{{"model":{json.dumps(service.name)},"embeddings":[{",".join(listed)}],{json.dumps(tail)[1:]}')


async def embeddings(request: web.Request, service: Service) -> web.Response:
    """The vector of one text, as it is (Ollama's older route)."""
    values = await read_fields(request, service, EMBEDDINGS)
    answers = await _ask(request, service, needed(values, "prompt"), _pooling(service), "prompt", cut=True)
    (written,) = await asyncio.to_thread(_each, _vectors(answers), _floats)
    return _json(f'{{"embedding":{written}}}')
