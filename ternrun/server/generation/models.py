"""The models of a server, each a `Service` with an engine of its own. A request's `model` selects one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.errors import UsageError
from ternrun.runtime.engine.counters import Counters
from ternrun.server.generation.metrics import Metrics
from ternrun.server.generation.service import Service
from ternrun.server.http.errors import ApiError
from ternrun.server.http.json_body import read_json
from ternrun.server.settings import ServerConfig

if TYPE_CHECKING:
    from ternrun.api import Model

Open = Callable[[], "Model"]

SHOW = "/api/show"  # Ollama's older clients say `name` there


class ModelServices:
    """`openers`: names -> the function that loads a model. Commas separate several names; answers use the first.

    A server with one model accepts any name, and takes the file's name if none is given. Raises UsageError if two
    models have the same name.
    """

    def __init__(self, config: ServerConfig, openers: Mapping[str, Open] | Open) -> None:
        given = openers if isinstance(openers, Mapping) else {config.alias: openers}
        self.config = config
        self.metrics = Metrics(self._load, self._counters)
        self._by_name: dict[str, Service] = {}
        self.all: list[Service] = []
        for names, opener in given.items():
            listed = [name for name in names.split(",") if name]
            self.all.append(Service(config, opener, self.metrics, listed[0] if listed else ""))
            for name in listed:
                if name in self._by_name:
                    raise UsageError(f"two models are called {name}")
                self._by_name[name] = self.all[-1]

    @property
    def default(self) -> Service:
        """The service for requests that name no model."""
        return self.all[0]

    def pick(self, name: Any) -> Service:
        """The service for a name or alias. Raises ApiError if several models are served and none has that name."""
        if len(self.all) == 1 or name is None or name == "":
            return self.default
        plain = name.removesuffix(":latest") if isinstance(name, str) else ""  # as Ollama's clients write it
        found = self._by_name.get(plain)
        if found is None:
            known = ", ".join(service.name for service in self.all)
            message = f"model: there is none of that name; this server has {known}"
            raise ApiError(message, status=404, param="model", code="model_not_found")
        return found

    async def load(self) -> None:
        """Load the models one after the other. Raises what loading raises."""
        for service in self.all:
            await service.load()

    async def close(self) -> None:
        """Close all models at once; see `Service.close`."""
        await asyncio.gather(*(service.close() for service in self.all))

    def _load(self) -> tuple[int, int]:
        loads = [service.load_now for service in self.all]
        return sum(running for running, _ in loads), sum(waiting for _, waiting in loads)

    def _counters(self) -> Counters:
        return Counters.total(service.counters for service in self.all)


SERVICES: web.AppKey[ModelServices] = web.AppKey("services", ModelServices)

Route = Callable[[web.Request, Service], Awaitable[web.StreamResponse]]


def serving(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler for aiohttp: the route with the model that the body, or else the query, names."""

    async def handle(request: web.Request) -> web.StreamResponse:
        services = request.app[SERVICES]
        service = services.default
        if len(services.all) > 1:
            if request.method == "POST":
                _ = service.model  # not loaded yet: said before the body is looked at
            service = services.pick(await _named(request, services.config.stall))
        return await route(request, service)

    handle.__doc__ = route.__doc__
    return handle


async def _named(request: web.Request, stall: float) -> Any:
    """The model that a request names, or None. Raises ApiError."""
    body = await read_json(request, stall, optional=True) if request.method == "POST" else {}
    fields = ("model", "name") if request.path == SHOW else ("model",)
    given = [body.get(field) for field in fields] if isinstance(body, dict) else []
    return next((name for name in (*given, request.query.get("model")) if name not in (None, "")), None)
