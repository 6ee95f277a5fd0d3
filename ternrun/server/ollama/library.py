"""Ollama's library: GET /api/tags and /api/ps, POST /api/show, and GET /api/version. There is no pulling or deleting:
the models are those that the server was started with, and all of them are loaded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.server.conversation.tool_call_formats import GENERIC, format_of
from ternrun.server.fields.reading import FieldTable, boolean, string
from ternrun.server.fields.unsupported import OLLAMA_SHOW_HINTS
from ternrun.server.generation.models import SERVICES
from ternrun.server.generation.request_fields import read_fields
from ternrun.server.generation.service import Service
from ternrun.server.version import server_version

if TYPE_CHECKING:
    from ternrun.api import Model

SHOW = FieldTable(
    read={"model": (string, ""), "name": (string, ""), "verbose": (boolean, False)},
    hints=OLLAMA_SHOW_HINTS,
)
NEVER = "9999-12-31T23:59:59Z"


async def tags(request: web.Request, _service: Service) -> web.Response:
    """The models served."""
    return web.json_response({"models": [_entry(service) for service in request.app[SERVICES].all]})


async def ps(request: web.Request, _service: Service) -> web.Response:
    """The models loaded, which is all of them."""
    return web.json_response({"models": [_loaded(service) for service in request.app[SERVICES].all]})


async def show(request: web.Request, service: Service) -> web.Response:
    """What one of them is and can do."""
    await read_fields(request, service, SHOW)
    return web.json_response(await asyncio.to_thread(_described, service))


async def version(_request: web.Request, _service: Service) -> web.Response:
    """Ours, not Ollama's."""
    return web.json_response({"version": server_version()})


def stamp(seconds: float | None = None) -> str:
    """A time as Ollama writes it; now, where none is given."""
    when = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return when.isoformat().replace("+00:00", "Z")


def _entry(service: Service) -> dict[str, Any]:
    model = service.model
    return {
        "name": service.name,
        "model": service.name,
        "modified_at": stamp(service.started),
        "size": model.size,
        "digest": sha256(f"{service.name} {model.size}".encode()).hexdigest(),  # to hash the file would take too long
        "details": _details(model),
    }


def _loaded(service: Service) -> dict[str, Any]:
    return _entry(service) | {"expires_at": NEVER, "size_vram": 0, "context_length": service.model.context}


def _details(model: Model) -> dict[str, Any]:
    family = model.config.architecture
    return {
        "parent_model": "",
        "format": model.format,
        "family": family,
        "families": [family],
        "parameter_size": _human(model.parameters),
        "quantization_level": model.encoding,
    }


def _described(service: Service) -> dict[str, Any]:
    """Beside the event loop: a template is compiled when it is first asked for."""
    model = service.model
    config, name, template = model.config, model.config.architecture, model.chat_template
    return {
        "modelfile": f"# served by ternrun\nFROM {service.name}\n",
        "parameters": f"num_ctx {model.context}",
        "template": template.source if template else "{{ .Prompt }}",
        "details": _details(model),
        "model_info": {
            "general.architecture": name,
            "general.basename": service.name,
            "general.parameter_count": model.parameters,
            f"{name}.context_length": config.context_length,
            f"{name}.embedding_length": config.dim,
            f"{name}.block_count": config.n_layers,
            f"{name}.feed_forward_length": config.ffn_dim,
            f"{name}.attention.head_count": config.n_heads,
            f"{name}.attention.head_count_kv": config.n_kv_heads,
            f"{name}.vocab_size": config.vocab_size,
        },
        "capabilities": _capabilities(service),
        "modified_at": stamp(service.started),
    }


def _capabilities(service: Service) -> list[str]:
    model = service.model
    template = model.chat_template
    told = template is not None and (format_of(template.source) is not GENERIC or find_spec("llguidance") is not None)
    embeds = (service.config.pooling or model.config.pooling) != "none"
    found = {
        "completion": model.config.causal,
        "tools": told and model.config.causal,
        "insert": model.tokenizer.fim is not None,
        "embedding": embeds,
    }
    return [name for name, has in found.items() if has]


def _human(count: int) -> str:
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"
