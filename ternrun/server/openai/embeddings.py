"""Embeddings: OpenAI's /v1/embeddings, llama.cpp's /embedding and /embeddings, Ollama's /api/embed."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from ternrun.server.fields.reading import FieldTable, any_value, integer, string
from ternrun.server.fields.sampling import needed
from ternrun.server.fields.unsupported import OPENAI_HINTS
from ternrun.server.generation.embeddings import (
    _ask,
    _check_dimensions,
    _each,
    _format,
    _json,
    _pooling,
    _units,
    _writer,
)
from ternrun.server.generation.request_fields import read_fields
from ternrun.server.generation.service import Service

EMBEDDINGS = FieldTable(
    read={
        "input": (any_value, None),
        "model": (string, ""),
        "encoding_format": (_format, "float"),
        "dimensions": (integer(1, 2**24), None),
    },
    hints=OPENAI_HINTS,
)


async def embeddings(request: web.Request, service: Service) -> web.Response:
    """A vector of length 1 for each input."""
    values = await read_fields(request, service, EMBEDDINGS)
    _check_dimensions(service, values)
    answers = await _ask(request, service, needed(values, "input"), _pooling(service))
    listed = await asyncio.to_thread(_each, _units(answers, 2), _writer(values))
    data = [f'{{"object":"embedding","index":{i},"embedding":{one}}}' for i, one in enumerate(listed)]
    prompt = answers.usage[0]
    tail = {"model": service.name, "usage": {"prompt_tokens": prompt, "total_tokens": prompt}}
    return _json(f'{{"object":"list","data":[{",".join(data)}],{json.dumps(tail)[1:]}')
