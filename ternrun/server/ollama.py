"""Ollama's POST /api/generate and /api/chat, GET /api/tags and /api/version: JSON lines, times in nanoseconds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.request import Request
from ternrun.server import structure
from ternrun.server.access import TOLD
from ternrun.server.answers import Answers, asking
from ternrun.server.calls import markers
from ternrun.server.chat import Calling, Choice, calling_of, constraint
from ternrun.server.fields import Table, anything, flag, number, optional, read_json, shaped, stops, text, whole
from ternrun.server.functions import Tools, read_tools
from ternrun.server.llama import timings
from ternrun.server.models import SERVICES
from ternrun.server.prompts import encode, fill_in, render
from ternrun.server.schema import MESSAGES, UNLIMITED, Fields, needed
from ternrun.server.service import Service
from ternrun.server.stream import Items, lines

if TYPE_CHECKING:
    from ternrun.api import Model

SAMPLING: Fields = {  # Ollama's defaults
    "temperature": (number(0, 100), 0.8),
    "top_k": (optional(whole(0, UNLIMITED), -1, 0), 40),
    "top_p": (number(0, 1), 0.9),
    "min_p": (number(0, 1), 0.0),
    "typical_p": (number(0, 1), 1.0),
    "repeat_penalty": (number(0.01, 100), 1.1),
    "repeat_last_n": (whole(-1, UNLIMITED), 64),
    "presence_penalty": (number(-100, 100), 0.0),
    "frequency_penalty": (number(-100, 100), 0.0),
    "seed": (optional(whole(0, 2**64 - 1), -1), None),
    "stop": (stops, ()),
}
OPTIONS = Table(
    read={**SAMPLING, "num_predict": (whole(-2, UNLIMITED), -1)},
    ignored=frozenset(  # what the server was started with decides
        ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "numa", "low_vram")
    ),
    refused={"mirostat": (0,), "mirostat_tau": (5, 5.0), "mirostat_eta": (0.1,), "tfs_z": (1, 1.0), "num_keep": (0,)},
)
_BOTH: Fields = {
    "model": (text, ""),
    "stream": (flag, True),
    "options": (shaped({"type": "object"}), {}),
    **structure.OLLAMA,
}
_REFUSED: dict[str, tuple[Any, ...]] = {"think": (False,), "images": ([],), "logprobs": (False,)}

GENERATE = Table(
    read={
        **_BOTH,
        "prompt": (text, None),
        "system": (optional(text, ""), None),
        "suffix": (optional(text, ""), None),
        "raw": (flag, False),
    },
    ignored=frozenset(("keep_alive",)),
    refused={**_REFUSED, "template": ("",), "context": ([],)},
)
CHAT = Table(
    read={**_BOTH, "messages": (shaped(MESSAGES), None), "tools": (anything, None)},
    ignored=frozenset(("keep_alive",)),
    refused=_REFUSED,
)


async def generate(request: web.Request, service: Service) -> web.StreamResponse:
    """One message, or, with `raw` and where the model has no template, a text that goes on."""
    return await _answer(request, service, GENERATE, _generate, lambda piece, _: {"response": piece})


async def chat(request: web.Request, service: Service) -> web.StreamResponse:
    """A conversation goes on."""
    return await _answer(request, service, CHAT, _chat, _message)


async def tags(request: web.Request, _service: Service) -> web.Response:
    """The one model there is."""
    return web.json_response({"models": [_entry(service) for service in request.app[SERVICES].all]})


def _entry(service: Service) -> dict[str, Any]:
    family = service.model.config.architecture
    entry = {"name": service.name, "model": service.name, "modified_at": _time(service.started)}
    return entry | {"details": {"family": family, "families": [family]}}


async def version(_request: web.Request, _service: Service) -> web.Response:
    """Ours, not Ollama's; 0.0.0 where a checkout runs that is not installed."""
    try:
        ours = installed("ternrun")
    except PackageNotFoundError:
        ours = "0.0.0"
    return web.json_response({"version": ours})


async def _answer(request: web.Request, service: Service, table: Table, ids_of: Any, wrap: Any) -> web.StreamResponse:
    model, pass_unknown = service.model, service.config.ignore_unknown_fields
    body = await read_json(request, service.config.stall)
    values = table.parse(body, ignore_unknown=pass_unknown)
    options = OPTIONS.parse(values["options"], ignore_unknown=pass_unknown)
    limit = options["num_predict"]
    params = SamplingParams(max_tokens=UNLIMITED if limit < 0 else limit, **{name: options[name] for name in SAMPLING})
    start = await structure.constraint(service, values, structure.OLLAMA)
    tools = read_tools({"tools": values.get("tools"), "tool_choice": "auto", "parallel_tool_calls": True})
    calling = await asyncio.to_thread(calling_of, model, tools)
    if calling:
        start = await constraint(service, calling, start)
    asked = Request(await asyncio.to_thread(ids_of, model, values, tools), params, constraint=start)
    if values["stream"]:
        return await lines(request, _pieces(service, asked, request, wrap, calling), service.config.stall)
    with _asking(service, asked, request, calling) as (answers, choice):
        async for _, update in answers.updates():
            choice.add(update)
        return web.json_response(_head(service) | wrap(choice.content, choice.calls) | _last(answers))


async def _pieces(service: Service, asked: Request, request: web.Request, wrap: Any, calling: Calling | None) -> Items:
    with _asking(service, asked, request, calling) as (answers, choice):
        async for _, update in answers.updates():
            text, calls = choice.add(update)
            if text or calls:
                yield _head(service) | wrap(text, calls) | {"done": False}
        yield _head(service) | wrap("", []) | _last(answers)


@contextmanager
def _asking(
    service: Service, asked: Request, request: web.Request, calling: Calling | None
) -> Iterator[tuple[Answers, Choice]]:
    tokenizer = service.model.tokenizer
    shown = markers(calling.family, tokenizer) if calling else {}
    with asking(service, [asked], request[TOLD], shown) as answers:
        yield answers, Choice(tokenizer, 0, calling, logprobs=False)


def _message(text: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        functions = [call["function"] for call in calls]
        message["tool_calls"] = [{"function": f | {"arguments": json.loads(f["arguments"])}} for f in functions]
    return {"message": message}


def _generate(model: Model, values: dict[str, Any], _: Tools | None) -> list[int]:
    prompt = needed(values, "prompt")
    if values["suffix"] is not None:
        return fill_in(model, prompt, values["suffix"])
    if values["raw"] or model.chat_template is None:
        return encode(model, prompt)
    system = [{"role": "system", "content": values["system"]}] if values["system"] else []
    return encode(model, render(model, [*system, {"role": "user", "content": prompt}]))


def _chat(model: Model, values: dict[str, Any], tools: Tools | None) -> list[int]:
    return encode(model, render(model, needed(values, "messages"), tools=tools))


def _head(service: Service) -> dict[str, Any]:
    return {"model": service.name, "created_at": _time()}


def _last(answers: Answers) -> dict[str, Any]:
    (answer,) = answers.all
    times = timings(answers, answer)
    prompt, decode = (int(times[name] * 1e6) for name in ("prompt_ms", "predicted_ms"))
    return {
        "done": True,
        "done_reason": answer.reason,
        "total_duration": prompt + decode,
        "load_duration": 0,
        "prompt_eval_count": len(answer.request.ids),
        "prompt_eval_duration": prompt,
        "eval_count": answer.generated,
        "eval_duration": decode,
    }


def _time(seconds: float | None = None) -> str:
    when = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return when.isoformat().replace("+00:00", "Z")
