"""llama.cpp's POST /embedding and /embeddings."""

from __future__ import annotations

import asyncio

import numpy as np
from aiohttp import web

from ternrun.server.fields.reading import FieldTable, any_value, integer, string
from ternrun.server.fields.sampling import needed
from ternrun.server.fields.unsupported import OPENAI_HINTS
from ternrun.server.generation.embeddings import (
    _ask,
    _each,
    _format,
    _json,
    _pooling,
    _vectors,
    _writer,
    unit,
)
from ternrun.server.generation.request_fields import read_fields
from ternrun.server.generation.service import Service

EMBEDDINGS = FieldTable(
    read={
        "content": (any_value, None),
        "input": (any_value, None),
        "model": (string, ""),
        "encoding_format": (_format, "float"),
        "embd_normalize": (integer(-1, 100), 2),
    },
    hints=OPENAI_HINTS,
)


async def embeddings(request: web.Request, service: Service) -> web.Response:
    """A list of vectors for each input: one, or without pooling one a token, which are not normalized."""
    values = await read_fields(request, service, EMBEDDINGS)
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
