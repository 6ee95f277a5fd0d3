"""Whether the server is ready, its version, and its metrics."""

from __future__ import annotations

from aiohttp import web

from ternrun.server.generation.metrics import CONTENT_TYPE
from ternrun.server.generation.models import SERVICES
from ternrun.server.generation.service import Service
from ternrun.server.version import server_version


async def health(request: web.Request, _service: Service) -> web.Response:
    """503 while the model loads and while the server shuts down, 200 in between. Needs no key."""
    for service in request.app[SERVICES].all:
        _ = service.model
    return web.json_response({"status": "ok"})


async def version(_request: web.Request, _service: Service) -> web.Response:
    """This server's version, where vLLM tells its own."""
    return web.json_response({"version": server_version()})


async def metrics(_request: web.Request, service: Service) -> web.Response:
    """Prometheus' text format."""
    return web.Response(body=service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
