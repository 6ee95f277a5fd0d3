"""A real server on loopback, with a tiny model, in a thread of its own; and a client that is plain HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ternrun.api import Model
from ternrun.server.app.run import listening
from ternrun.server.generation.models import ModelServices, Open
from ternrun.server.generation.service import Service
from ternrun.server.settings import ServerConfig

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if shout %}!{% endif %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Of a stream that ends well: what stands before [DONE]."""
        *parts, rest = self.body.decode().split("\n\n")
        assert rest == ""
        assert all(part.startswith("data: ") and "\n" not in part for part in parts)
        assert parts.pop() == "data: [DONE]"
        return [json.loads(part[6:]) for part in parts]


class Server:
    """A server under test. `model` is what it serves, for the same question without HTTP."""

    def __init__(self, service: Service, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.service, self.url, self.loop = service, url, loop
        self.port = int(url.rpartition(":")[2])

    @property
    def model(self) -> Model:
        return self.service.model

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, data, named)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def complete(self, prompt: Any, **fields: Any) -> Any:
        answer = self.ask("/v1/completions", {"prompt": prompt, "temperature": 0, **fields})
        assert answer.status == 200, answer.body
        return answer.json


@contextmanager
def running(config: ServerConfig, open_model: Open | Mapping[str, Open], *, load: bool = True) -> Iterator[Server]:
    """Leaving it shuts the server down, gracefully."""
    ready, leave, found = threading.Event(), asyncio.Event(), []

    async def main() -> None:
        async with listening(ModelServices(config, open_model)) as (services, url):
            if load:
                await services.load()
            found.append(Server(services.default, url, asyncio.get_running_loop()))
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    assert ready.wait(120)
    try:
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(leave.set)
        thread.join(60)
        assert not thread.is_alive()
